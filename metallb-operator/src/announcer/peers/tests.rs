//! What each field of `BGPPeer` and `BFDProfile` makes of a session.

use super::*;
use crate::source::manifests::Manifests;

/// The sessions of node `kind-worker` for one peer with `fields` and a profile with `bfd` fields.
fn session(fields: &str, bfd: &str) -> PeerConfig {
    let text = format!(
        "kind: BGPPeer\napiVersion: metallb.io/v1beta2\nmetadata: {{name: tor, namespace: metallb-system}}\n\
         spec: {{myASN: 64512, {fields}}}\n---\nkind: BFDProfile\napiVersion: metallb.io/v1beta1\n\
         metadata: {{name: fast, namespace: metallb-system}}\nspec: {{{bfd}}}\n---\n\
         kind: Secret\napiVersion: v1\nmetadata: {{name: key, namespace: metallb-system}}\n\
         type: kubernetes.io/basic-auth\nstringData: {{password: hidden}}\n---\n\
         kind: Node\napiVersion: v1\nmetadata: {{name: kind-worker}}\n"
    );
    let mut manifests = Manifests::default();
    manifests.parse(&text, "test");
    let (world, problems) = manifests.world();
    assert!(problems.is_empty(), "{problems:?}");
    let parsed = Config::parse(&world.resources, &world.cluster);
    let node = world.cluster.nodes.values().next().unwrap();
    configs(&parsed.config, node, Mode::Active)
        .remove("tor")
        .unwrap_or_else(|| panic!("{fields}: {:?}", parsed.problems))
}

const PLAIN: &str = "peerASN: 64600, peerAddress: 192.0.2.1";

fn at(address: &str) -> Router {
    Router::Address(address.parse().unwrap())
}

#[test]
fn plain_peer_is_a_direct_neighbour_with_upstreams_defaults() {
    let config = session(PLAIN, "");
    assert_eq!(config.session.asn, Asn(64512));
    assert_eq!(config.session.remote, RemoteAsn::Number(Asn(64600)));
    assert_eq!(config.session.hold_time, Duration::from_secs(90));
    assert_eq!(config.session.families, [Family::Ipv4]);
    assert!(!config.session.graceful_restart);
    assert_eq!(config.endpoint, Endpoint::new("192.0.2.1:179".parse().unwrap(), Distance::Direct));
    assert_eq!(config.router_id, None);
    assert_eq!(
        config.fallback_router_id,
        Ipv4Addr::new(192, 61, 154, 117),
        "CRC-32 of the node name, lowest byte first"
    );
    assert_eq!(config.bfd, None);
}

