//! Which node answers for a Service's addresses on L2 (`docs/upstream-behaviour.md#l2-election`).
//!
//! All speakers compute this from the same facts and come to the same answer; nothing is negotiated.
//!
//! [`Elections`] holds one moment: the cluster, who lives, and which Service holds which addresses. Services whose candidates
//! are the same share one [`Electorate`], so that thousands of them cost little more than their hashes. [`Standings`]
//! remembers an owner table and keeps it current while nodes join and leave.

pub mod hash;

mod electorate;
mod reason;
mod sharing;
mod stake;
mod standings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

pub use self::electorate::Electorate;
pub use self::reason::{CandidateReason, L2Reason};
pub use self::stake::Stake;
pub use self::standings::Standings;
use crate::config::{L2Advertisement, Pool, any_matches};
use crate::model::{
    AnnotationKey, Cluster, Endpoint, ExcludeLabel, InterfaceName, Node, NodeName, Service, ServiceKey, TrafficPolicy,
};

/// Which nodes have a speaker that lives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LiveSpeakers {
    /// Every node of the cluster is presumed to have one.
    EveryNode,
    /// Exactly these, as membership or readiness says.
    Only(BTreeSet<NodeName>),
}

/// What holds for all elections of one moment.
#[derive(Clone, Debug)]
pub struct ElectionRules {
    /// Who is alive.
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
    /// Who answers; `None` when nobody does.
    pub owner: Option<NodeName>,
    /// Who would be next, best first; at most [`SUCCESSORS`], the owner not among them.
    pub successors: Vec<NodeName>,
    /// Why nobody answers, or [`L2Reason::Elected`].
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

/// All elections of one moment.
///
/// Services that share an address, directly or through others, are one group with one election: an address never has two
/// owners (`docs/upstream-behaviour.md#l2-order`). The group hashes the first address of its oldest Service; a node
/// that all of them can be
/// served from goes first. Where their candidates have no node in common, the owner serves only some of them. A Service that has no
/// candidate at all belongs to no group.
#[derive(Debug)]
pub struct Elections<'a> {
    cluster: &'a Cluster,
    rules: &'a ElectionRules,
    entries: BTreeMap<&'a ServiceKey, Entry<'a>>,
}

/// How one Service is elected.
#[derive(Debug)]
struct Entry<'a> {
    ads: Vec<&'a Arc<L2Advertisement>>,
    /// The address that is hashed.
    ip: IpAddr,
    service: &'a Service,
    /// Its own candidates, or why it has none.
    own: Result<Arc<Electorate>, L2Reason>,
    /// The candidates of its group, where it shares addresses.
    joint: Option<Arc<Electorate>>,
}

