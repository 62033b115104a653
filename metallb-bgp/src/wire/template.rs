//! UPDATE messages to send: a template holds everything except the prefixes, encoded once; each message is a copy of it
//! with prefixes filled in.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::iana::attribute_flags::{EXTENDED_LENGTH, OPTIONAL, TRANSITIVE};
use super::iana::{AttributeType, MessageType, Origin, Safi, SegmentType};
use super::nlri::{self, Nlri, Wide};
use super::{HEADER, MARKER, MESSAGE_MAX};
use crate::types::{Asn, Attributes, Family};

/// How a session encodes its updates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encoding {
    /// The only AS number in AS_PATH. It may replace the real one (FRR: `local-as … no-prepend replace-as`).
    pub asn: Asn,
    /// Whether the peer is in the same autonomous system.
    pub internal: bool,
    /// Whether the peer supports four-octet AS numbers.
    pub four_octet_asn: bool,
}

/// An UPDATE without its prefixes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    /// The bytes before the prefixes, from the header on, then the bytes after them.
    bytes: Vec<u8>,
    /// Length of the bytes before the prefixes.
    head: usize,
    /// The length fields that grow with the prefixes; the first is the one in the header.
    lengths: [Length; 3],
    /// Number of entries of `lengths` in use.
    used: usize,
}

/// A length field of two octets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Length {
    at: usize,
    /// Its value for a message without prefixes.
    base: usize,
}

impl Template {
    /// An announcement of prefixes of `family`. IPv4 prefixes with an IPv6 next hop go into MP_REACH_NLRI (RFC 8950),
    /// which the peer must have agreed to.
    ///
    /// Attributes are in the order of their type codes, except that MP_REACH_NLRI comes first (RFC 7606 §5.1).
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
                out.extend_from_slice(&[OPTIONAL | EXTENDED_LENGTH, AttributeType::MpReachNlri.code(), 0, 0]);
                let value = out.len();
                out.extend_from_slice(&family.afi().code().to_be_bytes());
                out.extend_from_slice(&[Safi::Unicast.code(), octets.len() as u8]);
                out.extend_from_slice(&octets);
                // Reserved (RFC 4760 §3).
                out.push(0);
                let head = out.len();
                write_attributes(&mut out, encoding, attributes, None);
                Self::multiprotocol(out, value, head)
            }
        }
    }

    /// A withdrawal of prefixes of `family`. IPv4 prefixes are withdrawn the way they were announced: by
    /// MP_UNREACH_NLRI if `multiprotocol` is set.
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
        out.extend_from_slice(&[0, 0, 0, 0, OPTIONAL | EXTENDED_LENGTH, AttributeType::MpUnreachNlri.code(), 0, 0]);
        let value = out.len();
        out.extend_from_slice(&family.afi().code().to_be_bytes());
        out.push(Safi::Unicast.code());
        let head = out.len();
        Self::multiprotocol(out, value, head)
    }

    /// A message whose prefixes are in the attribute with its value at `value`; other attributes may follow.
    fn multiprotocol(bytes: Vec<u8>, value: usize, head: usize) -> Self {
        let lengths = [
            Length { at: 16, base: bytes.len() },
            Length { at: ATTRIBUTES_LENGTH, base: bytes.len() - ATTRIBUTES },
            Length { at: value - 2, base: head - value },
        ];
        Self { bytes, head, lengths, used: 3 }
    }

    /// Writes one message with as many of `prefixes` as fit to the start of `out`. The length of `out` limits the
    /// message and is at most 65,535 bytes. Returns the numbers of bytes and prefixes written, both 0 if not even one
    /// prefix fits.
    pub fn fill<P: Nlri>(&self, out: &mut [u8], prefixes: impl Iterator<Item = P>) -> (usize, usize) {
        let Some(mut update) = self.begin(out) else { return (0, 0) };
        let mut count = 0;
        for prefix in prefixes {
            let Some(size) = update.room().and_then(|room| prefix.write(room)) else { break };
            update.at += size;
            count += 1;
        }
        (update.finish(), count)
    }

    /// Begins a message in `out`, whose length limits the message and is at most 65,535 bytes. `None` if there is no
    /// room for it.
    #[inline]
    pub fn begin<'a>(&'a self, out: &'a mut [u8]) -> Option<PartialUpdate<'a>> {
        let end = out.len().checked_sub(self.bytes.len() - self.head)?;
        let head = out.get_mut(..self.head).filter(|_| self.head <= end)?;
        head.copy_from_slice(&self.bytes[..self.head]);
        Some(PartialUpdate { template: self, out, at: self.head, end })
    }

    /// Appends messages with all of `prefixes`, as many in each as fit into 4096 octets.
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

/// A message that is being filled with prefixes.
#[derive(Debug)]
pub struct PartialUpdate<'a> {
    template: &'a Template,
    out: &'a mut [u8],
    /// Offset of the next prefix.
    at: usize,
    /// Limit for the end of the last prefix, so that the bytes after the prefixes fit.
    end: usize,
}

