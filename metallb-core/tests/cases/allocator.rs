//! The allocator: single addresses, sharing, dual stack, requests, pool changes and counters
//! (`docs/upstream-behaviour.md#allocation`).

use crate::support::pools::{self, avoiding, config, ips, manual, pinned, pool};
use metallb_core::allocator::{
    AllocateError, Allocator, FamilyDemand, NotAllowedCause, PoolCounters, Request, SharingKey, Terms,
};
use metallb_core::config::spec::PoolSpec;
use metallb_core::model::{IpFamily, Protocol, ServiceKey, ServicePort};

#[test]
fn address_has_one_holder_which_may_ask_again_and_move() {
    let mut allocator = allocator(&[pool("test", &["1.2.3.4/31"])]);
    assert!(allocator.assign(&ask("s1"), &ips(&["1.2.3.4"])).is_ok());
    let refused = allocator.assign(&ask("s2"), &ips(&["1.2.3.4"])).unwrap_err();
    let text = "can't change sharing key for \"test/s2\", address also in use by test/s1: \
                metallb.io/allow-shared-ip is not set here and is not set there";
    assert_eq!(refused.to_string(), text);
    assert!(allocator.assign(&ask("s1"), &ips(&["1.2.3.4"])).is_ok());
    assert!(allocator.assign(&ask("s2"), &ips(&["1.2.3.5"])).is_ok());
    assert!(allocator.assign(&ask("s1"), &ips(&["1.2.3.5"])).is_err());
    assert_eq!(held(&allocator, "s1"), ["1.2.3.4"]);
    allocator.release(&key("s1"));
    assert!(allocator.assign(&ask("s2"), &ips(&["1.2.3.4"])).is_ok());
    assert!(allocator.assign(&ask("s1"), &ips(&["1.2.3.5"])).is_ok());
}

#[test]
fn buggy_addresses_are_refused_in_ipv4_only() {
    let mut allocator = allocator(&[avoiding(pool("test", &["1.2.4.0/24", "1000::4:0/120"]))]);
    for (ip, allowed) in [("1.2.4.0", false), ("1.2.4.255", false), ("1.2.4.254", true), ("1000::4:ff", true)] {
        let outcome = allocator.assign(&ask("s1"), &ips(&[ip])).cloned();
        assert_eq!(outcome.is_ok(), allowed, "{ip}");
        if let Err(error) = outcome {
            assert_eq!(error.to_string(), format!("[\"{ip}\"] is not allowed in config"));
            assert!(matches!(error, AllocateError::NotAllowed { cause: NotAllowedCause::Avoided(_), .. }));
        }
    }
}

#[test]
fn address_is_shared_with_equal_keys_and_different_ports() {
    let mut allocator = allocator(&[pool("test", &["1.2.3.0/24"])]);
    let mut first = sharing("s4", "sharing", "", 80);
    let ip = ips(&["1.2.3.3"]);
    assert!(allocator.assign(&first, &ip).is_ok());
    change(&mut first, |terms| terms.key.sharing = "share".into());
    assert!(allocator.assign(&first, &ip).is_ok());
    for refused in [sharing("s3", "share", "", 80), sharing("s3", "other", "", 443), sharing("s3", "share", "b", 443)] {
        assert!(allocator.assign(&refused, &ip).is_err(), "{refused:?}");
    }
    let taken = allocator.assign(&sharing("s3", "share", "", 80), &ip).unwrap_err();
    assert_eq!(taken.to_string(), "port TCP/80 is already in use on \"1.2.3.3\" by test/s4");
    let mut second = sharing("s3", "share", "", 443);
    assert!(allocator.assign(&second, &ip).is_ok());
    change(&mut second, |terms| terms.ports = vec![ServicePort { protocol: Protocol::Udp, port: 53 }]);
    assert!(allocator.assign(&second, &ip).is_ok());
    change(&mut second, |terms| terms.key.sharing = "other".into());
    assert!(allocator.assign(&second, &ip).is_err());
    change(&mut second, |terms| terms.key = SharingKey { sharing: "share".into(), backend: "app=x".into() });
    assert!(allocator.assign(&second, &ip).is_err());
}

