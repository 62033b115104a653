//! Adaptive busy polling after a reply.
//!
//! Waking a sleeping thread takes tens of microseconds, which is most of the time of a reply. Polling for about that
//! long costs at most as much again when no request follows.

use std::time::{Duration, Instant};

/// Decides how long to poll for the next request before the thread sleeps: briefly after each reply, and longer while
/// requests follow each other quickly. Frames that get no reply do not extend it.
#[derive(Debug, Default)]
pub(super) struct BusyPoll {
    replied_at: Option<Instant>,
    until: Option<Instant>,
    kernel_polled_at: Option<Instant>,
}

impl BusyPoll {
    /// Records that requests were answered.
    pub(super) fn record_reply(&mut self, now: Instant) {
        let quick = self.replied_at.is_some_and(|before| now.saturating_duration_since(before) <= LONG);
        self.replied_at = Some(now);
        self.until = Some(now + if quick { LONG } else { SHORT });
    }

    /// Whether to poll all descriptors through the kernel, and not only the shared rings: commands, netlink messages
    /// and other sockets must not wait for the end of a flood. The call counts as that poll.
    pub(super) fn kernel_poll_due(&mut self, now: Instant) -> bool {
        let due = self.kernel_polled_at.is_none_or(|before| now.saturating_duration_since(before) >= KERNEL_POLL);
        if due {
            self.kernel_polled_at = Some(now);
        }
        due
    }

    /// Whether to continue polling.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Polling time after a single reply. At one request per millisecond it takes one percent of a core.
const SHORT: Duration = Duration::from_micros(10);

/// Polling time, and the longest gap between requests that counts as quick. Only 10,000 answered requests per second,
/// which are within the rate limits, keep a core busy.
const LONG: Duration = Duration::from_micros(100);

/// Interval of polls through the kernel, about a hundred times as long as one of them takes.
const KERNEL_POLL: Duration = Duration::from_micros(50);

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn thread_without_replies_does_not_poll() {
        assert!(!BusyPoll::default().is_active(Instant::now()));
    }

    #[test]
    fn kernel_poll_is_due_at_once_and_then_every_fifty_microseconds() {
        let (mut busy_poll, start) = (BusyPoll::default(), Instant::now());
        assert!(busy_poll.kernel_poll_due(start) && !busy_poll.kernel_poll_due(start + 49 * US));
        assert!(busy_poll.kernel_poll_due(start + 50 * US) && !busy_poll.kernel_poll_due(start + 99 * US));
    }

    #[test]
    fn single_reply_polls_briefly_and_quick_replies_poll_until_they_end() {
        let (mut busy_poll, start) = (BusyPoll::default(), Instant::now());
        busy_poll.record_reply(start);
        assert!(busy_poll.is_active(start + 9 * US) && !busy_poll.is_active(start + 10 * US));
        // The thread was asleep when the second request arrived.
        busy_poll.record_reply(start + 50 * US);
        assert!(busy_poll.is_active(start + 149 * US) && !busy_poll.is_active(start + 150 * US));
        busy_poll.record_reply(start + 149 * US);
        assert!(busy_poll.is_active(start + 248 * US));
        busy_poll.record_reply(start + 300 * US);
        assert!(busy_poll.is_active(start + 309 * US) && !busy_poll.is_active(start + 310 * US));
    }
}
