//! Pauses between attempts of a watch, and the rate of its log lines. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses after failures: each about twice as long as the one before, up to [`Backoff::CAP`].
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

/// State of the log: whether it says that the kind is unavailable.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// The cause that was logged.
    logged: Option<u16>,
    logged_at: Option<Instant>,
}

impl Backoff {
    /// The pause before the next attempt; `jitter`, from 0 to 1, spreads processes that failed together over half of
    /// the pause.
    pub(crate) fn next(&mut self, jitter: f64) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::CAP);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Records a success: the next failure is the first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    const FIRST: Duration = Duration::from_millis(100);

    /// A longer pause would leave a process outdated for longer than the outage.
    pub(super) const CAP: Duration = Duration::from_secs(2);
}

impl Outage {
    /// Records a failure by `cause`. True if it should be logged: the cause differs from the logged one, and the last
    /// line is not recent.
    pub(super) fn failed(&mut self, now: Instant, cause: u16) -> bool {
        let is_recent = self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < Self::BETWEEN_LINES);
        if self.logged == Some(cause) || is_recent {
            return false;
        }
        (self.logged, self.logged_at) = (Some(cause), Some(now));
        true
    }

    /// Records a success. True if it should be logged, because a failure was.
    pub(super) fn ended(&mut self) -> bool {
        self.logged.take().is_some()
    }

    /// An unstable server causes at most two lines in this time.
    const BETWEEN_LINES: Duration = Duration::from_secs(10);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.next(0.0), Backoff::CAP / 2, "jitter takes half at most");
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next(1.0), Backoff::CAP, "whatever the length of the outage");
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 50);
    }

    #[test]
    fn outage_is_logged_once_per_cause_and_its_end_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        assert!(!outage.ended(), "nothing was logged");
        let rows = [
            ("refused connection", 0, 0, true),
            ("the same", 2, 0, false),
            ("the same, an hour later", 3600, 0, false),
            ("another cause", 3602, 403, true),
            ("yet another, at once", 3604, 404, false),
            ("yet another, still there", 3612, 404, true),
        ];
        for (name, seconds, cause, is_logged) in rows {
            assert_eq!(outage.failed(at(seconds), cause), is_logged, "{name}");
        }
        assert!(outage.ended());
        assert!(!outage.ended());
        assert!(!outage.failed(at(3613), 0), "a server that comes and goes");
        assert!(!outage.ended(), "no end of what was not logged");
        assert!(!outage.failed(at(3614), 0));
        assert!(outage.failed(at(3622), 0), "a lasting outage is logged within seconds");
    }
}
