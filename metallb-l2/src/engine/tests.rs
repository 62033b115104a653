use super::*;
use crate::group::Membership;
use crate::interface::{Scope, Stance};
use crate::wire::arp::{Arp, Operation};
use crate::wire::ndp::{self, solicitation};

const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

const NOTHING: [Announcement; 0] = [];

fn eth0() -> Interface {
    Interface::new(1, "eth0", US, Some("fe80::1".parse().unwrap()))
}

fn v4() -> IpAddr {
    "192.168.10.0".parse().unwrap()
}

fn v6() -> IpAddr {
    "fc00:f853:ccd:e799::".parse().unwrap()
}

fn engine(now: Instant) -> Engine {
    let mut engine = Engine::new(Config::default(), 7, now);
    engine.set_interfaces(now, [eth0()]);
    engine.set_addresses(now, [(v4(), Scope::All), (v6(), Scope::All)]);
    engine
}

fn request(sender: [u8; 4], target: IpAddr, destination: MacAddr) -> Vec<u8> {
    let IpAddr::V4(target) = target else { panic!("IPv4 only") };
    let arp = Arp {
        operation: Operation::Request,
        sender_hardware: CLIENT,
        sender_protocol: sender.into(),
        target_hardware: MacAddr([0; 6]),
        target_protocol: target,
    };
    arp.encode(destination).as_bytes().to_vec()
}

fn receive(engine: &mut Engine, now: Instant, interface: u32, bytes: &[u8]) -> Result<Frame, DropReason> {
    engine.handle_frame(now, &Received { interface, bytes, checksum: Checksum::Present })
}

fn drain(engine: &mut Engine) -> usize {
    std::iter::from_fn(|| engine.poll_transmit()).count()
}

#[test]
fn unicast_and_broadcast_requests_and_probes_are_answered() {
    let now = Instant::now();
    let mut engine = engine(now);
    for frame in [
        request([192, 168, 10, 9], v4(), MacAddr::BROADCAST),
        request([192, 168, 10, 9], v4(), US),
        request([0, 0, 0, 0], v4(), MacAddr::BROADCAST),
        solicitation(CLIENT, "fe80::9".parse().unwrap(), "fc00:f853:ccd:e799::".parse().unwrap()).as_bytes().to_vec(),
    ] {
        let reply = receive(&mut engine, now, 1, &frame).unwrap();
        assert_eq!(reply.as_bytes()[..6], CLIENT.0);
        assert_eq!(reply.as_bytes()[6..12], US.0);
    }
    assert_eq!(engine.counters().responses[&v4()], 3);
}

#[test]
fn other_frames_are_dropped_with_their_reason() {
    let now = Instant::now();
    let mut engine = engine(now);
    let good = request([192, 168, 10, 9], v4(), MacAddr::BROADCAST);
    let mut reply = good.clone();
    reply[21] = 2;
    let mut tagged = good.clone();
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    let mut own = good.clone();
    own[6..12].copy_from_slice(&US.0);
    let mut ten_mac = good.clone();
    ten_mac[18] = 8;
    let rows = [
        (good[..13].to_vec(), DropReason::Malformed),
        (good[..30].to_vec(), DropReason::Malformed),
        (ten_mac, DropReason::Malformed),
        (reply, DropReason::ArpReply),
        (tagged, DropReason::Vlan),
        (own, DropReason::OwnFrame),
        (request([192, 168, 10, 9], v4(), MacAddr([6, 5, 4, 3, 2, 1])), DropReason::EthernetDestination),
        (request([192, 168, 10, 0], v4(), MacAddr::BROADCAST), DropReason::Gratuitous),
        (request([192, 168, 10, 9], "192.168.10.1".parse().unwrap(), MacAddr::BROADCAST), DropReason::AnnounceIp),
    ];
    for (frame, reason) in rows {
        assert_eq!(receive(&mut engine, now, 1, &frame), Err(reason));
    }
    assert_eq!(receive(&mut engine, now, 2, &good), Err(DropReason::Interface));
    engine.set_addresses(now, [(v4(), Scope::Only(["eth1".into()].into()))]);
    assert_eq!(receive(&mut engine, now, 1, &good), Err(DropReason::NotMatchInterface));
}

