//! Neighbour solicitations and advertisements (RFC 4861 §4.3, §4.4) with their IPv6 header.

use std::net::Ipv6Addr;

use super::{ETHERTYPE_IPV6, Frame, checksum};
use crate::interface::MacAddr;

/// A neighbour solicitation that passed every check of RFC 4861 §7.1.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Solicitation {
    /// The IPv6 source; `::` in a probe of duplicate address detection.
    pub source: Ipv6Addr,
    /// The IPv6 destination.
    pub destination: Ipv6Addr,
    /// The requested address.
    pub target: Ipv6Addr,
    /// The Source Link-Layer Address option.
    pub source_link_layer: Option<MacAddr>,
}

/// A neighbour advertisement that passed every check of RFC 4861 §7.1.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Advertisement {
    /// The advertised address.
    pub target: Ipv6Addr,
    /// The Target Link-Layer Address option.
    pub target_link_layer: Option<MacAddr>,
}

/// A message of neighbour discovery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// A neighbour solicitation (type 135).
    Solicitation(Solicitation),
    /// A neighbour advertisement (type 136).
    Advertisement(Advertisement),
}

/// Why a packet is not a valid message.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum NdpError {
    /// It is not IPv6, too short, or its length fields contradict each other.
    Malformed,
    /// It has another ICMPv6 type or another protocol.
    OtherMessage,
    /// The hop limit is not 255, so it came through a router.
    HopLimit,
    /// The source is a multicast or loopback address (RFC 4291 §2.5.3, §2.7).
    BadSource,
    /// The checksum is wrong.
    Checksum,
    /// The code is not 0.
    Code,
    /// The target is a multicast address.
    MulticastTarget,
    /// An option has length 0 or extends beyond the message.
    BadOption,
    /// A solicitation from `::` is not sent to a solicited-node group, or carries a Source Link-Layer Address option.
    BadProbe,
    /// An advertisement to a multicast address has the Solicited flag.
    SolicitedToGroup,
}

/// Whether the checksum of a received message can be verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checksum {
    /// The message contains it.
    Present,
    /// The sender is on this machine and left it to its network card, which the message did not pass. It is not
    /// verified.
    Offloaded,
}

/// The Override flag of a reply (RFC 4861 §4.4): what it does to a cache entry with another hardware address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Override {
    /// It replaces the entry: the flag is set.
    Replace,
    /// It leaves the entry as it is: the flag is clear, as for an address that another host may have as well.
    Keep,
}

