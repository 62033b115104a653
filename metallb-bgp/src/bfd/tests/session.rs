//! One session with scripted packets.

use super::*;

const SINGLE: Hops = Hops::Single;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn profile(transmit: u32, receive: u32, multiplier: u8) -> Profile {
    Profile {
        transmit_interval: Interval(transmit * 1_000),
        receive_interval: Interval(receive * 1_000),
        detect_multiplier: std::num::NonZeroU8::new(multiplier).unwrap(),
        ..Profile::default()
    }
}

/// Processes timers until `until` without received packets, and returns the sent packets with their times.
fn run(engine: &mut Engine, until: Instant) -> Vec<(Instant, ControlPacket)> {
    let mut sent = Vec::new();
    while let Some(now) = engine.poll_timeout().filter(|at| *at <= until) {
        engine.handle_timeout(now);
        sent.extend(drain(engine).into_iter().map(|packet| (now, packet)));
    }
    sent
}

#[test]
fn every_state_pair_and_flag_combination_follows_the_table() {
    // Local states in rows, received states in columns (RFC 5880 §6.8.6); None: discarded.
    use State::{AdminDown, Down, Init, Up};
    let table = [
        (AdminDown, [None; 4]),
        (Down, [Some(Down), Some(Init), Some(Up), Some(Down)]),
        (Init, [Some(Down), Some(Init), Some(Up), Some(Up)]),
        (Up, [Some(Down), Some(Down), Some(Up), Some(Up)]),
    ];
    let now = Instant::now();
    let mut visited = 0;
    for (local, row) in table {
        for (received, expected) in State::ALL.into_iter().zip(row) {
            for (poll, is_final) in [(false, false), (true, false), (false, true), (true, true)] {
                let prelude = match local {
                    AdminDown => Prelude::AdminDown,
                    Up => Prelude::Up,
                    Down | Init => Prelude::Fresh,
                };
                let (mut engine, key) = prepared(now, SINGLE, prelude, Profile::default());
                let mine = engine.session(&key).unwrap().discriminator;
                if local == Init {
                    let hello = ControlPacket { state: Down, your_discriminator: None, ..packet(mine) };
                    engine.handle_packet(now, &meta(SINGLE), &hello.encode()).unwrap();
                    drain(&mut engine);
                }
                assert_eq!(engine.session(&key).unwrap().state, local);
                let packet = ControlPacket { state: received, poll, is_final, ..packet(mine) };
                let outcome = engine.handle_packet(now, &meta(SINGLE), &packet.encode());
                let finals = drain(&mut engine).iter().filter(|packet| packet.is_final).count();
                let after = engine.session(&key).unwrap();
                let pair = format!("{local} receives {received}, P {poll}, F {is_final}");
                match expected {
                    None => assert_eq!((outcome, after.state, finals), (Err(Discard::AdminDown), local, 0), "{pair}"),
                    Some(state) => {
                        assert_eq!((outcome, after.state, finals), (Ok(()), state, usize::from(poll)), "{pair}");
                    }
                }
                if local == Up && matches!(received, AdminDown | Down) || local == Init && received == AdminDown {
                    assert_eq!(after.diagnostic, Diagnostic::NEIGHBOR_DOWN, "{pair}");
                }
                visited += 1;
            }
        }
    }
    assert_eq!(visited, 64);
}

#[test]
fn silent_neighbor_is_down_exactly_after_the_detection_time() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, Profile::default());
    let detection = engine.session(&key).unwrap().detection_time;
    assert_eq!(detection, ms(900));
    run(&mut engine, start + detection - Duration::from_nanos(1));
    assert_eq!(engine.session(&key).unwrap().state, State::Up);
    engine.handle_timeout(start + detection);
    let event = engine.poll_event().unwrap();
    let EventKind::StateChanged(change) = event.kind else { panic!("{event:?}") };
    assert_eq!((change.to, change.cause, change.diagnostic.0), (State::Down, Cause::DetectionTimeExpired, 1));
    assert!(change.cause.is_failure());
    assert_eq!(engine.session(&key).unwrap().remote_discriminator, None);
}

#[test]
fn admin_down_of_the_neighbor_is_no_failure() {
    let now = Instant::now();
    let (mut engine, key) = prepared(now, SINGLE, Prelude::Up, Profile::default());
    let mine = engine.session(&key).unwrap().discriminator;
    let bye = ControlPacket { state: State::AdminDown, diagnostic: Diagnostic::ADMIN_DOWN, ..packet(mine) };
    engine.handle_packet(now, &meta(SINGLE), &bye.encode()).unwrap();
    let EventKind::StateChanged(change) = engine.poll_event().unwrap().kind else { panic!() };
    assert_eq!((change.to, change.cause), (State::Down, Cause::NeighborAdminDown));
    assert!(!change.cause.is_failure());
    assert_eq!(change.remote_diagnostic, Diagnostic::ADMIN_DOWN);
}