#[test]
fn interfaces_on_one_segment_are_reported_once_until_the_interfaces_change() {
    let now = Instant::now();
    let mut engine = engine(now);
    let other = MacAddr([2, 0, 0, 0, 0, 77]);
    let eth1 = Interface::new(2, "eth1", other, None);
    let mut frame = request([192, 168, 10, 9], v4(), MacAddr::BROADCAST);
    let expected = Event::SharedSegment { interfaces: ["eth0".into(), "eth1".into()] };
    for (what, source, receiver, reported) in [
        ("its own frame", US, 1, false),
        ("from eth1", other, 1, true),
        ("from eth1 again", other, 1, false),
        ("the other direction", US, 2, false),
    ] {
        if what == "its own frame" {
            engine.set_interfaces(now, [eth0(), eth1.clone()]);
        }
        frame[6..12].copy_from_slice(&source.0);
        assert_eq!(receive(&mut engine, now, receiver, &frame), Err(DropReason::OwnFrame), "{what}");
        assert_eq!(engine.poll_event(), reported.then(|| expected.clone()), "{what}");
    }
    engine.set_interfaces(now, [eth0()]);
    engine.set_interfaces(now, [eth0(), eth1]);
    assert_eq!(receive(&mut engine, now, 2, &frame), Err(DropReason::OwnFrame));
    assert_eq!(engine.poll_event(), Some(expected));
}

#[test]
fn new_address_is_announced_five_times_and_repeating_it_adds_nothing() {
    // Case ARP-34.
    let start = Instant::now();
    let mut engine = engine(start);
    let mut rounds = vec![drain(&mut engine)];
    let mut now = start;
    while let Some(next) = engine.poll_timeout() {
        assert!(next > now && next <= now + Duration::from_millis(1210));
        now = next;
        engine.set_addresses(now - Duration::from_millis(1), [(v4(), Scope::All), (v6(), Scope::All)]);
        engine.handle_timeout(now);
        rounds.push(drain(&mut engine));
    }
    assert_eq!(rounds, [3, 3, 3, 3, 3]);
    assert!(now < start + Duration::from_secs(5));
}

#[test]
fn removed_address_is_silent_at_once() {
    // Case ARP-22.
    let now = Instant::now();
    let mut engine = engine(now);
    drain(&mut engine);
    engine.set_addresses(now, NOTHING);
    engine.handle_timeout(now + Duration::from_secs(2));
    assert_eq!(drain(&mut engine), 0);
    assert!(receive(&mut engine, now, 1, &request([192, 168, 10, 9], v4(), US)).is_err());
}

#[test]
fn group_is_joined_on_later_interfaces_and_left_with_the_last_address() {
    // Case NDP-31.
    let now = Instant::now();
    let mut engine = engine(now);
    let changes = |engine: &mut Engine| {
        std::iter::from_fn(|| engine.poll_group())
            .map(|c| (c.interface, c.membership == Membership::Join))
            .collect::<Vec<_>>()
    };
    assert_eq!(changes(&mut engine), [(1, true)]);
    let eth1 = Interface { index: 2, name: "eth1".into(), mac: MacAddr([2, 0, 0, 0, 0, 2]), ..eth0() };
    engine.set_interfaces(now, [eth0(), eth1]);
    assert_eq!(changes(&mut engine), [(2, true)]);
    let twin: IpAddr = "fd00:1::".parse().unwrap();
    engine.set_addresses(now, [(twin, Scope::All)]);
    assert_eq!(changes(&mut engine), []);
    engine.set_addresses(now, NOTHING);
    assert_eq!(changes(&mut engine), [(1, false), (2, false)]);
}

#[test]
fn conflict_with_another_host_is_reported_once() {
    let now = Instant::now();
    let mut engine = engine(now);
    for _ in 0..3 {
        let _ = receive(
            &mut engine,
            now,
            1,
            &request([192, 168, 10, 0], "192.168.10.7".parse().unwrap(), MacAddr::BROADCAST),
        );
    }
    assert_eq!(engine.poll_event(), Some(Event::Conflict { ip: v4(), mac: CLIENT, interface: "eth0".into() }));
    assert_eq!(engine.poll_event(), None);
    assert_eq!(engine.counters().conflicts[&v4()], 3);
}