#[test]
fn both_families_come_from_one_pool() {
    let mut allocator = allocator(&[pool("test1", &["1.2.3.4/31", "1000::4/127"]), pool("test2", &["1.2.4.4/31"])]);
    assert!(allocator.assign(&ask("s1"), &ips(&["1.2.3.4", "1000::4"])).is_ok());
    let refused = allocator.assign(&ask("s2"), &ips(&["1.2.4.5", "1000::5"])).unwrap_err();
    assert!(matches!(refused, AllocateError::NotAllowed { cause: NotAllowedCause::SeveralPools, .. }));
}

#[test]
fn pool_with_service_allocation_serves_only_matching_services() {
    let rows: [PinnedRow; 8] = [
        (&["test-ns1"], None, "test-ns1", None, true),
        (&["test-ns1"], None, "test-ns2", None, false),
        (&[], Some("metallb"), "any", Some("metallb"), true),
        (&[], Some("metallb"), "any", Some("red"), false),
        (&["test-ns1"], Some("metallb"), "test-ns1", Some("metallb"), true),
        (&["test-ns1"], Some("metallb"), "test-ns1", None, false),
        (&["test-ns1"], Some("metallb"), "test-ns2", Some("metallb"), false),
        (&["test-ns1"], Some("metallb"), "test-ns2", None, false),
    ];
    for (namespaces, team, namespace, label, served) in rows {
        let mut allocator = allocator(&[pinned(pool("test", &["1.2.3.4/30"]), 0, namespaces, team)]);
        let mut asker = ask("s");
        change(&mut asker, |terms| terms.service = ServiceKey::new(namespace, "s"));
        change(&mut asker, |terms| {
            terms.labels = label.map(|label| ("team".to_owned(), label.to_owned())).into_iter().collect();
        });
        let outcome = allocator.assign(&asker, &ips(&["1.2.3.4"])).cloned();
        assert_eq!(outcome.is_ok(), served, "{namespaces:?} {team:?} {namespace} {label:?}");
        assert_eq!(allocator.allocate(&asker).is_ok(), served);
        if let Err(error) = outcome {
            assert_eq!(error.to_string(), "pool test not compatible for ip assignment");
        }
    }
}

#[test]
fn exhausted_pool_still_shares_addresses() {
    let mut allocator = allocator(&[pool("test", &["1.2.3.4/31", "1.2.3.10/31"])]);
    for name in ["s1", "s2", "s3", "s4"] {
        assert!(allocator.allocate_from(&ask(name), "test").is_ok(), "{name}");
    }
    let refused = allocator.allocate_from(&ask("s5"), "test").unwrap_err();
    assert_eq!(refused.to_string(), "no available IPs in pool test for ipv4 IPFamily");
    allocator.release(&key("s1"));
    assert!(allocator.allocate_from(&sharing("s5", "share", "", 80), "test").is_ok());
    assert!(allocator.allocate_from(&sharing("s6", "share", "", 443), "test").is_ok());
    assert_eq!(held(&allocator, "s5"), held(&allocator, "s6"));
}

#[test]
fn family_that_the_pool_lacks_is_an_error() {
    let mut allocator = allocator(&[pool("test", &["1.2.3.4/31"])]);
    assert!(allocator.allocate_from(&ask("s1"), "test").is_ok());
    assert!(allocator.allocate_from(&demanding("s1", FamilyDemand::V6), "test").is_err());
}

