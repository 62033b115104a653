//! What is known about a network interface.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

pub use crate::foreign::{ForeignAddress, ForeignAddresses};

/// A 48-bit hardware address.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address that IPv6 multicast to `group` is sent to (RFC 2464 §7).
    #[must_use]
    pub const fn of_multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }

    /// Whether it can be the address of one host.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether it names a group.
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

/// An interface on which addresses may be announced: up, with carrier, not a port of a bridge or bond.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// The kernel's number.
    pub index: u32,
    /// The name.
    pub name: Arc<str>,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Whether it can broadcast: then it answers ARP.
    pub arp: bool,
    /// Its IPv6 link-local address, if it has one: then it answers NDP.
    pub link_local: Option<Ipv6Addr>,
    /// Whether it is used only for addresses whose scope names it, as a member of a VRF is: it belongs to another network.
    pub only_by_name: bool,
}

impl Interface {
    /// A usual Ethernet interface.
    #[must_use]
    pub fn new(index: u32, name: &str, mac: MacAddr, link_local: Option<Ipv6Addr>) -> Self {
        Self { index, name: name.into(), mac, arp: true, link_local, only_by_name: false }
    }
}

/// On which interfaces an address is announced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// On all, but for those that must be named.
    All,
    /// Only on those with these names.
    Only(std::collections::BTreeSet<Arc<str>>),
}

/// An address to answer for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// The address.
    pub ip: IpAddr,
    /// Where.
    pub scope: Scope,
    /// As what.
    pub stance: Stance,
}

/// How an address is answered for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stance {
    /// It is ours: it is announced, then questions are answered.
    #[default]
    Hold,
    /// It becomes ours unless another host has it: it is probed for first (RFC 5227 §2.1, RFC 4862 §5.4), which takes less than a
    /// second, and questions are not answered until then. Nothing is done to an address that is held already.
    Claim,
    /// Another speaker is about to take it: questions are still answered, but it is not announced any more, and that the other
    /// announces it is no conflict. What comes next is its end, or `Hold`, which announces it anew.
    Yield,
}

impl From<(IpAddr, Scope)> for Announcement {
    fn from((ip, scope): (IpAddr, Scope)) -> Self {
        Self { ip, scope, stance: Stance::Hold }
    }
}

impl Scope {
    /// Whether it includes an interface.
    #[must_use]
    pub fn includes(&self, interface: &Interface) -> bool {
        match self {
            Self::All => !interface.only_by_name,
            Self::Only(names) => names.contains(&interface.name),
        }
    }

    /// Both together.
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
