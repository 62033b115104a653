//! The routes that each peer is offered, kept by Service: a change of one Service costs its own routes, however many
//! others there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Community;
use crate::model::{PeerName, ServiceKey};
use crate::routes::{Route, merge};

/// The attributes of a route.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct RouteAttributes {
    /// LOCAL_PREF for internal peers; `None` is the default, 100.
    pub local_pref: Option<u32>,
    /// Communities of both kinds.
    pub communities: BTreeSet<Community>,
}

/// All routes of a peer.
pub type RouteTable = BTreeMap<IpNet, RouteAttributes>;

/// The routes that peers must learn of; `None` withdraws one.
pub type RouteChanges = BTreeMap<PeerName, BTreeMap<IpNet, Option<RouteAttributes>>>;

/// The routes of all Services. Several may offer one prefix, by aggregation or by sharing an address: they become one
/// route.
#[derive(Debug, Default)]
pub(super) struct Exports {
    by_service: BTreeMap<ServiceKey, Vec<Group>>,
    /// The Services that have a part in a prefix, with whichever peer.
    by_prefix: BTreeMap<IpNet, BTreeSet<ServiceKey>>,
    /// Each set of peers once.
    peers: BTreeSet<Arc<BTreeSet<PeerName>>>,
}

/// Peers that a Service offers the same to: usually all of them, so that a hundred peers take the room of one.
#[derive(Clone, Debug)]
struct Group {
    peers: Arc<BTreeSet<PeerName>>,
    routes: BTreeMap<IpNet, Route>,
}

/// The routes of one Service.
pub(super) type ByPeer = BTreeMap<PeerName, BTreeMap<IpNet, Route>>;

impl Exports {
    /// Replaces the routes of one Service, and adds what follows from it to `changes`.
    pub(super) fn set(&mut self, service: &ServiceKey, offered: ByPeer, changes: &mut RouteChanges) {
        let groups = self.groups(offered);
        let before = match groups.is_empty() {
            true => self.by_service.remove(service),
            false => self.by_service.insert(service.clone(), groups),
        };
        let before = before.unwrap_or_default();
        let after = self.by_service.get(service).map_or(&[][..], Vec::as_slice);
        let mut differing: BTreeMap<IpNet, BTreeSet<PeerName>> = BTreeMap::new();
        for (one, other) in [(&before[..], after), (after, &before[..])] {
            for group in one {
                for (prefix, route) in &group.routes {
                    let peers = group.peers.iter().filter(|peer| route_for(other, peer, prefix) != Some(route));
                    let peers: BTreeSet<PeerName> = peers.cloned().collect();
                    if !peers.is_empty() {
                        differing.entry(*prefix).or_default().extend(peers);
                    }
                }
            }
        }
        for (prefix, peers) in differing {
            self.join_or_leave(prefix, service);
            for peer in peers {
                let attributes = self.merged(&peer, prefix).map(RouteAttributes::from);
                changes.entry(peer).or_default().insert(prefix, attributes);
            }
        }
    }

