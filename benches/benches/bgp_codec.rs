//! What does one UPDATE cost to read and to write, with one prefix and with as many as fit, beside the quickest crates?
//!
//! Reading means that every prefix was checked, and in the second row also visited; the crates build their own objects. Writing starts
//! from prefixes and attributes that have been encoded once, as the Adj-RIB-Out keeps them, and in the second row goes through all of it,
//! from a peer's refresh to the bytes; the crates write their own objects.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use metallb_benches::report::{Goal, print_goals};
use metallb_bgp::rib::{AdjRibOut, NextHops};
use metallb_bgp::types::{Asn, Attributes, Family};
use metallb_bgp::wire::nlri::wide_v4;
use metallb_bgp::wire::template::{Encoding, Template};
use metallb_bgp::wire::{DecodeContext, MESSAGE_MAX, Message, decode};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use zettabgp::prelude::{BgpMessage as _, BgpUpdateMessage};
use zettabgp::{BgpSessionParams, BgpTransportMode};

fn codec(criterion: &mut Criterion) {
    let encoding = Encoding { asn: Asn(65001), internal: false, four_octet_asn: true };
    let attributes = Attributes::default().with_communities([1, 2, 3]);
    let template = Template::announce(&encoding, &attributes, Ipv4Addr::new(10, 0, 0, 1).into(), Family::Ipv4);
    let context = DecodeContext::new(Asn(64512), Asn(65001));
    let params = BgpSessionParams::new(65001, 90, BgpTransportMode::IPv4, Ipv4Addr::LOCALHOST, Vec::new());
    for count in [1_u32, 805] {
        let hosts: Vec<Ipv4Net> = (0..count).map(|n| Ipv4Net::from(Ipv4Addr::from(0x0a00_0000 + n))).collect();
        let mut buffer = [0; 4096];
        let (size, written) = template.fill(&mut buffer, hosts.iter().copied());
        assert_eq!(written, hosts.len());
        let message = buffer[..size].to_vec();

        let mut group = criterion.benchmark_group(format!("bgp_codec/decode/{count}"));
        group.bench_function("ours", |bencher| bencher.iter(|| decode(black_box(&message), &context).is_ok()));
        group.bench_function("ours, every prefix visited", |bencher| {
            bencher.iter(|| match decode(black_box(&message), &context) {
                Ok(Some((Message::Update(update), _))) => {
                    update.announced_v4().fold(0, |sum, net| sum ^ u32::from(net.addr()))
                }
                other => panic!("{other:?}"),
            });
        });
        group.bench_function("zettabgp", |bencher| {
            bencher.iter(|| {
                let mut update = BgpUpdateMessage::new();
                update.decode_from(&params, black_box(&message[19..])).expect("a message of ours");
                update
            });
        });
        group.bench_function("netgauze-bgp-pkt", |bencher| {
            bencher.iter(|| {
                let mut context = BgpParsingContext::default();
                BgpMessage::parse(&mut SliceReader::new(black_box(&message)), &mut context).expect("a message of ours")
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group(format!("bgp_codec/encode/{count}"));
        let wide: Vec<_> = hosts.iter().copied().map(wide_v4).collect();
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                let mut filling = template.begin(&mut buffer).expect("room");
                filling.push_hosts(black_box(&wide));
                filling.finish()
            });
        });
        let shared = Arc::new(attributes.clone());
        let mut rib = AdjRibOut::default();
        rib.set(hosts.iter().map(|net| (IpNet::V4(*net), Arc::clone(&shared))));
        let hops = NextHops { v4: Some(Ipv4Addr::new(10, 0, 0, 1).into()), v6: None };
        group.bench_function("ours, through the Adj-RIB-Out", |bencher| {
            bencher.iter(|| {
                rib.replay(Some(Family::Ipv4));
                rib.poll_transmit(&mut buffer, &encoding, &hops, MESSAGE_MAX)
            });
        });
        assert_eq!(buffer[..size], message[..]);
        let mut theirs = BgpUpdateMessage::new();
        theirs.decode_from(&params, &message[19..]).expect("a message of ours");
        let mut out = [0; 4096];
        group.bench_function("zettabgp", |bencher| {
            bencher.iter(|| black_box(&theirs).encode_to(&params, black_box(&mut out)).expect("it fits"));
        });
        let theirs = BgpMessage::parse(&mut SliceReader::new(&message), &mut BgpParsingContext::default());
        let theirs = theirs.expect("a message of ours");
        let mut out = Vec::with_capacity(4096);
        group.bench_function("netgauze-bgp-pkt", |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&theirs).write(&mut out).expect("it fits");
            });
        });
        group.finish();
    }
}

fn report(_: &mut Criterion) {
    let goal = |work, group, ours, nanoseconds| Goal { work, group, ours, nanoseconds };
    print_goals(
        &[
            goal("decode and check, 1 prefix", "bgp_codec_decode_1", "ours", 40.0),
            goal("decode and visit, 1 prefix", "bgp_codec_decode_1", "ours, every prefix visited", 40.0),
            goal("decode and check, 805 prefixes", "bgp_codec_decode_805", "ours", 600.0),
            goal("decode and visit, 805 prefixes", "bgp_codec_decode_805", "ours, every prefix visited", 600.0),
            goal("encode prefixes of the RIB, 1", "bgp_codec_encode_1", "ours", 10.0),
            goal("from a refresh to the bytes, 1", "bgp_codec_encode_1", "ours, through the Adj-RIB-Out", 10.0),
            goal("encode prefixes of the RIB, 805", "bgp_codec_encode_805", "ours", 500.0),
            goal("from a refresh to the bytes, 805", "bgp_codec_encode_805", "ours, through the Adj-RIB-Out", 500.0),
        ],
        &["zettabgp", "netgauze-bgp-pkt"],
    );
}

criterion_group!(benches, codec, report);
criterion_main!(benches);
