//! Limits of the values of a configuration: the last valid value and the first invalid one of each field.

use std::net::Ipv4Addr;

use metallb_core::config::{BfdProfile, Config, ConfigReason, Parsed, PeerEndpoint, RemoteAsn, Severity};
use metallb_core::model::IpFamily;
use serde_json::{Value, json};

use crate::support::manifest::{merged, object};
use crate::support::objects::World;

#[test]
fn peer_values_are_limited_by_the_protocol() {
    let long = |length: usize| "x".repeat(length);
    let rows: Vec<(&str, Value, Value)> = vec![
        ("myASN", json!(1), json!(0)),
        ("myASN", json!(4_294_967_295_u32), json!(4_294_967_296_u64)),
        ("peerASN", json!(4_294_967_295_u32), json!(4_294_967_296_u64)),
        ("peerASN", json!(1), json!(-1)),
        ("localASN", json!(4_294_967_295_u32), json!(4_294_967_296_u64)),
        ("peerPort", json!(65_535), json!(65_536)),
        ("peerPort", json!(1), json!(-1)),
        ("holdTime", json!("3s"), json!("2s")),
        ("holdTime", json!("999ms"), json!("1s")),
        ("connectTime", json!("2s"), json!("2001ms")),
        ("routerID", json!("0.0.0.1"), json!("0.0.0.1.")),
        ("routerID", json!("255.255.255.255"), json!("256.255.255.255")),
        ("sourceAddress", json!("10.0.0.9"), json!("10.0.0.256")),
        ("password", json!(long(80)), json!(long(81))),
    ];
    for (field, last, first) in rows {
        let judge = |value: &Value| parse(&[peer(json!({field: value}))]);
        let good = judge(&last);
        assert_eq!((good.config.peers.len(), good.problems), (1, vec![]), "{field}: {last}");
        let bad = judge(&first);
        assert_eq!((bad.config.peers.len(), bad.problems.len()), (0, 1), "{field}: {first}");
        let blamed = bad.problems[0].field.clone();
        assert_eq!(blamed, format!("spec.{field}"), "{first}");
    }
    let both = |hold: &str, keepalive: &str| parse(&[peer(json!({"holdTime": hold, "keepaliveTime": keepalive}))]);
    assert_eq!(both("9s", "9s").config.peers.len(), 1);
    assert_eq!(both("9s", "9001ms").config.peers.len(), 0);
}

#[test]
fn values_that_bgp_cannot_encode_are_warnings_and_replaced() {
    let rows = [
        ("routerID", "0.0.0.0", None, None),
        ("routerID", "::", None, None),
        ("routerID", "fd00::9", None, None),
        ("holdTime", "65536s", Some(65_535), None),
        ("keepaliveTime", "20h", Some(65_535), Some(72_000)),
    ];
    for (field, value, hold, keepalive) in rows {
        let parsed = parse(&[peer(json!({field: value}))]);
        let found: Vec<(Severity, &str)> =
            parsed.problems.iter().map(|problem| (problem.severity, problem.field.as_str())).collect();
        let blamed = if field == "routerID" { "spec.routerID" } else { "spec.holdTime" };
        assert_eq!(found, [(Severity::Warning, blamed)], "{value}");
        let peer = &parsed.config.peers["p"];
        assert_eq!((peer.router_id, peer.hold_time.map(|time| time.as_secs())), (None, hold), "{value}");
        if let Some(keepalive) = keepalive {
            assert_eq!(peer.keepalive_time.map(|time| time.as_secs()), Some(keepalive), "{value}");
        }
    }
    let mapped = parse(&[peer(json!({"routerID": "::ffff:10.0.0.9"}))]);
    assert_eq!((mapped.config.peers["p"].router_id, mapped.problems), (Some(Ipv4Addr::new(10, 0, 0, 9)), vec![]));
}