#[test]
fn same_seed_and_inputs_give_the_same_bytes() {
    let start = Instant::now();
    let run = || {
        let mut engine = engine(start);
        let mut frames = Vec::new();
        for step in 0..60_u64 {
            engine.handle_timeout(start + Duration::from_millis(step * 100));
            frames.extend(std::iter::from_fn(|| engine.poll_transmit()).map(|t| (step, t)));
        }
        frames
    };
    assert_eq!(run(), run());
}

#[test]
fn ten_thousand_addresses_are_announced_in_one_round() {
    // Case ARP-35.
    let now = Instant::now();
    let mut engine = Engine::new(Config::default(), 7, now);
    engine.set_interfaces(now, [eth0()]);
    engine.set_addresses(now, (0..10_000).map(|n| (std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), Scope::All)));
    assert_eq!(drain(&mut engine), 20_000);
    assert!(engine.poll_timeout().unwrap() >= now + Duration::from_millis(1100));
}

#[test]
fn burst_of_a_removed_address_sends_no_more_frames() {
    // Case ARP-33: the address is removed while half of its burst is queued.
    let now = Instant::now();
    let mut engine = engine(now);
    assert!(engine.poll_transmit().is_some());
    engine.set_addresses(now, NOTHING);
    assert_eq!(drain(&mut engine), 0);
    engine.handle_timeout(now + Duration::from_secs(2));
    assert_eq!(engine.poll_timeout(), None);
}

#[test]
fn changed_hardware_address_is_announced_and_used_in_replies() {
    // Case ARP-27.
    let now = Instant::now();
    let mut engine = engine(now);
    drain(&mut engine);
    let mac = MacAddr([2, 0, 0, 0, 0, 0x77]);
    engine.set_interfaces(now, [Interface { mac, ..eth0() }]);
    let announced: Vec<Frame> = std::iter::from_fn(|| engine.poll_transmit()).map(|transmit| transmit.frame).collect();
    assert_eq!(announced.len(), 3);
    assert!(announced.iter().all(|frame| frame.as_bytes()[6..12] == mac.0));
    let reply = receive(&mut engine, now, 1, &request([192, 168, 10, 9], v4(), MacAddr::BROADCAST)).unwrap();
    assert_eq!(reply.as_bytes()[6..12], mac.0);
    assert_eq!(reply.as_bytes()[22..28], mac.0);
}

#[test]
fn repeated_interfaces_change_nothing() {
    let now = Instant::now();
    let mut engine = engine(now);
    drain(&mut engine);
    let next = engine.poll_timeout();
    engine.set_interfaces(now + Duration::from_millis(500), [eth0()]);
    assert_eq!((drain(&mut engine), engine.poll_timeout()), (0, next));
}

#[test]
fn interface_without_link_local_address_answers_arp_and_gets_no_groups() {
    // Cases NDP-33 and NDP-34.
    let now = Instant::now();
    let mut engine = Engine::new(Config::default(), 7, now);
    engine.set_interfaces(now, [Interface { link_local: None, ..eth0() }]);
    engine.set_addresses(now, [(v4(), Scope::All), (v6(), Scope::All)]);
    assert_eq!(drain(&mut engine), 2);
    assert_eq!(engine.poll_group(), None);
    assert!(receive(&mut engine, now, 1, &request([192, 168, 10, 9], v4(), US)).is_ok());
    engine.set_interfaces(now, [eth0()]);
    assert_eq!(drain(&mut engine), 3);
    assert_eq!(engine.poll_group().map(|change| change.membership), Some(Membership::Join));
}

#[test]
fn announcements_of_another_engine_are_not_answered() {
    // Both engines hold the same addresses for a moment, as in a planned move.
    let now = Instant::now();
    let mut old = engine(now);
    let mut new = Engine::new(Config::default(), 8, now);
    new.set_interfaces(now, [Interface { mac: CLIENT, link_local: Some("fe80::9".parse().unwrap()), ..eth0() }]);
    new.set_addresses(now, [(v4(), Scope::All), (v6(), Scope::All)]);
    drain(&mut old);
    let announced: Vec<Frame> = std::iter::from_fn(|| new.poll_transmit()).map(|transmit| transmit.frame).collect();
    assert_eq!(announced.len(), 3);
    for frame in announced {
        assert!(receive(&mut old, now, 1, frame.as_bytes()).is_err());
    }
    assert_eq!(drain(&mut old), 0, "the address is not reclaimed");
}

