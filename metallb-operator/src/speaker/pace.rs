//! Limits how often the announcements of one Service, and the configuration, change: a loop in some tool that creates
//! and deletes an object does not reach neighbours and routers at its own rate. Pure.
//!
//! The first ten changes of an object take effect at once, further ones at most every 250 ms. A change that waits is
//! merged with those that follow it: only the latest state takes effect.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metallb_core::model::ServiceKey;

use crate::index::Touched;

/// The recent changes.
#[derive(Debug)]
pub(super) struct Pace {
    configuration: Bucket,
    /// Services that changed recently; a full bucket is left out.
    services: BTreeMap<ServiceKey, Bucket>,
}

/// A token bucket: each change takes a token.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u32,
    /// When the last token was added.
    filled_at: Instant,
}

impl Pace {
    /// Nothing changed yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { configuration: Bucket::full(now), services: BTreeMap::new() }
    }

    /// Takes from `touched` what may take effect now, and leaves the rest.
    pub(super) fn admit(&mut self, touched: &mut Touched, now: Instant) -> Touched {
        let mut admitted = Touched { versions: std::mem::take(&mut touched.versions), ..Touched::default() };
        admitted.conflicts = std::mem::take(&mut touched.conflicts);
        if touched.config && self.configuration.take(now) {
            admitted.config = std::mem::take(&mut touched.config);
            admitted.nodes = std::mem::take(&mut touched.nodes);
        }
        let services = std::mem::take(&mut touched.services);
        let mut may_change =
            |service: &ServiceKey| self.services.entry(service.clone()).or_insert_with(|| Bucket::full(now)).take(now);
        let (now_due, later): (BTreeSet<_>, BTreeSet<_>) = services.into_iter().partition(|key| may_change(key));
        admitted.services = now_due;
        touched.services = later;
        admitted
    }

    /// When a part of `touched` may take effect; `None` if nothing waits.
    pub(super) fn next_due(&self, touched: &Touched) -> Option<Instant> {
        let configuration = touched.config.then(|| self.configuration.next_token());
        let services = touched.services.iter().filter_map(|key| self.services.get(key)).map(Bucket::next_token);
        services.chain(configuration).min()
    }

    /// Forgets Services without recent changes.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.services.retain(|_, bucket| {
            bucket.fill(now);
            bucket.tokens < BURST
        });
    }
}

impl Bucket {
    const fn full(now: Instant) -> Self {
        Self { tokens: BURST, filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        while self.tokens < BURST && now.saturating_duration_since(self.filled_at) >= INTERVAL {
            self.tokens += 1;
            self.filled_at += INTERVAL;
        }
        if self.tokens == BURST {
            self.filled_at = now;
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let has_token = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has_token
    }

    fn next_token(&self) -> Instant {
        match self.tokens {
            0 => self.filled_at + INTERVAL,
            _ => self.filled_at,
        }
    }
}

/// Changes of one object that take effect at once.
const BURST: u32 = 10;

/// Time between further changes of one object.
const INTERVAL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(config: bool, services: &[&str]) -> Touched {
        let services = services.iter().map(|name| ServiceKey::new("default", name)).collect();
        Touched { config, nodes: config, services, ..Touched::default() }
    }

    #[test]
    fn endless_changes_take_effect_four_times_a_second_after_a_burst_of_ten() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut open = Touched::default();
        let mut effects = Vec::new();
        for step in 0..3_000_u64 {
            let now = start + Duration::from_millis(step);
            open.merge(touched(true, &["web"]));
            let admitted = pace.admit(&mut open, now);
            assert_eq!(admitted.config, !admitted.services.is_empty(), "at {step} ms");
            if admitted.config {
                effects.push(step);
            }
        }
        let expected: Vec<u64> = (0..10).chain((1..12).map(|number| number * 250)).collect();
        assert_eq!(effects, expected);
    }

    #[test]
    fn change_that_waits_takes_effect_when_it_is_due_and_delays_no_other() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut open = Touched::default();
        for _ in 0..11 {
            open.merge(touched(false, &["web"]));
            pace.admit(&mut open, start);
        }
        assert_eq!(open.services.len(), 1, "the eleventh waits");
        assert_eq!(pace.next_due(&open), Some(start + INTERVAL));
        open.merge(touched(true, &["api"]));
        let admitted = pace.admit(&mut open, start);
        assert!(admitted.config && admitted.nodes && admitted.services.contains(&ServiceKey::new("default", "api")));
        let admitted = pace.admit(&mut open, start + INTERVAL);
        assert!(admitted.services.contains(&ServiceKey::new("default", "web")));
        assert_eq!(pace.next_due(&open), None);
    }

    #[test]
    fn rare_changes_never_wait_and_are_forgotten() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for step in 0..100 {
            let mut open = touched(true, &["web"]);
            let admitted = pace.admit(&mut open, start + INTERVAL * step);
            assert!(admitted.config && admitted.services.len() == 1, "{step}");
        }
        pace.tidy(start + INTERVAL * 120);
        assert!(pace.services.is_empty());
    }
}
