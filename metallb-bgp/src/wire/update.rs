//! UPDATE (RFC 4271 §4.3, 4760, 1997, 8092): written for what we offer, read only to be counted.

use std::net::IpAddr;

use ipnet::IpNet;

use super::notification::Notification;
use super::{HEADER, MESSAGE_MAX, Reader, message};
use crate::types::{Asn, Attributes, Family};

/// How a session writes its updates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encoding {
    /// The number to put in AS_PATH.
    pub asn: Asn,
    /// Whether the peer is in the same autonomous system.
    pub internal: bool,
    /// Whether the peer reads numbers of four octets.
    pub four_octet_asn: bool,
}

/// Appends updates that offer `prefixes`, all of the family of `next_hop`, with the same attributes, as many in each message as fit.
pub fn advertise(
    out: &mut Vec<u8>,
    encoding: &Encoding,
    attributes: &Attributes,
    next_hop: IpAddr,
    prefixes: &mut dyn Iterator<Item = IpNet>,
) {
    let mut prefixes = prefixes.peekable();
    while prefixes.peek().is_some() {
        message(out, 2, |out| {
            let start = out.len() - HEADER;
            out.extend_from_slice(&[0, 0, 0, 0]);
            let attributes_at = out.len();
            let v6 = match next_hop {
                IpAddr::V4(_) => None,
                IpAddr::V6(ip) => Some(ip),
            };
            let mut reach_length_at = None;
            if let Some(ip) = v6 {
                // RFC 7606 §5.1: MP_REACH_NLRI comes first.
                out.extend_from_slice(&[EXTENDED | OPTIONAL, MP_REACH, 0, 0]);
                reach_length_at = Some(out.len() - 2);
                out.extend_from_slice(&[0, 2, 1, 16]);
                out.extend_from_slice(&ip.octets());
                out.push(0);
                // The other attributes follow the prefixes: their size is needed to know how many fit.
                let mut rest = Vec::new();
                write_attributes(&mut rest, encoding, attributes, None);
                fill(out, start, rest.len(), &mut prefixes);
                patch_length(out, reach_length_at.unwrap_or(attributes_at));
                out.extend_from_slice(&rest);
                let length = (out.len() - attributes_at) as u16;
                out[attributes_at - 2..attributes_at].copy_from_slice(&length.to_be_bytes());
            } else {
                write_attributes(out, encoding, attributes, Some(next_hop));
                let length = (out.len() - attributes_at) as u16;
                out[attributes_at - 2..attributes_at].copy_from_slice(&length.to_be_bytes());
                fill(out, start, 0, &mut prefixes);
            }
            debug_assert!(reach_length_at.is_some() == v6.is_some());
        });
    }
}

/// Appends updates that withdraw `prefixes`, all of one family, as many in each message as fit.
pub fn withdraw(out: &mut Vec<u8>, family: Family, prefixes: &mut dyn Iterator<Item = IpNet>) {
    let mut prefixes = prefixes.peekable();
    while prefixes.peek().is_some() {
        message(out, 2, |out| {
            let start = out.len() - HEADER;
            match family {
                Family::Ipv4 => {
                    out.extend_from_slice(&[0, 0]);
                    let at = out.len();
                    fill(out, start, 2, &mut prefixes);
                    let length = (out.len() - at) as u16;
                    out[at - 2..at].copy_from_slice(&length.to_be_bytes());
                    out.extend_from_slice(&[0, 0]);
                }
                Family::Ipv6 => {
                    out.extend_from_slice(&[0, 0, 0, 0, EXTENDED | OPTIONAL, MP_UNREACH, 0, 0]);
                    let at = out.len();
                    out.extend_from_slice(&[0, 2, 1]);
                    fill(out, start, 0, &mut prefixes);
                    patch_length(out, at - 2);
                    let length = (out.len() - at + 4) as u16;
                    out[at - 6..at - 4].copy_from_slice(&length.to_be_bytes());
                }
            }
        });
    }
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    message(out, 2, |out| match family {
        Family::Ipv4 => out.extend_from_slice(&[0, 0, 0, 0]),
        Family::Ipv6 => out.extend_from_slice(&[0, 0, 0, 6, OPTIONAL, MP_UNREACH, 3, 0, 2, 1]),
    });
}

