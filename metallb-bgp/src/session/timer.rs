//! The timers of a peer and of a session.

use std::time::Instant;

/// The timers. If several are due, the first in this list expires first: a session whose hold timer expired sends no
/// KEEPALIVE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Timer {
    /// The pause before the next attempt (IdleHoldTimer).
    IdleHold,
    /// The limit for a connection attempt (ConnectRetryTimer).
    Connect,
    /// The delay of our OPEN (DelayOpenTimer).
    DelayOpen,
    /// The limit for the peer's silence (HoldTimer).
    Hold,
    /// The limit for a connection that accepts no bytes (SendHoldTimer, RFC 9687).
    SendHold,
    /// The interval of our KEEPALIVE messages (KeepaliveTimer).
    Keepalive,
    /// The minimum interval between two responses to ROUTE-REFRESH.
    Refresh,
}

/// The deadline of each timer.
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

    /// Stops a timer that is due and returns it.
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
