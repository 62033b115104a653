//! Assignment of addresses to Services: the resulting status and Events (`docs/upstream-behaviour.md#assignment`).

use std::net::IpAddr;

use crate::support::pools::{avoiding, config, ips, manual, pinned, pool, service};
use crate::support::scene::{Scene, annotated, holding, with_policy};
use metallb_core::assignment::{AssignReason, Assigner, AssignmentState, EventKind, Outcome};
use metallb_core::config::spec::PoolSpec;
use metallb_core::model::{
    ALLOCATED_FROM, Ingress, IpFamily, PoolName, Protocol, Service, ServiceKey, ServicePort, ServiceType, Timestamp,
};

use metallb_core::model::IpFamilyPolicy::{PreferDualStack as Prefer, RequireDualStack as Require};

const V4: &[&str] = &["10.0.0.1"];
const V6: &[&str] = &["fd00::1"];
const DUAL: &[&str] = &["10.0.0.1", "fd00::1"];

#[test]
fn deletion_of_an_unknown_service_retries_no_service() {
    assert_eq!(Scene::new(&single()).delete("unknown"), []);
}

#[test]
fn service_gets_the_requested_or_the_first_suitable_address() {
    let holds_hostname = {
        let mut service = holding(service("s", V4), &["10.10.10.10"]);
        service.ingress.insert(0, Ingress { ip: None, hostname: Some("foo.bar.local".to_owned()) });
        service
    };
    let field = Service { load_balancer_ip: Some("1.2.3.1".to_owned()), ..service("s", V4) };
    let held = holding(annotated(service("s", V4), "ip-allocated-from-pool", "pool1"), &["1.2.3.0"]);
    let rows = [
        ("no request", single(), service("s", V4), "1.2.3.0"),
        ("spec.loadBalancerIP", single(), field, "1.2.3.1"),
        ("loadBalancerIPs", single(), annotated(service("s", V4), "loadBalancerIPs", "1.2.3.1"), "1.2.3.1"),
        ("other pool requested", single(), annotated(held, "address-pool", "pool2"), "3.4.5.6"),
        ("held address in no pool", single(), holding(service("s", V4), &["2.3.4.5"]), "1.2.3.0"),
        ("hostname beside it", single(), holds_hostname, "1.2.3.0"),
        ("held IPv6, now IPv4", single(), holding(service("s", V4), &["1000::"]), "1.2.3.0"),
        ("held IPv4, now IPv6", single(), holding(service("s", V6), &["1.2.3.0"]), "1000::"),
        (
            "namespace, PreferDualStack",
            dual(),
            with_policy(in_namespace("test-ns1", service("s", V4)), Prefer),
            "7.8.9.0",
        ),
        (
            "IPv4 pool requested, PreferDualStack",
            with_v4_pool(),
            annotated(with_policy(service("s", DUAL), Prefer), "address-pool", "v4"),
            "9.9.9.0",
        ),
        (
            "dual-stack pool requested, one cluster IP",
            dual(),
            annotated(with_policy(service("s", V4), Prefer), "address-pool", "pool5"),
            "1.2.3.0",
        ),
        ("namespace", dual(), in_namespace("test-ns1", service("s", V4)), "7.8.9.0"),
        ("other namespace", dual(), in_namespace("test-ns2", service("s", V4)), "13.14.15.0"),
        ("label", dual(), team("metallb", service("s", V4)), "19.20.21.0"),
        ("namespace and label", dual(), team("metallb", in_namespace("test-ns1", service("s", V4))), "25.26.27.0"),
    ];
    for (row, pools, service, expected) in rows {
        let outcome = Scene::new(&pools).put(service);
        assert_eq!(outcome.state, AssignmentState::Assigned, "{row}: {outcome:?}");
        assert_eq!(outcome.write.as_ref().map(|write| write.ips.clone()), Some(ips(&[expected])), "{row}");
        assert_eq!(warnings(&outcome), Vec::<&str>::new(), "{row}");
    }
}

