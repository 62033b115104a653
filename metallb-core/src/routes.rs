//! Which BGP routes a node offers to which peer (`docs/upstream-behaviour.md#bgp-routes`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::config::{BgpAdvertisement, Community, Config, Peer, any_matches, local_preferences_clash};
use crate::election::Holder;
use crate::model::{Cluster, Endpoint, ExcludeLabel, IpFamily, Node, PeerName, TrafficPolicy};
use crate::reason::reasons;

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

impl Route {
    /// LOCAL_PREF as an internal peer is told it.
    #[must_use]
    pub fn effective_local_pref(&self) -> u32 {
        self.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }
}

impl Serialize for Route {
    /// `{"prefix", "localPref", "communities": ["A:B"], "largeCommunities": ["X:Y:Z"]}`; the preference is 100 where none is set.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (large, standard): (Vec<&Community>, Vec<&Community>) =
            self.communities.iter().partition(|community| matches!(community, Community::Large(..)));
        let mut fields = serializer.serialize_struct("Route", 4)?;
        fields.serialize_field("prefix", &self.prefix)?;
        fields.serialize_field("localPref", &self.effective_local_pref())?;
        fields.serialize_field("communities", &standard)?;
        fields.serialize_field("largeCommunities", &large)?;
        fields.end()
    }
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

reasons! {
    /// Why a node does or does not offer a Service's routes.
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
        /// The node carries `node.kubernetes.io/exclude-from-external-load-balancers`.
        ExcludedByLabel,
        /// The traffic policy is Local and no usable endpoint runs on the node.
        NoLocalEndpoint,
        /// The Service has no usable endpoint.
        NoEndpoints,
        /// No peer of the node is meant, or none carries the family.
        NoPeer,
    }
}

/// The peers that a node holds sessions with.
pub fn peers_of<'a>(config: &'a Config, node: &'a Node) -> impl Iterator<Item = &'a Arc<Peer>> {
    config.peers.values().filter(|peer| peer.nodes.selects(node))
}

/// The routes that `node` offers for a Service that holds addresses.
#[must_use]
pub fn routes(
    holder: Holder<'_>,
    node: &Node,
    config: &Config,
    cluster: &Cluster,
    exclude_label: ExcludeLabel,
) -> ServiceRoutes {
    let ads = match eligible(holder, node, cluster, exclude_label) {
        Ok(ads) => ads,
        Err(reason) => return ServiceRoutes { reason: Some(reason), ..ServiceRoutes::default() },
    };
    let mut routes = ServiceRoutes::default();
    for peer in peers_of(config, node) {
        for ad in ads.iter().filter(|ad| ad.peers.as_ref().is_none_or(|names| names.contains(&peer.name))) {
            for &ip in holder.ips {
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
            let (old, new) = (merged.effective_local_pref(), route.effective_local_pref());
            merged.communities.extend(route.communities);
            if new > old {
                merged.local_pref = route.local_pref;
            }
            new != old
        }
    }
}

/// Checks the preconditions in upstream's order (`docs/upstream-behaviour.md#bgp-routes`); returns the advertisements
/// that
/// apply, or the first reason against.
fn eligible<'a>(
    Holder { service, pool, .. }: Holder<'a>,
    node: &Node,
    cluster: &Cluster,
    exclude_label: ExcludeLabel,
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
    if exclude_label.excludes(node) {
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
