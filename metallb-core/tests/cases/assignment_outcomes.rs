//! Outcomes of assignments: pool, message, refused pools, and pending Services to retry.

use crate::support::pools::{config, ips, manual, pinned, pool, service};
use crate::support::scene::{Scene, annotated, holding, with_policy};
use metallb_core::assignment::{AssignReason, Assigner, AssignmentState};
use metallb_core::config::spec::PoolSpec;
use metallb_core::model::{
    ALLOCATED_FROM, IpFamilyPolicy, PoolName, Protocol, Service, ServiceKey, ServicePort, ServiceType, Timestamp,
};

const V4: &[&str] = &["10.0.0.1"];

#[test]
fn service_of_another_type_loses_the_record_of_its_pool() {
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/31"])]);
    scene.put(service("s", V4));
    let key = ServiceKey::new("test", "s");
    assert_eq!(scene.services[&key].annotations[ALLOCATED_FROM], "p");
    let outcome = scene.put(Service { service_type: ServiceType::Other, ..scene.services[&key].clone() });
    assert_eq!((outcome.reason, outcome.pool), (AssignReason::NotLoadBalancer, None));
    assert!(!scene.services[&key].annotations.contains_key(ALLOCATED_FROM));
}

#[test]
fn refused_pools_are_listed_if_no_pool_or_address_was_requested() {
    let pools = [manual(pool("asked", &["1.2.3.0/31"])), pool("full", &["1.2.4.0/32"]), pool("good", &["1.2.5.0/31"])];
    let rows: [(Service, &str, &[&str]); 4] = [
        (service("s", V4), "1.2.5.0", &["full"]),
        (annotated(service("s", V4), "address-pool", "asked"), "1.2.3.0", &[]),
        (annotated(service("s", V4), "loadBalancerIPs", "1.2.5.1"), "1.2.5.1", &[]),
        (annotated(annotated(service("s", V4), "loadBalancerIPs", "1.2.3.1"), "address-pool", "asked"), "1.2.3.1", &[]),
    ];
    for (asker, ip, passed_over) in rows {
        let mut scene = Scene::new(&pools);
        scene.put(service("first", V4));
        let outcome = scene.put(asker.clone());
        let verdicts: Vec<&str> = outcome.verdicts.iter().map(|verdict| verdict.pool.as_str()).collect();
        assert_eq!((outcome.ips, verdicts.as_slice()), (ips(&[ip]), passed_over), "{:?}", asker.annotations);
    }
}

#[test]
fn requested_pool_is_listed_with_its_refusal() {
    let pools = [
        pool("small", &["1.2.3.0/32"]),
        pool("v6", &["1000::/127"]),
        pool("other", &["1.2.4.0/24"]),
        pinned(pool("theirs", &["1.2.5.0/24"]), 0, &["elsewhere"], None),
        pinned(pool("labelled", &["1.2.6.0/24"]), 0, &[], Some("red")),
    ];
    let rows: [(&str, AssignReason, &[(&str, &str)]); 5] = [
        ("theirs", AssignReason::PoolNotCompatible, &[("theirs", "Namespace")]),
        ("labelled", AssignReason::PoolNotCompatible, &[("labelled", "ServiceSelector")]),
        ("small", AssignReason::PoolExhausted, &[("small", "Full")]),
        ("v6", AssignReason::PoolExhausted, &[("v6", "Family")]),
        ("nope", AssignReason::UnknownPool, &[]),
    ];
    for (asked, reason, verdicts) in rows {
        let mut scene = Scene::new(&pools);
        scene.put(annotated(service("first", V4), "address-pool", "small"));
        let outcome = scene.put(annotated(service("s", V4), "address-pool", asked));
        let found: Vec<_> =
            outcome.verdicts.iter().map(|verdict| (verdict.pool.as_str(), verdict.refusal.as_str())).collect();
        assert_eq!((outcome.reason, found.as_slice()), (reason, verdicts), "{asked}");
    }
}

#[test]
fn full_pool_is_refused_for_ports_if_only_they_conflict() {
    let shares = |name: &str, key: &str| {
        let ports = vec![ServicePort { protocol: Protocol::Tcp, port: 80 }];
        Service { ports, ..annotated(service(name, V4), "allow-shared-ip", key) }
    };
    for (key, refusal) in [("k", "PortsTaken"), ("other", "Full")] {
        let mut scene = Scene::new(&[pool("small", &["1.2.3.0/32"])]);
        scene.put(shares("first", "k"));
        let outcome = scene.put(shares("s", key));
        assert_eq!(
            outcome.verdicts.iter().map(|verdict| verdict.refusal.as_str()).collect::<Vec<_>>(),
            [refusal],
            "{key}"
        );
    }
}