#[test]
fn yielded_address_is_answered_but_not_announced_and_has_no_conflicts() {
    let now = Instant::now();
    let mut engine = engine(now);
    drain(&mut engine);
    let yielded = || [v4(), v6()].map(|ip| Announcement { ip, scope: Scope::All, stance: Stance::Yield });
    engine.set_addresses(now, yielded());
    let later = now + Duration::from_secs(2);
    engine.handle_timeout(later);
    assert_eq!((drain(&mut engine), engine.poll_timeout()), (0, None));
    assert!(receive(&mut engine, later, 1, &request([192, 168, 10, 9], v4(), MacAddr::BROADCAST)).is_ok());
    let taken = Arp::gratuitous(Operation::Reply, CLIENT, [192, 168, 10, 0].into());
    assert_eq!(receive(&mut engine, later, 1, taken.as_bytes()), Err(DropReason::ArpReply));
    assert_eq!((engine.poll_event(), engine.counters().conflicts.len()), (None, 0));
    // A change of interfaces announces nothing either, and groups stay joined.
    engine.set_interfaces(later, [Interface { mac: MacAddr([2, 0, 0, 0, 0, 0x77]), ..eth0() }]);
    assert_eq!(drain(&mut engine), 0);
    assert_eq!(
        std::iter::from_fn(|| engine.poll_group()).last().map(|change| change.membership),
        Some(Membership::Join)
    );
    engine.set_addresses(later, [(v4(), Scope::All), (v6(), Scope::All)]);
    assert_eq!(drain(&mut engine), 3, "an address that is held again is announced");
}

#[test]
fn solicited_advertisement_overrides_caches_unless_another_speaker_may_own_the_address() {
    let now = Instant::now();
    let mut engine = engine(now);
    let solicited = solicitation(CLIENT, "fe80::9".parse().unwrap(), "fc00:f853:ccd:e799::".parse().unwrap());
    let flags = |engine: &mut Engine, at| receive(engine, at, 1, solicited.as_bytes()).unwrap().as_bytes()[58];
    assert_eq!(flags(&mut engine, now), 0x60, "held");
    engine.set_addresses(now, [Announcement { ip: v6(), scope: Scope::All, stance: Stance::Yield }]);
    assert_eq!(flags(&mut engine, now), 0x40, "yielding");
    engine.set_addresses(now, [(v6(), Scope::All)]);
    assert_eq!(flags(&mut engine, now), 0x60, "held again");

    let speaker = MacAddr([2, 0, 0, 0, 0, 0x33]);
    engine.set_speaker_macs([speaker]);
    let claim = ndp::unsolicited(speaker, "fe80::33".parse().unwrap(), "fc00:f853:ccd:e799::".parse().unwrap());
    assert!(receive(&mut engine, now, 1, claim.as_bytes()).is_err());
    assert_eq!(flags(&mut engine, now + Duration::from_millis(5999)), 0x40, "claimed by another speaker");
    assert_eq!(flags(&mut engine, now + Duration::from_secs(6)), 0x60, "the claim was not repeated");
    let later = now + Duration::from_secs(7);
    assert!(receive(&mut engine, later, 1, claim.as_bytes()).is_err());
    engine.announce_again(later, [v6()]);
    assert_eq!(flags(&mut engine, later), 0x60, "this speaker won the address");
}

#[test]
fn yielding_during_a_burst_cancels_the_rest() {
    let now = Instant::now();
    let mut engine = engine(now);
    assert!(engine.poll_transmit().is_some());
    engine.set_addresses(now, [v4(), v6()].map(|ip| Announcement { ip, scope: Scope::All, stance: Stance::Yield }));
    assert_eq!(drain(&mut engine), 0);
    assert_eq!(engine.poll_announced(), None, "a cancelled burst is not reported");
}

