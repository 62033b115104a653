//! Invariants of a session after every step, numbered as in `docs/testing.md`, and a simulation with faults of all
//! kinds.

use super::pair::{Pair, UP, fast};
use super::*;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Checks the invariants of one end from outside.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    state: Option<State>,
    received: Option<Instant>,
    /// When the detection time expires.
    due: Option<Instant>,
    last: Option<ControlPacket>,
    /// Time of the last repetition of a packet; only periodic packets are repeated.
    repeated: Option<Instant>,
    /// The shortest and the longest transmit interval since then.
    intervals: Option<(Duration, Duration)>,
}

impl Monitor {
    /// The engine accepted a packet.
    pub(super) fn received(&mut self, now: Instant) {
        self.received = Some(now);
    }

    pub(super) fn sent(&mut self, now: Instant, packet: ControlPacket) {
        if packet.is_final {
            return;
        }
        if self.last.replace(packet) != Some(packet) {
            self.repeated = None;
            return;
        }
        let before = self.repeated.replace(now);
        if let (Some(before), Some((min, max))) = (before, self.intervals.take()) {
            let max = if packet.detect_multiplier.get() == 1 { max * 9 / 10 } else { max };
            let gap = now - before;
            assert!((min * 3 / 4..=max).contains(&gap), "I40: interval {gap:?}, expected {min:?} to {max:?}");
        }
    }

    pub(super) fn changed(&mut self, now: Instant, change: &StateChange) {
        use State::{AdminDown, Down, Init, Up};
        let allowed = match change.cause {
            Cause::Handshake => matches!((change.from, change.to), (Down, Init | Up) | (Init, Up)),
            Cause::NeighborDown | Cause::EchoFailed => (change.from, change.to) == (Up, Down),
            Cause::NeighborAdminDown | Cause::DetectionTimeExpired => {
                matches!((change.from, change.to), (Init | Up, Down))
            }
            Cause::AdminDown => change.from != AdminDown && change.to == AdminDown,
            Cause::AdminUp => (change.from, change.to) == (AdminDown, Down),
        };
        assert!(allowed, "I39: {change:?}");
        assert_eq!(self.state.replace(change.to).unwrap_or(Down), change.from, "I39: every change is reported");
        if change.cause == Cause::DetectionTimeExpired {
            assert_eq!(self.due, Some(now), "I41: exactly when the detection time expires");
        }
    }

    /// Records the transmit interval after an input.
    pub(super) fn observe(&mut self, session: Option<&SessionSnapshot>) {
        match session.and_then(|session| session.transmit_interval) {
            // Nothing is sent: the next packet starts a new sequence.
            None => (self.repeated, self.intervals) = (None, None),
            Some(interval) => {
                let (min, max) = self.intervals.unwrap_or((interval, interval));
                self.intervals = Some((min.min(interval), max.max(interval)));
            }
        }
    }

    /// Checks the end of a step.
    pub(super) fn check(&mut self, now: Instant, session: Option<&SessionSnapshot>) {
        let Some(session) = session else { return *self = Self::default() };
        assert_eq!(session.state, self.state.unwrap_or(State::Down), "I39: every change is reported");
        self.observe(Some(session));
        self.received = self.received.filter(|_| session.detection_time > Duration::ZERO);
        self.due = self.received.map(|at| at + session.detection_time);
        if matches!(session.state, State::Init | State::Up) {
            assert!(self.due.is_some_and(|due| now < due), "I41: the session should have ended at {:?}", self.due);
        }
    }
}

#[test]
fn sessions_keep_their_invariants_under_random_faults() {
    let mut failures = 0;
    for seed in 1..=8 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut below = |limit: u64| random.random_range(0..limit);
        let mut pair = Pair::both(fast(3));
        for _ in 0..400 {
            let end = below(2) as usize;
            match below(12) {
                0..3 => pair.loss = [below(1_000), below(1_000)],
                3..6 => pair.loss = [0, 0],
                6 => pair.delay = Duration::from_micros(below(40_000)),
                7 => pair.reboot(end, below(1_000), fast(1 + below(4) as u8)),
                8 => {
                    let profile = Profile {
                        transmit_interval: Interval(10_000 + below(300_000) as u32),
                        receive_interval: Interval(10_000 + below(300_000) as u32),
                        ..fast(1 + below(4) as u8)
                    };
                    pair.ends[end].update_session(pair.now, &pair.keys[end].clone(), profile);
                }
                9 => drop(pair.ends[end].set_admin(pair.now, &pair.keys[end].clone(), below(3) > 0)),
                10 => {
                    let length = below(60);
                    pair.forge(end, (0..length).map(|_| below(256) as u8).collect());
                }
                // A packet of the neighbour with one changed octet.
                _ => {
                    let theirs = pair.packets.iter().rev().find(|(_, from, _)| *from != end);
                    let Some((_, _, packet)) = theirs else { continue };
                    let mut bytes = packet.encode();
                    bytes[below(24) as usize] = below(256) as u8;
                    pair.forge(end, bytes.to_vec());
                }
            }
            pair.run(Duration::from_millis(below(700)));
        }
        (pair.loss, pair.delay) = ([0, 0], Duration::from_micros(200));
        for end in 0..2 {
            pair.ends[end].set_admin(pair.now, &pair.keys[end].clone(), true);
            pair.ends[end].update_session(pair.now, &pair.keys[end].clone(), fast(3));
        }
        // A forged interval is in use until its detection time expires or the next packet arrives.
        pair.run(Duration::from_secs(30));
        assert_eq!(pair.states(), UP, "seed {seed}");
        failures += pair.changes.iter().filter(|(.., change)| change.cause == Cause::DetectionTimeExpired).count();
    }
    assert!(failures > 100, "only {failures} sessions expired");
}
