//! When to say something unasked: announcements at once and then four times more, 1.1 s apart (contract speaker §2.4), and probes.

use std::time::{Duration, Instant};

use crate::vip::{Generation, VipId, VipTable};

/// The pending rounds. What begins together stays together, so its size is the number of changes of the last five seconds.
#[derive(Debug)]
pub(crate) struct Schedule {
    timing: BurstTiming,
    bursts: Vec<Burst>,
    random: u64,
}

/// How often, and how far apart; up to a tenth of the period is added by chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BurstTiming {
    pub(crate) rounds: u8,
    pub(crate) period: Duration,
}

impl BurstTiming {
    pub(crate) const ANNOUNCE: Self = Self { rounds: 5, period: Duration::from_millis(1100) };
    /// Three probes, and a last round in which the address is taken. RFC 5227 waits for four to seven seconds, for the slowest of
    /// hosts; those that matter here answer within a millisecond, and a Service waits.
    pub(crate) const PROBE: Self = Self { rounds: 4, period: Duration::from_millis(200) };
}

/// Addresses that began together.
#[derive(Debug)]
struct Burst {
    next: Instant,
    round: u8,
    members: Vec<(VipId, Generation)>,
}

impl Schedule {
    pub(crate) const fn new(timing: BurstTiming, seed: u64) -> Self {
        // The generator must not start at 0.
        Self { timing, bursts: Vec::new(), random: seed | 1 }
    }

    /// Begins one burst for all of `members`, whose generations are fresh; its first round is due at `first`.
    pub(crate) fn start(&mut self, first: Instant, members: Vec<(VipId, Generation)>) {
        if !members.is_empty() {
            self.bursts.push(Burst { next: first, round: 0, members });
        }
    }

    /// Calls `send` for each address whose round is due, with the number of the round from 0, and sets the next round. One jitter
    /// serves a whole burst.
    pub(crate) fn run_due(&mut self, now: Instant, vips: &VipTable, mut send: impl FnMut(VipId, u8)) {
        let BurstTiming { rounds, period } = self.timing;
        for burst in &mut self.bursts {
            if burst.next > now {
                continue;
            }
            burst.members.retain(|&(id, generation)| vips.is_current(id, generation));
            burst.members.iter().for_each(|&(id, _)| send(id, burst.round));
            burst.round += 1;
            burst.next = now + period + jitter(&mut self.random, period);
        }
        self.bursts.retain(|burst| burst.round < rounds && !burst.members.is_empty());
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.bursts.iter().map(|burst| burst.next).min()
    }
}

/// Up to a tenth of the period (xorshift64).
const fn jitter(random: &mut u64, period: Duration) -> Duration {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    // Periods are far from 584 million years.
    let tenth = period.as_micros() as u64 / 10;
    Duration::from_micros(*random % tenth)
}