#[test]
fn every_field_of_a_peer_reaches_its_session() {
    type Check = fn(&PeerConfig) -> bool;
    let rows: [(&str, Check); 19] = [
        ("peerASN: 64600, peerAddress: 'fd00::1'", |c| {
            c.endpoint.router == at("[fd00::1]:179") && c.session.families == [Family::Ipv6]
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, peerPort: 1790", |c| c.endpoint.router == at("192.0.2.1:1790")),
        ("peerASN: 64600, interface: eth7", |c| {
            c.endpoint.router == Router::Unnumbered { interface: "eth7".to_owned(), port: 179 }
                && c.session.families == [Family::Ipv4, Family::Ipv6]
                && c.endpoint.distance == Distance::Direct
        }),
        ("dynamicASN: internal, peerAddress: 192.0.2.1", |c| {
            c.session.remote == RemoteAsn::Internal && c.endpoint.distance == Distance::Routed
        }),
        ("dynamicASN: external, peerAddress: 192.0.2.1", |c| {
            c.session.remote == RemoteAsn::External && c.endpoint.distance == Distance::Direct
        }),
        ("peerASN: 64512, peerAddress: 192.0.2.1", |c| c.endpoint.distance == Distance::Routed),
        ("localASN: 64520, peerASN: 64600, peerAddress: 192.0.2.1", |c| c.session.asn == Asn(64520)),
        ("localASN: 64600, peerASN: 64600, peerAddress: 192.0.2.1", |c| c.endpoint.distance == Distance::Routed),
        ("peerASN: 64600, peerAddress: 192.0.2.1, ebgpMultiHop: true", |c| c.endpoint.distance == Distance::Routed),
        ("peerASN: 64600, peerAddress: 192.0.2.1, holdTime: 30s", |c| {
            c.session.hold_time == Duration::from_secs(30) && c.session.keepalive_time == Some(Duration::from_secs(10))
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, keepaliveTime: 7s", |c| {
            c.session.hold_time == Duration::from_secs(21) && c.session.keepalive_time == Some(Duration::from_secs(7))
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, connectTime: 5s", |c| {
            c.session.connect_time == Some(Duration::from_secs(5))
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, sourceAddress: 192.0.2.9", |c| {
            c.endpoint.source == "192.0.2.9".parse().ok()
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, routerID: 10.10.10.1", |c| {
            c.router_id == Some(Ipv4Addr::new(10, 10, 10, 1))
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, password: plain", |c| {
            c.endpoint.password.as_deref() == Some(b"plain")
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, passwordSecret: {name: key}", |c| {
            c.endpoint.password.as_deref() == Some(b"hidden")
        }),
        ("peerASN: 64600, peerAddress: 192.0.2.1, enableGracefulRestart: true", |c| c.session.graceful_restart),
        ("peerASN: 64600, peerAddress: 192.0.2.1, vrf: red", |c| c.endpoint.device.as_deref() == Some("red")),
        ("peerASN: 64600, peerAddress: 192.0.2.1, dualStackAddressFamily: true", |c| {
            c.session.families == [Family::Ipv4, Family::Ipv6]
        }),
    ];
    for (fields, check) in rows {
        let config = session(fields, "");
        assert!(check(&config), "{fields}: {config:?}");
    }
}

#[test]
fn every_field_of_a_profile_reaches_bfd() {
    let watched = |peer: &str, bfd: &str| session(&format!("{peer}, bfdProfile: fast"), bfd).bfd.unwrap();
    let millis = |millis: u32| Interval(millis * 1000);
    let defaults = watched(PLAIN, "");
    assert_eq!(defaults.profile, Profile::default());
    assert_eq!(defaults.hops, Some(Hops::Single));
    let set = watched(
        PLAIN,
        "receiveInterval: 80, transmitInterval: 90, detectMultiplier: 5, echoMode: true, echoInterval: 70, \
         passiveMode: true, minimumTtl: 250",
    );
    let mut expected = Profile::default();
    expected.receive_interval = millis(80);
    expected.transmit_interval = millis(90);
    expected.detect_multiplier = NonZeroU8::new(5).unwrap();
    expected.echo = Some(millis(70));
    expected.role = Role::Passive;
    expected.minimum_ttl = 250;
    assert_eq!(set.profile, expected);
    assert_eq!(watched(PLAIN, "echoMode: true").profile.echo, Some(millis(50)));
    assert_eq!(watched(PLAIN, "echoInterval: 70").profile.echo, None, "an interval is not a wish for echo");
    assert_eq!(watched("peerASN: 64600, peerAddress: 192.0.2.1, ebgpMultiHop: true", "").hops, Some(Hops::Multiple));
    assert_eq!(watched("peerASN: 64512, peerAddress: 192.0.2.1", "").hops, None, "the addresses tell");
}

#[test]
fn router_id_of_a_node_without_ipv4_is_that_of_fact_110() {
    assert_eq!(router_id_of("kind-worker"), Ipv4Addr::new(192, 61, 154, 117));
    assert_eq!(router_id_of("pandora"), Ipv4Addr::new(117, 188, 221, 68));
}

#[test]
fn router_id_of_a_node_name_is_one_that_routers_accept() {
    for number in 0..2000 {
        let id = router_id_of(&format!("worker-{number}"));
        let first = id.octets()[0];
        assert!(!matches!(first, 0 | 127 | 224..), "worker-{number}: {id}");
    }
    assert_eq!(router_id_of("worker-21"), Ipv4Addr::new(108, 39, 27, 126), "236.39.27.126 is a multicast address");
    assert_eq!(router_id_of("kind-worker"), Ipv4Addr::new(192, 61, 154, 117), "others are as upstream's");
}