#[test]
fn dual_stack_takes_both_families_or_with_prefer_one() {
    let mut allocator = allocator(&[pool("test", &["1.2.3.4/30", "1000::4/126"]), pool("v4", &["1.2.4.0/32"])]);
    for name in ["s1", "s2", "s3", "s4"] {
        assert_eq!(allocator.allocate_from(&demanding(name, FamilyDemand::Both), "test").unwrap().ips.len(), 2);
    }
    let refused = allocator.allocate_from(&demanding("s5", FamilyDemand::Both), "test").unwrap_err();
    assert_eq!(refused.to_string(), "no available IPs in pool test for dual IPFamily");
    let prefers = demanding("s5", FamilyDemand::PreferBoth { first: IpFamily::V4 });
    assert_eq!(allocator.allocate_from(&prefers, "v4").unwrap().ips, ips(&["1.2.4.0"]));
}

#[test]
fn unknown_pool_is_an_error() {
    let refused = allocator(&[]).allocate_from(&ask("s1"), "nope").unwrap_err();
    assert_eq!(refused.to_string(), "unknown pool \"nope\"");
}

#[test]
fn buggy_addresses_are_skipped() {
    let plain = pool("test1", &["1.2.3.0/31", "1.2.3.254/31"]);
    let mut allocator = allocator(&[plain, avoiding(pool("test2", &["1.2.4.0/31", "1.2.4.254/31"]))]);
    let all: Vec<String> =
        (0..6).map(|index| allocator.allocate(&ask(&format!("s{index}"))).unwrap().ips[0].to_string()).collect();
    assert_eq!(all, ["1.2.3.0", "1.2.3.1", "1.2.3.254", "1.2.3.255", "1.2.4.1", "1.2.4.254"]);
    assert_eq!(allocator.allocate(&ask("s7")).unwrap_err().to_string(), "no available IPs");
}

