//! The cost of a reply with 50,000 announced addresses, and of a burst for 10,000 addresses.
//!
//! The replies are compared with the bare minimum: decoding the request and encoding the reply, without a table, limits
//! and counters.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use metallb_l2::engine::Limits;
use metallb_l2::engine::{Config, Engine, Received};
use metallb_l2::interface::{Interface, MacAddr, Scope};
use metallb_l2::wire::arp::{Arp, Operation};
use metallb_l2::wire::ndp::{Checksum, Message, Override, solicitation};
use metallb_l2::wire::{Ethernet, Frame};

fn answers(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut engine = engine(now, VIPS);
    while engine.poll_transmit().is_some() {}
    let requests: Vec<Frame> = (0..QUESTIONS).map(|n| request(n * (VIPS / 2 / QUESTIONS))).collect();
    let solicitations: Vec<Frame> =
        (0..QUESTIONS).map(|n| solicitation(CLIENT, CLIENT_LINK_LOCAL, v6(n * (VIPS / 2 / QUESTIONS)))).collect();

    let mut group = criterion.benchmark_group("l2_responder");
    group.throughput(Throughput::Elements(QUESTIONS.into()));
    for (name, questions) in [("arp_answer", &requests), ("ndp_answer", &solicitations)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for question in questions {
                    let received = Received { interface: 1, bytes: question.as_bytes(), checksum: Checksum::Present };
                    assert!(black_box(engine.handle_frame(now, &received)).is_ok());
                }
            });
        });
    }
    group.bench_function("arp_codec_alone", |bencher| {
        bencher.iter(|| {
            for question in &requests {
                let arp = Ethernet::decode(question.as_bytes()).and_then(|frame| Arp::decode(frame.payload));
                black_box(arp.map(|arp| arp.reply(US)));
            }
        });
    });
    group.bench_function("ndp_codec_alone", |bencher| {
        bencher.iter(|| {
            for question in &solicitations {
                let payload = Ethernet::decode(question.as_bytes()).map_or(&[][..], |frame| frame.payload);
                if let Ok(Message::Solicitation(asked)) = Message::decode(payload, Checksum::Present) {
                    black_box(asked.reply(US, US_LINK_LOCAL, CLIENT, Override::Replace));
                }
            }
        });
    });
    group.finish();
}

fn burst(criterion: &mut Criterion) {
    let now = Instant::now();
    let addresses: Vec<(IpAddr, Scope)> = (0..BURST).map(|n| (v4(n).into(), Scope::All)).collect();
    let mut group = criterion.benchmark_group("l2_burst");
    group.throughput(Throughput::Elements(BURST.into()));
    group.bench_function("take_over_10000", |bencher| {
        bencher.iter_batched(
            || (engine(now, 0), addresses.clone()),
            |(mut engine, addresses)| {
                engine.set_addresses(now, addresses);
                while let Some(transmit) = engine.poll_transmit() {
                    black_box(transmit);
                }
                engine
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// An engine that announces `vips` addresses, half of them IPv4.
fn engine(now: Instant, vips: u32) -> Engine {
    let mut config = Config::default();
    config.limits = Limits::NONE;
    let mut engine = Engine::new(config, 1, now);
    let interface = Interface::new(1, "eth0", US, Some(US_LINK_LOCAL));
    engine.set_interfaces(now, [interface]);
    let ips = (0..vips / 2).flat_map(|n| [IpAddr::V4(v4(n)), IpAddr::V6(v6(n))]);
    engine.set_addresses(now, ips.map(|ip| (ip, Scope::All)));
    engine
}

fn request(number: u32) -> Frame {
    let arp = Arp {
        operation: Operation::Request,
        sender_hardware: CLIENT,
        sender_protocol: [172, 16, 0, 9].into(),
        target_hardware: MacAddr([0; 6]),
        target_protocol: v4(number),
    };
    arp.encode(MacAddr::BROADCAST)
}

fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + number)
}

fn v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number))
}

const VIPS: u32 = 50_000;
const QUESTIONS: u32 = 1000;
const BURST: u32 = 10_000;
const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const US_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const CLIENT_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);

criterion_group!(benches, answers, burst);
criterion_main!(benches);
