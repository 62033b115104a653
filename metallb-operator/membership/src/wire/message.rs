//! The messages inside a sealed datagram.
//!
//! Each body begins with the receiver's session as the sender knows it (8 bytes) and the sender's [`Readiness`] (1
//! byte); the message follows in postcard. A sender learns the receiver's session only from a [`Message::JoinAck`] that
//! the receiver sent in this incarnation. A recorded datagram is therefore useless against a later incarnation; against
//! the same one the window of sequence numbers in `hosts` rejects it.

use std::net::IpAddr;

use metallb_core::model::NodeName;
use serde::{Deserialize, Serialize};

use super::identity::{Identity, node_name};
use super::seal::{DATAGRAM_MAX, OVERHEAD};

/// One message. The order of the variants is the wire format.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Asks a host for its identity and session. It may be a replay, so nothing in it is trusted.
    Join,
    /// The identity of the sender. Answers a `Join`, and each datagram that names a wrong session.
    JoinAck(Identity),
    /// The sender knows a later incarnation of the receiver, with this number. Happens when a clock was set back.
    StaleIncarnation(u64),
    /// A datagram of the SWIM library.
    Gossip(Vec<u8>),
    /// Asks for a `Pong`.
    Ping,
    /// Answers a `Ping` or a `Probe`.
    Pong,
    /// Asks the receiver to ping `target` on the sender's behalf: SWIM's indirect probe.
    PingReq {
        /// The node to ping.
        #[serde(deserialize_with = "node_name")]
        target: NodeName,
        /// Returned in the reply.
        token: u32,
    },
    /// The result of a `PingReq`.
    PingReqReply {
        /// The node that was pinged.
        #[serde(deserialize_with = "node_name")]
        target: NodeName,
        /// The token of the request.
        token: u32,
        /// Whether the node answered.
        reachable: bool,
    },
    /// The sender gives these addresses up for the receiver. It answers ARP and NDP requests for them until a
    /// `HandoverAck` arrives.
    HandoverOffer {
        /// The addresses.
        ips: Vec<IpAddr>,
        /// The time since the sender last announced any of them, in microseconds.
        since: u32,
    },
    /// The sender has announced these addresses.
    HandoverAck(Vec<IpAddr>),
    /// Carries only the sender's readiness, which is part of every body.
    Readiness,
    /// The hardware addresses that the sender answers ARP and NDP requests with.
    HardwareAddresses(Vec<[u8; 6]>),
    /// The sender monitors `node` on behalf of all members and has declared it dead; another member confirmed that. A
    /// member that leaves sends it to each node that it had declared dead.
    DeclaredDead {
        /// The dead node.
        #[serde(deserialize_with = "node_name")]
        node: NodeName,
        /// The time since the node was last heard, in milliseconds.
        silent: u32,
    },
    /// The sender owns these addresses and does not announce them.
    HandoverReject(Vec<IpAddr>),
    /// A `Ping` that follows unanswered ones: it tells the receiver that its answers do not arrive.
    Probe,
}

/// Whether a member takes part in elections. Each member states it in every datagram.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Readiness {
    /// It can announce addresses.
    #[default]
    Ready,
    /// It has no usable interface.
    NotReady,
    /// It is shutting down.
    Draining,
}

/// The decrypted part of a datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Body {
    /// The receiver's session as the sender knows it; 0 if unknown.
    pub receiver_session: u64,
    /// The sender's readiness.
    pub readiness: Readiness,
    /// The message.
    pub message: Message,
}

impl Body {
    /// Encodes the body; `None` if it does not fit into one datagram.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = self.receiver_session.to_be_bytes().to_vec();
        bytes.push(match self.readiness {
            Readiness::Ready => 0,
            Readiness::NotReady => 1,
            Readiness::Draining => 2,
        });
        let bytes = postcard::to_extend(&self.message, bytes).ok()?;
        (bytes.len() + OVERHEAD <= DATAGRAM_MAX).then_some(bytes)
    }

    /// Decodes a body; `None` if the bytes are not exactly one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (receiver_session, rest) = bytes.split_first_chunk::<8>()?;
        let (&readiness, rest) = rest.split_first()?;
        let readiness = match readiness {
            0 => Readiness::Ready,
            1 => Readiness::NotReady,
            2 => Readiness::Draining,
            _ => return None,
        };
        let (message, rest) = postcard::take_from_bytes(rest).ok()?;
        let receiver_session = u64::from_be_bytes(*receiver_session);
        rest.is_empty().then_some(Self { receiver_session, readiness, message })
    }
}

/// The most IP addresses in one message: 64 of up to 17 bytes fit into a datagram.
pub const ADDRESSES_MAX: usize = 64;

/// The most hardware addresses that a member reports.
pub const HARDWARE_MAX: usize = 128;

/// The longest datagram of the SWIM library that fits into a `Gossip` message.
pub(crate) const GOSSIP_MAX: usize = DATAGRAM_MAX - OVERHEAD - 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_decodes_to_what_was_encoded_and_truncated_or_longer_bytes_do_not_decode() {
        let identity = Identity::new("n1".into(), "[fd00::1]:7946".parse().unwrap(), 3);
        let ips: Vec<IpAddr> = (0..ADDRESSES_MAX).map(|n| IpAddr::from([n as u16; 8])).collect();
        for message in [
            Message::Join,
            Message::JoinAck(identity),
            Message::StaleIncarnation(7),
            Message::Gossip(vec![1; GOSSIP_MAX]),
            Message::PingReq { target: "n2".into(), token: 4 },
            Message::PingReqReply { target: "n2".into(), token: 4, reachable: true },
            Message::HandoverReject(ips.clone()),
            Message::HandoverOffer { ips, since: 40_000 },
            Message::Readiness,
            Message::Probe,
            Message::HardwareAddresses(vec![[2, 0, 0, 0, 0, 1]; HARDWARE_MAX]),
            Message::DeclaredDead { node: "n2".into(), silent: 370 },
        ] {
            let body = Body { receiver_session: 5, readiness: Readiness::Draining, message };
            let bytes = body.encode().unwrap();
            assert_eq!(Body::decode(&bytes), Some(body));
            assert_eq!(Body::decode(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Body::decode(&bytes[..bytes.len() - 1]), None);
        }
        let message = Message::Gossip(vec![0; DATAGRAM_MAX]);
        assert_eq!(Body { receiver_session: 0, readiness: Readiness::Ready, message }.encode(), None);
    }

    #[test]
    fn message_keeps_its_number_on_the_wire() {
        let numbered = [
            (0, Message::Join),
            (2, Message::StaleIncarnation(1)),
            (3, Message::Gossip(Vec::new())),
            (4, Message::Ping),
            (5, Message::Pong),
            (6, Message::PingReq { target: "n".into(), token: 1 }),
            (7, Message::PingReqReply { target: "n".into(), token: 1, reachable: true }),
            (8, Message::HandoverOffer { ips: Vec::new(), since: 1 }),
            (9, Message::HandoverAck(Vec::new())),
            (10, Message::Readiness),
            (11, Message::HardwareAddresses(Vec::new())),
            (12, Message::DeclaredDead { node: "n".into(), silent: 1 }),
            (13, Message::HandoverReject(Vec::new())),
            (14, Message::Probe),
        ];
        for (number, message) in numbered {
            let body = Body { receiver_session: 0, readiness: Readiness::Ready, message };
            assert_eq!(body.encode().unwrap()[9], number, "{:?}", body.message);
        }
    }
}
