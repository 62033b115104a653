//! Jitter, and the limit on packets that a neighbour can provoke.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// `interval` reduced by a random part: to 75–100 %, or to 75–90 % with a detect multiplier of one (RFC 5880 §6.8.7).
pub(super) fn jittered(random: &mut SmallRng, interval: Duration, detect_multiplier: u8) -> Duration {
    let nanoseconds = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let least = nanoseconds - nanoseconds / 4;
    let spread = if detect_multiplier == 1 { nanoseconds / 20 * 3 } else { nanoseconds / 4 };
    Duration::from_nanos(least + random.random_range(0..=spread))
}

/// Limits packets outside the schedule: responses to polls and announcements of a state change. Each takes one unit of
/// the budget. If the budget is used up, the information is sent with the next periodic packet.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    left: u32,
    refilled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now }
    }

    /// Takes one packet from the budget. Returns `false` if the budget is used up. `advertised` is the transmit
    /// interval in our packets: the rate must not be limited below it (RFC 5880 §6.8.7).
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

/// Size of the budget in packets.
const BURST: u32 = 8;
/// Maximum time to earn one packet.
const REFILL: Duration = Duration::from_millis(10);
