//! Tests of the BFD thread with real sockets in network namespaces. Without the privilege to create them the tests are
//! skipped.

mod lab;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Instant;

use super::*;
use crate::bfd::tests::cases::{self, Envelope, Expect, LOCAL, PEER, Prelude, STRANGER, packet};
use crate::bfd::{ControlPacket, Interval, TTL};
use lab::{Lab, eventually};

#[test]
fn sockets_handle_every_case_as_in_the_table() {
    let Some(lab) = Lab::new(2) else { return };
    lab.address(0, 0, "10.9.0.1/24");
    lab.address(1, 0, "10.9.0.2/24");
    lab.address(1, 0, "10.9.0.3/24");
    lab.run(1, "ip route add 10.9.0.0/24 dev b1 src 10.9.0.2 metric 200");
    for case in cases::table() {
        let thread = lab.inside(0, || Driver::start(1)).unwrap();
        let handle = thread.handle();
        let path = BfdPath { interface: Some("a0".into()), ..BfdPath::new(PEER, case.hops) };
        // Slow timers, so that only the packets of the case cause changes.
        let profile = Profile { receive_interval: Interval(60_000_000), ..Profile::default() };
        handle.add_session(path.clone(), profile).unwrap();
        // Some cases send to the other port, so there must be a socket.
        let other = if case.hops == Hops::Single { Hops::Multiple } else { Hops::Single };
        handle
            .add_session(BfdPath::new(STRANGER, other), Profile { role: crate::bfd::Role::Passive, ..profile })
            .unwrap();
        // A child process of another test, between fork and exec, may still hold the ports of the previous case.
        let runs = || handle.report().unwrap().sessions.iter().all(|session| session.session.is_some());
        assert!(eventually(runs), "{}: {:?}", case.id, handle.report());
        let snapshot = || {
            let report = handle.report().unwrap();
            let session = report.sessions.iter().find(|session| session.path == path).unwrap().session.unwrap();
            (session, report.discards)
        };
        let mine = snapshot().0.discriminator;
        let port = |hops| if hops == Hops::Single { 3784 } else { 4784 };
        let send_from = |side, times, source: IpAddr, ttl: u8, device: Option<&str>, port: u16, payload: &[u8]| {
            let socket = lab.inside(side, || UdpSocket::bind(SocketAddr::new(source, 0))).unwrap();
            let socket = socket2::Socket::from(socket);
            socket.set_ttl_v4(ttl.max(1).into()).unwrap();
            socket.bind_device(device.map(str::as_bytes)).unwrap();
            for _ in 0..times {
                socket.send_to(payload, &SocketAddr::new(LOCAL, port).into()).unwrap();
            }
        };
        let send = |source, ttl, device, port, payload: &[u8]| send_from(1, 1, source, ttl, device, port, payload);
        if matches!(case.prelude, Prelude::Init | Prelude::Up) {
            let hello = ControlPacket { state: State::Down, your_discriminator: None, ..packet(mine) };
            send(PEER, TTL, None, port(case.hops), &hello.encode());
            assert!(eventually(|| snapshot().0.state == State::Init), "{}: receives", case.id);
        }
        match case.prelude {
            Prelude::Fresh | Prelude::Init => {}
            Prelude::Up => {
                send(PEER, TTL, None, port(case.hops), &packet(mine).encode());
                assert!(eventually(|| snapshot().0.state == State::Up), "{}: comes up", case.id);
            }
            Prelude::AdminDown => handle.set_admin(&path, false).unwrap(),
        }
        let before = snapshot();
        let to =
            if case.echo { 3785 } else { port(if case.envelope == Envelope::OtherPort { other } else { case.hops }) };
        let payload = (case.payload)(mine);
        let send = |source, ttl, device, port, payload: &[u8]| {
            send_from(1, case.times, source, ttl, device, port, payload);
        };
        let sent_at = Instant::now();
        match case.envelope {
            Envelope::OwnAddress => send_from(0, 1, LOCAL, TTL, None, to, &payload),
            Envelope::Stranger => send(STRANGER, TTL, None, to, &payload),
            Envelope::OtherInterface => send(PEER, TTL, Some("b1"), to, &payload),
            Envelope::Ttl(ttl) => send(PEER, ttl, None, to, &payload),
            Envelope::Right | Envelope::OtherPort => send(PEER, TTL, None, to, &payload),
        }
        let id = format!("{} {}", case.id, case.what);
        match case.expect {
            Expect::Accept { answered } => {
                let wanted = before.0.counters.control_packets_in + u64::from(case.times);
                assert!(eventually(|| snapshot().0.counters.control_packets_in == wanted), "{id}");
                let after = snapshot().0;
                assert_eq!(after.state, case.then.unwrap_or(before.0.state), "{id}");
                let sent = after.counters.control_packets_out - before.0.counters.control_packets_out;
                // One per ten milliseconds after the first few, and periodic packets.
                let max = 12 + u64::try_from(sent_at.elapsed().as_millis()).unwrap() / 10;
                assert!((u64::from(answered)..=max).contains(&sent), "{id}: {sent} packets");
                assert_eq!(after.counters.replies_limited > 0, case.times > 100, "{id}");
            }
            Expect::Drop(reason) => {
                let count =
                    || snapshot().1.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, count)| *count);
                assert!(eventually(|| count() == 1), "{id}: {:?}", snapshot());
                let after = snapshot().0;
                assert_eq!(after.counters.control_packets_in, before.0.counters.control_packets_in, "{id}");
                assert_eq!(after.state, before.0.state, "{id}");
            }
        }
    }
}

