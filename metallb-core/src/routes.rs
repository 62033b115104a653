//! Which BGP routes a node offers to which peer (contract speaker §3.7, §4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use crate::config::{BgpAdvertisement, Community, Config, Peer, Pool, any_matches, local_preferences_clash};
use crate::model::{Cluster, Endpoint, IpFamily, Node, PeerName, Service, TrafficPolicy};

/// A route as it is offered to one peer.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// The prefix.
    pub prefix: IpNet,
    /// LOCAL_PREF for internal peers; `None` is the default, 100.
    pub local_pref: Option<u32>,
    /// Communities of both kinds.
    pub communities: BTreeSet<Community>,
}

/// The routes of one Service from one node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServiceRoutes {
    /// Routes by peer, one for each prefix.
    pub by_peer: BTreeMap<PeerName, BTreeMap<IpNet, Route>>,
    /// Prefixes that a peer's session cannot carry.
    pub not_carried: BTreeSet<(PeerName, IpNet)>,
    /// Why there is none, or [`BgpReason::Advertised`].
    pub reason: Option<BgpReason>,
}

/// Why a node does or does not offer a Service's routes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum BgpReason {
    /// The node offers routes.
    Advertised,
    /// No BGPAdvertisement of the pool selects the node.
    NotSelected,
    /// No BGPAdvertisement of the pool and node is for the Service.
    NoMatchingAdvertisement,
    /// Two advertisements ask for different local preferences of one prefix.
    ConflictingAdvertisements,
    /// The node's condition `NetworkUnavailable` is true.
    NetworkUnavailable,
    /// The node carries the label that excludes it from load balancers.
    ExcludedByLabel,
    /// The traffic policy is Local and no usable endpoint runs on the node.
    NoLocalEndpoint,
    /// The Service has no usable endpoint.
    NoEndpoints,
    /// No peer of the node is meant, or none carries the family.
    NoPeer,
}

impl BgpReason {
    /// All reasons with one sentence each.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Advertised, "The node offers routes."),
        (Self::NotSelected, "No BGPAdvertisement of the pool selects the node."),
        (Self::NoMatchingAdvertisement, "No BGPAdvertisement of the pool and node is for the Service."),
        (Self::ConflictingAdvertisements, "Two advertisements ask for different local preferences of one prefix."),
        (Self::NetworkUnavailable, "The node's condition `NetworkUnavailable` is true."),
        (Self::ExcludedByLabel, "The node carries `node.kubernetes.io/exclude-from-external-load-balancers`."),
        (Self::NoLocalEndpoint, "The traffic policy is Local and no usable endpoint runs on the node."),
        (Self::NoEndpoints, "The Service has no usable endpoint."),
        (Self::NoPeer, "No peer of the node is meant, or none carries the family."),
    ];

    /// The code, as machines read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Advertised => "Advertised",
            Self::NotSelected => "NotSelected",
            Self::NoMatchingAdvertisement => "NoMatchingAdvertisement",
            Self::ConflictingAdvertisements => "ConflictingAdvertisements",
            Self::NetworkUnavailable => "NetworkUnavailable",
            Self::ExcludedByLabel => "ExcludedByLabel",
            Self::NoLocalEndpoint => "NoLocalEndpoint",
            Self::NoEndpoints => "NoEndpoints",
            Self::NoPeer => "NoPeer",
        }
    }
}

/// The peers that a node holds sessions with.
pub fn peers_of<'a>(config: &'a Config, node: &'a Node) -> impl Iterator<Item = &'a Arc<Peer>> {
    config.peers.values().filter(|peer| peer.nodes.selects(node))
}

