//! Elections as upstream holds them (`docs/upstream-behaviour.md#l2-election`), and the invariants I23 to I25.

use proptest::prelude::*;

use super::*;
use crate::config::NodeSelection;
use crate::model::{Endpoint, InterfaceName, LabelSelector, Labels, Selector, ServiceKey, TrafficPolicy};

const VIP: &str = "10.20.30.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn labels(text: &str) -> Labels {
    let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.split(',').filter_map(pair).collect()
}

fn selector(text: &str) -> Selector {
    Selector::parse(&LabelSelector { match_labels: labels(text), match_expressions: Vec::new() }).unwrap()
}

/// Nodes with a label `node` that holds their name; further labels after a colon: `edge-a:role=edge`.
fn cluster(nodes: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    for text in nodes {
        let (name, more) = text.split_once(':').unwrap_or((text, ""));
        let mut node = Node::new(name);
        node.labels = labels(&format!("node={name},{more}"));
        cluster.nodes.insert(node.name.clone(), node);
    }
    cluster
}

fn ad(nodes: &[&str]) -> L2Advertisement {
    let nodes = nodes.iter().map(|name| selector(&format!("node={name}"))).collect::<Vec<_>>();
    L2Advertisement {
        name: "ad".into(),
        nodes: if nodes.is_empty() { NodeSelection::All } else { NodeSelection::Selected(nodes) },
        interfaces: BTreeSet::new(),
        service_selectors: Vec::new(),
        preferences: Vec::new(),
    }
}

trait With: Sized {
    fn service(self, selectors: &[&str]) -> Self;
    fn on(self, interfaces: &[&str]) -> Self;
    fn prefer(self, preferences: &[(u32, &str)]) -> Self;
}

impl With for L2Advertisement {
    fn service(mut self, selectors: &[&str]) -> Self {
        self.service_selectors = selectors.iter().map(|text| selector(text)).collect();
        self
    }

    fn on(mut self, interfaces: &[&str]) -> Self {
        self.interfaces = interfaces.iter().map(|&name| name.into()).collect();
        self
    }

    fn prefer(mut self, preferences: &[(u32, &str)]) -> Self {
        self.preferences = preferences.iter().map(|(weight, text)| (*weight, selector(text))).collect();
        self
    }
}

fn pool(ads: Vec<L2Advertisement>) -> Pool {
    Pool {
        name: "pool".into(),
        labels: Labels::new(),
        blocks: vec!["10.20.30.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        l2: ads.into_iter().map(Arc::new).collect(),
        bgp: Vec::new(),
    }
}

fn service(name: &str, policy: TrafficPolicy) -> Service {
    let mut service = Service::load_balancer(ServiceKey::new("default", name));
    service.traffic_policy = policy;
    service
}

/// `iris1` is ready, `!iris1` is not, `~iris1` is not ready but serving.
fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
    let endpoint = |text: &&str| {
        let (ready, serving, node) = match text.split_at(1) {
            ("!", node) => (Some(false), Some(false), node),
            ("~", node) => (Some(false), Some(true), node),
            _ => (Some(true), None, *text),
        };
        Endpoint { has_address: true, node: Some(node.into()), ready, serving }
    };
    texts.iter().map(endpoint).collect()
}

fn elections<'a>(cluster: &Cluster, rules: &ElectionRules, holders: impl IntoIterator<Item = Holder<'a>>) -> Elections {
    Elections::of(cluster, rules, holders, NonZeroUsize::MIN)
}

fn elect_one(service: &Service, vip: &str, pool: &Pool, cluster: &Cluster, rules: &ElectionRules) -> Election {
    let ips = [ip(vip)];
    elections(cluster, rules, [Holder { service, pool, ips: &ips }]).election(&service.key).unwrap()
}

fn owner(election: &Election) -> Option<&str> {
    election.owner.as_ref().map(NodeName::as_str)
}

