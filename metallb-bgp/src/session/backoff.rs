//! How long to wait before the next attempt, and jitter.

use std::time::{Duration, Instant};

/// Doubles from one second to two minutes; a session that lasted starts over. The pause is never nothing, so that a peer which
/// accepts and drops at once does not make a busy loop.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    fixed: Option<Duration>,
    established: Option<Instant>,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64, fixed: Option<Duration>) -> Self {
        // The generator's only fixed point is zero.
        Self { attempts: 0, fixed, established: None, random: seed | 1 }
    }

    pub(crate) fn set_fixed(&mut self, fixed: Option<Duration>) {
        self.fixed = fixed;
    }

    pub(crate) fn note_established(&mut self, now: Instant) {
        self.established = Some(now);
    }

    /// The pause before the next attempt.
    pub(crate) fn next(&mut self, now: Instant) -> Duration {
        if self.established.take().is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.attempts = 0;
        }
        let pause = self.fixed.unwrap_or_else(|| FIRST.saturating_mul(1 << self.attempts.min(7)).min(LAST));
        self.attempts = self.attempts.saturating_add(1);
        self.jitter(pause.max(FIRST))
    }

    /// 75 to 100 % of a duration (RFC 4271 §10; xorshift64).
    pub(crate) fn jitter(&mut self, duration: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        duration - duration / 4 * (self.random % 1000) as u32 / 1000
    }
}

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(120);
/// How long a session must have lasted to count as one that works.
const STABLE: Duration = Duration::from_secs(10);
