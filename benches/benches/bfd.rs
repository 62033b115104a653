//! How many control packets a second can one core judge, and send? The budget: 1,000 sessions at 300 ms are about 3,800 packets a
//! second each way.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metallb_bgp::bfd::{
    ControlPacket, Discriminator, Engine, Hops, Meta, Profile, RoutingDomain, SessionKey, State, TTL,
};

fn packets(criterion: &mut Criterion) {
    let start = Instant::now();
    let mut engine = Engine::new(1);
    let neighbors: Vec<(Meta, [u8; ControlPacket::LENGTH])> = (0..1_000_u32)
        .map(|number| {
            let remote = IpAddr::from((0x0a00_0001 + number).to_be_bytes());
            let mine = engine.add_session(start, SessionKey::new(remote, Hops::Single), Profile::default()).unwrap();
            let local = IpAddr::from([10, 9, 0, 1]);
            let meta =
                Meta { remote, local, interface: 2, domain: RoutingDomain::default(), ttl: TTL, hops: Hops::Single };
            engine.handle_timeout(start);
            let packet = ControlPacket {
                state: State::Init,
                my_discriminator: Discriminator::new(number + 1).unwrap(),
                your_discriminator: Some(mine),
                ..ControlPacket::decode(engine.poll_transmit().unwrap().payload()).unwrap()
            };
            engine.handle_packet(start, &meta, &packet.encode()).unwrap();
            (meta, ControlPacket { state: State::Up, is_final: true, ..packet }.encode())
        })
        .collect();
    while engine.poll_transmit().is_some() {}
    while engine.poll_event().is_some() {}

    let mut group = criterion.benchmark_group("bfd");
    group.throughput(Throughput::Elements(1));
    let mut turn = neighbors.iter().cycle();
    group.bench_function("receive, 1,000 sessions", |bencher| {
        bencher.iter(|| {
            let (meta, payload) = turn.next().unwrap();
            let outcome = engine.handle_packet(start, meta, black_box(payload));
            while engine.poll_transmit().is_some() {}
            outcome
        });
    });
    group.bench_function("transmit, 1,000 sessions", |bencher| {
        let mut fresh = Engine::new(2);
        for (meta, _) in &neighbors {
            fresh.add_session(start, SessionKey::new(meta.remote, Hops::Single), Profile::default()).unwrap();
        }
        bencher.iter(|| {
            let now = fresh.poll_timeout().unwrap_or(start + Duration::from_secs(1));
            fresh.handle_timeout(now);
            fresh.poll_transmit()
        });
    });
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
