//! Validation of the configuration (`docs/upstream-behaviour.md#configuration`). Upstream rejects some fields in its
//! native BGP mode and some combinations in its FRR mode. They are valid here, because the native speaker supports
//! them.

use std::collections::BTreeMap;

use metallb_core::config::{Config, ConfigReason, Parsed, Severity};
use metallb_core::model::{IpFamily, Node, PeerName, PoolName};
use serde_json::{Value, json};

use crate::support::manifest::{merged, object};
use crate::support::objects::World;

#[test]
fn objects_are_accepted_or_rejected_as_upstream_does() {
    use ConfigReason::{
        DuplicateValue, InvalidAddress, InvalidAggregationLength, InvalidAsn, InvalidCommunity, InvalidPeerAddress,
        InvalidRouterId, InvalidSelector, InvalidTimer, MultihopWithInternalPeer, NoAddresses, OutOfRange,
        OverlappingAddresses, SelectorsWithAggregation, UnknownBfdProfile, UnknownCommunity,
    };
    let peer_with = |spec: Value| with(peer("p", "10.0.0.1"), spec);
    let rows: Vec<(&str, Vec<Value>, Option<ConfigReason>)> = vec![
        ("no objects", vec![], None),
        (
            "namespace selector",
            vec![pool_with(json!({"serviceAllocation": {"namespaceSelectors": [label("a", "b")]}}))],
            None,
        ),
        (
            "duplicate namespace",
            vec![pool_with(json!({"serviceAllocation": {"namespaces": ["x", "x"]}}))],
            Some(DuplicateValue),
        ),
        (
            "duplicate namespace selector",
            vec![pool_with(json!({"serviceAllocation": {"namespaceSelectors": [label("a", "b"), label("a", "b")]}}))],
            Some(DuplicateValue),
        ),
        (
            "duplicate selector value",
            vec![pool_with(
                json!({"serviceAllocation": {"namespaceSelectors": [expression("a", "In", &["bar", "bar"])]}}),
            )],
            Some(InvalidSelector),
        ),
        ("priority only", vec![pool_with(json!({"serviceAllocation": {"priority": 1}}))], None),
        ("malformed peer address", vec![peer_with(json!({"peerAddress": "1.2.3.400"}))], Some(InvalidPeerAddress)),
        ("no local ASN", vec![peer_with(json!({"myASN": 0}))], Some(InvalidAsn)),
        ("no peer ASN", vec![peer_with(json!({"peerASN": 0}))], Some(InvalidAsn)),
        (
            "multihop with internal peer",
            vec![peer_with(json!({"peerASN": 64512, "ebgpMultiHop": true}))],
            Some(MultihopWithInternalPeer),
        ),
        ("malformed router ID", vec![peer_with(json!({"routerID": "oh god how do I BGP"}))], Some(InvalidRouterId)),
        (
            "keepalive above hold time",
            vec![peer_with(json!({"holdTime": "30s", "keepaliveTime": "90s"}))],
            Some(InvalidTimer),
        ),
        ("hold time of 1 s", vec![peer_with(json!({"holdTime": "1s"}))], Some(InvalidTimer)),
        ("router ID of zeros", vec![peer_with(json!({"routerID": "0.0.0.0"}))], None),
        ("router ID of IPv6", vec![peer_with(json!({"routerID": "fd00::1"}))], None),
        (
            "the same expressions in another order",
            vec![peer_with(json!({"nodeSelectors": [
                {"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]},
                {"matchExpressions": [{"key": "b", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]}]}))],
            None,
        ),
        (
            "the same values in another order",
            vec![peer_with(
                json!({"nodeSelectors": [expression("k", "In", &["a", "b"]), expression("k", "In", &["b", "a"])]}),
            )],
            Some(DuplicateValue),
        ),
        (
            "duplicate value in a preference",
            vec![l2(
                "l2",
                json!({"preferredNodeSelectors": [
                {"weight": 1, "preference": expression("k", "In", &["a", "a"])},
                {"weight": 1, "preference": {"matchExpressions": [
                    {"key": "q", "operator": "Exists"}, {"key": "q", "operator": "Exists"}]}}]}),
            )],
            None,
        ),
        ("connect time of 0", vec![peer_with(json!({"connectTime": "0s"}))], Some(InvalidTimer)),
        ("shortest connect time", vec![peer_with(json!({"connectTime": "1s"}))], None),
        ("longest connect time", vec![peer_with(json!({"connectTime": "65535s"}))], None),
        ("connect time too long", vec![peer_with(json!({"connectTime": "65536s"}))], Some(InvalidTimer)),
        ("connect time with a fraction", vec![peer_with(json!({"connectTime": "1500ms"}))], Some(InvalidTimer)),
        (
            "empty selector key",
            vec![peer_with(json!({"nodeSelectors": [expression("", "In", &["a"])]}))],
            Some(InvalidSelector),
        ),
        (
            "selector without operator",
            vec![peer_with(json!({"nodeSelectors": [expression("k", "", &["a"])]}))],
            Some(InvalidSelector),
        ),
        (
            "unknown selector operator",
            vec![peer_with(json!({"nodeSelectors": [expression("k", "surrounds", &["a"])]}))],
            Some(InvalidSelector),
        ),
        (
            "duplicate selector value",
            vec![peer_with(json!({"nodeSelectors": [expression("k", "In", &["quux", "quux"])]}))],
            Some(InvalidSelector),
        ),
        ("octet above 255", vec![pool("p", &["100.200.300.400/24"])], Some(InvalidAddress)),
        ("length above 32", vec![pool("p", &["1.2.3.0/33"])], Some(InvalidAddress)),
        ("reversed range", vec![pool("p", &["1.2.3.10-1.2.3.1"])], Some(InvalidAddress)),
        ("no addresses", vec![pool("p", &[])], Some(NoAddresses)),
        ("overlap inside a pool", vec![pool("p", &["1.2.3.0/24", "1.2.3.7-1.2.3.9"])], Some(OverlappingAddresses)),
        (
            "aggregation above 32",
            vec![pool("p", &["1.2.3.0/24"]), bgp(json!({"aggregationLength": 34}))],
            Some(InvalidAggregationLength),
        ),
        (
            "aggregation wider than the pool",
            vec![pool("p", &["1.2.3.0/28"]), bgp(json!({"aggregationLength": 26}))],
            Some(InvalidAggregationLength),
        ),
        (
            "aggregation within a range",
            vec![pool("p", &["3.3.3.2-3.3.3.254"]), bgp(json!({"aggregationLength": 26}))],
            None,
        ),
        (
            "aggregation wider than a range",
            vec![pool("p", &["3.3.3.2-3.3.3.254"]), bgp(json!({"aggregationLength": 24}))],
            Some(InvalidAggregationLength),
        ),
        ("community of one number", vec![bgp(json!({"communities": ["1234"]}))], Some(UnknownCommunity)),
        ("left part above 16 bits", vec![bgp(json!({"communities": ["99999999:1"]}))], Some(InvalidCommunity)),
        ("right part above 16 bits", vec![bgp(json!({"communities": ["1:99999999"]}))], Some(InvalidCommunity)),
        ("unknown alias", vec![bgp(json!({"communities": ["flarb"]}))], Some(UnknownCommunity)),
        ("duplicate community", vec![bgp(json!({"communities": ["1:2", "1:2"]}))], Some(DuplicateValue)),
        ("alias of one number", vec![community("c", &[("a", "1234")])], Some(InvalidCommunity)),
        ("alias above 16 bits", vec![community("c", &[("a", "99999999:1")])], Some(InvalidCommunity)),
        (
            "duplicate alias",
            vec![community("c", &[("a", "1:2"), ("a", "1:3")])],
            Some(ConfigReason::DuplicateCommunity),
        ),
        (
            "alias in two objects",
            vec![community("c", &[("a", "1:2")]), community("d", &[("a", "1:2")])],
            Some(ConfigReason::DuplicateCommunity),
        ),
        (
            "alias of a large community",
            vec![community("c", &[("a", "large:123:64512:1234")]), bgp(json!({"communities": ["a"]}))],
            None,
        ),
        ("wrong marker", vec![bgp(json!({"communities": ["larg:1:2:3"]}))], Some(InvalidCommunity)),
        (
            "community of three numbers",
            vec![bgp(json!({"communities": ["12345:12345:12345"]}))],
            Some(UnknownCommunity),
        ),
        (
            "password and Secret",
            vec![
                peer_with(json!({"password": "x", "passwordSecret": {"name": "s"}})),
                secret("kubernetes.io/basic-auth", true),
            ],
            Some(ConfigReason::InvalidPassword),
        ),
        (
            "Secret of a wrong type",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}})), secret("Opaque", true)],
            Some(ConfigReason::InvalidSecret),
        ),
        (
            "Secret without password",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}})), secret("kubernetes.io/basic-auth", false)],
            Some(ConfigReason::InvalidSecret),
        ),
        (
            "Secret missing",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}}))],
            Some(ConfigReason::SecretNotFound),
        ),
        (
            "Secret",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}})), secret("kubernetes.io/basic-auth", true)],
            None,
        ),
        ("BFD profile missing", vec![peer_with(json!({"bfdProfile": "nope"}))], Some(UnknownBfdProfile)),
        ("interval too short", vec![bfd(json!({"receiveInterval": 2}))], Some(OutOfRange)),
        ("interval too long", vec![bfd(json!({"receiveInterval": 90000}))], Some(OutOfRange)),
        ("duplicate BFD profile", vec![bfd(json!({})), bfd(json!({}))], Some(ConfigReason::DuplicateObject)),
        (
            "echo with IPv6",
            vec![
                pool("p", &["fc00::/124"]),
                bgp(json!({})),
                peer_with(json!({"bfdProfile": "b"})),
                bfd(json!({"echoMode": true})),
            ],
            Some(ConfigReason::EchoWithIpv6),
        ),
        (
            "echo with IPv4",
            vec![
                pool("p", &["1.2.3.0/24"]),
                bgp(json!({})),
                peer_with(json!({"bfdProfile": "b"})),
                bfd(json!({"echoMode": true})),
            ],
            None,
        ),
        (
            "duplicate selector expression",
            vec![l2(
                "l2",
                json!({"nodeSelectors": [{"matchExpressions": [
                    {"key": "h", "operator": "In", "values": ["first", "second"]},
                    {"key": "h", "operator": "In", "values": ["second", "first"]}]}]}),
            )],
            Some(InvalidSelector),
        ),
        ("unnumbered peer", vec![peer_with(json!({"peerAddress": null, "interface": "eth0"}))], None),
        ("neither address nor interface", vec![peer_with(json!({"peerAddress": null}))], Some(InvalidPeerAddress)),
        ("address and interface", vec![peer_with(json!({"interface": "eth0"}))], Some(InvalidPeerAddress)),
        (
            "selectors with host routes",
            vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLength": 32}))],
            None,
        ),
        (
            "selectors with aggregation",
            vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLength": 24}))],
            Some(SelectorsWithAggregation),
        ),
        (
            "selectors with IPv6 aggregation",
            vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLengthV6": 64}))],
            Some(SelectorsWithAggregation),
        ),
        (
            "all fields at once",
            vec![
                with(
                    peer("p", "10.0.0.1"),
                    json!({"bfdProfile": "b", "keepaliveTime": "10s", "connectTime": "5s",
                        "enableGracefulRestart": true,
                        "vrf": "red", "localASN": 65000, "dualStackAddressFamily": true, "disableMP": true}),
                ),
                bfd(json!({})),
                pool("p", &["fc00::/124"]),
                bgp(json!({"communities": ["large:1:2:3"]})),
            ],
            None,
        ),
        (
            "different router IDs",
            vec![with(peer("a", "10.0.0.1"), json!({"routerID": "1.1.1.1"})), peer("b", "10.0.0.2")],
            None,
        ),
        ("same address", vec![peer("a", "10.0.0.1"), peer("b", "10.0.0.1")], Some(ConfigReason::DuplicatePeer)),
        (
            "same address, other VRF",
            vec![peer("a", "10.0.0.1"), with(peer("b", "10.0.0.1"), json!({"vrf": "red"}))],
            None,
        ),
        ("same address, unknown nodes", on_two_hosts(), Some(ConfigReason::DuplicatePeer)),
        ("same address, different nodes", [on_two_hosts(), vec![node("h1", &[]), node("h2", &[])]].concat(), None),
        (
            "invalid preference selector",
            vec![l2(
                "l2",
                json!({"preferredNodeSelectors": [{"weight": 1, "preference": expression("k", "surrounds", &["a"])}]}),
            )],
            Some(InvalidSelector),
        ),
        (
            "weight above 100",
            vec![l2("l2", json!({"preferredNodeSelectors": [{"weight": 101, "preference": {}}]}))],
            Some(OutOfRange),
        ),
    ];
    for (row, objects, expected) in rows {
        let Parsed { problems, .. } = parse(&objects);
        let found: Vec<ConfigReason> =
            problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| problem.code).collect();
        match expected {
            Some(code) => assert!(found.contains(&code), "{row}: wanted {code:?}, got {problems:?}"),
            None => assert!(found.is_empty(), "{row}: {problems:?}"),
        }
    }
}

