//! A hierarchical timer wheel for the deadlines of all sessions.
//!
//! There are eight levels of 64 slots each, one level per base-64 digit of the tick. Setting, moving and popping a
//! deadline take constant time and no allocation, whatever the number of sessions. The tick only selects the slot:
//! deadlines are exact to the nanosecond, and a timer never expires early.
//!
//! Moves to a later time are lazy: a session may be popped too early, and then sets its next deadline, but never too
//! late. Each received packet moves a detection deadline later, which therefore costs nothing here.
//! `docs/design/0027-deadlines-of-bfd.md` has figures.

use std::time::{Duration, Instant};

use super::Discriminator;

/// The deadlines of any number of sessions.
#[derive(Debug)]
pub(super) struct Wheel {
    timers: Vec<Timer>,
    free: Vec<TimerId>,
    /// The first timer of each slot of each level, and last the first of those that are due.
    heads: [Option<TimerId>; SLOTS + 1],
    /// One bit for each slot that is not empty, by level.
    occupied: [u64; LEVELS],
    /// The time of tick 0: the first deadline ever set.
    origin: Option<Instant>,
    /// The current tick. Each waiting timer is on the level of the highest digit in which its tick differs from this
    /// one.
    clock: u64,
    earliest: Option<Instant>,
}

/// The timer of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TimerId(u32);

#[derive(Debug)]
struct Timer {
    session: Discriminator,
    /// The deadline and its slot.
    armed: Option<(Instant, u16)>,
    previous: Option<TimerId>,
    next: Option<TimerId>,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            timers: Vec::new(),
            free: Vec::new(),
            heads: [None; SLOTS + 1],
            occupied: [0; LEVELS],
            origin: None,
            clock: 0,
            earliest: None,
        }
    }
}

impl Wheel {
    /// Adds a timer without a deadline for a session.
    pub(super) fn register(&mut self, session: Discriminator) -> TimerId {
        let timer = Timer { session, armed: None, previous: None, next: None };
        if let Some(id) = self.free.pop() {
            self.timers[id.index()] = timer;
            return id;
        }
        // Discriminators have 32 bits, so there are never more sessions.
        let id = TimerId(self.timers.len() as u32);
        self.timers.push(timer);
        id
    }

    /// Makes the timer expire at `at` or earlier.
    pub(super) fn arm(&mut self, id: TimerId, at: Option<Instant>) {
        let Some(at) = at else { return };
        if self.timers[id.index()].armed.is_some_and(|(armed, _)| armed <= at) {
            return;
        }
        self.origin.get_or_insert(at);
        self.unlink(id);
        self.link(id, at, self.slot(at));
        self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
    }

    /// Removes a timer. Its id must not be used afterwards.
    pub(super) fn remove(&mut self, id: TimerId) {
        self.unlink(id);
        self.free.push(id);
        self.earliest = self.find_earliest();
    }

