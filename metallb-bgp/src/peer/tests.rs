#![expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]

mod chaos;
mod features;
mod table;

use std::collections::BTreeMap;

use super::*;
use crate::error::IoError;
use crate::session::{RemoteAsn, SEND_HOLD};
use crate::types::{Asn, Family};
use crate::wire::iana::OpenSubcode;
use crate::wire::notification::{NotificationCode, ShutdownCommunication};
use crate::wire::open::{Capabilities, GracefulRestart, Open};
use crate::wire::update::withdraw;
use crate::wire::{DecodeContext, MessageType, split};

const PEER: Asn = Asn(7675);

fn config() -> SessionConfig {
    SessionConfig::new(Asn(7776), RemoteAsn::Number(PEER))
}

fn graceful() -> SessionConfig {
    SessionConfig { graceful_restart: true, ..config() }
}

fn reset() -> ConnectionError {
    IoError::from(std::io::ErrorKind::ConnectionReset).into()
}

fn refused() -> ConnectionError {
    IoError::from(std::io::ErrorKind::ConnectionRefused).into()
}

fn id(last: u8) -> RouterId {
    RouterId([172, 16, 1, last].into())
}

fn next_hops() -> NextHops {
    NextHops { v4: Some("172.16.1.11".parse().unwrap()), v6: Some("fd00::11".parse().unwrap()) }
}

fn routes(prefixes: &[&str]) -> BTreeMap<IpNet, Arc<Attributes>> {
    prefixes.iter().map(|prefix| (prefix.parse().unwrap(), Arc::default())).collect()
}

fn open_bytes(open: &Open) -> Vec<u8> {
    let mut out = Vec::new();
    open.encode(&mut out);
    out
}

fn peer_open(asn: Asn, hold: u16) -> Vec<u8> {
    let capabilities = Capabilities { families: vec![Family::Ipv4], four_octet_asn: true, ..Capabilities::default() };
    open_bytes(&Open { asn, hold_time: hold, router_id: id(1), capabilities })
}

/// The OPEN of a peer that keeps the routes while this speaker restarts.
fn helper_open() -> Vec<u8> {
    let restart = GracefulRestart { restart_time: 120, ..GracefulRestart::default() };
    let capabilities = Capabilities {
        families: vec![Family::Ipv4],
        four_octet_asn: true,
        graceful_restart: Some(restart),
        ..Capabilities::default()
    };
    open_bytes(&Open { asn: PEER, hold_time: 90, router_id: id(1), capabilities })
}

fn message_bytes(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::message(&mut out, kind, |out| out.extend_from_slice(body));
    out
}

fn keepalive_bytes() -> Vec<u8> {
    message_bytes(4, &[])
}

fn refresh_bytes() -> Vec<u8> {
    message_bytes(5, &[0, 1, 0, 1])
}

fn kinds(bytes: &[u8]) -> Vec<MessageType> {
    let (mut rest, mut kinds) = (bytes, Vec::new());
    while let Some((kind, _, size)) = split(rest, &DecodeContext::default()).unwrap() {
        kinds.push(kind);
        rest = &rest[size..];
    }
    kinds
}

fn bring_up(session: &mut Peer, now: Instant, open: &[u8]) {
    session.handle_connected(now, id(11), next_hops());
    session.handle_bytes(now, Slot::One, open);
    session.handle_bytes(now, Slot::One, &keepalive_bytes());
    assert_eq!(session.state(), State::Established);
}

fn established(now: Instant) -> Peer {
    let mut session = Peer::new(config(), 1, now);
    session.set_routes(now, routes(&["10.254.254.1/32"]));
    assert_eq!(session.poll_action(), Some(Action::Connect(Slot::One)));
    bring_up(&mut session, now, &peer_open(PEER, 90));
    session
}

#[test]
fn established_session_sends_its_routes_and_end_of_rib() {
    let now = Instant::now();
    let mut session = established(now);
    let expected = [MessageType::Open, MessageType::Keepalive, MessageType::Update, MessageType::Update];
    assert_eq!(kinds(&session.poll_transmit(Slot::One)), expected);
    assert!(matches!(session.poll_event(), Some(Event::Established { asn: PEER, .. })));
    session.set_routes(now, routes(&["10.254.254.1/32"]));
    assert!(session.poll_transmit(Slot::One).is_empty(), "unchanged routes send nothing");
    session.set_routes(now, routes(&[]));
    let mut expected = Vec::new();
    withdraw(&mut expected, Family::Ipv4, &mut routes(&["10.254.254.1/32"]).into_keys());
    assert_eq!(session.poll_transmit(Slot::One), expected);
}