#[test]
fn error_texts_contain_the_fragments_that_tools_match() {
    let peer_with = |spec: Value| with(peer("p", "10.0.0.1"), spec);
    let rows: [(Vec<Value>, &str); 11] = [
        (vec![pool("a", &["1.2.3.0/24"]), pool("b", &["1.2.3.0/28"])], "overlaps with already defined CIDR"),
        (
            vec![pool("a", &["1.1.1.0/28"]), bgp(json!({"aggregationLength": 26}))],
            "invalid aggregation length 26: prefix 28 in this pool is more specific than the aggregation length \
             for addresses 1.1.1.0/28",
        ),
        (vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLength": 24}))], "mutually exclusive"),
        (vec![peer("p", "1.2.3.400")], "invalid BGPPeer address"),
        (vec![peer("a", "10.0.0.1"), peer("b", "10.0.0.1")], "already exists"),
        (vec![bgp(json!({"communities": ["1:99999999"]}))], "invalid community value: invalid section"),
        (vec![bgp(json!({"communities": ["lar:1:2:3"]}))], "expected community to be of format large"),
        (vec![community("c", &[("a", "1:2"), ("a", "1:2")])], "duplicate definition of community"),
        (
            vec![bgp(json!({"communities": ["my-alias"]}))],
            "invalid community format: my-alias: no Community object defines this alias",
        ),
        (vec![peer_with(json!({"bfdProfile": "b"}))], "peer p referencing non existing bfd profile b"),
        (vec![pool("a", &[])], "pool has no prefixes defined"),
    ];
    for (objects, fragment) in rows {
        let Parsed { problems, .. } = parse(&objects);
        assert!(problems.iter().any(|problem| problem.message.contains(fragment)), "{fragment}: {problems:?}");
    }
}

#[test]
fn bad_object_is_left_out_and_the_rest_stays_in_force() {
    let parsed = parse(&[
        pool("good", &["10.0.0.0/24"]),
        pool("bad", &["10.0.1.0/33"]),
        pool("late", &["10.0.0.128/25"]),
        l2("one", json!({})),
        l2("two", json!({"nodeSelectors": [expression("k", "surrounds", &[])]})),
        peer("p", "10.9.9.9"),
        peer("q", "nowhere"),
    ]);
    assert_eq!(parsed.config.pools.keys().map(PoolName::as_str).collect::<Vec<_>>(), ["good"]);
    assert_eq!(parsed.config.peers.keys().map(PeerName::as_str).collect::<Vec<_>>(), ["p"]);
    assert_eq!(ads_of(&parsed.config, "good"), ["one"]);
    let blamed: Vec<String> = parsed.problems.iter().map(|p| format!("{} {}", p.object, p.field)).collect();
    assert_eq!(
        blamed,
        [
            "BGPPeer/metallb-system/q spec.peerAddress",
            "IPAddressPool/metallb-system/bad spec.addresses[0]",
            "IPAddressPool/metallb-system/late spec.addresses[0]",
            "L2Advertisement/metallb-system/two spec.nodeSelectors[0]",
        ]
    );
}

#[test]
fn older_one_of_two_overlapping_pools_stays_in_force() {
    let older = json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}});
    let newer = json!({"metadata": {"creationTimestamp": "2024-01-02T00:00:00Z"}});
    let (a, z) = (pool("a", &["1.2.3.0/24"]), pool("z", &["1.2.3.0/25"]));
    for (a_age, z_age, winner) in [(&older, &newer, "a"), (&newer, &older, "z"), (&json!({}), &newer, "z")] {
        let parsed = parse(&[merged(a.clone(), a_age), merged(z.clone(), z_age)]);
        assert_eq!(parsed.config.pools.keys().map(PoolName::as_str).collect::<Vec<_>>(), [winner]);
        assert!(parsed.problems[0].message.contains(&format!("of pool \"{winner}\"")), "{:?}", parsed.problems);
    }
}

