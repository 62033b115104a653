//! Which node answers for a Service's addresses on L2 (`docs/upstream-behaviour.md#l2-election`).
//!
//! All speakers compute this from the same facts and come to the same answer; nothing is negotiated.
//!
//! [`Elections`] keeps the elections of all Services and costs what changes. All inputs from a Service are its key
//! (`election/key.rs`); while the key and the candidates are equal, the result is. Services that the same
//! advertisements reach share one [`Electorate`], so that thousands of them cost little more than their hashes.

pub mod hash;

mod candidates;
mod electorate;
mod groups;
mod key;
mod reason;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::Serialize;

use self::candidates::{CandidateSets, SetId, judge};
pub use self::candidates::{advertisements, interfaces};
pub use self::electorate::Electorate;
use self::groups::{Group, Groups, Order};
use self::key::Key;
pub use self::reason::{CandidateReason, L2Reason};
use crate::config::{L2Advertisement, Pool};
use crate::model::{Cluster, ExcludeLabel, Node, NodeName, Service, ServiceKey};

/// The nodes with a live speaker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LiveSpeakers {
    /// Every node of the cluster is presumed to have one.
    EveryNode,
    /// Exactly these, as membership or readiness says.
    Only(BTreeSet<NodeName>),
}

/// The rules for all elections of one moment.
#[derive(Clone, Debug)]
pub struct ElectionRules {
    /// The nodes with a live speaker.
    pub live: LiveSpeakers,
    /// Whether nodes with the exclude label take part.
    pub exclude_label: ExcludeLabel,
}

impl Default for ElectionRules {
    fn default() -> Self {
        Self { live: LiveSpeakers::EveryNode, exclude_label: ExcludeLabel::Honoured }
    }
}

/// A Service that holds addresses of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The Service.
    pub service: &'a Service,
    /// The pool that contains all of `ips`.
    pub pool: &'a Pool,
    /// Its addresses, in the order of its status; the first one is hashed.
    pub ips: &'a [IpAddr],
}

/// The outcome of one election.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Election {
    /// The node that answers, if any.
    pub owner: Option<NodeName>,
    /// The nodes that follow the owner, best first; at most [`SUCCESSORS`].
    pub successors: Vec<NodeName>,
    /// Why no node answers, or [`L2Reason::Elected`].
    pub reason: L2Reason,
}

/// One node in an election.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Candidate {
    /// The node.
    pub node: NodeName,
    /// Whether it may answer.
    pub eligible: bool,
    /// Why it may not, or [`CandidateReason::Eligible`].
    pub reason: CandidateReason,
}

/// The elections of all Services that hold addresses.
///
/// Services that share an address, directly or through others, are one group with one election: an address never has
/// two owners (`docs/upstream-behaviour.md#l2-order`). The group hashes the first address of its oldest Service; a node
/// that all of them can be served from goes first. Where their candidates have no node in common, the owner serves only
/// some of them. A Service that has no candidate at all belongs to no group.
///
/// Changes are made with [`set`](Self::set), [`remove`](Self::remove) and [`set_nodes`](Self::set_nodes); then
/// [`settle`](Self::settle) elects where something changed.
#[derive(Clone, Debug)]
pub struct Elections {
    rules: ElectionRules,
    sets: CandidateSets,
    entries: BTreeMap<ServiceKey, Entry>,
    groups: Groups,
    changed: Changed,
    work: Work,
}

/// The Services and addresses whose election may have another result than before.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changed {
    /// The Services.
    pub services: BTreeSet<ServiceKey>,
    /// Their addresses, those given back included, and whether a Service held the address before.
    pub ips: BTreeMap<IpAddr, WasHeld>,
}

/// Whether a Service held an address before a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WasHeld {
    /// A Service held it.
    Held,
    /// No Service held it.
    Free,
}

/// Counters of the work done, for tests and metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// Services whose inputs were read.
    pub services_read: u64,
    /// Elections in which all candidates were ranked.
    pub elections: u64,
    /// Addresses whose assignment was determined again, by a [`NodeView`](crate::announcement::NodeView).
    pub addresses_read: u64,
}

/// One Service.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    set: SetId,
    /// Its own candidates, or why it has none.
    own: Result<Arc<Electorate>, L2Reason>,
}

impl Elections {
    /// No Service takes part yet.
    #[must_use]
    pub fn new(rules: ElectionRules) -> Self {
        let (sets, entries, groups) = (CandidateSets::default(), BTreeMap::new(), Groups::default());
        Self { rules, sets, entries, groups, changed: Changed::default(), work: Work::default() }
    }

