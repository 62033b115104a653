//! The state of the assigner depends only on present objects: it holds nothing of a deleted Service.

use crate::support::pools::{config, pinned, pool, service};
use crate::support::scene::{Scene, annotated, holding, with_policy};
use metallb_core::assignment::Assigner;
use metallb_core::config::spec::PoolSpec;
use metallb_core::model::{Protocol, Service, ServiceKey, ServicePort, ServiceType};

use metallb_core::model::IpFamilyPolicy::PreferDualStack as Prefer;

const V4: &[&str] = &["10.0.0.1"];
const DUAL: &[&str] = &["10.0.0.1", "fd00::1"];

/// A Service in each possible state: with one or two addresses, alone or sharing, pending, with one family missing, and
/// of another class.
fn services() -> Vec<Service> {
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

/// The state of the assigner as text.
fn memory(scene: &Scene) -> String {
    format!("{:?}", scene.assigner)
}

/// Asserts that no name of a deleted Service is left, no address is used, and the free space is as in a new assigner.
fn assert_holds_nothing(scene: &Scene, when: &str) {
    let memory = memory(scene);
    let trace = memory.find("gone-").map(|at| &memory[at.saturating_sub(60)..memory.len().min(at + 40)]);
    assert_eq!(trace, None, "{when}");
    for pool in scene.assigner.allocator().pools() {
        let counters = scene.assigner.allocator().counters(&pool.name).unwrap();
        let used = (counters.assigned_v4, counters.assigned_v6, counters.services);
        assert_eq!(used, (0, 0, 0), "{when}: {}", pool.name);
    }
    // Free intervals are merged again.
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
fn state_holds_nothing_of_deleted_services() {
    let orders: [fn(&mut Vec<Service>); 3] = [|_| {}, |all| all.reverse(), |all| all.rotate_left(4)];
    for (number, order) in orders.into_iter().enumerate() {
        let mut scene = Scene::new(&all_pools());
        let mut all = services();
        all.iter().for_each(|service| drop(scene.put(service.clone())));
        assert!(memory(&scene).contains("gone-foreign"), "present Services are in memory");
        order(&mut all);
        for service in &all {
            scene.delete(&service.key.name);
        }
        assert_holds_nothing(&scene, &format!("order {number}"));
    }
}

#[test]
fn state_holds_nothing_of_services_of_another_type() {
    let mut scene = Scene::new(&all_pools());
    services().into_iter().for_each(|service| drop(scene.put(service)));
    for service in services() {
        scene.put(Service { service_type: ServiceType::Other, ingress: Vec::new(), ..service });
    }
    assert_holds_nothing(&scene, "of another type");
}

#[test]
fn state_holds_nothing_of_deleted_services_after_pool_changes() {
    let mut scene = Scene::new(&all_pools());
    services().into_iter().for_each(|service| drop(scene.put(service)));
    scene.set_pools(&[]);
    scene.set_pools(&all_pools());
    assert!(scene.assigner.allocator().holding(&ServiceKey::new("test", "gone-holder")).is_some());
    for service in services() {
        scene.delete(&service.key.name);
    }
    assert_holds_nothing(&scene, "after pool changes");
}
