//! One queue of deadlines for all sessions.
//!
//! A heap with lazy moves: a session has at most one live entry, which may ring too early (the session then names its next
//! deadline) but never too late. Every packet received moves a detection deadline away, which costs nothing here. A wheel would save
//! the ten comparisons that a thousand sessions cost, and pay with ticks where deadlines are exact now.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use super::Discriminator;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Discriminator)>>,
    armed: HashMap<Discriminator, Instant>,
}

impl Deadlines {
    /// Makes the session ring at `at` or earlier.
    pub(super) fn arm(&mut self, session: Discriminator, at: Option<Instant>) {
        let Some(at) = at else { return };
        if self.armed.get(&session).is_some_and(|armed| *armed <= at) {
            return;
        }
        self.armed.insert(session, at);
        self.heap.push(Reverse((at, session)));
        // Entries that were overtaken by an earlier one stay until their time; a neighbour must not pile them up.
        if self.heap.len() > 2 * self.armed.len() + 64 {
            self.heap = self.armed.iter().map(|(session, at)| Reverse((*at, *session))).collect();
        }
    }

    pub(super) fn forget(&mut self, session: Discriminator) {
        self.armed.remove(&session);
        self.prune();
    }

    /// Takes a session whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Discriminator> {
        let Reverse((at, session)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        self.armed.remove(&session);
        self.prune();
        Some(session)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Keeps a live entry on top.
    fn prune(&mut self) {
        while let Some(Reverse((at, session))) = self.heap.peek() {
            if self.armed.get(session) == Some(at) {
                break;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any instant will do
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_moved_earlier_a_million_times_keeps_the_queue_small() {
        let start = Instant::now();
        let session = Discriminator::new(7).unwrap();
        let mut deadlines = Deadlines::default();
        for step in (0..1_000_000).rev() {
            deadlines.arm(session, Some(start + Duration::from_micros(step)));
            assert!(deadlines.heap.len() <= 67);
        }
        assert_eq!(deadlines.next(), Some(start));
        assert_eq!(deadlines.pop(start), Some(session));
        assert_eq!(deadlines.next(), None, "overtaken entries are not deadlines");
    }

    #[test]
    fn a_later_deadline_leaves_the_early_bell() {
        let start = Instant::now();
        let session = Discriminator::new(7).unwrap();
        let mut deadlines = Deadlines::default();
        deadlines.arm(session, Some(start + Duration::from_secs(1)));
        deadlines.arm(session, Some(start + Duration::from_secs(2)));
        assert_eq!(deadlines.next(), Some(start + Duration::from_secs(1)));
        deadlines.forget(session);
        assert_eq!(deadlines.next(), None);
    }
}
