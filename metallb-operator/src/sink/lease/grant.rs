//! The permission to write, as an instant that every thread can read without waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Term;

/// The term that may write, and its end. One thread changes it; any number of threads read it.
#[derive(Debug)]
pub(super) struct Grant {
    /// Origin of the instants below.
    epoch: Instant,
    /// 0 for none.
    term: AtomicU64,
    /// Nanoseconds after `epoch`; 0 for never.
    until: AtomicU64,
}

impl Grant {
    /// No term may write.
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, term: AtomicU64::new(0), until: AtomicU64::new(0) }
    }

    /// Permits `term` to write until `until`.
    pub(super) fn give(&self, term: Term, until: Instant) {
        if self.term.load(Ordering::SeqCst) != term.0 {
            // A reader must not combine the new term with the end of the old one.
            self.withdraw();
            self.term.store(term.0, Ordering::SeqCst);
        }
        self.until.store(self.nanoseconds(until), Ordering::SeqCst);
    }

    /// Revokes the permission.
    pub(super) fn withdraw(&self) {
        self.until.store(0, Ordering::SeqCst);
        self.term.store(0, Ordering::SeqCst);
    }

    /// Whether `term` may write now. The clock is read last: a thread that is stopped in here sees the time after that.
    pub(super) fn covers(&self, term: Term, clock: impl FnOnce() -> Instant) -> bool {
        // The end is read first. When the term changes in between, the end belongs to an earlier term and is earlier.
        let until = self.until.load(Ordering::SeqCst);
        self.term.load(Ordering::SeqCst) == term.0 && self.nanoseconds(clock()) < until
    }

    fn nanoseconds(&self, instant: Instant) -> u64 {
        let since: Duration = instant.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_covers_its_own_term_until_its_end_and_no_other() {
        let epoch = Instant::now();
        let at = |milliseconds| epoch + Duration::from_millis(milliseconds);
        let grant = Grant::new(epoch);
        assert!(!grant.covers(Term(1), || at(0)));
        grant.give(Term(1), at(3000));
        assert!(grant.covers(Term(1), || at(2999)));
        assert!(!grant.covers(Term(1), || at(3000)));
        assert!(!grant.covers(Term(2), || at(1000)));
        grant.give(Term(2), at(5000));
        assert!(!grant.covers(Term(1), || at(1000)));
        assert!(grant.covers(Term(2), || at(4000)));
        grant.withdraw();
        assert!(!grant.covers(Term(2), || at(4000)));
    }

    #[test]
    fn grant_reads_the_clock_after_the_end_of_the_term() {
        let epoch = Instant::now();
        let grant = Grant::new(epoch);
        grant.give(Term(1), epoch + Duration::from_secs(3));
        // The thread is stopped between the two reads.
        assert!(!grant.covers(Term(1), || epoch + Duration::from_secs(20)));
    }
}