#[test]
fn electorate_orders_nodes_as_facts_1_to_11_say() {
    type Row<'a> = (u8, &'a [(&'a str, u64)], &'a str, &'a [&'a str]);
    let (a, b, c) = (("node-a", 0), ("node-b", 0), ("node-c", 0));
    let rows: [Row<'_>; 11] = [
        (1, &[a, b, c], "10.0.0.1", &["node-b", "node-a", "node-c"]),
        (2, &[a, b, c], "10.0.0.2", &["node-b", "node-c", "node-a"]),
        (
            3,
            &[("edge-a", 100), ("edge-b", 0), ("worker-a", 0), ("worker-b", 0)],
            VIP,
            &["edge-a", "edge-b", "worker-a", "worker-b"],
        ),
        (4, &[("node-a", 100), ("node-b", 100)], VIP, &["node-b", "node-a"]),
        (5, &[("edge-a", 100), ("edge-b", 100), ("worker-a", 0)], VIP, &["edge-b", "edge-a", "worker-a"]),
        (6, &[], VIP, &[]),
        (6, &[("one", 0)], VIP, &["one"]),
        (
            7,
            &[("edge-a", 0), ("edge-b", 0), ("worker-a", 0), ("worker-b", 0)],
            VIP,
            &["edge-b", "worker-a", "edge-a", "worker-b"],
        ),
        (8, &[("iris1", 0), ("iris2", 0)], VIP, &["iris2", "iris1"]),
        (10, &[("iris1", 0), ("iris2", 0)], "1000::1", &["iris1", "iris2"]),
        (11, &[a, b, c], "fc00:f853:ccd:e799::", &["node-b", "node-c", "node-a"]),
    ];
    for (fact, nodes, vip, expected) in rows {
        let electorate = Electorate::new(nodes.iter().map(|&(name, score)| (name.into(), score)));
        let ranking = electorate.ranking(ip(vip), 9);
        let order: Vec<&str> = ranking.iter().map(NodeName::as_str).collect();
        assert_eq!(order, expected, "fact {fact}");
        assert_eq!(electorate.owner(ip(vip)).map(NodeName::as_str), expected.first().copied(), "fact {fact}");
    }
}

#[test]
fn digests_begin_as_facts_1_to_11_record() {
    let rows = [
        ("node-b", "10.0.0.1", "2acae885"),
        ("node-c", "10.0.0.1", "f949561f"),
        ("node-b", "10.0.0.2", "48a0dc88"),
        ("node-b", VIP, "0867af7f"),
        ("edge-b", VIP, "3e7a4988"),
        ("iris2", VIP, "af6cb4e7"),
        ("iris1", "10.20.30.2", "610c5b6d"),
        ("iris1", "1000::1", "503dc275"),
        ("node-a", "fc00:f853:ccd:e799::", "ba02b670"),
    ];
    for (node, vip, digest) in rows {
        assert!(hash::Rank::of(&node.into(), ip(vip)).to_string().starts_with(digest), "{node}#{vip}");
    }
}

#[test]
fn winners_of_facts_12_and_13_are_as_recorded() {
    let recorded = "21122222111122122212112121211212";
    let electorate = Electorate::new([("iris1".into(), 0), ("iris2".into(), 0)]);
    let wins = |last: u8| electorate.owner(IpAddr::from([10, 20, 30, last])).unwrap().as_str() == "iris1";
    let winners: String = (1..=32).map(|last| if wins(last) { '1' } else { '2' }).collect();
    assert_eq!(winners, recorded);
    assert_eq!((1..=255).filter(|&last| wins(last)).count(), 134);
}

#[test]
fn scores_of_advertisements_add_up_as_facts_14_and_15_say() {
    let cluster = cluster(&["a", "b"]);
    let ads = [ad(&[]).prefer(&[(70, "node=a")]), ad(&[]).prefer(&[(30, "node=a"), (50, "node=b")])].map(Arc::new);
    let scores = |ads: &[Arc<L2Advertisement>]| {
        cluster.nodes.values().map(|node| candidates::score(node, ads)).collect::<Vec<_>>()
    };
    assert_eq!(scores(&ads), [100, 50]);
    assert_eq!(scores(&[]), [0, 0]);
    assert_eq!(scores(&[Arc::new(ad(&[]))]), [0, 0]);
}

