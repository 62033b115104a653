//! Routes as upstream offers them (`docs/upstream-behaviour.md#bgp-routes`), and the invariants I27 to I29.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{NodeSelection, PeerEndpoint, Pool, RemoteAsn};
use crate::model::{EXCLUDE_LABEL, LabelSelector, Labels, Selector, Service, ServiceKey};

const VIP: &str = "10.20.30.1";

fn selector(key: &str, value: &str) -> Selector {
    let match_labels = [(key.to_owned(), value.to_owned())].into();
    Selector::parse(&LabelSelector { match_labels, match_expressions: Vec::new() }).unwrap()
}

fn on(nodes: &[&str]) -> NodeSelection {
    NodeSelection::Selected(nodes.iter().map(|name| selector("node", name)).collect())
}

fn ad(length: u8, local_pref: Option<u32>, communities: &[&str]) -> BgpAdvertisement {
    BgpAdvertisement {
        name: "ad".into(),
        aggregation_length: length,
        aggregation_length_v6: 128,
        local_pref,
        communities: communities.iter().map(|text| text.parse().unwrap()).collect(),
        nodes: NodeSelection::All,
        peers: None,
        service_selectors: Vec::new(),
    }
}

fn to(mut ad: BgpAdvertisement, peers: &[&str]) -> BgpAdvertisement {
    ad.peers = Some(peers.iter().map(|&name| name.into()).collect());
    ad
}

fn from(mut ad: BgpAdvertisement, nodes: NodeSelection) -> BgpAdvertisement {
    ad.nodes = nodes;
    ad
}

fn peer(name: &str, address: &str, nodes: NodeSelection) -> Arc<Peer> {
    Arc::new(Peer {
        name: name.into(),
        endpoint: PeerEndpoint::Address(address.parse().unwrap()),
        port: 179,
        my_asn: 64512,
        remote_asn: RemoteAsn::Number(64513),
        local_asn: None,
        source_address: None,
        router_id: None,
        hold_time: Some(Duration::from_secs(90)),
        keepalive_time: None,
        connect_time: None,
        password: None,
        nodes,
        bfd_profile: None,
        graceful_restart: false,
        ebgp_multihop: false,
        vrf: None,
        dual_stack: false,
    })
}

fn pool(ads: Vec<BgpAdvertisement>) -> Pool {
    Pool {
        name: "pool".into(),
        labels: Labels::new(),
        blocks: vec!["10.20.30.0/24".parse().unwrap()],
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        l2: Vec::new(),
        bgp: ads.into_iter().map(Arc::new).collect(),
    }
}

/// A cluster of `pandora`, where routes are made, and `iris`; one Service with endpoints as in the election's facts.
struct World {
    cluster: Cluster,
    config: Config,
    service: Service,
}

impl World {
    fn new(policy: TrafficPolicy, endpoints: &[&str]) -> Self {
        let mut cluster = Cluster::default();
        for name in ["pandora", "iris"] {
            let mut node = Node::new(name);
            node.labels.insert("node".to_owned(), name.to_owned());
            cluster.nodes.insert(node.name.clone(), node);
        }
        let mut service = Service::load_balancer(ServiceKey::new("default", "web"));
        service.traffic_policy = policy;
        let endpoint = |text: &&str| {
            let (ready, serving, node) = match text.split_at(1) {
                ("!", node) => (false, false, node),
                ("~", node) => (false, true, node),
                _ => (true, false, *text),
            };
            Endpoint { has_address: true, node: Some(node.into()), ready: Some(ready), serving: Some(serving) }
        };
        cluster.endpoints.insert(service.key.clone(), endpoints.iter().map(endpoint).collect());
        let mut config = Config::default();
        for (name, address) in [("peer1", "1.2.3.4"), ("peer2", "1.2.3.5")] {
            config.peers.insert(name.into(), peer(name, address, NodeSelection::All));
        }
        Self { cluster, config, service }
    }