/// BFD-45 with link-local addresses.
#[test]
fn link_local_neighbor_is_accepted_on_its_own_link_only() {
    let Some(lab) = Lab::new(2) else { return };
    for link in 0..2 {
        lab.address(0, link, "fe80::a/64");
        lab.address(1, link, "fe80::b/64");
    }
    let [ours, theirs]: [std::net::Ipv6Addr; 2] = ["fe80::a", "fe80::b"].map(|address| address.parse().unwrap());
    let thread = lab.inside(0, || Driver::start(1)).unwrap();
    let path = BfdPath { interface: Some("a0".into()), ..BfdPath::new(theirs.into(), Hops::Single) };
    thread.handle().add_session(path, Profile::default()).unwrap();
    let report = || thread.handle().report().unwrap();
    let session = || report().sessions.remove(0).session.unwrap();
    let send = |device: &str, packet: ControlPacket| {
        lab.inside(1, || {
            let scope = nix::net::if_::if_nametoindex(device).unwrap();
            let socket = UdpSocket::bind(std::net::SocketAddrV6::new(theirs, 0, 0, scope)).unwrap();
            socket2::SockRef::from(&socket).set_unicast_hops_v6(TTL.into()).unwrap();
            socket.send_to(&packet.encode(), std::net::SocketAddrV6::new(ours, 3784, 0, scope)).unwrap();
        });
    };
    let mine = session().discriminator;
    let hello = ControlPacket { state: State::Down, your_discriminator: None, ..packet(mine) };
    let dropped = |reason| report().discards.iter().any(|(counted, count)| (*counted, *count) == (reason, 1));
    send("b1", hello);
    assert!(eventually(|| dropped(crate::bfd::Discard::UnknownNeighbor)), "{:?}", report());
    send("b1", packet(mine));
    assert!(eventually(|| dropped(crate::bfd::Discard::WrongPath)), "{:?}", report());
    assert_eq!((session().state, session().counters.control_packets_in), (State::Down, 0));
    send("b0", hello);
    assert!(eventually(|| session().state == State::Init), "{:?}", report());
    send("b0", packet(mine));
    assert!(eventually(|| session().state == State::Up), "{:?}", report());
}

