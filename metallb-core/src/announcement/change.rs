//! Changes of the announcements of this node.

use std::fmt;
use std::net::IpAddr;

use crate::model::ServiceKey;

/// A way in which addresses are announced.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// Routes that are offered to BGP peers.
    Bgp,
    /// ARP and neighbor discovery.
    Layer2,
}

impl Protocol {
    /// The name in logs, Events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bgp => "bgp",
            Self::Layer2 => "layer2",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Service whose announcement by one protocol changed: its addresses, or only its peers or interfaces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnnouncementChange {
    /// The Service.
    pub service: ServiceKey,
    /// The protocol.
    pub protocol: Protocol,
    /// The addresses that were announced; `None` where the Service was not.
    pub before: Option<Vec<IpAddr>>,
    /// The addresses that are announced; `None` where the Service is not.
    pub after: Option<Vec<IpAddr>>,
}

impl AnnouncementChange {
    /// The transition, unless the addresses are the same.
    pub(super) fn transition(&self) -> Option<Transition> {
        let kind = match (&self.before, &self.after) {
            (before, after) if before == after => return None,
            (_, Some(_)) => TransitionKind::Announcing(self.protocol),
            (_, None) => TransitionKind::Withdrawn(self.protocol),
        };
        Some(Transition { service: self.service.clone(), kind })
    }
}

/// Something that began, ended or failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transition {
    /// The Service.
    pub service: ServiceKey,
    /// The kind of transition.
    pub kind: TransitionKind,
}

/// The kinds of transition of a Service on a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TransitionKind {
    /// This node announces it from now on, or announces other addresses.
    Announcing(Protocol),
    /// This node no longer announces it.
    Withdrawn(Protocol),
    /// None of the interfaces for this address exists on this node.
    Failed(IpAddr),
}