    fn offer(&self, pool: &Pool, ips: &[&str]) -> ServiceRoutes {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.policy(pool, ExcludeLabel::Honoured)
            .routes(Holder { service: &self.service, pool, ips: &ips }, &self.cluster)
    }

    fn policy(&self, pool: &Pool, exclude_label: ExcludeLabel) -> ExportPolicy {
        let mut config = self.config.clone();
        config.pools.insert(pool.name.clone(), Arc::new(pool.clone()));
        ExportPolicy::of(&config, &self.cluster.nodes["pandora"], exclude_label)
    }
}

/// `prefix lp [communities]` of each route to a peer.
fn told(routes: &ServiceRoutes, peer: &str) -> Vec<String> {
    let line = |route: &Route| {
        let communities = route.communities.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        format!("{} {} [{communities}]", route.prefix, route.effective_local_pref())
    };
    routes.by_peer.get(peer).into_iter().flat_map(BTreeMap::values).map(line).collect()
}

#[test]
fn endpoints_decide_whether_a_node_offers_routes_as_facts_72_to_77_say() {
    use TrafficPolicy::{Cluster as C, Local as L};
    let rows: [(u8, TrafficPolicy, &[&str], Option<BgpReason>); 9] = [
        (72, C, &["iris"], None),
        (73, L, &["iris"], Some(BgpReason::NoLocalEndpoint)),
        (74, L, &["iris", "pandora"], None),
        (75, L, &["!pandora", "pandora"], None),
        (76, C, &[], Some(BgpReason::NoEndpoints)),
        (76, C, &["!iris", "!pandora"], Some(BgpReason::NoEndpoints)),
        (76, L, &["!pandora"], Some(BgpReason::NoLocalEndpoint)),
        (77, C, &["~iris"], None),
        (77, L, &["~pandora"], None),
    ];
    for (fact, policy, endpoints, refusal) in rows {
        let offered = World::new(policy, endpoints).offer(&pool(vec![ad(32, None, &[])]), &[VIP]);
        assert_eq!(offered.reason, Some(refusal.unwrap_or(BgpReason::Advertised)), "fact {fact}");
        let expected: &[&str] = if refusal.is_none() { &["10.20.30.1/32 100 []"] } else { &[] };
        assert_eq!(told(&offered, "peer1"), expected, "fact {fact}");
    }
}

#[test]
fn endpoints_without_an_address_do_not_count() {
    let mut world = World::new(TrafficPolicy::Cluster, &["iris"]);
    for endpoint in world.cluster.endpoints.values_mut().flatten() {
        endpoint.has_address = false;
    }
    assert_eq!(world.offer(&pool(vec![ad(32, None, &[])]), &[VIP]).reason, Some(BgpReason::NoEndpoints));
}

#[test]
fn advertisements_make_routes_as_facts_78_to_81_say() {
    let first = || ad(32, Some(100), &["0:1234", "0:2345"]);
    let second = || ad(24, Some(1000), &[]);
    let (host, net) = (&["10.20.30.1/32 100 [0:1234,0:2345]"][..], &["10.20.30.0/24 1000 []"][..]);
    let both = [net, host].concat();
    let rows: Vec<(u8, Vec<BgpAdvertisement>, &[&str], &[&str])> = vec![
        (78, vec![first(), second()], &both, &both),
        (79, vec![first(), from(second(), on(&["iris"]))], host, host),
        (80, vec![to(first(), &["peer1"]), second()], &both, net),
        (81, vec![first()], host, host),
    ];
    for (fact, ads, peer1, peer2) in rows {
        let offered = World::new(TrafficPolicy::Cluster, &["iris"]).offer(&pool(ads), &[VIP]);
        assert_eq!(told(&offered, "peer1"), peer1, "fact {fact}");
        assert_eq!(told(&offered, "peer2"), peer2, "fact {fact}");
    }
}