/// Checks the structure of a received update and counts the IPv4 prefixes that it offers.
///
/// # Errors
/// The lengths contradict each other: the NOTIFICATION to send. Attributes are not looked at: nothing is done with them.
pub fn count(body: &[u8]) -> Result<usize, Notification> {
    let malformed = || Notification::new(3, 1, &[]);
    let mut reader = Reader(body);
    let withdrawn = reader.u16().and_then(|length| reader.take(length.into())).ok_or_else(malformed)?;
    let attributes = reader.u16().and_then(|length| reader.take(length.into())).ok_or_else(malformed)?;
    prefixes(withdrawn)?;
    let mut attributes = Reader(attributes);
    while let Some(flags) = attributes.u8() {
        let length = attributes.u8().and_then(|_| {
            if flags & EXTENDED == 0 { attributes.u8().map(u16::from) } else { attributes.u16() }
        });
        length.and_then(|length| attributes.take(length.into())).ok_or_else(malformed)?;
    }
    prefixes(reader.0)
}

/// Counts IPv4 prefixes; a length beyond 32, or a prefix that is cut off, is an Invalid Network Field.
fn prefixes(bytes: &[u8]) -> Result<usize, Notification> {
    let mut reader = Reader(bytes);
    let mut count = 0;
    while let Some(length) = reader.u8() {
        let fits = length <= 32 && reader.take(usize::from(length).div_ceil(8)).is_some();
        if !fits {
            return Err(Notification::new(3, 10, &[]));
        }
        count += 1;
    }
    Ok(count)
}

/// Appends prefixes while the message, which began at `start` and still needs `reserved` bytes, stays within its limit.
fn fill(out: &mut Vec<u8>, start: usize, reserved: usize, prefixes: &mut std::iter::Peekable<&mut dyn Iterator<Item = IpNet>>) {
    while let Some(prefix) = prefixes.peek() {
        let octets = usize::from(prefix.prefix_len()).div_ceil(8);
        if out.len() - start + reserved + 1 + octets > MESSAGE_MAX {
            return;
        }
        out.push(prefix.prefix_len());
        match prefix {
            IpNet::V4(net) => out.extend_from_slice(&net.network().octets()[..octets]),
            IpNet::V6(net) => out.extend_from_slice(&net.network().octets()[..octets]),
        }
        prefixes.next();
    }
}

fn write_attributes(out: &mut Vec<u8>, encoding: &Encoding, attributes: &Attributes, next_hop: Option<IpAddr>) {
    out.extend_from_slice(&[TRANSITIVE, ORIGIN, 1, 0]);
    match (encoding.internal, encoding.four_octet_asn) {
        (true, _) => out.extend_from_slice(&[TRANSITIVE, AS_PATH, 0]),
        (false, true) => {
            out.extend_from_slice(&[TRANSITIVE, AS_PATH, 6, SEQUENCE, 1]);
            out.extend_from_slice(&encoding.asn.0.to_be_bytes());
        }
        (false, false) => {
            out.extend_from_slice(&[TRANSITIVE, AS_PATH, 4, SEQUENCE, 1]);
            out.extend_from_slice(&encoding.asn.two_octets().to_be_bytes());
        }
    }
    if let Some(IpAddr::V4(ip)) = next_hop {
        out.extend_from_slice(&[TRANSITIVE, NEXT_HOP, 4]);
        out.extend_from_slice(&ip.octets());
    }
    if encoding.internal {
        out.extend_from_slice(&[TRANSITIVE, LOCAL_PREF, 4]);
        out.extend_from_slice(&attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF).to_be_bytes());
    }
    if !attributes.communities.is_empty() {
        // More would not leave room for a prefix; configuration has no use for nearly as many.
        let communities = || attributes.communities.iter().take(COMMUNITIES_MAX);
        variable(out, COMMUNITIES, communities().count() * 4);
        for community in communities() {
            out.extend_from_slice(&community.to_be_bytes());
        }
    }
    if !encoding.internal && !encoding.four_octet_asn && encoding.asn.0 > u32::from(u16::MAX) {
        // RFC 6793 §4.2.2: the path as it really is, for whoever understands it behind the peer.
        out.extend_from_slice(&[OPTIONAL | TRANSITIVE, AS4_PATH, 6, SEQUENCE, 1]);
        out.extend_from_slice(&encoding.asn.0.to_be_bytes());
    }
    if !attributes.large_communities.is_empty() {
        let communities = || attributes.large_communities.iter().take(LARGE_COMMUNITIES_MAX);
        variable(out, LARGE_COMMUNITIES, communities().count() * 12);
        for (x, y, z) in communities() {
            for part in [x, y, z] {
                out.extend_from_slice(&part.to_be_bytes());
            }
        }
    }
}

/// The head of an optional transitive attribute whose length may need two octets.
fn variable(out: &mut Vec<u8>, kind: u8, length: usize) {
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[OPTIONAL | TRANSITIVE, kind, length]),
        Err(_) => {
            out.extend_from_slice(&[OPTIONAL | TRANSITIVE | EXTENDED, kind]);
            // Bounded by COMMUNITIES_MAX and LARGE_COMMUNITIES_MAX.
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
}

