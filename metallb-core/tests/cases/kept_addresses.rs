//! Editing mistakes, pools that are deleted and created again, and restarts beside them: no Service gets another address.

use std::time::{Duration, Instant};

use crate::support::pools::{ips, manual, pinned, pool, service};
use crate::support::scene::{Scene, annotated, holding, with_policy};
use metallb_core::assignment::{AssignReason, AssignmentState, Outcome, UnknownPools};
use metallb_core::config::spec::{PoolSpec, Resources, ServiceAllocationSpec, Spec as _, Unreadable};
use metallb_core::config::{ALLOW_NODE_ADDRESSES, Config, ConfigReason, ConfigStore};
use metallb_core::model::IpFamilyPolicy::{PreferDualStack as Prefer, RequireDualStack as Require, SingleStack};
use metallb_core::model::{Cluster, LabelSelector, Node, ObjectRef, Requirement, Service, ServiceType, Timestamp};

const V4: &[&str] = &["10.96.0.1"];
const V6: &[&str] = &["fd00:96::1"];
const DUAL: &[&str] = &["10.96.0.1", "fd00:96::1"];

const GRACE: Duration = Duration::from_secs(30);

fn resources(pools: &[PoolSpec]) -> Resources {
    Resources { pools: pools.to_vec(), ..Resources::default() }
}

fn parse(resources: &Resources) -> Config {
    Config::parse(resources, &Cluster::default()).config
}

fn with_unreadable_pool(mut resources: Resources, name: &str) -> Resources {
    let error = Some("invalid type: string, expected a sequence".to_owned());
    resources.unreadable.insert(ObjectRef::new(PoolSpec::KIND, "", name), Unreadable { uid: None, error });
    resources
}

/// A holder of 10.0.0.3 from the pool a.
fn holder(name: &str) -> Service {
    annotated(holding(service(name, V4), &["10.0.0.3"]), "ip-allocated-from-pool", "a")
}

fn reasons(outcome: &Outcome) -> Vec<&'static str> {
    outcome.events.iter().map(|event| event.reason).collect()
}

/// Every way to spoil the pool a; b stays as it is.
fn spoiled() -> Vec<(&'static str, Resources)> {
    let (old, b) = (Some(Timestamp::from_unix(1)), pool("b", &["10.0.1.0/28"]));
    let with = |a: PoolSpec| resources(&[a, b.clone()]);
    let selector = LabelSelector {
        match_expressions: vec![Requirement { key: "team".into(), operator: "surrounds".into(), values: vec![] }],
        ..LabelSelector::default()
    };
    let allocation = |allocation| PoolSpec { service_allocation: Some(allocation), ..pool("a", &["10.0.0.0/28"]) };
    let mut older = pool("older", &["10.0.0.8/29"]);
    older.meta.created = old;
    vec![
        ("length", with(pool("a", &["10.0.0.0/33"]))),
        ("blank", with(pool("a", &["10.0.0.0/28 "]))),
        ("no length", with(pool("a", &["10.0.0.0"]))),
        ("empty entry", with(pool("a", &[""]))),
        ("no entry", with(pool("a", &[]))),
        ("reversed range", with(pool("a", &["10.0.0.15-10.0.0.0"]))),
        ("mixed range", with(pool("a", &["10.0.0.0-fd00::1"]))),
        ("second entry", with(pool("a", &["10.0.0.0/28", "10.0.2.0/x"]))),
        ("entries that overlap", with(pool("a", &["10.0.0.0/28", "10.0.0.0/30"]))),
        (
            "selector",
            with(allocation(ServiceAllocationSpec {
                service_selectors: vec![selector.clone()],
                ..ServiceAllocationSpec::default()
            })),
        ),
        (
            "namespace selector",
            with(allocation(ServiceAllocationSpec {
                namespace_selectors: vec![selector],
                ..ServiceAllocationSpec::default()
            })),
        ),
        (
            "namespace twice",
            with(allocation(ServiceAllocationSpec {
                namespaces: vec!["test".into(), "test".into()],
                ..ServiceAllocationSpec::default()
            })),
        ),
        ("overlap with an older pool", resources(&[pool("a", &["10.0.0.0/28"]), older, b.clone()])),
        ("unreadable", with_unreadable_pool(resources(std::slice::from_ref(&b)), "a")),
    ]
}