#[test]
fn two_threads_come_up_over_every_kind_of_path_and_detect_a_failure() {
    let Some(lab) = Lab::new(1) else { return };
    lab.address(0, 0, "10.9.0.1/24");
    lab.address(1, 0, "10.9.0.2/24");
    lab.address(0, 0, "fd00:9::1/64");
    lab.address(1, 0, "fd00:9::2/64");
    let link_local = [lab.link_local(0), lab.link_local(1)];
    for (hops, addresses, interfaces) in [
        (Hops::Single, ["10.9.0.1".parse().unwrap(), "10.9.0.2".parse().unwrap()], [None, None]),
        (Hops::Multiple, ["10.9.0.1".parse().unwrap(), "10.9.0.2".parse().unwrap()], [None, None]),
        (Hops::Single, ["fd00:9::1".parse().unwrap(), "fd00:9::2".parse().unwrap()], [None, None]),
        (Hops::Multiple, ["fd00:9::1".parse().unwrap(), "fd00:9::2".parse().unwrap()], [None, None]),
        (Hops::Single, link_local, [Some("a0"), Some("b0")]),
    ] {
        let echo = (hops == Hops::Single).then_some(Interval(200_000));
        let profile = Profile {
            echo,
            transmit_interval: Interval(200_000),
            receive_interval: Interval(200_000),
            ..Profile::default()
        };
        let ends = [0, 1].map(|end: usize| {
            let thread = lab.inside(end, || Driver::start(end as u64)).unwrap();
            let path = BfdPath { interface: interfaces[end].map(Into::into), ..BfdPath::new(addresses[1 - end], hops) };
            let status = thread.handle().add_session(path.clone(), profile).unwrap();
            (thread, path, status)
        });
        assert!(
            eventually(|| ends.iter().all(|(_, _, status)| status.borrow().state == State::Up)),
            "{addresses:?} {hops:?}: {:?}",
            ends[0].0.handle().report()
        );
        let counters = |end: usize| ends[end].0.handle().report().unwrap().sessions[0].session.unwrap().counters;
        if echo.is_some() {
            assert!(
                eventually(|| counters(0).echo_packets_in > 3),
                "{addresses:?}: echo packets are returned, {:?}",
                ends[0].0.handle().report()
            );
        }
        // A change of timers does not take the session down.
        ends[0]
            .0
            .handle()
            .add_session(ends[0].1.clone(), Profile { transmit_interval: Interval(300_000), ..profile })
            .unwrap();
        assert!(eventually(|| counters(0).control_packets_in > 15));
        assert_eq!(counters(0).down_events, 0);
        // Failure: packets of the other end are lost.
        lab.run(1, "tc qdisc add dev b0 root netem loss 100%");
        let drop_all = "nft add table inet cut; \
                        nft add chain inet cut out { type filter hook output priority 0 \\; policy drop \\; }";
        if !lab.run(1, drop_all) {
            println!("nft cannot be used, the failure is not tested for {addresses:?}");
            continue;
        }
        assert!(eventually(|| ends[0].2.borrow().state != State::Up));
        assert!(ends[0].2.borrow().failures > 0);
        lab.run(1, "nft delete table inet cut");
        assert!(eventually(|| ends.iter().all(|(_, _, status)| status.borrow().state == State::Up)));
        // A shutdown is no failure for the other side.
        let [(first, ..), (_, _, second)] = ends;
        let failures = second.borrow().failures;
        first.shutdown(Duration::from_millis(300));
        assert!(eventually(|| second.borrow().cause == Some(Cause::NeighborAdminDown)));
        assert_eq!(second.borrow().failures, failures);
    }
}

