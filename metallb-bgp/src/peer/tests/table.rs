//! The transition table: every state with every event.

use std::fmt::Write as _;

use super::*;

/// The name of an event, and a function that applies it at a point in time.
type Input = (&'static str, fn(&mut Peer, Instant));

/// A state, and whether the connection still delays our OPEN (DelayOpen).
const STATES: [(State, bool); 8] = [
    (State::Idle, false),
    (State::Connect, false),
    (State::Connect, true),
    (State::Active, false),
    (State::Active, true),
    (State::OpenSent, false),
    (State::OpenConfirm, false),
    (State::Established, false),
];

const INPUTS: [Input; 30] = [
    ("connected", |session, now| session.handle_connected(now, id(11), next_hops())),
    ("accepted", |session, now| {
        session.handle_accepted(now, id(11), next_hops());
    }),
    ("accepted, with the peer's OPEN", |session, now| {
        if let Some(slot) = session.handle_accepted(now, id(11), next_hops()) {
            session.handle_bytes(now, slot, &peer_open(PEER, 90));
        }
    }),
    ("failed", |session, now| session.handle_failed(now, Slot::One, reset())),
    ("OPEN", |session, now| session.handle_bytes(now, Slot::One, &peer_open(PEER, 90))),
    ("OPEN of another number", |session, now| session.handle_bytes(now, Slot::One, &peer_open(Asn(1), 90))),
    ("OPEN with hold time 1", |session, now| session.handle_bytes(now, Slot::One, &peer_open(PEER, 1))),
    ("KEEPALIVE", |session, now| session.handle_bytes(now, Slot::One, &keepalive_bytes())),
    ("UPDATE", |session, now| session.handle_bytes(now, Slot::One, &message_bytes(2, &[0, 0, 0, 0]))),
    ("UPDATE malformed", |session, now| session.handle_bytes(now, Slot::One, &message_bytes(2, &[0, 9, 0, 0]))),
    ("ROUTE-REFRESH", |session, now| session.handle_bytes(now, Slot::One, &refresh_bytes())),
    ("NOTIFICATION", |session, now| session.handle_bytes(now, Slot::One, &message_bytes(3, &[6, 4]))),
    ("marker wrong", |session, now| session.handle_bytes(now, Slot::One, &[0; 19])),
    ("length wrong", |session, now| session.handle_bytes(now, Slot::One, &[&[0xff; 16][..], &[0, 20, 4]].concat())),
    ("type wrong", |session, now| session.handle_bytes(now, Slot::One, &message_bytes(6, &[]))),
    ("half a message", |session, now| session.handle_bytes(now, Slot::One, &[0xff; 10])),
    ("timer IdleHold", |session, now| fire(session, now, Timer::IdleHold)),
    ("timer Connect", |session, now| fire(session, now, Timer::Connect)),
    ("timer DelayOpen", |session, now| fire(session, now, Timer::DelayOpen)),
    ("timer Refresh", |session, now| fire(session, now, Timer::Refresh)),
    ("timer Hold", |session, now| fire(session, now, Timer::Hold)),
    ("timer SendHold", |session, now| fire(session, now, Timer::SendHold)),
    ("timer Keepalive", |session, now| fire(session, now, Timer::Keepalive)),
    ("routes", |session, now| session.set_routes(now, routes(&["10.0.0.1/32"]))),
    ("draining", |session, now| session.set_draining(now, true)),
    ("blocked", |session, now| session.handle_send(now, Slot::One, true)),
    ("BFD down", |session, now| session.handle_bfd(now, BfdState::Down)),
    ("BFD up", |session, now| session.handle_bfd(now, BfdState::Up)),
    ("stop", |session, now| session.stop(now, Stop::Shutdown(ShutdownCommunication::default()))),
    ("stop to restart", |session, now| session.stop(now, Stop::Restart(ShutdownCommunication::default()))),
];

/// Makes one timer due now, if it can run in this state.
fn fire(session: &mut Peer, now: Instant, timer: Timer) {
    match timer {
        Timer::SendHold if session.negotiated().is_some() => session.handle_send(now, Slot::One, true),
        // The second request within a second starts the timer.
        Timer::Refresh if session.state() == State::Established => {
            session.handle_bytes(now, Slot::One, &refresh_bytes());
            session.handle_bytes(now, Slot::One, &refresh_bytes());
        }
        _ => {}
    }
    let timers = match timer {
        Timer::IdleHold | Timer::Connect => &mut session.timers,
        _ => match &mut session.sessions[0] {
            Some(one) => one.timers_mut(),
            None => return,
        },
    };
    if timers.at(timer).is_some() {
        timers.set(timer, Some(now));
        session.handle_timeout(now);
    }
}

fn in_state(state: State, delaying: bool, now: Instant) -> Peer {
    let delay_open = if delaying { Duration::from_secs(5) } else { Duration::ZERO };
    let mut session = Peer::new(SessionConfig { mode: Mode::Both, delay_open, ..config() }, 1, now);
    session.set_routes(now, BTreeMap::new());
    session.handle_bfd(now, BfdState::Up);
    match (state, delaying) {
        (State::Idle, _) => {
            session.handle_connected(now, id(11), next_hops());
            session.handle_bytes(now, Slot::One, &peer_open(PEER, 90));
            session.handle_failed(now, Slot::One, reset());
        }
        (State::Connect, false) => {}
        (State::Active, _) => {
            session.handle_failed(now, Slot::One, refused());
            if delaying {
                assert_eq!(session.handle_accepted(now, id(11), next_hops()), Some(Slot::One));
            }
        }
        _ => session.handle_connected(now, id(11), next_hops()),
    }
    if state >= State::OpenConfirm {
        session.handle_bytes(now, Slot::One, &peer_open(PEER, 90));
    }
    if state >= State::Established {
        session.handle_bytes(now, Slot::One, &keepalive_bytes());
    }
    assert_eq!(session.state(), state);
    session.poll_transmit(Slot::One);
    while session.poll_action().is_some() {}
    while session.poll_event().is_some() {}
    session
}

#[test]
fn every_state_handles_every_event_as_in_the_table() {
    let now = Instant::now();
    let mut table = String::new();
    let mut pairs = 0;
    for (state, delaying) in STATES {
        for (name, input) in INPUTS {
            let mut session = in_state(state, delaying, now);
            input(&mut session, now);
            let delay = if delaying { " delaying" } else { "" };
            write!(table, "{state}{delay} + {name}: {}", session.state()).unwrap();
            for slot in Slot::ALL {
                for kind in kinds(&session.poll_transmit(slot)) {
                    write!(table, ", sends {kind:?}").unwrap();
                    if slot == Slot::Two {
                        table.push_str(" on the new connection");
                    }
                }
            }
            while let Some(action) = session.poll_action() {
                write!(table, ", {action:?}").unwrap();
            }
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Down { reason, .. } => write!(table, ", {reason}").unwrap(),
                    Event::Dropped { role, reason } => write!(table, ", drops {role:?}: {reason}").unwrap(),
                    Event::Established { .. } => {}
                }
            }
            if session.state() == State::Idle && session.poll_timeout().is_none() {
                table.push_str(", for good");
            }
            table.push('\n');
            pairs += 1;
        }
    }
    assert_eq!(pairs, STATES.len() * INPUTS.len());
    assert_eq!(table, include_str!("transitions.txt"), "the table is now:\n{table}");
}