#[test]
fn holder_beside_an_invalid_pool_keeps_its_address_after_a_restart() {
    for (case, resources) in spoiled() {
        for (row, held) in [
            ("recorded", holder("s")),
            ("asks for the pool", annotated(holder("s"), "address-pool", "a")),
            ("asks for the address", Service { load_balancer_ip: Some("10.0.0.3".into()), ..holder("s") }),
            ("has an invalid request", Service { load_balancer_ip: Some("nope".into()), ..holder("s") }),
        ] {
            let case = format!("{case}, {row}");
            let mut scene = Scene::new(&[]);
            scene.assigner.set_config(&parse(&resources));
            scene.services.insert(held.key.clone(), held.clone());
            scene.assigner.claim(&held);
            let outcome = scene.put(held.clone());
            assert_eq!(
                (outcome.state, outcome.reason),
                (AssignmentState::Assigned, AssignReason::KeptPoolInvalid),
                "{case}"
            );
            assert_eq!((&outcome.write, &outcome.ips), (&None, &ips(&["10.0.0.3"])), "{case}");
            let thief = Service { load_balancer_ip: Some("10.0.0.3".into()), ..service("thief", V4) };
            assert_eq!(scene.put(thief).reason, AssignReason::HeldByOtherClass, "{case}");
            assert_eq!(scene.put(service("other", V4)).state, AssignmentState::Assigned, "{case}");
            assert_ne!(scene.status("other"), ["10.0.0.3"], "{case}");
            scene.set_pools(&[pool("a", &["10.0.0.0/28"]), pool("b", &["10.0.1.0/28"])]);
            assert_eq!(scene.status("s"), ["10.0.0.3"], "{case}");
            assert_eq!(scene.writes, 1, "{case}: only `other` was written");
        }
    }
}

#[test]
fn holder_without_a_record_keeps_its_address_if_the_invalid_pool_may_contain_it() {
    let held = || holding(service("s", V4), &["10.0.0.3"]);
    let b = pool("b", &["10.0.1.0/28"]);
    let rows = [
        ("its block can be parsed", resources(&[pool("a", &["10.0.0.0/28", "x"]), b.clone()]), true),
        ("no block can be parsed", resources(&[pool("a", &["10.0.0.0/28 "]), b.clone()]), true),
        ("the pool cannot be read", with_unreadable_pool(resources(std::slice::from_ref(&b)), "a"), true),
        ("its blocks are elsewhere", resources(&[pool("a", &["10.9.0.0/28", "x"]), b.clone()]), false),
        ("there is no invalid pool", resources(&[b]), false),
    ];
    for (case, resources, keeps) in rows {
        let mut scene = Scene::new(&[]);
        scene.assigner.set_config(&parse(&resources));
        scene.put(held());
        assert_eq!(scene.status("s"), [if keeps { "10.0.0.3" } else { "10.0.1.0" }], "{case}");
    }
}

#[test]
fn holder_of_an_invalid_pool_moves_only_if_its_own_specification_says_so() {
    let invalid = resources(&[pool("a", &["10.0.0.0/33"]), pool("b", &["10.0.1.0/28"])]);
    let rows: [(&str, Service, &[&str]); 4] = [
        ("another pool", annotated(holder("s"), "address-pool", "b"), &["10.0.1.0"]),
        ("another address", Service { load_balancer_ip: Some("10.0.1.7".into()), ..holder("s") }, &["10.0.1.7"]),
        ("another type", Service { service_type: ServiceType::Other, ..holder("s") }, &[]),
        ("the record of a valid pool", annotated(holder("s"), "ip-allocated-from-pool", "b"), &["10.0.1.0"]),
    ];
    for (case, service, expected) in rows {
        let mut scene = Scene::new(&[]);
        scene.assigner.set_config(&parse(&invalid));
        scene.put(service);
        assert_eq!(scene.status("s"), expected, "{case}");
    }
}