#[test]
fn local_preferences_conflict_only_for_the_same_route() {
    let two = |a: Value, b: Value| {
        vec![
            pool("p", &["1.2.3.0/24"]),
            node("h1", &[]),
            node("h2", &[]),
            bgp_named("a", merged(json!({"localPref": 100}), &a)),
            bgp_named("b", merged(json!({"localPref": 200}), &b)),
        ]
    };
    let host = |name: &str| json!({"nodeSelectors": [label("kubernetes.io/hostname", name)]});
    let rows = [
        ("same", two(json!({}), json!({})), true),
        ("lengths", two(json!({"aggregationLength": 24}), json!({})), false),
        ("v6 lengths of a v4 pool", two(json!({"aggregationLengthV6": 64}), json!({})), true),
        ("nodes", two(host("h1"), host("h2")), false),
        ("common node", two(host("h1"), json!({})), true),
        ("peers", two(json!({"peers": ["peer1"]}), json!({"peers": ["peer2"]})), false),
        ("one names no peer", two(json!({"peers": ["peer1"]}), json!({})), true),
        ("equal", two(json!({"localPref": 200}), json!({})), false),
    ];
    for (row, objects, clash) in rows {
        let parsed = parse(&objects);
        let found = parsed.problems.iter().any(|problem| problem.code == ConfigReason::LocalPreferenceClash);
        assert_eq!(found, clash, "{row}: {:?}", parsed.problems);
        assert_eq!(parsed.config.pools["p"].bgp.len(), if clash { 1 } else { 2 }, "{row}");
    }
}

