//! Pauses of Services after failed writes, per Service, so that one failing Service does not delay others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metallb_core::model::ServiceKey;

use crate::sink::service_status::Failure;

/// Pauses of single Services, with exponential back-off.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    by_time: BTreeSet<(Instant, ServiceKey)>,
    by_service: BTreeMap<ServiceKey, Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    failed_at: Instant,
    failures: u32,
}

impl Pauses {
    /// Records a failed write. Returns when the next one may start; `None` means at once. `jitter` is between 0 and 1.
    pub(crate) fn failed(
        &mut self,
        service: &ServiceKey,
        failure: &Failure,
        was_read: bool,
        now: Instant,
        jitter: f64,
    ) -> Option<Instant> {
        let before = self.remove(service);
        let failures = before.map_or(0, |pause| pause.failures).saturating_add(1);
        let delay = match failure {
            // The object was read: decide again without a pause.
            Failure::Conflict if was_read => return self.remember(service, now, now, failures),
            Failure::Unknown(_) if was_read && failures == 1 => return self.remember(service, now, now, failures),
            Failure::NotSent | Failure::Gone => return None,
            Failure::Refused(_) => back_off(REFUSED, REFUSED_MAX, failures),
            Failure::Throttled(after) => {
                back_off(UNREACHABLE, UNREACHABLE_MAX, failures).max(after.unwrap_or_default())
            }
            Failure::Conflict | Failure::Unknown(_) => back_off(UNREACHABLE, UNREACHABLE_MAX, failures),
        };
        let until = now + delay.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 5.0);
        self.remember(service, until, now, failures);
        Some(until)
    }

    /// Records a successful write.
    pub(crate) fn succeeded(&mut self, service: &ServiceKey) {
        self.remove(service);
    }

    /// Shortens the pause after a change of the Service to at most [`CHANGED`] after the last failure.
    pub(crate) fn changed(&mut self, service: &ServiceKey) {
        let Some(pause) = self.by_service.get(service) else { return };
        let (until, failed_at, failures) = (pause.until, pause.failed_at, pause.failures);
        if until > failed_at + CHANGED {
            self.remove(service);
            self.remember(service, failed_at + CHANGED, failed_at, failures);
        }
    }

    /// Whether a Service is paused.
    pub(crate) fn is_paused(&self, service: &ServiceKey, now: Instant) -> bool {
        self.by_service.get(service).is_some_and(|pause| pause.until > now)
    }

    /// When the next pause ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }

    /// Services whose pause is over. Their number of failures is kept until a write succeeds.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<ServiceKey> {
        let mut due = Vec::new();
        while let Some((until, _)) = self.by_time.first()
            && *until <= now
            && let Some((_, service)) = self.by_time.pop_first()
        {
            due.push(service);
        }
        due
    }

    /// Forgets Services that no longer exist.
    pub(crate) fn retain(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.by_service.retain(|service, _| exists(service));
        self.by_time.retain(|(_, service)| exists(service));
    }

    fn remember(&mut self, service: &ServiceKey, until: Instant, failed_at: Instant, failures: u32) -> Option<Instant> {
        if until > failed_at {
            self.by_time.insert((until, service.clone()));
        }
        self.by_service.insert(service.clone(), Pause { until, failed_at, failures });
        None
    }

    fn remove(&mut self, service: &ServiceKey) -> Option<Pause> {
        let pause = self.by_service.remove(service)?;
        self.by_time.remove(&(pause.until, service.clone()));
        Some(pause)
    }
}

fn back_off(first: Duration, most: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << (failures - 1).min(16)).min(most)
}

/// The first and the longest pause after a refusal.
const REFUSED: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_mins(5);

/// The first and the longest pause after an unknown result.
const UNREACHABLE: Duration = Duration::from_millis(100);
const UNREACHABLE_MAX: Duration = Duration::from_secs(2);

/// Longest pause after a failure once somebody changed the Service.
const CHANGED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("default", name)
    }

    #[test]
    fn refusals_are_tried_again_ever_more_rarely_and_a_success_ends_it() {
        let (start, refused) = (Instant::now(), Failure::Refused("no".to_owned()));
        let mut pauses = Pauses::default();
        let mut delays = Vec::new();
        for _ in 0..11 {
            let until = pauses.failed(&key("web"), &refused, false, start, 0.0).unwrap();
            delays.push((until - start).as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        pauses.succeeded(&key("web"));
        assert_eq!(pauses.next(), None);
        assert_eq!(pauses.failed(&key("web"), &refused, false, start, 0.0), Some(start + REFUSED));
    }

    #[test]
    fn conflict_that_was_read_is_tried_again_at_once_and_an_unknown_end_once() {
        let now = Instant::now();
        let mut pauses = Pauses::default();
        for _ in 0..20 {
            assert_eq!(pauses.failed(&key("a"), &Failure::Conflict, true, now, 0.5), None);
        }
        let unknown = Failure::Unknown("lost".to_owned());
        assert_eq!(pauses.failed(&key("b"), &unknown, true, now, 0.0), None);
        assert_eq!(pauses.failed(&key("b"), &unknown, true, now, 0.0), Some(now + UNREACHABLE * 2));
        assert_eq!(pauses.failed(&key("c"), &Failure::Conflict, false, now, 0.0), Some(now + UNREACHABLE));
    }

    #[test]
    fn throttled_service_waits_for_as_long_as_the_server_says() {
        let (now, after) = (Instant::now(), Duration::from_secs(5));
        let mut pauses = Pauses::default();
        assert_eq!(pauses.failed(&key("a"), &Failure::Throttled(Some(after)), false, now, 0.0), Some(now + after));
        assert!(pauses.due(now + after - Duration::from_millis(1)).is_empty());
        assert_eq!(pauses.due(now + after), [key("a")]);
        assert!(pauses.due(now + after).is_empty());
    }

    #[test]
    fn changed_service_is_tried_a_second_after_its_last_failure() {
        let (now, refused) = (Instant::now(), Failure::Refused("no".to_owned()));
        let mut pauses = Pauses::default();
        for _ in 0..6 {
            pauses.failed(&key("web"), &refused, false, now, 0.0);
        }
        pauses.changed(&key("web"));
        assert_eq!(pauses.next(), Some(now + CHANGED));
        pauses.changed(&key("other"));
        pauses.retain(|service| *service != key("web"));
        assert_eq!(pauses.next(), None);
    }
}