#[test]
fn routes_of_one_prefix_merge_as_fact_82_and_the_highest_preference_wins() {
    let route = |local_pref, community: &str| Route {
        prefix: "10.20.30.0/24".parse().unwrap(),
        local_pref,
        communities: [community.parse().unwrap()].into(),
    };
    let mut routes = BTreeMap::new();
    assert!(!merge(&mut routes, route(Some(200), "1:1")));
    assert!(!merge(&mut routes, route(Some(200), "1:2")), "equal preferences do not clash");
    assert!(merge(&mut routes, route(Some(300), "1:1")));
    assert!(merge(&mut routes, route(None, "1:1")));
    let merged: Vec<&Route> = routes.values().collect();
    assert_eq!(merged.len(), 1);
    assert_eq!(merged[0].local_pref, Some(300));
    assert_eq!(merged[0].communities.len(), 2);
}

#[test]
fn sessions_follow_node_labels_as_facts_83_to_85_say() {
    let mut config = Config::default();
    let selectors = vec![selector("host", "frontend"), selector("foo", "bar")];
    let selected = NodeSelection::Selected(selectors);
    config.peers.insert("peer1".into(), peer("peer1", "1.2.3.4", selected));
    let rows: [(u8, &[(&str, &str)], usize); 4] =
        [(84, &[("foo", "bar")], 1), (84, &[("foo", "baz")], 0), (85, &[("host", "frontend")], 1), (83, &[], 0)];
    for (fact, labels, peers) in rows {
        let mut node = Node::new("pandora");
        node.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(peers_of(&config, &node).count(), peers, "fact {fact}");
    }
}

#[test]
fn excluded_and_unreachable_nodes_offer_nothing_as_fact_86_says() {
    let mut world = World::new(TrafficPolicy::Cluster, &["iris"]);
    let pool = pool(vec![ad(32, None, &[])]);
    world.cluster.nodes.get_mut("pandora").unwrap().labels.insert(EXCLUDE_LABEL.to_owned(), String::new());
    assert_eq!(world.offer(&pool, &[VIP]).reason, Some(BgpReason::ExcludedByLabel));
    let ips = [VIP.parse().unwrap()];
    let holder = Holder { service: &world.service, pool: &pool, ips: &ips };
    let ignoring = world.policy(&pool, ExcludeLabel::Ignored).routes(holder, &world.cluster);
    assert_eq!(ignoring.reason, Some(BgpReason::Advertised));
    world.cluster.nodes.get_mut("pandora").unwrap().network_unavailable = true;
    assert_eq!(world.offer(&pool, &[VIP]).reason, Some(BgpReason::NetworkUnavailable), "it is checked first");
}

#[test]
fn preferences_clash_as_facts_87_and_88_say() {
    let of_service = |mut ad: BgpAdvertisement| {
        ad.service_selectors = vec![selector("app", "web")];
        ad
    };
    let (low, high) = (|| ad(32, Some(100), &[]), || ad(32, Some(200), &[]));
    let rows: Vec<(u8, Vec<BgpAdvertisement>, bool)> = vec![
        (87, vec![low(), of_service(high())], true),
        (88, vec![low(), low()], false),
        (88, vec![low(), from(high(), on(&["iris"]))], false),
        (88, vec![to(low(), &["peer1"]), to(high(), &["peer2"])], false),
        (88, vec![to(low(), &["peer1"]), to(high(), &["peer2", "peer1"])], true),
        (88, vec![low(), to(high(), &["peer1"])], true),
        (88, vec![low(), from(high(), NodeSelection::Selected(Vec::new()))], false),
    ];
    for (fact, ads, clash) in rows {
        let mut world = World::new(TrafficPolicy::Cluster, &["iris"]);
        world.service.labels.insert("app".to_owned(), "web".to_owned());
        let refused = world.offer(&pool(ads), &[VIP]).reason == Some(BgpReason::ConflictingAdvertisements);
        assert_eq!(refused, clash, "fact {fact}");
    }
}

