//! What does it cost to tell a peer 100,000 routes, to take them all back, and to change one of them?

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use metallb_benches::report::{Goal, print_goals};
use metallb_bgp::rib::{AdjRibOut, NextHops};
use metallb_bgp::types::{Asn, Attributes};
use metallb_bgp::wire::MESSAGE_MAX;
use metallb_bgp::wire::template::Encoding;

const ENCODING: Encoding = Encoding { asn: Asn(65001), internal: false, four_octet_asn: true };
const ROUTES: u32 = 100_000;

fn packing(criterion: &mut Criterion) {
    let attributes = Arc::new(Attributes::default().with_communities([1, 2, 3]));
    let prefix = |n: u32| IpNet::V4(Ipv4Net::from(Ipv4Addr::from(0x0a00_0000 + n)));
    let routes: Vec<(IpNet, Arc<Attributes>)> = (0..ROUTES).map(|n| (prefix(n), Arc::clone(&attributes))).collect();
    let mut known = AdjRibOut::default();
    known.set(routes.iter().cloned());
    let mut buffer = vec![0; 16 * MESSAGE_MAX];
    let fresh = known.clone();
    assert_eq!(transmit(&mut known, &mut buffer), u64::from(ROUTES.div_ceil(807)));

    let mut group = criterion.benchmark_group("rib_packing");
    group.sample_size(20);
    group.bench_function("dump_100k", |bencher| {
        bencher.iter_batched_ref(|| fresh.clone(), |rib| transmit(rib, &mut buffer), BatchSize::LargeInput);
    });
    group.bench_function("set_100k", |bencher| {
        let input = || (AdjRibOut::default(), routes.clone());
        bencher.iter_batched(
            input,
            |(mut rib, routes)| {
                rib.set(routes);
                rib
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("withdraw_100k", |bencher| {
        let withdraw = |rib: &mut AdjRibOut| {
            rib.set([]);
            transmit(rib, &mut buffer)
        };
        bencher.iter_batched_ref(|| known.clone(), withdraw, BatchSize::LargeInput);
    });
    let other = Arc::new(Attributes::default());
    let mut turn = false;
    group.bench_function("change_one_of_100k", |bencher| {
        bencher.iter(|| {
            turn = !turn;
            known.change(prefix(50_000), Some(if turn { &other } else { &attributes }));
            assert_eq!(transmit(&mut known, &mut buffer), 1);
        });
    });
    group.finish();
}

/// Everything that is due, through a buffer that one write would carry. Returns how many messages.
fn transmit(rib: &mut AdjRibOut, buffer: &mut [u8]) -> u64 {
    let next_hops = NextHops { v4: Some(IpAddr::from([10, 0, 0, 1])), v6: None };
    let mut messages = 0;
    loop {
        let sent = rib.poll_transmit(buffer, &ENCODING, &next_hops, MESSAGE_MAX);
        if sent.messages == 0 {
            return messages;
        }
        messages += sent.messages;
    }
}

fn report(_: &mut Criterion) {
    let goal = |work, ours, nanoseconds| Goal { work, group: "rib_packing", ours, nanoseconds };
    print_goals(
        &[
            goal("tell 100,000 routes, without the kernel's part", "dump_100k", 5e6),
            goal("withdraw 100,000 routes, without the kernel's part", "withdraw_100k", 3e6),
        ],
        &[],
    );
}

criterion_group!(benches, packing, report);
criterion_main!(benches);
