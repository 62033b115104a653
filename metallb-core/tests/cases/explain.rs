//! Explanations of Services and of addresses.

use std::collections::BTreeSet;

use metallb_core::model::ServiceKey;
use metallb_core::plan::{MissingReason, PlanOptions, explain, explain_address, plan};
use serde_json::{Value, json};

use crate::support::manifest::{merged, node, object, service, slice};
use crate::support::objects::World;

#[test]
fn explanation_names_each_missing_object() {
    use MissingReason::{
        BgpAdvertisement, BgpAdvertisementForService, Candidate, Endpoint, L2Advertisement, L2AdvertisementForService,
        Node, OurClass, Peer, PeerForService, Pool, PoolForService,
    };
    let rows: Vec<(&str, Vec<Value>, Vec<(MissingReason, &str)>)> = vec![
        ("whole", all(&[]), vec![]),
        (
            "class",
            all(&[service(json!({"loadBalancerClass": "theirs"}))]),
            vec![(OurClass, "the Service has class \"theirs\", and Services of no class are handled here")],
        ),
        ("other type", all(&[service(json!({"type": "ClusterIP"}))]), vec![]),
        ("no pool", without("IPAddressPool"), vec![(Pool, "there is no IPAddressPool")]),
        (
            "bad pool",
            all(&[config("IPAddressPool", json!({"addresses": ["10.0.0.0/33"]}))]),
            vec![(Pool, "none of the 1 IPAddressPools is valid (metallb plan lists what is wrong with them)")],
        ),
        (
            "pool of others",
            all(&[config(
                "IPAddressPool",
                json!({"addresses": ["10.0.0.0/30"], "serviceAllocation": {"namespaces": NAMESPACES}}),
            )]),
            vec![(PoolForService, "pool it serves other namespaces (a, b, c, d, e and 1 more)")],
        ),
        ("no node", without("Node"), vec![(Node, "no Node is known, so nobody can answer")]),
        ("no slice", without("EndpointSlice"), vec![(Endpoint, "it has no endpoint")]),
        (
            "not ready",
            all(&[slice("node-a", false)]),
            vec![(Endpoint, "none of its 1 endpoints is ready or serving, so nobody announces it")],
        ),
        (
            "no advertisement",
            without("L2Advertisement"),
            vec![(L2Advertisement, "no L2Advertisement reaches pool it: there is none at all")],
        ),
        (
            "advertisement of others",
            all(&[
                config("L2Advertisement", json!({"ipAddressPools": ["other"]})),
                config("BGPAdvertisement", json!({"ipAddressPools": ["other"]})),
            ]),
            vec![
                (L2Advertisement, "no L2Advertisement reaches pool it: it selects other pools or is invalid"),
                (BgpAdvertisement, "no BGPAdvertisement reaches pool it: it selects other pools or is invalid"),
            ],
        ),
        (
            "advertisement for others",
            all(&[
                config("L2Advertisement", json!({"serviceSelectors": [{"matchLabels": {"app": "other"}}]})),
                config("BGPAdvertisement", json!({"serviceSelectors": [{"matchLabels": {"app": "other"}}]})),
            ]),
            vec![
                (
                    L2AdvertisementForService,
                    "no L2Advertisement of pool it has serviceSelectors that match the Service",
                ),
                (
                    BgpAdvertisementForService,
                    "no BGPAdvertisement of pool it has serviceSelectors that match the Service",
                ),
            ],
        ),
        (
            "no candidate",
            all(&[config("L2Advertisement", json!({"nodeSelectors": [{"matchLabels": {"rack": "9"}}]}))]),
            vec![(Candidate, "no node may answer for it: node-a: selected by no L2Advertisement for this Service")],
        ),
        (
            "several nodes, two reasons",
            [
                all(&[config("L2Advertisement", json!({"nodeSelectors": [{"matchLabels": {"rack": "9"}}]}))]),
                ["node-b", "node-c"].map(node).to_vec(),
                vec![json!({"kind": "Node", "metadata": {"name": "node-d"},
                    "status": {"conditions": [{"type": "NetworkUnavailable", "status": "True"}]}})],
            ]
            .concat(),
            vec![(
                Candidate,
                "node-a, node-b, node-c: selected by no L2Advertisement for this Service; \
                 node-d: condition NetworkUnavailable",
            )],
        ),
        ("no peer", without("BGPPeer"), vec![(Peer, "pool it is advertised by BGP, but there is no BGPPeer")]),
        (
            "bad peer",
            all(&[peer(json!({"peerAddress": "nowhere"}))]),
            vec![(Peer, "pool it is advertised by BGP, but none of the 1 BGPPeers is valid")],
        ),
        (
            "peer not meant",
            all(&[config("BGPAdvertisement", json!({"peers": ["other"]}))]),
            vec![(PeerForService, "no peer takes its routes: peer it is not among spec.peers of the advertisement")],
        ),
        (
            "another pool refuses, which is no lack",
            [
                all(&[]),
                vec![object(
                    "IPAddressPool",
                    "a-first",
                    json!({"addresses": ["10.1.0.0/30"], "serviceAllocation": {"namespaces": ["theirs"]}}),
                )],
            ]
            .concat(),
            vec![],
        ),
        (
            "peer elsewhere",
            all(&[peer(json!({"nodeSelectors": [{"matchLabels": {"rack": "9"}}]}))]),
            vec![(PeerForService, "no peer takes its routes: peer it selects none of the nodes that may announce")],
        ),
        (
            "other family",
            all(&[peer(json!({"peerAddress": "fd00::9"}))]),
            vec![(
                PeerForService,
                "no peer takes its routes: peer it does not carry the address family (see dualStackAddressFamily)",
            )],
        ),
    ];
    let mut never: BTreeSet<MissingReason> = MissingReason::ALL.iter().copied().collect();
    for (name, objects, expected) in rows {
        let world = World::read(&objects);
        let key = ServiceKey::new("default", "web");
        let explanation =
            explain(&world.resources, &world.cluster, &world.order, &PlanOptions::default(), &key).unwrap();
        let found: Vec<MissingReason> = explanation.missing.iter().map(|missing| missing.code).collect();
        assert_eq!(
            found,
            expected.iter().map(|(code, _)| *code).collect::<Vec<_>>(),
            "{name}: {:?}",
            explanation.missing
        );
        never.retain(|reason| !found.contains(reason));
        for (missing, (_, text)) in explanation.missing.iter().zip(&expected) {
            assert!(missing.message.contains(text), "{name}: {:?} is not {text:?}", missing.message);
        }
    }
    assert!(never.is_empty(), "no row for {never:?}");
    let world = World::read(&all(&[]));
    let nobody = ServiceKey::new("default", "nobody");
    assert_eq!(explain(&world.resources, &world.cluster, &world.order, &PlanOptions::default(), &nobody), None);
}