#[test]
fn owner_follows_endpoints_and_advertisements_as_facts_16_to_28_say() {
    use TrafficPolicy::{Cluster as C, Local as L};
    type Row<'a> = (u8, TrafficPolicy, &'a [&'a str], &'a [&'a [&'a str]], &'a str, Result<&'a str, L2Reason>);
    let rows: [Row<'_>; 14] = [
        (16, L, &["iris1", "iris1"], &[&[]], VIP, Ok("iris1")),
        (17, L, &["!iris1", "!iris1"], &[&[]], VIP, Err(L2Reason::NoEndpoints)),
        (18, L, &["iris1", "~iris2"], &[&[]], VIP, Ok("iris2")),
        (19, L, &["!iris1", "!iris2"], &[&[]], VIP, Err(L2Reason::NoEndpoints)),
        (20, L, &["iris1", "!iris2"], &[&[]], VIP, Ok("iris1")),
        (21, L, &["iris1", "iris2"], &[&[]], VIP, Ok("iris2")),
        (21, L, &["iris1", "iris2"], &[&[]], "10.20.30.2", Ok("iris1")),
        (22, L, &["iris1", "iris1", "iris2"], &[&[]], VIP, Ok("iris2")),
        (23, L, &["iris1", "!iris2", "!iris2"], &[&[]], VIP, Ok("iris1")),
        (24, C, &["iris1"], &[&["iris1"]], VIP, Ok("iris1")),
        (25, L, &["iris1"], &[&["iris1"], &["iris2"]], VIP, Ok("iris1")),
        (26, C, &["iris1"], &[&[]], VIP, Ok("iris2")),
        (27, C, &["iris1", "iris2"], &[&["iris1"]], VIP, Ok("iris1")),
        (28, L, &["iris1"], &[&["iris2"]], VIP, Err(L2Reason::NoCandidate)),
    ];
    for (fact, policy, on, ads, vip, expected) in rows {
        let mut cluster = cluster(&["iris1", "iris2"]);
        let service = service("web", policy);
        cluster.endpoints.insert(service.key.clone(), endpoints(on));
        let pool = pool(ads.iter().map(|nodes| ad(nodes)).collect());
        let election = elect_one(&service, vip, &pool, &cluster, &ElectionRules::default());
        assert_eq!(owner(&election).ok_or(election.reason), expected, "fact {fact}");
    }
}

#[test]
fn excluded_nodes_do_not_answer_as_facts_29_to_33_say() {
    type Row<'a> = (u8, TrafficPolicy, &'a [&'a str], ExcludeLabel, Option<&'a str>);
    use ExcludeLabel::{Honoured, Ignored};
    use TrafficPolicy::{Cluster as C, Local as L};
    let rows: [Row<'_>; 5] = [
        (29, C, &["iris2"], Honoured, Some("iris1")),
        (30, C, &["iris1"], Honoured, Some("iris2")),
        (31, C, &["iris1", "iris2"], Honoured, None),
        (32, L, &["iris1", "iris2"], Ignored, Some("iris1")),
        (33, L, &[], Honoured, Some("iris1")),
    ];
    for (fact, policy, excluded, exclude_label, expected) in rows {
        let mut cluster = cluster(&["iris1", "iris2"]);
        for name in excluded {
            let node = cluster.nodes.get_mut(*name).unwrap();
            node.labels.insert(crate::model::EXCLUDE_LABEL.to_owned(), String::new());
        }
        let service = service("web", policy);
        cluster.endpoints.insert(service.key.clone(), endpoints(&["iris1"]));
        let rules = ElectionRules { live: LiveSpeakers::EveryNode, exclude_label };
        let election = elect_one(&service, VIP, &pool(vec![ad(&[])]), &cluster, &rules);
        assert_eq!(owner(&election), expected, "fact {fact}");
    }
}

