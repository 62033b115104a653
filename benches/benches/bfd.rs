//! How many control packets a second can one core judge, and send? The budget: 1,000 sessions at 300 ms are about 3,800 packets a
//! second each way.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metallb_benches::cpu_time::{self, CpuTime};
use metallb_bgp::bfd::{
    ControlPacket, Discriminator, Engine, Hops, Interval, Meta, Profile, RoutingDomain, SessionKey, State, TTL,
};

fn packets(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("bfd");
    group.throughput(Throughput::Elements(1));
    for count in [1, 1_000, 5_000] {
        let mut host = Host::new(count);
        group.bench_function(format!("receive, {count} sessions"), |bencher| {
            let mut turn = (0..host.neighbors.len()).cycle();
            bencher.iter(|| host.hear(turn.next().unwrap()));
        });
        let mut host = Host::new(count);
        group.bench_function(format!("send one and receive one, {count} sessions at 50 ms"), |bencher| {
            bencher.iter(|| {
                host.now = host.engine.poll_timeout().unwrap();
                host.engine.handle_timeout(host.now);
                while let Some(transmit) = host.engine.poll_transmit() {
                    host.sent.push_back(number(transmit.key.remote));
                }
                // An early bell sends nothing.
                host.sent.pop_front().map(|neighbor| host.hear(neighbor))
            });
        });
        assert!(host.engine.sessions().iter().all(|session| session.state == State::Up));
    }
    group.finish();
}

/// An engine whose sessions are all Up, and what its neighbours say.
struct Host {
    engine: Engine,
    now: Instant,
    neighbors: Vec<(Meta, [u8; ControlPacket::LENGTH])>,
    sent: VecDeque<usize>,
}

impl Host {
    fn new(count: u32) -> Self {
        let mut now = Instant::now();
        let mut engine = Engine::new(1);
        let often = Interval::from(Duration::from_millis(50));
        let profile = Profile::default().with_interval(often);
        let neighbors = (0..count)
            .map(|number| {
                // As sessions of a running host, they do not all begin at once.
                now += Duration::from_millis(50) / count;
                let remote = IpAddr::from((FIRST + number).to_be_bytes());
                let mine = engine.add_session(now, SessionKey::new(remote, Hops::Single), profile).unwrap();
                let local = IpAddr::from([10, 9, 0, 1]);
                let domain = RoutingDomain::default();
                let meta = Meta { remote, local, interface: 2, domain, ttl: TTL, hops: Hops::Single };
                engine.handle_timeout(now);
                let packet = ControlPacket {
                    state: State::Init,
                    my_discriminator: Discriminator::new(number + 1).unwrap(),
                    your_discriminator: Some(mine),
                    ..ControlPacket::decode(engine.poll_transmit().unwrap().payload()).unwrap()
                };
                engine.handle_packet(now, &meta, &packet.encode()).unwrap();
                let packet = ControlPacket { desired_min_tx: often, required_min_rx: often, ..packet };
                let up = ControlPacket { state: State::Up, is_final: true, ..packet }.encode();
                engine.handle_packet(now, &meta, &up).unwrap();
                while engine.poll_transmit().is_some() {}
                (meta, up)
            })
            .collect();
        while engine.poll_event().is_some() {}
        Self { engine, now, neighbors, sent: VecDeque::new() }
    }

    fn hear(&mut self, neighbor: usize) {
        let (meta, payload) = &self.neighbors[neighbor];
        self.engine.handle_packet(self.now, meta, black_box(payload)).unwrap();
        while let Some(transmit) = self.engine.poll_transmit() {
            self.sent.push_back(number(transmit.key.remote));
        }
    }
}

/// Which neighbour has this address.
fn number(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => (u32::from(address) - FIRST) as usize,
        IpAddr::V6(_) => panic!("all are IPv4"),
    }
}

const FIRST: u32 = 0x0a00_0001;

criterion_group! {
    name = benches;
    config = cpu_time::criterion();
    targets = packets
}
criterion_main!(benches);
