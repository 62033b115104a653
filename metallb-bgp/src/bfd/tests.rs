#![expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]

pub(crate) mod cases;
mod invariants;
mod pair;
mod session;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use cases::{Envelope, Expect, LOCAL, PEER, Prelude, STRANGER, packet};

/// An engine with a session with [`PEER`] on interface 7, in the state of `prelude`.
fn prepared(now: Instant, hops: Hops, prelude: Prelude, profile: Profile) -> (Engine, SessionKey) {
    let key = SessionKey { interface: std::num::NonZeroU32::new(7), ..SessionKey::new(PEER, hops) };
    let mut engine = Engine::new(11);
    let mine = engine.add_session(now, key, profile).unwrap();
    if matches!(prelude, Prelude::Init | Prelude::Up) {
        engine
            .handle_packet(
                now,
                &meta(hops),
                &ControlPacket { your_discriminator: None, state: State::Down, ..packet(mine) }.encode(),
            )
            .unwrap();
    }
    if prelude == Prelude::Up {
        engine.handle_packet(now, &meta(hops), &packet(mine).encode()).unwrap();
        assert_eq!(engine.session(&key).unwrap().state, State::Up);
    }
    if prelude == Prelude::AdminDown {
        assert!(engine.set_admin(now, &key, false));
    }
    drain(&mut engine);
    (engine, key)
}

/// The limit of responses to polls at one time.
const RESPONSES_MAX: usize = 8;

fn meta(hops: Hops) -> Meta {
    Meta { remote: PEER, local: LOCAL, interface: 7, domain: RoutingDomain::default(), ttl: TTL, hops }
}

fn drain(engine: &mut Engine) -> Vec<ControlPacket> {
    while engine.poll_event().is_some() {}
    std::iter::from_fn(|| engine.poll_transmit())
        .filter(|transmit| transmit.kind == TransmitKind::Control)
        .map(|transmit| ControlPacket::decode(transmit.payload()).unwrap())
        .collect()
}

#[test]
fn engine_handles_every_case_as_in_the_table() {
    let start = Instant::now();
    let mut seen = BTreeSet::new();
    for case in cases::table() {
        let (mut engine, key) = prepared(start, case.hops, case.prelude, Profile::default());
        let now = start + Duration::from_millis(100);
        let before = engine.session(&key).unwrap();
        let deadline = engine.poll_timeout();
        let right = meta(case.hops);
        let meta = match case.envelope {
            Envelope::Right => right,
            Envelope::Ttl(ttl) => Meta { ttl, ..right },
            Envelope::Stranger => Meta { remote: STRANGER, ..right },
            Envelope::OtherInterface => Meta { interface: 8, ..right },
            Envelope::OtherPort => {
                Meta { hops: if case.hops == Hops::Single { Hops::Multiple } else { Hops::Single }, ..right }
            }
            Envelope::OwnAddress => Meta { remote: LOCAL, ..right },
        };
        let payload = (case.payload)(before.discriminator);
        let mut outcome = Ok(());
        for _ in 0..case.times {
            outcome = if case.echo {
                engine.handle_echo(now, &meta, &payload)
            } else {
                engine.handle_packet(now, &meta, &payload)
            };
        }
        let responses: Vec<_> = drain(&mut engine).into_iter().filter(|packet| packet.is_final).collect();
        let id = case.id;
        match case.expect {
            Expect::Accept { answered } => {
                assert_eq!(outcome, Ok(()), "{id} {}", case.what);
                let max = if case.times == 1 { 1 } else { RESPONSES_MAX };
                let allowed = if answered { 1..=max } else { 0..=0 };
                assert!(allowed.contains(&responses.len()), "{id} {}: {}", case.what, responses.len());
                assert!(responses.iter().all(|response| !response.poll), "{id}: P is clear in a response");
                let after = engine.session(&key).unwrap();
                assert_eq!(
                    after.counters.control_packets_in,
                    before.counters.control_packets_in + u64::from(case.times)
                );
                assert_eq!(after.state, case.then.unwrap_or(before.state), "{id} {}", case.what);
            }
            Expect::Drop(reason) => {
                assert_eq!(outcome, Err(reason), "{id} {}", case.what);
                assert_eq!(engine.discards().get(&reason), Some(&1), "{id}");
                assert_eq!((responses, engine.poll_timeout()), (vec![], deadline), "{id}: no timer is restarted");
                assert_eq!(engine.sessions().len(), 1, "{id}: no session is created");
                if reason != Discard::AdminDown {
                    assert_eq!(engine.session(&key), Some(before), "{id}: the session is unchanged");
                }
            }
        }
        seen.insert(id);
    }
    for (id, _, _) in cases::NO_ROWS {
        assert!(seen.insert(id), "{id} has rows");
    }
    let all: BTreeSet<String> = (1..=48).map(|number| format!("BFD-{number:02}")).collect();
    assert_eq!(seen.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), all);
}