    /// Pops the session of an expired timer. Timers expire in the order of their ticks; the order within a tick is
    /// undefined.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Discriminator> {
        if self.earliest.is_none_or(|at| at > now) {
            return None;
        }
        let reached = self.tick(now);
        loop {
            if let Some(id) = self.heads[DUE] {
                self.unlink(id);
                return Some(self.timers[id.index()].session);
            }
            let Some((slot, start)) = self.first().filter(|(_, start)| *start <= reached) else { break };
            if let Some(id) = self.only_due(slot, now) {
                self.unlink(id);
                return Some(self.timers[id.index()].session);
            }
            self.clock = start;
            if !self.cascade(slot, now) {
                break;
            }
        }
        // All waiting timers are for a later tick, or in the slot of this one.
        self.clock = self.clock.max(reached);
        self.earliest = self.find_earliest();
        None
    }

    /// The earliest deadline. Valid after [`pop`](Self::pop) has returned `None`.
    pub(super) fn next(&self) -> Option<Instant> {
        self.earliest
    }

    /// The timer of a slot with a single timer, if it is due: it need not be moved first.
    fn only_due(&self, slot: usize, now: Instant) -> Option<TimerId> {
        self.heads[slot].filter(|id| {
            let timer = &self.timers[id.index()];
            timer.next.is_none() && timer.armed.is_some_and(|(at, _)| at <= now)
        })
    }

    /// Moves the timers of a slot that the clock has reached to their slots on lower levels. Returns whether any was
    /// moved.
    fn cascade(&mut self, slot: usize, now: Instant) -> bool {
        let (mut moved, mut next) = (false, self.heads[slot]);
        while let Some(id) = next {
            let timer = &self.timers[id.index()];
            next = timer.next;
            let Some((at, _)) = timer.armed else { continue };
            let to = match slot {
                0..WIDTH if at > now => continue,
                0..WIDTH => DUE,
                _ => self.slot(at),
            };
            self.unlink(id);
            self.link(id, at, to);
            moved = true;
        }
        moved
    }

    /// The earliest slot that is not empty, and its first tick. All timers of a lower level precede those of a higher
    /// one.
    fn first(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let digit = self.occupied[level].trailing_zeros() as usize;
        let shift = level as u32 * BITS;
        let start = ((self.clock >> shift) & !(WIDTH as u64 - 1) | digit as u64) << shift;
        Some((level * WIDTH + digit, start))
    }

    fn find_earliest(&self) -> Option<Instant> {
        let slot = if self.heads[DUE].is_some() { DUE } else { self.first()?.0 };
        let mut next = self.heads[slot];
        let timers = std::iter::from_fn(|| {
            let timer = &self.timers[next?.index()];
            next = timer.next;
            Some(timer)
        });
        timers.filter_map(|timer| timer.armed).map(|(at, _)| at).min()
    }

    fn tick(&self, at: Instant) -> u64 {
        let since = self.origin.map_or(Duration::ZERO, |origin| at.saturating_duration_since(origin));
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into()) >> TICK
    }

    fn slot(&self, at: Instant) -> usize {
        let tick = self.tick(at).max(self.clock);
        // A tick has 64 bits less TICK, which are at most LEVELS digits.
        let level = (tick ^ self.clock).checked_ilog2().unwrap_or(0) / BITS;
        let digit = (tick >> (level * BITS)) as usize % WIDTH;
        level as usize * WIDTH + digit
    }

    fn link(&mut self, id: TimerId, at: Instant, slot: usize) {
        let next = self.heads[slot].replace(id);
        if let Some(next) = next {
            self.timers[next.index()].previous = Some(id);
        }
        let timer = &mut self.timers[id.index()];
        (timer.armed, timer.previous, timer.next) = (Some((at, slot as u16)), None, next);
        if let Some(occupied) = self.occupied.get_mut(slot / WIDTH) {
            *occupied |= 1 << (slot % WIDTH);
        }
    }

    fn unlink(&mut self, id: TimerId) {
        let timer = &mut self.timers[id.index()];
        let (previous, next) = (timer.previous.take(), timer.next.take());
        let Some((_, slot)) = timer.armed.take() else { return };
        if let Some(next) = next {
            self.timers[next.index()].previous = previous;
        }
        if let Some(previous) = previous {
            self.timers[previous.index()].next = next;
            return;
        }
        let slot = usize::from(slot);
        self.heads[slot] = next;
        if let (None, Some(occupied)) = (next, self.occupied.get_mut(slot / WIDTH)) {
            *occupied &= !(1 << (slot % WIDTH));
        }
    }
}

impl TimerId {
    /// Ids are created by [`Wheel::register`] only, so `timers` has an entry for each.
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tick is 2^16 ns, about 66 µs.
const TICK: u32 = 16;
const BITS: u32 = 6;
const WIDTH: usize = 1 << BITS;
/// Enough for the 2^48 ticks in 2^64 ns.
const LEVELS: usize = 8;
const SLOTS: usize = LEVELS * WIDTH;
const DUE: usize = SLOTS;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: usize = 24;

    #[derive(Clone, Debug)]
    enum Step {
        Arm { timer: usize, nanoseconds: i64 },
        Remove { timer: usize },
        Wait { nanoseconds: u64, late: bool },
    }