#[test]
fn hold_and_keepalive_time_imply_each_other() {
    let seconds = |hold: u64, keepalive: u64| Some((hold, keepalive));
    let rows = [
        (json!({"holdTime": "180s"}), seconds(180, 60)),
        (json!({"keepaliveTime": "60s"}), seconds(180, 60)),
        (json!({"holdTime": "0s", "keepaliveTime": "0s"}), seconds(0, 0)),
        (json!({"holdTime": "500ms"}), seconds(0, 0)),
        (json!({}), None),
    ];
    for (timers, expected) in rows {
        let parsed = parse(&[with(peer("p", "10.0.0.1"), timers.clone())]);
        let peer = &parsed.config.peers["p"];
        let found = peer.hold_time.map(|hold| (hold.as_secs(), peer.keepalive_time.unwrap().as_secs()));
        assert_eq!(found, expected, "{timers}");
    }
}

#[test]
fn pool_ranges_become_the_shortest_list_of_prefixes() {
    let parsed = parse(&[pool("p", &["40.0.0.210 - 40.0.0.240", "40.0.0.250 - 40.0.0.250"])]);
    let prefixes: Vec<String> = parsed.config.pools["p"].prefixes().map(ToString::to_string).collect();
    let expected =
        ["40.0.0.210/31", "40.0.0.212/30", "40.0.0.216/29", "40.0.0.224/28", "40.0.0.240/32", "40.0.0.250/32"];
    assert_eq!(prefixes, expected);
}