#[test]
fn service_selectors_and_shared_addresses_meet_as_facts_34_to_43_say() {
    type Row<'a> = (u8, &'a str, &'a str, Vec<L2Advertisement>, Result<&'a str, L2Reason>);
    let web = || ad(&[]).service(&["app=web"]);
    let rows: Vec<Row<'_>> = vec![
        (34, "app=web", "", vec![web()], Ok("iris2")),
        (35, "app=nginx", "", vec![web()], Err(L2Reason::NoMatchingAdvertisement)),
        (36, "app=nginx", "", vec![ad(&[]).service(&["app=web", "app=nginx"])], Ok("iris2")),
        (37, "app=web", "metallb.io/", vec![web()], Err(L2Reason::SharedIpWithServiceSelector)),
        (38, "app=web", "metallb.universe.tf/", vec![web()], Err(L2Reason::SharedIpWithServiceSelector)),
        (39, "app=web", "metallb.io/", vec![ad(&[])], Ok("iris2")),
        (40, "app=web", "metallb.io/", vec![ad(&[]), web()], Err(L2Reason::SharedIpWithServiceSelector)),
        (
            42,
            "app=web",
            "",
            vec![ad(&[]).service(&["app=other"]), ad(&["ghost"]).service(&["app=web"])],
            Err(L2Reason::NoCandidate),
        ),
        (
            43,
            "app=foo",
            "",
            vec![ad(&["iris1"]).service(&["app=foo"]), ad(&["iris2"]).service(&["app=bar"])],
            Ok("iris1"),
        ),
        (
            43,
            "app=bar",
            "",
            vec![ad(&["iris1"]).service(&["app=foo"]), ad(&["iris2"]).service(&["app=bar"])],
            Ok("iris2"),
        ),
    ];
    for (fact, of_service, prefix, ads, expected) in rows {
        let mut cluster = cluster(&["iris1", "iris2"]);
        let mut service = service("web", TrafficPolicy::Cluster);
        service.labels = labels(of_service);
        if !prefix.is_empty() {
            service.annotations.insert(format!("{prefix}allow-shared-ip"), String::new());
        }
        cluster.endpoints.insert(service.key.clone(), endpoints(&["iris1"]));
        let election = elect_one(&service, VIP, &pool(ads), &cluster, &ElectionRules::default());
        assert_eq!(owner(&election).ok_or(election.reason), expected, "fact {fact}");
    }
}

#[test]
fn interfaces_are_the_union_as_facts_41_59_and_60_say() {
    let cluster = cluster(&["iris1", "iris2"]);
    let rows: Vec<(u8, &str, Vec<L2Advertisement>, &[&str])> = vec![
        (41, "iris1", vec![ad(&["iris1"]).on(&["eth0"]), ad(&["iris2"]).on(&["eth1"])], &["eth0"]),
        (41, "iris2", vec![ad(&["iris1"]).on(&["eth0"]), ad(&["iris2"]).on(&["eth1"])], &["eth1"]),
        (59, "iris1", vec![ad(&[]).on(&["eth0", "eth1"]), ad(&[]).on(&["eth0", "eth2"])], &["eth0", "eth1", "eth2"]),
        (60, "iris1", vec![ad(&[]).on(&["eth0", "eth1"]), ad(&[])], &[]),
    ];
    for (fact, node, ads, expected) in rows {
        let union = interfaces(&pool(ads).l2, &cluster.nodes[node]);
        assert_eq!(union.iter().map(InterfaceName::as_str).collect::<Vec<_>>(), expected, "fact {fact} {node}");
    }
}

