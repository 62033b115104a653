//! Types that all modules of the crate share.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::wire::iana::{self, Afi, Safi};

/// An autonomous system number (RFC 6793).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Asn(pub u32);

impl Asn {
    /// AS_TRANS, which stands in a two-octet field for a number that needs four octets.
    pub const TRANS: u16 = iana::AS_TRANS;

    /// The number in two octets, or [`TRANS`](Self::TRANS) if it does not fit.
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

/// A BGP identifier (RFC 6286): four octets that are not all zero, written like an IPv4 address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouterId(pub Ipv4Addr);

/// The address families that this crate supports: IPv4 and IPv6 unicast.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
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

    /// The address family identifier. The subsequent one is [`Safi::Unicast`] for both families.
    #[must_use]
    pub const fn afi(self) -> Afi {
        match self {
            Self::Ipv4 => Afi::Ipv4,
            Self::Ipv6 => Afi::Ipv6,
        }
    }

    /// From the codes of AFI and SAFI on the wire; `None` for families that this crate does not support.
    #[must_use]
    pub const fn from_codes(afi: u16, safi: u8) -> Option<Self> {
        match (Afi::from_code(afi), Safi::from_code(safi)) {
            (Some(Afi::Ipv4), Some(Safi::Unicast)) => Some(Self::Ipv4),
            (Some(Afi::Ipv6), Some(Safi::Unicast)) => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// The path attributes of a route that a user chooses; the next hop belongs to the session.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Attributes {
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF for internal peers; 100 if not set.
    pub local_pref: Option<u32>,
    /// Communities (RFC 1997).
    pub communities: BTreeSet<u32>,
    /// Large communities (RFC 8092).
    pub large_communities: BTreeSet<(u32, u32, u32)>,
}

impl Attributes {
    /// With MULTI_EXIT_DISC.
    #[must_use]
    pub fn with_med(self, med: u32) -> Self {
        Self { med: Some(med), ..self }
    }

    /// With LOCAL_PREF, which only internal peers receive.
    #[must_use]
    pub fn with_local_pref(self, local_pref: u32) -> Self {
        Self { local_pref: Some(local_pref), ..self }
    }

    /// With these communities in place of the present ones.
    #[must_use]
    pub fn with_communities(self, communities: impl IntoIterator<Item = u32>) -> Self {
        Self { communities: communities.into_iter().collect(), ..self }
    }

    /// With these large communities in place of the present ones.
    #[must_use]
    pub fn with_large_communities(self, communities: impl IntoIterator<Item = (u32, u32, u32)>) -> Self {
        Self { large_communities: communities.into_iter().collect(), ..self }
    }

    /// The attributes for a speaker that is about to leave (RFC 8326): with the community GRACEFUL_SHUTDOWN and the
    /// lowest LOCAL_PREF, so that traffic moves away before the route is withdrawn.
    #[must_use]
    pub fn draining(&self) -> Self {
        let mut draining = Self { local_pref: Some(0), ..self.clone() };
        draining.communities.insert(iana::GRACEFUL_SHUTDOWN);
        draining
    }
}
