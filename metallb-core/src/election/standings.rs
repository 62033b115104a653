//! A remembered owner table: what changes when one node joins or leaves, without electing anew.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::electorate::{Electorate, Standing};
use super::hash::IpText;
use crate::model::NodeName;

/// The best few candidates of many addresses in one electorate.
///
/// A node that joins costs one hash per address. A node that leaves costs none: its successors are known; only an address whose
/// remembered candidates have all left is elected anew.
#[derive(Clone, Debug)]
pub struct Standings {
    electorate: Electorate,
    rows: Vec<Row>,
    by_ip: FxHashMap<IpAddr, usize>,
}

#[derive(Clone, Debug)]
struct Row {
    ip: IpAddr,
    text: IpText,
    /// The best candidates, best first: a correct beginning of the whole order, at most [`DEPTH`] long.
    best: Vec<(Standing, usize)>,
}

impl Standings {
    /// Elects for every address once.
    #[must_use]
    pub fn new(electorate: Electorate, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut by_ip = FxHashMap::default();
        for ip in ips {
            by_ip.entry(ip).or_insert_with(|| {
                let text = IpText::new(ip);
                rows.push(Row { ip, best: electorate.best(&text, DEPTH), text });
                rows.len() - 1
            });
        }
        Self { electorate, rows, by_ip }
    }

    /// Who answers for an address of the table.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&NodeName> {
        self.place(ip, 0)
    }

    /// Who would follow if the owner left. After several departures it may be unknown although there is one.
    #[must_use]
    pub fn successor(&self, ip: IpAddr) -> Option<&NodeName> {
        self.place(ip, 1)
    }

    /// The addresses for which a node answers.
    pub fn owned_by(&self, node: &NodeName) -> impl Iterator<Item = IpAddr> {
        let index = self.electorate.members().iter().position(|member| member.node == *node);
        self.rows.iter().filter(move |row| index.is_some() && row.owner() == index).map(|row| row.ip)
    }

    /// A node may answer from now on. Returns the addresses that move to it; a node that takes part already moves none.
    pub fn join(&mut self, node: &NodeName, score: u64) -> Vec<IpAddr> {
        if self.electorate.nodes().any(|other| other == node) {
            return Vec::new();
        }
        let before = self.electorate.len();
        let joined = self.electorate.join(node.clone(), score);
        let member = &self.electorate.members()[joined];
        let mut moved = Vec::new();
        for row in &mut self.rows {
            let complete = row.best.len() == before;
            for (_, index) in &mut row.best {
                *index += usize::from(*index >= joined);
            }
            let standing = member.standing(&row.text);
            if !complete && row.best.last().is_none_or(|(worst, _)| standing > *worst) {
                continue;
            }
            let at = row.best.partition_point(|(other, _)| *other < standing);
            row.best.insert(at, (standing, joined));
            row.best.truncate(DEPTH);
            if at == 0 {
                moved.push(row.ip);
            }
        }
        moved
    }

    /// A node answers no more. Returns the addresses that it owned.
    pub fn leave(&mut self, node: &NodeName) -> Vec<IpAddr> {
        let Some(left) = self.electorate.leave(node) else { return Vec::new() };
        let mut moved = Vec::new();
        for row in &mut self.rows {
            if row.owner() == Some(left) {
                moved.push(row.ip);
            }
            row.best.retain(|(_, index)| *index != left);
            for (_, index) in &mut row.best {
                *index -= usize::from(*index > left);
            }
            if row.best.is_empty() {
                row.best = self.electorate.best(&row.text, DEPTH);
            }
        }
        moved
    }

    fn place(&self, ip: IpAddr, place: usize) -> Option<&NodeName> {
        let (_, index) = self.rows[*self.by_ip.get(&ip)?].best.get(place)?;
        Some(&self.electorate.members()[*index].node)
    }
}

impl Row {
    fn owner(&self) -> Option<usize> {
        self.best.first().map(|(_, index)| *index)
    }
}

/// How many candidates are remembered per address: three departures in a row cost nothing.
const DEPTH: usize = 4;