impl Message {
    /// Decodes the payload of an Ethernet frame.
    ///
    /// # Errors
    /// The first check that fails, in the order of [`NdpError`]'s variants after `OtherMessage`.
    pub fn decode(payload: &[u8], checksum: Checksum) -> Result<Self, NdpError> {
        let (header, rest) = payload.split_first_chunk::<IPV6_HEADER>().ok_or(NdpError::Malformed)?;
        if header[0] >> 4 != 6 {
            return Err(NdpError::Malformed);
        }
        if header[6] != ICMPV6 {
            return Err(NdpError::OtherMessage);
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let body = rest.get(..length).ok_or(NdpError::Malformed)?;
        let (fixed, mut options) = body.split_first_chunk::<BODY>().ok_or(NdpError::Malformed)?;
        if !matches!(fixed[0], SOLICITATION | ADVERTISEMENT) {
            return Err(NdpError::OtherMessage);
        }
        if header[7] != HOP_LIMIT {
            return Err(NdpError::HopLimit);
        }
        let source = address(header, 8);
        let destination = address(header, 24);
        if source.is_multicast() || source.is_loopback() {
            return Err(NdpError::BadSource);
        }
        if checksum == Checksum::Present && checksum::icmpv6(source, destination, body) != 0 {
            return Err(NdpError::Checksum);
        }
        if fixed[1] != 0 {
            return Err(NdpError::Code);
        }
        let target = address(fixed, 8);
        if target.is_multicast() {
            return Err(NdpError::MulticastTarget);
        }
        let wanted = if fixed[0] == SOLICITATION { SOURCE_LINK_LAYER } else { TARGET_LINK_LAYER };
        let mut link_layer = None;
        while let [kind, units, ..] = *options {
            let length = usize::from(units) * 8;
            if length == 0 || length > options.len() {
                return Err(NdpError::BadOption);
            }
            let (option, after) = options.split_at(length);
            if let (true, [_, _, a, b, c, d, e, f]) = (kind == wanted, option) {
                link_layer = link_layer.or(Some(MacAddr([*a, *b, *c, *d, *e, *f])));
            }
            options = after;
        }
        if !options.is_empty() {
            return Err(NdpError::BadOption);
        }
        if fixed[0] == ADVERTISEMENT {
            if fixed[4] & SOLICITED != 0 && destination.is_multicast() {
                return Err(NdpError::SolicitedToGroup);
            }
            return Ok(Self::Advertisement(Advertisement { target, target_link_layer: link_layer }));
        }
        if source.is_unspecified() && (link_layer.is_some() || !is_solicited_node(destination)) {
            return Err(NdpError::BadProbe);
        }
        Ok(Self::Solicitation(Solicitation { source, destination, target, source_link_layer: link_layer }))
    }
}

impl Solicitation {
    /// The reply of an interface (RFC 4861 §7.2.4). A probe is answered to all nodes, because its sender has no address
    /// yet. `requester` is the Ethernet source of the solicitation, used if the option is missing.
    #[must_use]
    pub fn reply(&self, mac: MacAddr, link_local: Ipv6Addr, requester: MacAddr, caches: Override) -> Frame {
        let override_flag = if caches == Override::Replace { OVERRIDE } else { 0 };
        if self.source.is_unspecified() {
            let to = MacAddr::of_multicast(ALL_NODES);
            return advertisement(mac, link_local, to, ALL_NODES, self.target, override_flag);
        }
        let to = self.source_link_layer.unwrap_or(requester);
        advertisement(mac, link_local, to, self.source, self.target, SOLICITED | override_flag)
    }
}

/// An unsolicited advertisement of an address to all nodes (RFC 4861 §7.2.6).
#[must_use]
pub fn unsolicited(mac: MacAddr, link_local: Ipv6Addr, ip: Ipv6Addr) -> Frame {
    advertisement(mac, link_local, MacAddr::of_multicast(ALL_NODES), ALL_NODES, ip, OVERRIDE)
}

/// A solicitation for the hardware address of `target` (RFC 4861 §7.2.2). The target learns the sender's address.
#[must_use]
pub fn solicitation(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Frame {
    let group = solicited_node(target);
    let mut body = [0; BODY + 8];
    body[0] = SOLICITATION;
    body[8..24].copy_from_slice(&target.octets());
    body[24] = SOURCE_LINK_LAYER;
    body[25] = 1;
    body[26..].copy_from_slice(&mac.0);
    packet(mac, MacAddr::of_multicast(group), source, group, &mut body)
}

/// A probe for an address, as sent by duplicate address detection (RFC 4862 §5.4.2).
#[must_use]
pub fn probe(mac: MacAddr, target: Ipv6Addr) -> Frame {
    let group = solicited_node(target);
    let mut body = [0; BODY];
    body[0] = SOLICITATION;
    body[8..].copy_from_slice(&target.octets());
    packet(mac, MacAddr::of_multicast(group), Ipv6Addr::UNSPECIFIED, group, &mut body)
}

/// The solicited-node group of an address, `ff02::1:ffXX:XXXX` (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a as u16, (b as u16) << 8 | c as u16)
}

fn is_solicited_node(ip: Ipv6Addr) -> bool {
    solicited_node(ip) == ip
}

fn advertisement(
    mac: MacAddr,
    source: Ipv6Addr,
    to: MacAddr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    flags: u8,
) -> Frame {
    let mut body = [0; BODY + 8];
    body[0] = ADVERTISEMENT;
    body[4] = flags;
    body[8..24].copy_from_slice(&target.octets());
    body[24] = TARGET_LINK_LAYER;
    body[25] = 1;
    body[26..].copy_from_slice(&mac.0);
    packet(mac, to, source, destination, &mut body)
}

/// `body` is a message with at most one option.
fn packet(from: MacAddr, to: MacAddr, source: Ipv6Addr, destination: Ipv6Addr, body: &mut [u8]) -> Frame {
    let sum = checksum::icmpv6(source, destination, body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = [0; IPV6_HEADER + BODY + 8];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
    packet[6] = ICMPV6;
    packet[7] = HOP_LIMIT;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    let length = IPV6_HEADER + body.len();
    packet[IPV6_HEADER..length].copy_from_slice(body);
    Frame::new(to, from, ETHERTYPE_IPV6, &packet[..length])
}

fn address<const N: usize>(bytes: &[u8; N], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    // All callers pass offsets with at least 16 bytes behind them.
    octets.copy_from_slice(&bytes[at..at + 16]);
    octets.into()
}

const IPV6_HEADER: usize = 40;
/// Length of either message before its options.
const BODY: usize = 24;
const ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// The group of all nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Ethernet;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn vip() -> Ipv6Addr {
        "fc00:f853:ccd:e799::".parse().unwrap()
    }

