//! Checks on the frame readers of `metallb-l2` and on its engine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use metallb_l2::engine::{Config, Engine, Received};
use metallb_l2::interface::{Interface, MacAddr, Scope};
use metallb_l2::wire::Ethernet;
use metallb_l2::wire::arp::Arp;
use metallb_l2::wire::ndp::{Checksum, Message};

/// An ARP frame: what is read is written and read back as the same.
pub fn arp_frame(data: &[u8]) {
    let Some(arp) = Ethernet::decode(data).and_then(|frame| Arp::decode(frame.payload)) else { return };
    let encoded = arp.encode(MacAddr::BROADCAST);
    let again = Ethernet::decode(encoded.as_bytes()).and_then(|frame| Arp::decode(frame.payload));
    assert_eq!(again, Some(arp));
}

/// A frame of neighbour discovery: the answer to each solicitation is a valid advertisement of its target.
pub fn ndp_frame(data: &[u8]) {
    let Some(ethernet) = Ethernet::decode(data) else { return };
    for checksum in [Checksum::Present, Checksum::Offloaded] {
        let Ok(Message::Solicitation(asked)) = Message::decode(ethernet.payload, checksum) else { continue };
        let reply = asked.reply(US, US_LINK_LOCAL, ethernet.source);
        let decoded = Ethernet::decode(reply.as_bytes()).map(|frame| Message::decode(frame.payload, Checksum::Present));
        let valid = matches!(
            decoded,
            Some(Ok(Message::Advertisement(answer)))
                if answer.target == asked.target && answer.target_link_layer == Some(US)
        );
        assert!(valid, "{asked:?} is answered with {decoded:?}");
    }
}

/// Frames on the wire of an engine, each behind its length in one byte: it never panics, answers only for what it owns, counts
/// every drop, and does the same when everything is repeated.
pub fn l2_engine(data: &[u8]) {
    let start = Instant::now();
    assert_eq!(run(start, data), run(start, data));
}

fn run(start: Instant, mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut engine = Engine::new(Config::default(), 1, start);
    engine.set_interfaces(start, [Interface::new(1, "eth0", US, Some(US_LINK_LOCAL))]);
    engine.set_addresses(start, [(IpAddr::V4(VIP4), Scope::All), (IpAddr::V6(VIP6), Scope::All)]);
    let (mut sent, mut now, mut silent) = (Vec::new(), start, 0);
    while let Some((&length, rest)) = data.split_first() {
        let (frame, rest) = rest.split_at(usize::from(length).min(rest.len()));
        data = rest;
        now += Duration::from_millis(length.into());
        match engine.handle_frame(now, &Received { interface: 1, bytes: frame, checksum: Checksum::Present }) {
            Ok(reply) => {
                let ours = |ip: &[u8]| reply.as_bytes().windows(ip.len()).any(|window| window == ip);
                assert!(ours(&VIP4.octets()) || ours(&VIP6.octets()));
                sent.push(reply.as_bytes().to_vec());
            }
            Err(_) => silent += 1,
        }
        engine.handle_timeout(now);
        sent.extend(std::iter::from_fn(|| engine.poll_transmit()).map(|transmit| transmit.frame.as_bytes().to_vec()));
    }
    assert_eq!(engine.counters().dropped.values().sum::<u64>(), silent);
    sent
}

const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const US_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 0);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe799, 0, 0, 0, 0);