    /// The elections of these Services, on up to `threads` threads; the result is the same whatever their number.
    #[must_use]
    pub fn of<'a>(
        cluster: &Cluster,
        rules: &ElectionRules,
        holders: impl IntoIterator<Item = Holder<'a>>,
        threads: NonZeroUsize,
    ) -> Self {
        let mut elections = Self::new(rules.clone());
        for holder in holders {
            elections.set(holder, cluster);
        }
        elections.settle(threads);
        elections
    }

    /// Takes a Service in that holds addresses, or its new state; one without addresses is removed. The nodes are those
    /// of the last [`set_nodes`](Self::set_nodes), if there was one.
    pub fn set(&mut self, holder: Holder<'_>, cluster: &Cluster) {
        if holder.ips.is_empty() {
            return self.remove(&holder.service.key);
        }
        self.work.services_read += 1;
        let service = &holder.service.key;
        let endpoints = cluster.endpoints.get(service).map_or(&[][..], Vec::as_slice);
        let key = Key::of(holder, endpoints);
        if self.entries.get(service).is_some_and(|entry| entry.key == key) {
            return;
        }
        let set = self.sets.intern(&key.advertisements, &cluster.nodes, &self.rules);
        self.remove(service);
        for &ip in &key.ips {
            self.note_ip(ip);
            self.groups.hold(ip, service);
        }
        let own = key.candidates(self.sets.get(set));
        self.changed.services.insert(service.clone());
        self.groups.open(service);
        self.entries.insert(service.clone(), Entry { key, set, own });
    }

    /// Removes a Service, if it takes part.
    pub fn remove(&mut self, service: &ServiceKey) {
        let Some(entry) = self.entries.remove(service) else { return };
        for &ip in &entry.key.ips {
            self.note_ip(ip);
            self.groups.give_back(ip, service);
        }
        self.groups.open(service);
        self.sets.release(entry.set);
        self.changed.services.insert(service.clone());
    }

    /// Takes in the nodes as they are now, and the live speakers.
    pub fn set_nodes(&mut self, nodes: &BTreeMap<NodeName, Node>, live: LiveSpeakers) {
        self.rules.live = live;
        let changes = self.sets.update(nodes, &self.rules);
        if changes.is_empty() {
            return;
        }
        for (service, entry) in &mut self.entries {
            let Some(change) = changes.get(&entry.set).filter(|change| entry.key.reads(change)) else { continue };
            let own = entry.key.candidates(self.sets.get(entry.set));
            let before = std::mem::replace(&mut entry.own, own);
            match (&entry.own, before) {
                (Err(now), Err(before)) if *now == before => {}
                (Ok(own), Ok(_)) => match self.groups.follow(service, own, entry.key.local.as_ref(), change) {
                    Some(Order::Same) => {}
                    Some(Order::Changed) => drop(self.changed.services.insert(service.clone())),
                    None => self.groups.open(service),
                },
                _ => self.groups.open(service),
            }
        }
    }

    /// Elects wherever something changed, on up to `threads` threads. Returns what changed since the last call.
    pub fn settle(&mut self, threads: NonZeroUsize) -> Changed {
        self.groups.regroup(&self.entries, &self.sets, &mut self.changed.services);
        self.work.elections += self.groups.rank(threads, &mut self.changed.services);
        self.take_changed()
    }

    /// Finds what `node` owns wherever something changed, and leaves the ranking of the other nodes to a later
    /// [`settle`](Self::settle): about ln n hashes among n candidates, where a ranking needs n. Until then the owner
    /// of a Service may be unknown, if it is not `node`. Returns what changed since the last call.
    pub fn settle_for(&mut self, node: &NodeName) -> Changed {
        self.groups.regroup(&self.entries, &self.sets, &mut self.changed.services);
        self.groups.claim(node, &mut self.changed.services);
        self.take_changed()
    }

    /// The node that answers for an address, if any. It is found if a [`settle_for`](Self::settle_for) left it unknown.
    pub fn find_owner(&mut self, ip: IpAddr) -> Option<NodeName> {
        let services = self.groups.holders(ip).to_vec();
        for service in &services {
            if self.groups.of(service).is_some_and(|group| group.order().next().is_none()) {
                self.work.elections += self.groups.rank_one(service, &mut self.changed.services);
            }
        }
        services.iter().find_map(|service| self.election(service)?.owner)
    }

    /// The outcome for one Service; `None` when it holds no address.
    #[must_use]
    pub fn election(&self, service: &ServiceKey) -> Option<Election> {
        let entry = self.entries.get(service)?;
        let own = match &entry.own {
            Ok(own) => own,
            Err(reason) => return Some(Election { owner: None, successors: Vec::new(), reason: *reason }),
        };
        let group = self.groups.of(service)?;
        let mut order = group.order().cloned();
        let owner = order.next().filter(|owner| group.is_single() || own.contains(owner));
        let reason = if owner.is_some() { L2Reason::Elected } else { L2Reason::OwnedForSharingService };
        Some(Election { owner, successors: order.collect(), reason })
    }

    /// Why no node can answer for one Service; `None` where a node may.
    #[must_use]
    pub fn refusal(&self, service: &ServiceKey) -> Option<L2Reason> {
        self.entries.get(service).and_then(|entry| entry.own.as_ref().err().copied())
    }

    /// The nodes that come before `node` for an address, best first, as far as they are ranked. `None` where it is the
    /// first one or not among the best.
    pub(crate) fn predecessors(&self, ip: IpAddr, node: &NodeName) -> Option<Vec<NodeName>> {
        let mut before: Vec<NodeName> = self.group_of(ip)?.order().cloned().collect();
        let place = before.iter().position(|other| other == node).filter(|place| *place > 0)?;
        before.truncate(place);
        Some(before)
    }

    /// Whether the order of the nodes for an address stays the same when one that comes before `node` fails. It does
    /// where each of the Services that share addresses can be served from `node`: none of them then drops out.
    pub(crate) fn has_stable_order(&self, ip: IpAddr, node: &NodeName) -> bool {
        let serves = |service: &ServiceKey| {
            self.entries.get(service).is_some_and(|entry| entry.own.as_ref().is_ok_and(|own| own.contains(node)))
        };
        self.group_of(ip).is_some_and(|group| group.is_single() || group.members().iter().all(serves))
    }

    /// Whether some node can answer for an address.
    pub(crate) fn has_candidates(&self, ip: IpAddr) -> bool {
        self.group_of(ip).is_some()
    }

    fn group_of(&self, ip: IpAddr) -> Option<&Group> {
        self.groups.holders(ip).iter().find_map(|service| self.groups.of(service))
    }

    /// Every node of the cluster by name, and what speaks for or against it. Empty where the Service as a whole is
    /// refused.
    #[must_use]
    pub fn candidates(&self, service: &ServiceKey, nodes: &BTreeMap<NodeName, Node>) -> Vec<Candidate> {
        let Some(Entry { key, .. }) = self.entries.get(service).filter(|entry| entry.key.refusal.is_none()) else {
            return Vec::new();
        };
        let group = self.groups.of(service).filter(|group| !group.is_single());
        let candidate = |node: &Node| {
            let reason = match judge(node, &key.advertisements, key.local.as_ref(), &self.rules) {
                CandidateReason::Eligible if group.is_some_and(|group| !group.candidates().contains(&node.name)) => {
                    CandidateReason::NotForSharedIp
                }
                reason => reason,
            };
            Candidate { node: node.name.clone(), eligible: reason == CandidateReason::Eligible, reason }
        };
        nodes.values().map(candidate).collect()
    }

    /// The Services that hold an address.
    pub fn holders(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.groups.holders(ip).iter()
    }

    /// The addresses that Services hold, in no promised order.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.groups.ips()
    }

    /// The Services that take part, by name.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.entries.keys()
    }

    /// The addresses of a Service that takes part, in the order of its status.
    #[must_use]
    pub fn ips_of(&self, service: &ServiceKey) -> Option<&[IpAddr]> {
        self.entries.get(service).map(|entry| entry.key.ips.as_slice())
    }

    /// The lists of advertisements that reach Services, each once.
    pub fn advertisement_sets(&self) -> impl Iterator<Item = &[Arc<L2Advertisement>]> {
        self.sets.advertisements()
    }

    /// The advertisements that reach a Service.
    #[must_use]
    pub fn advertisements_of(&self, service: &ServiceKey) -> Option<&[Arc<L2Advertisement>]> {
        self.entries.get(service).map(|entry| &*entry.key.advertisements)
    }

    /// The rules for all elections.
    #[must_use]
    pub const fn rules(&self) -> &ElectionRules {
        &self.rules
    }

    /// The work done so far.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.work
    }

    fn take_changed(&mut self) -> Changed {
        let mut changed = std::mem::take(&mut self.changed);
        for entry in changed.services.iter().filter_map(|service| self.entries.get(service)) {
            for &ip in &entry.key.ips {
                changed.ips.entry(ip).or_insert(WasHeld::Held);
            }
        }
        changed
    }

    /// Remembers whether an address was held when the first change reached it.
    fn note_ip(&mut self, ip: IpAddr) {
        let held = if self.groups.holders(ip).is_empty() { WasHeld::Free } else { WasHeld::Held };
        self.changed.ips.entry(ip).or_insert(held);
    }
}

/// How many nodes after the owner an election names.
pub const SUCCESSORS: usize = 3;

#[cfg(test)]
mod tests;