#[test]
fn peer_has_the_written_address_and_families() {
    let rows: Vec<(Value, &str, RemoteAsn, [bool; 2])> = vec![
        (json!({}), "10.9.9.9:179", RemoteAsn::Number(64_513), [true, false]),
        (json!({"peerPort": 1179}), "10.9.9.9:1179", RemoteAsn::Number(64_513), [true, false]),
        (json!({"peerAddress": "fd00::9"}), "[fd00::9]:179", RemoteAsn::Number(64_513), [false, true]),
        (json!({"peerAddress": "::ffff:10.9.9.9"}), "10.9.9.9:179", RemoteAsn::Number(64_513), [true, false]),
        (json!({"dualStackAddressFamily": true}), "10.9.9.9:179", RemoteAsn::Number(64_513), [true, true]),
        (
            json!({"peerAddress": "", "interface": "eth7", "peerASN": 0, "dynamicASN": "external"}),
            "eth7:179",
            RemoteAsn::External,
            [true, true],
        ),
        (json!({"peerASN": 0, "dynamicASN": "internal"}), "10.9.9.9:179", RemoteAsn::Internal, [true, false]),
    ];
    for (spec, label, remote, carries) in rows {
        let parsed = parse(&[peer(spec.clone())]);
        assert_eq!(parsed.problems, [], "{spec}");
        let peer = &parsed.config.peers["p"];
        assert_eq!((peer.metric_label().as_str(), peer.remote_asn), (label, remote), "{spec}");
        assert_eq!([IpFamily::V4, IpFamily::V6].map(|family| peer.carries(family)), carries, "{spec}");
        assert_eq!(matches!(peer.endpoint, PeerEndpoint::Interface(_)), label.starts_with("eth"), "{spec}");
    }
}

#[test]
fn peer_has_the_written_as_numbers_and_vrf() {
    let blamed =
        |spec: Value| parse(&[peer(spec)]).problems.iter().map(|problem| problem.field.clone()).collect::<Vec<_>>();
    assert_eq!(blamed(json!({"peerASN": 0, "dynamicASN": "outside"})), ["spec.dynamicASN"]);
    assert_eq!(blamed(json!({"peerASN": 1, "dynamicASN": "external"})), ["spec.peerASN"]);
    assert_eq!(blamed(json!({"peerASN": 0})), ["spec.peerASN"]);
    for (written, vrf) in [("", None), ("red", Some("red"))] {
        let parsed = parse(&[peer(json!({"vrf": written}))]);
        assert_eq!(parsed.config.peers["p"].vrf.as_ref().map(ToString::to_string).as_deref(), vrf);
    }
    for (written, number) in [(0, None), (64_999, Some(64_999))] {
        assert_eq!(parse(&[peer(json!({"localASN": written}))]).config.peers["p"].local_asn, number);
    }
}

#[test]
fn deprecated_field_of_a_peer_is_a_warning_without_effect() {
    let parsed = parse(&[peer(json!({"disableMP": true}))]);
    let named: Vec<_> = parsed.problems.iter().map(|problem| (problem.field.as_str(), problem.code)).collect();
    assert_eq!(named, [("spec.disableMP", ConfigReason::DeprecatedField)]);
    assert_eq!(parsed.config.peers, parse(&[peer(json!({}))]).config.peers);
}

#[test]
fn multihop_is_refused_within_an_autonomous_system_only() {
    let rows = [
        (json!({"peerASN": 64_513}), true),
        (json!({"peerASN": 64_512}), false),
        (json!({"peerASN": 0, "dynamicASN": "external"}), true),
        // Accepted as upstream does, because the AS number is known only from the OPEN of the router.
        (json!({"peerASN": 0, "dynamicASN": "internal"}), true),
    ];
    for (spec, good) in rows {
        for multihop in [true, false] {
            let parsed = parse(&[peer(merged(json!({"ebgpMultiHop": multihop}), &spec))]);
            assert_eq!(parsed.config.peers.len(), usize::from(good || !multihop), "{spec} {multihop}");
        }
    }
}

#[test]
fn pool_with_one_invalid_range_is_left_out() {
    for addresses in [json!(["10.0.0.0/24", "10.0.1.0/33"]), json!([])] {
        let parsed = parse(&[object("IPAddressPool", "p", json!({"addresses": addresses}))]);
        assert_eq!((parsed.config.pools.len(), parsed.problems.len()), (0, 1), "{addresses}");
    }
}

