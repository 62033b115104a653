//! When to announce unasked: at once, then four times more, 1.1 s apart (contract speaker §2.4).

use std::time::{Duration, Instant};

use crate::vip::{VipId, VipTable};

/// The pending rounds. What begins together stays together, so its size is the number of changes of the last five seconds.
#[derive(Debug)]
pub(crate) struct Schedule {
    bursts: Vec<Burst>,
    random: u64,
}

/// Addresses that began together.
#[derive(Debug)]
struct Burst {
    next: Instant,
    rounds_left: u8,
    members: Vec<(VipId, Generation)>,
}

/// Which round of its burst.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Round {
    First,
    Later,
}

/// Tells the current burst of an address from one that a later change replaced.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// Ends what goes on under the present generation.
    pub(crate) const fn advance(&mut self) -> Self {
        self.0 = self.0.wrapping_add(1);
        *self
    }
}

impl Schedule {
    pub(crate) const fn new(seed: u64) -> Self {
        // The generator must not start at 0.
        Self { bursts: Vec::new(), random: seed | 1 }
    }

    /// Begins one burst for all of `members`, whose generations are fresh; its first round is due now.
    pub(crate) fn start(&mut self, now: Instant, members: Vec<(VipId, Generation)>) {
        if !members.is_empty() {
            self.bursts.push(Burst { next: now, rounds_left: ROUNDS, members });
        }
    }

    /// Calls `send` for each address whose round is due, and sets the next round. One jitter serves a whole burst.
    pub(crate) fn run_due(&mut self, now: Instant, vips: &VipTable, mut send: impl FnMut(VipId, Round)) {
        for burst in &mut self.bursts {
            if burst.next > now {
                continue;
            }
            burst.members.retain(|&(id, generation)| vips.is_current(id, generation));
            let round = if burst.rounds_left == ROUNDS { Round::First } else { Round::Later };
            burst.members.iter().for_each(|&(id, _)| send(id, round));
            burst.rounds_left -= 1;
            burst.next = now + PERIOD + jitter(&mut self.random);
        }
        self.bursts.retain(|burst| burst.rounds_left > 0 && !burst.members.is_empty());
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.bursts.iter().map(|burst| burst.next).min()
    }
}

/// Up to a tenth of the period (xorshift64).
const fn jitter(random: &mut u64) -> Duration {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    Duration::from_millis(*random % 110)
}

const ROUNDS: u8 = 5;
const PERIOD: Duration = Duration::from_millis(1100);