#[test]
fn dual_stack_service_gets_both_families_at_once() {
    let hostname = {
        let mut service = holding(with_policy(service("s", DUAL), Require), &["1000::"]);
        service.ingress.insert(0, Ingress { ip: None, hostname: Some("foo.bar.local".to_owned()) });
        service
    };
    let asks = |value| annotated(with_policy(service("s", DUAL), Require), "loadBalancerIPs", value);
    let rows: [(&str, Service, [&str; 2]); 5] = [
        ("RequireDualStack", with_policy(service("s", DUAL), Require), ["1.2.3.0", "1000::"]),
        ("PreferDualStack", with_policy(service("s", DUAL), Prefer), ["1.2.3.0", "1000::"]),
        ("request", asks("1.2.3.0,1000::"), ["1.2.3.0", "1000::"]),
        ("request, IPv6 first", asks("1000::, 1.2.3.0"), ["1000::", "1.2.3.0"]),
        ("hostname in the status", hostname, ["1000::", "1.2.3.0"]),
    ];
    for (row, service, expected) in rows {
        let mut scene = Scene::new(&dual());
        let outcome = scene.put(service);
        assert_eq!(scene.status("s"), expected, "{row}");
        assert_eq!(warnings(&outcome), Vec::<&str>::new(), "{row}");
    }
}

#[test]
fn request_that_cannot_be_met_is_a_warning_and_writes_nothing() {
    let field = |text: &str, service: Service| Service { load_balancer_ip: Some(text.to_owned()), ..service };
    let asks = |text: &str, cluster_ips| annotated(service("s", cluster_ips), "loadBalancerIPs", text);
    let rows = [
        ("field and annotation", single(), field("1.2.3.1", asks("1.2.3.1", V4)), "can not have both"),
        ("malformed field", single(), field("nope", service("s", V4)), "invalid spec.loadBalancerIP \"nope\""),
        ("malformed annotation", single(), asks("nope", V4), "invalid metallb.io/loadBalancerIPs: \"nope\""),
        (
            "address of another pool",
            single(),
            annotated(asks("1.2.3.1", V4), "address-pool", "pool2"),
            "is not compatible with requested address pool",
        ),
        (
            "two of one family",
            single(),
            asks("1.2.3.1,1.2.3.2", V4),
            "invalid metallb.io/loadBalancerIPs: \"1.2.3.1,1.2.3.2\"",
        ),
        ("unknown pool", single(), annotated(service("s", V4), "address-pool", "nope"), "unknown pool \"nope\""),
        (
            "IPv4 field for IPv6",
            single(),
            field("1.2.3.1", service("s", V6)),
            "does not match the ipFamily of the service",
        ),
        ("IPv4 annotation for IPv6", single(), asks("1.2.3.1", V6), "does not match the ipFamily of the service"),
        (
            "IPv6 field for IPv4",
            single(),
            field("1000::", service("s", V4)),
            "does not match the ipFamily of the service",
        ),
        ("RequireDualStack with one cluster IP", dual(), with_policy(service("s", V4), Require), "RequireDualStack"),
        (
            "one address, RequireDualStack",
            dual(),
            with_policy(field("1.2.3.0", service("s", DUAL)), Require),
            "does not match the ipFamily",
        ),
        (
            "one address, PreferDualStack",
            dual(),
            with_policy(asks("1.2.3.0", DUAL), Prefer),
            "does not match the ipFamily",
        ),
        ("two addresses for one family", dual(), asks("1.2.3.0,1000::", V4), "does not match the ipFamily"),
    ];
    for (row, pools, service, text) in rows {
        let outcome = Scene::new(&pools).put(service);
        assert_eq!((outcome.state, &outcome.write), (AssignmentState::Pending, &None), "{row}");
        let reason =
            if row == "RequireDualStack with one cluster IP" { "not enough clusterips" } else { "AllocationFailed" };
        assert_eq!(warnings(&outcome), [reason], "{row}");
        assert!(outcome.events[0].message.contains(text), "{row}: {}", outcome.events[0].message);
    }
}