impl PartialUpdate<'_> {
    /// Adds a prefix. Returns `false` if it does not fit.
    #[inline]
    pub fn push<const N: usize>(&mut self, prefix: &Wide<N>) -> bool {
        let size = self.room().and_then(|room| nlri::write(prefix, room));
        self.at += size.unwrap_or(0);
        size.is_some()
    }

    /// Adds as many of `hosts` as fit and returns their number. All of them are host routes, so their wide form is the
    /// wire form.
    #[inline]
    pub fn push_hosts<const N: usize>(&mut self, hosts: &[Wide<N>]) -> usize {
        let fitting = hosts.len().min((self.end - self.at) / N);
        let bytes = hosts[..fitting].as_flattened();
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        fitting
    }

    /// Ends the message and returns its length in octets, 0 if it has no prefix.
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

/// Appends updates that withdraw those of `prefixes` that are of `family`, with as many in each message as fit.
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
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0, 0, MessageType::Update.code()]);
    out
}

/// Appends the attributes in the order of their type codes (RFC 4271 §5).
fn write_attributes(out: &mut Vec<u8>, encoding: &Encoding, attributes: &Attributes, next_hop: Option<IpAddr>) {
    out.extend_from_slice(&[TRANSITIVE, AttributeType::Origin.code(), 1, Origin::Igp.code()]);
    const AS_PATH: u8 = AttributeType::AsPath.code();
    const AS_SEQUENCE: u8 = SegmentType::AsSequence.code();
    match (encoding.internal, encoding.four_octet_asn) {
        (true, _) => out.extend_from_slice(&[TRANSITIVE, AS_PATH, 0]),
        (false, true) => {
            out.extend_from_slice(&[TRANSITIVE, AS_PATH, 6, AS_SEQUENCE, 1]);
            out.extend_from_slice(&encoding.asn.0.to_be_bytes());
        }
        (false, false) => {
            out.extend_from_slice(&[TRANSITIVE, AS_PATH, 4, AS_SEQUENCE, 1]);
            out.extend_from_slice(&encoding.asn.two_octets().to_be_bytes());
        }
    }
    if let Some(IpAddr::V4(ip)) = next_hop {
        out.extend_from_slice(&[TRANSITIVE, AttributeType::NextHop.code(), 4]);
        out.extend_from_slice(&ip.octets());
    }
    if let Some(med) = attributes.med {
        out.extend_from_slice(&[OPTIONAL, AttributeType::MultiExitDisc.code(), 4]);
        out.extend_from_slice(&med.to_be_bytes());
    }
    if encoding.internal {
        out.extend_from_slice(&[TRANSITIVE, AttributeType::LocalPref.code(), 4]);
        out.extend_from_slice(&attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF).to_be_bytes());
    }
    if !attributes.communities.is_empty() {
        // More would leave no room for a prefix; no configuration needs nearly as many.
        let communities = || attributes.communities.iter().take(COMMUNITIES_MAX);
        write_head(out, AttributeType::Communities, communities().count() * 4);
        for community in communities() {
            out.extend_from_slice(&community.to_be_bytes());
        }
    }
    if !encoding.internal && !encoding.four_octet_asn && encoding.asn.0 > u32::from(u16::MAX) {
        // RFC 6793 §4.2.2: the real path, for routers behind the peer that support four-octet AS numbers.
        out.extend_from_slice(&[OPTIONAL | TRANSITIVE, AttributeType::As4Path.code(), 6, AS_SEQUENCE, 1]);
        out.extend_from_slice(&encoding.asn.0.to_be_bytes());
    }
    if !attributes.large_communities.is_empty() {
        let communities = || attributes.large_communities.iter().take(LARGE_COMMUNITIES_MAX);
        write_head(out, AttributeType::LargeCommunity, communities().count() * 12);
        for (x, y, z) in communities() {
            for part in [x, y, z] {
                out.extend_from_slice(&part.to_be_bytes());
            }
        }
    }
}

/// Appends the head of an optional transitive attribute whose length may need two octets.
fn write_head(out: &mut Vec<u8>, kind: AttributeType, length: usize) {
    let code = kind.code();
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[OPTIONAL | TRANSITIVE, code, length]),
        Err(_) => {
            out.extend_from_slice(&[OPTIONAL | TRANSITIVE | EXTENDED_LENGTH, code]);
            // Bounded by COMMUNITIES_MAX and LARGE_COMMUNITIES_MAX.
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
}

/// Writes a length, which fits into two octets because of the size of the buffer.
#[inline]
fn put(out: &mut [u8], at: usize, length: usize) {
    out[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
}

/// Offsets of the length of all attributes and of the first attribute, in a message that withdraws nothing.
const ATTRIBUTES_LENGTH: usize = HEADER + 2;
const ATTRIBUTES: usize = HEADER + 4;
const DEFAULT_LOCAL_PREF: u32 = 100;
const COMMUNITIES_MAX: usize = 400;
const LARGE_COMMUNITIES_MAX: usize = 100;

#[cfg(test)]
mod tests;
