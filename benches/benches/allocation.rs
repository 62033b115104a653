//! Allocation beside the upstream-shaped algorithm, scaled down where that one would take minutes.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group};
use metallb_benches::cpu_time::{self, CpuTime};
use metallb_benches::linear_allocator::LinearAllocator;
use metallb_benches::report::{self, Row};
use metallb_core::allocator::{Allocator, FamilyDemand, Request};
use metallb_core::config::Config;
use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources};
use metallb_core::model::{Cluster, Protocol, Service, ServiceKey, ServicePort};

/// How many addresses the linear algorithm fills: its time grows with the square.
const LINEAR_FILL: usize = 2_048;

/// The variable that asks for the last address of a /8, too, whose 16.7 million holders take gigabytes.
const WHOLE_8: &str = "METALLB_BENCH_WHOLE_8";

fn fill(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("fill");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    let requests = requests(65_536, FamilyDemand::V4);
    for count in [65_536, LINEAR_FILL] {
        group.bench_function(format!("ours, {count} addresses of a /16"), |b| {
            b.iter_batched(
                || allocator(&["10.0.0.0/16"]),
                |mut allocator| {
                    for request in &requests[..count] {
                        allocator.allocate(request).unwrap();
                    }
                    allocator
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.bench_function(format!("linear, {LINEAR_FILL} addresses of a /16"), |b| {
        b.iter_batched(
            || linear(&["10.0.0.0/16"]),
            |mut allocator| {
                for request in &requests[..LINEAR_FILL] {
                    allocator.allocate(&request.service.to_string()).unwrap();
                }
                allocator
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn next(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("next");
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    let many = requests(250_000, FamilyDemand::V4);
    let asker = request("asker", FamilyDemand::V4);

    let mut allocator_16 = allocator(&["10.0.0.0/16"]);
    for request in &many[..65_535] {
        allocator_16.allocate(request).unwrap();
    }
    group.bench_function("ours, last of a /16", |b| b.iter(|| take_and_return(&mut allocator_16, &asker)));

    // Every second address is taken: as fragmented as free space can be.
    let mut allocator_8 = allocator(&["10.0.0.0/8"]);
    for (request, bits) in many.iter().zip((0x0a00_0000_u32..).step_by(2)) {
        allocator_8.assign(request, &[IpAddr::V4(bits.into())]).unwrap();
    }
    group.bench_function("ours, next of a /8 with 250000 taken", |b| {
        b.iter(|| take_and_return(&mut allocator_8, &asker));
    });

    if std::env::var_os(WHOLE_8).is_some() {
        let mut allocator_8 = allocator(&["10.0.0.0/8"]);
        for index in 1..1 << 24 {
            allocator_8.allocate(&request(&format!("service-{index}"), FamilyDemand::V4)).unwrap();
        }
        group.bench_function("ours, last of a /8", |b| b.iter(|| take_and_return(&mut allocator_8, &asker)));
    }

    let mut allocator_64 = allocator(&["fd00::/64"]);
    let asker_v6 = request("asker", FamilyDemand::V6);
    for request in requests(50_000, FamilyDemand::V6) {
        allocator_64.allocate(&request).unwrap();
    }
    group.bench_function("ours, next of a /64 with 50000 taken", |b| {
        b.iter(|| take_and_return(&mut allocator_64, &asker_v6));
    });

    for (name, prefix, taken) in
        [("last of a /16", "10.0.0.0/16", 65_535), ("next of a /64 with 50000 taken", "fd00::/64", 50_000)]
    {
        let mut linear = linear(&[prefix]);
        let first: IpAddr = prefix.parse::<ipnet::IpNet>().unwrap().network();
        for (request, offset) in many[..taken].iter().zip(0_u32..) {
            let ip = match first {
                IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + offset).into()),
                IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + u128::from(offset)).into()),
            };
            linear.assign(&request.service.to_string(), ip).unwrap();
        }
        group.sample_size(10);
        group.bench_function(format!("linear, {name}"), |b| {
            b.iter(|| {
                let ip = linear.allocate("default/asker").unwrap();
                linear.release("default/asker");
                ip
            });
        });
    }
    group.finish();
}

fn refusal(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("refusal");
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    let prefixes: Vec<String> = (0..100).map(|index| format!("10.0.{index}.0/28")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let mut ours = allocator(&prefixes);
    let mut linear = linear(&prefixes);
    for request in requests(1_600, FamilyDemand::V4) {
        ours.allocate(&request).unwrap();
        linear.allocate(&request.service.to_string()).unwrap();
    }
    let asker = request("asker", FamilyDemand::V4);
    group.bench_function("ours, 100 full pools of 16", |b| b.iter(|| black_box(ours.allocate(&asker).unwrap_err())));
    group.bench_function("linear, 100 full pools of 16", |b| {
        b.iter(|| black_box(linear.allocate("default/asker").unwrap_err()));
    });
    group.finish();
}

fn restart(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("restart");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    let holders: Vec<(Request, IpAddr)> = requests(50_000, FamilyDemand::V4)
        .into_iter()
        .zip((0x0a00_0000_u32..).map(|bits| IpAddr::V4(bits.into())))
        .collect();
    group.bench_function("ours, 50000 Services claim", |b| {
        b.iter_batched(
            || allocator(&["10.0.0.0/16"]),
            |mut allocator| {
                for (request, ip) in &holders {
                    allocator.reclaim(request, &[*ip]).unwrap();
                }
                allocator
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("linear, 50000 Services claim", |b| {
        b.iter_batched(
            || linear(&["10.0.0.0/16"]),
            |mut allocator| {
                for (request, ip) in &holders {
                    allocator.assign(&request.service.to_string(), *ip).unwrap();
                }
                allocator
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn take_and_return(allocator: &mut Allocator, asker: &Request) {
    black_box(allocator.allocate(asker).unwrap());
    black_box(allocator.release(&asker.service));
}

fn allocator(prefixes: &[&str]) -> Allocator {
    let pools = prefixes.iter().enumerate().map(|(index, prefix)| PoolSpec {
        meta: ObjectMeta { name: format!("pool-{index:03}"), ..ObjectMeta::default() },
        addresses: vec![(*prefix).to_owned()],
        auto_assign: true,
        avoid_buggy_ips: false,
        service_allocation: None,
    });
    let resources = Resources { pools: pools.collect(), ..Resources::default() };
    let mut allocator = Allocator::new();
    allocator.set_pools(Config::parse(&resources, &Cluster::default()).config.pools.values());
    allocator
}

fn linear(prefixes: &[&str]) -> LinearAllocator {
    let pools =
        prefixes.iter().enumerate().map(|(index, prefix)| (format!("pool-{index:03}"), prefix.parse().unwrap()));
    LinearAllocator::new(&pools.collect::<Vec<_>>())
}

fn requests(count: usize, demand: FamilyDemand) -> Vec<Request> {
    (0..count).map(|index| request(&format!("service-{index}"), demand)).collect()
}

fn request(name: &str, demand: FamilyDemand) -> Request {
    let mut service = Service::load_balancer(ServiceKey::new("default", name));
    service.ports.push(ServicePort { protocol: Protocol::Tcp, port: 80 });
    Request::new(&service, demand)
}

criterion_group! {
    name = benches;
    config = cpu_time::criterion();
    targets = fill, next, refusal, restart
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    report::print(&ROWS);
}

/// The linear fill grows with the square of its length.
const ROWS: [Row; 5] = [
    Row {
        work: "fill a /16 one by one",
        group: "fill",
        ours: "ours, 65536 addresses of a /16",
        naive: "linear, 2048 addresses of a /16",
        times: 32.0 * 32.0,
    },
    Row {
        work: "last free address of a /16, take and return",
        group: "next",
        ours: "ours, last of a /16",
        naive: "linear, last of a /16",
        times: 1.0,
    },
    Row {
        work: "next address of a /64 with 50,000 taken",
        group: "next",
        ours: "ours, next of a /64 with 50000 taken",
        naive: "linear, next of a /64 with 50000 taken",
        times: 1.0,
    },
    Row {
        work: "refusal by 100 full pools, with the reason of each",
        group: "refusal",
        ours: "ours, 100 full pools of 16",
        naive: "linear, 100 full pools of 16",
        times: 1.0,
    },
    Row {
        work: "restart: 50,000 Services claim what they hold",
        group: "restart",
        ours: "ours, 50000 Services claim",
        naive: "linear, 50000 Services claim",
        times: 1.0,
    },
];