impl<'a> Elections<'a> {
    /// Prepares the elections of all Services that hold addresses; the hashing is done when a question is asked.
    #[must_use]
    pub fn new(cluster: &'a Cluster, rules: &'a ElectionRules, holders: impl IntoIterator<Item = Holder<'a>>) -> Self {
        let mut holders: Vec<Holder<'a>> = holders.into_iter().filter(|holder| !holder.ips.is_empty()).collect();
        // The oldest first: it speaks for its group, so that a Service that joins moves nothing.
        holders.sort_by_key(|holder| (holder.service.created.is_none(), holder.service.created, &holder.service.key));
        let mut electorates = Electorates { cluster, rules, cluster_wide: FxHashMap::default() };
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(holders.len());
        for holder in &holders {
            let ads: Vec<_> = advertisements(holder.pool, holder.service).collect();
            let own = electorates.of(holder.service, &ads);
            entries.push(Entry { ads, ip: holder.ips[0], service: holder.service, own, joint: None });
        }
        // Who cannot be announced says nothing about who answers for others.
        let announced = |(holder, entry): (&Holder<'a>, &Entry<'a>)| if entry.own.is_ok() { holder.ips } else { &[] };
        let groups = sharing::groups(holders.iter().zip(&entries).map(announced));
        for (entry, &group) in entries.iter_mut().zip(&groups) {
            entry.ip = holders[group].ips[0];
        }
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, &group) in groups.iter().enumerate() {
            members.entry(group).or_default().push(index);
        }
        for members in members.into_values().filter(|members| members.len() > 1) {
            let joint = join(cluster, members.iter().map(|&index| &entries[index]));
            for index in members {
                entries[index].joint = Some(Arc::clone(&joint));
            }
        }
        let entries = entries.into_iter().map(|entry| (&entry.service.key, entry)).collect();
        Self { cluster, rules, entries }
    }

    /// Elects for one Service; `None` when it holds no address. One hash per candidate.
    #[must_use]
    pub fn elect(&self, service: &ServiceKey) -> Option<Election> {
        self.entries.get(service).map(Entry::elect)
    }

    /// Why nobody can answer for one Service, as far as no hashing is needed to know; `None` where somebody may.
    #[must_use]
    pub fn refusal(&self, service: &ServiceKey) -> Option<L2Reason> {
        self.entries.get(service).and_then(|entry| entry.own.as_ref().err().copied())
    }

    /// Elects for all Services, on up to `threads` threads; the result is the same whatever their number.
    #[must_use]
    pub fn elect_all(&self, threads: NonZeroUsize) -> BTreeMap<&'a ServiceKey, Election> {
        let entries: Vec<&Entry<'a>> = self.entries.values().collect();
        let share = entries.len().div_ceil(threads.get()).max(1);
        let elect = |entries: &[&Entry<'a>]| -> Vec<(&'a ServiceKey, Election)> {
            entries.iter().map(|entry| (&entry.service.key, entry.elect())).collect()
        };
        std::thread::scope(|scope| {
            let mut shares = entries.chunks(share);
            let first = shares.next().unwrap_or_default();
            let others: Vec<_> = shares.map(|share| scope.spawn(move || elect(share))).collect();
            let mut elected: BTreeMap<_, _> = elect(first).into_iter().collect();
            for other in others {
                match other.join() {
                    Ok(share) => elected.extend(share),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            elected
        })
    }

    /// The Services whose addresses `node` answers for, by name. An election that the node loses ends at the first node that
    /// beats it, so this is far cheaper than [`Elections::elect`] for each.
    pub fn owned_by(&self, node: &NodeName) -> impl Iterator<Item = &'a ServiceKey> {
        // Services with the same candidates are asked about together.
        let mut together: FxHashMap<*const Electorate, (&Electorate, Vec<usize>, Vec<IpAddr>)> = FxHashMap::default();
        for (index, entry) in self.entries.values().enumerate() {
            let Ok(own) = &entry.own else { continue };
            if entry.joint.is_some() && !own.nodes().any(|other| other == node) {
                continue;
            }
            let electorate = entry.joint.as_ref().unwrap_or(own);
            let (_, entries, ips) =
                together.entry(Arc::as_ptr(electorate)).or_insert_with(|| (electorate, Vec::new(), Vec::new()));
            entries.push(index);
            ips.push(entry.ip);
        }
        let mut owned = vec![false; self.entries.len()];
        for (electorate, entries, ips) in together.into_values() {
            for place in electorate.places_owned_by(node, &ips) {
                owned[entries[place]] = true;
            }
        }
        self.entries.keys().zip(owned).filter(|(_, owned)| *owned).map(|(&key, _)| key)
    }

    /// Every node of the cluster by name, and what speaks for or against it. Empty where the Service as a whole is refused.
    #[must_use]
    pub fn candidates(&self, service: &ServiceKey) -> Vec<Candidate> {
        let Some(entry) = self.entries.get(service) else { return Vec::new() };
        if matches!(entry.own, Err(reason) if reason != L2Reason::NoCandidate) {
            return Vec::new();
        }
        let local = local_nodes(entry.service, self.cluster);
        let joint: Option<BTreeSet<&NodeName>> = entry.joint.as_ref().map(|joint| joint.nodes().collect());
        let candidate = |node: &Node| {
            let reason = match judge(node, &entry.ads, local.as_ref(), self.rules) {
                CandidateReason::Eligible if joint.as_ref().is_some_and(|joint| !joint.contains(&node.name)) => {
                    CandidateReason::NotForSharedIp
                }
                reason => reason,
            };
            Candidate { node: node.name.clone(), eligible: reason == CandidateReason::Eligible, reason }
        };
        self.cluster.nodes.values().map(candidate).collect()
    }
}

impl Entry<'_> {
    fn elect(&self) -> Election {
        let own = match &self.own {
            Ok(own) => own,
            Err(reason) => return Election { owner: None, successors: Vec::new(), reason: *reason },
        };
        let electorate = self.joint.as_ref().unwrap_or(own);
        let mut order = electorate.podium(self.ip, 1 + SUCCESSORS).into_iter();
        let owner = order.next().filter(|owner| self.joint.is_none() || own.nodes().any(|node| node == *owner));
        let reason = match owner {
            Some(_) => L2Reason::Elected,
            None if electorate.is_empty() => L2Reason::NoCandidate,
            None => L2Reason::OwnedForSharingService,
        };
        Election { owner: owner.cloned(), successors: order.cloned().collect(), reason }
    }
}

/// Builds electorates, one for all Services of the `Cluster` policy that the same advertisements reach.
struct Electorates<'a> {
    cluster: &'a Cluster,
    rules: &'a ElectionRules,
    /// By the addresses of the advertisements, which are shared, not copied.
    cluster_wide: FxHashMap<Vec<*const L2Advertisement>, Arc<Electorate>>,
}

