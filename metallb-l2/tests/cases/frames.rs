//! Hosts, addresses and frames that the tests use.

use std::net::{Ipv4Addr, Ipv6Addr};

use metallb_l2::interface::MacAddr;
use metallb_l2::wire::arp::{Arp, Operation};

pub(crate) const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
pub(crate) const THIRD: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x33]);
pub(crate) const ZERO: MacAddr = MacAddr([0; 6]);
pub(crate) const US_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// A global address of the host itself.
pub(crate) const US_GLOBAL: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe799, 0, 0, 1, 1);
pub(crate) const CLIENT_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 9);
pub(crate) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 0);
pub(crate) const VIP4_ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 7);
/// Requested after each frame on a real link; its reply shows that the frame was processed.
pub(crate) const VIP4_SENTINEL: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 250);
pub(crate) const NOT_OURS4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 99);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe799, 0, 0, 0, 0);
/// Has the same last 24 bits, and so the same solicited-node group, as [`VIP6`].
pub(crate) const VIP6_TWIN: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0);
pub(crate) const VIP6_ELSEWHERE: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe799, 0, 0, 0, 7);
pub(crate) const NOT_OURS6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe799, 0, 0, 0, 0x99);
/// The name of an interface that does not exist.
pub(crate) const OTHER_INTERFACE: &str = "eth9";

/// Offsets in an ARP frame.
pub(crate) const ETHERNET_SOURCE: usize = 6;
pub(crate) const ARP_BODY: usize = 14;
pub(crate) const SENDER_HARDWARE: usize = ARP_BODY + 8;
pub(crate) const SENDER_PROTOCOL: usize = ARP_BODY + 14;

/// A broadcast ARP request by the client; 42 bytes without padding.
pub(crate) fn who_has(target: Ipv4Addr) -> Vec<u8> {
    let arp = Arp {
        operation: Operation::Request,
        sender_hardware: CLIENT,
        sender_protocol: CLIENT4,
        target_hardware: ZERO,
        target_protocol: target,
    };
    let mut frame = arp.encode(MacAddr::BROADCAST).as_bytes().to_vec();
    frame.truncate(42);
    frame
}

/// The expected reply to [`who_has`], byte by byte (RFC 826).
pub(crate) fn is_at(vip: Ipv4Addr, client: MacAddr, client_ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(client.0);
    frame.extend(US.0);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
    frame.extend(US.0);
    frame.extend(vip.octets());
    frame.extend(client.0);
    frame.extend(client_ip.octets());
    frame.resize(60, 0);
    frame
}

/// `frame` with other bytes at `offset`.
pub(crate) fn with(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

/// `frame` with a VLAN tag.
pub(crate) fn tagged(mut frame: Vec<u8>, ethertype: u16, vlan: u16) -> Vec<u8> {
    let tag = [ethertype.to_be_bytes(), vlan.to_be_bytes()].concat();
    frame.splice(12..12, tag);
    frame
}

/// A builder of ICMPv6 messages that is independent of the crate, so that it can check the crate's encoder.
#[derive(Clone)]
pub(crate) struct Icmp {
    pub(crate) to: MacAddr,
    pub(crate) from: MacAddr,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    pub(crate) hop_limit: u8,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) flags: [u8; 4],
    pub(crate) target: Ipv6Addr,
    pub(crate) options: Vec<u8>,
}

impl Icmp {
    /// A neighbour solicitation for `target` to its group, with the client's hardware address.
    pub(crate) fn solicitation(target: Ipv6Addr) -> Self {
        let [.., a, b, c] = target.octets();
        Self {
            to: MacAddr([0x33, 0x33, 0xff, a, b, c]),
            from: CLIENT,
            source: CLIENT_LINK_LOCAL,
            destination: group_of(target),
            hop_limit: 255,
            kind: 135,
            code: 0,
            flags: [0; 4],
            target,
            options: link_layer_option(1, CLIENT),
        }
    }

    /// The reply to a solicitation from `to` with the IPv6 source `destination` (RFC 4861 §7.2.4).
    pub(crate) fn answer(target: Ipv6Addr, to: MacAddr, destination: Ipv6Addr, flags: u8) -> Self {
        Self {
            to,
            from: US,
            source: US_LINK_LOCAL,
            destination,
            hop_limit: 255,
            kind: 136,
            code: 0,
            flags: [flags, 0, 0, 0],
            target,
            options: link_layer_option(2, US),
        }
    }

    /// Another host's advertisement of `target` to all nodes.
    pub(crate) fn foreign_advertisement(target: Ipv6Addr, flags: u8) -> Self {
        Self {
            to: MacAddr([0x33, 0x33, 0, 0, 0, 1]),
            from: CLIENT,
            source: CLIENT_LINK_LOCAL,
            options: link_layer_option(2, CLIENT),
            ..Self::answer(target, CLIENT, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), flags)
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = vec![self.kind, self.code, 0, 0];
        body.extend(self.flags);
        body.extend(self.target.octets());
        body.extend(&self.options);
        body
    }

    /// The frame with a correct checksum.
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.frame_of(&self.body(), 58)
    }

    /// A frame with `body` after an IPv6 header with this `next_header`.
    pub(crate) fn frame_of(&self, body: &[u8], next_header: u8) -> Vec<u8> {
        let mut body = body.to_vec();
        if next_header == 58 && body.len() >= 4 {
            let sum = self.checksum(&body);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let mut frame = Vec::new();
        frame.extend(self.to.0);
        frame.extend(self.from.0);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend([next_header, self.hop_limit]);
        frame.extend(self.source.octets());
        frame.extend(self.destination.octets());
        frame.extend(body);
        frame
    }

    /// One's complement sum of 16-bit words with end-around carry.
    pub(crate) fn checksum(&self, body: &[u8]) -> u16 {
        let mut bytes = [self.source.octets(), self.destination.octets()].concat();
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend([0, 0, 0, 58]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        !bytes.chunks(2).fold(0_u16, |sum, pair| {
            let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
            sum + u16::from(carry)
        })
    }
}

pub(crate) fn link_layer_option(kind: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 1], mac.0.as_slice()].concat()
}

pub(crate) fn group_of(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}
