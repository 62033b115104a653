//! What an engine hands out: datagrams, events, counters.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use metallb_core::model::NodeName;

/// A datagram to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// The destination.
    pub to: SocketAddr,
    /// The sealed bytes.
    pub datagram: Vec<u8>,
    /// Whether answers can be received later.
    pub urgency: Urgency,
}

/// How soon the datagrams that follow from one must be received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// A ping or a pong. Pongs and pings of others are about to arrive; they can be received in one batch.
    Routine,
    /// Any other message: the answer must be handled as soon as it arrives.
    Prompt,
}

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The live members are known, as far as any have answered. From now on decisions can be based on them.
    Joined,
    /// The set of live members changed.
    LiveChanged,
    /// A monitored node does not answer; other members are asked to ping it.
    Suspected(NodeName),
    /// A suspected node has answered.
    Refuted(NodeName),
    /// Another member does not reach the suspected node either: it is dead.
    DeclaredDead {
        /// The node.
        node: NodeName,
        /// When it last proved that it was alive.
        last_heard: Instant,
    },
    /// A dead node has answered.
    Recovered(NodeName),
    /// A member failed without leaving, so it is unknown what it last announced. Repeated, at growing intervals, while
    /// the member still sends and does not answer.
    Failed(NodeName),
    /// A member joined, recovered or restarted, and had not left before, so it is unknown what it announced.
    Appeared(NodeName),
    /// A second host uses the node name of a live one. It is ignored.
    NameClash {
        /// The name.
        node: NodeName,
        /// The address of the second host.
        address: SocketAddr,
    },
    /// Members reported other hardware addresses, see
    /// [`Member::hardware_of_others`](crate::member::Member::hardware_of_others).
    HardwareChanged,
    /// Another member gives addresses up for this node.
    HandoverOffered {
        /// The other member.
        from: NodeName,
        /// The addresses.
        ips: Vec<IpAddr>,
        /// It announced none of them after this time.
        since: Instant,
    },
    /// The new owner has announced addresses that this node gives up.
    HandoverAcknowledged(NodeName, Vec<IpAddr>),
    /// The new owner does not announce addresses that this node gives up.
    HandoverRejected(NodeName, Vec<IpAddr>),
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Datagrams sent.
    pub sent: u64,
    /// Bytes of these datagrams.
    pub bytes_sent: u64,
    /// Datagrams accepted.
    pub received: u64,
    /// Datagrams rejected before their session was checked.
    pub rejected: Rejected,
    /// Datagrams for an earlier incarnation of this member, or of a session that is unknown here. They start a
    /// handshake.
    pub unknown_session: u64,
    /// Datagrams received a second time.
    pub replayed: u64,
    /// Suspicions raised.
    pub suspected: u64,
    /// Suspicions that the node refuted.
    pub refuted: u64,
    /// Suspicions that other members confirmed.
    pub declared_dead: u64,
}

/// Datagrams rejected, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rejected {
    /// Not a valid message, or one that its sender may not send.
    pub malformed: u64,
    /// Plain text where sealed datagrams are expected, or the other way round.
    pub sealed_otherwise: u64,
    /// Sealed with an unknown key.
    pub unknown_key: u64,
    /// Not sealed with the key that it names, or changed in transit.
    pub forged: u64,
}
