//! Negotiated capabilities and their effects.

use super::*;
use crate::types::Attributes;
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::{DecodeContext, EXTENDED_MESSAGE_MAX, Message, decode};

fn open_with(capabilities: Capabilities) -> Vec<u8> {
    let capabilities = Capabilities { families: vec![Family::Ipv4], four_octet_asn: true, ..capabilities };
    open_bytes(&Open { asn: PEER, hold_time: 90, router_id: id(1), capabilities })
}

fn restarts(notification: bool) -> Vec<u8> {
    let restart = GracefulRestart { restart_time: 120, notification, ..GracefulRestart::default() };
    open_with(Capabilities { graceful_restart: Some(restart), ..Capabilities::default() })
}

/// The subtypes of ROUTE-REFRESH in a stream, each with the number of UPDATEs before it.
fn marks(mut bytes: &[u8]) -> Vec<(RefreshKind, usize)> {
    let (mut updates, mut marks) = (0, Vec::new());
    while let Some((message, size)) = decode(bytes, &DecodeContext::default()).unwrap() {
        match message {
            Message::Update(_) => updates += 1,
            Message::RouteRefresh(RouteRefresh { kind, family: Some(Family::Ipv4) }) => marks.push((kind, updates)),
            _ => {}
        }
        bytes = &bytes[size..];
    }
    marks
}

fn both_ways(config: SessionConfig) -> SessionConfig {
    SessionConfig { mode: Mode::Both, ..config }
}

#[test]
fn enhanced_refresh_is_demarcated_and_starts_after_end_of_rib() {
    let now = Instant::now();
    for enhanced in [false, true] {
        let mut peer = Peer::new(config(), 1, now);
        let capabilities = Capabilities { route_refresh: true, enhanced_refresh: enhanced, ..Capabilities::default() };
        bring_up(&mut peer, now, &open_with(capabilities));
        peer.handle_bytes(now, Slot::One, &refresh_bytes());
        assert_eq!(marks(&peer.poll_transmit(Slot::One)), [], "the routes are not known, so End-of-RIB was not sent");
        peer.set_routes(now, routes(&["10.0.0.1/32"]));
        // The route, End-of-RIB, BoRR, the route again, EoRR.
        let expected: &[_] = if enhanced { &[(RefreshKind::Begin, 2), (RefreshKind::End, 3)] } else { &[] };
        let sent = peer.poll_transmit(Slot::One);
        assert_eq!(marks(&sent), expected);
        assert_eq!(kinds(&sent).iter().filter(|kind| **kind == MessageType::Update).count(), 3);
    }
}

#[test]
fn refresh_requests_are_answered_at_most_once_a_second() {
    let start = Instant::now();
    let mut peer = established(start);
    peer.poll_transmit(Slot::One);
    let mut answers = 0;
    for tick in 0..10_000_u32 {
        let now = start + Duration::from_micros(400) * tick;
        peer.handle_timeout(now);
        peer.handle_bytes(now, Slot::One, &refresh_bytes());
        answers += kinds(&peer.poll_transmit(Slot::One)).len();
    }
    assert!((4..=5).contains(&answers), "{answers} answers in four seconds");
}

#[test]
fn unexpected_refresh_demarcation_and_unknown_subtypes_are_ignored() {
    let now = Instant::now();
    let mut peer = established(now);
    peer.poll_transmit(Slot::One);
    for subtype in [1, 2, 3, 255] {
        peer.handle_bytes(now, Slot::One, &message_bytes(5, &[0, 1, subtype, 1]));
        peer.handle_bytes(now, Slot::One, &message_bytes(5, &[0x40, 4, 0, 71]));
    }
    assert_eq!((peer.state(), peer.poll_transmit(Slot::One)), (State::Established, Vec::new()));
}

