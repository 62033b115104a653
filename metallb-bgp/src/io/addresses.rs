//! The addresses of this host.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// The addresses of this host at a point in time.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    entries: Vec<(String, IpNet)>,
}

impl Addresses {
    /// Reads them from the kernel; empty if that fails.
    pub(super) fn read() -> Self {
        let Ok(listed) = getifaddrs() else { return Self::default() };
        let entry = |interface: nix::ifaddrs::InterfaceAddress| {
            let (address, mask) = (ip(&interface.address?)?, ip(&interface.netmask?)?);
            Some((interface.interface_name, IpNet::with_netmask(address, mask).ok()?))
        };
        Self { entries: listed.filter_map(entry).collect() }
    }

    #[cfg(test)]
    pub(super) fn of(entries: &[(&str, &str)]) -> Self {
        let entry = |(name, net): &(&str, &str)| ((*name).to_owned(), net.parse().unwrap());
        Self { entries: entries.iter().map(entry).collect() }
    }

    /// Whether this host has the address.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.entries.iter().any(|(_, net)| net.addr() == ip)
    }

    /// Whether the address is on a link of this host, or an address of this host.
    pub(super) fn on_link(&self, ip: IpAddr) -> bool {
        let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        link_local || self.entries.iter().any(|(_, net)| net.contains(&ip))
    }

    /// A global address of the other family on the interface with `local`.
    pub(super) fn other_family(&self, local: IpAddr) -> Option<IpAddr> {
        let interface = &self.entries.iter().find(|(_, net)| net.addr() == local)?.0;
        let fits = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => local.is_ipv6() && !v4.is_link_local() && !v4.is_loopback(),
            IpAddr::V6(v6) => local.is_ipv4() && !v6.is_unicast_link_local() && !v6.is_loopback(),
        };
        self.entries.iter().filter(|(name, _)| name == interface).map(|(_, net)| net.addr()).find(fits)
    }

    /// An IPv4 address of the interface with `local`.
    pub(super) fn own_v4(&self, local: IpAddr) -> Option<Ipv4Addr> {
        match (local, self.other_family(local)) {
            (IpAddr::V4(ip), _) | (IpAddr::V6(_), Some(IpAddr::V4(ip))) => Some(ip),
            _ => None,
        }
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses::of(&[
            ("lo", "127.0.0.1/8"),
            ("lo", "10.9.9.9/32"),
            ("eth0", "172.16.1.11/24"),
            ("eth0", "fe80::1/64"),
            ("eth0", "fd00:1::11/64"),
            ("eth1", "fd00:2::11/64"),
        ])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_a_link_and_of_this_host_are_on_link() {
        let addresses = addresses();
        for near in ["172.16.1.254", "fd00:2::1", "fe80::2", "127.0.0.2", "10.9.9.9"] {
            assert!(addresses.on_link(ip(near)), "{near}");
        }
        for far in ["172.16.2.254", "fd00:3::1", "10.9.9.8"] {
            assert!(!addresses.on_link(ip(far)), "{far}");
        }
    }

    #[test]
    fn other_family_is_a_global_address_of_the_same_interface() {
        let addresses = addresses();
        assert_eq!(addresses.other_family(ip("172.16.1.11")), Some(ip("fd00:1::11")));
        assert_eq!(addresses.other_family(ip("fd00:1::11")), Some(ip("172.16.1.11")));
        assert_eq!(addresses.other_family(ip("fd00:2::11")), None, "the interface has no IPv4 address");
        assert_eq!(addresses.other_family(ip("192.0.2.1")), None, "not an address of this host");
        assert_eq!(addresses.own_v4(ip("fd00:1::11")), Some(Ipv4Addr::new(172, 16, 1, 11)));
        assert_eq!(addresses.own_v4(ip("fd00:2::11")), None);
    }
}
