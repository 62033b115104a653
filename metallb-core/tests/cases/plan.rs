//! Plans: conditions of routes, content of a route, problems and candidates.

use metallb_core::config::ConfigReason;
use metallb_core::model::{IpFamily, ServiceKey};
use metallb_core::plan::{CANDIDATES_SHOWN, Plan, PlanOptions, plan};
use serde_json::{Value, json};

use crate::support::manifest::{node, object, service, slice};
use crate::support::objects::World;

#[test]
fn routes_need_a_configuration_a_service_and_its_type() {
    let rows: [(&str, Vec<Value>, usize, usize); 4] = [
        ("no configuration", vec![node("pandora"), service(json!({})), slice("iris", true)], 0, 0),
        ("no Service", [configuration(), vec![node("pandora")]].concat(), 0, 0),
        (
            "not of type LoadBalancer",
            [configuration(), vec![node("pandora"), service(json!({"type": "ClusterIP"})), slice("iris", true)]]
                .concat(),
            0,
            0,
        ),
        ("complete", [configuration(), vec![node("pandora"), service(json!({})), slice("iris", true)]].concat(), 1, 1),
    ];
    for (row, objects, addresses, routes) in rows {
        let plan = plan_of(&objects);
        assert_eq!(plan.services.iter().map(|service| service.ips.len()).sum::<usize>(), addresses, "{row}");
        assert_eq!(plan.services.iter().map(|service| service.bgp.len()).sum::<usize>(), routes, "{row}");
    }
}

#[test]
fn route_of_a_plan_has_node_peer_prefix_and_attributes() {
    let objects = [configuration(), vec![node("pandora"), service(json!({})), slice("iris", true)]].concat();
    let plan = plan_of(&objects);
    let route = serde_json::to_value(&plan.services[0].bgp[0]).unwrap();
    let expected = json!({"node": "pandora", "peer": "peer1", "prefix": "10.20.30.0/32", "localPref": 100,
        "communities": ["0:1234"], "largeCommunities": ["1:2:3"]});
    assert_eq!(route, expected);
    assert_eq!(serde_json::to_value(&plan.pools).unwrap()[0]["assignedIPv4"], 1);
    assert_eq!(plan.service(&ServiceKey::new("default", "web")), Some(&plan.services[0]));
    for other in [ServiceKey::new("default", "api"), ServiceKey::new("web", "web")] {
        assert_eq!(plan.service(&other), None);
    }
}

#[test]
fn plan_has_errors_for_invalid_objects_and_not_for_warnings() {
    let l2 = |pools: Value| object("L2Advertisement", "l2", json!({"ipAddressPools": pools}));
    let rows = [
        (configuration(), 0, false),
        ([configuration(), vec![l2(json!(["unknown"]))]].concat(), 1, false),
        ([configuration(), vec![l2(json!(["pool", "pool"]))]].concat(), 1, true),
    ];
    for (objects, problems, errors) in rows {
        let plan = plan_of(&objects);
        assert_eq!((plan.problems.len(), plan.has_errors()), (problems, errors), "{:?}", plan.problems);
    }
}

#[test]
fn family_that_a_session_does_not_carry_is_a_warning_of_its_peer() {
    let world = [
        object("IPAddressPool", "pool", json!({"addresses": ["fd00::/120"]})),
        object("BGPAdvertisement", "ad", json!({})),
        object("BGPPeer", "peer1", json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "1.2.3.4"})),
        node("pandora"),
        service(json!({"clusterIPs": ["fd00:96::1"]})),
        slice("iris", true),
    ];
    let plan = plan_of(&world);
    let found: Vec<_> = plan.problems.iter().map(|problem| (problem.object.to_string(), problem.code)).collect();
    assert_eq!(found, [("BGPPeer/metallb-system/peer1".to_owned(), ConfigReason::FamilyNotCarried)]);
    assert_eq!((plan.services[0].bgp.len(), plan.has_errors()), (0, false));
}

#[test]
fn families_are_displayed_like_in_kubernetes() {
    assert_eq!([IpFamily::V4, IpFamily::V6].map(|family| family.to_string()), ["IPv4", "IPv6"]);
}

#[test]
fn list_of_candidates_is_cut_above_a_size_with_the_number_omitted() {
    for (nodes, listed, omitted) in [(CANDIDATES_SHOWN, CANDIDATES_SHOWN, None), (CANDIDATES_SHOWN + 1, 4, Some(253))] {
        let mut objects: Vec<Value> = (0..nodes).map(|index| node(&format!("node-{index}"))).collect();
        let l2 =
            json!({"kind": "L2Advertisement", "metadata": {"namespace": "metallb-system", "name": "l2"}, "spec": {}});
        objects.extend([configuration(), vec![l2, service(json!({})), slice("node-0", true)]].concat());
        let l2 = serde_json::to_value(&plan_of(&objects).services[0].l2[0]).unwrap();
        assert_eq!(l2["candidates"].as_array().unwrap().len(), listed);
        assert_eq!(l2.get("candidatesOmitted").and_then(Value::as_u64), omitted);
    }
}