#[test]
fn extended_messages_are_sent_only_if_both_ends_agreed() {
    let now = Instant::now();
    let many: Vec<String> = (0..5000_u32).map(|n| format!("10.0.{}.{}/32", n >> 8, n & 255)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (ours, theirs, updates) in [(false, true, 7), (true, false, 7), (true, true, 1)] {
        let mut peer = Peer::new(SessionConfig { extended_messages: ours, ..config() }, 1, now);
        peer.set_routes(now, routes(&many));
        bring_up(&mut peer, now, &open_with(Capabilities { extended_message: theirs, ..Capabilities::default() }));
        let sent = peer.poll_transmit(Slot::One);
        let context = DecodeContext { extended_messages: true, ..DecodeContext::default() };
        let (mut rest, mut sizes) = (&sent[..], Vec::new());
        while let Some((message, size)) = decode(rest, &context).unwrap() {
            sizes.extend(matches!(message, Message::Update(_)).then_some(size));
            rest = &rest[size..];
        }
        assert_eq!(sizes.len(), updates + 1, "{ours} {theirs}: and End-of-RIB");
        assert!(sizes.iter().all(|size| *size <= if updates == 1 { EXTENDED_MESSAGE_MAX } else { 4096 }));
    }
}

#[test]
fn output_is_bounded_and_continues_when_the_connection_accepts_bytes() {
    let now = Instant::now();
    let mut peer = Peer::new(config(), 1, now);
    let attributes: Arc<Attributes> = Arc::default();
    let prefix = |n: u32| IpNet::from(std::net::IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
    peer.set_routes(now, (0..200_000).map(|n| (prefix(n), Arc::clone(&attributes))));
    bring_up(&mut peer, now, &peer_open(PEER, 90));
    let mut writes = 0;
    while peer.rib().advertised() < 200_000 {
        let bytes = peer.poll_transmit(Slot::One);
        assert!(!bytes.is_empty() && bytes.len() < 300_000, "{}", bytes.len());
        peer.handle_send(now, Slot::One, false);
        writes += 1;
    }
    assert!(writes >= 3);
    peer.handle_send(now, Slot::One, false);
    assert_eq!(kinds(&peer.poll_transmit(Slot::One)).last(), Some(&MessageType::Update), "End-of-RIB");
}

#[test]
fn draining_advertises_every_route_again_with_graceful_shutdown() {
    let now = Instant::now();
    let mut peer = established(now);
    peer.poll_transmit(Slot::One);
    for (draining, expected) in [(true, true), (false, false)] {
        peer.set_draining(now, draining);
        let sent = peer.poll_transmit(Slot::One);
        assert_eq!(kinds(&sent), [MessageType::Update]);
        assert_eq!(sent.windows(7).any(|part| part == [0xc0, 8, 4, 0xff, 0xff, 0, 0]), expected);
        peer.set_draining(now, draining);
        assert!(peer.poll_transmit(Slot::One).is_empty(), "a repeated call sends nothing");
    }
}

/// The table of `docs/design/0023-how-a-speaker-goes.md`.
#[test]
fn graceful_shutdown_is_started_unless_the_peer_keeps_the_routes_over_the_restart() {
    let now = Instant::now();
    for (config, open, keep_routes, with_routes, expected) in [
        (config(), peer_open(PEER, 90), true, true, true),
        (config(), peer_open(PEER, 90), true, false, false),
        (graceful(), restarts(false), true, true, false),
        (graceful(), restarts(false), false, true, true),
        (graceful(), peer_open(PEER, 90), true, true, true),
    ] {
        let mut peer = Peer::new(config, 1, now);
        assert!(!peer.prepare_leave(now, keep_routes), "there is no session");
        bring_up(&mut peer, now, &open);
        peer.set_routes(now, routes(if with_routes { &["10.0.0.1/32"] } else { &[] }));
        peer.poll_transmit(Slot::One);
        assert_eq!(peer.prepare_leave(now, keep_routes), expected);
        let sent = peer.poll_transmit(Slot::One);
        assert_eq!(sent.windows(7).any(|part| part == [0xc0, 8, 4, 0xff, 0xff, 0, 0]), expected);
    }
}

#[test]
fn peer_that_keeps_routes_after_a_notification_gets_a_hard_reset() {
    let now = Instant::now();
    for hard in [false, true] {
        let mut peer = Peer::new(graceful(), 1, now);
        bring_up(&mut peer, now, &restarts(hard));
        peer.stop(now, Stop::Deconfigured);
        let plain = Notification::new(CeaseSubcode::PeerDeconfigured, &[]);
        let expected = if hard { plain.hard_reset() } else { plain };
        assert_eq!(peer.last_down(), Some(&DownReason::Sent(expected)));
    }
}

#[test]
fn second_connection_of_an_established_session_is_closed_as_a_collision() {
    let now = Instant::now();
    let mut peer = Peer::new(both_ways(config()), 1, now);
    bring_up(&mut peer, now, &peer_open(PEER, 90));
    peer.poll_transmit(Slot::One);
    assert_eq!(peer.handle_accepted(now, id(11), next_hops()), Some(Slot::Two));
    let mut expected = Vec::new();
    Notification::new(CeaseSubcode::ConnectionCollision, &[]).encode(&mut expected);
    assert!(peer.poll_transmit(Slot::Two).ends_with(&expected));
    assert_eq!(peer.poll_action(), Some(Action::Connect(Slot::One)));
    assert_eq!((peer.poll_action(), peer.state()), (Some(Action::Close(Slot::Two)), State::Established));
}

#[test]
fn restarted_peer_replaces_its_old_session_without_a_notification() {
    let now = Instant::now();
    let mut peer = Peer::new(both_ways(graceful()), 1, now);
    peer.set_routes(now, routes(&["10.0.0.1/32"]));
    bring_up(&mut peer, now, &restarts(false));
    peer.poll_transmit(Slot::One);
    assert_eq!(peer.handle_accepted(now, id(11), next_hops()), Some(Slot::Two));
    assert_eq!(peer.state(), State::Established, "a connection without OPEN does not end the session");
    peer.handle_bytes(now, Slot::Two, &restarts(false));
    assert!(peer.poll_transmit(Slot::One).is_empty(), "nothing is sent on the old connection");
    peer.handle_bytes(now, Slot::Two, &keepalive_bytes());
    assert_eq!((peer.state(), peer.rib().advertised()), (State::Established, 1));
    assert_eq!(kinds(&peer.poll_transmit(Slot::Two)).last(), Some(&MessageType::Update));
}

#[test]
fn lost_session_is_reported_as_down_even_if_a_new_connection_is_open() {
    let now = Instant::now();
    let mut peer = Peer::new(both_ways(graceful()), 1, now);
    peer.set_routes(now, routes(&["10.0.0.1/32"]));
    bring_up(&mut peer, now, &restarts(false));
    assert_eq!(peer.handle_accepted(now, id(11), next_hops()), Some(Slot::Two));
    while peer.poll_event().is_some() {}
    peer.handle_failed(now, Slot::One, reset());
    assert_eq!((peer.state(), peer.rib().advertised()), (State::OpenSent, 0), "no route is advertised");
    let down = Event::Down { from: State::Established, reason: DownReason::ConnectionLost(reset()) };
    assert_eq!((peer.poll_event(), peer.last_down().map(DownReason::code)), (Some(down), Some("connection-lost")));
    peer.handle_bytes(now, Slot::Two, &restarts(false));
    peer.handle_bytes(now, Slot::Two, &keepalive_bytes());
    assert_eq!((peer.state(), peer.rib().advertised()), (State::Established, 1));
    assert!(peer.poll_action().is_some_and(|action| action == Action::Connect(Slot::One)), "the first attempt");
    assert_eq!(peer.poll_action(), Some(Action::Close(Slot::One)));
    assert_eq!(peer.poll_action(), None, "no third connection is opened");
}

#[test]
fn peer_accepts_connections_while_it_pauses_after_a_closed_attempt() {
    let now = Instant::now();
    let mut peer = Peer::new(both_ways(config()), 1, now);
    peer.handle_connected(now, id(11), next_hops());
    assert_eq!(peer.state(), State::OpenSent);
    // Otherwise two peers that pause in turn would refuse each other for ever.
    peer.handle_failed(now, Slot::One, ConnectionError::ClosedByPeer);
    assert!(peer.poll_timeout().is_some_and(|at| at > now), "it pauses");
    let slot = peer.handle_accepted(now, id(11), next_hops()).expect("accepted");
    peer.handle_bytes(now, slot, &helper_open());
    peer.handle_bytes(now, slot, &keepalive_bytes());
    assert_eq!(peer.state(), State::Established);
    // After an established session, or a NOTIFICATION, no connection is accepted before the pause is over.
    peer.handle_failed(now, slot, reset());
    assert_eq!((peer.state(), peer.handle_accepted(now, id(11), next_hops())), (State::Idle, None));
}

#[test]
fn active_peer_refuses_incoming_connections() {
    let now = Instant::now();
    let mut peer = Peer::new(config(), 1, now);
    assert_eq!(peer.handle_accepted(now, id(11), next_hops()), None);
    let mut passive = Peer::new(SessionConfig { mode: Mode::Passive, ..config() }, 1, now);
    assert_eq!((passive.poll_action(), passive.poll_timeout(), passive.state()), (None, None, State::Active));
    assert_eq!(passive.handle_accepted(now, id(11), next_hops()), Some(Slot::One));
}

#[test]
fn single_changes_are_sent_without_the_other_routes() {
    let now = Instant::now();
    let mut peer = established(now);
    peer.poll_transmit(Slot::One);
    let prefix: IpNet = "10.0.0.9/32".parse().unwrap();
    peer.change_routes(now, [(prefix, Some(Arc::default()))]);
    assert_eq!((kinds(&peer.poll_transmit(Slot::One)), peer.rib().advertised()), (vec![MessageType::Update], 2));
    peer.change_routes(now, [(prefix, None)]);
    assert_eq!((kinds(&peer.poll_transmit(Slot::One)), peer.rib().advertised()), (vec![MessageType::Update], 1));
    peer.change_routes(now, [(prefix, None)]);
    assert!(peer.poll_transmit(Slot::One).is_empty());
}

#[test]
fn two_octet_peer_gets_as_trans_and_as4_path() {
    let now = Instant::now();
    let asn = Asn(4_200_000_000);
    let mut peer = Peer::new(SessionConfig { asn, ..config() }, 1, now);
    peer.set_routes(now, routes(&["10.0.0.1/32"]));
    peer.handle_connected(now, id(11), next_hops());
    let open = peer.poll_transmit(Slot::One);
    assert_eq!(open[20..22], Asn::TRANS.to_be_bytes());
    let capabilities = Capabilities { families: vec![Family::Ipv4], ..Capabilities::default() };
    peer.handle_bytes(now, Slot::One, &open_bytes(&Open { asn: PEER, hold_time: 90, router_id: id(1), capabilities }));
    peer.handle_bytes(now, Slot::One, &keepalive_bytes());
    let sent = peer.poll_transmit(Slot::One);
    let has = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
    assert!(has(&[0x40, 2, 4, 2, 1, 0x5b, 0xa0]), "AS_PATH");
    assert!(has(&[0xc0, 17, 6, 2, 1, 0xfa, 0x56, 0xea, 0x00]), "AS4_PATH");
}

#[test]
fn own_bgp_identifier_is_refused_only_within_an_autonomous_system() {
    let now = Instant::now();
    for (remote, theirs, refused) in [(RemoteAsn::Internal, Asn(7776), true), (RemoteAsn::External, PEER, false)] {
        let mut peer = Peer::new(SessionConfig { remote, ..config() }, 1, now);
        peer.handle_connected(now, id(1), next_hops());
        peer.handle_bytes(now, Slot::One, &peer_open(theirs, 90));
        let reason = DownReason::Sent(Notification::new(OpenSubcode::BadBgpIdentifier, &[172, 16, 1, 1]));
        assert_eq!(peer.last_down(), refused.then_some(&reason));
    }
}

#[test]
fn smaller_proposed_hold_time_is_used() {
    let now = Instant::now();
    for (theirs, expected) in [(30, 30), (90, 90), (u16::MAX, 90)] {
        let mut peer = Peer::new(config(), 1, now);
        bring_up(&mut peer, now, &peer_open(PEER, theirs));
        assert_eq!(peer.negotiated().unwrap().hold_time, Duration::from_secs(expected));
        assert_eq!(
            peer.sessions[0].as_ref().unwrap().timers().at(Timer::Hold),
            Some(now + Duration::from_secs(expected))
        );
    }
}

#[test]
fn open_has_refresh_capabilities_and_the_restart_flag_only_after_a_restart() {
    let now = Instant::now();
    let mut peer = Peer::new(graceful(), 1, now);
    for restarting in [true, false] {
        peer.handle_connected(now, id(11), next_hops());
        let sent = peer.poll_transmit(Slot::One);
        let Ok(Some((Message::Open(open), _))) = decode(&sent, &DecodeContext::default()) else {
            panic!("{sent:02x?}")
        };
        let restart = open.capabilities.graceful_restart.unwrap();
        assert_eq!((restart.restarting, restart.notification, restart.preserved.len()), (restarting, true, 1));
        assert!(open.capabilities.route_refresh && open.capabilities.enhanced_refresh);
        peer.handle_bytes(now, Slot::One, &[restarts(true), keepalive_bytes()].concat());
        peer.handle_failed(now, Slot::One, reset());
        peer.handle_timeout(peer.poll_timeout().unwrap());
    }
}

#[test]
fn shutdown_communication_is_truncated_to_128_octets_at_a_character_boundary() {
    let Notification { data, .. } = Notification::shutdown(&ShutdownCommunication::new(&"é".repeat(100)));
    assert_eq!((data[0], data.len()), (128, 129));
    let Notification { data, .. } =
        Notification::shutdown(&ShutdownCommunication::new(&format!("a{}", "é".repeat(100))));
    assert_eq!((data[0], std::str::from_utf8(&data[1..]).map(str::len)), (127, Ok(127)));
}
