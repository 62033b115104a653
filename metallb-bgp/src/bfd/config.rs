//! What a session must be.

use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use thiserror::Error;

use super::{Discriminator, Interval};

/// How to watch a path: a `BFDProfile` (contract speaker §6). The ranges of that object are its parser's business; here every
/// value that the protocol allows works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Profile {
    /// Required minimum receive interval.
    pub receive_interval: Interval,
    /// Desired minimum transmit interval while Up; while not Up it is at least a second.
    pub transmit_interval: Interval,
    /// How many packets of ours in a row may be lost before the neighbour gives up.
    pub detect_multiplier: NonZeroU8,
    /// Exchange echo packets this often, on single-hop sessions, if the neighbour returns them.
    pub echo: Option<Interval>,
    /// Who speaks first.
    pub role: Role,
    /// The least TTL that a packet of a multi-hop session may arrive with.
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
    /// The echo interval of a profile that asks for echo and says no more.
    pub const DEFAULT_ECHO: Duration = Duration::from_millis(50);
}

/// Who speaks first (RFC 5880 §6.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Role {
    /// Sends from the beginning.
    #[default]
    Active,
    /// Says nothing until the neighbour is heard.
    Passive,
}

/// How far the neighbour is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Hops {
    /// On the same link: RFC 5881, port 3784, TTL 255.
    Single,
    /// Behind routers: RFC 5883, port 4784.
    Multiple,
}

/// A VRF, by a number that the driver chooses; zero is the default one. Addresses of two domains have nothing to do with each
/// other.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RoutingDomain(pub u32);

/// Which path a session watches. Two sessions never share a key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionKey {
    /// The neighbour's address.
    pub remote: IpAddr,
    /// How far it is.
    pub hops: Hops,
    /// The VRF.
    pub domain: RoutingDomain,
    /// The only local address that packets may be sent to; any when not given.
    pub local: Option<IpAddr>,
    /// The only interface that packets may arrive on; any when not given. A link-local neighbour needs one.
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

/// Why a session cannot be. The caller's fault.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddSessionError {
    /// There is one for this key.
    #[error("session {0} watches this path already")]
    Exists(Discriminator),
    /// Unspecified, multicast, or our own.
    #[error("{0} cannot be a neighbour")]
    NoNeighbor(IpAddr),
    /// A local and a remote address of two families.
    #[error("local and remote address are of different families")]
    FamiliesDiffer,
    /// A link-local address means something on one interface only.
    #[error("a link-local neighbour needs an interface, and a single hop")]
    LinkLocalWithoutInterface,
}

// Three is not zero.
const DEFAULT_MULTIPLIER: NonZeroU8 = NonZeroU8::MIN.saturating_add(2);
