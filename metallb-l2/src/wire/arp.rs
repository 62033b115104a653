//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use pnet_packet::Packet as _;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpPacket, MutableArpPacket};
use pnet_packet::ethernet::EtherTypes;

use super::{ETHERTYPE_ARP, Frame};
use crate::interface::MacAddr;

/// An ARP message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arp {
    /// The operation.
    pub operation: Operation,
    /// The sender hardware address (`sha`).
    pub sender_hardware: MacAddr,
    /// The sender protocol address (`spa`); 0.0.0.0 in a probe (RFC 5227).
    pub sender_protocol: Ipv4Addr,
    /// The target hardware address (`tha`); ignored in a request.
    pub target_hardware: MacAddr,
    /// The target protocol address (`tpa`): the requested address, or that of the requester in a reply.
    pub target_protocol: Ipv4Addr,
}

/// The operation of an ARP message (IANA registry "Address Resolution Protocol Parameters").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Opcode 1.
    Request,
    /// Opcode 2.
    Reply,
    /// Any other opcode.
    Other(u16),
}

impl Operation {
    const fn code(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Other(code) => code,
        }
    }
}

impl Arp {
    /// Decodes the payload of a frame; `None` unless it is a complete message for IPv4 over Ethernet.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let packet = ArpPacket::new(payload)?;
        let fits = packet.get_hardware_type() == ArpHardwareTypes::Ethernet
            && packet.get_protocol_type() == EtherTypes::Ipv4
            && packet.get_hw_addr_len() == 6
            && packet.get_proto_addr_len() == 4;
        let mac = |mac: pnet_base::MacAddr| MacAddr(mac.octets());
        fits.then(|| Self {
            operation: match packet.get_operation().0 {
                1 => Operation::Request,
                2 => Operation::Reply,
                code => Operation::Other(code),
            },
            sender_hardware: mac(packet.get_sender_hw_addr()),
            sender_protocol: packet.get_sender_proto_addr(),
            target_hardware: mac(packet.get_target_hw_addr()),
            target_protocol: packet.get_target_proto_addr(),
        })
    }

    /// Encodes the message in a frame from its sender to `destination`.
    #[must_use]
    pub fn encode(&self, destination: MacAddr) -> Frame {
        let mac = |mac: MacAddr| pnet_base::MacAddr::from(mac.0);
        let mut payload = [0; ARP_LEN];
        // The buffer has exactly the length of a message, so this is always `Some`.
        if let Some(mut packet) = MutableArpPacket::new(&mut payload) {
            packet.set_hardware_type(ArpHardwareTypes::Ethernet);
            packet.set_protocol_type(EtherTypes::Ipv4);
            packet.set_hw_addr_len(6);
            packet.set_proto_addr_len(4);
            packet.set_operation(ArpOperation(self.operation.code()));
            packet.set_sender_hw_addr(mac(self.sender_hardware));
            packet.set_sender_proto_addr(self.sender_protocol);
            packet.set_target_hw_addr(mac(self.target_hardware));
            packet.set_target_proto_addr(self.target_protocol);
            debug_assert_eq!(packet.packet().len(), ARP_LEN);
        }
        Frame::new(destination, self.sender_hardware, ETHERTYPE_ARP, &payload)
    }

    /// The reply of `mac` to this request (RFC 826), sent to the sender hardware address of the request.
    #[must_use]
    pub fn reply(&self, mac: MacAddr) -> Frame {
        let reply = Self {
            operation: Operation::Reply,
            sender_hardware: mac,
            sender_protocol: self.target_protocol,
            target_hardware: self.sender_hardware,
            target_protocol: self.sender_protocol,
        };
        reply.encode(self.sender_hardware)
    }

    /// A probe for an address (RFC 5227 §2.1.1). It does not change neighbour caches.
    #[must_use]
    pub fn probe(mac: MacAddr, ip: Ipv4Addr) -> Frame {
        Self::request(mac, Ipv4Addr::UNSPECIFIED, ip)
    }

    /// A broadcast request for the hardware address of `target` (RFC 826). The target learns the sender's address.
    #[must_use]
    pub fn request(mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr) -> Frame {
        let message = Self {
            operation: Operation::Request,
            sender_hardware: mac,
            sender_protocol: source,
            target_hardware: MacAddr([0; 6]),
            target_protocol: target,
        };
        message.encode(MacAddr::BROADCAST)
    }

    /// A gratuitous ARP frame, sent to the broadcast address. An address is announced by a request and a reply, because
    /// some hosts accept only one of them; see `docs/upstream-behaviour.md#l2-gratuitous`.
    #[must_use]
    pub fn gratuitous(operation: Operation, mac: MacAddr, ip: Ipv4Addr) -> Frame {
        let message = Self {
            operation,
            sender_hardware: mac,
            sender_protocol: ip,
            target_hardware: MacAddr::BROADCAST,
            target_protocol: ip,
        };
        message.encode(MacAddr::BROADCAST)
    }
}

/// Length of an ARP message for IPv4 over Ethernet.
const ARP_LEN: usize = 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Ethernet;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn reply_has_the_bytes_of_rfc_826() {
        let request = Arp {
            operation: Operation::Request,
            sender_hardware: CLIENT,
            sender_protocol: [192, 168, 10, 9].into(),
            target_hardware: MacAddr([0; 6]),
            target_protocol: [192, 168, 10, 0].into(),
        };
        let frame = request.reply(US);
        let expected: &[u8] = &[
            2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // Ethernet
            0, 1, 0x08, 0, 6, 4, 0, 2, // Ethernet, IPv4, reply
            2, 0, 0, 0, 0, 1, 192, 168, 10, 0, // sender: our MAC, the requested address
            2, 0, 0, 0, 0, 9, 192, 168, 10, 9, // target: the requester
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(frame.as_bytes(), expected);
    }

    #[test]
    fn gratuitous_frames_are_a_request_and_a_reply_to_broadcast() {
        for (operation, opcode) in [(Operation::Request, 1), (Operation::Reply, 2)] {
            let frame = Arp::gratuitous(operation, US, [10, 0, 0, 1].into());
            let bytes = frame.as_bytes();
            assert_eq!(bytes.len(), 60);
            assert_eq!(bytes[..6], [0xff; 6]);
            assert_eq!(bytes[20..22], [0, opcode]);
            assert_eq!(bytes[28..32], bytes[38..42]);
            assert_eq!(bytes[32..38], [0xff; 6]);
        }
    }

    proptest! {
        #[test]
        fn decode_never_panics_and_round_trips(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(arp) = Arp::decode(&payload) {
                let frame = arp.encode(MacAddr::BROADCAST);
                let decoded = Arp::decode(Ethernet::decode(frame.as_bytes()).unwrap().payload);
                prop_assert_eq!(decoded, Some(arp));
            }
        }
    }
}