#[test]
fn capacity_saturates_and_is_never_negative() {
    let rows: [(&str, &[&str], bool, i64, i64); 8] = [
        ("IPv4", &["1.2.3.0/24"], false, 256, 0),
        ("two blocks", &["1.2.3.0/24", "2.3.4.128/25"], false, 384, 0),
        ("two blocks, buggy avoided", &["1.2.3.0/24", "2.3.4.128/25"], true, 381, 0),
        ("with IPv6", &["1.2.3.0/24", "2.3.4.128/25", "1000::/64"], true, 381, i64::MAX),
        ("small blocks", &["1.2.3.0/31", "1000::/127"], true, 1, 2),
        ("dual stack", &["1.2.3.4/30", "1000::4/126"], false, 4, 4),
        ("only buggy addresses", &["1.2.3.255/32", "1.2.4.0/32"], true, 0, 0),
        ("saturated sum", &["1000::/64", "2000::/64", "3000::/127"], false, 0, i64::MAX),
    ];
    for (row, addresses, avoid, v4, v6) in rows {
        let parsed = parse(&[with(pool("p", addresses), json!({"avoidBuggyIPs": avoid}))]);
        let pool = &parsed.config.pools["p"];
        assert_eq!((pool.capacity(IpFamily::V4), pool.capacity(IpFamily::V6)), (v4, v6), "{row}");
    }
}

