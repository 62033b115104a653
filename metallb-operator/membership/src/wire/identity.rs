//! Who a member is.

use std::net::SocketAddr;

use metallb_core::model::NodeName;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

/// One life of a speaker. Of two lives of one node the later one counts.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Identity {
    /// Grows from life to life, and when a member that was declared dead says that it is not.
    pub life: u64,
    #[serde(skip)]
    key: NameKey,
    /// Where it is reached; its datagrams come from there.
    pub address: SocketAddr,
    node: NodeName,
}

/// Stands for a node name. Gossip compares names by the thousand for each thing it hears; these compare at once, and nobody finds
/// two names that share one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NameKey([u64; 2]);

impl Identity {
    /// A life of a node.
    #[must_use]
    pub fn new(node: NodeName, address: SocketAddr, life: u64) -> Self {
        Self { life, key: NameKey::of(&node), address, node }
    }

    /// The node it announces from.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// What stands for the node's name.
    #[must_use]
    pub const fn key(&self) -> NameKey {
        self.key
    }
}

impl NameKey {
    /// The key of a name.
    #[must_use]
    pub fn of(node: &NodeName) -> Self {
        let digest = Sha256::digest(node.as_str());
        let part = |at: usize| digest.iter().skip(at).take(8).fold(0, |number, &byte| number << 8 | u64::from(byte));
        Self([part(0), part(8)])
    }

    /// How far another key is, going up, and around at the end.
    #[must_use]
    pub fn distance(self, other: Self) -> u128 {
        let number = |Self([high, low]): Self| u128::from(high) << 64 | u128::from(low);
        number(other).wrapping_sub(number(self))
    }
}

/// An identity as it travels.
#[derive(Deserialize)]
struct Written {
    life: u64,
    address: SocketAddr,
    #[serde(deserialize_with = "name")]
    node: NodeName,
}

impl From<Written> for Identity {
    fn from(Written { life, address, node }: Written) -> Self {
        Self::new(node, address, life)
    }
}

impl foca::Identity for Identity {
    type Addr = NameKey;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life.saturating_add(1), ..self.clone() })
    }

    #[inline]
    fn addr(&self) -> NameKey {
        self.key
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// Node names are DNS subdomains: not empty, at most 253 bytes.
pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeName, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    if text.is_empty() || text.len() > NAME_MAX {
        return Err(serde::de::Error::custom("a node name has 1 to 253 bytes"));
    }
    Ok(NodeName::from(text))
}

const NAME_MAX: usize = 253;

/// Numbers of lives are microseconds; higher ones than this are not learned from others, so that none can use them up.
pub(crate) const LIFE_MAX: u64 = 1 << 62;
