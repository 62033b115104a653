//! Who is the router on the other end of a link that has no addresses but link-local ones, sans-IO.
//!
//! Both ends of an unnumbered BGP session find each other by router advertisements (RFC 4861 §4.2): a router learns our address from ours,
//! we learn its address from its. Ours offer nothing: no prefix, and a lifetime of zero, so that no host takes us for a gateway.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Watches one link. After every input the driver sends what [`poll_transmit`](Self::poll_transmit) gives.
#[derive(Clone, Debug)]
pub struct Discovery {
    advertise_at: Instant,
    advertised_at: Option<Instant>,
    /// Advertisements that are still sent at the quick pace.
    quick: u8,
    solicit: bool,
    due: bool,
    router: Option<Ipv6Addr>,
}

/// An ICMPv6 message and where it goes. The kernel fills in the checksum; the hop limit must be 255.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// A group of all nodes or routers on the link.
    pub to: Ipv6Addr,
    /// Type, code, a place for the checksum, and the body.
    pub payload: &'static [u8],
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Discard {
    /// It may come from another link (RFC 4861 §6.1).
    #[error("hop limit {0} is not 255")]
    HopLimit(u8),
    /// Routers advertise themselves by their link-local address.
    #[error("{0} is not link-local")]
    Source(Ipv6Addr),
    /// Another type, or too short.
    #[error("neither an advertisement nor a solicitation")]
    Malformed,
}

impl Discovery {
    /// Begins with a question and an advertisement.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { advertise_at: now, advertised_at: None, quick: QUICK, solicit: true, due: true, router: None }
    }

    /// An ICMPv6 message that arrived on the link; its checksum is right.
    ///
    /// # Errors
    /// Why it is none of ours.
    pub fn handle_message(
        &mut self,
        now: Instant,
        from: Ipv6Addr,
        hop_limit: u8,
        payload: &[u8],
    ) -> Result<(), Discard> {
        if hop_limit != u8::MAX {
            return Err(Discard::HopLimit(hop_limit));
        }
        match *payload {
            [ADVERTISEMENT, 0, ..] if payload.len() >= ADVERTISEMENT_LENGTH => {
                if !from.is_unicast_link_local() {
                    return Err(Discard::Source(from));
                }
                if self.router.replace(from) != Some(from) {
                    // Whoever is new may not know us yet.
                    self.advertise_soon(now);
                }
            }
            [SOLICITATION, 0, ..] if payload.len() >= SOLICITATION_LENGTH => self.advertise_soon(now),
            _ => return Err(Discard::Malformed),
        }
        Ok(())
    }

    /// Advertises when it is time. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.advertise_at <= now {
            self.due = true;
            self.advertised_at = Some(now);
            // Until the router is known it may be that it has just not come up: ask again.
            self.solicit = self.router.is_none();
            self.quick = self.quick.saturating_sub(1);
            self.advertise_at = now + if self.quick > 0 { MINIMUM_PAUSE } else { PERIOD };
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if std::mem::take(&mut self.solicit) {
            return Some(Transmit { to: ALL_ROUTERS, payload: &SOLICIT });
        }
        std::mem::take(&mut self.due).then_some(Transmit { to: ALL_NODES, payload: &ADVERTISE })
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.advertise_at
    }

    /// The router that was heard last.
    #[must_use]
    pub const fn router(&self) -> Option<Ipv6Addr> {
        self.router
    }

    /// RFC 4861 §6.2.6: answers to many questions are one, and not too often.
    fn advertise_soon(&mut self, now: Instant) {
        let earliest = self.advertised_at.map_or(now, |at| at + MINIMUM_PAUSE);
        self.advertise_at = self.advertise_at.min(earliest.max(now));
    }
}

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const SOLICITATION_LENGTH: usize = 8;
const ADVERTISEMENT_LENGTH: usize = 16;

const SOLICIT: [u8; SOLICITATION_LENGTH] = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];

