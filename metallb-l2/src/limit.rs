//! Rate limits on replies, so that neither one host nor a flood can occupy a whole core.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::interface::MacAddr;

/// A rate with a burst allowance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Events per second in the long run.
    pub per_second: NonZeroU32,
    /// Events that may occur at once after a quiet period.
    pub burst: NonZeroU32,
}

/// How many requests are answered; `None` means no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Limit per sender, by hardware address.
    pub per_sender: Option<Rate>,
    /// Limit for all senders together.
    pub total: Option<Rate>,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { per_sender: None, total: None };
}

impl Default for Limits {
    /// 10,000 requests per second and a burst of 20,000 for each sender, which is enough for a router that lost its
    /// neighbour cache, and ten times as many for all senders together.
    fn default() -> Self {
        let rate = |per_second: u32, burst: u32| {
            Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
        };
        Self { per_sender: rate(10_000, 20_000), total: rate(100_000, 200_000) }
    }
}

/// Applies [`Limits`] in constant time and memory. Senders are hashed to [`CELLS`] slots, and those in one slot share
/// a limit. The seed keeps a hostile sender from choosing the slot of another host.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    start: Instant,
    seed: u64,
    total: Cell,
    senders: Box<[Cell]>,
}

/// The theoretical arrival time of the generic cell rate algorithm (ITU-T I.371): when the next event would be due if
/// all previous ones had been evenly spaced, in nanoseconds since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Cell(u64);

impl Limiter {
    pub(crate) fn new(limits: Limits, seed: u64, now: Instant) -> Self {
        let cells = if limits.per_sender.is_some() { CELLS } else { 0 };
        Self { limits, start: now, seed, total: Cell(0), senders: vec![Cell(0); cells].into() }
    }

    /// Whether a request of `sender` may be answered now. If so it counts against the limits.
    pub(crate) fn allows(&mut self, now: Instant, sender: MacAddr) -> bool {
        let nanos = nanos(now.saturating_duration_since(self.start));
        let slot = self.slot(sender);
        // The sender's limit comes first: its refused requests must not use up the common limit.
        let allowed = match (self.limits.per_sender, self.senders.get_mut(slot)) {
            (Some(rate), Some(cell)) => cell.take(nanos, rate),
            _ => true,
        };
        allowed && self.limits.total.is_none_or(|rate| self.total.take(nanos, rate))
    }

    fn slot(&self, sender: MacAddr) -> usize {
        let [a, b, c, d, e, f] = sender.0;
        let mixed = (u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The high bits depend on the whole input.
        (mixed ^ mixed.rotate_left(29)).wrapping_mul(self.seed | 1) as usize >> 7 & (CELLS - 1)
    }
}

impl Cell {
    const fn take(&mut self, now: u64, rate: Rate) -> bool {
        let interval = 1_000_000_000 / rate.per_second.get() as u64;
        let due = if self.0 > now { self.0 } else { now };
        if due - now > interval * (rate.burst.get() as u64 - 1) {
            return false;
        }
        self.0 = due + interval;
        true
    }
}

/// Saturates after 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The number of slots, a power of two. They take 32 KiB.
const CELLS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() })
    }

    fn sender(number: u32) -> MacAddr {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddr([2, 0, a, b, c, d])
    }

    #[test]
    fn flood_by_one_sender_is_limited_while_another_sender_is_answered() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Limits { per_sender: rate(100, 10), total: None }, 3, start);
        let allowed = (0..100_000)
            .filter(|&micros| limiter.allows(start + Duration::from_micros(micros * 10), sender(1)))
            .count();
        assert_eq!(allowed, 10 + 99);
        assert!(limiter.allows(start + Duration::from_secs(1), sender(2)));
    }

    #[test]
    fn flood_by_a_million_senders_is_limited_in_constant_memory() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Limits { per_sender: rate(100, 10), total: rate(1000, 50) }, 3, start);
        let allowed =
            (0..1_000_000_u32).filter(|&n| limiter.allows(start + Duration::from_micros(n.into()), sender(n))).count();
        assert_eq!(allowed, 50 + 999);
        assert_eq!(limiter.senders.len(), CELLS);
    }

    #[test]
    fn senders_are_spread_over_the_slots() {
        let limiter = Limiter::new(Limits::default(), 7, Instant::now());
        let slots: std::collections::BTreeSet<usize> = (0..4096).map(|n| limiter.slot(sender(n))).collect();
        // 4096 balls in 4096 bins use about 1 - 1/e of the bins.
        assert!(slots.len() > 2000, "{}", slots.len());
    }
}