#[test]
fn bfd_profile_values_are_limited_by_the_protocol() {
    type Read = fn(&BfdProfile) -> u128;
    let rows: [(&str, Read, u128, [i64; 2]); 5] = [
        ("receiveInterval", |profile| profile.receive_interval.as_millis(), 300, [10, 60_000]),
        ("transmitInterval", |profile| profile.transmit_interval.as_millis(), 300, [10, 60_000]),
        ("echoInterval", |profile| profile.echo_interval.as_millis(), 50, [10, 60_000]),
        ("detectMultiplier", |profile| profile.detect_multiplier.into(), 3, [2, 255]),
        ("minimumTtl", |profile| profile.minimum_ttl.into(), 254, [1, 254]),
    ];
    for (field, read, default, [least, most]) in rows {
        let judge = |value: i64| parse(&[object("BFDProfile", "b", json!({field: value}))]);
        for value in [least, most] {
            let parsed = judge(value);
            assert_eq!(parsed.problems, [], "{field} {value}");
            assert_eq!(read(&parsed.config.bfd_profiles["b"]), value.unsigned_abs().into(), "{field}");
        }
        for value in [least - 1, most + 1] {
            let parsed = judge(value);
            assert_eq!((parsed.config.bfd_profiles.len(), parsed.problems.len()), (0, 1), "{field} {value}");
        }
        let unset = parse(&[object("BFDProfile", "b", json!({}))]);
        assert_eq!(read(&unset.config.bfd_profiles["b"]), default, "{field}");
    }
}

#[test]
fn advertisement_values_are_limited_by_their_range() {
    let pools = || {
        [
            object("IPAddressPool", "p", json!({"addresses": ["0.0.0.0/0"]})),
            object("IPAddressPool", "q", json!({"addresses": ["::/0"]})),
        ]
    };
    let rows: [(&str, Value, Value); 7] = [
        ("aggregationLength", json!(0), json!(-1)),
        ("aggregationLength", json!(32), json!(33)),
        ("aggregationLengthV6", json!(0), json!(-1)),
        ("aggregationLengthV6", json!(128), json!(129)),
        ("localPref", json!(4_294_967_295_u32), json!(4_294_967_296_u64)),
        ("localPref", json!(0), json!(-1)),
        ("communities", json!(["65535:65535"]), json!(["65535:65536"])),
    ];
    let errors = |parsed: &Parsed| parsed.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    for (field, last, first) in rows {
        let judge =
            |value: &Value| parse(&[&pools()[..], &[object("BGPAdvertisement", "a", json!({field: value}))]].concat());
        let good = judge(&last);
        assert_eq!((good.config.pools["p"].bgp.len(), errors(&good)), (1, 0), "{field}: {last}");
        let bad = judge(&first);
        assert_eq!((bad.config.pools["p"].bgp.len(), errors(&bad)), (0, 1), "{field}: {first}");
    }
    for (weight, good) in [(0, false), (1, true), (100, true), (101, false)] {
        let preference = json!({"preferredNodeSelectors": [{"weight": weight, "preference": {}}]});
        let parsed = parse(&[&pools()[..], &[object("L2Advertisement", "a", preference)]].concat());
        assert_eq!((parsed.config.pools["p"].l2.len() == 1, errors(&parsed) == 0), (good, good), "{weight}");
    }
}

#[test]
fn peers_are_duplicates_only_with_the_same_address_port_vrf_and_node() {
    let nodes = ["h1", "h2"].map(|name| json!({"kind": "Node", "metadata": {"name": name, "labels": {"host": name}}}));
    let on = |host: &str| json!({"nodeSelectors": [{"matchLabels": {"host": host}}]});
    let rows = [
        (json!({}), json!({}), false),
        (json!({"peerAddress": "10.9.9.8"}), json!({}), true),
        (json!({"peerPort": 1179}), json!({}), true),
        (json!({"peerPort": 179}), json!({}), false),
        (json!({"vrf": "red"}), json!({}), true),
        (json!({"vrf": "red"}), json!({"vrf": "red"}), false),
        (on("h1"), on("h2"), true),
        (on("h1"), on("h1"), false),
        (on("h1"), json!({}), false),
        (on("h9"), on("h9"), true),
    ];
    for (first, second, both) in rows {
        let twins = |nodes: &[Value]| {
            let mut second = peer(second.clone());
            second["metadata"]["name"] = json!("q");
            parse(&[nodes, &[peer(first.clone()), second]].concat()).config.peers.len()
        };
        assert_eq!(twins(&nodes), 1 + usize::from(both), "{first} {second}");
        // If no node is known, peers with any selectors may meet.
        let apart = both && first.get("nodeSelectors").is_none();
        assert_eq!(twins(&[]), 1 + usize::from(apart), "without nodes: {first} {second}");
    }
}

