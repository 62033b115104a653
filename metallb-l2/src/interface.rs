//! Interfaces, hardware addresses, and the addresses to announce.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

pub use crate::foreign::{ForeignAddress, ForeignAddresses};

/// A 48-bit hardware (MAC) address.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The Ethernet address of an IPv6 multicast group (RFC 2464 §7).
    #[must_use]
    pub const fn of_multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }

    /// Whether it can be the address of one host: neither a group address nor all zeros.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether it is a group address, including broadcast.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An interface on which addresses may be announced: it is up, has carrier, and is not a port of a bridge or bond.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Interface {
    /// The interface index.
    pub index: u32,
    /// The name.
    pub name: Arc<str>,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Whether ARP requests are answered on it. True for interfaces that can broadcast.
    pub arp: bool,
    /// Its IPv6 link-local address, the source of NDP messages. Without one, solicitations are not answered.
    pub link_local: Option<Ipv6Addr>,
    /// Whether it is used only for addresses whose scope names it. True for members of a VRF, which belong to another
    /// network.
    pub only_by_name: bool,
}

impl Interface {
    /// An Ethernet interface that answers ARP and is used for [`Scope::All`].
    #[must_use]
    pub fn new(index: u32, name: &str, mac: MacAddr, link_local: Option<Ipv6Addr>) -> Self {
        Self { index, name: name.into(), mac, arp: true, link_local, only_by_name: false }
    }
}

/// The interfaces on which an address is announced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All interfaces, except those that are [`only_by_name`](Interface::only_by_name).
    All,
    /// The interfaces with these names.
    Only(std::collections::BTreeSet<Arc<str>>),
}

/// An address to announce.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// The address.
    pub ip: IpAddr,
    /// The interfaces to announce it on.
    pub scope: Scope,
    /// How to treat it.
    pub stance: Stance,
}

/// A change of one address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressChange {
    /// It is announced like this from now on.
    Announce(Announcement),
    /// It is no longer announced.
    Withdraw(IpAddr),
}

/// How an address is treated.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stance {
    /// It is announced, and requests for it are answered.
    #[default]
    Hold,
    /// It is announced unless another host has it. Probes (RFC 5227 §2.1, RFC 4862 §5.4) take less than a second, and
    /// requests are not answered before they are done. An address that is held already stays as it is.
    Claim,
    /// Another speaker is about to announce it. Requests are still answered, but it is no longer announced, and claims
    /// by other hosts are no conflict. Usually its removal follows; `Hold` would announce it again.
    Yield,
}

impl From<(IpAddr, Scope)> for Announcement {
    fn from((ip, scope): (IpAddr, Scope)) -> Self {
        Self { ip, scope, stance: Stance::Hold }
    }
}

impl AddressChange {
    /// The address that changes.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        match self {
            Self::Announce(announcement) => announcement.ip,
            Self::Withdraw(ip) => *ip,
        }
    }
}

impl Scope {
    /// Whether an interface belongs to it.
    #[must_use]
    pub fn includes(&self, interface: &Interface) -> bool {
        match self {
            Self::All => !interface.only_by_name,
            Self::Only(names) => names.contains(&interface.name),
        }
    }

    /// The interfaces of both scopes.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut a), Self::Only(b)) => {
                a.extend(b);
                Self::Only(a)
            }
            _ => Self::All,
        }
    }
}
