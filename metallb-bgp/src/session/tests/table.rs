//! Every state with every event.

use std::fmt::Write as _;

use super::*;

/// Name, and what happens. It is told the moment.
type Input = (&'static str, fn(&mut Session, Instant));

const STATES: [State; 5] = [State::Idle, State::Connect, State::OpenSent, State::OpenConfirm, State::Established];

const INPUTS: [Input; 25] = [
    ("connected", |session, now| session.handle_connected(now, id(11), next_hops())),
    ("failed", |session, now| session.handle_failed(now, "reset")),
    ("OPEN", |session, now| session.handle_bytes(now, &peer_open(PEER, 90))),
    ("OPEN of another number", |session, now| session.handle_bytes(now, &peer_open(Asn(1), 90))),
    ("OPEN with hold time 1", |session, now| session.handle_bytes(now, &peer_open(PEER, 1))),
    ("KEEPALIVE", |session, now| session.handle_bytes(now, &keepalive_bytes())),
    ("UPDATE", |session, now| session.handle_bytes(now, &message_bytes(2, &[0, 0, 0, 0]))),
    ("UPDATE malformed", |session, now| session.handle_bytes(now, &message_bytes(2, &[0, 9, 0, 0]))),
    ("ROUTE-REFRESH", |session, now| session.handle_bytes(now, &refresh_bytes())),
    ("NOTIFICATION", |session, now| session.handle_bytes(now, &message_bytes(3, &[6, 4]))),
    ("marker wrong", |session, now| session.handle_bytes(now, &[0; 19])),
    ("length wrong", |session, now| session.handle_bytes(now, &[&[0xff; 16][..], &[0, 20, 4]].concat())),
    ("type wrong", |session, now| session.handle_bytes(now, &message_bytes(6, &[]))),
    ("half a message", |session, now| session.handle_bytes(now, &[0xff; 10])),
    ("timer IdleHold", |session, now| fire(session, now, Timer::IdleHold)),
    ("timer Connect", |session, now| fire(session, now, Timer::Connect)),
    ("timer Hold", |session, now| fire(session, now, Timer::Hold)),
    ("timer SendHold", |session, now| fire(session, now, Timer::SendHold)),
    ("timer Keepalive", |session, now| fire(session, now, Timer::Keepalive)),
    ("routes", |session, now| session.set_routes(now, routes(&["10.0.0.1/32"]))),
    ("blocked", |session, now| session.handle_send(now, true)),
    ("BFD down", |session, now| session.handle_bfd(now, BfdState::Down)),
    ("BFD up", |session, now| session.handle_bfd(now, BfdState::Up)),
    ("stop", |session, now| session.stop(now, Stop::Shutdown(String::new()))),
    ("stop to restart", |session, now| session.stop(now, Stop::Restart(String::new()))),
];

/// Makes one timer due now, if it can run in this state at all.
fn fire(session: &mut Session, now: Instant, timer: Timer) {
    if timer == Timer::SendHold && session.negotiated().is_some() {
        session.handle_send(now, true);
    }
    if session.timers.at(timer).is_some() {
        session.timers.set(timer, Some(now));
        session.handle_timeout(now);
    }
}

fn in_state(state: State, now: Instant) -> Session {
    let mut session = Session::new(config(), id(11), 1, now);
    session.handle_bfd(now, BfdState::Up);
    if state == State::Idle {
        session.handle_failed(now, "refused");
    }
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
    session.poll_transmit();
    while session.poll_action().is_some() {}
    while session.poll_event().is_some() {}
    session
}

#[test]
fn every_state_meets_every_event_with_the_outcome_of_the_table() {
    let now = Instant::now();
    let mut table = String::new();
    let mut pairs = 0;
    for state in STATES {
        for (name, input) in INPUTS {
            let mut session = in_state(state, now);
            input(&mut session, now);
            write!(table, "{state} + {name}: {}", session.state()).unwrap();
            for kind in kinds(&session.poll_transmit()) {
                write!(table, ", sends {kind:?}").unwrap();
            }
            while let Some(action) = session.poll_action() {
                write!(table, ", {action:?}").unwrap();
            }
            while let Some(event) = session.poll_event() {
                if let Event::Down { reason, .. } = event {
                    write!(table, ", {reason}").unwrap();
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