#[test]
fn replayed_packets_keep_a_session_up_without_authentication() {
    // BFD-21: RFC 5880 documents the risk. With TTL 255 only a host on the link can exploit it.
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, Profile::default());
    let recorded = packet(engine.session(&key).unwrap().discriminator).encode();
    for step in 1..20 {
        run(&mut engine, start + ms(step * 500));
        engine.handle_packet(start + ms(step * 500), &meta(SINGLE), &recorded).unwrap();
    }
    assert_eq!(engine.session(&key).unwrap().state, State::Up);
    let routed = Meta { ttl: 254, ..meta(SINGLE) };
    for step in 20..30 {
        run(&mut engine, start + ms(step * 500));
        assert_eq!(engine.handle_packet(start + ms(step * 500), &routed, &recorded), Err(Discard::Ttl));
    }
    assert_eq!(engine.session(&key).unwrap().state, State::Down);
}

#[test]
fn slower_transmit_interval_waits_for_the_poll_to_complete() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, profile(300, 300, 3));
    let mine = engine.session(&key).unwrap().discriminator;
    let answer = ControlPacket { is_final: true, ..packet(mine) }.encode();
    engine.handle_packet(start, &meta(SINGLE), &answer).unwrap();
    assert!(engine.update_session(start, &key, profile(800, 300, 3)));
    let poll = drain(&mut engine);
    assert!(poll.iter().any(|packet| packet.poll && packet.desired_min_tx == Interval(800_000)));
    assert_eq!(engine.session(&key).unwrap().transmit_interval, Some(ms(300)), "BFD-31: the old interval until F");
    engine.handle_packet(start + ms(10), &meta(SINGLE), &answer).unwrap();
    assert_eq!(engine.session(&key).unwrap().transmit_interval, Some(ms(800)));
    assert_eq!(engine.session(&key).unwrap().state, State::Up);
}

#[test]
fn faster_receive_interval_waits_for_the_poll_to_complete() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, profile(300, 800, 3));
    let mine = engine.session(&key).unwrap().discriminator;
    let answer = ControlPacket { is_final: true, ..packet(mine) }.encode();
    engine.handle_packet(start, &meta(SINGLE), &answer).unwrap();
    engine.update_session(start, &key, profile(300, 400, 3));
    assert_eq!(engine.session(&key).unwrap().detection_time, ms(2_400), "BFD-32: the old time until F");
    // A second change during the first poll sequence waits for its own.
    engine.update_session(start, &key, profile(300, 300, 3));
    assert!(drain(&mut engine).iter().all(|packet| packet.required_min_rx == Interval(400_000)));
    engine.handle_packet(start, &meta(SINGLE), &answer).unwrap();
    assert_eq!(engine.session(&key).unwrap().detection_time, ms(1_200));
    assert!(drain(&mut engine).iter().any(|packet| packet.poll && packet.required_min_rx == Interval(300_000)));
    engine.handle_packet(start, &meta(SINGLE), &answer).unwrap();
    assert_eq!(engine.session(&key).unwrap().detection_time, ms(900));
}

#[test]
fn flood_of_polls_is_answered_at_a_limited_rate() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, Profile::default());
    let mine = engine.session(&key).unwrap().discriminator;
    let poll = ControlPacket { poll: true, ..packet(mine) }.encode();
    let mut answers = 0;
    for step in 0..100_000 {
        engine.handle_packet(start + Duration::from_micros(step * 10), &meta(SINGLE), &poll).unwrap();
        answers += drain(&mut engine).iter().filter(|packet| packet.is_final).count();
    }
    assert!((100..=110).contains(&answers), "BFD-35: {answers} answers in a second");
    assert!(engine.session(&key).unwrap().counters.replies_limited > 99_000);
}

#[test]
fn jitter_stays_within_its_bounds() {
    for (multiplier, max, mean) in [(3, 1_000.0, 875.0), (1, 900.0, 825.0)] {
        let start = Instant::now();
        let mut engine = Engine::new(5);
        engine.add_session(start, SessionKey::new(PEER, SINGLE), profile(300, 300, multiplier)).unwrap();
        let sent = run(&mut engine, start + Duration::from_secs(20_000));
        let gaps: Vec<f64> = sent.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64() * 1_000.0).collect();
        assert!(gaps.len() > 10_000);
        // Not Up: an interval of one second.
        assert!(gaps.iter().all(|gap| (750.0..=max + 0.001).contains(gap)), "BFD-37, I40");
        let average = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((average - mean).abs() < 10.0, "BFD-37: mean {average}");
    }
}

#[test]
fn equal_profile_changes_nothing() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, Profile::default());
    let before = (engine.session(&key), engine.poll_timeout());
    assert!(engine.update_session(start + ms(5), &key, Profile::default()));
    assert_eq!((engine.session(&key), engine.poll_timeout()), before, "BFD-38");
    assert!(engine.poll_transmit().is_none() && engine.poll_event().is_none());
}

