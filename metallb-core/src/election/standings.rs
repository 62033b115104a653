//! A remembered owner table: what changes when one node joins or leaves, without electing anew.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::electorate::{Electorate, Member, Place, Standing, offer};
use super::hash::IpText;
use crate::model::NodeName;

/// The best few candidates of many addresses in one electorate.
///
/// A node that joins costs one hash per address. A node that leaves costs none: its successors are known; only an address whose
/// remembered candidates have all left is elected anew.
#[derive(Clone, Debug)]
pub struct Standings {
    /// Shared by the copies of a table.
    members: Slab<Arc<Member>>,
    by_node: FxHashMap<NodeName, usize>,
    by_ip: FxHashMap<IpAddr, usize>,
    /// By row, as all that follows: apart from each other, because a change of members goes through few of them.
    ips: Vec<IpAddr>,
    texts: Vec<IpText>,
    bars: Vec<Bar>,
    seats: Vec<[usize; DEPTH]>,
    /// The best candidates, best first: a correct beginning of the whole order, at most [`DEPTH`] long.
    best: Vec<Vec<Place>>,
}

/// What a newcomer must reach to come among the best of an address; lower is better, and who reaches it may still stand behind.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Bar(Reverse<u64>, u64);

impl Standings {
    /// Elects for every address once.
    #[must_use]
    pub fn new(electorate: Electorate, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut by_ip = FxHashMap::default();
        let mut rows = Vec::new();
        for ip in ips {
            by_ip.entry(ip).or_insert_with(|| {
                rows.push(ip);
                rows.len() - 1
            });
        }
        let texts: Vec<IpText> = rows.iter().map(|&ip| IpText::new(ip)).collect();
        let best = electorate.best(&texts, DEPTH);
        // The places of the electorate become keys of the slab.
        let members: Slab<Arc<Member>> = electorate.into_members().into_iter().map(Arc::new).enumerate().collect();
        let by_node = members.iter().map(|(key, member)| (member.node.clone(), key)).collect();
        let (bars, seats) = best.iter().map(|best| (Bar::of(best), seats(best))).unzip();
        Self { members, by_node, by_ip, ips: rows, texts, bars, seats, best }
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
        let key = self.by_node.get(node).copied();
        let owned = self.seats.iter().zip(&self.ips).filter(move |(seats, _)| Some(seats[0]) == key);
        owned.map(|(_, &ip)| ip)
    }

    /// A node may answer from now on. Returns the addresses that move to it; a node that takes part already moves none.
    pub fn join(&mut self, node: &NodeName, score: u64) -> Vec<IpAddr> {
        if self.by_node.contains_key(node) {
            return Vec::new();
        }
        let before = self.members.len();
        let member = Member::new(node.clone(), score);
        let mut reached = Vec::new();
        let mut bars = self.bars.iter().enumerate();
        member.block.rank_each(self.texts.iter(), |rank| {
            if let Some((row, bar)) = bars.next()
                && Bar(Reverse(score), rank.leading()) <= *bar
            {
                reached.push((row, Standing(Reverse(score), rank)));
            }
        });
        let joined = self.members.insert(Arc::new(member));
        self.by_node.insert(node.clone(), joined);

        let mut moved = Vec::new();
        for (row, standing) in reached {
            let best = &mut self.best[row];
            // Behind the last one that is remembered there may be others who are not, and who stand before this one.
            let complete = best.len() == before;
            if !complete && best.last().is_none_or(|(worst, _)| standing > *worst) {
                continue;
            }
            offer(best, (standing, joined), DEPTH);
            if best[0].1 == joined {
                moved.push(self.ips[row]);
            }
            self.note(row);
        }
        moved
    }

    /// A node answers no more. Returns the addresses that it owned.
    pub fn leave(&mut self, node: &NodeName) -> Vec<IpAddr> {
        let Some(left) = self.by_node.remove(node) else { return Vec::new() };
        self.members.remove(left);
        let mut moved = Vec::new();
        for row in 0..self.seats.len() {
            if !self.seats[row].contains(&left) {
                continue;
            }
            if self.seats[row][0] == left {
                moved.push(self.ips[row]);
            }
            self.best[row].retain(|(_, key)| *key != left);
            if self.best[row].is_empty() {
                self.elect(row);
            }
            self.note(row);
        }
        moved
    }

    /// Finds the best members for an address among all.
    fn elect(&mut self, row: usize) {
        let (text, best) = (&self.texts[row], &mut self.best[row]);
        for (key, member) in &self.members {
            offer(best, (member.standing(text), key), DEPTH);
        }
    }

    /// Writes down what follows from the best candidates of an address.
    fn note(&mut self, row: usize) {
        self.bars[row] = Bar::of(&self.best[row]);
        self.seats[row] = seats(&self.best[row]);
    }

    fn place(&self, ip: IpAddr, place: usize) -> Option<&NodeName> {
        let (_, key) = self.best[*self.by_ip.get(&ip)?].get(place)?;
        Some(&self.members[*key].node)
    }
}

impl Bar {
    /// Rows that are not full may take anybody.
    fn of(best: &[Place]) -> Self {
        match best.get(DEPTH - 1) {
            Some((Standing(score, rank), _)) => Self(*score, rank.leading()),
            None => Self(Reverse(0), u64::MAX),
        }
    }
}

fn seats(best: &[Place]) -> [usize; DEPTH] {
    let mut seats = [NOBODY; DEPTH];
    for (seat, (_, key)) in seats.iter_mut().zip(best) {
        *seat = *key;
    }
    seats
}

/// How many candidates are remembered per address: three departures in a row cost nothing.
const DEPTH: usize = 4;
/// A vacant seat; no slab is so large.
const NOBODY: usize = usize::MAX;
