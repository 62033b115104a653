//! When to announce unasked: at once, then four times more, 1.1 s apart (contract speaker §2.4).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The pending rounds of each address.
#[derive(Debug)]
pub(super) struct Schedule {
    bursts: BTreeMap<IpAddr, Burst>,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    next: Instant,
    left: u8,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self { bursts: BTreeMap::new(), random: seed | 1 }
    }

    /// Begins a burst for each address, all at once.
    pub(super) fn start(&mut self, now: Instant, addresses: impl IntoIterator<Item = IpAddr>) {
        self.bursts.extend(addresses.into_iter().map(|ip| (ip, Burst { next: now, left: ROUNDS })));
    }

    /// Ends the bursts of addresses that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&IpAddr) -> bool) {
        self.bursts.retain(|ip, _| keep(ip));
    }

    /// The addresses whose round is due, in order; their next round is set. One jitter serves the whole round, so that what
    /// began together stays together.
    pub(super) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let jitter = self.jitter();
        let mut due = Vec::new();
        self.bursts.retain(|&ip, burst| {
            if burst.next > now {
                return true;
            }
            due.push(ip);
            burst.left -= 1;
            burst.next = now + PERIOD + jitter;
            burst.left > 0
        });
        due
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.bursts.values().map(|burst| burst.next).min()
    }

    /// Up to a tenth of the period (xorshift64).
    fn jitter(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_millis(self.random % 110)
    }
}

const ROUNDS: u8 = 5;
const PERIOD: Duration = Duration::from_millis(1100);