#[test]
fn address_is_reported_announced_once_after_its_first_round_on_all_interfaces() {
    let now = Instant::now();
    let mut engine = Engine::new(Config::default(), 7, now);
    let eth1 = Interface { index: 2, name: "eth1".into(), mac: MacAddr([2, 0, 0, 0, 0, 2]), ..eth0() };
    engine.set_interfaces(now, [eth0(), eth1]);
    engine.set_addresses(now, [(v4(), Scope::All), (v6(), Scope::Only(["eth9".into()].into()))]);
    for _ in 0..3 {
        assert!(engine.poll_transmit().is_some());
        assert_eq!(engine.poll_announced(), None);
    }
    assert!(engine.poll_transmit().is_some());
    assert_eq!(engine.poll_announced(), Some(v4()));
    engine.handle_timeout(now + Duration::from_secs(2));
    assert_eq!(drain(&mut engine), 4);
    assert_eq!(engine.poll_announced(), None, "later rounds and addresses without an interface are not reported");
}

#[test]
fn announce_again_replaces_the_running_burst() {
    let now = Instant::now();
    let mut engine = engine(now);
    drain(&mut engine);
    while engine.poll_announced().is_some() {}
    let later = now + Duration::from_millis(500);
    engine.announce_again(later, [v4(), "192.0.2.1".parse().unwrap()]);
    assert_eq!(drain(&mut engine), 2);
    assert_eq!((engine.poll_announced(), engine.poll_announced()), (Some(v4()), None));
    let mut rounds = Vec::new();
    while let Some(next) = engine.poll_timeout() {
        engine.handle_timeout(next);
        rounds.push(drain(&mut engine));
    }
    assert_eq!(rounds.iter().sum::<usize>(), 4 * 2 + 4, "each address has one burst: {rounds:?}");
}

#[test]
fn interface_used_only_by_name_is_not_in_scope_all() {
    // A member of a VRF belongs to another network.
    let now = Instant::now();
    let mut engine = Engine::new(Config::default(), 7, now);
    let member = Interface { only_by_name: true, mac: CLIENT, ..Interface::new(2, "blue0", CLIENT, None) };
    engine.set_interfaces(now, [eth0(), member]);
    engine.set_addresses(now, [(v4(), Scope::All)]);
    let mut ask = request([192, 168, 10, 9], v4(), MacAddr::BROADCAST);
    // The client has the MAC of that interface, so use another sender.
    (ask[11], ask[27]) = (0x33, 0x33);
    assert_eq!(receive(&mut engine, now, 2, &ask), Err(DropReason::NotMatchInterface));
    assert_eq!(std::iter::from_fn(|| engine.poll_transmit()).map(|t| t.interface).collect::<Vec<_>>(), [1, 1]);
    engine.set_addresses(now, [(v4(), Scope::Only(["blue0".into()].into()))]);
    assert_eq!(std::iter::from_fn(|| engine.poll_transmit()).map(|t| t.interface).collect::<Vec<_>>(), [2, 2]);
}

fn claim() -> [Announcement; 2] {
    [v4(), v6()].map(|ip| Announcement { ip, scope: Scope::All, stance: Stance::Claim })
}

/// Advances the time to `end`; returns the sent frames.
fn run_until(engine: &mut Engine, end: Instant) -> Vec<Frame> {
    let mut sent = Vec::new();
    loop {
        sent.extend(std::iter::from_fn(|| engine.poll_transmit()).map(|transmit| transmit.frame));
        match engine.poll_timeout() {
            Some(next) if next <= end => engine.handle_timeout(next),
            _ => return sent,
        }
    }
}

#[test]
fn claimed_address_is_probed_three_times_and_then_announced() {
    let start = Instant::now();
    let mut engine = Engine::new(Config::default(), 7, start);
    engine.set_interfaces(start, [eth0()]);
    engine.set_addresses(start, claim());
    let ask = request([192, 168, 10, 9], v4(), MacAddr::BROADCAST);
    assert_eq!(receive(&mut engine, start, 1, &ask), Err(DropReason::Probing));
    let probes = run_until(&mut engine, start + Duration::from_millis(550));
    let expected = [Arp::probe(US, [192, 168, 10, 0].into()), ndp::probe(US, "fc00:f853:ccd:e799::".parse().unwrap())];
    assert_eq!(probes, [expected, expected, expected].concat());
    let mut other = Engine::new(Config::default(), 8, start);
    other.set_interfaces(start, [Interface::new(1, "eth0", CLIENT, Some("fe80::9".parse().unwrap()))]);
    other.set_addresses(start, [(v4(), Scope::All), (v6(), Scope::All)]);
    for probe in expected {
        assert!(receive(&mut other, start, 1, probe.as_bytes()).is_ok(), "its holder answers");
    }
    engine.set_addresses(start, claim());
    let end = start + Duration::from_millis(900);
    assert_eq!(run_until(&mut engine, end).len(), 3, "repeating the claim does not restart the probes");
    assert_eq!(std::iter::from_fn(|| engine.poll_announced()).count(), 2);
    assert!(receive(&mut engine, end, 1, &ask).is_ok());
    engine.set_addresses(end, claim());
    engine.set_addresses(end, [(v4(), Scope::All), (v6(), Scope::All)]);
    assert_eq!(drain(&mut engine), 0, "a held address stays unchanged");
    assert_eq!(engine.counters().probes, 6);
}