#[test]
fn preferences_decide_among_candidates_as_facts_44_to_49_say() {
    type Row<'a> = (u8, TrafficPolicy, &'a [&'a str], Vec<L2Advertisement>, &'a [&'a str], &'a str);
    let edges = || ad(&[]).prefer(&[(100, "role=edge")]);
    let nodes = ["edge-a:role=edge,pick=a", "edge-b:role=edge", "worker-a:", "worker-b:"];
    let first_ad = || ad(&["edge-a"]).prefer(&[(100, "node=edge-a")]);
    let foreign = || ad(&["edge-a", "worker-a"]).service(&["app=other"]).prefer(&[(1000, "node=worker-a")]);
    let rows: Vec<Row<'_>> = vec![
        (44, TrafficPolicy::Cluster, &nodes, vec![ad(&[]).prefer(&[(100, "pick=a")])], &["worker-b"], "edge-a"),
        (45, TrafficPolicy::Local, &nodes, vec![ad(&[]).prefer(&[(100, "pick=a")])], &["worker-a"], "worker-a"),
        (
            46,
            TrafficPolicy::Cluster,
            &["edge-a", "worker-a"],
            vec![first_ad(), ad(&["edge-a", "worker-a"]), foreign()],
            &["edge-a"],
            "edge-a",
        ),
        (47, TrafficPolicy::Cluster, &["edge-b:role=edge", "worker-a"], vec![edges()], &["edge-b"], "edge-b"),
        (
            48,
            TrafficPolicy::Cluster,
            &["edge-a:role=edge", "edge-b:role=edge", "worker-a"],
            vec![edges()],
            &["edge-b"],
            "edge-b",
        ),
        (49, TrafficPolicy::Cluster, &["worker-a", "worker-b"], vec![edges()], &["worker-a"], "worker-a"),
    ];
    for (fact, policy, nodes, ads, on, expected) in rows {
        let mut cluster = cluster(nodes);
        let service = service("web", policy);
        cluster.endpoints.insert(service.key.clone(), endpoints(on));
        let election = elect_one(&service, VIP, &pool(ads), &cluster, &ElectionRules::default());
        assert_eq!(owner(&election), Some(expected), "fact {fact}");
    }
}

#[test]
fn candidates_tell_why_each_node_may_not_answer() {
    let mut cluster = cluster(&["dead", "down", "excluded", "far", "idle", "good"]);
    cluster.nodes.get_mut("down").unwrap().network_unavailable = true;
    cluster.nodes.get_mut("excluded").unwrap().labels.insert(crate::model::EXCLUDE_LABEL.to_owned(), "x".to_owned());
    let live = cluster.nodes.keys().filter(|name| name.as_str() != "dead").cloned().collect();
    let rules = ElectionRules { live: LiveSpeakers::Only(live), exclude_label: ExcludeLabel::Honoured };
    let service = service("web", TrafficPolicy::Local);
    cluster.endpoints.insert(service.key.clone(), endpoints(&["good", "!idle"]));
    let (pool, ips) = (pool(vec![ad(&["dead", "down", "excluded", "idle", "good"])]), [ip(VIP)]);
    let elections = elections(&cluster, &rules, [Holder { service: &service, pool: &pool, ips: &ips }]);
    let told: Vec<(String, &str)> = elections
        .candidates(&service.key, &cluster.nodes)
        .iter()
        .map(|c| (c.node.to_string(), c.reason.as_str()))
        .collect();
    let expected = [
        ("dead", "NoSpeaker"),
        ("down", "NetworkUnavailable"),
        ("excluded", "ExcludedByLabel"),
        ("far", "NotSelected"),
        ("good", "Eligible"),
        ("idle", "NoLocalEndpoint"),
    ];
    assert_eq!(told, expected.map(|(node, reason)| (node.to_owned(), reason)));
}

