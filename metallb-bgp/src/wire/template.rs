//! UPDATE as it is sent: everything but the prefixes is encoded once, and each message is a copy with prefixes filled in.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::iana::{self, AS_SEQUENCE, OPTIONAL, TRANSITIVE, attribute};
use super::nlri::{self, Nlri, Wide};
use super::{HEADER, MESSAGE_MAX};
use crate::types::{Asn, Attributes, Family};

/// How a session writes its updates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encoding {
    /// The number to put in AS_PATH: the only one, also where it stands in for another (`local-as … no-prepend replace-as`).
    pub asn: Asn,
    /// Whether the peer is in the same autonomous system.
    pub internal: bool,
    /// Whether the peer reads numbers of four octets.
    pub four_octet_asn: bool,
}

/// An UPDATE without its prefixes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    /// What comes before the prefixes, from the header on; then what comes behind them.
    bytes: Vec<u8>,
    head: usize,
    /// Where lengths stand that grow with the prefixes. The first is the header's.
    lengths: [Length; 3],
    used: usize,
}

/// A length field of two octets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Length {
    at: usize,
    /// Its value without prefixes.
    base: usize,
}

impl Template {
    /// An offer of prefixes of `family`. IPv4 with an IPv6 next hop takes MP_REACH_NLRI (RFC 8950), which the peer must have agreed to.
    ///
    /// Attributes keep the order of their codes, except that MP_REACH_NLRI comes first (RFC 7606 §5.1).
    #[must_use]
    pub fn announce(encoding: &Encoding, attributes: &Attributes, next_hop: IpAddr, family: Family) -> Self {
        let mut out = header();
        out.extend_from_slice(&[0, 0, 0, 0]);
        match (family, next_hop) {
            (Family::Ipv4, IpAddr::V4(_)) => {
                write_attributes(&mut out, encoding, attributes, Some(next_hop));
                let length = out.len() - ATTRIBUTES;
                put(&mut out, ATTRIBUTES_LENGTH, length);
                let head = out.len();
                Self {
                    lengths: [Length { at: 16, base: head }, Length::default(), Length::default()],
                    used: 1,
                    head,
                    bytes: out,
                }
            }
            _ => {
                let octets = match next_hop {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                out.extend_from_slice(&[OPTIONAL | iana::EXTENDED, attribute::MP_REACH, 0, 0]);
                let value = out.len();
                out.extend_from_slice(&family.afi().to_be_bytes());
                out.extend_from_slice(&[1, 16]);
                out.extend_from_slice(&octets);
                out.push(0);
                let head = out.len();
                write_attributes(&mut out, encoding, attributes, None);
                Self::multiprotocol(out, value, head)
            }
        }
    }

    /// A withdrawal of prefixes of `family`. IPv4 is withdrawn the way it was offered: by MP_UNREACH_NLRI where `multiprotocol`.
    #[must_use]
    pub fn withdraw(family: Family, multiprotocol: bool) -> Self {
        let mut out = header();
        if family == Family::Ipv4 && !multiprotocol {
            out.extend_from_slice(&[0, 0]);
            let head = out.len();
            // No attributes.
            out.extend_from_slice(&[0, 0]);
            let lengths = [Length { at: 16, base: out.len() }, Length { at: HEADER, base: 0 }, Length::default()];
            return Self { bytes: out, head, lengths, used: 2 };
        }
        out.extend_from_slice(&[0, 0, 0, 0, OPTIONAL | iana::EXTENDED, attribute::MP_UNREACH, 0, 0]);
        let value = out.len();
        out.extend_from_slice(&family.afi().to_be_bytes());
        out.push(1);
        let head = out.len();
        Self::multiprotocol(out, value, head)
    }

    /// Prefixes stand in the attribute whose value begins at `value`, and other attributes may follow.
    fn multiprotocol(bytes: Vec<u8>, value: usize, head: usize) -> Self {
        let lengths = [
            Length { at: 16, base: bytes.len() },
            Length { at: ATTRIBUTES_LENGTH, base: bytes.len() - ATTRIBUTES },
            Length { at: value - 2, base: head - value },
        ];
        Self { bytes, head, lengths, used: 3 }
    }

    /// Writes one message with as many of `prefixes` as fit to the beginning of `out`, which is as long as the message may be, at most
    /// 65,535 bytes. Returns how many bytes and prefixes it took; none, when not even one prefix fits.
    pub fn fill<P: Nlri>(&self, out: &mut [u8], prefixes: impl Iterator<Item = P>) -> (usize, usize) {
        let Some(mut filling) = self.begin(out) else { return (0, 0) };
        let mut count = 0;
        for prefix in prefixes {
            let Some(size) = filling.room().and_then(|room| prefix.write(room)) else { break };
            filling.at += size;
            count += 1;
        }
        (filling.finish(), count)
    }

    /// Begins a message in `out`, which is as long as the message may be, at most 65,535 bytes. `None` when it has no room.
    #[inline]
    pub fn begin<'a>(&'a self, out: &'a mut [u8]) -> Option<Filling<'a>> {
        let end = out.len().checked_sub(self.bytes.len() - self.head)?;
        let head = out.get_mut(..self.head).filter(|_| self.head <= end)?;
        head.copy_from_slice(&self.bytes[..self.head]);
        Some(Filling { template: self, out, at: self.head, end })
    }

    /// Appends messages with all of `prefixes`, as many in each as fit in 4096 bytes.
    pub fn write<P: Nlri>(&self, out: &mut Vec<u8>, prefixes: &[P]) {
        let mut rest = prefixes;
        while !rest.is_empty() {
            let start = out.len();
            out.resize(start + MESSAGE_MAX, 0);
            let (bytes, count) = self.fill(&mut out[start..], rest.iter().copied());
            out.truncate(start + bytes);
            if count == 0 {
                return;
            }
            rest = &rest[count..];
        }
    }
}

/// A message that takes prefixes.
#[derive(Debug)]
pub struct Filling<'a> {
    template: &'a Template,
    out: &'a mut [u8],
    /// Where the next prefix goes.
    at: usize,
    /// Where the last one must end, so that what follows them fits.
    end: usize,
}

