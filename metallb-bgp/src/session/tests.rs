use super::*;
use crate::wire::update::withdraw;

const PEER: Asn = Asn(7675);

fn config() -> SessionConfig {
    SessionConfig {
        asn: Asn(7776),
        remote: RemoteAsn::Number(PEER),
        hold_time: Duration::from_secs(90),
        keepalive_time: None,
        connect_time: None,
        families: vec![Family::Ipv4],
        graceful_restart: false,
    }
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

fn peer_open(asn: Asn, hold: u16) -> Vec<u8> {
    let open = Open {
        asn,
        hold_time: hold,
        router_id: id(1),
        capabilities: Capabilities { families: vec![Family::Ipv4], four_octet_asn: true, ..Capabilities::default() },
    };
    let mut out = Vec::new();
    open.encode(&mut out);
    out
}

fn kinds(bytes: &[u8]) -> Vec<MessageType> {
    let (mut rest, mut kinds) = (bytes, Vec::new());
    while let Some((kind, _, size)) = split(rest).unwrap() {
        kinds.push(kind);
        rest = &rest[size..];
    }
    kinds
}

fn keepalive_bytes() -> Vec<u8> {
    let mut out = Vec::new();
    keepalive(&mut out);
    out
}

fn established(now: Instant) -> Session {
    let mut session = Session::new(config(), id(11), 1, now);
    session.set_routes(now, routes(&["10.254.254.1/32"]));
    assert_eq!(session.poll_action(), Some(Action::Connect));
    session.handle_connected(now, id(11), next_hops());
    assert_eq!(kinds(&session.poll_transmit()), [MessageType::Open]);
    session.handle_bytes(now, &peer_open(PEER, 90));
    assert_eq!(kinds(&session.poll_transmit()), [MessageType::Keepalive]);
    session.handle_bytes(now, &keepalive_bytes());
    assert_eq!(session.state(), State::Established);
    session
}

#[test]
fn session_comes_up_offers_its_routes_and_marks_the_end() {
    let now = Instant::now();
    let mut session = established(now);
    assert_eq!(kinds(&session.poll_transmit()), [MessageType::Update, MessageType::Update]);
    assert!(matches!(session.poll_event(), Some(Event::Established { asn: PEER, .. })));
    session.set_routes(now, routes(&["10.254.254.1/32"]));
    assert!(session.poll_transmit().is_empty(), "the same routes again say nothing");
    session.set_routes(now, routes(&[]));
    let mut expected = Vec::new();
    withdraw(&mut expected, Family::Ipv4, &mut routes(&["10.254.254.1/32"]).into_keys());
    assert_eq!(session.poll_transmit(), expected);
}

#[test]
fn silence_ends_the_session_with_hold_timer_expired() {
    let start = Instant::now();
    let mut session = established(start);
    session.poll_transmit();
    let mut now = start;
    while session.state() == State::Established {
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
    }
    assert_eq!(now, start + Duration::from_secs(90));
    assert_eq!(session.last_down(), Some(&DownReason::Sent(Notification::hold_timer_expired())));
    let sent = kinds(&session.poll_transmit());
    assert_eq!(sent.last(), Some(&MessageType::Notification));
    assert!(sent.iter().filter(|kind| **kind == MessageType::Keepalive).count() >= 2);
}

#[test]
fn every_message_in_every_state_has_its_outcome() {
    let now = Instant::now();
    let messages: [(&str, Vec<u8>); 6] = [
        ("open", peer_open(PEER, 90)),
        ("keepalive", keepalive_bytes()),
        ("update", { let mut out = Vec::new(); update::end_of_rib(&mut out, Family::Ipv4); out }),
        ("refresh", { let mut out = Vec::new(); crate::wire::message(&mut out, 5, |out| out.extend_from_slice(&[0, 1, 0, 1])); out }),
        ("notification", { let mut out = Vec::new(); Notification::new(6, 4, &[]).encode(&mut out); out }),
        ("garbage", vec![0; 19]),
    ];
    let in_state = |state: State| {
        let mut session = Session::new(config(), id(11), 1, now);
        if state >= State::OpenSent {
            session.handle_connected(now, id(11), next_hops());
        }
        if state >= State::OpenConfirm {
            session.handle_bytes(now, &peer_open(PEER, 90));
        }
        if state >= State::Established {
            session.handle_bytes(now, &keepalive_bytes());
        }
        assert_eq!(session.state(), state);
        session
    };
    let mut table = Vec::new();
    for state in [State::Connect, State::OpenSent, State::OpenConfirm, State::Established] {
        for (name, bytes) in &messages {
            let mut session = in_state(state);
            session.handle_bytes(now, bytes);
            let down = session.last_down().map_or_else(String::new, |reason| format!(" {reason}"));
            table.push(format!("{state} {name}: {}{down}", session.state()));
        }
    }
    let expected = [
        "Connect open: Connect",
        "Connect keepalive: Connect",
        "Connect update: Connect",
        "Connect refresh: Connect",
        "Connect notification: Connect",
        "Connect garbage: Connect",
        "OpenSent open: OpenConfirm",
        "OpenSent keepalive: Idle sent Finite State Machine Error (5/1)",
        "OpenSent update: Idle sent Finite State Machine Error (5/1)",
        "OpenSent refresh: Idle sent Finite State Machine Error (5/1)",
        "OpenSent notification: Idle received Cease: Administrative Reset (6/4)",
        "OpenSent garbage: Idle sent Message Header Error: Connection Not Synchronized (1/1)",
        "OpenConfirm open: Idle sent Finite State Machine Error (5/2)",
        "OpenConfirm keepalive: Established",
        "OpenConfirm update: Idle sent Finite State Machine Error (5/2)",
        "OpenConfirm refresh: Idle sent Finite State Machine Error (5/2)",
        "OpenConfirm notification: Idle received Cease: Administrative Reset (6/4)",
        "OpenConfirm garbage: Idle sent Message Header Error: Connection Not Synchronized (1/1)",
        "Established open: Idle sent Finite State Machine Error (5/3)",
        "Established keepalive: Established",
        "Established update: Established",
        "Established refresh: Established",
        "Established notification: Idle received Cease: Administrative Reset (6/4)",
        "Established garbage: Idle sent Message Header Error: Connection Not Synchronized (1/1)",
    ];
    assert_eq!(table, expected);
}

#[test]
fn wrong_number_is_refused_with_bad_peer_as() {
    let now = Instant::now();
    let mut session = Session::new(config(), id(11), 1, now);
    session.handle_connected(now, id(11), next_hops());
    session.handle_bytes(now, &peer_open(Asn(1), 90));
    assert_eq!(session.last_down(), Some(&DownReason::Sent(Notification::new(2, 2, &[]))));
}

#[test]
fn a_peer_that_drops_at_once_is_not_hammered() {
    let start = Instant::now();
    let mut session = Session::new(config(), id(11), 1, start);
    let (mut now, mut attempts) = (start, 0);
    while now < start + Duration::from_secs(600) {
        while let Some(action) = session.poll_action() {
            if action == Action::Connect {
                attempts += 1;
                session.handle_connected(now, id(11), next_hops());
                session.handle_bytes(now, &peer_open(PEER, 90));
                session.handle_bytes(now, &keepalive_bytes());
                session.handle_failed(now, "reset");
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
    let mut session = Session::new(config(), id(11), 1, now);
    session.handle_connected(now, id(11), next_hops());
    for byte in peer_open(PEER, 30).into_iter().chain(keepalive_bytes()) {
        session.handle_bytes(now, &[byte]);
    }
    assert_eq!(session.state(), State::Established);
}

#[test]
fn planned_stop_tells_the_peer_unless_it_is_to_keep_the_routes() {
    let now = Instant::now();
    let mut session = established(now);
    session.poll_transmit();
    session.stop(now, true, "bye");
    assert_eq!(kinds(&session.poll_transmit()), [MessageType::Notification], "without graceful restart it is always told");
    assert_eq!(session.poll_timeout(), None, "a stopped session stays down");

    let mut session = Session::new(SessionConfig { graceful_restart: true, ..config() }, id(11), 1, now);
    session.handle_connected(now, id(11), next_hops());
    session.handle_bytes(now, &peer_open(PEER, 90));
    session.handle_bytes(now, &keepalive_bytes());
    session.poll_transmit();
    session.stop(now, true, "bye");
    assert!(session.poll_transmit().is_empty());
}