    /// From less than a tick to more than any detection time.
    fn distance() -> impl Strategy<Value = u64> {
        prop_oneof![0..70_000_u64, 0..5_000_000_u64, 0..1_000_000_000_u64, 0..1_100_000_000_000_000_u64]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..NAMES, distance(), 0..20_u8).prop_map(|(timer, far, sign)| {
                // Sometimes in the past.
                let nanoseconds = far as i64 * if sign == 0 { -1 } else { 1 };
                Step::Arm { timer, nanoseconds }
            }),
            1 => (0..NAMES).prop_map(|timer| Step::Remove { timer }),
            5 => (distance(), any::<bool>()).prop_map(|(nanoseconds, late)| Step::Wait { nanoseconds, late }),
        ]
    }

    proptest! {
        /// The model is a list that is searched each time.
        #[test]
        fn wheel_expires_the_same_timers_as_a_plain_list(steps in prop::collection::vec(step(), 1..200)) {
            let origin = Instant::now() + Duration::from_secs(10_000_000);
            let mut now = origin;
            let mut wheel = Wheel::default();
            let name = |number: usize| Discriminator::new(number as u32 + 1).unwrap();
            let mut ids: Vec<TimerId> = (0..NAMES).map(|number| wheel.register(name(number))).collect();
            let mut model: Vec<Option<Instant>> = vec![None; NAMES];
            for step in steps {
                match step {
                    Step::Arm { timer, nanoseconds } => {
                        let by = Duration::from_nanos(nanoseconds.unsigned_abs());
                        let at = if nanoseconds < 0 { now.checked_sub(by).unwrap_or(now) } else { now + by };
                        wheel.arm(ids[timer], Some(at));
                        model[timer] = Some(model[timer].map_or(at, |armed| armed.min(at)));
                    }
                    Step::Remove { timer } => {
                        wheel.remove(ids[timer]);
                        ids[timer] = wheel.register(name(timer));
                        model[timer] = None;
                    }
                    Step::Wait { nanoseconds, late } => {
                        let next = model.iter().flatten().min().copied();
                        now = match next {
                            // Like a driver that is on time.
                            Some(next) if !late => now.max(next),
                            _ => now + Duration::from_nanos(nanoseconds),
                        };
                    }
                }
                prop_assert_eq!(wheel.next(), model.iter().flatten().min().copied(), "the earliest, exactly");
                let mut last = None;
                while let Some(session) = wheel.pop(now) {
                    let at = model[session.get() as usize - 1].take();
                    prop_assert!(at.is_some_and(|at| at <= now), "no timer expires early or twice");
                    let tick = at.map(|at| wheel.tick(at));
                    prop_assert!(tick >= last || at.is_some_and(|at| at <= origin), "in the order of their ticks");
                    last = tick;
                }
                prop_assert!(model.iter().flatten().all(|at| *at > now), "no timer is lost");
                prop_assert_eq!(wheel.next(), model.iter().flatten().min().copied());
            }
        }
    }

    #[test]
    fn deadline_moved_a_million_times_uses_no_more_memory() {
        let start = Instant::now();
        let session = Discriminator::new(7).unwrap();
        let mut wheel = Wheel::default();
        let id = wheel.register(session);
        for step in (0..1_000_000).rev() {
            wheel.arm(id, Some(start + Duration::from_micros(step)));
        }
        assert_eq!((wheel.timers.len(), wheel.occupied.iter().map(|slots| slots.count_ones()).sum()), (1, 1_u32));
        assert_eq!(wheel.next(), Some(start));
        assert_eq!(wheel.pop(start), Some(session));
        assert_eq!(wheel.pop(start), None);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn later_deadline_keeps_the_earlier_expiry() {
        let start = Instant::now();
        let mut wheel = Wheel::default();
        let id = wheel.register(Discriminator::new(7).unwrap());
        wheel.arm(id, Some(start + Duration::from_secs(1)));
        wheel.arm(id, Some(start + Duration::from_secs(2)));
        assert_eq!(wheel.next(), Some(start + Duration::from_secs(1)));
        wheel.remove(id);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn removed_timers_are_reused() {
        let mut wheel = Wheel::default();
        let session = Discriminator::new(7).unwrap();
        for _ in 0..1_000 {
            let id = wheel.register(session);
            wheel.arm(id, Some(Instant::now()));
            wheel.remove(id);
        }
        assert_eq!(wheel.timers.len(), 1);
    }
}
