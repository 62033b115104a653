//! Schedules of unsolicited frames: a gratuitous burst of five rounds, 1.1 s apart, and ARP/NDP probes.
//!
//! The burst is that of upstream MetalLB, see `docs/upstream-behaviour.md#l2-gratuitous`.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::vip::{Generation, VipId, VipTable};

/// Pending bursts. Addresses whose bursts begin together share one entry, so the size is bounded by the number of
/// changes during one burst (about five seconds).
#[derive(Debug)]
pub(crate) struct Schedule {
    timing: BurstTiming,
    bursts: Vec<Burst>,
    /// Draws the jitter.
    rng: SmallRng,
}

/// The number of rounds of a burst and the interval between them, to which up to a tenth is added as jitter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BurstTiming {
    pub(crate) rounds: u8,
    pub(crate) period: Duration,
}

impl BurstTiming {
    pub(crate) const ANNOUNCE: Self = Self { rounds: 5, period: Duration::from_millis(1100) };
    /// Three probes, and a fourth round in which the address is taken. RFC 5227 §2.1.1 waits four to seven seconds to
    /// reach slow hosts. Hosts on a cluster's segment answer within a millisecond, so 0.6 s are enough here.
    pub(crate) const PROBE: Self = Self { rounds: 4, period: Duration::from_millis(200) };
}

/// Addresses whose bursts began together.
#[derive(Debug)]
struct Burst {
    next: Instant,
    round: u8,
    members: Vec<(VipId, Generation)>,
}

impl Schedule {
    pub(crate) fn new(timing: BurstTiming, seed: u64) -> Self {
        Self { timing, bursts: Vec::new(), rng: SmallRng::seed_from_u64(seed) }
    }

    /// Begins one burst for all of `members`. Each generation must be fresh. The first round is due at `first`.
    pub(crate) fn start(&mut self, first: Instant, members: Vec<(VipId, Generation)>) {
        if !members.is_empty() {
            self.bursts.push(Burst { next: first, round: 0, members });
        }
    }

    /// Calls `send` with each address whose round is due and the number of that round, counted from 0, and schedules
    /// the next round. All addresses of a burst share one jitter.
    pub(crate) fn run_due(&mut self, now: Instant, vips: &VipTable, mut send: impl FnMut(VipId, u8)) {
        let BurstTiming { rounds, period } = self.timing;
        for burst in &mut self.bursts {
            if burst.next > now {
                continue;
            }
            burst.members.retain(|&(id, generation)| vips.is_current(id, generation));
            burst.members.iter().for_each(|&(id, _)| send(id, burst.round));
            burst.round += 1;
            burst.next = now + period + jitter(&mut self.rng, period);
        }
        self.bursts.retain(|burst| burst.round < rounds && !burst.members.is_empty());
    }

    /// The earliest time at which a round is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.bursts.iter().map(|burst| burst.next).min()
    }
}

/// A random duration below a tenth of the period.
fn jitter(rng: &mut SmallRng, period: Duration) -> Duration {
    rng.random_range(Duration::ZERO..period / 10)
}
