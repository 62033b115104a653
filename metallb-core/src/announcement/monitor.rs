//! The nodes to monitor, and the addresses that this node would take over from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::answers::{Answering, standby};
use super::{Predecessors, Ranked};
use crate::election::Elections;
use crate::model::{Node, NodeName};

/// The nodes that come before this one, by address.
#[derive(Debug, Default)]
pub(super) struct Monitoring {
    /// Addresses for which no node comes before this one, or for which it is not among the first, are left out.
    before_us: BTreeMap<IpAddr, Predecessors>,
    /// Each list once, with the number of its addresses.
    lists: BTreeMap<Predecessors, usize>,
    /// The number of addresses for which a node comes before this one.
    counts: BTreeMap<NodeName, usize>,
    /// Addresses to look at again.
    open: BTreeSet<IpAddr>,
    /// Whether the nodes are given though they are the same.
    is_due: bool,
    looked_at: u64,
}

impl Monitoring {
    /// Has addresses looked at again.
    pub(super) fn open(&mut self, ips: impl IntoIterator<Item = IpAddr>) {
        self.open.extend(ips);
    }

    /// Has all addresses looked at again that this node would take over.
    pub(super) fn open_all(&mut self) {
        self.open.extend(self.before_us.keys());
    }

    /// Has the nodes given by the next [`follow`](Self::follow) even if they are the same.
    pub(super) const fn ask_again(&mut self) {
        self.is_due = true;
    }

    /// How often the nodes before this one were determined for an address.
    pub(super) const fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Follows the ranking of the nodes.
    pub(super) fn follow(
        &mut self,
        name: &NodeName,
        me: Option<&Node>,
        elections: &mut Elections,
        answering: &mut Answering,
    ) -> Ranked {
        let mut ranked = Ranked::default();
        for ip in std::mem::take(&mut self.open) {
            self.looked_at += 1;
            let before = elections.predecessors(ip, name).map(|before| self.share(before));
            let inherited = standby(ip, name, me, elections);
            self.replace(ip, before.clone());
            answering.stand_by(ip, inherited.map(|(scope, _)| scope).zip(before), elections, &mut ranked.addresses);
        }
        ranked.monitor = std::mem::take(&mut self.is_due).then(|| self.counts.keys().cloned().collect());
        ranked
    }

    /// The list that other addresses with the same nodes have.
    fn share(&self, before: Vec<NodeName>) -> Predecessors {
        self.lists.get_key_value(&*before).map_or_else(|| before.into(), |(list, _)| Predecessors::clone(list))
    }

    fn replace(&mut self, ip: IpAddr, now: Option<Predecessors>) {
        let before = match &now {
            Some(list) => self.before_us.insert(ip, Predecessors::clone(list)),
            None => self.before_us.remove(&ip),
        };
        if before == now {
            return;
        }
        if let Some(list) = before {
            for node in &*list {
                self.is_due |= lower(&mut self.counts, node);
            }
            lower(&mut self.lists, &list);
        }
        if let Some(list) = now {
            for node in &*list {
                let count = self.counts.entry(node.clone()).or_default();
                *count += 1;
                self.is_due |= *count == 1;
            }
            *self.lists.entry(list).or_default() += 1;
        }
    }
}

/// Lowers a counter; whether it is gone because it reached zero.
fn lower<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    *count == 0 && counts.remove(key).is_some()
}