#[test]
fn packet_that_the_kernel_refuses_is_counted_and_the_session_continues() {
    // BFD-48: no route to the neighbour, then one.
    let Some(lab) = Lab::new(1) else { return };
    let thread = lab.inside(0, || Driver::start(1)).unwrap();
    let path = BfdPath::new(PEER, Hops::Single);
    thread.handle().add_session(path, Profile::default()).unwrap();
    let snapshot = || thread.handle().report().unwrap().sessions.remove(0);
    assert!(eventually(|| snapshot().send_errors > 1));
    lab.address(0, 0, "10.9.0.1/24");
    let sent = snapshot().session.unwrap().counters.control_packets_out;
    let errors = snapshot().send_errors;
    assert!(eventually(|| snapshot().session.unwrap().counters.control_packets_out > sent + 1));
    assert!(snapshot().send_errors <= errors + 1);
}

#[test]
fn missing_interface_is_a_problem_until_it_appears() {
    let Some(lab) = Lab::new(1) else { return };
    let thread = lab.inside(0, || Driver::start(1)).unwrap();
    let path = BfdPath { interface: Some("late0".into()), ..BfdPath::new(PEER, Hops::Single) };
    let status = thread.handle().add_session(path, Profile::default()).unwrap();
    assert!(status.borrow().problem.is_some());
    lab.run(0, "ip link add late0 type veth peer name late1");
    lab.run(0, "ip link set late0 up");
    lab.run(0, "ip address add 10.9.0.1/24 dev late0");
    assert!(eventually(|| status.borrow().problem.is_none()));
}

#[test]
fn source_ports_are_in_the_dynamic_range_and_differ_between_sessions() {
    let Some(lab) = Lab::new(1) else { return };
    lab.address(0, 0, "10.9.0.1/24");
    lab.address(1, 0, "10.9.0.2/24");
    lab.address(1, 0, "10.9.0.3/24");
    let sockets = [PEER, STRANGER].map(|address| {
        let socket = lab.inside(1, || UdpSocket::bind(SocketAddr::new(address, 3784))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        nix::sys::socket::setsockopt(&socket.as_fd(), nix::sys::socket::sockopt::Ipv4RecvTtl, &true).unwrap();
        socket
    });
    let thread = lab.inside(0, || Driver::start(1)).unwrap();
    for address in [PEER, STRANGER] {
        thread.handle().add_session(BfdPath::new(address, Hops::Single), Profile::default()).unwrap();
    }
    let ports = sockets.map(|socket| {
        let ports: Vec<u16> = (0..3).map(|_| socket.recv_from(&mut [0; 64]).unwrap().1.port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port >= 49_152), "{ports:?}");
        ports[0]
    });
    assert_ne!(ports[0], ports[1]);
}