#[test]
fn advertisements_reach_pools_by_name_by_label_or_all() {
    let pools = || vec![with_labels(pool("p1", &["10.1.0.0/24"]), "tier", "gold"), pool("p2", &["10.2.0.0/24"])];
    let ads = |extra: Vec<Value>| {
        let config = parse(&[pools(), extra].concat()).config;
        (ads_of(&config, "p1"), ads_of(&config, "p2"))
    };
    let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let all = json!({});
    let only_p1 = json!({"ipAddressPools": ["p1"]});
    assert_eq!(
        ads(vec![l2("a", only_p1.clone()), l2("b", all.clone())]),
        (named(&["a"]), named(&["b"])),
        "by name, and all"
    );
    let nothing = json!({"ipAddressPoolSelectors": [label("tier", "lead")]});
    assert_eq!(ads(vec![l2("a", nothing)]), (named(&[]), named(&[])), "no label matches");
    let both = json!({"ipAddressPools": ["p1"], "ipAddressPoolSelectors": [label("tier", "gold")]});
    assert_eq!(ads(vec![l2("a", both)]), (named(&["a"]), named(&[])), "by name and label");
    let preferring = |weight: u32| json!({"preferredNodeSelectors": [{"weight": weight, "preference": {}}]});
    assert_eq!(
        ads(vec![l2("a", preferring(30)), l2("b", preferring(70))]),
        (named(&["a", "b"]), named(&["a", "b"])),
        "different preferences are kept"
    );
    assert_eq!(
        ads(vec![l2("a", all.clone()), l2("b", all)]),
        (named(&["a"]), named(&["a"])),
        "identical ones count once"
    );

    let config = parse(
        &[pools(), vec![l2("a", json!({"serviceSelectors": [label("app", "nginx"), label("app", "apache")]}))]]
            .concat(),
    );
    let ad = &config.config.pools["p1"].l2[0];
    let texts: Vec<String> = ad.service_selectors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["app=apache", "app=nginx"], "sorted");
    assert!(["first", "second"].iter().all(|name| ad.nodes.selects(&Node::new(name))), "all nodes");
}

#[test]
fn weights_of_matching_preferences_are_added_per_node() {
    let nodes = [
        ("edge-a", vec![("role", "edge"), ("zone", "primary")]),
        ("edge-b", vec![("role", "edge")]),
        ("worker-a", vec![("zone", "primary")]),
        ("worker-b", vec![]),
    ];
    let role = |weight: u32| json!({"weight": weight, "preference": label("role", "edge")});
    let zone = |weight: u32| json!({"weight": weight, "preference": label("zone", "primary")});
    let rows = [
        ("one preference", json!({"preferredNodeSelectors": [role(100)]}), [100, 100, 0, 0]),
        ("two preferences", json!({"preferredNodeSelectors": [zone(60), role(50)]}), [110, 50, 60, 0]),
        (
            "node not selected",
            json!({"preferredNodeSelectors": [zone(100)], "nodeSelectors": [label("role", "edge")]}),
            [100, 0, 0, 0],
        ),
        ("empty preference", json!({"preferredNodeSelectors": [{"weight": 10, "preference": {}}]}), [10, 10, 10, 10]),
        (
            "no match",
            json!({"preferredNodeSelectors": [{"weight": 10, "preference": label("no", "where")}]}),
            [0, 0, 0, 0],
        ),
    ];
    for (row, spec, expected) in rows {
        let parsed = parse(&[pool("p", &["10.0.0.0/24"]), l2("a", spec)]);
        let ad = &parsed.config.pools["p"].l2[0];
        let scores = nodes.clone().map(|(name, labels)| {
            let mut node = Node::new(name);
            node.labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            ad.score(&node)
        });
        assert_eq!(scores, expected, "{row}");
    }
}