/// Writes the length of what follows the two bytes at `at`.
fn patch_length(out: &mut [u8], at: usize) {
    let length = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const EXTENDED: u8 = 0x10;
const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const LOCAL_PREF: u8 = 5;
const COMMUNITIES: u8 = 8;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const AS4_PATH: u8 = 17;
const LARGE_COMMUNITIES: u8 = 32;
const SEQUENCE: u8 = 2;
const DEFAULT_LOCAL_PREF: u32 = 100;
const COMMUNITIES_MAX: usize = 400;
const LARGE_COMMUNITIES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::split;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn offered(encoding: &Encoding, attributes: &Attributes, next_hop: &str, prefix: &str) -> String {
        let mut out = Vec::new();
        advertise(&mut out, encoding, attributes, next_hop.parse().unwrap(), &mut [net(prefix)].into_iter());
        hex(&out[16..])
    }

    #[test]
    fn updates_have_the_golden_bytes_of_facts_94_to_102() {
        let external = Encoding { asn: Asn(64512), internal: false, four_octet_asn: true };
        let old = Encoding { four_octet_asn: false, ..external };
        let internal = Encoding { internal: true, ..external };
        let plain = Attributes::default();
        let tagged = Attributes { local_pref: Some(50), communities: [0xffff_ff02].into(), ..Attributes::default() };
        let two = Attributes { communities: [1234, 2345].into(), ..Attributes::default() };
        let rows = [
            (
                offered(&Encoding { asn: Asn(65000), ..old }, &two, "192.168.123.10", "172.16.0.0/24"),
                "0038020000001d400101004002040201fde8400304c0a87b0ac00808000004d20000092918ac1000",
            ),
            (
                offered(&external, &plain, "172.18.0.2", "192.168.10.1/32"),
                "003002000000144001010040020602010000fc00400304ac12000220c0a80a01",
            ),
            (offered(&old, &plain, "172.18.0.2", "192.168.10.1/32"), "002e0200000012400101004002040201fc00400304ac12000220c0a80a01"),
            (
                offered(&internal, &tagged, "172.18.0.2", "192.168.10.1/32"),
                "0038020000001c40010100400200400304ac12000240050400000032c00804ffffff0220c0a80a01",
            ),
        ];
        for (found, expected) in rows {
            assert_eq!(found, expected);
        }
        let mut out = Vec::new();
        withdraw(&mut out, Family::Ipv4, &mut [net("192.168.10.1/32"), net("10.1.16.0/20")].into_iter());
        assert_eq!(hex(&out[16..]), "002002000920c0a80a01140a01100000");
    }

    #[test]
    fn messages_are_filled_to_the_limit_and_never_beyond() {
        let encoding = Encoding { asn: Asn(64512), internal: false, four_octet_asn: true };
        for (next_hop, base) in [("10.0.0.1", "10.0.0.0/8"), ("fd00::1", "fd00::/64")] {
            let hosts = || match net(base) {
                IpNet::V4(net) => net.hosts().take(2000).map(|ip| IpNet::from(IpAddr::V4(ip))).collect::<Vec<_>>(),
                IpNet::V6(net) => net.hosts().take(2000).map(|ip| IpNet::from(IpAddr::V6(ip))).collect(),
            };
            let mut out = Vec::new();
            let next_hop: IpAddr = next_hop.parse().unwrap();
            advertise(&mut out, &encoding, &Attributes::default(), next_hop, &mut hosts().into_iter());
            withdraw(&mut out, Family::of(next_hop), &mut hosts().into_iter());
            let (mut rest, mut sizes) = (&out[..], Vec::new());
            while let Some((_, body, size)) = split(rest).unwrap() {
                assert!(count(body).is_ok());
                sizes.push(size);
                rest = &rest[size..];
            }
            assert!(rest.is_empty());
            let room = if next_hop.is_ipv4() { 5 } else { 17 };
            let full = sizes.iter().filter(|&&size| size > MESSAGE_MAX - room).count();
            assert_eq!(full, sizes.len() - 2, "{sizes:?}");
        }
    }

    #[test]
    fn malformed_updates_are_refused_with_their_code() {
        for (body, subcode) in [
            (&[0, 0][..], 1),
            (&[0, 9, 0, 0][..], 1),
            (&[0, 0, 0, 9][..], 1),
            (&[0, 0, 0, 2, 0x40, 1][..], 1),
            (&[0, 0, 0, 0, 33, 1, 2, 3, 4][..], 10),
            (&[0, 0, 0, 0, 24, 1][..], 10),
        ] {
            assert_eq!(count(body).map_err(|error| (error.code, error.subcode)), Err((3, subcode)), "{body:?}");
        }
    }
}
