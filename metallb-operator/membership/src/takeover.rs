//! The addresses that this node announces, derived from its assignments and the live members.
//!
//! The speaker computes the assignments, see [`Assignment`]. That takes time, and its loop may be busy with a large
//! configuration while an owner dies. So an assignment says in advance what a death changes: a node that is on standby
//! for an address owns it as soon as none of its predecessors is live, and gives it back to the first of them that is
//! live again. `Takeover` applies this rule to each change of the live members, before the speaker knows of it.
//!
//! # Assignments that were computed with older live members
//! Live members are numbered by [`Generation`]: each change begins a new one, and each message of the speaker names the
//! one that it was computed with. A message may thus arrive when the live members have changed again.
//!
//! - *A member has died since.* The message names it as a predecessor, and a predecessor that is not live does not
//!   count: the message does not take the address away.
//! - *A predecessor has returned since.* The message does not name it: it calls this node the owner, or names only the
//!   other predecessors. A predecessor that is live, and that the message cannot know, is therefore kept until a
//!   message that was computed with it: the message does not give the address to a second node.
//! - *A member has joined since that was no predecessor before.* Whether it comes before this node is for the speaker
//!   to compute. Until then this node acts as if it did not.
//!
//! The order among the other nodes does not depend on live members, and a takeover is thus the one that the speaker
//! computes later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use metallb_core::announcement::{AddressChanges, Assignment, Predecessors, Scope};
use metallb_core::model::NodeName;

/// The number of a set of live members: a later set has a higher one.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Generation(u64);

/// Assignments, as the speaker sends them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The assignments that changed.
    pub addresses: AddressChanges,
    /// The live members that they were computed with.
    pub generation: Generation,
    /// The nodes to monitor, if they are to be replaced.
    pub monitor: Option<BTreeSet<NodeName>>,
    /// The live members that the order of predecessors was last computed with; `None` where this plan contains no new
    /// ranking.
    pub ranked: Option<Generation>,
}

/// The role of this node for an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// It announces the address on these interfaces.
    Held(Scope),
    /// It does not announce the address. The owner, if it is known, is offered it.
    Released(Option<NodeName>),
}

/// The assignments of this node and the live members.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    live: BTreeSet<NodeName>,
    /// Whether this node is live itself.
    is_ready: bool,
    generation: Generation,
    /// When each live member became live.
    live_since: BTreeMap<NodeName, Generation>,
    /// The last assignments that the speaker sent.
    assignments: BTreeMap<IpAddr, Assignment>,
    /// The generation of the last ranking.
    ranked: Generation,
    /// The predecessors of addresses whose last assignment cannot know all of them.
    kept: BTreeMap<IpAddr, Predecessors>,
    /// The addresses with predecessors, by their list.
    lists: BTreeMap<Predecessors, List>,
    looked_at: u64,
}

/// The addresses with the same predecessors.
#[derive(Debug, Default)]
struct List {
    ips: BTreeSet<IpAddr>,
    /// The first live predecessor.
    first: Option<NodeName>,
}

impl Plan {
    /// Adds a later plan. Of two assignments of one address the later one counts.
    pub fn merge(&mut self, later: Self) {
        self.addresses.extend(later.addresses);
        self.generation = later.generation;
        self.monitor = later.monitor.or(self.monitor.take());
        self.ranked = later.ranked.or(self.ranked);
    }
}

impl Takeover {
    /// The number of the present live members.
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// How many addresses were looked at, for tests.
    pub(crate) const fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Replaces the live members. Returns what changes for addresses with predecessors. A node that is not live itself,
    /// because it is not ready, takes nothing over and keeps what it has until the speaker hands it over.
    pub(crate) fn set_live(&mut self, live: &BTreeSet<NodeName>, me: &NodeName) -> Vec<(IpAddr, Wanted)> {
        self.generation.0 += 1;
        self.live_since.retain(|node, _| live.contains(node));
        for node in live.difference(&self.live) {
            self.live_since.insert(node.clone(), self.generation);
        }
        self.live.clone_from(live);
        let was_ready = std::mem::replace(&mut self.is_ready, live.contains(me));
        if !self.is_ready {
            return Vec::new();
        }
        let mut moved = Vec::new();
        for (list, state) in &mut self.lists {
            let first = first_live(list, live);
            // A node that was not ready has taken nothing over.
            if state.first != first || !was_ready {
                state.first = first;
                moved.extend(&state.ips);
            }
        }
        self.looked_at += moved.len() as u64;
        moved.into_iter().map(|ip| (ip, self.wanted(ip))).collect()
    }

