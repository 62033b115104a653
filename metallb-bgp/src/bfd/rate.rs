//! Randomness and its use: jitter, and the limit of what a neighbour can make us send.

use std::time::{Duration, Instant};

/// Splitmix64: deterministic by its seed, good enough to spread timers and to draw names.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `interval` shortened by a random part: to 75–100 %, with a multiplier of one to 75–90 % (RFC 5880 §6.8.7).
    pub(super) fn jittered(&mut self, interval: Duration, detect_multiplier: u8) -> Duration {
        let nanoseconds = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let least = nanoseconds - nanoseconds / 4;
        let spread = if detect_multiplier == 1 { nanoseconds / 20 * 3 } else { nanoseconds / 4 };
        Duration::from_nanos(least + self.next() % (spread + 1))
    }
}

/// Packets outside the schedule (answers to polls, news of a state change) cost one each; a neighbour that provokes more than
/// the budget gets the rest with the next periodic packet.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    left: u32,
    refilled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now }
    }

    /// Takes one packet; false when there is none left. `advertised` is the transmit interval that the neighbour was told: a
    /// system may limit its rate no lower than that (RFC 5880 §6.8.7).
    pub(super) fn take(&mut self, now: Instant, advertised: Duration) -> bool {
        let every = advertised.clamp(Duration::from_micros(1), REFILL);
        let earned = now.saturating_duration_since(self.refilled).as_micros() / every.as_micros();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.refilled = if self.left == BURST { now } else { self.refilled + every * earned };
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

const BURST: u32 = 8;
const REFILL: Duration = Duration::from_millis(10);
