//! The Adj-RIB-Out (RFC 4271 §3.2): the routes that a peer should have, and those that were advertised to it, sans-IO.
//!
//! There is no queue: messages are computed from the difference between the two whenever the connection has room. A
//! slow peer therefore costs no memory, and a route that was added and removed in the meantime costs no message.

#![forbid(unsafe_code)]

mod attributes;
mod layers;
mod shared;
mod table;

use std::borrow::Borrow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use self::attributes::AttributeSets;
use self::layers::Layers;
pub use self::shared::SharedPrefixes;
use crate::types::{Attributes, Family};
use crate::wire::MESSAGE_MAX;
use crate::wire::nlri::{wide_v4, wide_v6};
use crate::wire::template::Encoding;

/// The routes for one peer.
#[derive(Clone, Debug, Default)]
pub struct AdjRibOut {
    sets: AttributeSets,
    v4: Layers<5>,
    v6: Layers<17>,
}

/// The next hops of a session, by family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NextHops {
    /// For IPv4 prefixes. `None`: they are not advertised, or withdrawn. An IPv6 address needs RFC 8950.
    pub v4: Option<IpAddr>,
    /// For IPv6 prefixes. `None`: they are not advertised, or withdrawn.
    pub v6: Option<IpAddr>,
}

/// What [`AdjRibOut::poll_transmit`] wrote to a buffer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Transmitted {
    /// Number of bytes; messages are never split.
    pub bytes: usize,
    /// Number of UPDATE messages.
    pub messages: u64,
}

impl NextHops {
    /// The next hop of a family.
    #[must_use]
    pub const fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.v4,
            Family::Ipv6 => self.v6,
        }
    }
}

impl AdjRibOut {
    /// Shares the memory of the prefixes with peers that have the same ones: 5 of the 13 bytes of an IPv4 route and 17
    /// of the 25 of an IPv6 route. What is advertised, and when, stays independent.
    pub fn share_prefixes(&mut self, with: &SharedPrefixes) {
        self.v4.share(&with.v4);
        self.v6.share(&with.v6);
    }

    /// Replaces all routes and returns whether they changed. If a prefix occurs twice, the last one counts. Fastest if
    /// the routes are sorted, IPv4 first.
    pub fn set(&mut self, routes: impl IntoIterator<Item = (IpNet, Arc<Attributes>)>) -> bool {
        self.replace(routes)
    }

