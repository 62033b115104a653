//! The identity of a member: node name, address and incarnation.

use std::net::SocketAddr;

use metallb_core::model::NodeName;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

/// One incarnation of the speaker on a node. Of two incarnations of the same node the higher one is current.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "WireIdentity")]
pub struct Identity {
    /// The incarnation number of SWIM. It is higher after each restart, and a member that was declared dead raises it
    /// to refute that.
    pub incarnation: u64,
    #[serde(skip)]
    key: NameKey,
    /// The address that the member receives on and sends from.
    pub address: SocketAddr,
    node: NodeName,
}

/// A digest of a node name. Gossip compares thousands of names for each datagram, and a digest is faster to compare. It
/// is taken from SHA-256, so no two names that can be found share one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NameKey([u64; 2]);

impl Identity {
    /// An incarnation of a node.
    #[must_use]
    pub fn new(node: NodeName, address: SocketAddr, incarnation: u64) -> Self {
        Self { incarnation, key: NameKey::of(&node), address, node }
    }

    /// The node that the speaker runs on.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// The digest of the node's name.
    #[must_use]
    pub const fn key(&self) -> NameKey {
        self.key
    }
}

impl NameKey {
    /// The digest of a name.
    #[must_use]
    pub fn of(node: &NodeName) -> Self {
        let digest = Sha256::digest(node.as_str());
        let part = |at: usize| digest.iter().skip(at).take(8).fold(0, |number, &byte| number << 8 | u64::from(byte));
        Self([part(0), part(8)])
    }

    /// The distance from this key to another one on the ring of all keys, clockwise.
    #[must_use]
    pub fn distance(self, other: Self) -> u128 {
        let number = |Self([high, low]): Self| u128::from(high) << 64 | u128::from(low);
        number(other).wrapping_sub(number(self))
    }
}

/// The serialized form of an [`Identity`]: the digest is not sent.
#[derive(Deserialize)]
struct WireIdentity {
    incarnation: u64,
    address: SocketAddr,
    #[serde(deserialize_with = "node_name")]
    node: NodeName,
}

impl From<WireIdentity> for Identity {
    fn from(WireIdentity { incarnation, address, node }: WireIdentity) -> Self {
        Self::new(node, address, incarnation)
    }
}

impl foca::Identity for Identity {
    type Addr = NameKey;

    fn renew(&self) -> Option<Self> {
        Some(Self { incarnation: self.incarnation.saturating_add(1), ..self.clone() })
    }

    #[inline]
    fn addr(&self) -> NameKey {
        self.key
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.incarnation > adversary.incarnation
    }
}

/// Reads a node name: a DNS subdomain of 1 to 253 bytes.
pub(crate) fn node_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeName, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    if text.is_empty() || text.len() > NODE_NAME_MAX {
        return Err(serde::de::Error::custom("a node name has 1 to 253 bytes"));
    }
    Ok(NodeName::from(text))
}

const NODE_NAME_MAX: usize = 253;

/// The highest incarnation that is accepted from another member. Incarnations are microseconds since 1970; without this
/// limit one member could use up all higher numbers.
pub(crate) const INCARNATION_MAX: u64 = 1 << 62;