#[test]
fn services_on_one_address_never_have_two_owners() {
    let mut cluster = cluster(&["n1", "n2", "n3"]);
    let (a, b) = (service("a", TrafficPolicy::Local), service("b", TrafficPolicy::Local));
    let shared = [ip(VIP)];
    let pool = pool(vec![ad(&[])]);
    let rules = ElectionRules::default();
    let rows: [(&[&str], &[&str], Option<&str>, Option<&str>); 4] = [
        (&["n1", "n2"], &["n2", "n3"], Some("n2"), Some("n2")),
        (&["n1"], &["!n3"], Some("n1"), None),
        // Nothing in common: the best of all answers, and serves one of them only. n1 beats n3.
        (&["n1"], &["n3"], Some("n1"), None),
        (&["n3"], &["n1"], None, Some("n1")),
    ];
    for (on_a, on_b, owner_a, owner_b) in rows {
        cluster.endpoints.insert(a.key.clone(), endpoints(on_a));
        cluster.endpoints.insert(b.key.clone(), endpoints(on_b));
        let holders = [&a, &b].map(|service| Holder { service, pool: &pool, ips: &shared });
        let elections = elections(&cluster, &rules, holders);
        let told = [&a, &b].map(|service| elections.election(&service.key).unwrap());
        for (election, on) in told.iter().zip([on_a, on_b]) {
            let usable = on.iter().any(|node| !node.starts_with('!'));
            let expected = match election.owner {
                Some(_) => L2Reason::Elected,
                None if usable => L2Reason::OwnedForSharingService,
                None => L2Reason::NoEndpoints,
            };
            assert_eq!(election.reason, expected, "{on:?}");
        }
        let owners = told.map(|election| election.owner);
        let owners = owners.each_ref().map(|owner| owner.as_ref().map(NodeName::as_str));
        assert_eq!(owners, [owner_a, owner_b], "{on_a:?} {on_b:?}");
        for (service, owner) in [(&a, owners[0]), (&b, owners[1])] {
            for node in ["n1", "n2", "n3"] {
                let mut asked = Elections::new(rules.clone());
                for service in [&a, &b] {
                    asked.set(Holder { service, pool: &pool, ips: &shared }, &cluster);
                }
                asked.settle_for(&node.into());
                let owns = asked.election(&service.key).and_then(|election| election.owner) == Some(node.into());
                assert_eq!(owns, owner == Some(node), "{} {node}", service.key);
            }
        }
    }
}

#[test]
fn candidate_that_cannot_serve_all_who_share_the_address_says_so() {
    let mut cluster = cluster(&["n1", "n2", "n3"]);
    let (a, b) = (service("a", TrafficPolicy::Local), service("b", TrafficPolicy::Local));
    let shared = [ip(VIP)];
    let pool = pool(vec![ad(&[])]);
    cluster.endpoints.insert(a.key.clone(), endpoints(&["n1", "n2"]));
    cluster.endpoints.insert(b.key.clone(), endpoints(&["n2", "n3"]));
    let rules = ElectionRules::default();
    let rows: [(&[&Service], [&str; 3]); 2] = [
        (&[&a], ["Eligible", "Eligible", "NoLocalEndpoint"]),
        (&[&a, &b], ["NotForSharedIp", "Eligible", "NoLocalEndpoint"]),
    ];
    for (services, expected) in rows {
        let holders = services.iter().map(|service| Holder { service, pool: &pool, ips: &shared });
        let candidates = elections(&cluster, &rules, holders).candidates(&a.key, &cluster.nodes);
        assert_eq!(candidates.iter().map(|told| told.reason.as_str()).collect::<Vec<_>>(), expected);
        let eligible = candidates.iter().map(|told| told.eligible);
        assert_eq!(eligible.collect::<Vec<_>>(), expected.map(|reason| reason == "Eligible"));
    }
}

#[test]
fn service_that_cannot_be_announced_has_no_say_in_who_answers_for_others() {
    let names: Vec<String> = (0..8).map(|index| format!("n{index}")).collect();
    let mut cluster = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let [idle, first, second] = ["a", "b", "c"].map(|name| service(name, TrafficPolicy::Cluster));
    for busy in [&first, &second] {
        cluster.endpoints.insert(busy.key.clone(), endpoints(&["n1"]));
    }
    let pool = pool(vec![ad(&[])]);
    let (both, v4, v6) = ([ip("fd00::1"), ip("10.0.0.1")], [ip("10.0.0.1")], [ip("fd00::1")]);
    let rules = ElectionRules::default();
    let held = [(&idle, &both[..]), (&first, &v4), (&second, &v6)];
    let elections = elections(&cluster, &rules, held.map(|(service, ips)| Holder { service, pool: &pool, ips }));
    assert_eq!(elections.election(&idle.key).unwrap().reason, L2Reason::NoEndpoints);
    let electorate = Electorate::new(cluster.nodes.keys().map(|node| (node.clone(), 0)));
    assert_eq!((electorate.len(), electorate.is_empty()), (8, false));
    assert_ne!(electorate.owner(v4[0]), electorate.owner(v6[0]), "the example tells nothing");
    for (service, own) in [(&first, v4[0]), (&second, v6[0])] {
        assert_eq!(elections.election(&service.key).unwrap().owner.as_ref(), electorate.owner(own), "{own}");
    }
}

