//! Test facts of the contract about configuration: control-plane §11 facts 30–34 and 79–113, speaker §10 facts 50–58 and
//! 111–124. Facts that tell only where FRR cannot do something, or where upstream's native mode could not, hold the other way
//! round here: the native speaker does all of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values, and rows read better without `&`")]

mod support {
    #[allow(dead_code, reason = "shared with tests that need more of it")]
    pub(crate) mod manifest;
    pub(crate) mod objects;
}

use std::collections::BTreeMap;

use metallb_core::config::{Config, ConfigReason, Parsed, Severity};
use metallb_core::model::{IpFamily, Node, PeerName, PoolName};
use serde_json::{Value, json};

use crate::support::manifest::{merged, object};
use crate::support::objects::World;

#[test]
fn single_object_facts_are_judged_as_the_contract_says() {
    use ConfigReason::{
        DuplicateValue, InvalidAddress, InvalidAggregationLength, InvalidAsn, InvalidCommunity, InvalidPeerAddress,
        InvalidRouterId, InvalidSelector, InvalidTimer, MultihopWithInternalPeer, NoAddresses, OutOfRange,
        OverlappingAddresses, SelectorsWithAggregation, UnknownBfdProfile, UnknownCommunity,
    };
    let peer_with = |spec: Value| with(peer("p", "10.0.0.1"), spec);
    let rows: Vec<(&str, Vec<Value>, Option<ConfigReason>)> = vec![
        ("79", vec![], None),
        ("82", vec![pool_with(json!({"serviceAllocation": {"namespaceSelectors": [label("a", "b")]}}))], None),
        ("83 names", vec![pool_with(json!({"serviceAllocation": {"namespaces": ["x", "x"]}}))], Some(DuplicateValue)),
        (
            "83 selectors",
            vec![pool_with(json!({"serviceAllocation": {"namespaceSelectors": [label("a", "b"), label("a", "b")]}}))],
            Some(DuplicateValue),
        ),
        (
            "83 values",
            vec![pool_with(
                json!({"serviceAllocation": {"namespaceSelectors": [expression("a", "In", &["bar", "bar"])]}}),
            )],
            Some(InvalidSelector),
        ),
        ("84", vec![pool_with(json!({"serviceAllocation": {"priority": 1}}))], None),
        ("85 address", vec![peer_with(json!({"peerAddress": "1.2.3.400"}))], Some(InvalidPeerAddress)),
        ("85 myASN", vec![peer_with(json!({"myASN": 0}))], Some(InvalidAsn)),
        ("85 peerASN", vec![peer_with(json!({"peerASN": 0}))], Some(InvalidAsn)),
        (
            "85, speaker 119: multihop",
            vec![peer_with(json!({"peerASN": 64512, "ebgpMultiHop": true}))],
            Some(MultihopWithInternalPeer),
        ),
        ("85 routerID", vec![peer_with(json!({"routerID": "oh god how do I BGP"}))], Some(InvalidRouterId)),
        (
            "88, speaker 118: keepalive",
            vec![peer_with(json!({"holdTime": "30s", "keepaliveTime": "90s"}))],
            Some(InvalidTimer),
        ),
        ("88, speaker 118: hold", vec![peer_with(json!({"holdTime": "1s"}))], Some(InvalidTimer)),
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
            "a preference that says something twice",
            vec![l2(
                "l2",
                json!({"preferredNodeSelectors": [
                {"weight": 1, "preference": expression("k", "In", &["a", "a"])},
                {"weight": 1, "preference": {"matchExpressions": [
                    {"key": "q", "operator": "Exists"}, {"key": "q", "operator": "Exists"}]}}]}),
            )],
            None,
        ),
        ("connectTime none", vec![peer_with(json!({"connectTime": "0s"}))], Some(InvalidTimer)),
        ("connectTime least", vec![peer_with(json!({"connectTime": "1s"}))], None),
        ("connectTime most", vec![peer_with(json!({"connectTime": "65535s"}))], None),
        ("connectTime beyond", vec![peer_with(json!({"connectTime": "65536s"}))], Some(InvalidTimer)),
        ("connectTime in part", vec![peer_with(json!({"connectTime": "1500ms"}))], Some(InvalidTimer)),
        ("89 key", vec![peer_with(json!({"nodeSelectors": [expression("", "In", &["a"])]}))], Some(InvalidSelector)),
        (
            "89 no operator",
            vec![peer_with(json!({"nodeSelectors": [expression("k", "", &["a"])]}))],
            Some(InvalidSelector),
        ),
        (
            "89 operator",
            vec![peer_with(json!({"nodeSelectors": [expression("k", "surrounds", &["a"])]}))],
            Some(InvalidSelector),
        ),
        (
            "89 values",
            vec![peer_with(json!({"nodeSelectors": [expression("k", "In", &["quux", "quux"])]}))],
            Some(InvalidSelector),
        ),
        ("90 octet", vec![pool("p", &["100.200.300.400/24"])], Some(InvalidAddress)),
        ("90 mask", vec![pool("p", &["1.2.3.0/33"])], Some(InvalidAddress)),
        ("90 reversed", vec![pool("p", &["1.2.3.10-1.2.3.1"])], Some(InvalidAddress)),
        ("90 none", vec![pool("p", &[])], Some(NoAddresses)),
        ("90 overlap", vec![pool("p", &["1.2.3.0/24", "1.2.3.7-1.2.3.9"])], Some(OverlappingAddresses)),
        (
            "91, speaker 115: 34",
            vec![pool("p", &["1.2.3.0/24"]), bgp(json!({"aggregationLength": 34}))],
            Some(InvalidAggregationLength),
        ),
        (
            "91, speaker 115: 26",
            vec![pool("p", &["1.2.3.0/28"]), bgp(json!({"aggregationLength": 26}))],
            Some(InvalidAggregationLength),
        ),
        ("92, speaker 116: 26", vec![pool("p", &["3.3.3.2-3.3.3.254"]), bgp(json!({"aggregationLength": 26}))], None),
        (
            "92, speaker 116: 24",
            vec![pool("p", &["3.3.3.2-3.3.3.254"]), bgp(json!({"aggregationLength": 24}))],
            Some(InvalidAggregationLength),
        ),
        ("95, speaker 111: one number", vec![bgp(json!({"communities": ["1234"]}))], Some(UnknownCommunity)),
        ("95 left", vec![bgp(json!({"communities": ["99999999:1"]}))], Some(InvalidCommunity)),
        ("95 right", vec![bgp(json!({"communities": ["1:99999999"]}))], Some(InvalidCommunity)),
        ("95 alias", vec![bgp(json!({"communities": ["flarb"]}))], Some(UnknownCommunity)),
        ("95 twice", vec![bgp(json!({"communities": ["1:2", "1:2"]}))], Some(DuplicateValue)),
        ("96 one number", vec![community("c", &[("a", "1234")])], Some(InvalidCommunity)),
        ("96 range", vec![community("c", &[("a", "99999999:1")])], Some(InvalidCommunity)),
        ("96 twice", vec![community("c", &[("a", "1:2"), ("a", "1:3")])], Some(ConfigReason::DuplicateCommunity)),
        (
            "96 two objects",
            vec![community("c", &[("a", "1:2")]), community("d", &[("a", "1:2")])],
            Some(ConfigReason::DuplicateCommunity),
        ),
        ("97", vec![community("c", &[("a", "large:123:64512:1234")]), bgp(json!({"communities": ["a"]}))], None),
        ("97, speaker 112: marker", vec![bgp(json!({"communities": ["larg:1:2:3"]}))], Some(InvalidCommunity)),
        (
            "97, speaker 111: three numbers",
            vec![bgp(json!({"communities": ["12345:12345:12345"]}))],
            Some(UnknownCommunity),
        ),
        (
            "98, speaker 124: both",
            vec![
                peer_with(json!({"password": "x", "passwordSecret": {"name": "s"}})),
                secret("kubernetes.io/basic-auth", true),
            ],
            Some(ConfigReason::InvalidPassword),
        ),
        (
            "98, speaker 124: type",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}})), secret("Opaque", true)],
            Some(ConfigReason::InvalidSecret),
        ),
        (
            "98, speaker 124: empty",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}})), secret("kubernetes.io/basic-auth", false)],
            Some(ConfigReason::InvalidSecret),
        ),
        (
            "98, speaker 124: missing",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}}))],
            Some(ConfigReason::SecretNotFound),
        ),
        (
            "speaker 124: whole",
            vec![peer_with(json!({"passwordSecret": {"name": "s"}})), secret("kubernetes.io/basic-auth", true)],
            None,
        ),
        ("100 missing", vec![peer_with(json!({"bfdProfile": "nope"}))], Some(UnknownBfdProfile)),
        ("100, speaker 120: low", vec![bfd(json!({"receiveInterval": 2}))], Some(OutOfRange)),
        ("100, speaker 120: high", vec![bfd(json!({"receiveInterval": 90000}))], Some(OutOfRange)),
        ("100 twice", vec![bfd(json!({})), bfd(json!({}))], Some(ConfigReason::DuplicateObject)),
        (
            "101, speaker 121: v6",
            vec![
                pool("p", &["fc00::/124"]),
                bgp(json!({})),
                peer_with(json!({"bfdProfile": "b"})),
                bfd(json!({"echoMode": true})),
            ],
            Some(ConfigReason::EchoWithIpv6),
        ),
        (
            "101, speaker 121: v4",
            vec![
                pool("p", &["1.2.3.0/24"]),
                bgp(json!({})),
                peer_with(json!({"bfdProfile": "b"})),
                bfd(json!({"echoMode": true})),
            ],
            None,
        ),
        (
            "103",
            vec![l2(
                "l2",
                json!({"nodeSelectors": [{"matchExpressions": [
                    {"key": "h", "operator": "In", "values": ["first", "second"]},
                    {"key": "h", "operator": "In", "values": ["second", "first"]}]}]}),
            )],
            Some(InvalidSelector),
        ),
        ("105 interface", vec![peer_with(json!({"peerAddress": null, "interface": "eth0"}))], None),
        ("105 neither", vec![peer_with(json!({"peerAddress": null}))], Some(InvalidPeerAddress)),
        ("105 both", vec![peer_with(json!({"interface": "eth0"}))], Some(InvalidPeerAddress)),
        ("106 32/128", vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLength": 32}))], None),
        (
            "106 24",
            vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLength": 24}))],
            Some(SelectorsWithAggregation),
        ),
        (
            "106 V6 64",
            vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLengthV6": 64}))],
            Some(SelectorsWithAggregation),
        ),
        (
            "110, speaker 123, reversed: native does it all",
            vec![
                with(
                    peer("p", "10.0.0.1"),
                    json!({"bfdProfile": "b", "keepaliveTime": "10s", "connectTime": "5s", "enableGracefulRestart": true,
                        "vrf": "red", "localASN": 65000, "dualStackAddressFamily": true, "disableMP": true}),
                ),
                bfd(json!({})),
                pool("p", &["fc00::/124"]),
                bgp(json!({"communities": ["large:1:2:3"]})),
            ],
            None,
        ),
        (
            "111, speaker 122, reversed: router IDs differ",
            vec![with(peer("a", "10.0.0.1"), json!({"routerID": "1.1.1.1"})), peer("b", "10.0.0.2")],
            None,
        ),
        (
            "111, speaker 122: same address",
            vec![peer("a", "10.0.0.1"), peer("b", "10.0.0.1")],
            Some(ConfigReason::DuplicatePeer),
        ),
        (
            "111, speaker 122: other vrf",
            vec![peer("a", "10.0.0.1"), with(peer("b", "10.0.0.1"), json!({"vrf": "red"}))],
            None,
        ),
        ("112, speaker 122: nodes unknown", on_two_hosts(), Some(ConfigReason::DuplicatePeer)),
        ("112, speaker 122: nodes known", [on_two_hosts(), vec![node("h1", &[]), node("h2", &[])]].concat(), None),
        (
            "speaker 55",
            vec![l2(
                "l2",
                json!({"preferredNodeSelectors": [{"weight": 1, "preference": expression("k", "surrounds", &["a"])}]}),
            )],
            Some(InvalidSelector),
        ),
        (
            "speaker 50, bounds",
            vec![l2("l2", json!({"preferredNodeSelectors": [{"weight": 101, "preference": {}}]}))],
            Some(OutOfRange),
        ),
    ];
    for (fact, objects, expected) in rows {
        let Parsed { problems, .. } = parse(&objects);
        let found: Vec<ConfigReason> =
            problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| problem.code).collect();
        match expected {
            Some(code) => assert!(found.contains(&code), "fact {fact}: wanted {code:?}, got {problems:?}"),
            None => assert!(found.is_empty(), "fact {fact}: {problems:?}"),
        }
    }
}

