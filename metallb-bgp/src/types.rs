//! Words that the whole crate shares.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::wire::iana;

/// An autonomous system number (RFC 6793).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Asn(pub u32);

impl Asn {
    /// Stands in two octets for a number that needs four.
    pub const TRANS: u16 = 23_456;

    /// The number in two octets, [`TRANS`](Self::TRANS) where it does not fit.
    #[must_use]
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(Self::TRANS)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A BGP identifier (RFC 6286): any non-zero IPv4 address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouterId(pub Ipv4Addr);

/// Address families that are carried: unicast of either stack.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The address family identifier.
    #[must_use]
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
        }
    }

    /// From AFI and SAFI; `None` for families that are not carried.
    #[must_use]
    pub const fn from_codes(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4),
            (2, 1) => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// What is said about a prefix, next hop aside.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attributes {
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF for internal peers; they are told 100 where it is not set.
    pub local_pref: Option<u32>,
    /// RFC 1997, sorted.
    pub communities: BTreeSet<u32>,
    /// RFC 8092, sorted.
    pub large_communities: BTreeSet<(u32, u32, u32)>,
}

impl Attributes {
    /// The same for a speaker that is about to leave (RFC 8326): the community GRACEFUL_SHUTDOWN, and the least preference within the
    /// autonomous system, so that traffic moves away before the route does.
    #[must_use]
    pub fn draining(&self) -> Self {
        let mut draining = Self { local_pref: Some(0), ..self.clone() };
        draining.communities.insert(iana::GRACEFUL_SHUTDOWN);
        draining
    }
}
