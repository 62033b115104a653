//! Which node answers for a Service's addresses on L2 (contract speaker §1).
//!
//! All speakers compute this from the same facts and come to the same answer; nothing is negotiated.

pub mod hash;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use self::hash::Rank;
use crate::config::{L2Advertisement, Pool, any_matches};
use crate::model::{AnnotationKey, Cluster, Endpoint, InterfaceName, Node, NodeName, Service, TrafficPolicy};

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
    /// `--ignore-exclude-lb`: nodes with the exclude label take part.
    pub ignore_exclude_label: bool,
}

impl Default for ElectionRules {
    fn default() -> Self {
        Self { live: LiveSpeakers::EveryNode, ignore_exclude_label: false }
    }
}

/// The outcome of one election.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Election {
    /// Who answers; `None` when nobody does.
    pub owner: Option<NodeName>,
    /// Who would be next, best first; the owner is not among them.
    pub successors: Vec<NodeName>,
    /// Every node that was looked at, by name, with what spoke for or against it.
    pub candidates: Vec<Candidate>,
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

/// What speaks for or against a node.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum CandidateReason {
    /// It may answer.
    Eligible,
    /// No speaker lives on it.
    NoSpeaker,
    /// Its condition `NetworkUnavailable` is true.
    NetworkUnavailable,
    /// It carries the label that excludes it from load balancers.
    ExcludedByLabel,
    /// No L2Advertisement for the Service selects it.
    NotSelected,
    /// The traffic policy is Local and no usable endpoint runs on it.
    NoLocalEndpoint,
}

impl CandidateReason {
    /// All reasons with one sentence each.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Eligible, "The node may answer."),
        (Self::NoSpeaker, "No speaker lives on the node."),
        (Self::NetworkUnavailable, "The node's condition `NetworkUnavailable` is true."),
        (Self::ExcludedByLabel, "The node carries `node.kubernetes.io/exclude-from-external-load-balancers`."),
        (Self::NotSelected, "No L2Advertisement for the Service selects the node."),
        (Self::NoLocalEndpoint, "The traffic policy is Local and no usable endpoint runs on the node."),
    ];

    /// The code, as machines read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "Eligible",
            Self::NoSpeaker => "NoSpeaker",
            Self::NetworkUnavailable => "NetworkUnavailable",
            Self::ExcludedByLabel => "ExcludedByLabel",
            Self::NotSelected => "NotSelected",
            Self::NoLocalEndpoint => "NoLocalEndpoint",
        }
    }
}

/// Why an election ended as it did.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum L2Reason {
    /// A node was elected.
    Elected,
    /// The Service has no usable endpoint.
    NoEndpoints,
    /// No L2Advertisement reaches the pool and the Service.
    NoMatchingAdvertisement,
    /// The Service may share its address and an advertisement chooses by Service labels.
    SharedIpWithServiceSelector,
    /// No node is left after all conditions.
    NoCandidate,
}

impl L2Reason {
    /// All reasons with one sentence each.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Elected, "A node was elected."),
        (Self::NoEndpoints, "The Service has no usable endpoint."),
        (Self::NoMatchingAdvertisement, "No L2Advertisement reaches the pool and the Service."),
        (Self::SharedIpWithServiceSelector, "The Service may share its address and an advertisement chooses by Service labels."),
        (Self::NoCandidate, "No node is left after all conditions."),
    ];

    /// The code, as machines read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elected => "Elected",
            Self::NoEndpoints => "NoEndpoints",
            Self::NoMatchingAdvertisement => "NoMatchingAdvertisement",
            Self::SharedIpWithServiceSelector => "SharedIpWithServiceSelector",
            Self::NoCandidate => "NoCandidate",
        }
    }
}

/// The L2 advertisements of a pool that are for a Service.
pub fn advertisements<'a>(pool: &'a Pool, service: &'a Service) -> impl Iterator<Item = &'a Arc<L2Advertisement>> {
    pool.l2.iter().filter(|ad| any_matches(&ad.service_selectors, &service.labels))
}