#[test]
fn error_texts_hold_the_fragments_that_tooling_matches() {
    let peer_with = |spec: Value| with(peer("p", "10.0.0.1"), spec);
    let rows: [(Vec<Value>, &str); 11] = [
        (vec![pool("a", &["1.2.3.0/24"]), pool("b", &["1.2.3.0/28"])], "overlaps with already defined CIDR"),
        (
            vec![pool("a", &["1.1.1.0/28"]), bgp(json!({"aggregationLength": 26}))],
            "invalid aggregation length 26: prefix 28 in this pool is more specific than the aggregation length for addresses 1.1.1.0/28",
        ),
        (vec![bgp(json!({"serviceSelectors": [label("a", "b")], "aggregationLength": 24}))], "mutually exclusive"),
        (vec![peer("p", "1.2.3.400")], "invalid BGPPeer address"),
        (vec![peer("a", "10.0.0.1"), peer("b", "10.0.0.1")], "already exists"),
        (vec![bgp(json!({"communities": ["1:99999999"]}))], "invalid community value: invalid section"),
        (vec![bgp(json!({"communities": ["lar:1:2:3"]}))], "expected community to be of format large"),
        (vec![community("c", &[("a", "1:2"), ("a", "1:2")])], "duplicate definition of community"),
        (
            vec![bgp(json!({"communities": ["my-alias"]}))],
            "invalid community format: my-alias\ninvalid community \"my-alias\" in BGP advertisement",
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
fn of_two_overlapping_pools_the_older_stays() {
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
fn local_preferences_of_facts_93_94_and_117_clash_only_on_one_route() {
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
fn timers_of_facts_86_87_and_118_imply_one_another() {
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
fn pool_addresses_of_fact_80_become_the_smallest_cover() {
    let parsed = parse(&[pool("p", &["40.0.0.210 - 40.0.0.240", "40.0.0.250 - 40.0.0.250"])]);
    let prefixes: Vec<String> = parsed.config.pools["p"].prefixes().map(ToString::to_string).collect();
    let expected =
        ["40.0.0.210/31", "40.0.0.212/30", "40.0.0.216/29", "40.0.0.224/28", "40.0.0.240/32", "40.0.0.250/32"];
    assert_eq!(prefixes, expected);
}

#[test]
fn capacities_of_facts_30_to_34_saturate_and_never_go_negative() {
    let rows: [(&str, &[&str], bool, i64, i64); 8] = [
        ("30", &["1.2.3.0/24"], false, 256, 0),
        ("31", &["1.2.3.0/24", "2.3.4.128/25"], false, 384, 0),
        ("31 buggy", &["1.2.3.0/24", "2.3.4.128/25"], true, 381, 0),
        ("32", &["1.2.3.0/24", "2.3.4.128/25", "1000::/64"], true, 381, i64::MAX),
        ("33", &["1.2.3.0/31", "1000::/127"], true, 1, 2),
        ("34", &["1.2.3.4/30", "1000::4/126"], false, 4, 4),
        ("quirk 6", &["1.2.3.255/32", "1.2.4.0/32"], true, 0, 0),
        ("quirk 6 sum", &["1000::/64", "2000::/64", "3000::/127"], false, 0, i64::MAX),
    ];
    for (fact, addresses, avoid, v4, v6) in rows {
        let parsed = parse(&[with(pool("p", addresses), json!({"avoidBuggyIPs": avoid}))]);
        let pool = &parsed.config.pools["p"];
        assert_eq!((pool.capacity(IpFamily::V4), pool.capacity(IpFamily::V6)), (v4, v6), "fact {fact}");
    }
}

#[test]
fn advertisements_of_facts_81_102_104_107_and_109_reach_the_pools_they_should() {
    let pools = || vec![with_labels(pool("p1", &["10.1.0.0/24"]), "tier", "gold"), pool("p2", &["10.2.0.0/24"])];
    let ads = |extra: Vec<Value>| {
        let config = parse(&[pools(), extra].concat()).config;
        (ads_of(&config, "p1"), ads_of(&config, "p2"))
    };
    let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let all = json!({});
    let only_p1 = json!({"ipAddressPools": ["p1"]});
    assert_eq!(ads(vec![l2("a", only_p1.clone()), l2("b", all.clone())]), (named(&["a"]), named(&["b"])), "fact 81");
    let nothing = json!({"ipAddressPoolSelectors": [label("tier", "lead")]});
    assert_eq!(ads(vec![l2("a", nothing)]), (named(&[]), named(&[])), "fact 102");
    let both = json!({"ipAddressPools": ["p1"], "ipAddressPoolSelectors": [label("tier", "gold")]});
    assert_eq!(ads(vec![l2("a", both)]), (named(&["a"]), named(&[])), "facts 109, speaker 56");
    let preferring = |weight: u32| json!({"preferredNodeSelectors": [{"weight": weight, "preference": {}}]});
    assert_eq!(
        ads(vec![l2("a", preferring(30)), l2("b", preferring(70))]),
        (named(&["a", "b"]), named(&["a", "b"])),
        "speaker 57"
    );
    assert_eq!(ads(vec![l2("a", all.clone()), l2("b", all)]), (named(&["a"]), named(&["a"])), "speaker 58");

    let config = parse(
        &[pools(), vec![l2("a", json!({"serviceSelectors": [label("app", "nginx"), label("app", "apache")]}))]]
            .concat(),
    );
    let ad = &config.config.pools["p1"].l2[0];
    let texts: Vec<String> = ad.service_selectors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["app=apache", "app=nginx"], "fact 107");
    assert!(["first", "second"].iter().all(|name| ad.nodes.selects(&Node::new(name))), "fact 104");
}

#[test]
fn preferences_of_facts_108_and_speaker_50_to_54_add_up_per_node() {
    let nodes = [
        ("edge-a", vec![("role", "edge"), ("zone", "primary")]),
        ("edge-b", vec![("role", "edge")]),
        ("worker-a", vec![("zone", "primary")]),
        ("worker-b", vec![]),
    ];
    let role = |weight: u32| json!({"weight": weight, "preference": label("role", "edge")});
    let zone = |weight: u32| json!({"weight": weight, "preference": label("zone", "primary")});
    let rows = [
        ("50", json!({"preferredNodeSelectors": [role(100)]}), [100, 100, 0, 0]),
        ("51, 108", json!({"preferredNodeSelectors": [zone(60), role(50)]}), [110, 50, 60, 0]),
        (
            "52",
            json!({"preferredNodeSelectors": [zone(100)], "nodeSelectors": [label("role", "edge")]}),
            [100, 0, 0, 0],
        ),
        ("53", json!({"preferredNodeSelectors": [{"weight": 10, "preference": {}}]}), [10, 10, 10, 10]),
        ("54", json!({"preferredNodeSelectors": [{"weight": 10, "preference": label("no", "where")}]}), [0, 0, 0, 0]),
    ];
    for (fact, spec, expected) in rows {
        let parsed = parse(&[pool("p", &["10.0.0.0/24"]), l2("a", spec)]);
        let ad = &parsed.config.pools["p"].l2[0];
        let scores = nodes.clone().map(|(name, labels)| {
            let mut node = Node::new(name);
            node.labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            ad.score(&node)
        });
        assert_eq!(scores, expected, "fact {fact}");
    }
}

#[test]
fn peer_of_which_only_a_selector_makes_no_sense_is_left_out() {
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
fn pool_of_several_addresses_contains_them_all() {
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
fn allocation_of_facts_82_and_84_tells_nobody_from_everybody() {
    let allocation = |spec: Value| {
        let objects = [pool_with(json!({"serviceAllocation": spec})), namespace("team-a", "team", "a")];
        parse(&objects).config.pools["p"].allocation.clone().unwrap()
    };
    let unmatched = allocation(json!({"namespaceSelectors": [label("team", "z")]}));
    assert_eq!(unmatched.namespaces.map(|names| names.len()), Some(0), "fact 82, quirk 4");
    let matched = allocation(json!({"namespaces": ["b"], "namespaceSelectors": [label("team", "a")]}));
    let names: Vec<String> = matched.namespaces.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["b", "team-a"]);
    let everybody = allocation(json!({"priority": 1}));
    assert!(everybody.namespaces.is_none() && everybody.service_selectors.is_empty(), "fact 84");
}

#[test]
fn peer_with_echo_that_would_carry_ipv6_keeps_its_session_without_bfd() {
    let echo = with(peer("p", "10.0.0.1"), json!({"bfdProfile": "b"}));
    let parsed = parse(&[pool("p", &["fc00::/124"]), bgp(json!({})), echo, bfd(json!({"echoMode": true}))]);
    assert_eq!(parsed.config.peers["p"].bfd_profile, None);
    assert_eq!(parsed.problems[0].object.to_string(), "BGPPeer/metallb-system/p");
}

#[test]
fn name_that_nothing_bears_is_only_warned_of() {
    let parsed = parse(&[
        pool("p", &["10.0.0.0/24"]),
        bgp(json!({"ipAddressPools": ["p", "q"], "peers": ["nobody"]})),
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
