//! Who a member is.

use std::net::SocketAddr;

use metallb_core::model::NodeName;
use serde::{Deserialize, Deserializer, Serialize};

/// One life of a speaker. Of two lives of one node the later one counts.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The node it announces from.
    #[serde(deserialize_with = "name")]
    pub node: NodeName,
    /// Where it is reached; its datagrams come from there.
    pub address: SocketAddr,
    /// Grows from life to life, and when a member that was declared dead says that it is not.
    pub life: u64,
}

impl foca::Identity for Identity {
    type Addr = NodeName;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> NodeName {
        self.node.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// Node names are DNS subdomains: not empty, at most 253 bytes.
pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeName, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    if text.is_empty() || text.len() > NAME_MAX {
        return Err(serde::de::Error::custom("a node name has 1 to 253 bytes"));
    }
    Ok(NodeName::from(text))
}

const NAME_MAX: usize = 253;