    fn decode(bytes: &[u8]) -> Result<Message, NdpError> {
        Message::decode(bytes, Checksum::Present)
    }

    fn payload(frame: &Frame) -> Vec<u8> {
        Ethernet::decode(frame.as_bytes()).unwrap().payload.to_vec()
    }

    #[test]
    fn reply_to_a_solicitation_has_the_expected_bytes() {
        let frame = solicitation(CLIENT, "fe80::9".parse().unwrap(), vip());
        let Ok(Message::Solicitation(solicitation)) = decode(&payload(&frame)) else { panic!("not a solicitation") };
        let reply = solicitation.reply(MAC, "fe80::1".parse().unwrap(), CLIENT, Override::Replace);
        let bytes = reply.as_bytes();
        assert_eq!(bytes[..6], CLIENT.0);
        assert_eq!(bytes[54..56], [0x88, 0]);
        assert_eq!(bytes[58..62], [0x60, 0, 0, 0]);
        let kept = solicitation.reply(MAC, "fe80::1".parse().unwrap(), CLIENT, Override::Keep);
        assert_eq!(kept.as_bytes()[58..62], [0x40, 0, 0, 0]);
        assert_eq!(bytes[62..78], vip().octets());
        assert_eq!(bytes[78..86], [2, 1, 2, 0, 0, 0, 0, 1]);
        assert!(matches!(decode(&payload(&reply)), Ok(Message::Advertisement(ad)) if ad.target == vip()));
    }

    #[test]
    fn each_invalid_field_of_a_solicitation_has_its_error() {
        let good = payload(&solicitation(CLIENT, "fe80::9".parse().unwrap(), vip()));
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            decode(&bytes)
        };
        assert_eq!(changed(0, 0x40), Err(NdpError::Malformed));
        assert_eq!(changed(5, 200), Err(NdpError::Malformed));
        assert_eq!(changed(6, 17), Err(NdpError::OtherMessage));
        assert_eq!(changed(7, 254), Err(NdpError::HopLimit));
        assert_eq!(changed(40, 133), Err(NdpError::OtherMessage));
        assert_eq!(changed(8, 0xff), Err(NdpError::BadSource));
        assert_eq!(changed(42, good[42] ^ 1), Err(NdpError::Checksum));
        assert_eq!(decode(&good[..50]), Err(NdpError::Malformed));
    }

    proptest! {
        #[test]
        fn decode_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn decode_never_panics_on_a_damaged_solicitation(at in 0_usize..72, value: u8) {
            let mut bytes = payload(&solicitation(CLIENT, "fe80::9".parse().unwrap(), vip()));
            bytes[at] = value;
            let _ = decode(&bytes);
        }
    }
}