    /// As [`set`](Self::set), with attributes that may be borrowed: peers that read the same map do not contend for its
    /// reference counts.
    pub(crate) fn replace(&mut self, routes: impl IntoIterator<Item = (IpNet, impl Borrow<Arc<Attributes>>)>) -> bool {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, attributes) in routes {
            let set = self.sets.intern(attributes.borrow());
            match prefix {
                IpNet::V4(net) => v4.push((wide_v4(net.trunc()), set)),
                IpNet::V6(net) => v6.push((wide_v6(net.trunc()), set)),
            }
        }
        let changed = self.v4.replace(v4) | self.v6.replace(v6);
        self.sweep();
        changed
    }

    /// Changes the route of one prefix, or removes it with `None`, and returns whether it changed.
    pub fn change(&mut self, prefix: IpNet, attributes: Option<&Arc<Attributes>>) -> bool {
        let set = attributes.map(|attributes| self.sets.intern(attributes));
        let changed = match prefix {
            IpNet::V4(net) => self.v4.change(wide_v4(net.trunc()), set),
            IpNet::V6(net) => self.v6.change(wide_v6(net.trunc()), set),
        };
        self.sweep();
        changed
    }

    /// Starts a new session: nothing has been advertised to the peer.
    pub fn reset(&mut self) {
        self.v4.reset();
        self.v6.reset();
        self.sets.forget_templates();
    }

    /// Advertises all routes again, of one family or both (RFC 2918). Pending withdrawals stay pending.
    pub fn replay(&mut self, family: Option<Family>) {
        if family != Some(Family::Ipv6) {
            self.v4.replay();
        }
        if family != Some(Family::Ipv4) {
            self.v6.replay();
        }
    }

    /// Switches [`Attributes::draining`] on or off for all routes. Those that were advertised are advertised again.
    pub fn set_draining(&mut self, draining: bool) {
        if self.sets.set_draining(draining) {
            self.replay(None);
        }
    }

    /// The next hops of the session change: routes whose next hop is another one are advertised again. Those of a family
    /// that has none any more are withdrawn by the next [`poll_transmit`](Self::poll_transmit), and stay wanted.
    pub fn change_next_hops(&mut self, before: &NextHops, after: &NextHops) {
        self.sets.forget_templates();
        for family in [Family::Ipv4, Family::Ipv6] {
            if before.of(family) != after.of(family) && after.of(family).is_some() {
                self.replay(Some(family));
            }
        }
    }

    /// Whether the peer should have a route to exactly this address.
    #[must_use]
    pub fn wants_host(&self, address: IpAddr) -> bool {
        match IpNet::from(address) {
            IpNet::V4(net) => self.v4.wants(&wide_v4(net)),
            IpNet::V6(net) => self.v6.wants(&wide_v6(net)),
        }
    }

    /// The number of routes of a family that the peer should have and that were advertised to it.
    #[must_use]
    pub const fn routes_of(&self, family: Family) -> (usize, usize) {
        match family {
            Family::Ipv4 => (self.v4.wanted(), self.v4.advertised()),
            Family::Ipv6 => (self.v6.wanted(), self.v6.advertised()),
        }
    }

    /// The number of routes that were advertised to the peer.
    #[must_use]
    pub const fn advertised(&self) -> usize {
        self.v4.advertised() + self.v6.advertised()
    }

    /// The number of routes that the peer should have.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.v4.wanted() + self.v6.wanted()
    }

    /// Writes whole messages to `out`, withdrawals first, until there is no room for another one of `message_max` bytes
    /// or nothing is pending. `out` must have room for one message. If nothing is written, the peer is up to date.
    ///
    /// All calls of one session must pass the same `encoding`, and the same `next_hops` unless
    /// [`change_next_hops`](Self::change_next_hops) was called; call [`reset`](Self::reset) between two sessions.
    pub fn poll_transmit(
        &mut self,
        out: &mut [u8],
        encoding: &Encoding,
        next_hops: &NextHops,
        message_max: usize,
    ) -> Transmitted {
        let mut sent = Transmitted::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            let next_hop = next_hops.of(family);
            while let Some(room) = out.get_mut(sent.bytes..sent.bytes + message_max) {
                // A withdrawal has no next hop.
                let hop = next_hop.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                let mut templates = self.sets.templates(encoding, family, hop);
                let bytes = match (family, next_hop) {
                    (Family::Ipv4, Some(_)) => self.v4.next_message(room, &mut templates),
                    (Family::Ipv6, Some(_)) => self.v6.next_message(room, &mut templates),
                    (Family::Ipv4, None) => self.v4.next_withdrawal(room, &mut templates),
                    (Family::Ipv6, None) => self.v6.next_withdrawal(room, &mut templates),
                };
                if bytes == 0 {
                    break;
                }
                sent.bytes += bytes;
                sent.messages += 1;
            }
        }
        sent
    }

    /// Appends all pending updates and returns the number of messages.
    pub fn update(&mut self, out: &mut Vec<u8>, encoding: &Encoding, next_hops: &NextHops) -> u64 {
        let mut messages = 0;
        loop {
            let start = out.len();
            out.resize(start + CHUNK, 0);
            let sent = self.poll_transmit(&mut out[start..], encoding, next_hops, MESSAGE_MAX);
            out.truncate(start + sent.bytes);
            messages += sent.messages;
            if sent.messages == 0 {
                return messages;
            }
        }
    }

    fn sweep(&mut self) {
        if self.sets.needs_sweep() {
            self.sets.sweep(self.v4.sets().chain(self.v6.sets()));
        }
    }
}

/// Number of bytes produced at a time: several messages, so that one write carries them.
const CHUNK: usize = 4 * MESSAGE_MAX;

#[cfg(test)]
mod tests;
