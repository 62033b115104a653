//! The deadlines of a peer and of a session.

use std::time::Instant;

/// What may become due. Where several are, the earlier in this list goes first: a session whose hold timer expired sends no KEEPALIVE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Timer {
    /// The pause before the next attempt (IdleHoldTime).
    IdleHold,
    /// An attempt to connect has taken too long (ConnectRetryTime).
    Connect,
    /// The peer's OPEN was waited for long enough (DelayOpenTime).
    DelayOpen,
    /// The peer was silent for too long.
    Hold,
    /// The peer takes nothing any more (RFC 9687).
    SendHold,
    /// The peer must hear of us.
    Keepalive,
    /// The peer asked for all routes again, and may be answered again.
    Refresh,
}

/// A table of deadlines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        self.0[timer as usize] = at;
    }

    pub(crate) fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let timer = Timer::ALL.into_iter().find(|timer| self.at(*timer).is_some_and(|at| at <= now))?;
        self.set(timer, None);
        Some(timer)
    }
}

impl Timer {
    const ALL: [Self; 7] =
        [Self::IdleHold, Self::Connect, Self::DelayOpen, Self::Hold, Self::SendHold, Self::Keepalive, Self::Refresh];
}