#[test]
fn end_of_rib_waits_until_the_routes_are_known() {
    let now = Instant::now();
    let mut session = Peer::new(graceful(), 1, now);
    bring_up(&mut session, now, &helper_open());
    assert_eq!(
        kinds(&session.poll_transmit(Slot::One)),
        [MessageType::Open, MessageType::Keepalive],
        "otherwise the peer would drop the routes that it kept"
    );
    session.set_routes(now, routes(&["10.254.254.1/32"]));
    assert_eq!(kinds(&session.poll_transmit(Slot::One)), [MessageType::Update, MessageType::Update]);
}

#[test]
fn silent_peer_is_closed_with_hold_timer_expired() {
    let start = Instant::now();
    let mut session = established(start);
    session.poll_transmit(Slot::One);
    let mut now = start;
    while session.state() == State::Established {
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
    }
    assert_eq!(now, start + Duration::from_secs(90));
    assert_eq!(
        session.last_down(),
        Some(&DownReason::Sent(Notification::new(NotificationCode::HoldTimerExpired, &[])))
    );
    let sent = kinds(&session.poll_transmit(Slot::One));
    assert_eq!(sent.last(), Some(&MessageType::Notification));
    assert!(sent.iter().filter(|kind| **kind == MessageType::Keepalive).count() >= 2);
}

#[test]
fn keepalives_are_sent_at_the_configured_interval_but_at_least_three_per_hold_time() {
    for (configured, hold, interval) in [(None, 90, 30), (Some(7), 90, 7), (Some(60), 90, 30), (Some(7), 9, 3)] {
        let start = Instant::now();
        let mut session =
            Peer::new(SessionConfig { keepalive_time: configured.map(Duration::from_secs), ..config() }, 1, start);
        bring_up(&mut session, start, &peer_open(PEER, hold));
        session.poll_transmit(Slot::One);
        let (mut now, mut last) = (start, start);
        for _ in 0..20 {
            while session.poll_transmit(Slot::One).is_empty() {
                now = session.poll_timeout().unwrap();
                session.handle_timeout(now);
            }
            let gap = (now - last).as_secs_f64() / f64::from(interval);
            assert!((0.75..=1.0).contains(&gap), "{configured:?} of {hold}: {:?}", now - last);
            last = now;
            session.handle_bytes(now, Slot::One, &keepalive_bytes());
        }
    }
}

#[test]
fn connection_attempts_are_separated_by_the_configured_connect_time() {
    let start = Instant::now();
    let connect_time = Some(Duration::from_secs(8));
    let mut session = Peer::new(SessionConfig { connect_time, ..config() }, 1, start);
    let (mut now, mut attempts) = (start, Vec::new());
    while attempts.len() < 20 {
        while let Some(action) = session.poll_action() {
            if action == Action::Connect(Slot::One) {
                attempts.push(now);
                session.handle_failed(now, Slot::One, refused());
            }
        }
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
    }
    for pair in attempts.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((Duration::from_secs(6)..=Duration::from_secs(8)).contains(&gap), "{gap:?}");
    }
}