    /// Takes the assignments of a plan in. Returns what the node does with their addresses.
    pub(crate) fn plan(&mut self, plan: &Plan) -> Vec<(IpAddr, Wanted)> {
        self.ranked = plan.ranked.unwrap_or(self.ranked);
        let mut ips: BTreeSet<IpAddr> = plan.addresses.keys().copied().collect();
        for (&ip, assignment) in &plan.addresses {
            self.assign(ip, assignment.clone(), plan.generation);
        }
        if plan.ranked.is_some() {
            let is_known = |list: &Predecessors| !list.iter().any(|node| self.is_unknown(node, self.ranked));
            let known = self.kept.iter().filter(|(_, list)| is_known(list)).map(|(ip, _)| *ip);
            for ip in known.collect::<Vec<_>>() {
                self.forget(ip);
                self.kept.remove(&ip);
                self.remember(ip);
                ips.insert(ip);
            }
        }
        self.looked_at += ips.len() as u64;
        ips.into_iter().map(|ip| (ip, self.wanted(ip))).collect()
    }

    fn assign(&mut self, ip: IpAddr, now: Assignment, generation: Generation) {
        let before = self.predecessors(ip).cloned().unwrap_or_else(|| [].into());
        self.forget(ip);
        self.kept.remove(&ip);
        // An owner is that of the plan itself. A list may be that of an earlier plan that was merged with it.
        let (known, named) = match &now {
            Assignment::Owner(_) => (generation, None),
            Assignment::Standby(_, list) => (self.ranked, Some(list)),
            Assignment::GivenUp(_) | Assignment::None => (self.generation, None),
        };
        if before.iter().any(|node| self.is_unknown(node, known)) {
            let is_named = |node: &NodeName| named.is_some_and(|list| list.contains(node));
            // The order is that of the earlier list. Nodes that it does not have come after it.
            let earlier = before.iter().filter(|node| is_named(node) || self.is_unknown(node, known));
            let later = named.into_iter().flat_map(|list| &**list).filter(|node| !before.contains(node));
            self.kept.insert(ip, earlier.chain(later).cloned().collect());
        }
        match now {
            Assignment::None => drop(self.assignments.remove(&ip)),
            now => drop(self.assignments.insert(ip, now)),
        }
        self.remember(ip);
    }

    /// Whether a node is live, and was not in an earlier generation.
    fn is_unknown(&self, node: &NodeName, generation: Generation) -> bool {
        self.live_since.get(node).is_some_and(|since| *since > generation)
    }

    /// The present role of this node for an address.
    pub(crate) fn wanted(&self, ip: IpAddr) -> Wanted {
        let first = self.predecessors(ip).and_then(|list| self.lists.get(list)?.first.clone());
        match (self.assignments.get(&ip), first) {
            (Some(Assignment::Owner(scope)), None) => Wanted::Held(scope.clone()),
            (Some(Assignment::Standby(scope, _)), None) if self.is_ready => Wanted::Held(scope.clone()),
            (Some(Assignment::Owner(_) | Assignment::Standby(..)), owner) => Wanted::Released(owner),
            (Some(Assignment::GivenUp(owner)), _) => Wanted::Released(Some(owner.clone())),
            (Some(Assignment::None) | None, _) => Wanted::Released(None),
        }
    }

    /// The nodes before this one: those that were kept, or else those of the assignment.
    fn predecessors(&self, ip: IpAddr) -> Option<&Predecessors> {
        match (self.kept.get(&ip), self.assignments.get(&ip)) {
            (Some(list), _) | (None, Some(Assignment::Standby(_, list))) => Some(list),
            _ => None,
        }
    }

    fn forget(&mut self, ip: IpAddr) {
        let Some(list) = self.predecessors(ip).cloned() else { return };
        if let Some(state) = self.lists.get_mut(&list) {
            state.ips.remove(&ip);
            if state.ips.is_empty() {
                self.lists.remove(&list);
            }
        }
    }

    fn remember(&mut self, ip: IpAddr) {
        let Some(list) = self.predecessors(ip).cloned() else { return };
        let live = &self.live;
        let state = self
            .lists
            .entry(list)
            .or_insert_with_key(|list| List { ips: BTreeSet::new(), first: first_live(list, live) });
        state.ips.insert(ip);
    }
}

fn first_live(list: &[NodeName], live: &BTreeSet<NodeName>) -> Option<NodeName> {
    list.iter().find(|node| live.contains(*node)).cloned()
}

#[cfg(test)]
mod tests;