#[test]
fn peer_with_an_invalid_selector_is_left_out() {
    let (long, longest) = ("v".repeat(64), "v".repeat(63));
    for (selector, kept) in [
        (expression("k", "surrounds", &["a"]), false),
        (label("k", &long), false),
        (expression("k", "In", &[&long]), false),
        (label("k", &longest), true),
    ] {
        let parsed = parse(&[with(peer("p", "10.0.0.1"), json!({"nodeSelectors": [selector]}))]);
        assert_eq!(parsed.config.peers.len(), usize::from(kept), "{:?}", parsed.problems);
    }
}

#[test]
fn pool_of_several_addresses_must_contain_all_of_them() {
    let config = parse(&[pool("a", &["10.0.0.0/31", "fd00::/127"]), pool("b", &["10.0.0.2/31"])]).config;
    let rows: [(&[&str], Option<&str>); 7] = [
        (&["10.0.0.1"], Some("a")),
        (&["10.0.0.2"], Some("b")),
        (&["10.0.0.4"], None),
        (&["10.0.0.0", "fd00::1"], Some("a")),
        (&["10.0.0.2", "fd00::1"], None),
        (&["10.0.0.0", "fd00::2"], None),
        (&[], None),
    ];
    for (ips, expected) in rows {
        let parsed: Vec<_> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(config.pool_of(&parsed).map(|pool| pool.name.as_str()), expected, "{ips:?}");
    }
}

#[test]
fn service_allocation_distinguishes_no_namespace_from_any() {
    let allocation = |spec: Value| {
        let objects = [pool_with(json!({"serviceAllocation": spec})), namespace("team-a", "team", "a")];
        parse(&objects).config.pools["p"].allocation.clone().unwrap()
    };
    let unmatched = allocation(json!({"namespaceSelectors": [label("team", "z")]}));
    assert_eq!(unmatched.namespaces.map(|names| names.len()), Some(0), "a selector without matches means no namespace");
    let matched = allocation(json!({"namespaces": ["b"], "namespaceSelectors": [label("team", "a")]}));
    let names: Vec<String> = matched.namespaces.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["b", "team-a"]);
    let unrestricted = allocation(json!({"priority": 1}));
    assert!(unrestricted.namespaces.is_none() && unrestricted.service_selectors.is_empty());
}

#[test]
fn peer_with_echo_and_ipv6_keeps_its_session_without_bfd() {
    let echo = with(peer("p", "10.0.0.1"), json!({"bfdProfile": "b"}));
    let parsed = parse(&[pool("p", &["fc00::/124"]), bgp(json!({})), echo, bfd(json!({"echoMode": true}))]);
    assert_eq!(parsed.config.peers["p"].bfd_profile, None);
    assert_eq!(parsed.problems[0].object.to_string(), "BGPPeer/metallb-system/p");
}

#[test]
fn unknown_name_is_a_warning() {
    let parsed = parse(&[
        pool("p", &["10.0.0.0/24"]),
        bgp(json!({"ipAddressPools": ["p", "q"], "peers": ["unknown"]})),
        l2("l2", json!({"ipAddressPools": ["q"]})),
    ]);
    let found: Vec<(Severity, ConfigReason, &str)> =
        parsed.problems.iter().map(|problem| (problem.severity, problem.code, problem.field.as_str())).collect();
    let warning = |field| (Severity::Warning, ConfigReason::UnknownName, field);
    assert_eq!(found, [warning("spec.ipAddressPools[1]"), warning("spec.peers[0]"), warning("spec.ipAddressPools[0]")]);
    assert_eq!(parsed.config.pools["p"].bgp.len(), 1);
}