impl Filling<'_> {
    /// Adds a prefix; false when it does not fit.
    #[inline]
    pub fn push<const N: usize>(&mut self, prefix: &Wide<N>) -> bool {
        let size = self.room().and_then(|room| nlri::write(prefix, room));
        self.at += size.unwrap_or(0);
        size.is_some()
    }

    /// Adds as many of `hosts`, all of them host routes, as fit, and tells how many: they are in wire form already.
    #[inline]
    pub fn push_hosts<const N: usize>(&mut self, hosts: &[Wide<N>]) -> usize {
        let fitting = hosts.len().min((self.end - self.at) / N);
        let bytes = hosts[..fitting].as_flattened();
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        fitting
    }

    /// Ends the message and tells how long it is; 0 when it took no prefix.
    #[inline]
    #[must_use]
    pub fn finish(self) -> usize {
        let Self { template, out, at, .. } = self;
        let written = at - template.head;
        if written == 0 {
            return 0;
        }
        let size = template.bytes.len() + written;
        if size > at {
            out[at..size].copy_from_slice(&template.bytes[template.head..]);
        }
        for length in &template.lengths[..template.used] {
            put(out, length.at, length.base + written);
        }
        size
    }

    #[inline]
    fn room(&mut self) -> Option<&mut [u8]> {
        self.out.get_mut(self.at..self.end)
    }
}

/// Appends updates that withdraw `prefixes`, those of `family`, as many in each message as fit.
pub fn withdraw(out: &mut Vec<u8>, family: Family, prefixes: &mut dyn Iterator<Item = IpNet>) {
    let template = Template::withdraw(family, false);
    let (mut v4, mut v6): (Vec<Ipv4Net>, Vec<Ipv6Net>) = Default::default();
    for prefix in prefixes {
        match prefix {
            IpNet::V4(net) => v4.push(net.trunc()),
            IpNet::V6(net) => v6.push(net.trunc()),
        }
    }
    match family {
        Family::Ipv4 => template.write(out, &v4),
        Family::Ipv6 => template.write(out, &v6),
    }
}

