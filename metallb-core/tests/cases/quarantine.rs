//! Quarantine of addresses that hosts outside of the cluster use.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::support::pools::{pool, service};
use crate::support::scene::{Scene, annotated, with_policy};
use metallb_core::assignment::{AssignReason, Outcome};
use metallb_core::model::{Protocol, Service, ServiceKey, ServicePort};

const V4: &[&str] = &["10.0.0.1"];
const DUAL: &[&str] = &["10.0.0.1", "fd00::1"];
const MAC: &str = "02:00:00:00:00:99";

fn quarantine(scene: &mut Scene, ips: &[&str]) {
    let quarantined: BTreeMap<IpAddr, Arc<str>> = ips.iter().map(|ip| (ip.parse().unwrap(), MAC.into())).collect();
    scene.assigner.set_quarantined(&quarantined);
}

/// Reconciles a Service again without a change.
fn again(scene: &mut Scene, name: &str) -> Outcome {
    let service: Service = scene.services[&ServiceKey::new("test", name)].clone();
    scene.put(service)
}

fn events(outcome: &Outcome) -> Vec<&'static str> {
    outcome.events.iter().map(|event| event.reason).collect()
}

#[test]
fn quarantined_address_is_not_allocated_until_it_is_released() {
    let pools = [pool("p", &["1.2.3.0/30"])];
    let mut scene = Scene::new(&pools);
    quarantine(&mut scene, &["1.2.3.0", "1.2.3.2", "9.9.9.9"]);
    scene.put(service("first", V4));
    scene.put(service("second", V4));
    assert_eq!([scene.status("first"), scene.status("second")], [["1.2.3.1"], ["1.2.3.3"]]);
    let asks = scene.put(annotated(service("asks", V4), "loadBalancerIPs", "1.2.3.2"));
    assert_eq!((asks.reason, asks.ips.len()), (AssignReason::Quarantined, 0));
    assert!(asks.message.contains("\"1.2.3.2\"") && asks.message.contains(MAC), "{}", asks.message);
    assert_eq!(scene.put(service("third", V4)).reason, AssignReason::NoAvailableIps);
    // Another pool with the same addresses: assignments do not change.
    scene.set_pools(&[pool("q", &["1.2.3.0/30"])]);
    assert_eq!(scene.status("third"), Vec::<String>::new());
    quarantine(&mut scene, &["1.2.3.2"]);
    again(&mut scene, "third");
    assert_eq!(scene.status("third"), ["1.2.3.0"]);
    quarantine(&mut scene, &[]);
    again(&mut scene, "asks");
    assert_eq!(scene.status("asks"), ["1.2.3.2"]);
}

#[test]
fn holder_of_a_quarantined_address_gets_another_with_an_event() {
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/30", "1000::/126"])]);
    scene.put(service("s", V4));
    scene.put(with_policy(service("dual", DUAL), metallb_core::model::IpFamilyPolicy::RequireDualStack));
    assert_eq!(scene.status("dual"), ["1.2.3.1", "1000::"]);
    quarantine(&mut scene, &["1.2.3.0", "1000::"]);
    let moved = again(&mut scene, "s");
    assert_eq!(moved.reason, AssignReason::MovedFromQuarantine);
    assert_eq!(events(&moved), ["ClearAssignment", "IPAllocated"]);
    assert!(moved.events[0].message.contains(MAC), "{}", moved.events[0].message);
    again(&mut scene, "dual");
    assert_eq!(scene.status("s"), ["1.2.3.2"]);
    assert_eq!(scene.status("dual"), ["1.2.3.1", "1000::1"], "the other family stays");
    assert_eq!(again(&mut scene, "s").reason, AssignReason::Kept);
    // Services do not move back after the quarantine.
    quarantine(&mut scene, &[]);
    assert_eq!((again(&mut scene, "s").write, again(&mut scene, "dual").write), (None, None));
}

#[test]
fn service_keeps_a_quarantined_address_if_there_is_no_other() {
    let pools = [pool("p", &["1.2.3.0/31"])];
    let mut scene = Scene::new(&pools);
    scene.put(service("full", V4));
    scene.put(annotated(service("asks", V4), "loadBalancerIPs", "1.2.3.1"));
    quarantine(&mut scene, &["1.2.3.0", "1.2.3.1"]);
    for name in ["full", "asks"] {
        let outcome = again(&mut scene, name);
        assert_eq!((outcome.reason, outcome.write), (AssignReason::KeptInQuarantine, None), "{name}");
        assert!(outcome.message.contains(MAC), "{}", outcome.message);
    }
    // The same after a restart.
    scene.restart(&pools);
    quarantine(&mut scene, &["1.2.3.0", "1.2.3.1"]);
    scene.set_pools(&pools);
    assert_eq!([scene.status("full"), scene.status("asks")], [["1.2.3.0"], ["1.2.3.1"]]);
    scene.set_pools(&[pool("p", &["1.2.3.0/30"])]);
    assert_eq!([scene.status("full"), scene.status("asks")], [["1.2.3.2"], ["1.2.3.1"]]);
}

#[test]
fn services_that_share_a_quarantined_address_share_another() {
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/30"])]);
    let sharing = |name: &str, port: u16| {
        let mut service = annotated(service(name, V4), "allow-shared-ip", "key");
        service.ports = vec![ServicePort { protocol: Protocol::Tcp, port }];
        service
    };
    scene.put(sharing("a", 80));
    scene.put(sharing("b", 81));
    assert_eq!([scene.status("a"), scene.status("b")], [["1.2.3.0"], ["1.2.3.0"]]);
    quarantine(&mut scene, &["1.2.3.0"]);
    scene.set_pools(&[pool("p", &["1.2.3.0/30"])]);
    assert_eq!([scene.status("a"), scene.status("b")], [["1.2.3.1"], ["1.2.3.1"]]);
    scene.put(sharing("c", 82));
    assert_eq!(scene.status("c"), ["1.2.3.1"]);
}