/// Elects the node that answers for the addresses of a Service. `ip` is the address that is hashed: the first of the Service's
/// status, or the one that [`shared_identity`] gives.
#[must_use]
pub fn elect(service: &Service, ip: IpAddr, pool: &Pool, cluster: &Cluster, rules: &ElectionRules) -> Election {
    let endpoints = cluster.endpoints.get(&service.key).map_or(&[][..], Vec::as_slice);
    let ads: Vec<&Arc<L2Advertisement>> = advertisements(pool, service).collect();
    let refusal = if !endpoints.iter().any(Endpoint::is_usable) {
        Some(L2Reason::NoEndpoints)
    } else if ads.is_empty() {
        Some(L2Reason::NoMatchingAdvertisement)
    } else if service.has_annotation(AnnotationKey::AllowSharedIp) && ads.iter().any(|ad| !ad.service_selectors.is_empty()) {
        Some(L2Reason::SharedIpWithServiceSelector)
    } else {
        None
    };
    if let Some(reason) = refusal {
        return Election { owner: None, successors: Vec::new(), candidates: Vec::new(), reason };
    }

    let local: Option<BTreeSet<&NodeName>> = (service.traffic_policy == TrafficPolicy::Local)
        .then(|| endpoints.iter().filter(|endpoint| endpoint.is_usable()).filter_map(|endpoint| endpoint.node.as_ref()).collect());
    let judge = |node: &Node| {
        if matches!(&rules.live, LiveSpeakers::Only(names) if !names.contains(&node.name)) {
            CandidateReason::NoSpeaker
        } else if node.network_unavailable {
            CandidateReason::NetworkUnavailable
        } else if node.is_excluded() && !rules.ignore_exclude_label {
            CandidateReason::ExcludedByLabel
        } else if !ads.iter().any(|ad| ad.nodes.selects(node)) {
            CandidateReason::NotSelected
        } else if local.as_ref().is_some_and(|local| !local.contains(&node.name)) {
            CandidateReason::NoLocalEndpoint
        } else {
            CandidateReason::Eligible
        }
    };
    let candidates: Vec<Candidate> = cluster
        .nodes
        .values()
        .map(|node| {
            let reason = judge(node);
            Candidate { node: node.name.clone(), eligible: reason == CandidateReason::Eligible, reason }
        })
        .collect();
    let eligible = candidates.iter().filter(|candidate| candidate.eligible).filter_map(|candidate| cluster.nodes.get(&candidate.node));
    let mut order = rank(eligible, ip, &ads);
    let owner = (!order.is_empty()).then(|| order.remove(0));
    let reason = if owner.is_some() { L2Reason::Elected } else { L2Reason::NoCandidate };
    Election { owner, successors: order, candidates, reason }
}

/// Orders nodes by preference, highest first, then by the digest of `node#ip`, lowest first.
fn rank<'a>(nodes: impl Iterator<Item = &'a Node>, ip: IpAddr, ads: &[&Arc<L2Advertisement>]) -> Vec<NodeName> {
    let scored = |node: &'a Node| {
        let score: u64 = ads.iter().map(|ad| ad.score(node)).sum();
        (std::cmp::Reverse(score), Rank::of(&node.name, ip), &node.name)
    };
    let mut order: Vec<_> = nodes.map(scored).collect();
    order.sort();
    order.into_iter().map(|(.., name)| name.clone()).collect()
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

/// The address by which each Service is elected. Services that share an address must not have two owners, though the order of
/// their addresses may differ (contract speaker §13, 25): all Services linked by shared addresses use the first address of
/// the one whose key sorts first.
#[must_use]
pub fn shared_identity<'a>(
    holders: impl IntoIterator<Item = (&'a crate::model::ServiceKey, &'a [IpAddr])>,
) -> BTreeMap<&'a crate::model::ServiceKey, IpAddr> {
    let mut by_ip: BTreeMap<IpAddr, IpAddr> = BTreeMap::new();
    let holders: BTreeMap<_, _> = holders.into_iter().collect();
    let mut identities = BTreeMap::new();
    for (&key, ips) in &holders {
        let Some(&first) = ips.first() else { continue };
        let identity = ips.iter().find_map(|ip| by_ip.get(ip)).copied().unwrap_or(first);
        for &ip in *ips {
            by_ip.entry(ip).or_insert(identity);
        }
        identities.insert(key, identity);
    }
    identities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Node;

    #[test]
    fn order_of_nodes_is_that_of_facts_1_to_11() {
        let rows: [(&[&str], &str, &[&str]); 7] = [
            (&["node-a", "node-b", "node-c"], "10.0.0.1", &["node-b", "node-a", "node-c"]),
            (&["node-a", "node-b", "node-c"], "10.0.0.2", &["node-b", "node-c", "node-a"]),
            (&["edge-a", "edge-b", "worker-a", "worker-b"], "10.20.30.1", &["edge-b", "worker-a", "edge-a", "worker-b"]),
            (&["iris1", "iris2"], "10.20.30.1", &["iris2", "iris1"]),
            (&["iris1", "iris2"], "10.20.30.2", &["iris1", "iris2"]),
            (&["iris1", "iris2"], "1000::1", &["iris1", "iris2"]),
            (&["node-a", "node-b", "node-c"], "fc00:f853:ccd:e799::", &["node-b", "node-c", "node-a"]),
        ];
        for (names, ip, expected) in rows {
            let nodes: Vec<Node> = names.iter().map(|name| Node::new(name)).collect();
            let order = rank(nodes.iter(), ip.parse().unwrap(), &[]);
            assert_eq!(order.iter().map(NodeName::as_str).collect::<Vec<_>>(), expected, "{ip}");
        }
    }

    #[test]
    fn winners_of_fact_12_alternate_as_recorded() {
        let recorded = [2, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 1, 2, 2, 1, 2, 2, 2, 1, 2, 1, 1, 2, 1, 2, 1, 2, 1, 1, 2, 1, 2];
        let nodes = [Node::new("iris1"), Node::new("iris2")];
        for (last, winner) in (1_u8..).zip(recorded) {
            let order = rank(nodes.iter(), std::net::Ipv4Addr::new(10, 20, 30, last).into(), &[]);
            assert_eq!(order[0].as_str(), format!("iris{winner}"), "10.20.30.{last}");
        }
    }
}
