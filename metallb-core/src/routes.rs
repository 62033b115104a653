//! The BGP routes that a node offers to each peer (`docs/upstream-behaviour.md#bgp-routes`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::config::{BgpAdvertisement, Community, Config, Peer, Pool, any_matches, local_preferences_clash};
use crate::election::Holder;
use crate::model::{Cluster, Endpoint, ExcludeLabel, IpFamily, Node, NodeName, PeerName, PoolName, TrafficPolicy};
use crate::reason::reasons;

/// A route for one peer.
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
    /// LOCAL_PREF as sent to an internal peer.
    #[must_use]
    pub fn effective_local_pref(&self) -> u32 {
        self.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }
}

impl Serialize for Route {
    /// `{"prefix", "localPref", "communities": ["A:B"], "largeCommunities": ["X:Y:Z"]}`; the preference is 100 where
    /// none is set.
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
    /// The reason why there is none, or [`BgpReason::Advertised`].
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

/// The inputs of the routes of one node beside the Services: equal policies and Services give equal routes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportPolicy {
    node: NodeName,
    /// The reason that keeps the node from announcing, if any.
    refusal: Option<BgpReason>,
    peers: Vec<PeerFamilies>,
    pools: BTreeMap<PoolName, PoolPolicy>,
}

/// A peer of the node, and the families that its session carries.
#[derive(Clone, Debug, Eq, PartialEq)]
struct PeerFamilies {
    name: PeerName,
    v4: bool,
    v6: bool,
}

/// The advertisements of a pool that select the node.
#[derive(Clone, Debug, Eq, PartialEq)]
struct PoolPolicy {
    advertisements: Vec<Arc<BgpAdvertisement>>,
    /// Pairs, by index, that ask for different local preferences of one prefix.
    clashes: Vec<(usize, usize)>,
}

impl ExportPolicy {
    /// The policy of a node.
    #[must_use]
    pub fn of(config: &Config, node: &Node, exclude_label: ExcludeLabel) -> Self {
        let refusal = if node.network_unavailable {
            Some(BgpReason::NetworkUnavailable)
        } else if exclude_label.excludes(node) {
            Some(BgpReason::ExcludedByLabel)
        } else {
            None
        };
        let peer = |peer: &Arc<Peer>| PeerFamilies {
            name: peer.name.clone(),
            v4: peer.carries(IpFamily::V4),
            v6: peer.carries(IpFamily::V6),
        };
        let pools = config.announced_pools().filter_map(|pool| Some((pool.name.clone(), PoolPolicy::of(pool, node)?)));
        Self {
            node: node.name.clone(),
            refusal,
            peers: peers_of(config, node).map(peer).collect(),
            pools: pools.collect(),
        }
    }

    /// The routes of a Service that holds addresses.
    #[must_use]
    pub fn routes(&self, holder: Holder<'_>, cluster: &Cluster) -> ServiceRoutes {
        let ads = match self.eligible(holder, cluster) {
            Ok(ads) => ads,
            Err(reason) => return ServiceRoutes { reason: Some(reason), ..ServiceRoutes::default() },
        };
        let mut routes = ServiceRoutes::default();
        for peer in &self.peers {
            for ad in ads.iter().filter(|ad| ad.peers.as_ref().is_none_or(|names| names.contains(&peer.name))) {
                for &ip in holder.ips {
                    let prefix = ad.prefix_of(ip);
                    if peer.carries(ip) {
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

    /// Checks the preconditions in upstream's order (`docs/upstream-behaviour.md#bgp-routes`); returns the
    /// advertisements that apply, or the first reason against.
    fn eligible<'a>(
        &'a self,
        Holder { service, pool, .. }: Holder<'_>,
        cluster: &Cluster,
    ) -> Result<Vec<&'a Arc<BgpAdvertisement>>, BgpReason> {
        let policy = self.pools.get(&pool.name).ok_or(BgpReason::NotSelected)?;
        let matches = |ad: &&Arc<BgpAdvertisement>| any_matches(&ad.service_selectors, &service.labels);
        let ads: Vec<_> = policy.advertisements.iter().filter(matches).collect();
        if ads.is_empty() {
            return Err(BgpReason::NoMatchingAdvertisement);
        }
        let counts = |index: &usize| policy.advertisements.get(*index).as_ref().is_some_and(matches);
        if policy.clashes.iter().any(|(a, b)| counts(a) && counts(b)) {
            return Err(BgpReason::ConflictingAdvertisements);
        }
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let endpoints = cluster.endpoints.get(&service.key).map_or(&[][..], Vec::as_slice);
        let mut usable = endpoints.iter().filter(|endpoint: &&Endpoint| endpoint.is_usable() && endpoint.has_address);
        match service.traffic_policy {
            TrafficPolicy::Local if !usable.any(|endpoint| endpoint.node.as_ref() == Some(&self.node)) => {
                Err(BgpReason::NoLocalEndpoint)
            }
            TrafficPolicy::Cluster if usable.next().is_none() => Err(BgpReason::NoEndpoints),
            _ => Ok(ads),
        }
    }
}

impl PoolPolicy {
    /// `None` where no advertisement of the pool selects the node.
    fn of(pool: &Pool, node: &Node) -> Option<Self> {
        let advertisements: Vec<_> = pool.bgp.iter().filter(|ad| ad.nodes.selects(node)).cloned().collect();
        // Both select this node already.
        let clash = |a: &BgpAdvertisement, b: &BgpAdvertisement| local_preferences_clash(a, b, pool, &|_, _| true);
        let mut clashes = Vec::new();
        for (index, a) in advertisements.iter().enumerate() {
            let later = advertisements.iter().enumerate().skip(index + 1);
            clashes.extend(later.filter(|(_, b)| clash(a, b)).map(|(other, _)| (index, other)));
        }
        (!advertisements.is_empty()).then_some(Self { advertisements, clashes })
    }
}

impl PeerFamilies {
    const fn carries(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

/// Adds a route to those of one peer. Routes for one prefix are merged: communities are united, the highest local
/// preference wins. True if the preferences differed.
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

/// LOCAL_PREF if none is configured.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

#[cfg(test)]
mod tests;
