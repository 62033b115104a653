//! Which of 5,000 nodes answers for each of 10,000 addresses, and for which of them does one node answer?
//!
//! Every answer is made of compressions of SHA-256, so a second table says how long as many of them take alone: on another
//! processor that is the figure to compare with. `naive` sorts all nodes for one address as upstream does; it is measured for ten
//! addresses, of which a speaker has thousands. Run: `cargo bench -p metallb-benches --bench election`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, criterion_group};
use metallb_benches::cpu_time::{self, CpuTime};
use metallb_benches::election::sorted;
use metallb_benches::report::{self, Floor, Row};
use metallb_core::election::Electorate;
use metallb_core::election::hash::{IpText, NodeBlock};
use metallb_core::model::NodeName;
use sha2::block_api::compress256;

fn election(criterion: &mut Criterion<CpuTime>) {
    let names: Vec<String> = names().collect();
    let (nodes, ips) = (nodes(), ips());
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
    group.bench_function(BARE, |bencher| {
        let block = [[7; 64]];
        bencher.iter(|| {
            (0..ADDRESSES).fold(0, |all, index| {
                let mut state = [index; 8];
                compress256(&mut state, black_box(&block));
                all ^ state[0]
            })
        });
    });
    group.bench_function(MINE, |bencher| {
        // One node after the other: how many compressions an answer takes is a matter of luck.
        let mut askers = askers(&nodes).cycle();
        bencher.iter(|| electorate.owned_by(black_box(askers.next().unwrap()), ips.iter().copied()).count());
    });
    group.bench_function(OWNERS, |bencher| {
        bencher.iter(|| ips.iter().filter(|&&ip| electorate.owner(ip) == Some(me)).count());
    });
    group.finish();
}

fn names() -> impl Iterator<Item = String> {
    (0..NODES).map(|index| format!("worker-{index:04}.rack"))
}

fn nodes() -> Vec<NodeName> {
    names().map(|name| name.as_str().into()).collect()
}

fn ips() -> Vec<IpAddr> {
    (0..ADDRESSES).map(|index| Ipv4Addr::from_bits(0x0a00_0000 + index).into()).collect()
}

/// Who asks what is its own.
fn askers(nodes: &[NodeName]) -> impl Iterator<Item = &NodeName> + Clone {
    nodes.iter().step_by(nodes.len() / 20)
}

/// How many compressions the question takes, on average over who asks: each address ends at the first node that is better.
fn compressions_of_mine() -> f64 {
    let (nodes, ips) = (nodes(), ips());
    let blocks: Vec<NodeBlock> = nodes.iter().map(NodeBlock::new).collect();
    let texts: Vec<IpText> = ips.iter().map(|&ip| IpText::new(ip)).collect();
    let of = |asker: &NodeName| -> usize {
        let me = nodes.iter().position(|node| node == asker).unwrap();
        let asked = |ip: &IpText| {
            let mine = blocks[me].rank(ip);
            let mut others = blocks.iter().enumerate().filter(|(index, _)| *index != me);
            1 + others.position(|(_, other)| other.rank(ip) < mine).map_or(nodes.len() - 1, |lost| lost + 1)
        };
        texts.iter().map(asked).sum()
    };
    let each: Vec<usize> = askers(&nodes).map(of).collect();
    each.iter().sum::<usize>() as f64 / each.len() as f64
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
    report::print(&[row("which of 10,000 addresses are mine", MINE), row("owner of each of 10,000 addresses", OWNERS)]);
    let per_address = |compressions: f64| compressions / f64::from(ADDRESSES);
    let floor = |work, ours, times| Floor { work, group: "election", ours, bare: BARE, times };
    report::print_floors(&[
        floor("which of 10,000 addresses are mine", MINE, per_address(compressions_of_mine())),
        floor("owner of each of 10,000 addresses", OWNERS, f64::from(NODES)),
    ]);
}

const NAIVE: &str = "naive: 10 of 10,000 addresses";
const BARE: &str = "bare: 10,000 compressions";
const MINE: &str = "ours: which of 10,000 addresses are mine";
const OWNERS: &str = "ours: owner of each of 10,000 addresses";