/// A store with a grace time, the controller that it feeds, and a clock.
struct Life {
    store: ConfigStore,
    scene: Scene,
    now: Instant,
}

impl Life {
    fn new(pools: &[PoolSpec], services: impl IntoIterator<Item = Service>) -> Self {
        let mut life =
            Self { store: ConfigStore::new().with_grace(GRACE), scene: Scene::new(&[]), now: Instant::now() };
        life.update(pools);
        for service in services {
            life.scene.put(service);
        }
        life
    }

    fn update(&mut self, pools: &[PoolSpec]) -> Config {
        let parsed = self.store.update_at(&resources(pools), &Cluster::default(), self.now);
        self.scene.assigner.set_config(&parsed.config);
        let services: Vec<Service> = self.scene.services.values().cloned().collect();
        services.iter().for_each(|service| self.scene.assigner.claim(service));
        for service in services {
            self.scene.put(service);
        }
        parsed.config
    }

    fn statuses(&self) -> Vec<String> {
        let names = self.scene.services.keys().map(|key| key.name.to_string());
        names.flat_map(|name| self.scene.status(&name)).collect()
    }
}

#[test]
fn pool_that_returns_within_the_grace_time_renumbers_no_service() {
    let (a, b) = (pool("a", &["10.0.0.0/28"]), pool("b", &["10.0.1.0/28"]));
    let again = |addresses: &[&str]| {
        let mut again = pool("a", addresses);
        again.meta.uid = Some("another".into());
        again
    };
    let renamed = pool("renamed", &["10.0.0.0/28"]);
    let halves = [pool("a1", &["10.0.0.0/29"]), pool("a2", &["10.0.0.8/29"])];
    let returns: Vec<(&str, Vec<Vec<PoolSpec>>)> = vec![
        ("the only pool", vec![vec![again(&["10.0.0.0/28"])]]),
        ("beside another", vec![vec![b.clone()], vec![again(&["10.0.0.0/28"]), b.clone()]]),
        ("larger", vec![vec![again(&["10.0.0.0/24"])]]),
        ("with a mistake", vec![vec![again(&["10.0.0.0/33"])], vec![again(&["10.0.0.0/28"])]]),
        ("twice", vec![vec![again(&["10.0.0.0/28"])], vec![], vec![again(&["10.0.0.0/28"])]]),
        ("under another name", vec![vec![renamed]]),
        ("in halves, one after the other", vec![halves[..1].to_vec(), halves.to_vec()]),
        ("in halves, the second one first", vec![halves[1..].to_vec(), halves.to_vec()]),
    ];
    for (case, steps) in returns {
        // They were created in another order than that of their names and addresses.
        let services = (0..10).map(|index| Service {
            created: Some(Timestamp::from_unix(index)),
            ..service(&format!("s{}", (index * 7) % 10), V4)
        });
        let mut life = Life::new(std::slice::from_ref(&a), services);
        life.scene.delete("s0");
        let (before, writes) = (life.statuses(), life.scene.writes);
        let config = life.update(&[]);
        assert_eq!(config.departed.len(), 1, "{case}");
        assert_eq!(life.scene.put(service("late", V4)).state, AssignmentState::Pending, "{case}: nothing is allocated");
        life.scene.delete("late");
        for (index, pools) in steps.iter().enumerate() {
            life.now += Duration::from_secs(5);
            life.update(pools);
            assert_eq!(life.statuses(), before, "{case}, step {index}");
        }
        life.now += GRACE;
        life.update(steps.last().unwrap());
        assert_eq!(life.statuses(), before, "{case}, after the grace time");
        let renamed = case.contains("name") || case.contains("halves");
        assert_eq!(life.scene.writes == writes, !renamed, "{case}: only the record of the pool may change");
    }
}