    /// All routes that these peers are offered, once for those that are offered the same.
    pub(super) fn of_each<'a>(&self, peers: impl IntoIterator<Item = &'a str>) -> Vec<(Vec<&'a str>, RouteTable)> {
        // Peers that are members of the same sets are members of the same groups.
        let mut alike: BTreeMap<Vec<bool>, Vec<&str>> = BTreeMap::new();
        for peer in peers {
            alike.entry(self.peers.iter().map(|set| set.contains(peer)).collect()).or_default().push(peer);
        }
        let with_routes = |peers: Vec<&'a str>| {
            let routes = peers.first().map(|peer| self.of(peer));
            (peers, routes.unwrap_or_default())
        };
        alike.into_values().map(with_routes).collect()
    }

    fn of(&self, peer: &str) -> RouteTable {
        let mut merged = BTreeMap::new();
        for group in self.by_service.values().flatten().filter(|group| group.peers.contains(peer)) {
            for route in group.routes.values() {
                merge(&mut merged, route.clone());
            }
        }
        merged.into_iter().map(|(prefix, route)| (prefix, route.into())).collect()
    }

    /// The peers that a Service is offered to.
    pub(super) fn peers_of(&mut self, service: &ServiceKey) -> Arc<BTreeSet<PeerName>> {
        let groups = self.by_service.get(service).map_or(&[][..], Vec::as_slice);
        match groups {
            [one] => Arc::clone(&one.peers),
            several => {
                let all = several.iter().flat_map(|group| group.peers.iter().cloned()).collect();
                self.shared_peers(all)
            }
        }
    }

    /// The Services that are offered to a peer.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_service.keys()
    }

    /// Forgets what is no longer used.
    pub(super) fn sweep(&mut self) {
        self.peers.retain(|peers| Arc::strong_count(peers) > 1);
    }

    fn groups(&mut self, offered: ByPeer) -> Vec<Group> {
        let mut groups: Vec<(BTreeSet<PeerName>, BTreeMap<IpNet, Route>)> = Vec::new();
        for (peer, routes) in offered.into_iter().filter(|(_, routes)| !routes.is_empty()) {
            match groups.iter_mut().find(|(_, same)| *same == routes) {
                Some((peers, _)) => drop(peers.insert(peer)),
                None => groups.push((BTreeSet::from([peer]), routes)),
            }
        }
        groups.into_iter().map(|(peers, routes)| Group { peers: self.shared_peers(peers), routes }).collect()
    }

    fn join_or_leave(&mut self, prefix: IpNet, service: &ServiceKey) {
        let groups = self.by_service.get(service);
        if groups.is_some_and(|groups| groups.iter().any(|group| group.routes.contains_key(&prefix))) {
            self.by_prefix.entry(prefix).or_default().insert(service.clone());
        } else if let Some(services) = self.by_prefix.get_mut(&prefix) {
            services.remove(service);
            if services.is_empty() {
                self.by_prefix.remove(&prefix);
            }
        }
    }

    fn merged(&self, peer: &PeerName, prefix: IpNet) -> Option<Route> {
        let services = self.by_prefix.get(&prefix)?;
        let mut merged = BTreeMap::new();
        for service in services {
            if let Some(route) = self.by_service.get(service).and_then(|groups| route_for(groups, peer, &prefix)) {
                merge(&mut merged, route.clone());
            }
        }
        merged.remove(&prefix)
    }

    fn shared_peers(&mut self, wanted: BTreeSet<PeerName>) -> Arc<BTreeSet<PeerName>> {
        match self.peers.get(&wanted) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(wanted);
                self.peers.insert(Arc::clone(&new));
                new
            }
        }
    }
}

impl From<Route> for RouteAttributes {
    fn from(Route { prefix: _, local_pref, communities }: Route) -> Self {
        Self { local_pref, communities }
    }
}