proptest! {
    #[test]
    fn arbitrary_octets_are_decoded_without_a_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(packet) = ControlPacket::decode(&octets) {
            // The encoding of a decoded packet is decoded to the same packet.
            let again = ControlPacket::decode(&packet.encode()).unwrap();
            prop_assert_eq!(again, ControlPacket { authentication: false, ..packet });
        }
    }

    #[test]
    fn arbitrary_datagrams_do_not_remove_sessions(
        datagrams in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 20..32), any::<u8>(), 0..5_000u64), 0..64,
        )
    ) {
        let start = Instant::now();
        let (mut engine, key) = prepared(start, Hops::Single, Prelude::Up, Profile::default());
        let mine = engine.session(&key).unwrap().discriminator.get().to_be_bytes();
        let mut now = start;
        for (mut octets, flags, wait) in datagrams {
            // Valid enough to reach the session in most cases.
            octets[0] = 0x20 | octets[0] & 0x1f;
            octets[1] = flags & !0x05;
            octets[3] = 24;
            octets.get_mut(8..12).unwrap().copy_from_slice(&mine);
            now += Duration::from_millis(wait);
            let _ = engine.handle_packet(now, &meta(Hops::Single), &octets);
            engine.handle_timeout(now);
            let packets = drain(&mut engine);
            prop_assert!(packets.len() <= 4, "one input causes only a few packets");
            prop_assert!(engine.poll_timeout().is_none_or(|at| at > now), "all expired timers are processed");
        }
        prop_assert!(engine.session(&key).is_some());
    }
}

#[test]
fn equal_seed_and_inputs_give_equal_bytes() {
    let start = Instant::now();
    let run = |seed| {
        let mut engine = Engine::new(seed);
        for last in 1..50 {
            let remote = std::net::IpAddr::from([10, 0, 0, last]);
            engine.add_session(start, SessionKey::new(remote, Hops::Single), Profile::default()).unwrap();
        }
        let mut bytes = Vec::new();
        for step in 0..500 {
            engine.handle_timeout(start + Duration::from_millis(step * 20));
            while let Some(transmit) = engine.poll_transmit() {
                bytes.push((step, transmit.payload().to_vec()));
            }
        }
        bytes
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn path_with_an_invalid_neighbor_is_refused() {
    let now = Instant::now();
    let mut engine = Engine::new(1);
    let mut add = |key| engine.add_session(now, key, Profile::default());
    let single = |remote: &str| SessionKey::new(remote.parse().unwrap(), Hops::Single);
    assert!(matches!(add(single("0.0.0.0")), Err(AddSessionError::NoNeighbor(_))));
    assert!(matches!(add(single("ff02::1")), Err(AddSessionError::NoNeighbor(_))));
    assert_eq!(add(single("fe80::1")), Err(AddSessionError::LinkLocalWithoutInterface));
    let mixed = SessionKey { local: Some("fd00::1".parse().unwrap()), ..single("10.0.0.1") };
    assert_eq!(add(mixed), Err(AddSessionError::FamiliesDiffer));
    let first = add(single("10.0.0.1")).unwrap();
    assert_eq!(add(single("10.0.0.1")), Err(AddSessionError::Exists(first)));
}