/// A Service by the bits of its endpoints' nodes, whether its policy is Local, and which of six addresses it holds.
type Drawn = (u8, bool, Vec<u8>);

fn owners_of(nodes: &[&str], drawn: &[Drawn], rules: &ElectionRules) -> Vec<(Vec<IpAddr>, Option<NodeName>)> {
    let mut cluster = cluster(nodes);
    let pool = pool(vec![ad(&[])]);
    let mut services = Vec::new();
    let mut addresses = Vec::new();
    for (index, (bits, local, ips)) in drawn.iter().enumerate() {
        let policy = if *local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let service = service(&format!("s{index}"), policy);
        let on: Vec<&str> =
            NODES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| *name).collect();
        cluster.endpoints.insert(service.key.clone(), endpoints(&on));
        services.push(service);
        addresses.push(ips.iter().map(|last| IpAddr::from([10, 20, 30, *last])).collect::<Vec<_>>());
    }
    let holders = services.iter().zip(&addresses).map(|(service, ips)| Holder { service, pool: &pool, ips });
    let elections = Elections::of(&cluster, rules, holders, NonZeroUsize::MIN.saturating_add(drawn.len() % 3));
    let owner = |service: &Service| elections.election(&service.key).unwrap().owner;
    services.iter().zip(&addresses).map(|(service, ips)| (ips.clone(), owner(service))).collect()
}

const NODES: [&str; 6] = ["n0", "n1", "n2", "n3", "n4", "n5"];

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let ips = proptest::sample::subsequence(vec![1_u8, 2, 3, 4, 5, 6], 1..=2).prop_shuffle();
    proptest::collection::vec((0_u8..64, any::<bool>(), ips), 1..6)
}

proptest! {
    /// I25, and I18: one owner for each address, and it can serve the Service.
    #[test]
    fn address_has_at_most_one_owner_whoever_shares_it(drawn in drawn()) {
        let mut by_ip: BTreeMap<IpAddr, NodeName> = BTreeMap::new();
        let owners = owners_of(&NODES, &drawn, &ElectionRules::default());
        for ((ips, owner), (bits, local, _)) in owners.into_iter().zip(&drawn) {
            let Some(owner) = owner else { continue };
            let bit = NODES.iter().position(|name| *name == owner.as_str()).unwrap();
            prop_assert!(!local || bits >> bit & 1 == 1, "{owner} has no endpoint");
            for ip in ips {
                prop_assert_eq!(by_ip.entry(ip).or_insert_with(|| owner.clone()), &owner);
            }
        }
    }

    /// I23: what a node concludes does not depend on the order in which it learned the facts.
    #[test]
    fn election_is_the_same_whatever_the_order_of_facts(drawn in drawn()) {
        let mut backwards = NODES;
        backwards.reverse();
        let rules = ElectionRules::default();
        prop_assert_eq!(owners_of(&NODES, &drawn, &rules), owners_of(&backwards, &drawn, &rules));
    }

    /// I24: a node that goes moves only what it owned; one that comes takes only what it wins. The early exit agrees
    /// with the full scan.
    #[test]
    fn membership_change_moves_only_what_it_must(
        changes in proptest::collection::vec((0_usize..12, 0_u64..3), 1..30),
        ips in proptest::collection::btree_set(any::<IpAddr>(), 1..12),
    ) {
        let mut members: BTreeMap<NodeName, u64> = BTreeMap::new();
        let mut before = Electorate::default();
        for (index, score) in changes {
            let node = NodeName::from(format!("node-{index}"));
            if members.remove(&node).is_none() {
                members.insert(node.clone(), score);
            }
            let after = Electorate::new(members.clone());
            for &ip in &ips {
                let order = after.ranking(ip, 2);
                prop_assert_eq!(after.owner(ip), order.first());
                if before.owner(ip) != after.owner(ip) {
                    prop_assert!(before.owner(ip) == Some(&node) || after.owner(ip) == Some(&node));
                }
            }
            for member in members.keys() {
                let owned: BTreeSet<IpAddr> = after.owned_by(member, ips.iter().copied()).collect();
                prop_assert!(ips.iter().all(|ip| owned.contains(ip) == (after.owner(*ip) == Some(member))));
            }
            prop_assert_eq!(after.contains(&node), members.contains_key(&node));
            before = after;
        }
    }
}