#[test]
fn service_loses_its_address_with_an_event_when_the_grace_time_ends() {
    let (a, b) = (pool("a", &["10.0.0.0/28"]), pool("b", &["10.0.1.0/28"]));
    for (case, rest, expected) in [("no pool", vec![], vec![]), ("another pool", vec![b], vec!["10.0.1.0"])] {
        let mut life = Life::new(std::slice::from_ref(&a), [service("s", V4)]);
        life.update(&rest);
        assert_eq!(life.store.next_deadline(), Some(life.now + GRACE), "{case}");
        life.now += GRACE.checked_sub(Duration::from_millis(1)).unwrap();
        life.update(&rest);
        assert_eq!(life.statuses(), ["10.0.0.0"], "{case}");
        life.now += Duration::from_millis(1);
        let parsed = life.store.update_at(&resources(&rest), &Cluster::default(), life.now);
        life.scene.assigner.set_config(&parsed.config);
        let outcome = life.scene.put(life.scene.services.values().next().unwrap().clone());
        assert!(reasons(&outcome).contains(&"ClearAssignment"), "{case}: {outcome:?}");
        assert_eq!(life.statuses(), expected, "{case}");
        assert_eq!(life.store.next_deadline(), None, "{case}");
    }
}

#[test]
fn restart_while_the_pool_is_away_begins_the_grace_time_anew() {
    let rows = [
        ("the pool exists and shrank", holder("s"), vec![pool("a", &["10.0.0.8/29"])], "10.0.0.8"),
        ("the pool is away", holder("s"), vec![pool("b", &["10.0.1.0/28"])], "10.0.0.3"),
        ("no pool at all", holder("s"), vec![], "10.0.0.3"),
        ("no record", holding(service("s", V4), &["10.0.0.3"]), vec![pool("b", &["10.0.1.0/28"])], "10.0.1.0"),
    ];
    for (case, held, pools, expected) in rows {
        let mut scene = Scene::new(&[]);
        assert!(scene.assigner.set_unknown_pools(UnknownPools::Keep));
        scene.assigner.set_config(&parse(&resources(&pools)));
        scene.put(held);
        assert_eq!(scene.status("s"), [expected], "{case}");
        assert!(scene.assigner.set_unknown_pools(UnknownPools::Release));
        let outcome = scene.put(scene.services.values().next().unwrap().clone());
        let is_lost = !matches!(expected, "10.0.0.8" | "10.0.1.0");
        assert_eq!(reasons(&outcome).contains(&"ClearAssignment"), is_lost, "{case}");
    }
}