fn header() -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, 2]);
    out
}

/// Appends the attributes in the order of their codes (RFC 4271 §5).
fn write_attributes(out: &mut Vec<u8>, encoding: &Encoding, attributes: &Attributes, next_hop: Option<IpAddr>) {
    out.extend_from_slice(&[TRANSITIVE, attribute::ORIGIN, 1, 0]);
    match (encoding.internal, encoding.four_octet_asn) {
        (true, _) => out.extend_from_slice(&[TRANSITIVE, attribute::AS_PATH, 0]),
        (false, true) => {
            out.extend_from_slice(&[TRANSITIVE, attribute::AS_PATH, 6, AS_SEQUENCE, 1]);
            out.extend_from_slice(&encoding.asn.0.to_be_bytes());
        }
        (false, false) => {
            out.extend_from_slice(&[TRANSITIVE, attribute::AS_PATH, 4, AS_SEQUENCE, 1]);
            out.extend_from_slice(&encoding.asn.two_octets().to_be_bytes());
        }
    }
    if let Some(IpAddr::V4(ip)) = next_hop {
        out.extend_from_slice(&[TRANSITIVE, attribute::NEXT_HOP, 4]);
        out.extend_from_slice(&ip.octets());
    }
    if let Some(med) = attributes.med {
        out.extend_from_slice(&[OPTIONAL, attribute::MED, 4]);
        out.extend_from_slice(&med.to_be_bytes());
    }
    if encoding.internal {
        out.extend_from_slice(&[TRANSITIVE, attribute::LOCAL_PREF, 4]);
        out.extend_from_slice(&attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF).to_be_bytes());
    }
    if !attributes.communities.is_empty() {
        // More would not leave room for a prefix; configuration has no use for nearly as many.
        let communities = || attributes.communities.iter().take(COMMUNITIES_MAX);
        variable(out, attribute::COMMUNITIES, communities().count() * 4);
        for community in communities() {
            out.extend_from_slice(&community.to_be_bytes());
        }
    }
    if !encoding.internal && !encoding.four_octet_asn && encoding.asn.0 > u32::from(u16::MAX) {
        // RFC 6793 §4.2.2: the path as it really is, for whoever understands it behind the peer.
        out.extend_from_slice(&[OPTIONAL | TRANSITIVE, attribute::AS4_PATH, 6, AS_SEQUENCE, 1]);
        out.extend_from_slice(&encoding.asn.0.to_be_bytes());
    }
    if !attributes.large_communities.is_empty() {
        let communities = || attributes.large_communities.iter().take(LARGE_COMMUNITIES_MAX);
        variable(out, attribute::LARGE_COMMUNITIES, communities().count() * 12);
        for (x, y, z) in communities() {
            for part in [x, y, z] {
                out.extend_from_slice(&part.to_be_bytes());
            }
        }
    }
}

/// The head of an optional transitive attribute whose length may need two octets.
fn variable(out: &mut Vec<u8>, code: u8, length: usize) {
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[OPTIONAL | TRANSITIVE, code, length]),
        Err(_) => {
            out.extend_from_slice(&[OPTIONAL | TRANSITIVE | iana::EXTENDED, code]);
            // Bounded by COMMUNITIES_MAX and LARGE_COMMUNITIES_MAX.
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
}

/// Writes a length, which the size of the buffer keeps within two octets.
#[inline]
fn put(out: &mut [u8], at: usize, length: usize) {
    out[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
}

/// Where the length of all attributes stands when nothing is withdrawn, and where they begin.
const ATTRIBUTES_LENGTH: usize = HEADER + 2;
const ATTRIBUTES: usize = HEADER + 4;
const DEFAULT_LOCAL_PREF: u32 = 100;
const COMMUNITIES_MAX: usize = 400;
const LARGE_COMMUNITIES_MAX: usize = 100;

#[cfg(test)]
mod tests;