#[test]
fn claimed_address_of_another_host_is_not_taken_and_probed_again() {
    let start = Instant::now();
    for answer in [
        Arp::gratuitous(Operation::Reply, CLIENT, [192, 168, 10, 0].into()),
        Arp::probe(CLIENT, [192, 168, 10, 0].into()),
        ndp::unsolicited(CLIENT, "fe80::9".parse().unwrap(), "fc00:f853:ccd:e799::".parse().unwrap()),
        ndp::probe(CLIENT, "fc00:f853:ccd:e799::".parse().unwrap()),
    ] {
        let mut engine = Engine::new(Config::default(), 7, start);
        engine.set_interfaces(start, [eth0()]);
        engine.set_addresses(start, claim());
        drain(&mut engine);
        for _ in 0..1000 {
            assert!(receive(&mut engine, start, 1, answer.as_bytes()).is_err());
        }
        let Some(Event::Occupied { ip, mac: CLIENT, .. }) = engine.poll_event() else { panic!("no event") };
        assert_eq!(engine.poll_event(), None, "reported once");
        let sent = run_until(&mut engine, start + Duration::from_secs(59));
        assert_eq!(sent.len(), if ip.is_ipv4() { 2 + 5 } else { 2 + 10 }, "only the other address is taken");
        assert!(engine.poll_timeout().is_some_and(|next| next <= start + Duration::from_secs(61)));
        // The other host no longer answers.
        run_until(&mut engine, start + Duration::from_secs(62));
        assert_eq!(std::iter::from_fn(|| engine.poll_announced()).filter(|&announced| announced == ip).count(), 1);
    }
}

#[test]
fn claim_of_another_speaker_is_no_conflict() {
    let now = Instant::now();
    let mut engine = Engine::new(Config { defence: Defence::Announce, ..Config::default() }, 7, now);
    engine.set_interfaces(now, [eth0()]);
    engine.set_addresses(now, [(v4(), Scope::All)]);
    engine.set_speaker_macs([CLIENT]);
    drain(&mut engine);
    let claim = Arp::gratuitous(Operation::Reply, CLIENT, [192, 168, 10, 0].into());
    assert_eq!(receive(&mut engine, now, 1, claim.as_bytes()), Err(DropReason::ArpReply));
    assert_eq!((engine.poll_event(), drain(&mut engine)), (None, 0));
    assert_eq!((engine.counters().conflicts.len(), engine.counters().claims_of_speakers), (0, 1));
    engine.set_speaker_macs([]);
    let _ = receive(&mut engine, now, 1, claim.as_bytes());
    assert!(engine.poll_event().is_some());
}

#[test]
fn address_is_defended_when_configured() {
    let now = Instant::now();
    let mut engine = Engine::new(Config { defence: Defence::Announce, ..Config::default() }, 7, now);
    engine.set_interfaces(now, [eth0()]);
    engine.set_addresses(now, [(v4(), Scope::All)]);
    drain(&mut engine);
    let claim = Arp::gratuitous(Operation::Request, CLIENT, [192, 168, 10, 0].into());
    let defences = [0, 1, 9, 10, 11].map(|second| {
        assert_eq!(
            receive(&mut engine, now + Duration::from_secs(second), 1, claim.as_bytes()),
            Err(DropReason::Gratuitous)
        );
        drain(&mut engine)
    });
    assert_eq!(defences, [2, 0, 0, 2, 0]);
}

