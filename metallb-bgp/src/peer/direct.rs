//! The policy for direct writes: whether the caller of a route change may write it to the connection itself, without
//! waking the peer's task. `docs/design/0026-fast-path-for-route-changes.md` has the reasons.

use std::time::{Duration, Instant};

/// Admits a few changes after a pause. More changes, or changes in quick succession, are left to the peer's task, which
/// packs them into few messages.
#[derive(Debug, Default)]
pub(crate) struct DirectWrites {
    last: Option<Instant>,
}

impl DirectWrites {
    /// Whether the caller may write this many changes now. If so, the pause starts again.
    pub(crate) fn admit(&mut self, now: Instant, changes: usize) -> bool {
        let too_soon = self.last.is_some_and(|at| now.saturating_duration_since(at) < PAUSE);
        let admitted = changes <= CHANGES_MAX && !too_soon;
        if admitted {
            self.last = Some(now);
        }
        admitted
    }
}

/// Maximum number of changes in a direct write.
const CHANGES_MAX: usize = 16;

/// Minimum interval between two direct writes.
const PAUSE: Duration = Duration::from_micros(500);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
mod tests {
    use super::*;

    #[test]
    fn direct_write_is_admitted_for_few_changes_after_a_pause() {
        let start = Instant::now();
        let mut writes = DirectWrites::default();
        assert!(!writes.admit(start, CHANGES_MAX + 1), "too many");
        assert!(writes.admit(start, CHANGES_MAX), "a refused write does not start the pause");
        assert!(!writes.admit(start + PAUSE - Duration::from_nanos(1), 1), "too soon");
        assert!(writes.admit(start + PAUSE, 1));
        assert!(!writes.admit(start + PAUSE, 1));
    }
}