#[test]
fn frr_negotiates_timers_and_both_ends_detect_a_failure() {
    let Some(lab) = Lab::new(1) else { return };
    lab.address(0, 0, "10.9.0.1/24");
    lab.address(1, 0, "10.9.0.2/24");
    lab.address(0, 0, "fd00:9::1/64");
    lab.address(1, 0, "fd00:9::2/64");
    for (remote, ours, hops, echo) in [
        ("10.9.0.2", "10.9.0.1", Hops::Single, false),
        ("fd00:9::2", "fd00:9::1", Hops::Single, false),
        ("10.9.0.2", "10.9.0.1", Hops::Multiple, false),
        ("fd00:9::2", "fd00:9::1", Hops::Multiple, false),
        // FRR returns IPv6 echo packets itself; for IPv4 it relies on the forwarding plane.
        ("fd00:9::2", "fd00:9::1", Hops::Single, true),
    ] {
        let multihop = if hops == Hops::Multiple { " multihop" } else { "" };
        let local = if remote.contains(':') || hops == Hops::Multiple {
            format!(" local-address {remote}")
        } else {
            String::new()
        };
        let mut commands = vec![
            "configure terminal".to_owned(),
            "bfd".into(),
            format!("peer {ours}{multihop}{local}"),
            "transmit-interval 60".into(),
            "receive-interval 70".into(),
            "detect-multiplier 4".into(),
        ];
        if echo {
            commands.push("echo-mode".into());
        }
        commands.push("no shutdown".into());
        let Some(frr) = lab.frr(1, &commands) else { return };
        let thread = lab.inside(0, || Driver::start(1)).unwrap();
        let profile = Profile {
            transmit_interval: Interval(50_000),
            receive_interval: Interval(80_000),
            echo: echo.then_some(Interval(50_000)),
            ..Profile::default()
        };
        let path = BfdPath { local: Some(ours.parse().unwrap()), ..BfdPath::new(remote.parse().unwrap(), hops) };
        let status = thread.handle().add_session(path.clone(), profile).unwrap();
        let report = || thread.handle().report().unwrap();
        let what = format!("{ours}{multihop}, echo {echo}");
        assert!(eventually(|| status.borrow().state == State::Up), "{what}: {:?} {}", report(), frr.peers());
        let session = || report().sessions.remove(0).session.unwrap();
        // Ours: max(50, their 70) and 4 × max(80, their 60).
        assert!(eventually(|| session().transmit_interval == Some(Duration::from_millis(70))), "{what}");
        assert!(eventually(|| session().detection_time == Duration::from_millis(320)), "{what}");
        let wanted = [
            "\"status\":\"up\"",
            "\"remote-receive-interval\":80",
            "\"remote-transmit-interval\":50",
            "\"remote-detect-multiplier\":3",
        ];
        let seen = || frr.peers().replace([' ', '\n'], "");
        assert!(eventually(|| wanted.iter().all(|wanted| seen().contains(wanted))), "{what}: {}", seen());
        if echo {
            assert!(eventually(|| session().counters.echo_packets_in > 5), "{what}: {:?} {}", report(), seen());
        }
        // Failure of FRR.
        frr.signal(nix::sys::signal::Signal::SIGSTOP);
        assert!(eventually(|| status.borrow().state == State::Down), "{what}");
        assert_eq!(status.borrow().failures, 1);
        frr.signal(nix::sys::signal::Signal::SIGCONT);
        assert!(eventually(|| status.borrow().state == State::Up), "{what}: recovers");
        // Administrative down of ours: FRR hears it; then silence of ours.
        thread.handle().set_admin(&path, false).unwrap();
        assert!(eventually(|| seen().contains("\"status\":\"down\"")), "{what}: {}", seen());
        thread.handle().set_admin(&path, true).unwrap();
        assert!(eventually(|| seen().contains("\"status\":\"up\"")), "{what}: {}", seen());
        drop(thread);
        assert!(eventually(|| seen().contains("\"status\":\"down\"")), "{what}: {}", seen());
    }
}

#[test]
fn bird_and_we_come_up_and_detect_silence() {
    let Some(lab) = Lab::new(1) else { return };
    lab.address(0, 0, "10.9.0.1/24");
    lab.address(1, 0, "10.9.0.2/24");
    let Some(bird) = lab.bird(
        1,
        "router id 10.9.0.2;\nprotocol device {}\nprotocol bfd {\n \
         interface \"b0\" { min rx interval 60 ms; min tx interval 60 ms; multiplier 3; };\n neighbor 10.9.0.1 dev \"b0\" local 10.9.0.2;\n}\n",
    ) else {
        return;
    };
    let thread = lab.inside(0, || Driver::start(1)).unwrap();
    let profile =
        Profile { transmit_interval: Interval(50_000), receive_interval: Interval(50_000), ..Profile::default() };
    let status = thread.handle().add_session(BfdPath::new(PEER, Hops::Single), profile).unwrap();
    assert!(eventually(|| status.borrow().state == State::Up), "{}", bird.sessions());
    assert!(eventually(|| bird.sessions().contains("Up")), "{}", bird.sessions());
    bird.signal(nix::sys::signal::Signal::SIGSTOP);
    assert!(eventually(|| status.borrow().failures == 1));
    bird.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(eventually(|| status.borrow().state == State::Up));
    drop(thread);
    assert!(eventually(|| !bird.sessions().contains("Up")), "{}", bird.sessions());
}