#[test]
fn invalid_address_is_removed_from_the_status() {
    let held = || holding(annotated(service("s", V4), "ip-allocated-from-pool", "pool1"), &["1.2.3.1"]);
    let wants_other = Service { load_balancer_ip: Some("1.2.3.4".to_owned()), ..held() };
    let other_type = Service { service_type: ServiceType::Other, ..held() };
    let rows = [
        ("another address requested", single(), wants_other, AssignReason::NotInPools, vec!["AllocationFailed"]),
        ("another type", single(), other_type, AssignReason::NotLoadBalancer, vec![]),
        ("no pools", Vec::new(), held(), AssignReason::NoPools, vec![]),
    ];
    for (row, pools, service, reason, expected) in rows {
        let mut scene = Scene::new(&pools);
        let outcome = scene.put(service);
        assert_eq!((outcome.reason, warnings(&outcome)), (reason, expected), "{row}");
        assert_eq!(scene.status("s"), Vec::<String>::new(), "{row}");
    }
}

#[test]
fn service_that_needs_nothing_is_not_written() {
    let cluster_ip = Service { service_type: ServiceType::Other, ..service("s", V4) };
    // A Service without cluster addresses, as in a manifest, takes its families from its policy.
    let rows = [
        ("ClusterIP", single(), cluster_ip, None),
        ("no cluster IP", single(), service("s", &[]), Some("1.2.3.0")),
        ("no pools", vec![], service("s", V4), None),
    ];
    for (row, pools, service, expected) in rows {
        let outcome = Scene::new(&pools).put(service);
        assert_eq!(outcome.ips, ips(&expected.into_iter().collect::<Vec<_>>()), "{row}");
        assert_eq!(warnings(&outcome), Vec::<&str>::new(), "{row}");
    }
}

#[test]
fn invalid_status_is_a_warning_and_repaired() {
    let outcome = Scene::new(&single()).put(holding(service("s", V4), &["1.2.3.0", "1.2.3.1", "1000::"]));
    assert_eq!(warnings(&outcome), ["nolbIPsIPFamily"]);
    assert_eq!(outcome.ips, ips(&["1.2.3.0"]));
}

#[test]
fn pending_service_uses_pools_that_are_added_later() {
    let mut scene = Scene::new(&[]);
    assert_eq!(scene.put(service("s", V4)).state, AssignmentState::Pending);
    scene.set_pools(&[]);
    assert_eq!(scene.status("s"), Vec::<String>::new());
    scene.set_pools(&single());
    assert_eq!(scene.status("s"), ["1.2.3.0"]);
}

#[test]
fn deleted_service_frees_its_address_for_a_pending_one() {
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/32"])]);
    scene.put(service("svc1", V4));
    assert_eq!(scene.put(service("svc2", V4)).reason, AssignReason::NoAvailableIps);
    assert_eq!(scene.delete("svc1"), [ServiceKey::new("test", "svc2")]);
    assert_eq!(scene.status("svc2"), ["1.2.3.0"]);
}

#[test]
fn address_is_kept_with_new_pools_and_replaced_if_its_pool_is_deleted() {
    let (first, second) = (pool("a", &["1.2.3.0/31"]), pool("b", &["4.5.6.0/31"]));
    let mut scene = Scene::new(std::slice::from_ref(&first));
    scene.put(service("s", V4));
    scene.set_pools(&[first, second.clone()]);
    assert_eq!(scene.status("s"), ["1.2.3.0"]);
    scene.set_pools(&[second]);
    assert_eq!(scene.status("s"), ["4.5.6.0"]);
}

#[test]
fn restart_changes_no_address() {
    let pools = [pool("p", &["1.2.3.0/31"])];
    let mut scene = Scene::new(&pools);
    // The youngest Services were created first, so that age alone would assign other addresses.
    for (index, name) in ["d", "c", "b", "a"].into_iter().enumerate() {
        scene.put(Service { created: Some(Timestamp::from_unix(10 - index as i64)), ..service(name, V4) });
    }
    let writes = scene.writes;
    for _ in 0..5 {
        scene.restart(&pools);
        assert_eq!((scene.status("d"), scene.status("c")), (vec!["1.2.3.0".to_owned()], vec!["1.2.3.1".to_owned()]));
        assert_eq!(scene.writes, writes);
    }
}

