//! The allocator against a model of a few obvious lines: random pools, requests, releases, foreign holders, addresses that the API
//! still shows, and restarts. Checked after every step: reliability invariants I1, I2, I3, I4, I5, I8, I13 and I14, and the counters.

use metallb_core::allocator::{AllocateError, Allocation, Allocator, FamilyDemand, Request, SharingKey, Terms};
use metallb_core::config::Config;
use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources, ServiceAllocationSpec};
use metallb_core::model::{Cluster, IpFamily, LabelSelector, Labels, Protocol, ServiceKey, ServicePort};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::support::naive::{self, Ask, Model, NaivePool, Op, Verdict};

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// 400 runs of 150 to 400 steps: above 100,000 steps.
    #[test]
    fn allocator_equals_the_naive_model_after_every_step(sequential 150..400 => AllocatorTest);
}

/// 400 unless `METALLB_MODEL_CASES` says otherwise: fewer for a mutation run, more for a night.
#[allow(clippy::disallowed_methods, reason = "the length of a test run is nobody's configuration")]
fn cases() -> u32 {
    std::env::var("METALLB_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

struct AllocatorTest;

impl StateMachineTest for AllocatorTest {
    type SystemUnderTest = Allocator;
    type Reference = Reference;

    fn init_test(_: &Model) -> Allocator {
        Allocator::new()
    }

    fn apply(mut allocator: Allocator, model: &Model, op: Op) -> Allocator {
        let before: Vec<(ServiceKey, Option<Allocation>)> =
            services().map(|key| (key.clone(), allocator.holding(&key).cloned())).collect();
        let outcome = match &op {
            Op::SetPools(pools) => {
                set_pools(&mut allocator, pools, false);
                // As after every change of pools: who may not keep what it holds gives it back.
                for (service, ask) in &model.asks {
                    if let Some(held) = allocator.holding(&key(*service)).cloned()
                        && allocator.reclaim(&request(ask), &held.ips).is_err()
                    {
                        allocator.release(&key(*service));
                    }
                }
                None
            }
            Op::Allocate(ask) => Some(result(allocator.allocate(&request(ask)))),
            Op::AllocateFrom(ask, pool) => Some(result(allocator.allocate_from(&request(ask), pool))),
            Op::Assign(ask, ips) => Some(result(allocator.assign(&request(ask), ips))),
            Op::AddFamily(ask) => Some(result(allocator.add_family(&request(ask)))),
            Op::Release(service) => {
                allocator.release(&key(*service));
                None
            }
            Op::Block(service, ips) => {
                allocator.block(&ServiceKey::new("foreign", &service.to_string()), ips);
                None
            }
            Op::Stand(service, ips) => {
                assert_eq!(allocator.set_standing(&key(*service), ips), model.freed, "{op:?}");
                None
            }
            Op::Restart { backwards } => {
                let claimed = restarted(&allocator, model, *backwards);
                // I4: whoever held something holds the same, without asking anew.
                for (service, held) in &before {
                    assert_eq!(claimed.holding(service), held.as_ref(), "{service} after a restart");
                }
                allocator = claimed;
                None
            }
        };
        assert_eq!(outcome, model.last, "{op:?}");
        // I3: nobody's address changes unless the step was about it or about the pools.
        if !matches!(op, Op::SetPools(_)) {
            for (service, held) in before {
                if op.asker().map(key).as_ref() != Some(&service) {
                    assert_eq!(allocator.holding(&service), held.as_ref(), "{service} was not asked about");
                }
            }
        }
        allocator
    }

    fn check_invariants(allocator: &Allocator, model: &Model) {
        for (index, service) in services().enumerate() {
            let held = allocator.holding(&service);
            assert_eq!(
                held.map(|held| held.ips.as_slice()),
                model.held.get(&index).map(|(_, ips)| ips.as_slice()),
                "{service}"
            );
            let Some(held) = held else { continue };
            // I2 and I5: in exactly one live pool, which is the one it says, and none that the pool avoids.
            assert_eq!(allocator.pool_of(&held.ips).map(|pool| &pool.name), Some(&held.pool));
            // I14: one address, or one of each family.
            assert!(held.ips.len() == 1 || (held.ips.len() == 2 && held.ips[0].is_ipv4() != held.ips[1].is_ipv4()));
            // I1: whoever else holds the address has the same key and other ports.
            for &ip in &held.ips {
                assert!(allocator.holders_of(ip).any(|holder| *holder == service));
                for other in allocator.holders_of(ip).filter(|&other| *other != service) {
                    let other = allocator.holding(other).unwrap();
                    assert!(held.request.key.admits(&other.request.key));
                    assert!(
                        !held.request.ports.iter().any(|port| other.request.ports.contains(port)),
                        "port twice on {ip}"
                    );
                }
            }
        }
        for pool in &model.pools {
            let counters = allocator.counters(&pool.name.as_str().into()).unwrap();
            let (assigned, free) = (model.assigned(pool), model.usable(pool));
            assert_eq!((counters.assigned_v4, counters.assigned_v6), assigned);
            assert_eq!((counters.available_v4, counters.available_v6), (free.0 - assigned.0, free.1 - assigned.1));
        }
    }
}

/// What a new process does: pools, then foreign holders and what the API shows, then everybody claims, in any order.
fn restarted(allocator: &Allocator, model: &Model, backwards: bool) -> Allocator {
    let mut fresh = Allocator::new();
    // I13: the order of objects makes no difference.
    set_pools(&mut fresh, &model.pools, backwards);
    for (service, ips) in &model.foreign {
        fresh.block(&ServiceKey::new("foreign", &service.to_string()), ips);
    }
    for (service, ips) in &model.standing {
        fresh.set_standing(&key(*service), ips);
    }
    let mut holders: Vec<_> = model.held.iter().collect();
    if backwards {
        holders.reverse();
    }
    for (index, (ask, ips)) in holders {
        let held = fresh.reclaim(&request(ask), ips).unwrap_or_else(|error| panic!("{index}: {error}"));
        assert_eq!(Some(held), allocator.holding(&key(*index)));
    }
    fresh
}

struct Reference;

impl ReferenceStateMachine for Reference {
    type State = Model;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::default()).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Op> {
        if model.pools.is_empty() {
            return pools().prop_map(Op::SetPools).boxed();
        }
        let names: Vec<String> =
            model.pools.iter().map(|pool| pool.name.clone()).chain(["nowhere".to_owned()]).collect();
        let held: Vec<_> = model.held.values().flat_map(|(_, ips)| ips.clone()).collect();
        let wanted = naive::some_addresses().chain(held).collect::<Vec<_>>();
        let ips = prop::collection::vec(select(wanted), 1..3);
        let shown = model.held.clone();
        prop_oneof![
            12 => ask().prop_map(Op::Allocate),
            4 => (ask(), select(names)).prop_map(|(ask, pool)| Op::AllocateFrom(ask, pool)),
            6 => (ask(), ips.clone()).prop_map(|(ask, ips)| Op::Assign(ask, ips)),
            3 => ask().prop_map(Op::AddFamily),
            6 => (0..naive::SERVICES).prop_map(Op::Release),
            2 => (0..2_usize, prop::collection::vec(select(naive::some_addresses().collect::<Vec<_>>()), 0..3))
                .prop_map(|(service, ips)| Op::Block(service, ips)),
            2 => (0..naive::SERVICES, prop::collection::vec(select(naive::some_addresses().collect::<Vec<_>>()), 0..3))
                .prop_map(|(service, ips)| Op::Stand(service, ips)),
            3 => (0..naive::SERVICES).prop_map(move |service| {
                Op::Stand(service, shown.get(&service).map(|(_, ips)| ips.clone()).unwrap_or_default())
            }),
            2 => any::<bool>().prop_map(|backwards| Op::Restart { backwards }),
            1 => pools().prop_map(Op::SetPools),
        ]
        .boxed()
    }

    fn apply(mut model: Model, op: &Op) -> Model {
        model.step(op);
        model
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let ports = subsequence(vec![0_u8, 1, 2], 1..3);
    let demand = select(vec![
        FamilyDemand::V4,
        FamilyDemand::V4,
        FamilyDemand::V6,
        FamilyDemand::Both,
        FamilyDemand::PreferBoth { first: IpFamily::V4 },
        FamilyDemand::PreferBoth { first: IpFamily::V6 },
    ]);
    let sharing = select(vec!["", "", "x", "y"]);
    let backend = select(vec!["", "", "app=1"]);
    (0..naive::SERVICES, any::<bool>(), sharing, backend, ports, demand).prop_map(
        |(service, red, sharing, backend, ports, demand)| Ask { service, red, sharing, backend, ports, demand },
    )
}

/// Up to four pools out of disjoint blocks, in any order and with any rules.
fn pools() -> impl Strategy<Value = Vec<NaivePool>> {
    let blocks = naive::BLOCKS.len();
    let owners = prop::collection::vec(0..5_usize, blocks);
    let shuffled = Just((0..blocks).collect::<Vec<_>>()).prop_shuffle();
    let rules =
        (prop::bool::weighted(0.8), any::<bool>(), prop::option::weighted(0.5, (0..3_i64, 0..3_u8, any::<bool>())));
    (owners, shuffled, prop::collection::vec(rules, 4)).prop_map(|(owners, shuffled, rules)| {
        let pool = |(index, (auto_assign, avoid, pinned)): (usize, Rules)| NaivePool {
            name: format!("p{}", (index * 7 + 3) % 4),
            blocks: shuffled.iter().copied().filter(|&block| owners[block] == index).collect(),
            auto_assign,
            avoid,
            pinned,
        };
        rules.into_iter().enumerate().map(pool).filter(|pool| !pool.blocks.is_empty()).collect()
    })
}

/// `autoAssign`, `avoidBuggyIPs`, and [`NaivePool::pinned`].
type Rules = (bool, bool, Option<(i64, u8, bool)>);

fn set_pools(allocator: &mut Allocator, pools: &[NaivePool], backwards: bool) {
    let mut specs: Vec<PoolSpec> = pools.iter().map(spec).collect();
    if backwards {
        specs.reverse();
    }
    let parsed = Config::parse(&Resources { pools: specs, ..Resources::default() }, &Cluster::default());
    assert_eq!(parsed.problems, []);
    allocator.set_pools(parsed.config.pools.values());
}

fn spec(pool: &NaivePool) -> PoolSpec {
    let allocation = pool.pinned.map(|(priority, namespaces, red)| ServiceAllocationSpec {
        priority,
        namespaces: (0..2_u8).filter(|bit| namespaces & (1 << bit) != 0).map(|bit| format!("ns{bit}")).collect(),
        service_selectors: red
            .then(|| LabelSelector { match_labels: labels(true), ..LabelSelector::default() })
            .into_iter()
            .collect(),
        ..ServiceAllocationSpec::default()
    });
    PoolSpec {
        meta: ObjectMeta { name: pool.name.clone(), ..ObjectMeta::default() },
        addresses: pool
            .blocks
            .iter()
            .map(|&block| format!("{}-{}", naive::BLOCKS[block].0, naive::BLOCKS[block].1))
            .collect(),
        auto_assign: pool.auto_assign,
        avoid_buggy_ips: pool.avoid,
        service_allocation: allocation,
    }
}

fn request(ask: &Ask) -> Request {
    let port = |&port: &u8| match port {
        0 => ServicePort { protocol: Protocol::Tcp, port: 80 },
        1 => ServicePort { protocol: Protocol::Tcp, port: 443 },
        _ => ServicePort { protocol: Protocol::Udp, port: 80 },
    };
    Request::from(Terms {
        service: key(ask.service),
        labels: labels(ask.red),
        ports: ask.ports.iter().map(port).collect(),
        key: SharingKey { sharing: ask.sharing.into(), backend: ask.backend.into() },
        demand: ask.demand,
    })
}

fn labels(red: bool) -> Labels {
    red.then(|| ("team".to_owned(), "red".to_owned())).into_iter().collect()
}

fn key(service: usize) -> ServiceKey {
    ServiceKey::new(&format!("ns{}", service % 2), &format!("s{service}"))
}

fn services() -> impl Iterator<Item = ServiceKey> {
    (0..naive::SERVICES).map(key)
}

fn result(outcome: Result<&Allocation, AllocateError>) -> Verdict {
    match outcome {
        Ok(held) => Ok((held.pool.to_string(), held.ips.to_vec())),
        Err(error) => Err(match error {
            AllocateError::Exhausted { .. } | AllocateError::PoolExhausted { .. } => "exhausted",
            AllocateError::UnknownPool { .. } => "unknown pool",
            AllocateError::NotAllowed { .. } => "not allowed",
            AllocateError::NotCompatible { .. } => "not compatible",
            AllocateError::InUse { .. } => "in use",
            AllocateError::PortInUse { .. } => "port in use",
            AllocateError::Blocked { .. } => "blocked",
            AllocateError::Releasing { .. } => "releasing",
            AllocateError::BadSet(_) => "bad set",
            _ => "a refusal that the model does not know",
        }),
    }
}