impl<'a> Electorates<'a> {
    /// The candidates of a Service without regard to others, or the first reason against it as a whole.
    fn of(&mut self, service: &Service, ads: &[&'a Arc<L2Advertisement>]) -> Result<Arc<Electorate>, L2Reason> {
        let endpoints = self.cluster.endpoints.get(&service.key).map_or(&[][..], Vec::as_slice);
        if !endpoints.iter().any(Endpoint::is_usable) {
            return Err(L2Reason::NoEndpoints);
        }
        if ads.is_empty() {
            return Err(L2Reason::NoMatchingAdvertisement);
        }
        let selective = ads.iter().any(|ad| !ad.service_selectors.is_empty());
        if selective && service.has_annotation(AnnotationKey::AllowSharedIp) {
            return Err(L2Reason::SharedIpWithServiceSelector);
        }
        let electorate = match local_nodes(service, self.cluster) {
            Some(local) => {
                let nodes = local.iter().filter_map(|name| self.cluster.nodes.get(*name));
                Arc::new(gather(nodes, ads, Some(&local), self.rules))
            }
            None => {
                let key = ads.iter().map(|ad| Arc::as_ptr(ad)).collect();
                let build = || Arc::new(gather(self.cluster.nodes.values(), ads, None, self.rules));
                Arc::clone(self.cluster_wide.entry(key).or_insert_with(build))
            }
        };
        if electorate.is_empty() { Err(L2Reason::NoCandidate) } else { Ok(electorate) }
    }
}

/// The eligible ones of `nodes`, with their scores.
fn gather<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    ads: &[&Arc<L2Advertisement>],
    local: Option<&BTreeSet<&NodeName>>,
    rules: &ElectionRules,
) -> Electorate {
    Electorate::new(
        nodes
            .filter(|node| judge(node, ads, local, rules) == CandidateReason::Eligible)
            .map(|node| (node.name.clone(), score(node, ads))),
    )
}

/// The candidates that all Services of a group have in common; where there is none, those of any of them. Services that have
/// no candidate of their own have no say.
fn join<'a, 'e: 'a>(cluster: &Cluster, entries: impl Iterator<Item = &'a Entry<'e>> + Clone) -> Arc<Electorate> {
    let sets: Vec<(&Entry<'_>, BTreeSet<&NodeName>)> =
        entries.filter_map(|entry| Some((entry, entry.own.as_ref().ok()?.nodes().collect()))).collect();
    let Some((oldest, first)) = sets.first() else { return Arc::default() };
    let mut common = first.clone();
    common.retain(|name| sets.iter().all(|(_, set)| set.contains(name)));
    if common.is_empty() {
        common = sets.iter().flat_map(|(_, set)| set.iter().copied()).collect();
    }
    let scored = |name: &NodeName| (name.clone(), cluster.nodes.get(name).map_or(0, |node| score(node, &oldest.ads)));
    Arc::new(Electorate::new(common.into_iter().map(scored)))
}

/// The L2 advertisements of a pool that are for a Service.
pub fn advertisements<'a>(pool: &'a Pool, service: &Service) -> impl Iterator<Item = &'a Arc<L2Advertisement>> {
    pool.l2.iter().filter(|ad| any_matches(&ad.service_selectors, &service.labels))
}

/// The interfaces on which a node answers for a Service; empty means all.
#[must_use]
pub fn interfaces(service: &Service, pool: &Pool, node: &Node) -> BTreeSet<InterfaceName> {
    let mut union = BTreeSet::new();
    for ad in advertisements(pool, service).filter(|ad| ad.nodes.selects(node)) {
        if ad.interfaces.is_empty() {
            return BTreeSet::new();
        }
        union.extend(ad.interfaces.iter().cloned());
    }
    union
}

/// Whether one node is a candidate (`docs/upstream-behaviour.md#l2-election`).
fn judge(
    node: &Node,
    ads: &[&Arc<L2Advertisement>],
    local: Option<&BTreeSet<&NodeName>>,
    rules: &ElectionRules,
) -> CandidateReason {
    if matches!(&rules.live, LiveSpeakers::Only(names) if !names.contains(&node.name)) {
        CandidateReason::NoSpeaker
    } else if node.network_unavailable {
        CandidateReason::NetworkUnavailable
    } else if rules.exclude_label.excludes(node) {
        CandidateReason::ExcludedByLabel
    } else if !ads.iter().any(|ad| ad.nodes.selects(node)) {
        CandidateReason::NotSelected
    } else if local.is_some_and(|local| !local.contains(&node.name)) {
        CandidateReason::NoLocalEndpoint
    } else {
        CandidateReason::Eligible
    }
}

/// The preference of a node: the sum over all advertisements for the Service.
fn score(node: &Node, ads: &[&Arc<L2Advertisement>]) -> u64 {
    ads.iter().map(|ad| ad.score(node)).sum()
}

/// The nodes with a usable endpoint, where the traffic policy asks for them.
fn local_nodes<'a>(service: &Service, cluster: &'a Cluster) -> Option<BTreeSet<&'a NodeName>> {
    let endpoints = cluster.endpoints.get(&service.key).map_or(&[][..], Vec::as_slice);
    (service.traffic_policy == TrafficPolicy::Local).then(|| {
        endpoints.iter().filter(|endpoint| endpoint.is_usable()).filter_map(|endpoint| endpoint.node.as_ref()).collect()
    })
}

/// How many nodes after the owner an election names.
pub const SUCCESSORS: usize = 3;

#[cfg(test)]
mod tests;
