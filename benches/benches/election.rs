//! Who answers for 10,000 addresses among 5,000 nodes, and what does it cost when a node joins or leaves?
//!
//! `naive` sorts all nodes for one address as upstream does; it is measured for ten addresses, of which a speaker has
//! thousands. Run: `cargo bench -p metallb-benches --bench election`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, Criterion, criterion_group};
use metallb_benches::cpu_time::{self, CpuTime};
use metallb_benches::election::sorted;
use metallb_benches::report::{self, Row};
use metallb_core::election::{Electorate, Standings};
use metallb_core::model::NodeName;

fn election(criterion: &mut Criterion<CpuTime>) {
    let names: Vec<String> = (0..NODES).map(|index| format!("worker-{index:04}.rack")).collect();
    let nodes: Vec<NodeName> = names.iter().map(|name| name.as_str().into()).collect();
    let ips: Vec<IpAddr> = (0..ADDRESSES).map(|index| Ipv4Addr::from_bits(0x0a00_0000 + index).into()).collect();
    let electorate = Electorate::new(nodes.iter().map(|node| (node.clone(), 0)));
    let me = &nodes[NODES as usize / 2];
    for &ip in &ips[..10] {
        assert_eq!(sorted(&names, ip)[0].as_str(), electorate.owner(ip).unwrap().as_str());
    }

    let mut group = criterion.benchmark_group("election");
    group.sample_size(10);
    group.bench_function(NAIVE, |bencher| {
        bencher.iter(|| ips[..10].iter().filter(|&&ip| sorted(&names, ip)[0] == me.as_str()).count());
    });
    group.bench_function(MINE, |bencher| {
        bencher.iter(|| electorate.owned_by(black_box(me), ips.iter().copied()).count());
    });
    group.bench_function(OWNERS, |bencher| {
        bencher.iter(|| ips.iter().filter(|&&ip| electorate.owner(ip) == Some(me)).count());
    });
    let table = Standings::new(electorate, ips.iter().copied());
    let newcomer = NodeName::from("worker-9999.rack");
    group.bench_function(JOINS, |bencher| {
        let joined = |mut table: Standings| {
            table.join(&newcomer, 0);
            table
        };
        bencher.iter_batched(|| table.clone(), joined, BatchSize::LargeInput);
    });
    group.bench_function(LEAVES, |bencher| {
        let left = |mut table: Standings| {
            table.leave(me);
            table
        };
        bencher.iter_batched(|| table.clone(), left, BatchSize::LargeInput);
    });
    group.finish();
}

const NODES: u32 = 5_000;
const ADDRESSES: u32 = 10_000;

criterion_group! {
    name = benches;
    config = cpu_time::criterion();
    targets = election
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    let row = |work, ours| Row { work, group: "election", ours, naive: NAIVE, times: 1_000.0 };
    // The naive one elects anew for all 10,000 addresses, whatever the question.
    report::print(&[
        row("which of 10,000 addresses are mine", MINE),
        row("owner of each of 10,000 addresses", OWNERS),
        row("a node joins 5,000 others", JOINS),
        row("a node leaves 5,000", LEAVES),
    ]);
}

const NAIVE: &str = "naive: 10 of 10,000 addresses";
const MINE: &str = "ours: which of 10,000 addresses are mine";
const OWNERS: &str = "ours: owner of each of 10,000 addresses";
const JOINS: &str = "ours: a node joins 5,000 others";
const LEAVES: &str = "ours: a node leaves 5,000";