#[test]
fn flood_is_limited_and_counted_while_another_sender_is_served() {
    // Cases ARP-30, ARP-31 and NDP-37.
    let now = Instant::now();
    let one = std::num::NonZeroU32::MIN;
    let rate = crate::limit::Rate { per_second: one, burst: one.saturating_add(9) };
    let limits = Limits { per_sender: Some(rate), total: None };
    let mut engine = Engine::new(Config { limits, ..Config::default() }, 7, now);
    engine.set_interfaces(now, [eth0()]);
    engine.set_addresses(now, [(v4(), Scope::All)]);
    let flood = request([192, 168, 10, 9], v4(), MacAddr::BROADCAST);
    let answered = (0..1000).filter(|_| receive(&mut engine, now, 1, &flood).is_ok()).count();
    assert_eq!(answered, 10);
    assert_eq!(engine.counters().dropped[&DropReason::RateLimited], 990);
    let mut other = flood;
    other[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x31]);
    other[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 0x31]);
    assert!(receive(&mut engine, now, 1, &other).is_ok());
}

#[test]
fn solicitation_for_a_similar_address_is_not_answered() {
    // Case NDP-38.
    let now = Instant::now();
    let mut engine = engine(now);
    let ours = std::net::Ipv6Addr::to_bits("fc00:f853:ccd:e799::".parse().unwrap());
    for bit in 0..128 {
        let asked = solicitation(CLIENT, "fe80::9".parse().unwrap(), std::net::Ipv6Addr::from_bits(ours ^ (1 << bit)));
        assert!(receive(&mut engine, now, 1, asked.as_bytes()).is_err());
    }
}

#[test]
fn foreign_address_is_neither_answered_nor_announced_until_it_is_free() {
    let now = Instant::now();
    let mut engine = engine(now);
    let (question, mut foreign) = (request([192, 168, 10, 9], v4(), MacAddr::BROADCAST), ForeignAddresses::new());
    foreign.add_interface_address(&"eth0".into(), v4(), 24);
    // During a burst, of which only the frame for the other address remains.
    engine.set_foreign_addresses(now, foreign.clone());
    let rest = std::iter::from_fn(|| engine.poll_transmit()).count();
    assert_eq!(rest, 1, "the advertisement");
    assert_eq!(receive(&mut engine, now, 1, &question), Err(DropReason::ForeignAddress));
    assert!(!engine.announces(v4()) && engine.announces(v6()));
    let reason = ForeignAddress::OwnAddress("eth0".into());
    assert_eq!(engine.refused(), [(v4(), reason)].into());
    engine.announce_again(now, [v4()]);
    assert_eq!(drain(&mut engine), 0);
    let claim = Arp::gratuitous(Operation::Reply, CLIENT, [192, 168, 10, 0].into());
    assert_eq!(receive(&mut engine, now, 1, claim.as_bytes()), Err(DropReason::ArpReply));
    assert_eq!(engine.poll_event(), None, "a claim of a foreign address is no conflict");
    engine.set_foreign_addresses(now, foreign);
    assert_eq!(drain(&mut engine), 0);
    engine.set_foreign_addresses(now, ForeignAddresses::new());
    assert_eq!(drain(&mut engine), 2, "announced like a new address");
    assert!(receive(&mut engine, now, 1, &question).is_ok());
    assert_eq!(engine.refused(), BTreeMap::new());
}

#[test]
fn claimed_foreign_address_is_probed_only_after_it_is_free() {
    let now = Instant::now();
    let mut engine = Engine::new(Config::default(), 7, now);
    engine.set_interfaces(now, [eth0()]);
    let mut foreign = ForeignAddresses::new();
    foreign.add_gateways(&[v4(), v6()]);
    engine.set_foreign_addresses(now, foreign);
    engine.set_addresses(now, claim());
    assert_eq!(run_until(&mut engine, now + Duration::from_secs(20)), []);
    assert_eq!(engine.poll_group(), None);
    assert_eq!(engine.refused().len(), 2);
    engine.set_addresses(now, NOTHING);
    assert_eq!(engine.refused(), BTreeMap::new(), "an unwanted address is not refused");
    engine.set_addresses(now, claim());
    engine.set_foreign_addresses(now, ForeignAddresses::new());
    run_until(&mut engine, now + Duration::from_secs(1));
    assert_eq!(engine.counters().probes, 6);
    assert!(engine.announces(v4()) && engine.announces(v6()));
}

