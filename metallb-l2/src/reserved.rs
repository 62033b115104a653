//! Addresses that nobody may be answered for, whoever asks for it: hosts, routers and networks have them for themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What this host knows to be taken.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reserved {
    held: BTreeMap<IpAddr, Objection>,
}

/// Why an address is not announced.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Objection {
    /// This host has it on an interface, where its kernel answers.
    OwnAddress(Arc<str>),
    /// Another member of the cluster has it.
    AnotherNode,
    /// It is the next hop of a default route: who took it would cut this network off.
    Gateway,
    /// It is the broadcast address of what an interface is attached to.
    BroadcastAddress(Arc<str>),
}

impl Reserved {
    /// Nothing is taken.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An interface has an address in a network whose addresses begin with the same `prefix` bits.
    pub fn attach(&mut self, interface: &Arc<str>, ip: IpAddr, prefix: u8) {
        self.object(ip, Objection::OwnAddress(Arc::clone(interface)));
        // Networks of one or two addresses have none (RFC 3021), nor have those of IPv6. The first address of a network is one like any
        // other: hosts have long been treating it so, and a pool that is a whole network gives it to its first Service.
        if let (IpAddr::V4(v4), 1..=30) = (ip, prefix) {
            let mask = u32::MAX << (32 - u32::from(prefix));
            let last = Ipv4Addr::from_bits(v4.to_bits() | !mask);
            self.object(last.into(), Objection::BroadcastAddress(Arc::clone(interface)));
        }
    }

    /// A default route leads to these.
    pub fn route_through<'a>(&mut self, gateways: impl IntoIterator<Item = &'a IpAddr>) {
        gateways.into_iter().for_each(|&ip| self.object(ip, Objection::Gateway));
    }

    /// Other members of the cluster have these.
    pub fn leave_to_nodes<'a>(&mut self, addresses: impl IntoIterator<Item = &'a IpAddr>) {
        addresses.into_iter().for_each(|&ip| self.object(ip, Objection::AnotherNode));
    }

    /// What speaks against announcing an address.
    #[must_use]
    pub fn objection(&self, ip: IpAddr) -> Option<&Objection> {
        self.held.get(&ip)
    }

    /// The weightiest reason counts, which is the one that is first in the list of reasons.
    fn object(&mut self, ip: IpAddr, objection: Objection) {
        let known = self.held.entry(ip).or_insert_with(|| objection.clone());
        if objection < *known {
            *known = objection;
        }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnAddress(interface) => write!(f, "this node has it on {interface}"),
            Self::AnotherNode => f.write_str("another node has it"),
            Self::Gateway => f.write_str("the default route of this node leads to it"),
            Self::BroadcastAddress(interface) => write!(f, "it is the broadcast address of {interface}"),
        }
    }
}

/// Which of the addresses of a host its kernel tells to whoever asks on another interface: the setting `arp_ignore`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ArpIgnore {
    /// All: values 0 and 3, and those without a meaning.
    #[default]
    Nothing,
    /// None: values 1 and 2, by which an interface answers for what it has itself, and 8, by which it never does.
    OtherInterfaces,
}

impl ArpIgnore {
    /// The setting of an interface; the stronger of its own and the one for all counts.
    #[must_use]
    pub fn of(all: u8, interface: u8) -> Self {
        // 3 stands between: it hides addresses of narrow scope, which those of Services are not.
        match all.max(interface) {
            1 | 2 | 8 => Self::OtherInterfaces,
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(reserved: &Reserved, ip: &str) -> Option<Objection> {
        reserved.objection(ip.parse().unwrap()).cloned()
    }

    #[test]
    fn addresses_of_hosts_gateways_and_everybody_are_refused_with_the_reason() {
        let (eth0, eth1): (Arc<str>, Arc<str>) = ("eth0".into(), "eth1".into());
        let mut reserved = Reserved::new();
        reserved.attach(&eth0, "192.168.10.5".parse().unwrap(), 23);
        reserved.attach(&eth0, "fd00::5".parse().unwrap(), 64);
        reserved.attach(&eth1, "10.0.0.0".parse().unwrap(), 31);
        reserved.attach(&eth1, "10.0.1.1".parse().unwrap(), 32);
        reserved.attach(&eth1, "10.0.2.1".parse().unwrap(), 0);
        reserved.route_through(&["192.168.10.1".parse().unwrap(), "fe80::1".parse().unwrap()]);
        reserved.leave_to_nodes(&["192.168.10.6".parse().unwrap(), "192.168.10.5".parse().unwrap()]);
        let rows = [
            ("192.168.10.5", Some(Objection::OwnAddress(Arc::clone(&eth0)))),
            ("fd00::5", Some(Objection::OwnAddress(Arc::clone(&eth0)))),
            ("192.168.10.6", Some(Objection::AnotherNode)),
            ("192.168.10.1", Some(Objection::Gateway)),
            ("fe80::1", Some(Objection::Gateway)),
            ("192.168.10.0", None),
            ("192.168.11.255", Some(Objection::BroadcastAddress(eth0))),
            ("192.168.10.255", None),
            ("192.168.11.0", None),
            ("fd00::", None),
            ("10.0.0.0", Some(Objection::OwnAddress(eth1))),
            ("10.0.0.1", None),
            ("0.0.0.0", None),
            ("255.255.255.255", None),
        ];
        for (ip, expected) in rows {
            assert_eq!(objection(&reserved, ip), expected, "{ip}");
        }
    }

    #[test]
    fn weightiest_reason_is_told_whatever_came_first() {
        let eth0: Arc<str> = "eth0".into();
        let gateway = ["10.0.0.255".parse().unwrap()];
        let (mut one, mut other) = (Reserved::new(), Reserved::new());
        one.route_through(&gateway);
        one.attach(&eth0, "10.0.0.1".parse().unwrap(), 24);
        other.attach(&eth0, "10.0.0.1".parse().unwrap(), 24);
        other.route_through(&gateway);
        assert_eq!(objection(&one, "10.0.0.255"), Some(Objection::Gateway));
        assert_eq!(one, other);
    }

    #[test]
    fn kernel_keeps_addresses_of_other_interfaces_to_itself_as_the_stronger_setting_says() {
        use ArpIgnore::{Nothing, OtherInterfaces};
        for (all, interface, expected) in [
            (0, 0, Nothing),
            (1, 0, OtherInterfaces),
            (0, 1, OtherInterfaces),
            (2, 1, OtherInterfaces),
            (0, 8, OtherInterfaces),
            (3, 1, Nothing),
            (0, 5, Nothing),
        ] {
            assert_eq!(ArpIgnore::of(all, interface), expected, "{all} {interface}");
        }
    }
}
