//! I7: what is in memory follows from what is there. Nothing of a Service stays that is gone, whatever it went through.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/pools.rs"]
#[allow(dead_code, reason = "of words that tests share, each needs some")]
mod pools;
#[path = "support/scene.rs"]
#[allow(dead_code, reason = "of words that tests share, each needs some")]
mod scene;

use metallb_core::assignment::Assigner;
use metallb_core::config::spec::PoolSpec;
use metallb_core::model::{Protocol, Service, ServiceKey, ServicePort, ServiceType};
use pools::{config, pinned, pool, service};
use scene::{Scene, annotated, holding, with_policy};

use metallb_core::model::IpFamilyPolicy::PreferDualStack as Prefer;

const V4: &[&str] = &["10.0.0.1"];
const DUAL: &[&str] = &["10.0.0.1", "fd00::1"];

/// Every way in which a Service can come to stand in memory: as a holder of one or two addresses, alone and together with others,
/// as one that waits, one that lacks a family, and as the holder of an address that is not ours to give.
fn everybody() -> Vec<Service> {
    let shares = |name: &str, port| {
        let ports = vec![ServicePort { protocol: Protocol::Tcp, port }];
        Service { ports, ..annotated(service(name, V4), "allow-shared-ip", "gone-key") }
    };
    let foreign = |name: &str, ips: &[&str]| Service {
        load_balancer_class: Some("gone-class".to_owned()),
        ..holding(service(name, V4), ips)
    };
    vec![
        service("gone-holder", V4),
        with_policy(service("gone-dual", DUAL), Prefer),
        shares("gone-first", 80),
        shares("gone-second", 443),
        shares("gone-third", 8080),
        foreign("gone-foreign", &["1.2.3.7"]),
        foreign("gone-foreign-too", &["1.2.3.7", "9.9.9.9"]),
        annotated(with_policy(service("gone-single", DUAL), Prefer), "address-pool", "v4"),
        annotated(service("gone-waiting", V4), "loadBalancerIPs", "1.2.3.7"),
        annotated(service("gone-misled", V4), "address-pool", "gone-pool"),
        annotated(service("gone-unclear", V4), "loadBalancerIPs", "gone-text"),
    ]
}

fn all_pools() -> Vec<PoolSpec> {
    vec![
        pool("v4", &["4.4.4.0/30"]),
        pool("both", &["1.2.3.0/29", "1000::/126"]),
        pinned(pool("pinned", &["5.5.5.0/30"]), 1, &["elsewhere"], None),
    ]
}

/// All of the state, as text.
fn memory(scene: &Scene) -> String {
    format!("{:?}", scene.assigner)
}

/// The same without how large tables once were.
fn assert_holds_nothing(scene: &Scene, when: &str) {
    let memory = memory(scene);
    let trace = memory.find("gone-").map(|at| &memory[at.saturating_sub(60)..memory.len().min(at + 40)]);
    assert_eq!(trace, None, "{when}");
    for pool in scene.assigner.allocator().pools() {
        let counters = scene.assigner.allocator().counters(&pool.name).unwrap();
        let used = (counters.assigned_v4, counters.assigned_v6, counters.services);
        assert_eq!(used, (0, 0, 0), "{when}: {}", pool.name);
    }
    // What is free is free as one piece, as it was at first.
    let free = |memory: &str| {
        let intervals =
            memory.split("lowest: ").skip(1).map(|rest| rest.split(", numbering").next().unwrap().to_owned());
        intervals.collect::<Vec<_>>()
    };
    let mut fresh = Assigner::new(None);
    fresh.set_config(&config(&all_pools()));
    assert_eq!(free(&memory), free(&format!("{fresh:?}")), "{when}");
}

#[test]
fn memory_holds_nothing_of_services_that_are_deleted() {
    let orders: [fn(&mut Vec<Service>); 3] = [|_| {}, |all| all.reverse(), |all| all.rotate_left(4)];
    for (number, order) in orders.into_iter().enumerate() {
        let mut scene = Scene::new(&all_pools());
        let mut all = everybody();
        all.iter().for_each(|service| drop(scene.put(service.clone())));
        assert!(memory(&scene).contains("gone-foreign"), "what is there stands in memory");
        order(&mut all);
        for service in &all {
            scene.delete(&service.key.name);
        }
        assert_holds_nothing(&scene, &format!("order {number}"));
    }
}

#[test]
fn memory_holds_nothing_of_services_that_want_nothing_any_more() {
    let mut scene = Scene::new(&all_pools());
    everybody().into_iter().for_each(|service| drop(scene.put(service)));
    for service in everybody() {
        scene.put(Service { service_type: ServiceType::Other, ingress: Vec::new(), ..service });
    }
    assert_holds_nothing(&scene, "of another type");
}

#[test]
fn memory_holds_nothing_of_services_that_lost_their_pools() {
    let mut scene = Scene::new(&all_pools());
    everybody().into_iter().for_each(|service| drop(scene.put(service)));
    scene.set_pools(&[]);
    scene.set_pools(&all_pools());
    assert!(scene.assigner.allocator().holding(&ServiceKey::new("test", "gone-holder")).is_some());
    for service in everybody() {
        scene.delete(&service.key.name);
    }
    assert_holds_nothing(&scene, "pools went and came");
}
