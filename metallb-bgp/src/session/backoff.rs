//! The pause before the next connection attempt, and the jitter of all timers of a peer.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Exponential back-off from one second to two minutes. A session that stayed up for a while resets it. The pause is
/// never zero, so that a peer which accepts and closes connections at once does not cause a busy loop.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    fixed: Option<Duration>,
    established: Option<Instant>,
    random: SmallRng,
}

impl Backoff {
    pub(crate) fn new(seed: u64, fixed: Option<Duration>) -> Self {
        Self { attempts: 0, fixed, established: None, random: SmallRng::seed_from_u64(seed) }
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
        let pause = self.fixed.unwrap_or_else(|| MIN.saturating_mul(1 << self.attempts.min(7)).min(MAX));
        self.attempts = self.attempts.saturating_add(1);
        self.jitter(pause.max(MIN))
    }

    /// A random value between 75 % and 100 % of a duration (RFC 4271 §10).
    pub(crate) fn jitter(&mut self, duration: Duration) -> Duration {
        duration - duration / 4 * self.random.random_range(0..1000) / 1000
    }
}

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(120);
/// Minimum uptime of a session that resets the back-off.
const STABLE: Duration = Duration::from_secs(10);
