//! Addresses that must not be announced because a host, a router or the network itself uses them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The addresses that this host knows to be in use by something other than a Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ForeignAddresses {
    reasons: BTreeMap<IpAddr, ForeignAddress>,
}

/// Why an address is not announced. Variants are in order of precedence.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum ForeignAddress {
    /// This host has it on the named interface, and its kernel answers for it.
    OwnAddress(Arc<str>),
    /// Another node of the cluster has it.
    AnotherNode,
    /// It is the next hop of a default route. Announcing it would cut the network off.
    Gateway,
    /// It is the broadcast address of a network that the named interface is attached to.
    BroadcastAddress(Arc<str>),
}

impl ForeignAddresses {
    /// An empty table: no address is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address of a local interface, and the broadcast address of its IPv4 network of `prefix` bits.
    pub fn add_interface_address(&mut self, interface: &Arc<str>, ip: IpAddr, prefix: u8) {
        self.add(ip, ForeignAddress::OwnAddress(Arc::clone(interface)));
        // Networks of one or two addresses (RFC 3021) and IPv6 networks have no broadcast address. The first address
        // of a network is not refused: hosts treat it as a unicast address, and a pool that is a whole network gives
        // it to its first Service.
        if let (IpAddr::V4(v4), 1..=30) = (ip, prefix) {
            let mask = u32::MAX << (32 - u32::from(prefix));
            let last = Ipv4Addr::from_bits(v4.to_bits() | !mask);
            self.add(last.into(), ForeignAddress::BroadcastAddress(Arc::clone(interface)));
        }
    }

    /// Adds the next hops of default routes.
    pub fn add_gateways<'a>(&mut self, gateways: impl IntoIterator<Item = &'a IpAddr>) {
        gateways.into_iter().for_each(|&ip| self.add(ip, ForeignAddress::Gateway));
    }

    /// Adds the addresses of other nodes of the cluster.
    pub fn add_nodes<'a>(&mut self, addresses: impl IntoIterator<Item = &'a IpAddr>) {
        addresses.into_iter().for_each(|&ip| self.add(ip, ForeignAddress::AnotherNode));
    }

    /// The reason to refuse an address; `None` if it may be announced.
    #[must_use]
    pub fn find(&self, ip: IpAddr) -> Option<&ForeignAddress> {
        self.reasons.get(&ip)
    }

    /// Of several reasons for one address, the first in the order of the variants is kept.
    fn add(&mut self, ip: IpAddr, reason: ForeignAddress) {
        let known = self.reasons.entry(ip).or_insert_with(|| reason.clone());
        if reason < *known {
            *known = reason;
        }
    }
}

impl fmt::Display for ForeignAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnAddress(interface) => write!(f, "this node has it on {interface}"),
            Self::AnotherNode => f.write_str("another node has it"),
            Self::Gateway => f.write_str("the default route of this node leads to it"),
            Self::BroadcastAddress(interface) => write!(f, "it is the broadcast address of {interface}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(addresses: &ForeignAddresses, ip: &str) -> Option<ForeignAddress> {
        addresses.find(ip.parse().unwrap()).cloned()
    }

    #[test]
    fn addresses_of_hosts_gateways_and_broadcast_are_refused_with_the_reason() {
        let (eth0, eth1): (Arc<str>, Arc<str>) = ("eth0".into(), "eth1".into());
        let mut foreign = ForeignAddresses::new();
        foreign.add_interface_address(&eth0, "192.168.10.5".parse().unwrap(), 23);
        foreign.add_interface_address(&eth0, "fd00::5".parse().unwrap(), 64);
        foreign.add_interface_address(&eth1, "10.0.0.0".parse().unwrap(), 31);
        foreign.add_interface_address(&eth1, "10.0.1.1".parse().unwrap(), 32);
        foreign.add_interface_address(&eth1, "10.0.2.1".parse().unwrap(), 0);
        foreign.add_gateways(&["192.168.10.1".parse().unwrap(), "fe80::1".parse().unwrap()]);
        foreign.add_nodes(&["192.168.10.6".parse().unwrap(), "192.168.10.5".parse().unwrap()]);
        let rows = [
            ("192.168.10.5", Some(ForeignAddress::OwnAddress(Arc::clone(&eth0)))),
            ("fd00::5", Some(ForeignAddress::OwnAddress(Arc::clone(&eth0)))),
            ("192.168.10.6", Some(ForeignAddress::AnotherNode)),
            ("192.168.10.1", Some(ForeignAddress::Gateway)),
            ("fe80::1", Some(ForeignAddress::Gateway)),
            ("192.168.10.0", None),
            ("192.168.11.255", Some(ForeignAddress::BroadcastAddress(eth0))),
            ("192.168.10.255", None),
            ("192.168.11.0", None),
            ("fd00::", None),
            ("10.0.0.0", Some(ForeignAddress::OwnAddress(eth1))),
            ("10.0.0.1", None),
            ("0.0.0.0", None),
            ("255.255.255.255", None),
        ];
        for (ip, expected) in rows {
            assert_eq!(find(&foreign, ip), expected, "{ip}");
        }
    }

    #[test]
    fn first_reason_in_precedence_is_kept_in_any_order_of_insertion() {
        let eth0: Arc<str> = "eth0".into();
        let gateway = ["10.0.0.255".parse().unwrap()];
        let (mut one, mut other) = (ForeignAddresses::new(), ForeignAddresses::new());
        one.add_gateways(&gateway);
        one.add_interface_address(&eth0, "10.0.0.1".parse().unwrap(), 24);
        other.add_interface_address(&eth0, "10.0.0.1".parse().unwrap(), 24);
        other.add_gateways(&gateway);
        assert_eq!(find(&one, "10.0.0.255"), Some(ForeignAddress::Gateway));
        assert_eq!(one, other);
    }
}