#[test]
fn pools_are_filled_in_the_order_of_priority() {
    let ns = |name, addresses: &str, priority| pinned(pool(name, &[addresses]), priority, &["test"], None);
    let mut scene = Scene::new(&[ns("a", "3.0.0.0/32", 0), ns("b", "2.0.0.0/32", 20), ns("c", "1.0.0.0/32", 10)]);
    for (name, expected) in [("s1", "1.0.0.0"), ("s2", "2.0.0.0"), ("s3", "3.0.0.0")] {
        scene.put(service(name, V4));
        assert_eq!(scene.status(name), [expected]);
    }
}

#[test]
fn second_family_is_added_from_the_same_pool_only() {
    let mut scene = Scene::new(&[pool("v4", &["1.2.3.0/31"])]);
    scene.put(with_policy(service("s", DUAL), Prefer));
    assert_eq!(scene.status("s"), ["1.2.3.0"]);
    scene.set_pools(&[pool("v4", &["1.2.3.0/31"]), pool("both", &["4.5.6.0/31", "2000::/127"])]);
    assert_eq!(scene.status("s"), ["1.2.3.0"]);
    scene.set_pools(&[pool("v4", &["1.2.3.0/31", "1000::/127"])]);
    assert_eq!(scene.status("s"), ["1.2.3.0", "1000::"]);
}

#[test]
fn counters_are_updated_by_services_and_pools() {
    let counters = |scene: &Scene| {
        let counters = scene.assigner.allocator().counters(&"p".into()).unwrap();
        (counters.available_v4, counters.available_v6, counters.assigned_v4, counters.assigned_v6)
    };
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/30", "1000::/126"])]);
    assert_eq!(counters(&scene), (4, 4, 0, 0));
    scene.put(with_policy(service("s", DUAL), Require));
    assert_eq!(counters(&scene), (3, 3, 1, 1));
    scene.set_pools(&[pool("p", &["1.2.3.0/29", "1000::/125"])]);
    assert_eq!(counters(&scene), (7, 7, 1, 1));
    scene.delete("s");
    assert_eq!(counters(&scene), (8, 8, 0, 0));
}

#[test]
fn prefer_dual_stack_with_one_cluster_ip_does_not_flap() {
    let mut scene = Scene::new(&dual());
    scene.put(with_policy(service("s", V4), Prefer));
    assert_eq!((scene.status("s"), scene.writes), (vec!["1.2.3.0".to_owned()], 1));
}

#[test]
fn only_pending_services_that_can_be_served_are_retried() {
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/31"])]);
    for index in 0..50 {
        let created = Some(Timestamp::from_unix(index));
        scene.put(Service { created, ..service(&format!("s{index:02}"), V4) });
    }
    let writes = scene.writes;
    assert_eq!(scene.delete("s00"), [ServiceKey::new("test", "s02")]);
    assert_eq!((scene.status("s02"), scene.writes), (vec!["1.2.3.0".to_owned()], writes + 1));
    // Two new addresses serve two Services.
    scene.set_pools(&[pool("p", &["1.2.3.0/30"])]);
    assert_eq!((scene.status("s03"), scene.status("s04").len()), (vec!["1.2.3.2".to_owned()], 1));
}

#[test]
fn service_that_changes_address_or_ports_lets_a_pending_one_retry() {
    let asks = |name, ip| annotated(service(name, V4), "loadBalancerIPs", ip);
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/30"])]);
    scene.put(asks("a", "1.2.3.1"));
    assert_eq!(scene.put(asks("b", "1.2.3.1")).reason, AssignReason::AddressInUse);
    scene.put(asks("a", "1.2.3.2"));
    assert_eq!(scene.status("b"), ["1.2.3.1"]);

    let shares = |name, ports: &[u16]| {
        let tcp = |&port: &u16| ServicePort { protocol: Protocol::Tcp, port };
        let ports = ports.iter().map(tcp).collect();
        Service { ports, ..annotated(asks(name, "1.2.3.3"), "allow-shared-ip", "k") }
    };
    scene.put(shares("c", &[80, 443]));
    assert_eq!(scene.put(shares("d", &[443])).reason, AssignReason::PortInUse);
    let held = holding(shares("c", &[80]), &["1.2.3.3"]);
    scene.put(held);
    assert_eq!(scene.status("d"), ["1.2.3.3"]);
}