#[test]
fn packets_that_waited_during_a_stall_prevent_a_false_failure() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, profile(50, 50, 3));
    let mine = engine.session(&key).unwrap().discriminator;
    let fast = ControlPacket { desired_min_tx: Interval(50_000), required_min_rx: Interval(50_000), ..packet(mine) };
    engine.handle_packet(start, &meta(SINGLE), &fast.encode()).unwrap();
    // BFD-42: a stall of 200 ms, then the datagrams that waited, then the timers.
    let now = start + ms(200);
    for _ in 0..4 {
        engine.handle_packet(now, &meta(SINGLE), &fast.encode()).unwrap();
    }
    engine.handle_timeout(now);
    let after = engine.session(&key).unwrap();
    assert_eq!(after.state, State::Up);
    assert!(after.counters.transmissions_late > 0);
}

#[test]
fn long_suspension_expires_once_and_recovers() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, Profile::default());
    let mine = engine.session(&key).unwrap().discriminator;
    let now = start + Duration::from_secs(5);
    engine.handle_timeout(now);
    let changes: Vec<_> = std::iter::from_fn(|| engine.poll_event()).collect();
    assert_eq!(changes.len(), 1, "BFD-43");
    for state in [State::Down, State::Init] {
        engine.handle_packet(now, &meta(SINGLE), &ControlPacket { state, ..packet(mine) }.encode()).unwrap();
    }
    assert_eq!(engine.session(&key).unwrap().state, State::Up);
}

#[test]
fn passive_session_sends_only_after_its_neighbor() {
    let start = Instant::now();
    let passive = Profile { role: Role::Passive, ..Profile::default() };
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Fresh, passive);
    assert!(run(&mut engine, start + Duration::from_secs(60)).is_empty());
    let now = start + Duration::from_secs(61);
    let mine = engine.session(&key).unwrap().discriminator;
    let hello = ControlPacket { state: State::Down, your_discriminator: None, ..packet(mine) };
    engine.handle_packet(now, &meta(SINGLE), &hello.encode()).unwrap();
    assert_eq!(drain(&mut engine).first().map(|packet| packet.state), Some(State::Init));
}

#[test]
fn neighbor_in_demand_mode_gets_responses_but_no_periodic_packets() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, Profile::default());
    let mine = engine.session(&key).unwrap().discriminator;
    let demand = ControlPacket { demand: true, is_final: true, ..packet(mine) };
    engine.handle_packet(start, &meta(SINGLE), &demand.encode()).unwrap();
    drain(&mut engine);
    assert_eq!(engine.session(&key).unwrap().transmit_interval, None);
    let poll = ControlPacket { poll: true, is_final: false, ..demand };
    engine.handle_packet(start, &meta(SINGLE), &poll.encode()).unwrap();
    let answers = drain(&mut engine);
    assert!(answers.len() == 1 && answers[0].is_final && !answers[0].demand);
}

#[test]
fn lower_receive_interval_of_the_neighbor_takes_effect_immediately() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, SINGLE, Prelude::Up, profile(50, 50, 3));
    let mine = engine.session(&key).unwrap().discriminator;
    let rare = ControlPacket { required_min_rx: Interval(u32::MAX), ..packet(mine) };
    engine.handle_packet(start, &meta(SINGLE), &rare.encode()).unwrap();
    run(&mut engine, start + ms(400));
    assert_eq!(engine.session(&key).unwrap().transmit_interval, Some(Interval(u32::MAX).duration()), "BFD-28");
    let often = ControlPacket { required_min_rx: Interval(50_000), ..packet(mine) };
    engine.handle_packet(start + ms(500), &meta(SINGLE), &often.encode()).unwrap();
    assert!(engine.poll_timeout().unwrap() <= start + ms(550));
}

#[test]
fn periodic_packet_is_sent_early_when_a_packet_is_received() {
    let start = Instant::now();
    let (mut engine, key) = prepared(start, Hops::Single, Prelude::Up, Profile::default());
    let mine = engine.session(&key).unwrap().discriminator;
    let receive = |engine: &mut Engine, now| {
        engine.handle_packet(now, &meta(Hops::Single), &packet(mine).encode()).unwrap();
        engine.handle_timeout(now);
        drain(engine).len()
    };
    let sent = engine.poll_timeout().unwrap();
    engine.handle_timeout(sent);
    assert_eq!(drain(&mut engine).len(), 1);
    assert_eq!(receive(&mut engine, sent + Duration::from_millis(224)), 0, "not before 75 % of the interval");
    let planned = engine.poll_timeout().unwrap();
    let early = sent + Duration::from_millis(225);
    assert!(planned >= early);
    assert_eq!(receive(&mut engine, early), 1);
    assert!(engine.poll_timeout().unwrap() >= early + Duration::from_millis(225), "the next interval starts here");
}
