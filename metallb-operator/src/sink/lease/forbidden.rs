//! When a controller goes on without a Lease, because its Role allows none: upstream's Roles do not know leases.
//!
//! It does so only after the API server has answered nothing but 403 for [`AFTER`] and has confirmed, by an access
//! review, that the Role lacks a verb. It keeps asking for the Lease; any other answer ends the exception.

use std::time::{Duration, Instant};

use super::Claim;

/// Knowledge about the permission to use the Lease.
#[derive(Debug, Default)]
pub(super) struct Forbidden {
    /// The first of the answers 403 in a row.
    since: Option<Instant>,
    review: Review,
}

/// The last access review.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Review {
    #[default]
    None,
    UnderWay,
    /// It did not confirm that a verb is missing.
    Unconfirmed {
        at: Instant,
    },
    /// A verb is missing.
    Denied {
        at: Instant,
    },
}

/// An answer of the API server to a request about the Lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// The Role forbids it.
    Forbidden,
    /// The request was allowed, with any result.
    Allowed,
    /// No answer, or one that says nothing about the Role.
    Other,
}

impl Forbidden {
    /// Processes an answer.
    pub(super) fn answered(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::Forbidden => {
                self.since.get_or_insert(now);
            }
            Answer::Allowed => *self = Self::default(),
            Answer::Other => {}
        }
    }

    /// Whether to ask for an access review now. The caller reports its result with [`reviewed`](Self::reviewed).
    pub(super) fn take_review(&mut self, now: Instant) -> bool {
        let is_due = match self.review {
            Review::None => true,
            Review::UnderWay | Review::Denied { .. } => false,
            Review::Unconfirmed { at } => now.saturating_duration_since(at) >= AGAIN,
        };
        let asks = is_due && self.since.is_some_and(|since| now.saturating_duration_since(since) >= AFTER);
        if asks {
            self.review = Review::UnderWay;
        }
        asks
    }

    /// Processes the result of an access review: whether a verb is missing.
    pub(super) fn reviewed(&mut self, now: Instant, is_denied: bool) {
        if self.since.is_some() {
            self.review = if is_denied { Review::Denied { at: now } } else { Review::Unconfirmed { at: now } };
        }
    }

    /// The claim that is open to the process.
    pub(super) const fn claim(&self) -> Claim {
        match (self.since, self.review) {
            (None, _) => Claim::Possible,
            (Some(_), Review::Denied { .. }) => Claim::Waived,
            (Some(_), _) => Claim::Refused,
        }
    }

    /// Whether to lead without a Lease. The process is ready [`HAND_OVER`] before that, so that a rolling update ends
    /// the process that it replaces.
    pub(super) fn leads(&self, now: Instant) -> bool {
        matches!(self.review, Review::Denied { at } if now.saturating_duration_since(at) >= HAND_OVER)
    }
}

/// Time of nothing but 403 before the access review.
const AFTER: Duration = Duration::from_mins(1);

/// Time after which an access review that denied nothing is repeated.
const AGAIN: Duration = Duration::from_mins(1);

/// Time between the denial and the first write.
const HAND_OVER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_is_waived_after_a_minute_of_denials_that_a_review_confirms() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut forbidden = Forbidden::default();
        assert_eq!(forbidden.claim(), Claim::Possible);
        forbidden.answered(at(0), Answer::Forbidden);
        assert_eq!(forbidden.claim(), Claim::Refused);
        forbidden.answered(at(30), Answer::Other);
        forbidden.answered(at(59), Answer::Forbidden);
        assert!(!forbidden.take_review(at(59)));
        assert!(forbidden.take_review(at(60)));
        assert!(!forbidden.take_review(at(61)), "one at a time");
        forbidden.reviewed(at(62), true);
        assert_eq!(forbidden.claim(), Claim::Waived);
        assert!(!forbidden.leads(at(66)) && forbidden.leads(at(67)));
        forbidden.answered(at(100), Answer::Other);
        assert!(forbidden.leads(at(100)), "a server that is away changes no Role");
        forbidden.answered(at(101), Answer::Allowed);
        assert_eq!(forbidden.claim(), Claim::Possible);
        assert!(!forbidden.leads(at(200)));
    }

    #[test]
    fn lease_is_not_waived_where_a_request_was_allowed_or_the_review_denies_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut forbidden = Forbidden::default();
        for second in 0..300 {
            let answer = if second % 50 == 0 { Answer::Allowed } else { Answer::Forbidden };
            forbidden.answered(at(second), answer);
            assert!(!forbidden.take_review(at(second)), "{second}");
        }
        forbidden.answered(at(300), Answer::Forbidden);
        assert!(forbidden.take_review(at(400)));
        forbidden.reviewed(at(400), false);
        assert!(!forbidden.leads(at(500)) && forbidden.claim() == Claim::Refused);
        assert!(!forbidden.take_review(at(459)) && forbidden.take_review(at(460)), "it is asked again");
        forbidden.answered(at(461), Answer::Allowed);
        forbidden.reviewed(at(462), true);
        assert!(!forbidden.leads(at(500)), "the review belongs to denials that ended");
    }
}