#[test]
fn hold_time_of_zero_disables_hold_and_keepalive_timers() {
    let now = Instant::now();
    let mut session = Peer::new(config(), 1, now);
    bring_up(&mut session, now, &peer_open(PEER, 0));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn blocked_connection_defers_updates_and_ends_when_the_send_hold_timer_expires() {
    let start = Instant::now();
    let mut session = established(start);
    session.poll_transmit(Slot::One);
    session.handle_send(start, Slot::One, true);
    for last in 1..200_u8 {
        session.set_routes(start, routes(&[&format!("10.254.254.{last}/32")]));
        session.handle_bytes(start, Slot::One, &refresh_bytes());
    }
    assert!(session.poll_transmit(Slot::One).is_empty(), "no update is added while the connection is blocked");
    let mut now = start;
    while session.state() == State::Established {
        session.handle_bytes(now, Slot::One, &keepalive_bytes());
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
    }
    assert_eq!(now, start + SEND_HOLD);
    assert_eq!(
        session.last_down(),
        Some(&DownReason::Sent(Notification::new(NotificationCode::SendHoldTimerExpired, &[])))
    );

    let mut session = established(start);
    session.poll_transmit(Slot::One);
    session.handle_send(start, Slot::One, true);
    session.set_routes(start, routes(&["10.0.0.1/32"]));
    session.set_routes(start, routes(&["10.0.0.2/32"]));
    session.handle_send(start, Slot::One, false);
    assert_eq!(
        kinds(&session.poll_transmit(Slot::One)),
        [MessageType::Update; 2],
        "one withdrawal, one announcement; the state in between is not sent"
    );
}

#[test]
fn many_refresh_requests_at_once_cause_one_response() {
    let now = Instant::now();
    let mut session = established(now);
    session.poll_transmit(Slot::One);
    session.handle_bytes(now, Slot::One, &refresh_bytes().repeat(1000));
    assert_eq!(kinds(&session.poll_transmit(Slot::One)), [MessageType::Update]);
    assert_eq!(session.counters().route_refreshes_received, 1000);
}

#[test]
fn wrong_as_number_is_refused_with_bad_peer_as() {
    let now = Instant::now();
    for (remote, theirs, accepted) in [
        (RemoteAsn::Number(PEER), PEER, true),
        (RemoteAsn::Number(PEER), Asn(1), false),
        (RemoteAsn::Internal, Asn(7776), true),
        (RemoteAsn::Internal, PEER, false),
        (RemoteAsn::External, PEER, true),
        (RemoteAsn::External, Asn(7776), false),
    ] {
        let mut session = Peer::new(SessionConfig { remote, ..config() }, 1, now);
        session.handle_connected(now, id(11), next_hops());
        session.handle_bytes(now, Slot::One, &peer_open(theirs, 90));
        let refused = DownReason::Sent(Notification::new(OpenSubcode::BadPeerAs, &[]));
        assert_eq!(session.last_down(), (!accepted).then_some(&refused), "{remote:?} {theirs}");
    }
}

#[test]
fn family_that_the_peer_does_not_support_is_not_advertised() {
    let now = Instant::now();
    let both = SessionConfig { families: vec![Family::Ipv4, Family::Ipv6], ..config() };
    let mut session = Peer::new(both, 1, now);
    session.set_routes(now, routes(&["10.0.0.1/32", "fd00:1::1/128"]));
    bring_up(&mut session, now, &peer_open(PEER, 90));
    let expected = [MessageType::Open, MessageType::Keepalive, MessageType::Update, MessageType::Update];
    assert_eq!(kinds(&session.poll_transmit(Slot::One)), expected);
    assert_eq!((session.rib().advertised(), session.rib().wanted()), (1, 2));
}

#[test]
fn peer_that_closes_at_once_is_retried_with_back_off() {
    let start = Instant::now();
    let mut session = Peer::new(config(), 1, start);
    let (mut now, mut attempts) = (start, 0);
    while now < start + Duration::from_secs(600) {
        while let Some(action) = session.poll_action() {
            if action == Action::Connect(Slot::One) {
                attempts += 1;
                bring_up(&mut session, now, &peer_open(PEER, 90));
                session.handle_failed(now, Slot::One, reset());
            }
        }
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
    }
    assert!((5..15).contains(&attempts), "{attempts}");
}

#[test]
fn bytes_may_arrive_one_by_one() {
    let now = Instant::now();
    let mut session = Peer::new(config(), 1, now);
    session.handle_connected(now, id(11), next_hops());
    for byte in peer_open(PEER, 30).into_iter().chain(keepalive_bytes()) {
        session.handle_bytes(now, Slot::One, &[byte]);
    }
    assert_eq!(session.state(), State::Established);
}

#[test]
fn stop_sends_a_notification_unless_the_peer_keeps_the_routes() {
    let now = Instant::now();
    let restart = || Stop::Restart("bye".into());
    let shutdown = Some(Notification::shutdown(&"bye".into()));
    for (config, open, stop, sent) in [
        (graceful(), helper_open(), restart(), None),
        (graceful(), helper_open(), Stop::Reconfigured, None),
        (graceful(), helper_open(), Stop::Shutdown("bye".into()), shutdown.clone()),
        (graceful(), helper_open(), Stop::Deconfigured, Some(Notification::new(CeaseSubcode::PeerDeconfigured, &[]))),
        (graceful(), peer_open(PEER, 90), restart(), shutdown.clone()),
        (config(), helper_open(), restart(), shutdown),
        (
            config(),
            helper_open(),
            Stop::Reconfigured,
            Some(Notification::new(CeaseSubcode::OtherConfigurationChange, &[])),
        ),
    ] {
        let mut session = Peer::new(config, 1, now);
        bring_up(&mut session, now, &open);
        session.poll_transmit(Slot::One);
        session.stop(now, stop.clone());
        let mut expected = Vec::new();
        sent.inspect(|notification| notification.encode(&mut expected));
        assert_eq!(session.poll_transmit(Slot::One), expected, "{stop:?}");
        assert_eq!(session.poll_timeout(), None, "a stopped peer never reconnects");
    }
}

#[test]
fn bfd_failure_ends_the_session_and_its_recovery_starts_the_next_attempt() {
    let now = Instant::now();
    let mut session = established(now);
    session.handle_bfd(now, BfdState::Down);
    assert_eq!(session.state(), State::Established, "BFD that was never up is ignored");
    session.handle_bfd(now, BfdState::Up);
    session.handle_bfd(now, BfdState::Down);
    assert_eq!(session.last_down(), Some(&DownReason::Sent(Notification::new(CeaseSubcode::BfdDown, &[]))));
    assert!(session.poll_timeout().unwrap() >= now + BFD_WAIT);
    session.handle_bfd(now, BfdState::Up);
    assert!(session.poll_timeout().unwrap() <= now + BFD_SETTLE);

    let mut session = established(now);
    session.handle_bfd(now, BfdState::Up);
    session.handle_bfd(now, BfdState::AdminDown);
    assert_eq!(session.state(), State::Established, "administratively down");
}

#[test]
fn bfd_that_does_not_return_delays_the_next_session_for_a_limited_time_and_does_not_end_it() {
    let now = Instant::now();
    let mut session = established(now);
    session.handle_bfd(now, BfdState::Up);
    session.handle_bfd(now, BfdState::Down);
    let mut at = now;
    while session.poll_action() != Some(Action::Connect(Slot::One)) {
        assert_eq!(session.waits_for_bfd_until(), session.poll_timeout());
        session.handle_bfd(at, BfdState::Down);
        at = session.poll_timeout().unwrap();
        session.handle_timeout(at);
    }
    assert!(at <= now + BFD_WAIT + Duration::from_secs(1), "{:?}", at - now);
    assert_eq!(session.waits_for_bfd_until(), None);
    session.poll_transmit(Slot::One);
    bring_up(&mut session, at, &peer_open(PEER, 90));
    session.handle_bfd(at, BfdState::Down);
    assert_eq!(session.state(), State::Established, "BFD was not up since");
    session.handle_bfd(at, BfdState::Up);
    session.handle_bfd(at, BfdState::Down);
    assert_eq!(session.state(), State::Idle, "BFD was up");
}

#[test]
fn bfd_failure_of_another_path_delays_no_attempt_and_ends_no_session() {
    let now = Instant::now();
    let mut session = established(now);
    session.handle_bfd(now, BfdState::Up);
    session.handle_bfd(now, BfdState::Down);
    session.forget_bfd(now);
    session.handle_bfd(now, BfdState::Down);
    assert_eq!(session.waits_for_bfd_until(), None);
    let at = session.poll_timeout().unwrap();
    assert!(at <= now + BFD_SETTLE, "{:?}", at - now);
    session.handle_timeout(at);
    session.poll_transmit(Slot::One);
    bring_up(&mut session, at, &peer_open(PEER, 90));
    session.handle_bfd(at, BfdState::Down);
    assert_eq!(session.state(), State::Established);
}

#[test]
fn next_hop_that_changes_is_advertised_and_one_that_disappears_is_withdrawn() {
    let now = Instant::now();
    let both = SessionConfig { families: vec![Family::Ipv4, Family::Ipv6], ..config() };
    let mut session = Peer::new(both, 1, now);
    session.set_routes(now, routes(&["10.0.0.1/32", "fd00:1::1/128"]));
    let only_v4 = NextHops { v6: None, ..next_hops() };
    session.handle_connected(now, id(11), only_v4);
    let capabilities = Capabilities { families: vec![Family::Ipv4, Family::Ipv6], ..Capabilities::default() };
    let open = Open { asn: PEER, hold_time: 90, router_id: id(1), capabilities };
    session.handle_bytes(now, Slot::One, &open_bytes(&open));
    session.handle_bytes(now, Slot::One, &keepalive_bytes());
    assert_eq!((session.rib().advertised(), session.next_hops()), (1, Some(&only_v4)));
    for (next_hops, advertised, updates) in
        [(next_hops(), 2, 1), (next_hops(), 2, 0), (only_v4, 1, 1), (NextHops::default(), 0, 1), (next_hops(), 2, 2)]
    {
        session.poll_transmit(Slot::One);
        session.set_next_hops(now, Slot::One, next_hops);
        let sent = kinds(&session.poll_transmit(Slot::One));
        assert_eq!((session.rib().advertised(), sent.len()), (advertised, updates), "{next_hops:?}");
    }
    assert_eq!(session.state(), State::Established);
    let v6 = NextHops { v6: Some("fd00::99".parse().unwrap()), ..next_hops() };
    session.set_next_hops(now, Slot::One, v6);
    let sent = session.poll_transmit(Slot::One);
    assert_eq!(kinds(&sent).len(), 1, "only the family whose next hop changed");
    assert!(sent.windows(16).any(|window| window == "fd00::99".parse::<std::net::Ipv6Addr>().unwrap().octets()));
}

#[test]
fn session_whose_local_address_is_removed_ends_with_a_notification_and_is_remade_at_once() {
    let now = Instant::now();
    let mut session = established(now);
    session.poll_transmit(Slot::One);
    session.handle_source_removed(now, Slot::One, "172.16.1.11".parse().unwrap());
    session.retry(now);
    let mut expected = Vec::new();
    Notification::new(CeaseSubcode::OtherConfigurationChange, &[]).encode(&mut expected);
    assert_eq!(session.poll_transmit(Slot::One), expected);
    let reason = session.last_down().map(ToString::to_string);
    assert_eq!(reason.as_deref(), Some("connection lost: the local address 172.16.1.11 was removed from this host"));
    assert!(session.poll_timeout().unwrap() <= now + RETRY);
}

#[test]
fn peer_that_names_other_families_only_gets_no_routes() {
    // The capability of an OPEN: multiprotocol with AFI and SAFI.
    let family = |afi: u8, safi: u8| [2, 6, 1, 4, 0, afi, 0, safi];
    for (families, advertised) in [
        (vec![], 1),
        (vec![family(1, 1)], 1),
        (vec![family(2, 1)], 0),
        (vec![family(1, 128)], 0),
        (vec![family(1, 2)], 0),
        (vec![family(25, 65)], 0),
        (vec![family(25, 70), family(2, 128)], 0),
        (vec![family(25, 70), family(1, 1)], 1),
    ] {
        let now = Instant::now();
        let mut session = Peer::new(config(), 1, now);
        session.set_routes(now, routes(&["10.0.0.1/32"]));
        session.handle_connected(now, id(11), next_hops());
        let parameters = families.concat();
        let mut open = vec![4, 29, 251, 0, 90, 172, 16, 1, 1, parameters.len() as u8];
        open.extend(&parameters);
        session.handle_bytes(now, Slot::One, &message_bytes(1, &open));
        session.handle_bytes(now, Slot::One, &keepalive_bytes());
        assert_eq!(session.state(), State::Established);
        assert_eq!(session.rib().advertised(), advertised, "{families:?}");
    }
}

#[test]
fn soft_change_keeps_the_session_and_a_restart_change_is_rejected() {
    let now = Instant::now();
    let mut session = established(now);
    assert!(session.reconfigure(SessionConfig { connect_time: Some(Duration::from_secs(7)), ..config() }));
    assert!(!session.reconfigure(SessionConfig { hold_time: Duration::from_secs(9), ..config() }));
    assert_eq!(session.state(), State::Established);
    session.handle_failed(now, Slot::One, reset());
    let pause = session.poll_timeout().unwrap() - now;
    assert!((Duration::from_millis(5250)..=Duration::from_secs(7)).contains(&pause), "{pause:?}");
}

#[test]
fn ipv4_prefixes_of_a_host_without_ipv4_get_an_ipv6_next_hop_if_the_peer_supports_it() {
    let now = Instant::now();
    let v6: std::net::IpAddr = "fd00::11".parse().unwrap();
    for supported in [false, true] {
        let mut session = Peer::new(SessionConfig { families: vec![Family::Ipv4, Family::Ipv6], ..config() }, 1, now);
        session.set_routes(now, routes(&["10.0.0.1/32", "fd00:1::1/128"]));
        session.handle_connected(now, id(11), NextHops { v4: None, v6: Some(v6) });
        let capabilities = Capabilities {
            families: vec![Family::Ipv4, Family::Ipv6],
            extended_next_hop: supported,
            ..Capabilities::default()
        };
        session.handle_bytes(
            now,
            Slot::One,
            &open_bytes(&Open { asn: PEER, hold_time: 90, router_id: id(1), capabilities }),
        );
        session.handle_bytes(now, Slot::One, &keepalive_bytes());
        assert_eq!(
            (session.negotiated().unwrap().extended_next_hop, session.rib().advertised()),
            (supported, 1 + usize::from(supported))
        );
    }
}