/// Hop limit, flags, router lifetime, reachable time and retransmission timer are all zero: unspecified, and no gateway.
const ADVERTISE: [u8; ADVERTISEMENT_LENGTH] = [ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Between advertisements in the long run.
const PERIOD: Duration = Duration::from_secs(10);

/// The least pause between two (RFC 4861 §10, `MIN_DELAY_BETWEEN_RAS`).
const MINIMUM_PAUSE: Duration = Duration::from_secs(3);

/// How many go out at the least pause first, so that a lost one costs little.
const QUICK: u8 = 4;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's time begins somewhere")]
mod tests {
    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);

    fn sent(discovery: &mut Discovery) -> Vec<u8> {
        std::iter::from_fn(|| discovery.poll_transmit()).map(|transmit| transmit.payload[0]).collect()
    }

    fn advertisement() -> [u8; 16] {
        ADVERTISE
    }

    #[test]
    fn both_a_question_and_an_advertisement_go_out_at_once_and_until_the_router_answers() {
        let now = Instant::now();
        let mut discovery = Discovery::new(now);
        assert_eq!(sent(&mut discovery), [SOLICITATION, ADVERTISEMENT]);
        discovery.handle_timeout(now);
        assert_eq!(sent(&mut discovery), [SOLICITATION, ADVERTISEMENT]);
        let mut pauses = Vec::new();
        let mut time = now;
        for _ in 0..5 {
            let next = discovery.poll_timeout();
            pauses.push((next - time).as_secs());
            time = next;
            discovery.handle_timeout(time);
            assert_eq!(sent(&mut discovery), [SOLICITATION, ADVERTISEMENT]);
        }
        assert_eq!(pauses, [3, 3, 3, 10, 10]);
        discovery.handle_message(time, ROUTER, 255, &advertisement()).unwrap();
        assert_eq!(discovery.router(), Some(ROUTER));
        discovery.handle_timeout(discovery.poll_timeout());
        assert_eq!(sent(&mut discovery), [ADVERTISEMENT], "the router is known: nothing is asked");
    }

    #[test]
    fn solicitations_are_answered_once_per_pause() {
        let now = Instant::now();
        let mut discovery = Discovery::new(now);
        discovery.handle_timeout(now);
        sent(&mut discovery);
        for _ in 0..100 {
            discovery.handle_message(now, ROUTER, 255, &SOLICIT).unwrap();
        }
        assert_eq!(discovery.poll_timeout(), now + MINIMUM_PAUSE);
        for _ in 0..QUICK {
            discovery.handle_timeout(discovery.poll_timeout());
        }
        let later = discovery.poll_timeout() - PERIOD;
        discovery.handle_message(later + PERIOD / 2, ROUTER, 255, &SOLICIT).unwrap();
        assert_eq!(discovery.poll_timeout(), later + PERIOD / 2, "long after the last one it is answered at once");
    }

    #[test]
    fn only_messages_of_this_link_count() {
        let now = Instant::now();
        let mut discovery = Discovery::new(now);
        let global = "2001:db8::1".parse().unwrap();
        for (from, hop_limit, payload, expected) in [
            (ROUTER, 254, &advertisement()[..], Discard::HopLimit(254)),
            (global, 255, &advertisement()[..], Discard::Source(global)),
            (ROUTER, 255, &advertisement()[..15], Discard::Malformed),
            (ROUTER, 255, &SOLICIT[..7], Discard::Malformed),
            (ROUTER, 255, &[ADVERTISEMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Discard::Malformed),
            (ROUTER, 255, &[136; 24], Discard::Malformed),
            (ROUTER, 255, &[], Discard::Malformed),
        ] {
            assert_eq!(discovery.handle_message(now, from, hop_limit, payload), Err(expected));
        }
        assert_eq!(discovery.router(), None);
    }

    #[test]
    fn a_router_that_replaces_another_is_the_one_that_counts() {
        let now = Instant::now();
        let mut discovery = Discovery::new(now);
        let other = "fe80::99".parse().unwrap();
        discovery.handle_message(now, ROUTER, 255, &advertisement()).unwrap();
        discovery.handle_message(now, other, 255, &advertisement()).unwrap();
        assert_eq!(discovery.router(), Some(other));
    }
}