#[test]
fn change_of_families_keeps_the_address_that_still_fits() {
    let both = || pool("a", &["10.0.0.0/28", "fd00:1::/124"]);
    let held = |cluster_ips, policy, ips: &[&str]| {
        let held = holding(with_policy(service("s", cluster_ips), policy), ips);
        annotated(held, "ip-allocated-from-pool", "a")
    };
    let v4_first = vec![pool("a", &["10.0.0.0/28"]), pool("b", &["10.0.1.0/28", "fd00:2::/124"])];
    let rows: Vec<(&str, Vec<PoolSpec>, Service, &[&str], &[&str])> = vec![
        ("IPv6 added", vec![both()], held(DUAL, Require, &["10.0.0.9"]), &["10.0.0.9", "fd00:1::"], &["IPAllocated"]),
        ("IPv4 added", vec![both()], held(DUAL, Require, &["fd00:1::7"]), &["fd00:1::7", "10.0.0.0"], &["IPAllocated"]),
        (
            "IPv6 preferred",
            vec![both()],
            held(DUAL, Prefer, &["10.0.0.9"]),
            &["10.0.0.9", "fd00:1::"],
            &["IPAllocated"],
        ),
        (
            "IPv6 removed",
            vec![both()],
            held(V4, SingleStack, &["10.0.0.5", "fd00:1::5"]),
            &["10.0.0.5"],
            &["ClearAssignment"],
        ),
        (
            "IPv4 removed",
            vec![both()],
            held(V6, SingleStack, &["10.0.0.5", "fd00:1::5"]),
            &["fd00:1::5"],
            &["ClearAssignment"],
        ),
        (
            "two IPv4 addresses",
            vec![both()],
            held(V4, SingleStack, &["10.0.0.3", "10.0.0.4"]),
            &["10.0.0.3"],
            &["nolbIPsIPFamily", "ClearAssignment"],
        ),
        (
            "two IPv4 addresses, the first one in no pool",
            vec![both()],
            held(V4, SingleStack, &["10.9.0.3", "10.0.0.4"]),
            &["10.0.0.4"],
            &["nolbIPsIPFamily", "ClearAssignment"],
        ),
        (
            "three addresses",
            vec![both()],
            held(DUAL, Prefer, &["10.0.0.3", "10.0.0.4", "fd00:1::5"]),
            &["10.0.0.3", "fd00:1::5"],
            &["nolbIPsIPFamily", "ClearAssignment"],
        ),
        (
            "one address of the pair in no pool",
            vec![both()],
            held(DUAL, Require, &["10.0.0.3", "fd00:9::5"]),
            &["10.0.0.3", "fd00:1::"],
            &["IPAllocated", "ClearAssignment"],
        ),
        (
            "IPv6 removed, from a pool that is not assigned automatically",
            vec![manual(both()), pool("b", &["10.0.1.0/28"])],
            held(V4, SingleStack, &["10.0.0.5", "fd00:1::5"]),
            &["10.0.1.0"],
            &["ClearAssignment", "IPAllocated"],
        ),
        (
            "IPv6 removed, from such a pool that it asks for",
            vec![manual(both()), pool("b", &["10.0.1.0/28"])],
            annotated(held(V4, SingleStack, &["10.0.0.5", "fd00:1::5"]), "address-pool", "a"),
            &["10.0.0.5"],
            &["ClearAssignment"],
        ),
        (
            "IPv6 added, the pool has none",
            v4_first,
            held(DUAL, Require, &["10.0.0.9"]),
            &["10.0.1.0", "fd00:2::"],
            &["ClearAssignment", "IPAllocated"],
        ),
        (
            "other family",
            vec![both()],
            held(V6, SingleStack, &["10.0.0.5"]),
            &["fd00:1::"],
            &["ClearAssignment", "IPAllocated"],
        ),
        (
            "RequireDualStack without a family",
            vec![both()],
            held(V4, Require, &["10.0.0.5"]),
            &[],
            &["ClearAssignment", "not enough clusterips"],
        ),
    ];
    for (case, pools, service, expected, events) in rows {
        let mut scene = Scene::new(&pools);
        scene.assigner.claim(&service);
        let outcome = scene.put(service);
        assert_eq!(scene.status("s"), expected, "{case}: {outcome:?}");
        assert_eq!(reasons(&outcome), events, "{case}: {outcome:?}");
    }
}

#[test]
fn part_that_fits_is_claimed_before_others_are_served() {
    let dual =
        annotated(holding(with_policy(service("z", DUAL), Require), &["10.0.0.0"]), "ip-allocated-from-pool", "a");
    let mut scene = Scene::new(&[pool("a", &["10.0.0.0/31", "fd00:1::/124"])]);
    scene.services.insert(dual.key.clone(), dual);
    scene.services.insert(service("a", V4).key, service("a", V4));
    scene.restart(&[pool("a", &["10.0.0.0/31", "fd00:1::/124"])]);
    assert_eq!(
        (scene.status("z"), scene.status("a")),
        (vec!["10.0.0.0".into(), "fd00:1::".into()], vec!["10.0.0.1".into()])
    );
}

