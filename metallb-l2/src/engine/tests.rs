use super::*;
use crate::wire::ndp::solicitation;

const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn eth0() -> Interface {
    Interface { index: 1, name: "eth0".into(), mac: US, arp: true, link_local: Some("fe80::1".parse().unwrap()) }
}

fn v4() -> IpAddr {
    "192.168.10.0".parse().unwrap()
}

fn v6() -> IpAddr {
    "fc00:f853:ccd:e799::".parse().unwrap()
}

fn engine(now: Instant) -> Engine {
    let mut engine = Engine::new(7);
    engine.set_interfaces(now, [eth0()]);
    engine.set_addresses(now, [(v4(), Scope::All), (v6(), Scope::All)]);
    engine
}

fn request(sender: [u8; 4], target: IpAddr, destination: MacAddr) -> Vec<u8> {
    let IpAddr::V4(target) = target else { panic!("IPv4 only") };
    let arp = Arp {
        operation: Operation::Request,
        sender_hardware: ASKER,
        sender_protocol: sender.into(),
        target_hardware: MacAddr([0; 6]),
        target_protocol: target,
    };
    arp.encode(destination).as_bytes().to_vec()
}

fn drain(engine: &mut Engine) -> usize {
    std::iter::from_fn(|| engine.poll_transmit()).count()
}

#[test]
fn requests_to_us_to_everybody_and_probes_are_answered() {
    let now = Instant::now();
    let mut engine = engine(now);
    for frame in [
        request([192, 168, 10, 9], v4(), MacAddr::BROADCAST),
        request([192, 168, 10, 9], v4(), US),
        request([0, 0, 0, 0], v4(), MacAddr::BROADCAST),
        solicitation(ASKER, "fe80::9".parse().unwrap(), "fc00:f853:ccd:e799::".parse().unwrap()).as_bytes().to_vec(),
    ] {
        let reply = engine.handle_frame(now, 1, &frame).unwrap();
        assert_eq!(reply.as_bytes()[..6], ASKER.0);
        assert_eq!(reply.as_bytes()[6..12], US.0);
    }
    assert_eq!(engine.counters().responses[&v4()], 3);
}

#[test]
fn everything_else_is_dropped_with_its_reason() {
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
        assert_eq!(engine.handle_frame(now, 1, &frame), Err(reason));
    }
    assert_eq!(engine.handle_frame(now, 2, &good), Err(DropReason::Interface));
    engine.set_addresses(now, [(v4(), Scope::Only(["eth1".into()].into()))]);
    assert_eq!(engine.handle_frame(now, 1, &good), Err(DropReason::NotMatchInterface));
}

#[test]
fn new_addresses_are_announced_five_times_and_repeating_them_adds_nothing() {
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
}

#[test]
fn an_address_that_is_gone_falls_silent_at_once() {
    let now = Instant::now();
    let mut engine = engine(now);
    drain(&mut engine);
    engine.set_addresses(now, []);
    engine.handle_timeout(now + Duration::from_secs(2));
    assert_eq!(drain(&mut engine), 0);
    assert!(engine.handle_frame(now, 1, &request([192, 168, 10, 9], v4(), US)).is_err());
}

#[test]
fn groups_are_joined_on_interfaces_that_appear_later_and_left_with_the_last_address() {
    let now = Instant::now();
    let mut engine = engine(now);
    let changes = |engine: &mut Engine| std::iter::from_fn(|| engine.poll_group()).map(|c| (c.interface, c.join)).collect::<Vec<_>>();
    assert_eq!(changes(&mut engine), [(1, true)]);
    let eth1 = Interface { index: 2, name: "eth1".into(), mac: MacAddr([2, 0, 0, 0, 0, 2]), ..eth0() };
    engine.set_interfaces(now, [eth0(), eth1]);
    assert_eq!(changes(&mut engine), [(2, true)]);
    let twin: IpAddr = "fd00:1::".parse().unwrap();
    engine.set_addresses(now, [(twin, Scope::All)]);
    assert_eq!(changes(&mut engine), []);
    engine.set_addresses(now, []);
    assert_eq!(changes(&mut engine), [(1, false), (2, false)]);
}

#[test]
fn another_host_with_our_address_is_reported_once() {
    let now = Instant::now();
    let mut engine = engine(now);
    for _ in 0..3 {
        let _ = engine.handle_frame(now, 1, &request([192, 168, 10, 0], "192.168.10.7".parse().unwrap(), MacAddr::BROADCAST));
    }
    assert_eq!(engine.poll_event(), Some(Event::Conflict { ip: v4(), mac: ASKER, interface: "eth0".into() }));
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