#[test]
fn message_distinguishes_assigned_from_kept_addresses() {
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/31"])]);
    let put = |scene: &mut Scene| {
        let key = ServiceKey::new("test", "s");
        let service = scene.services.get(&key).cloned().unwrap_or_else(|| service("s", V4));
        scene.put(service).message
    };
    assert_eq!(put(&mut scene), "assigned [\"1.2.3.0\"]");
    assert_eq!(put(&mut scene), "keeps [\"1.2.3.0\"]");
}

#[test]
fn oldest_pending_service_that_can_be_served_is_retried() {
    let at = |seconds, service| Service { created: Some(Timestamp::from_unix(seconds)), ..service };
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/31"])]);
    scene.put(service("a", V4));
    scene.put(service("b", V4));
    assert_eq!((scene.status("a"), scene.status("b")), (vec!["1.2.3.0".to_owned()], vec!["1.2.3.1".to_owned()]));
    scene.put(at(1, annotated(service("picky", V4), "loadBalancerIPs", "1.2.3.1")));
    scene.put(at(2, service("modest", V4)));
    scene.put(at(3, service("late", V4)));
    assert_eq!(scene.delete("a"), [ServiceKey::new("test", "modest")], "the oldest asks for another address");
    assert_eq!(scene.delete("b"), [ServiceKey::new("test", "picky")]);
}

#[test]
fn claim_holds_valid_addresses_only() {
    let held = || holding(service("s", V4), &["1.2.3.0"]);
    let pools: [PoolSpec; 2] = [pool("one", &["1.2.3.0/31"]), pool("two", &["1.2.4.0/31"])];
    let rows: [(Service, bool); 10] = [
        (held(), true),
        (with_policy(held(), IpFamilyPolicy::PreferDualStack), true),
        // The address will be cleared, because there is no second cluster address.
        (with_policy(held(), IpFamilyPolicy::RequireDualStack), false),
        (annotated(held(), "address-pool", "one"), true),
        (annotated(held(), "address-pool", "two"), false),
        (annotated(held(), "loadBalancerIPs", "1.2.3.0"), true),
        (annotated(held(), "loadBalancerIPs", "1.2.3.1"), false),
        // The request is malformed, so the address is kept.
        (annotated(held(), "loadBalancerIPs", "nope"), true),
        (holding(service("s", V4), &["1000::"]), false),
        (holding(service("s", V4), &["9.9.9.9"]), false),
    ];
    for (service, holds) in rows {
        let mut assigner = Assigner::new(None);
        assigner.set_config(&config(&pools));
        assigner.claim(&service);
        let pool = assigner.allocator().holding(&service.key).map(|held| held.pool.clone());
        assert_eq!(pool, holds.then(|| PoolName::from("one")), "{:?} {:?}", service.annotations, service.ingress);
    }
}

#[test]
fn invalid_holder_does_not_block_its_address() {
    let at = |seconds, service| Service { created: Some(Timestamp::from_unix(seconds)), ..service };
    let mut scene = Scene::new(&[]);
    scene.put(service("new", V4));
    for service in [
        at(1, holding(service("old", V4), &["9.9.9.9"])),
        at(2, with_policy(holding(service("greedy", V4), &["1.2.3.0"]), IpFamilyPolicy::RequireDualStack)),
    ] {
        scene.services.insert(service.key.clone(), service);
    }
    scene.set_pools(&[pool("p", &["1.2.3.0/32"])]);
    assert_eq!(["old", "greedy", "new"].map(|name| scene.status(name)), [vec!["1.2.3.0".to_owned()], vec![], vec![]]);
}

#[test]
fn service_of_unknown_family_is_not_written_and_blocks_its_address() {
    for cluster_ips in [&["None"][..], &["10.96.0.1", "10.96.0.2"], &["nonsense"]] {
        let mut odd = holding(service("odd", V4), &["1.2.3.0"]);
        odd.cluster_ips = cluster_ips.iter().map(|ip| (*ip).to_owned()).collect();
        let mut scene = Scene::new(&[pool("p", &["1.2.3.0/31"])]);
        scene.restart(&[pool("p", &["1.2.3.0/31"])]);
        let outcome = scene.put(odd.clone());
        assert_eq!((outcome.state, outcome.reason), (AssignmentState::Assigned, AssignReason::UnknownFamily));
        assert_eq!(
            (outcome.pool, outcome.ips, outcome.write),
            (Some("p".into()), vec!["1.2.3.0".parse().unwrap()], None)
        );
        scene.put(service("other", V4));
        assert_eq!(scene.status("other"), ["1.2.3.1"]);
        let refused = scene.put(annotated(service("third", V4), "loadBalancerIPs", "1.2.3.0"));
        assert_eq!((refused.reason, refused.ips), (AssignReason::HeldByOtherClass, vec![]));
        // Without addresses in the status it is pending.
        odd.ingress.clear();
        assert_eq!(scene.put(odd).state, AssignmentState::Pending);
        assert_eq!(scene.status("third"), ["1.2.3.0"], "the address is free again");
    }
}
