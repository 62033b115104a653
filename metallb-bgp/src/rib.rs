//! What a peer should know, and what it has been told (RFC 4271 §3.2: the Adj-RIB-Out), sans-IO.
//!
//! Nothing is queued: messages come out of the difference between the two, whenever the connection has room. A slow peer thus costs no
//! memory, and a route that came and went meanwhile costs no message.

#![forbid(unsafe_code)]

mod attributes;
mod layers;
mod shared;
mod table;

use std::borrow::Borrow;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::attributes::AttributeSets;
use self::layers::Layers;
pub use self::shared::SharedPrefixes;
use crate::types::{Attributes, Family};
use crate::wire::MESSAGE_MAX;
use crate::wire::nlri::{wide_v4, wide_v6};
use crate::wire::template::Encoding;

/// The routes for one peer. Withdrawals and offers come out of the difference to what was said last, whatever happened between.
#[derive(Clone, Debug, Default)]
pub struct AdjRibOut {
    sets: AttributeSets,
    v4: Layers<5>,
    v6: Layers<17>,
}

/// Where traffic should be sent, by family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NextHops {
    /// For IPv4 prefixes; `None` keeps them back. An IPv6 address needs RFC 8950.
    pub v4: Option<IpAddr>,
    /// For IPv6 prefixes; `None` keeps them back.
    pub v6: Option<IpAddr>,
}

/// What was written to a buffer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Transmitted {
    /// Bytes, all of whole messages.
    pub bytes: usize,
    /// UPDATE messages.
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
    /// Keeps the prefixes together with those of other peers that have the same ones: 5 of the 13 bytes of a route of IPv4, and 17 of the
    /// 25 of one of IPv6. What the peer is told, and when, is none of the others' business.
    pub fn share_prefixes(&mut self, with: &SharedPrefixes) {
        self.v4.share(&with.v4);
        self.v6.share(&with.v6);
    }

    /// Replaces what the peer should know. True when it changed. Of a prefix that is there twice the last one counts. Fastest when the
    /// routes come in order, IPv4 first.
    pub fn set(&mut self, routes: impl IntoIterator<Item = (IpNet, Arc<Attributes>)>) -> bool {
        self.replace(routes)
    }

    /// The same with attributes that may be borrowed: whoever reads what others read does not contend with them for the counts.
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

    /// Changes what the peer should know of one prefix; `None` takes it back. True when it changed.
    pub fn change(&mut self, prefix: IpNet, attributes: Option<&Arc<Attributes>>) -> bool {
        let set = attributes.map(|attributes| self.sets.intern(attributes));
        let changed = match prefix {
            IpNet::V4(net) => self.v4.change(wide_v4(net.trunc()), set),
            IpNet::V6(net) => self.v6.change(wide_v6(net.trunc()), set),
        };
        self.sweep();
        changed
    }

    /// The session is new: the peer knows nothing.
    pub fn reset(&mut self) {
        self.v4.forget();
        self.v6.forget();
        self.sets.forget_templates();
    }

    /// The peer asked for everything again (RFC 2918), of one family or both. Withdrawals that are still due stay due.
    pub fn replay(&mut self, family: Option<Family>) {
        if family != Some(Family::Ipv6) {
            self.v4.replay();
        }
        if family != Some(Family::Ipv4) {
            self.v6.replay();
        }
    }

    /// From now on, or no longer, every route is told with [`Attributes::draining`], also those that the peer knows.
    pub fn set_draining(&mut self, draining: bool) {
        if self.sets.set_draining(draining) {
            self.replay(None);
        }
    }

    /// How many routes the peer has been told.
    #[must_use]
    pub const fn told(&self) -> usize {
        self.v4.told() + self.v6.told()
    }

    /// How many routes the peer should know.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.v4.wanted() + self.v6.wanted()
    }

    /// Writes whole messages to `out` until it has no room for another one of `message_max` bytes or nothing is left to say, withdrawals
    /// first. `out` must have room for one. No bytes mean that the peer knows what it should.
    ///
    /// All calls of one session must have the same `encoding` and `next_hops`; [`reset`](Self::reset) comes between two sessions.
    pub fn poll_transmit(
        &mut self,
        out: &mut [u8],
        encoding: &Encoding,
        next_hops: &NextHops,
        message_max: usize,
    ) -> Transmitted {
        let mut sent = Transmitted::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            let Some(next_hop) = next_hops.of(family) else { continue };
            while let Some(room) = out.get_mut(sent.bytes..sent.bytes + message_max) {
                let mut templates = self.sets.templates(encoding, family, next_hop);
                let bytes = match family {
                    Family::Ipv4 => self.v4.next_message(room, &mut templates),
                    Family::Ipv6 => self.v6.next_message(room, &mut templates),
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

    /// Appends all updates that bring the peer from what it was told to what it should know. Returns how many messages.
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
        if self.sets.crowded() {
            self.sets.sweep(self.v4.sets().chain(self.v6.sets()));
        }
    }
}

/// Bytes that are made at a time: several messages, so that one write carries them.
const CHUNK: usize = 4 * MESSAGE_MAX;

#[cfg(test)]
mod tests;
