//! How long to look for the next question before going to sleep. To be woken takes tens of microseconds where the core has gone to
//! sleep too, which is most of what an answer takes.

use std::time::{Duration, Instant};

/// Looks a little longer after each answer, and longer still while one question follows the other quickly: for about as long as being
/// woken takes, so that a wrong guess costs at most as much again. Frames that get no answer change nothing.
#[derive(Debug, Default)]
pub(super) struct BusyPoll {
    answered: Option<Instant>,
    until: Option<Instant>,
    asked: Option<Instant>,
}

impl BusyPoll {
    /// Questions were answered.
    pub(super) fn answered(&mut self, now: Instant) {
        let quick = self.answered.is_some_and(|before| now.saturating_duration_since(before) <= QUICK);
        self.answered = Some(now);
        self.until = Some(now + if quick { QUICK } else { SHORT });
    }

    /// Whether it is time to ask the kernel, and not just to look where frames come in: what waits elsewhere must not wait for the end
    /// of a flood.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none_or(|before| now.saturating_duration_since(before) >= ASK);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// Whether it is worth while to look once more.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// A question a millisecond makes this one percent of a core.
const SHORT: Duration = Duration::from_micros(10);

/// More than this between two questions, and the thread sleeps in between: only ten thousand questions a second, all of them within the
/// limits of what is answered, keep a core busy.
const QUICK: Duration = Duration::from_micros(100);

/// How long the kernel is not asked at most: about a hundred times as long as asking takes.
const ASK: Duration = Duration::from_micros(50);

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn who_has_answered_nothing_sleeps_at_once() {
        assert!(!BusyPoll::default().is_active(Instant::now()));
    }

    #[test]
    fn the_kernel_is_asked_at_once_and_then_every_fifty_microseconds() {
        let (mut busy_poll, start) = (BusyPoll::default(), Instant::now());
        assert!(busy_poll.asks(start) && !busy_poll.asks(start + 49 * US));
        assert!(busy_poll.asks(start + 50 * US) && !busy_poll.asks(start + 99 * US));
    }

    #[test]
    fn rare_questions_are_waited_for_shortly_and_quick_ones_until_they_end() {
        let (mut busy_poll, start) = (BusyPoll::default(), Instant::now());
        busy_poll.answered(start);
        assert!(busy_poll.is_active(start + 9 * US) && !busy_poll.is_active(start + 10 * US));
        // It was asleep when the second one came.
        busy_poll.answered(start + 50 * US);
        assert!(busy_poll.is_active(start + 149 * US) && !busy_poll.is_active(start + 150 * US));
        busy_poll.answered(start + 149 * US);
        assert!(busy_poll.is_active(start + 248 * US));
        busy_poll.answered(start + 300 * US);
        assert!(busy_poll.is_active(start + 309 * US) && !busy_poll.is_active(start + 310 * US));
    }
}