#[test]
fn explanation_of_an_address_has_pool_holder_claimants_and_announcements() {
    let claims = |namespace: &str, name: &str, ips: &[&str]| {
        let mut foreign = service(json!({"loadBalancerClass": "theirs"}));
        foreign["metadata"] = json!({"namespace": namespace, "name": name});
        let ingress: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        foreign["status"] = json!({"loadBalancer": {"ingress": ingress}});
        foreign
    };
    let mut web = service(json!({}));
    web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}});
    // Two claimants of a held address: one in the same namespace, one with the same name.
    let others = [web, claims("default", "api", &["10.0.0.1", "10.0.0.2"]), claims("other", "web", &["10.0.0.1"])];
    let world = World::read(&[all(&others[..1]), others[1..].to_vec()].concat());
    let plan = plan(&world.resources, &world.cluster, &world.order, &PlanOptions::default());
    let rows: [(&str, usize, &[&str], &[&str], usize, usize); 4] = [
        ("10.0.0.1", 1, &["default/web"], &["default/api", "other/web"], 1, 1),
        ("10.0.0.0", 1, &[], &[], 0, 0),
        ("10.0.0.2", 1, &[], &["default/api"], 0, 0),
        ("10.0.0.4", 0, &[], &[], 0, 0),
    ];
    for (ip, pools, holders, claimants, answers, routes) in rows {
        let explanation = explain_address(&plan, &world.resources, &world.cluster, ip.parse().unwrap());
        assert_eq!(explanation.pools.len(), pools, "{ip}");
        assert_eq!((explanation.holders, explanation.claimants), (keys(holders), keys(claimants)), "{ip}");
        assert_eq!((explanation.l2.len(), explanation.routes.len()), (answers, routes), "{ip}");
    }
}

const NAMESPACES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn keys(texts: &[&str]) -> Vec<ServiceKey> {
    let key = |(namespace, name)| ServiceKey::new(namespace, name);
    texts.iter().map(|text| key(text.split_once('/').unwrap())).collect()
}

/// Objects of which none is missing; `instead` replaces objects of the same kind.
fn all(instead: &[Value]) -> Vec<Value> {
    let objects = [
        config("IPAddressPool", json!({"addresses": ["10.0.0.0/30"]})),
        config("L2Advertisement", json!({})),
        config("BGPAdvertisement", json!({})),
        peer(json!({})),
        node("node-a"),
        service(json!({})),
        slice("node-a", true),
    ];
    let others = objects.into_iter().filter(|object| !instead.iter().any(|other| other["kind"] == object["kind"]));
    others.chain(instead.iter().cloned()).collect()
}

fn without(kind: &str) -> Vec<Value> {
    all(&[]).into_iter().filter(|object| object["kind"] != kind).collect()
}

fn config(kind: &str, spec: Value) -> Value {
    object(kind, "it", spec)
}

fn peer(more: Value) -> Value {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "10.9.9.9"});
    config("BGPPeer", merged(spec, &more))
}