/// Nodes with addresses in the pool `lan`.
fn nodes() -> Cluster {
    let mut cluster = Cluster::default();
    for (name, internal, external) in [("n1", "10.0.0.100", None), ("n2", "192.0.2.2", Some("10.0.0.102"))] {
        let mut node = Node::new(name);
        node.addresses.insert(internal.parse().unwrap());
        node.external_addresses.extend(external.map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
        cluster.nodes.insert(name.into(), node);
    }
    cluster
}

#[test]
fn address_of_a_node_is_not_handed_out_unless_the_pool_allows_it() {
    let lan = || pool("lan", &["10.0.0.100-10.0.0.102"]);
    let allowing = |value: &str| {
        let mut lan = lan();
        lan.meta.annotations.insert(ALLOW_NODE_ADDRESSES.to_owned(), value.to_owned());
        lan
    };
    let wish = |ip: &str| Service { load_balancer_ip: Some(ip.to_owned()), ..service("s", V4) };
    let pinned_lan = pinned(lan(), 1, &["test"], None);
    let rows = [
        ("automatic", lan(), service("s", V4), Some("10.0.0.101"), AssignReason::Assigned),
        ("from a pinned pool", pinned_lan, service("s", V4), Some("10.0.0.101"), AssignReason::Assigned),
        (
            "from the pool",
            lan(),
            annotated(service("s", V4), "address-pool", "lan"),
            Some("10.0.0.101"),
            AssignReason::Assigned,
        ),
        ("InternalIP requested", lan(), wish("10.0.0.100"), None, AssignReason::NodeAddress),
        ("ExternalIP requested", lan(), wish("10.0.0.102"), None, AssignReason::NodeAddress),
        ("allowed", allowing("true"), service("s", V4), Some("10.0.0.100"), AssignReason::Assigned),
        ("allowed and requested", allowing("true"), wish("10.0.0.102"), Some("10.0.0.102"), AssignReason::Assigned),
        ("not allowed", allowing("false"), service("s", V4), Some("10.0.0.101"), AssignReason::Assigned),
        ("held", lan(), holding(service("s", V4), &["10.0.0.100"]), Some("10.0.0.100"), AssignReason::KeptNodeAddress),
    ];
    for (case, pool, service, expected, reason) in rows {
        let parsed = Config::parse(&resources(std::slice::from_ref(&pool)), &nodes());
        let codes: Vec<ConfigReason> = parsed.problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [ConfigReason::NodeAddressInPool], "{case}");
        let text = &parsed.problems[0].message;
        assert!(text.contains("10.0.0.100 (n1), 10.0.0.102 (n2)"), "{case}: {text}");
        let mut scene = Scene::new(&[]);
        scene.assigner.set_config(&parsed.config);
        let outcome = scene.put(service);
        assert_eq!(scene.status("s"), expected.into_iter().collect::<Vec<_>>(), "{case}: {outcome:?}");
        assert_eq!(outcome.reason, reason, "{case}: {outcome:?}");
        if reason == AssignReason::KeptNodeAddress {
            // The warning is not repeated while nothing changes.
            assert_eq!(reasons(&outcome), ["nodeAddress"]);
            let again = scene.put(scene.services.values().next().unwrap().clone());
            assert_eq!((reasons(&again), again.reason), (vec![], reason));
        }
        if reason == AssignReason::NodeAddress {
            assert!(outcome.message.contains("node n"), "{case}: {}", outcome.message);
        }
    }
}

#[test]
fn address_is_free_again_when_its_node_is_gone() {
    let lan = [pool("lan", &["10.0.0.100/32"])];
    let mut scene = Scene::new(&[]);
    scene.assigner.set_config(&Config::parse(&resources(&lan), &nodes()).config);
    assert_eq!(scene.put(service("s", V4)).reason, AssignReason::NoAvailableIps);
    scene.set_pools(&lan);
    assert_eq!(scene.status("s"), ["10.0.0.100"]);
}