#[test]
fn password_is_never_printed() {
    let parsed = parse(&[with(peer("p", "10.0.0.1"), json!({"password": "hunter2"}))]);
    assert_eq!(parsed.config.peers["p"].password.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{:?}", parsed.config).contains("hunter2"));
}

fn parse(objects: &[Value]) -> Parsed {
    let world = World::read(objects);
    Config::parse(&world.resources, &world.cluster)
}

fn ads_of(config: &Config, pool: &str) -> Vec<String> {
    config.pools[pool].l2.iter().map(|ad| ad.name.to_string()).collect()
}

fn pool(name: &str, addresses: &[&str]) -> Value {
    object("IPAddressPool", name, json!({"addresses": addresses}))
}

fn pool_with(spec: Value) -> Value {
    with(pool("p", &["10.0.0.0/24"]), spec)
}

fn peer(name: &str, address: &str) -> Value {
    object("BGPPeer", name, json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address}))
}

fn bgp(spec: Value) -> Value {
    bgp_named("bgp", spec)
}

fn bgp_named(name: &str, spec: Value) -> Value {
    object("BGPAdvertisement", name, spec)
}

fn l2(name: &str, spec: Value) -> Value {
    object("L2Advertisement", name, spec)
}

fn bfd(spec: Value) -> Value {
    object("BFDProfile", "b", spec)
}

fn community(name: &str, aliases: &[(&str, &str)]) -> Value {
    let entries: Vec<Value> = aliases.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    object("Community", name, json!({"communities": entries}))
}

fn secret(kind: &str, has_password: bool) -> Value {
    let data = if has_password { json!({"password": "czNjcjN0"}) } else { json!({}) };
    merged(object("Secret", "s", json!({})), &json!({"type": kind, "data": data}))
}

fn node(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    labels.insert("kubernetes.io/hostname", name);
    json!({"kind": "Node", "metadata": {"name": name, "labels": labels}})
}

fn namespace(name: &str, key: &str, value: &str) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": name, "labels": {key: value}}})
}

fn on_two_hosts() -> Vec<Value> {
    let on = |name: &str| json!({"nodeSelectors": [label("kubernetes.io/hostname", name)]});
    vec![with(peer("a", "10.0.0.1"), on("h1")), with(peer("b", "10.0.0.1"), on("h2"))]
}

fn label(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

fn with(object: Value, spec: Value) -> Value {
    merged(object, &json!({"spec": spec}))
}

fn with_labels(object: Value, key: &str, value: &str) -> Value {
    merged(object, &json!({"metadata": {"labels": {key: value}}}))
}

#[test]
fn address_that_no_router_has_is_refused_with_the_remedy() {
    for (address, remedy) in [
        ("fe80::1", "set interface instead"),
        ("fe80::1%eth0", "set interface: eth0 instead"),
        ("0.0.0.0", "set the address of the router"),
        ("::", "set the address of the router"),
        ("224.0.0.5", "multicast"),
        ("ff02::5", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("router.example", "not an IP address"),
        ("10.0.0.1/24", "not an IP address"),
    ] {
        let Parsed { config, problems, .. } = parse(&[peer("p", address)]);
        assert!(config.peers.is_empty(), "{address}");
        let found =
            problems.iter().any(|problem| problem.message.contains(remedy) && problem.message.contains(address));
        assert!(found, "{address}: {problems:?}");
    }
    for address in ["10.0.0.1", "fd00::1", "127.0.0.1", "169.254.0.1"] {
        let Parsed { config, problems, .. } = parse(&[peer("p", address)]);
        assert_eq!((config.peers.len(), problems.len()), (1, 0), "{address}: {problems:?}");
    }
}

#[test]
fn source_address_of_another_family_is_a_warning() {
    for (address, source, expected) in [
        ("10.0.0.1", "fd00::9", true),
        ("fd00::1", "10.0.0.9", true),
        ("10.0.0.1", "10.0.0.9", false),
        ("fd00::1", "fd00::9", false),
    ] {
        let Parsed { config, problems, .. } = parse(&[with(peer("p", address), json!({"sourceAddress": source}))]);
        assert_eq!(config.peers.len(), 1, "the session runs");
        let found = problems.iter().any(|problem| problem.code == ConfigReason::InvalidSourceAddress);
        assert_eq!(found, expected, "{address} {source}: {problems:?}");
    }
}