#[test]
fn untaken_events_stay_bounded() {
    let now = Instant::now();
    let mut engine = Engine::new(Config::default(), 7, now);
    engine.set_interfaces(now, [eth0()]);
    let vips: Vec<std::net::Ipv4Addr> = (0..1000).map(|n| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n)).collect();
    engine.set_addresses(now, vips.iter().map(|&ip| (ip.into(), Scope::All)));
    for &ip in &vips {
        let _ = receive(&mut engine, now, 1, Arp::gratuitous(Operation::Reply, CLIENT, ip).as_bytes());
    }
    assert_eq!(engine.counters().lost_events, 1000 - EVENTS_KEPT as u64);
    assert_eq!(std::iter::from_fn(|| engine.poll_event()).count(), EVENTS_KEPT);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_engine_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ethertype in proptest::sample::select(vec![0x0806_u16, 0x86dd, 0x8100, 0x88a8]),
    ) {
        let now = Instant::now();
        let mut engine = engine(now);
        let mut frame = US.0.to_vec();
        frame.extend(CLIENT.0);
        frame.extend(ethertype.to_be_bytes());
        frame.extend(&bytes);
        for frame in [frame, bytes] {
            for checksum in [Checksum::Present, Checksum::Offloaded] {
                let _ = engine.handle_frame(now, &Received { interface: 1, bytes: &frame, checksum });
            }
        }
    }
}

proptest::proptest! {
    /// Changes lead to the same frames, answers, groups and refusals as the whole lists that they lead to.
    #[test]
    fn changes_equal_the_whole_list(
        rounds in proptest::collection::vec(proptest::collection::vec((0_u8..6, 0_u8..5), 0..5), 1..12),
    ) {
        let ips: [IpAddr; 6] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8:1::1", "2001:db8::2"]
            .map(|ip| ip.parse().unwrap());
        let start = Instant::now();
        let mut engines = [Engine::new(Config::default(), 7, start), Engine::new(Config::default(), 7, start)];
        for engine in &mut engines {
            let mut foreign = ForeignAddresses::new();
            foreign.add_interface_address(&"eth0".into(), ips[2], 32);
            engine.set_foreign_addresses(start, foreign);
            engine.set_interfaces(start, [eth0()]);
        }
        let mut whole: BTreeMap<IpAddr, Announcement> = BTreeMap::new();
        for (number, round) in rounds.into_iter().enumerate() {
            let now = start + Duration::from_millis(700) * number as u32;
            // In the order of the addresses, each once, as the whole list has them.
            let mut changes = BTreeMap::new();
            for (place, state) in round {
                let ip = ips[usize::from(place)];
                let announce = |scope, stance| AddressChange::Announce(Announcement { ip, scope, stance });
                changes.insert(ip, match state {
                    0 => announce(Scope::All, Stance::Hold),
                    1 => announce(Scope::Only(["eth1".into()].into()), Stance::Hold),
                    2 => announce(Scope::All, Stance::Yield),
                    3 => announce(Scope::All, Stance::Claim),
                    _ => AddressChange::Withdraw(ip),
                });
            }
            for change in changes.values() {
                match change {
                    AddressChange::Announce(announcement) => drop(whole.insert(announcement.ip, announcement.clone())),
                    AddressChange::Withdraw(ip) => drop(whole.remove(ip)),
                }
            }
            // A claim of a whole list that is repeated stays as it is, as does an address that no change names.
            engines[0].set_addresses(now, whole.values().cloned());
            engines[1].change_addresses(now, changes.into_values());
            let outputs = |engine: &mut Engine| {
                engine.handle_timeout(now);
                let mut groups: Vec<_> = std::iter::from_fn(|| engine.poll_group()).collect();
                groups.sort_by_key(|change| (change.interface, change.group));
                let frames: Vec<_> = std::iter::from_fn(|| engine.poll_transmit()).collect();
                let announced: Vec<_> = std::iter::from_fn(|| engine.poll_announced()).collect();
                (groups, frames, announced, engine.refused(), ips.map(|ip| engine.announces(ip)))
            };
            let by_list = outputs(&mut engines[0]);
            proptest::prop_assert_eq!(by_list, outputs(&mut engines[1]));
            for ip in ips {
                proptest::prop_assert_eq!(engines[1].refused().get(&ip).cloned(), engines[1].refusal(ip).cloned());
            }
        }
    }
}
