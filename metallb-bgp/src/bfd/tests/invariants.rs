//! What must hold for a session after every step, whatever happens to it; and a world in which everything does. The numbers are those of
//! the table in `docs/testing.md`.

use super::pair::{Pair, UP, fast};
use super::*;
use crate::bfd::rate::Random;

/// One end, as seen from outside.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: Option<State>,
    heard: Option<Instant>,
    /// When it must say that the neighbour is gone.
    due: Option<Instant>,
    last: Option<ControlPacket>,
    /// When it last said the same again, which only periodic packets do.
    repeated: Option<Instant>,
    /// The shortest and the longest interval since.
    intervals: Option<(Duration, Duration)>,
}

impl Watch {
    /// The engine took a packet.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
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
        if let (Some(before), Some((least, most))) = (before, self.intervals.take()) {
            let most = if packet.detect_multiplier.get() == 1 { most * 9 / 10 } else { most };
            let gap = now - before;
            assert!((least * 3 / 4..=most).contains(&gap), "I40: {gap:?} where {least:?} to {most:?} is due");
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
        assert_eq!(self.state.replace(change.to).unwrap_or(Down), change.from, "I39: no change goes unreported");
        if change.cause == Cause::DetectionTimeExpired {
            assert_eq!(self.due, Some(now), "I41: at the moment that was computed, neither earlier nor later");
        }
    }

    /// Something happened: what is sent now may follow from it.
    pub(super) fn look(&mut self, session: Option<&SessionSnapshot>) {
        match session.and_then(|session| session.transmit_interval) {
            // A pause: what comes next begins anew.
            None => (self.repeated, self.intervals) = (None, None),
            Some(interval) => {
                let (least, most) = self.intervals.unwrap_or((interval, interval));
                self.intervals = Some((least.min(interval), most.max(interval)));
            }
        }
    }

    /// The end of a step.
    pub(super) fn check(&mut self, now: Instant, session: Option<&SessionSnapshot>) {
        let Some(session) = session else { return *self = Self::default() };
        assert_eq!(session.state, self.state.unwrap_or(State::Down), "I39: no change goes unreported");
        self.look(Some(session));
        self.heard = self.heard.filter(|_| session.detection_time > Duration::ZERO);
        self.due = self.heard.map(|at| at + session.detection_time);
        if matches!(session.state, State::Init | State::Up) {
            assert!(self.due.is_some_and(|due| now < due), "I41: {:?} should have ended a session", self.due);
        }
    }
}

#[test]
fn sessions_keep_their_invariants_in_a_world_where_everything_happens() {
    let mut failures = 0;
    for seed in 1..=8 {
        let mut random = Random::new(seed);
        let mut below = |limit: u64| random.next() % limit;
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
                // A packet of the neighbour's with one octet that is another, from before the diagnostic to the last interval.
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
        // A forged interval may hold for as long as its detection time says, or until the next packet.
        pair.run(Duration::from_secs(30));
        assert_eq!(pair.states(), UP, "seed {seed}");
        failures += pair.changes.iter().filter(|(.., change)| change.cause == Cause::DetectionTimeExpired).count();
    }
    assert!(failures > 100, "only {failures} sessions were missed");
}
