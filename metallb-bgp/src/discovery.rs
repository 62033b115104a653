//! Router discovery for unnumbered BGP peers, sans-IO.
//!
//! The two ends of an unnumbered session find each other's link-local addresses by router advertisements (RFC 4861
//! §4.2). Those of this speaker have no prefix and a router lifetime of zero, so that no host uses it as a default
//! gateway.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Router discovery on one link. After every input the driver drains [`poll_transmit`](Self::poll_transmit).
#[derive(Clone, Debug)]
pub struct Discovery {
    advertise_at: Instant,
    advertised_at: Option<Instant>,
    /// Number of initial advertisements that are left, which are sent at the minimum interval.
    initial: u8,
    solicitation_due: bool,
    advertisement_due: bool,
    router: Option<Ipv6Addr>,
}

/// An ICMPv6 message to send. The kernel fills in the checksum; the hop limit must be 255.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Transmit {
    /// The destination: all nodes or all routers on the link.
    pub to: Ipv6Addr,
    /// Type, code, room for the checksum, and the body.
    pub payload: &'static [u8],
}

/// Why a received message was discarded.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Discard {
    /// It may come from another link (RFC 4861 §6.1).
    #[error("hop limit {0} is not 255")]
    HopLimit(u8),
    /// A router must advertise from its link-local address.
    #[error("{0} is not link-local")]
    Source(Ipv6Addr),
    /// It is too short, or neither a router advertisement nor a router solicitation.
    #[error("neither a router advertisement nor a router solicitation")]
    Malformed,
}

impl Discovery {
    /// Starts with a solicitation and an advertisement.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            advertise_at: now,
            advertised_at: None,
            initial: INITIAL,
            solicitation_due: true,
            advertisement_due: true,
            router: None,
        }
    }

    /// An ICMPv6 message that was received on the link, with a valid checksum.
    ///
    /// # Errors
    /// Why it was discarded.
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
                    // A new router may not know this speaker yet.
                    self.advertise_soon(now);
                }
            }
            [SOLICITATION, 0, ..] if payload.len() >= SOLICITATION_LENGTH => self.advertise_soon(now),
            _ => return Err(Discard::Malformed),
        }
        Ok(())
    }

    /// Sends an advertisement if it is due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.advertise_at <= now {
            self.advertisement_due = true;
            self.advertised_at = Some(now);
            // The router may not have been up when the last solicitation was sent.
            self.solicitation_due = self.router.is_none();
            self.initial = self.initial.saturating_sub(1);
            self.advertise_at = now + if self.initial > 0 { MIN_DELAY } else { PERIOD };
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if std::mem::take(&mut self.solicitation_due) {
            return Some(Transmit { to: ALL_ROUTERS, payload: &SOLICIT });
        }
        std::mem::take(&mut self.advertisement_due).then_some(Transmit { to: ALL_NODES, payload: &ADVERTISE })
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.advertise_at
    }

    /// The router whose advertisement was received last.
    #[must_use]
    pub const fn router(&self) -> Option<Ipv6Addr> {
        self.router
    }

    /// Many solicitations cause one advertisement, at most once per minimum interval (RFC 4861 §6.2.6).
    fn advertise_soon(&mut self, now: Instant) {
        let earliest = self.advertised_at.map_or(now, |at| at + MIN_DELAY);
        self.advertise_at = self.advertise_at.min(earliest.max(now));
    }
}

/// ICMPv6 types: <https://www.iana.org/assignments/icmpv6-parameters/icmpv6-parameters.xhtml#icmpv6-parameters-2>
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const SOLICITATION_LENGTH: usize = 8;
const ADVERTISEMENT_LENGTH: usize = 16;

const SOLICIT: [u8; SOLICITATION_LENGTH] = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];

/// Hop limit, flags, router lifetime, reachable time and retransmission timer are all zero: unspecified, and not a
/// default router.
const ADVERTISE: [u8; ADVERTISEMENT_LENGTH] = [ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Interval of unsolicited advertisements.
const PERIOD: Duration = Duration::from_secs(10);

/// Minimum interval of advertisements (RFC 4861 §10, `MIN_DELAY_BETWEEN_RAS`).
const MIN_DELAY: Duration = Duration::from_secs(3);

/// Number of initial advertisements at the minimum interval, so that a lost one costs little.
const INITIAL: u8 = 4;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
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
    fn solicitations_and_advertisements_are_sent_until_the_router_answers() {
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
        assert_eq!(sent(&mut discovery), [ADVERTISEMENT], "the router is known: no solicitation");
    }

    #[test]
    fn solicitations_are_answered_once_per_minimum_interval() {
        let now = Instant::now();
        let mut discovery = Discovery::new(now);
        discovery.handle_timeout(now);
        sent(&mut discovery);
        for _ in 0..100 {
            discovery.handle_message(now, ROUTER, 255, &SOLICIT).unwrap();
        }
        assert_eq!(discovery.poll_timeout(), now + MIN_DELAY);
        for _ in 0..INITIAL {
            discovery.handle_timeout(discovery.poll_timeout());
        }
        let later = discovery.poll_timeout() - PERIOD;
        discovery.handle_message(later + PERIOD / 2, ROUTER, 255, &SOLICIT).unwrap();
        assert_eq!(
            discovery.poll_timeout(),
            later + PERIOD / 2,
            "long after the last advertisement it is answered immediately"
        );
    }

    #[test]
    fn messages_from_other_links_are_discarded() {
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
    fn router_that_replaces_another_is_used() {
        let now = Instant::now();
        let mut discovery = Discovery::new(now);
        let other = "fe80::99".parse().unwrap();
        discovery.handle_message(now, ROUTER, 255, &advertisement()).unwrap();
        discovery.handle_message(now, other, 255, &advertisement()).unwrap();
        assert_eq!(discovery.router(), Some(other));
    }
}
