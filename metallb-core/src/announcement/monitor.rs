//! The nodes to monitor: those whose addresses this node would take over.

use std::collections::{BTreeMap, BTreeSet};

use crate::election::Elections;
use crate::model::{NodeName, ServiceKey};

/// The nodes that come before this one, counted over all Services.
#[derive(Debug, Default)]
pub(super) struct Monitoring {
    /// The nodes that come before this one, by Service; a Service without any is left out.
    before_us: BTreeMap<ServiceKey, Vec<NodeName>>,
    /// The number of Services for which a node comes before this one.
    counts: BTreeMap<NodeName, usize>,
    /// Services to look at again.
    open: BTreeSet<ServiceKey>,
    /// Whether the next answer is given though it is the same.
    is_due: bool,
}

impl Monitoring {
    /// Has Services looked at again. `is_due` asks for an answer even if nothing changes.
    pub(super) fn open(&mut self, services: BTreeSet<ServiceKey>, is_due: bool) {
        self.open.extend(services);
        self.is_due |= is_due;
    }

    /// The nodes to monitor, unless they are the same as at the last call.
    pub(super) fn follow(&mut self, me: &NodeName, elections: &Elections) -> Option<BTreeSet<NodeName>> {
        let mut is_due = std::mem::take(&mut self.is_due);
        for service in std::mem::take(&mut self.open) {
            for node in self.before_us.remove(&service).unwrap_or_default() {
                if let Some(count) = self.counts.get_mut(&node) {
                    *count -= 1;
                    if *count == 0 {
                        self.counts.remove(&node);
                        is_due = true;
                    }
                }
            }
            let before_us = before(me, &service, elections);
            for node in &before_us {
                let count = self.counts.entry(node.clone()).or_default();
                *count += 1;
                is_due |= *count == 1;
            }
            if !before_us.is_empty() {
                self.before_us.insert(service, before_us);
            }
        }
        is_due.then(|| self.counts.keys().cloned().collect())
    }
}

/// The nodes that come before `me` for one Service; none where `me` is not among the first.
fn before(me: &NodeName, service: &ServiceKey, elections: &Elections) -> Vec<NodeName> {
    let Some(election) = elections.election(service) else { return Vec::new() };
    let mut order: Vec<NodeName> = election.owner.into_iter().chain(election.successors).collect();
    match order.iter().position(|node| node == me) {
        Some(place) => {
            order.truncate(place);
            order
        }
        None => Vec::new(),
    }
}