fn route_for<'a>(groups: &'a [Group], peer: &PeerName, prefix: &IpNet) -> Option<&'a Route> {
    groups.iter().find(|group| group.peers.contains(peer)).and_then(|group| group.routes.get(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three Services and prefixes, two peers, few attributes: most steps meet what others did.
    fn offered() -> impl Strategy<Value = ByPeer> {
        let route = (0_u8..3, proptest::option::of(100_u32..103), proptest::collection::btree_set(1_u32..4, 0..2));
        let routes = proptest::collection::vec(route, 0..3).prop_map(|routes| {
            let route = |(host, local_pref, communities): (u8, Option<u32>, BTreeSet<u32>)| {
                let prefix: IpNet = format!("10.0.0.{host}/32").parse().unwrap();
                let communities = communities.into_iter().map(Community::Standard).collect();
                (prefix, Route { prefix, local_pref, communities })
            };
            routes.into_iter().map(route).collect::<BTreeMap<_, _>>()
        });
        proptest::collection::btree_map((0_u8..2).prop_map(|peer| format!("peer-{peer}").as_str().into()), routes, 0..3)
            .prop_map(|by_peer: ByPeer| by_peer.into_iter().filter(|(_, routes)| !routes.is_empty()).collect())
    }

    proptest! {
        #[test]
        fn changes_lead_where_replacing_everything_leads(
            steps in proptest::collection::vec((0_u8..3, offered()), 1..24)
        ) {
            let mut exports = Exports::default();
            let mut all: BTreeMap<ServiceKey, ByPeer> = BTreeMap::new();
            let mut told: BTreeMap<PeerName, BTreeMap<IpNet, RouteAttributes>> = BTreeMap::new();
            for (service, offered) in steps {
                let mut changes = RouteChanges::new();
                let service = ServiceKey::new("default", &format!("s{service}"));
                all.insert(service.clone(), offered.clone());
                exports.set(&service, offered, &mut changes);
                for (peer, changes) in changes {
                    let told = told.entry(peer).or_default();
                    for (prefix, attributes) in changes {
                        match attributes {
                            Some(attributes) => told.insert(prefix, attributes),
                            None => told.remove(&prefix),
                        };
                    }
                }
                let mut anew = Exports::default();
                for (service, offered) in &all {
                    anew.set(service, offered.clone(), &mut RouteChanges::new());
                }
                prop_assert_eq!(&anew.by_prefix, &exports.by_prefix);
                for peer in ["peer-0", "peer-1"] {
                    let expected = anew.of(peer);
                    prop_assert_eq!(told.get(peer).cloned().unwrap_or_default(), expected.clone());
                    prop_assert_eq!(exports.of(peer), expected.clone());
                    let each = exports.of_each(["peer-0", "peer-1"]);
                    let found = each.iter().filter(|(peers, _)| peers.contains(&peer)).map(|(_, routes)| routes);
                    prop_assert_eq!(found.collect::<Vec<_>>(), [&expected]);
                }
            }
        }
    }

    #[test]
    fn routes_are_looked_up_once_for_peers_that_are_offered_the_same() {
        let prefix: IpNet = "10.0.0.0/24".parse().unwrap();
        let route = Route { prefix, local_pref: None, communities: BTreeSet::new() };
        let offer =
            |peers: &[&str]| peers.iter().map(|peer| ((*peer).into(), [(prefix, route.clone())].into())).collect();
        let mut exports = Exports::default();
        exports.set(&ServiceKey::new("default", "a"), offer(&["a", "b", "c"]), &mut RouteChanges::new());
        exports.set(&ServiceKey::new("default", "b"), offer(&["c"]), &mut RouteChanges::new());
        let each = exports.of_each(["a", "b", "c", "d"]);
        let peers: BTreeSet<_> = each.iter().map(|(peers, routes)| (peers.clone(), routes.len())).collect();
        assert_eq!(peers, [(vec!["a", "b"], 1), (vec!["c"], 1), (vec!["d"], 0)].into(), "c has routes of its own");
    }

    #[test]
    fn same_again_changes_nothing_and_a_shared_prefix_goes_with_its_last_service() {
        let prefix: IpNet = "10.0.0.0/24".parse().unwrap();
        let route =
            |community| Route { prefix, local_pref: None, communities: [Community::Standard(community)].into() };
        let offer = |community| ByPeer::from([("tor".into(), [(prefix, route(community))].into())]);
        let (a, b) = (ServiceKey::new("default", "a"), ServiceKey::new("default", "b"));
        let mut exports = Exports::default();
        let mut step = |service: &ServiceKey, offered: ByPeer| {
            let mut changes = RouteChanges::new();
            exports.set(service, offered, &mut changes);
            let one = changes.into_values().flatten().next().map(|(_, attributes)| attributes);
            one.map(|attributes| {
                attributes.map(|attributes| {
                    let number = |community: &Community| match *community {
                        Community::Standard(number) => number,
                        Community::Large(..) => 0,
                    };
                    attributes.communities.iter().map(number).collect::<Vec<_>>()
                })
            })
        };
        assert_eq!(step(&a, offer(1)), Some(Some(vec![1])));
        assert_eq!(step(&a, offer(1)), None);
        assert_eq!(step(&b, offer(2)), Some(Some(vec![1, 2])));
        assert_eq!(step(&a, ByPeer::new()), Some(Some(vec![2])));
        assert_eq!(step(&b, ByPeer::new()), Some(None));
        assert!(exports.by_prefix.is_empty() && exports.by_service.is_empty());
    }
}
