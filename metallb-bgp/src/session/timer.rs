//! The deadlines of one session.

use std::time::Instant;

/// What may become due. Where several are, the earlier in this list goes first: a session whose hold timer expired sends no KEEPALIVE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Timer {
    /// The pause before the next attempt (IdleHoldTime).
    IdleHold,
    /// An attempt to connect has taken too long (ConnectRetryTime).
    Connect,
    /// The peer was silent for too long.
    Hold,
    /// The peer takes nothing any more (RFC 9687).
    SendHold,
    /// The peer must hear of us.
    Keepalive,
}

/// A table of deadlines.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        self.0[timer as usize] = at;
    }

    pub(super) fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let timer = Timer::ALL.into_iter().find(|timer| self.at(*timer).is_some_and(|at| at <= now))?;
        self.set(timer, None);
        Some(timer)
    }
}

impl Timer {
    const ALL: [Self; 5] = [Self::IdleHold, Self::Connect, Self::Hold, Self::SendHold, Self::Keepalive];
}