fn plan_of(objects: &[Value]) -> Plan {
    let world = World::read(objects);
    plan(&world.resources, &world.cluster, &world.order, &PlanOptions::default())
}

fn configuration() -> Vec<Value> {
    vec![
        object("IPAddressPool", "pool", json!({"addresses": ["10.20.30.0/24"]})),
        object("BGPAdvertisement", "ad", json!({"communities": ["0:1234", "large:1:2:3"]})),
        object("BGPPeer", "peer1", json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "1.2.3.4"})),
    ]
}

/// A Service whose only endpoint is on `node`.
fn service_with_endpoint(name: &str, policy: &str, node: &str) -> [Value; 2] {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80, "protocol": "TCP"}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node, "conditions": {"ready": true}}]});
    [service, slice]
}

#[test]
fn aggregate_that_brings_traffic_to_a_node_without_endpoint_is_a_warning() {
    for (row, length, policies, nodes, services) in [
        ("two nodes", 24, ["Local", "Local"], ["iris", "pandora"], &["one", "two"][..]),
        ("only one is Local", 24, ["Local", "Cluster"], ["iris", "pandora"], &["one"]),
        ("the other one is Local", 24, ["Cluster", "Local"], ["iris", "pandora"], &["two"]),
        ("same node", 24, ["Local", "Local"], ["iris", "iris"], &[]),
        ("no aggregate", 32, ["Local", "Local"], ["iris", "pandora"], &[]),
        ("Cluster", 24, ["Cluster", "Cluster"], ["iris", "pandora"], &[]),
    ] {
        let mut objects = vec![
            object("IPAddressPool", "pool", json!({"addresses": ["10.20.30.0/24"]})),
            object("BGPAdvertisement", "ad", json!({"aggregationLength": length})),
            object("BGPPeer", "peer1", json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "1.2.3.4"})),
            node("iris"),
            node("pandora"),
        ];
        objects.extend(service_with_endpoint("one", policies[0], nodes[0]));
        objects.extend(service_with_endpoint("two", policies[1], nodes[1]));
        let problems = plan_of(&objects).problems;
        let found: Vec<&str> = problems
            .iter()
            .filter(|problem| problem.code == ConfigReason::AggregateDropsTraffic)
            .map(|problem| &*problem.object.name)
            .collect();
        assert_eq!(found, services, "{row}: {problems:?}");
        for problem in problems.iter().filter(|problem| problem.code == ConfigReason::AggregateDropsTraffic) {
            for part in ["10.20.30.0/24", "aggregationLength 32", "externalTrafficPolicy: Cluster"] {
                assert!(problem.message.contains(part), "{row}: {}", problem.message);
            }
        }
    }
}

#[test]
fn router_id_of_two_nodes_is_a_warning() {
    for (spec, nodes, expected) in [
        (json!({"routerID": "10.0.0.9"}), &["iris", "pandora"][..], true),
        (json!({"routerID": "10.0.0.9"}), &["iris"], false),
        (json!({}), &["iris", "pandora"], false),
        (
            json!({"routerID": "10.0.0.9",
                   "nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": "iris"}}]}),
            &["iris", "pandora"],
            false,
        ),
    ] {
        let mut peer = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "1.2.3.4"});
        peer.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut objects = vec![object("BGPPeer", "peer1", peer)];
        objects.extend(nodes.iter().map(|name| node(name)));
        let problems = plan_of(&objects).problems;
        let found = problems.iter().any(|problem| problem.code == ConfigReason::SharedRouterId);
        assert_eq!(found, expected, "{spec} {nodes:?}: {problems:?}");
    }
}

#[test]
fn local_preference_is_shown_for_internal_peers_only() {
    for (asn, expected) in [(64513, ""), (64512, "(local preference 300)")] {
        let objects = [
            object("IPAddressPool", "pool", json!({"addresses": ["10.20.30.0/24"]})),
            object("BGPAdvertisement", "ad", json!({"localPref": 300})),
            object("BGPPeer", "peer1", json!({"myASN": 64512, "peerASN": asn, "peerAddress": "1.2.3.4"})),
            node("pandora"),
            service(json!({})),
            slice("iris", true),
        ];
        assert_eq!(plan_of(&objects).services[0].bgp[0].attributes(), expected, "{asn}");
    }
}