#[test]
fn holders_keep_their_addresses_if_the_new_pools_contain_them() {
    let before = pool("test", &["1.2.3.0/30", "1000::/126"]);
    let rows: [ChangeRow; 7] = [
        ("same", vec![before.clone()], Some("test"), Some("test")),
        ("expanded", vec![pool("test", &["1.2.3.0/24", "1000::/124"])], Some("test"), Some("test")),
        ("shrunk around", vec![pool("test", &["1.2.3.0/31", "1000::/127"])], Some("test"), Some("test")),
        ("shrunk away", vec![pool("test", &["1.2.3.2/31", "1000::/126"])], None, Some("test")),
        ("renamed", vec![pool("test2", &["1.2.3.0/30", "1000::/126"])], Some("test2"), Some("test2")),
        ("split", vec![pool("a", &["1.2.3.0/30"]), pool("b", &["1000::/126"])], Some("a"), Some("b")),
        ("avoiding", vec![avoiding(before.clone())], None, Some("test")),
    ];
    for (name, after, v4, v6) in rows {
        let mut allocator = allocator(std::slice::from_ref(&before));
        allocator.assign(&ask("v4"), &ips(&["1.2.3.0"])).unwrap();
        allocator.assign(&ask("v6"), &ips(&["1000::"])).unwrap();
        let lost = allocator.set_pools(config(&after).pools.values());
        let pool = |service| allocator.holding(&key(service)).map(|held| held.pool.as_str());
        assert_eq!((pool("v4"), pool("v6")), (v4, v6), "{name}");
        assert_eq!(lost, v4.is_none().then(|| key("v4")).into_iter().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn pool_without_auto_assign_is_used_only_on_request() {
    let mut allocator = allocator(&[manual(pool("manual", &["1.2.3.0/24"])), pool("test", &["1.2.4.0/31"])]);
    assert!(allocator.allocate(&ask("s1")).is_ok());
    assert!(allocator.allocate(&ask("s2")).is_ok());
    let AllocateError::Exhausted { verdicts } = allocator.allocate(&ask("s3")).unwrap_err() else { unreachable!() };
    let verdicts: Vec<_> = verdicts.iter().map(|v| (v.pool.as_str(), v.refusal.as_str())).collect();
    assert_eq!(verdicts, [("test", "Full"), ("manual", "NotAutoAssigned")]);
}

#[test]
fn capacities_count_usable_addresses() {
    let rows: [(&[&str], bool, i64, i64); 6] = [
        (&["1.2.3.0/24"], false, 256, 0),
        (&["1.2.3.0/24", "2.3.4.128/25"], false, 384, 0),
        (&["1.2.3.0/24", "2.3.4.128/25"], true, 381, 0),
        (&["1.2.3.0/24", "2.3.4.128/25", "1000::/64"], true, 381, i64::MAX),
        (&["1.2.3.0/31", "1000::/127"], true, 1, 2),
        (&["1.2.3.4/30", "1000::4/126"], false, 4, 4),
    ];
    for (addresses, avoids, v4, v6) in rows {
        let spec = PoolSpec { avoid_buggy_ips: avoids, ..pool("test", addresses) };
        let expected = PoolCounters { available_v4: v4, available_v6: v6, ..PoolCounters::default() };
        assert_eq!(counters(&allocator(&[spec])), Some(expected), "{addresses:?}");
    }
}

#[test]
fn counters_are_updated_by_every_change() {
    let mut allocator = allocator(&[pool("test", &["1.2.3.0/30"])]);
    let ip = ips(&["1.2.3.1"]);
    for (name, port) in [("s1", 1), ("s2", 2), ("s3", 3)] {
        allocator.assign(&sharing(name, "share", "", port), &ip).unwrap();
        assert_eq!(counters(&allocator).map(|c| (c.assigned_v4, c.available_v4)), Some((1, 3)));
    }
    assert_eq!(counters(&allocator).map(|c| c.services), Some(3));
    for (name, left) in [("s1", 1), ("s2", 1), ("s3", 0)] {
        allocator.release(&key(name));
        assert_eq!(counters(&allocator).map(|c| c.assigned_v4), Some(left), "{name}");
    }
    allocator.assign(&ask("s1"), &ip).unwrap();
    allocator.assign(&ask("s1"), &ip).unwrap();
    assert_eq!(counters(&allocator).map(|c| (c.assigned_v4, c.services)), Some((1, 1)));
    assert_eq!(allocator.set_pools([]), [key("s1")]);
    assert_eq!(counters(&allocator), None);
    assert_eq!(allocator.holding(&key("s1")), None);
}

/// Namespaces and label of the pool, namespace and label of the Service, whether the Service is served.
type PinnedRow = (&'static [&'static str], Option<&'static str>, &'static str, Option<&'static str>, bool);

/// The change, the pools after it, and the resulting pools of the IPv4 and the IPv6 holder.
type ChangeRow = (&'static str, Vec<PoolSpec>, Option<&'static str>, Option<&'static str>);

fn allocator(pools: &[PoolSpec]) -> Allocator {
    let mut allocator = Allocator::new();
    allocator.set_pools(config(pools).pools.values());
    allocator
}

fn counters(allocator: &Allocator) -> Option<PoolCounters> {
    allocator.counters(&"test".into())
}

fn held(allocator: &Allocator, name: &str) -> Vec<String> {
    allocator.holding(&key(name)).unwrap().ips.iter().map(ToString::to_string).collect()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("test", name)
}

fn ask(name: &str) -> Request {
    demanding(name, FamilyDemand::V4)
}

fn demanding(name: &str, demand: FamilyDemand) -> Request {
    Request::new(&pools::service(name, &[]), demand)
}

fn sharing(name: &str, sharing: &str, backend: &str, port: u16) -> Request {
    let key = SharingKey { sharing: sharing.into(), backend: backend.into() };
    let mut request = ask(name);
    change(&mut request, |terms| {
        (terms.key, terms.ports) = (key, vec![ServicePort { protocol: Protocol::Tcp, port }]);
    });
    request
}

fn change(request: &mut Request, change: impl FnOnce(&mut Terms)) {
    let mut terms = Terms::clone(request);
    change(&mut terms);
    *request = terms.into();
}