#[test]
fn address_of_another_class_is_allocated_only_after_its_release() {
    let foreign = Service { load_balancer_class: Some("other".to_owned()), ..holding(service("f", V4), &["1.2.3.0"]) };
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/32"])]);
    assert_eq!(scene.put(foreign.clone()).reason, AssignReason::OtherClass);
    assert_eq!(scene.put(service("s", V4)).reason, AssignReason::NoAvailableIps);
    let asks = annotated(service("asks", V4), "loadBalancerIPs", "1.2.3.0");
    assert_eq!(scene.put(asks).reason, AssignReason::HeldByOtherClass);
    let outcome = scene.put(holding(foreign, &[]));
    assert_eq!((outcome.write, outcome.retry), (None, vec![ServiceKey::new("test", "asks")]));
    assert_eq!(scene.status("asks"), ["1.2.3.0"]);
}

#[test]
fn valid_holders_are_claimed_before_new_addresses_are_allocated() {
    // The address of the older holder is in no pool; the only free address belongs to the younger one.
    let mut scene = Scene::new(&[]);
    let at = |seconds, service| Service { created: Some(Timestamp::from_unix(seconds)), ..service };
    scene.put(at(1, service("old", V4)));
    scene.put(at(2, service("young", V4)));
    for (name, ip) in [("old", "9.9.9.9"), ("young", "1.2.3.0")] {
        let key = ServiceKey::new("test", name);
        let changed = holding(scene.services[&key].clone(), &[ip]);
        scene.services.insert(key, changed);
    }
    scene.set_pools(&[pool("p", &["1.2.3.0/32"])]);
    assert_eq!((scene.status("young"), scene.status("old")), (vec!["1.2.3.0".to_owned()], vec![]));
}

#[test]
fn address_that_the_pool_now_avoids_is_replaced_with_events() {
    let mut scene = Scene::new(&[pool("p", &["1.2.3.0/30"])]);
    scene.put(service("s", V4));
    let after = config(&[avoiding(pool("p", &["1.2.3.0/30"]))]);
    scene.assigner.set_config(&after);
    let outcome = scene.put(scene.services[&ServiceKey::new("test", "s")].clone());
    let reasons: Vec<_> = outcome.events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, ["ClearAssignment", "IPAllocated"]);
    assert_eq!(outcome.events[1].message, "Assigned IP [\"1.2.3.1\"]");
}

