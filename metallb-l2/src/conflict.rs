//! Other hosts that use an address of ours (RFC 5227 §2.4, RFC 4862 §5.4): when to tell it, when to defend the address.

use std::time::{Duration, Instant};

use crate::interface::MacAddr;

/// What to do about a conflict besides telling it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Defence {
    /// Nothing. While a move is planned two of our own speakers answer for a short time, and the old one must not take the
    /// neighbours back.
    #[default]
    Never,
    /// Announce the address again, at most once in ten seconds.
    Announce,
}

/// The conflicts of one address. Its size is fixed, whoever claims the address however often.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conflict {
    told: Option<(Instant, MacAddr)>,
    defended: Option<Instant>,
}

/// What one more claim asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    pub(crate) tell: bool,
    pub(crate) defend: bool,
}

impl Conflict {
    pub(crate) fn observe(&mut self, now: Instant, mac: MacAddr, defence: Defence) -> Response {
        let since = |at: Instant| now.saturating_duration_since(at);
        let tell = self.told.is_none_or(|(at, told)| since(at) >= if told == mac { TELL_AGAIN } else { TELL_ANOTHER });
        if tell {
            self.told = Some((now, mac));
        }
        let defend = defence == Defence::Announce && self.defended.is_none_or(|at| since(at) >= DEFEND_INTERVAL);
        if defend {
            self.defended = Some(now);
        }
        Response { tell, defend }
    }
}

/// How often a conflict with the same host is told.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// How often another host is told.
const TELL_ANOTHER: Duration = Duration::from_secs(1);
/// `DEFEND_INTERVAL` of RFC 5227 §1.1.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    #[test]
    fn same_host_is_told_every_thirty_seconds_and_another_after_one() {
        let start = Instant::now();
        let mut conflict = Conflict::default();
        let told: Vec<bool> = [(0, A), (500, B), (1000, B), (1500, B), (2500, A), (30_000, A), (32_500, A)]
            .map(|(millis, mac)| conflict.observe(start + Duration::from_millis(millis), mac, Defence::Never).tell)
            .into();
        assert_eq!(told, [true, false, true, false, true, false, true]);
    }

    #[test]
    fn address_is_defended_once_in_ten_seconds_and_only_when_asked_to() {
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