/// More of both than are looked at together anywhere.
#[test]
fn many_nodes_and_addresses_are_elected_as_few_are() {
    let ips: Vec<IpAddr> = (0..300_u32).map(|index| IpAddr::from((0x0a00_0000 + index).to_be_bytes())).collect();
    let member = |index: u64| (NodeName::from(format!("node-{index}")), u64::from(!index.is_multiple_of(4)));
    let members: BTreeMap<NodeName, u64> = (0..120).map(member).collect();
    let electorate = Electorate::new(members.clone());
    let owners: Vec<NodeName> = ips.iter().map(|&ip| electorate.ranking(ip, 1)[0].clone()).collect();
    let of = |node: &NodeName| (0..ips.len()).filter(|&place| owners[place] == *node).collect::<Vec<_>>();
    for node in members.keys() {
        assert_eq!(electorate.places_owned_by(node, &ips), of(node), "{node}");
        let owned: Vec<IpAddr> = electorate.owned_by(node, ips.iter().copied()).collect();
        assert_eq!(owned, of(node).iter().map(|&place| ips[place]).collect::<Vec<_>>(), "{node}");
    }
}

#[test]
fn key_differs_where_an_input_of_the_election_does() {
    let selective = ad(&[]).service(&["app=web"]);
    let pools = pool(vec![ad(&["iris1"]), selective]);
    let mut base = service("a", TrafficPolicy::Local);
    base.labels = labels("app=web");
    let mut cluster = cluster(&["iris1", "iris2"]);
    cluster.endpoints.insert(base.key.clone(), endpoints(&["iris1", "!iris2"]));
    let key = |service: &Service, vip: &str, cluster: &Cluster| {
        Key::of(Holder { service, pool: &pools, ips: &[ip(vip)] }, &cluster.endpoints[&service.key])
    };
    let before = key(&base, VIP, &cluster);

    let changed = |change: fn(&mut Service)| {
        let mut service = base.clone();
        change(&mut service);
        key(&service, VIP, &cluster)
    };
    assert_eq!(changed(|service| service.labels = labels("app=web,tier=front")), before);
    assert_eq!(changed(|service| drop(service.annotations.insert("a".to_owned(), "b".to_owned()))), before);
    assert_ne!(changed(|service| service.labels = labels("app=other")), before, "another advertisement");
    assert_ne!(changed(|service| service.traffic_policy = TrafficPolicy::Cluster), before);
    let share = |service: &mut Service| {
        service.annotations.insert("metallb.io/allow-shared-ip".to_owned(), "key".to_owned());
    };
    assert_ne!(changed(share), before, "an advertisement chooses by Service labels");
    assert_ne!(key(&base, "10.20.30.2", &cluster), before);

    let with = |texts: &[&str]| {
        let mut cluster = cluster.clone();
        cluster.endpoints.insert(base.key.clone(), endpoints(texts));
        key(&base, VIP, &cluster)
    };
    assert_eq!(with(&["iris1", "iris1", "!iris1"]), before, "the same nodes");
    assert_ne!(with(&["iris1", "iris2"]), before);
    assert_ne!(with(&["!iris1"]), before);
}