#[test]
fn pending_service_lists_the_refusal_of_every_pool() {
    let mut scene = Scene::new(&[
        pool("full", &["1.2.3.0/32"]),
        pool("other-family", &["1000::/127"]),
        manual(pool("manual", &["1.2.4.0/24"])),
        pinned(pool("other-namespace", &["1.2.5.0/24"]), 0, &["x"], None),
        pinned(pool("other-labels", &["1.2.6.0/24"]), 0, &[], Some("x")),
    ]);
    scene.put(service("first", V4));
    let outcome = scene.put(service("second", V4));
    let verdicts: Vec<_> = outcome.verdicts.iter().map(|v| (v.pool.as_str(), v.refusal.as_str())).collect();
    let expected = [
        ("other-labels", "ServiceSelector"),
        ("other-namespace", "Namespace"),
        ("full", "Full"),
        ("other-family", "Family"),
        ("manual", "NotAutoAssigned"),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(outcome.message, "no available IPs");
}

#[test]
fn service_of_another_class_is_not_handled() {
    for (ours, theirs, handled) in [
        (None, None, true),
        (None, Some("foo"), false),
        (Some("foo"), None, false),
        (Some("foo"), Some("bar"), false),
        (Some("foo"), Some("foo"), true),
    ] {
        let mut assigner = Assigner::new(ours);
        assigner.set_config(&config(&single()));
        let service = Service { load_balancer_class: theirs.map(str::to_owned), ..service("s", V4) };
        let outcome = assigner.converge(&service);
        assert_eq!(outcome.state == AssignmentState::Assigned, handled, "{ours:?} {theirs:?}");
        assert_eq!(outcome.write.is_some(), handled);
    }
}

#[test]
fn service_of_another_class_or_without_family_is_not_written() {
    let mut assigner = Assigner::new(None);
    assigner.set_config(&config(&single()));
    let mut foreign = Service { load_balancer_class: Some("foo".to_owned()), ..service("s", V4) };
    foreign.annotations.insert(ALLOCATED_FROM.to_owned(), "theirs".to_owned());
    let outcome = assigner.converge(&foreign);
    assert_eq!((outcome.pool.as_ref().map(PoolName::as_str), outcome.write), (Some("theirs"), None));

    for status in [&["1.2.3.0"][..], &[]] {
        let outcome = assigner.converge(&holding(service("headless", &["None"]), status));
        let state = if status.is_empty() { AssignmentState::Pending } else { AssignmentState::Assigned };
        assert_eq!((outcome.state, outcome.write), (state, None), "{status:?}");
        assert_eq!(outcome.reason == AssignReason::UnknownFamily, !status.is_empty(), "{status:?}");
    }
}

#[test]
fn first_ip_family_decides_between_pools_of_one_family() {
    let mut scene = Scene::new(&[pool("v4", &["1.2.3.0/31"]), pool("v6", &["1000::/127"])]);
    let families = vec![IpFamily::V6, IpFamily::V4];
    scene.put(Service { ip_families: families, ..with_policy(service("s", DUAL), Prefer) });
    assert_eq!(scene.status("s"), ["1000::"]);
}

#[test]
fn service_read_before_its_own_write_keeps_its_address() {
    let mut assigner = Assigner::new(None);
    assigner.set_config(&config(&single()));
    let (first, second) = (service("first", V4), service("second", V4));
    assigner.converge(&first);
    let given = assigner.converge(&second).ips;
    assigner.forget(&first.key);
    let again = assigner.converge(&second);
    assert_eq!(again.ips, given, "a lower address is free, but the write is pending");
    assert_eq!(again.write.unwrap().ips, given);
}

#[test]
fn hostname_beside_the_address_is_overwritten() {
    let mut assigner = Assigner::new(None);
    assigner.set_config(&config(&single()));
    let mut service = holding(service("s", V4), &["1.2.3.0"]);
    service.annotations.insert(ALLOCATED_FROM.to_owned(), "pool1".to_owned());
    assert_eq!(assigner.converge(&service).write, None);
    service.ingress[0].hostname = Some("somebody.else.example".to_owned());
    assert_eq!(assigner.converge(&service).write.unwrap().ips, ["1.2.3.0".parse::<IpAddr>().unwrap()]);
}

/// Pools of one family each.
fn single() -> Vec<PoolSpec> {
    vec![
        pool("pool1", &["1.2.3.0/31"]),
        manual(pool("pool2", &["3.4.5.6/32"])),
        pool("pool3", &["1000::/127"]),
        manual(pool("pool4", &["2000::1/128"])),
    ]
}

/// A dual-stack pool and pools with service allocation.
fn dual() -> Vec<PoolSpec> {
    vec![
        pool("pool5", &["1.2.3.0/31", "1000::/127"]),
        pinned(pool("pool6", &["7.8.9.0/31"]), 10, &["test-ns1"], None),
        pinned(pool("pool7", &["10.11.12.0/31"]), 11, &["test-ns1"], None),
        pinned(pool("pool8", &["13.14.15.0/31"]), 0, &["test-ns2"], None),
        pinned(pool("pool9", &["16.17.18.0/31"]), 9, &[], Some("metallb")),
        pinned(pool("pool10", &["19.20.21.0/31"]), 8, &[], Some("metallb")),
        pinned(pool("pool11", &["22.23.24.0/31"]), 8, &["test-ns1"], Some("metallb")),
        pinned(pool("pool12", &["25.26.27.0/31"]), 5, &["test-ns1"], Some("metallb")),
    ]
}

fn with_v4_pool() -> Vec<PoolSpec> {
    dual().into_iter().chain([pool("v4", &["9.9.9.0/31"])]).collect()
}

fn in_namespace(namespace: &str, mut service: Service) -> Service {
    service.key = ServiceKey::new(namespace, &service.key.name);
    service
}

fn team(team: &str, mut service: Service) -> Service {
    service.labels.insert("team".to_owned(), team.to_owned());
    service
}

fn warnings(outcome: &Outcome) -> Vec<&'static str> {
    outcome.events.iter().filter(|event| event.kind == EventKind::Warning).map(|event| event.reason).collect()
}