/// The routes that `node` offers for a Service that holds `ips` of `pool`.
#[must_use]
pub fn routes(
    service: &Service,
    ips: &[IpAddr],
    pool: &Pool,
    node: &Node,
    config: &Config,
    cluster: &Cluster,
    ignore_exclude_label: bool,
) -> ServiceRoutes {
    let ads = match eligible(service, pool, node, cluster, ignore_exclude_label) {
        Ok(ads) => ads,
        Err(reason) => return ServiceRoutes { reason: Some(reason), ..ServiceRoutes::default() },
    };
    let mut routes = ServiceRoutes::default();
    for peer in peers_of(config, node) {
        for ad in ads.iter().filter(|ad| ad.peers.as_ref().is_none_or(|names| names.contains(&peer.name))) {
            for &ip in ips {
                let prefix = ad.prefix_of(ip);
                if peer.carries(IpFamily::of(ip)) {
                    let route = Route { prefix, local_pref: ad.local_pref, communities: ad.communities.clone() };
                    merge(routes.by_peer.entry(peer.name.clone()).or_default(), route);
                } else {
                    routes.not_carried.insert((peer.name.clone(), prefix));
                }
            }
        }
    }
    let reason = if routes.by_peer.is_empty() { BgpReason::NoPeer } else { BgpReason::Advertised };
    routes.reason = Some(reason);
    routes
}

/// Adds a route to those of one peer. Routes for one prefix become one: communities are united, the highest local preference
/// wins. True when the preferences differed.
pub fn merge(routes: &mut BTreeMap<IpNet, Route>, route: Route) -> bool {
    match routes.entry(route.prefix) {
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(route);
            false
        }
        std::collections::btree_map::Entry::Occupied(mut entry) => {
            let merged = entry.get_mut();
            merged.communities.extend(route.communities);
            let preference = |value: Option<u32>| value.unwrap_or(DEFAULT_LOCAL_PREF);
            let differed = preference(merged.local_pref) != preference(route.local_pref);
            if preference(route.local_pref) > preference(merged.local_pref) {
                merged.local_pref = route.local_pref;
            }
            differed
        }
    }
}

/// The preconditions in the contract's order; the advertisements that count, or the first reason against.
fn eligible<'a>(
    service: &Service,
    pool: &'a Pool,
    node: &Node,
    cluster: &Cluster,
    ignore_exclude_label: bool,
) -> Result<Vec<&'a Arc<BgpAdvertisement>>, BgpReason> {
    let here: Vec<&Arc<BgpAdvertisement>> = pool.bgp.iter().filter(|ad| ad.nodes.selects(node)).collect();
    if here.is_empty() {
        return Err(BgpReason::NotSelected);
    }
    let ads: Vec<_> = here.into_iter().filter(|ad| any_matches(&ad.service_selectors, &service.labels)).collect();
    if ads.is_empty() {
        return Err(BgpReason::NoMatchingAdvertisement);
    }
    // Both select this node already.
    let clash = |a: &BgpAdvertisement, b: &BgpAdvertisement| local_preferences_clash(a, b, pool, &|_, _| true);
    if ads.iter().enumerate().any(|(index, a)| ads.iter().skip(index + 1).any(|b| clash(a, b))) {
        return Err(BgpReason::ConflictingAdvertisements);
    }
    if node.network_unavailable {
        return Err(BgpReason::NetworkUnavailable);
    }
    if node.is_excluded() && !ignore_exclude_label {
        return Err(BgpReason::ExcludedByLabel);
    }
    let endpoints = cluster.endpoints.get(&service.key).map_or(&[][..], Vec::as_slice);
    let mut usable = endpoints.iter().filter(|endpoint: &&Endpoint| endpoint.is_usable() && endpoint.has_address);
    match service.traffic_policy {
        TrafficPolicy::Local if !usable.any(|endpoint| endpoint.node.as_ref() == Some(&node.name)) => {
            Err(BgpReason::NoLocalEndpoint)
        }
        TrafficPolicy::Cluster if usable.next().is_none() => Err(BgpReason::NoEndpoints),
        _ => Ok(ads),
    }
}

/// LOCAL_PREF where none is configured.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

#[cfg(test)]
mod tests;