#[test]
fn peers_of_a_service_follow_its_advertisements_as_fact_89_says() {
    let mut world = World::new(TrafficPolicy::Cluster, &["iris"]);
    let peers = |world: &World, pool: &Pool| world.offer(pool, &[VIP]).by_peer.into_keys().collect::<Vec<_>>();
    let everyone = pool(vec![ad(32, None, &[])]);
    assert_eq!(peers(&world, &everyone), ["peer1".into(), "peer2".into()]);
    assert_eq!(peers(&world, &pool(vec![to(ad(32, None, &[]), &["peer1"])])), ["peer1".into()]);
    world.config.peers.remove("peer1");
    assert_eq!(peers(&world, &everyone), ["peer2".into()]);
}

#[test]
fn family_that_a_session_does_not_carry_is_reported_and_not_offered() {
    let mut world = World::new(TrafficPolicy::Cluster, &["iris"]);
    let mut dual = Peer::clone(&world.config.peers["peer2"]);
    dual.dual_stack = true;
    world.config.peers.insert("peer2".into(), Arc::new(dual));
    let offered = world.offer(&pool(vec![ad(32, None, &[])]), &[VIP, "fd00::1"]);
    assert_eq!(told(&offered, "peer1"), ["10.20.30.1/32 100 []"]);
    assert_eq!(told(&offered, "peer2"), ["10.20.30.1/32 100 []", "fd00::1/128 100 []"]);
    assert_eq!(offered.not_carried, BTreeSet::from([("peer1".into(), "fd00::1/128".parse().unwrap())]));
    let only_v6 = world.offer(&pool(vec![to(ad(32, None, &[]), &["peer1"])]), &["fd00::1"]);
    assert_eq!(only_v6.reason, Some(BgpReason::NoPeer));
}

proptest! {
    /// I27, I28: whatever is advertised, each route covers an address of the Service with a length that an
    /// advertisement asks for, goes to a peer that an advertisement means, and carries what the advertisements of that
    /// prefix say.
    #[test]
    fn route_is_always_accounted_for_by_an_advertisement(
        specs in proptest::collection::vec((24_u8..=32, proptest::option::of(1_u32..4), 0_u8..4, 0_u8..4), 1..5),
        hosts in proptest::collection::btree_set(any::<u8>(), 1..3),
        usable in any::<bool>(),
    ) {
        let ads: Vec<BgpAdvertisement> = specs.iter().map(|&(length, local_pref, peers, communities)| {
            let is_chosen = |(bit, _): &(usize, &str)| peers >> bit & 1 == 1;
            let names = ["peer1", "peer2"].into_iter().enumerate().filter(is_chosen);
            let names: Vec<&str> = names.map(|(_, name)| name).collect();
            let texts: Vec<String> = (0..communities).map(|value| format!("64512:{value}")).collect();
            let ad = ad(length, local_pref, &texts.iter().map(String::as_str).collect::<Vec<_>>());
            if names.is_empty() { ad } else { to(ad, &names) }
        }).collect();
        let world = World::new(TrafficPolicy::Cluster, if usable { &["iris"] } else { &["!iris"] });
        let ips: Vec<String> = hosts.iter().map(|host| format!("10.20.30.{host}")).collect();
        let pool = pool(ads.clone());
        let offered = world.offer(&pool, &ips.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert!(usable || offered.by_peer.is_empty());
        for (peer, by_prefix) in &offered.by_peer {
            for (prefix, route) in by_prefix {
                let causes: Vec<&BgpAdvertisement> = ads.iter()
                    .filter(|ad| ad.aggregation_length == prefix.prefix_len())
                    .filter(|ad| ad.peers.as_ref().is_none_or(|peers| peers.contains(peer)))
                    .collect();
                prop_assert!(!causes.is_empty());
                prop_assert!(ips.iter().any(|ip| prefix.contains(&ip.parse::<IpAddr>().unwrap())));
                prop_assert_eq!(&prefix.trunc(), prefix);
                let union: BTreeSet<Community> = causes.iter().flat_map(|ad| ad.communities.iter().copied()).collect();
                prop_assert_eq!(&route.communities, &union);
                let highest = causes.iter().map(|ad| ad.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)).max();
                prop_assert_eq!(Some(route.effective_local_pref()), highest);
            }
        }
    }
}