#[test]
fn echo_is_disabled_only_if_ipv6_routes_reach_the_peer() {
    let of = |pools: &str, peers: Value| {
        object("BGPAdvertisement", pools, json!({"ipAddressPools": [pools], "peers": peers}))
    };
    let v6 = object("IPAddressPool", "v6", json!({"addresses": ["fd00::/120"]}));
    let v4 = object("IPAddressPool", "v4", json!({"addresses": ["10.0.0.0/24"]}));
    let rows = [
        (true, vec![of("v4", json!([]))], true),
        (true, vec![of("v6", json!([]))], false),
        (false, vec![of("v6", json!([]))], true),
        (true, vec![of("v6", json!(["p"]))], false),
        (true, vec![of("v6", json!(["other"]))], true),
        (true, vec![], true),
    ];
    for (echo, ads, keeps) in rows {
        let profile = object("BFDProfile", "b", json!({"echoMode": echo}));
        let objects = [vec![v4.clone(), v6.clone(), profile, peer(json!({"bfdProfile": "b"}))], ads.clone()].concat();
        assert_eq!(parse(&objects).config.peers["p"].bfd_profile.is_some(), keeps, "{echo} {ads:?}");
    }
}

fn parse(objects: &[Value]) -> Parsed {
    let world = World::read(objects);
    Config::parse(&world.resources, &world.cluster)
}

fn peer(more: Value) -> Value {
    let spec = json!({"myASN": 64_512, "peerASN": 64_513, "peerAddress": "10.9.9.9"});
    object("BGPPeer", "p", merged(spec, &more))
}

#[test]
fn pool_of_unusual_addresses_is_valid_with_a_warning() {
    let rows = [
        ("192.0.2.0/28", None),
        ("192.0.2.7/32", None),
        ("192.0.2.1-192.0.2.9", None),
        ("2001:db8::/120", None),
        ("192.168.100.200/28", Some("host bits, which are ignored: it begins at 192.168.100.192")),
        ("2001:db8::5/120", Some("it begins at 2001:db8::")),
        ("224.0.0.0/30", Some("multicast")),
        ("223.255.255.0-224.0.0.5", Some("multicast")),
        ("127.0.0.0/30", Some("loopback")),
        ("0.0.0.0/30", Some("unspecified")),
        ("255.255.255.255/32", Some("broadcast")),
        ("169.254.0.0/24", Some("link-local")),
        ("240.0.0.0/28", Some("reserved")),
        ("fe80::/120", Some("link-local")),
        ("ff02::/120", Some("multicast")),
        ("::1/128", Some("loopback")),
    ];
    for (addresses, expected) in rows {
        let parsed = parse(&[object("IPAddressPool", "p", json!({"addresses": [addresses]}))]);
        assert!(parsed.config.pools.contains_key("p"), "{addresses}: {:?}", parsed.problems);
        let warned: Vec<&str> = parsed
            .problems
            .iter()
            .filter(|problem| problem.code == ConfigReason::UnusualAddress)
            .map(|problem| problem.message.as_str())
            .collect();
        match expected {
            None => assert!(warned.is_empty(), "{addresses}: {warned:?}"),
            Some(text) => assert!(warned.iter().any(|message| message.contains(text)), "{addresses}: {warned:?}"),
        }
    }
}

#[test]
fn overlap_of_pools_names_the_blocks_as_they_are_written() {
    let parsed = parse(&[
        object("IPAddressPool", "a", json!({"addresses": ["192.168.1.200-192.168.1.250"]})),
        object("IPAddressPool", "b", json!({"addresses": ["192.168.1.240-192.168.2.10"]})),
    ]);
    let message = &parsed.problems[0].message;
    assert!(
        message.contains("\"192.168.1.240-192.168.2.10\" in pool \"b\"")
            && message.contains("\"192.168.1.200-192.168.1.250\" of pool \"a\""),
        "{message}"
    );
}
