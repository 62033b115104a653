//! The configuration of a session.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use thiserror::Error;

use super::{Discriminator, Interval};

/// The parameters of a session. Every value that the protocol allows is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// Required minimum receive interval.
    pub receive_interval: Interval,
    /// Desired minimum transmit interval while Up. While not Up it is at least one second.
    pub transmit_interval: Interval,
    /// Number of our consecutive packets that must be lost before the neighbour declares the session down.
    pub detect_multiplier: NonZeroU8,
    /// Interval of echo packets on single-hop sessions, if the neighbour returns them; `None` disables the echo
    /// function.
    pub echo: Option<Interval>,
    /// Whether to send packets before the first one of the neighbour.
    pub role: Role,
    /// Minimum TTL of received packets of a multi-hop session.
    pub minimum_ttl: u8,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            receive_interval: Interval(300_000),
            transmit_interval: Interval(300_000),
            detect_multiplier: DEFAULT_MULTIPLIER,
            echo: None,
            role: Role::Active,
            minimum_ttl: 254,
        }
    }
}

impl Profile {
    /// The echo interval if the echo function is enabled without an interval.
    pub const DEFAULT_ECHO: Duration = Duration::from_millis(50);

    /// With the same interval for both directions.
    #[must_use]
    pub const fn with_interval(self, interval: Interval) -> Self {
        Self { receive_interval: interval, transmit_interval: interval, ..self }
    }
}

/// The role in session establishment (RFC 5880 §6.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Role {
    /// Sends packets from the start.
    #[default]
    Active,
    /// Sends no packet until one of the neighbour was received.
    Passive,
}

/// The distance of the neighbour.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Hops {
    /// On the same link (RFC 5881: port 3784, TTL 255).
    Single,
    /// Behind routers (RFC 5883: port 4784).
    Multiple,
}

/// A VRF, by a number that the driver chooses; zero is the default VRF. Equal addresses in two domains are unrelated.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RoutingDomain(pub u32);

/// The path of a session. Two sessions never have the same key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionKey {
    /// The neighbour's address.
    pub remote: IpAddr,
    /// The distance of the neighbour.
    pub hops: Hops,
    /// The VRF.
    pub domain: RoutingDomain,
    /// The local address to which packets must be sent; `None` accepts any.
    pub local: Option<IpAddr>,
    /// The index of the interface on which packets must arrive; `None` accepts any. A link-local neighbour needs one.
    pub interface: Option<NonZeroU32>,
}

impl SessionKey {
    /// A session in the default VRF, on any interface and local address.
    #[must_use]
    pub fn new(remote: IpAddr, hops: Hops) -> Self {
        Self { remote, hops, domain: RoutingDomain::default(), local: None, interface: None }
    }

    pub(super) fn check(&self) -> Result<(), AddSessionError> {
        if self.remote.is_unspecified() || self.remote.is_multicast() || self.local == Some(self.remote) {
            return Err(AddSessionError::NoNeighbor(self.remote));
        }
        if self.local.is_some_and(|local| local.is_ipv4() != self.remote.is_ipv4()) {
            return Err(AddSessionError::FamiliesDiffer);
        }
        let link_local = matches!(self.remote, IpAddr::V6(address) if address.is_unicast_link_local());
        if link_local && (self.interface.is_none() || self.hops == Hops::Multiple) {
            return Err(AddSessionError::LinkLocalWithoutInterface);
        }
        Ok(())
    }
}

/// Why a session cannot be added.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddSessionError {
    /// There is a session with this key.
    #[error("session {0} monitors this path already")]
    Exists(Discriminator),
    /// The address is unspecified, multicast, or our own.
    #[error("{0} cannot be a neighbour")]
    NoNeighbor(IpAddr),
    /// The local and the remote address are of different families.
    #[error("local and remote address are of different families")]
    FamiliesDiffer,
    /// A link-local address is valid on one interface only.
    #[error("a link-local neighbour needs an interface, and a single hop")]
    LinkLocalWithoutInterface,
}

// Three is not zero.
const DEFAULT_MULTIPLIER: NonZeroU8 = NonZeroU8::MIN.saturating_add(2);
