//! Address conflicts (RFC 5227 §2.4, RFC 4862 §5.4): when to report one, and when to defend the address.

use std::time::{Duration, Instant};

use crate::interface::MacAddr;

/// What to do about a conflict besides reporting it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Defence {
    /// Nothing. During a planned move two speakers announce an address for a moment, and the old one must not reclaim
    /// the neighbour caches.
    #[default]
    Never,
    /// Announce the address again, at most once in ten seconds (RFC 5227 §2.4 (b)).
    Announce,
}

/// The conflict state of one address. Its size does not depend on the number of claims or claimants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conflict {
    reported: Option<(Instant, MacAddr)>,
    defended: Option<Instant>,
}

/// How to respond to one more claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    pub(crate) report: bool,
    pub(crate) defend: bool,
}

impl Conflict {
    pub(crate) fn observe(&mut self, now: Instant, mac: MacAddr, defence: Defence) -> Response {
        let since = |at: Instant| now.saturating_duration_since(at);
        let report = self.reported.is_none_or(|(at, reported)| {
            since(at) >= if reported == mac { REPORT_INTERVAL } else { REPORT_INTERVAL_ANOTHER_HOST }
        });
        if report {
            self.reported = Some((now, mac));
        }
        let defend = defence == Defence::Announce && self.defended.is_none_or(|at| since(at) >= DEFEND_INTERVAL);
        if defend {
            self.defended = Some(now);
        }
        Response { report, defend }
    }
}

/// The shortest interval between two reports of a conflict with the same host.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// The shortest interval between reports of conflicts with different hosts.
const REPORT_INTERVAL_ANOTHER_HOST: Duration = Duration::from_secs(1);
/// `DEFEND_INTERVAL` of RFC 5227 §1.1.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    #[test]
    fn conflict_with_the_same_host_is_reported_every_thirty_seconds_and_with_another_after_one() {
        let start = Instant::now();
        let mut conflict = Conflict::default();
        let reported: Vec<bool> = [(0, A), (500, B), (1000, B), (1500, B), (2500, A), (30_000, A), (32_500, A)]
            .map(|(millis, mac)| conflict.observe(start + Duration::from_millis(millis), mac, Defence::Never).report)
            .into();
        assert_eq!(reported, [true, false, true, false, true, false, true]);
    }

    #[test]
    fn address_is_defended_once_in_ten_seconds_and_only_when_configured() {
        let start = Instant::now();
        let defended = |defence| {
            let mut conflict = Conflict::default();
            [0, 1, 9_999, 10_000, 10_001]
                .map(|millis| conflict.observe(start + Duration::from_millis(millis), A, defence).defend)
        };
        assert_eq!(defended(Defence::Announce), [true, false, false, true, false]);
        assert_eq!(defended(Defence::Never), [false; 5]);
    }
}
