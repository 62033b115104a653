//! Checks on the frame readers of `metallb-l2` and on its engine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use metallb_l2::engine::{Config, Engine, Received};
use metallb_l2::interface::{Announcement, Interface, MacAddr, Scope, Stance};
use metallb_l2::wire::Ethernet;
use metallb_l2::wire::arp::{Arp, Operation};
use metallb_l2::wire::ndp::{self, Checksum, Message, Override};

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
        let reply = asked.reply(US, US_LINK_LOCAL, ethernet.source, Override::Replace);
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

/// A whole life of an engine, each step one byte and what it takes: addresses are held, claimed, yielded and given up, interfaces and
/// speaker_macs change, time passes, frames come in. Whatever happens, only what is ours and not probed for is answered and announced,
/// nothing is left to do once time has passed, and the same steps give the same frames.
pub fn l2_operations(data: &[u8]) {
    let start = Instant::now();
    assert_eq!(live(start, data), live(start, data));
}

fn live(start: Instant, data: &[u8]) -> Vec<Vec<u8>> {
    let mut engine = Engine::new(Config::default(), 1, start);
    let mut steps = data.iter().copied();
    let (mut sent, mut now) = (Vec::new(), start);
    while let Some(step) = steps.next() {
        let chosen = steps.next().unwrap_or(0);
        match step % 7 {
            0 => engine.set_addresses(now, addresses(chosen)),
            1 => engine.set_interfaces(now, interfaces(chosen)),
            2 => engine.set_speaker_macs([MacAddr([2, 0, 0, 0, 0, chosen])]),
            3 => engine.announce_again(now, [VIPS[usize::from(chosen) % VIPS.len()]]),
            4 => now += Duration::from_millis(u64::from(chosen) * 10),
            5 => {
                let ip = VIPS[usize::from(chosen) % VIPS.len()];
                let frame = question(ip, chosen);
                let received =
                    Received { interface: 1 + u32::from(chosen >> 7), bytes: &frame, checksum: Checksum::Present };
                if engine.handle_frame(now, &received).is_ok() {
                    assert!(engine.announces(ip), "{ip} is answered for");
                }
            }
            _ => {
                let frame: Vec<u8> = steps.by_ref().take(chosen.into()).collect();
                let received = Received { interface: 1, bytes: &frame, checksum: Checksum::Offloaded };
                let _ = engine.handle_frame(now, &received);
            }
        }
        engine.handle_timeout(now);
        drain(&mut engine, &mut sent);
    }
    // Left alone, an engine settles: a burst takes five seconds, an address that another host has a minute and a probe.
    let mut rounds = 0;
    while let Some(next) = engine.poll_timeout() {
        assert!(next <= now + Duration::from_secs(90), "something is planned for ever");
        engine.handle_timeout(next);
        drain(&mut engine, &mut sent);
        rounds += 1;
        assert!(rounds < 100 * (1 + data.len()), "an engine that is left alone does not settle");
    }
    engine.set_addresses(now, addresses(0));
    assert!(engine.poll_transmit().is_none(), "what was given up is announced");
    sent
}

fn drain(engine: &mut Engine, sent: &mut Vec<Vec<u8>>) {
    while let Some(transmit) = engine.poll_transmit() {
        sent.push(transmit.frame.as_bytes().to_vec());
    }
    while engine.poll_announced().is_some() || engine.poll_group().is_some() || engine.poll_event().is_some() {}
}

/// Two bits for each address: not ours, held, claimed, yielded.
fn addresses(chosen: u8) -> Vec<Announcement> {
    let stance = |place: usize| match chosen >> (2 * place) & 3 {
        0 => None,
        1 => Some(Stance::Hold),
        2 => Some(Stance::Claim),
        _ => Some(Stance::Yield),
    };
    let scope = |place: usize| if place == 2 { Scope::Only(["eth1".into()].into()) } else { Scope::All };
    let announce = |(place, &ip)| Some(Announcement { ip, scope: scope(place), stance: stance(place)? });
    VIPS.iter().enumerate().filter_map(announce).collect()
}

/// A bit for each: there, another hardware address, no IPv6, only by name.
fn interfaces(chosen: u8) -> Vec<Interface> {
    let interface = |place: u8| {
        let bits = chosen >> (4 * place) & 0xf;
        let mac = MacAddr([2, 0, 0, 0, bits & 2, 1 + place]);
        let link_local = (bits & 4 == 0).then_some(US_LINK_LOCAL);
        let mut interface = Interface::new(1 + u32::from(place), ["eth0", "eth1"][usize::from(place)], mac, link_local);
        interface.only_by_name = bits & 8 != 0;
        (bits & 1 == 1).then_some(interface)
    };
    (0..2).filter_map(interface).collect()
}

/// A question, an announcement or a probe of another host's.
fn question(ip: IpAddr, chosen: u8) -> Vec<u8> {
    let mac = MacAddr([2, 0, 0, 0, 0, 0x40 | chosen & 3]);
    let frame = match (ip, chosen >> 4 & 3) {
        (IpAddr::V4(ip), 0) => Arp::probe(mac, ip),
        (IpAddr::V4(ip), 1) => Arp::gratuitous(Operation::Reply, mac, ip),
        (IpAddr::V4(ip), _) => {
            let sender_protocol = Ipv4Addr::new(192, 168, 10, 200);
            let target_hardware = MacAddr([0; 6]);
            let operation = Operation::Request;
            Arp { operation, sender_hardware: mac, sender_protocol, target_hardware, target_protocol: ip }
                .encode(MacAddr::BROADCAST)
        }
        (IpAddr::V6(ip), 0) => ndp::probe(mac, ip),
        (IpAddr::V6(ip), 1) => ndp::unsolicited(mac, US_LINK_LOCAL, ip),
        (IpAddr::V6(ip), _) => ndp::solicitation(mac, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9), ip),
    };
    frame.as_bytes().to_vec()
}

const VIPS: [IpAddr; 4] =
    [IpAddr::V4(VIP4), IpAddr::V6(VIP6), IpAddr::V4(Ipv4Addr::new(192, 168, 10, 7)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const US_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 0);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe799, 0, 0, 0, 0);
