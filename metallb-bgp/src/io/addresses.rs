//! The addresses of this host, and which of them a route can have as next hop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::netlink::{self, Route};
use crate::rib::NextHops;
use crate::types::Family;

/// The addresses of this host at a point in time, in the kernel's order: of one interface and family, the newest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Addresses {
    entries: Vec<Address>,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Address {
    /// The index of the interface.
    pub(super) interface: u32,
    pub(super) ip: IpAddr,
    /// The length of the prefix on the link.
    pub(super) prefix: u8,
    pub(super) usability: Usability,
}

/// Whether others can send packets to an address, and for how long. The best one comes first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Usability {
    Preferred,
    /// A temporary IPv6 address (RFC 8981), or a second IPv4 address of the same subnet.
    Temporary,
    /// Not to be used for anything new (RFC 4862 §5.5.4).
    Deprecated,
    /// Another host may have it: duplicate address detection is running or has failed (RFC 4862 §5.4).
    Unproven,
}

/// The addresses and routes from which a session chooses its next hops.
pub(super) struct Ends<'a> {
    pub(super) local: SocketAddr,
    /// The route to the router.
    pub(super) route: Option<Route>,
    /// The next hops in use, which stay if nothing better appears.
    pub(super) current: NextHops,
    /// Whether an address is announced by this speaker. It is no next hop for others.
    pub(super) is_announced: &'a dyn Fn(IpAddr) -> bool,
}

impl Addresses {
    /// Reads them from the kernel; empty if that fails.
    pub(super) fn read() -> Self {
        let entries = netlink::addresses().unwrap_or_else(|error| {
            tracing::warn!(event = "addressesUnknown", %error, "cannot list the addresses of this host");
            Vec::new()
        });
        Self { entries }
    }

    /// Whether this host has the address.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.entries.iter().any(|entry| entry.ip == ip)
    }

    /// Whether this host has the local address of a connection, on its link if it is a link-local one.
    pub(super) fn has_end(&self, local: SocketAddr) -> bool {
        self.interface_of(local).is_some()
    }

    /// The next hops on a connection: the local address, and for the other family an address of the same interface or,
    /// if it has none, of the interface towards the router. A link-local address is used for both families (RFC 8950),
    /// because an unnumbered link has no other.
    pub(super) fn next_hops(&self, ends: &Ends<'_>) -> NextHops {
        let local = ends.local.ip();
        match local {
            IpAddr::V4(_) => NextHops { v4: Some(local), v6: self.other(Family::Ipv6, ends) },
            IpAddr::V6(v6) if v6.is_unicast_link_local() => NextHops { v4: None, v6: Some(local) },
            IpAddr::V6(_) => NextHops { v4: self.other(Family::Ipv4, ends), v6: Some(local) },
        }
    }

    /// An IPv4 address of the interface with `local`.
    pub(super) fn own_v4(&self, local: SocketAddr) -> Option<Ipv4Addr> {
        let ends = Ends { local, route: None, current: NextHops::default(), is_announced: &|_| false };
        match (local.ip(), self.other(Family::Ipv4, &ends)) {
            (IpAddr::V4(ip), _) | (IpAddr::V6(_), Some(IpAddr::V4(ip))) => Some(ip),
            _ => None,
        }
    }

    fn other(&self, family: Family, ends: &Ends<'_>) -> Option<IpAddr> {
        let own = self.interface_of(ends.local);
        let towards = ends.route.map(|route| route.interface);
        own.into_iter().chain(towards).find_map(|interface| self.best(family, interface, ends))
    }

    /// The best address of an interface. A whole prefix is preferred to a single address, which often floats between
    /// hosts, and an old address to a new one.
    fn best(&self, family: Family, interface: u32, ends: &Ends<'_>) -> Option<IpAddr> {
        let fits = |entry: &&Address| {
            entry.interface == interface
                && entry.usability <= Usability::Temporary
                && is_global(entry.ip, family)
                && !(ends.is_announced)(entry.ip)
        };
        let rank = |entry: &Address| (entry.usability, entry.is_single(), ends.current.of(family) != Some(entry.ip));
        self.entries.iter().rev().filter(fits).min_by_key(|entry| rank(entry)).map(|entry| entry.ip)
    }

    fn interface_of(&self, local: SocketAddr) -> Option<u32> {
        let scope = match local {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() != 0 => Some(v6.scope_id()),
            _ => None,
        };
        let is_local = |entry: &&Address| entry.ip == local.ip() && scope.is_none_or(|scope| scope == entry.interface);
        self.entries.iter().find(is_local).map(|entry| entry.interface)
    }
}

impl Address {
    fn is_single(&self) -> bool {
        IpNet::from(self.ip).prefix_len() == self.prefix
    }
}

/// Whether packets to the address stay on a link: it is on a link of this host, or an address of this host. The kernel's
/// route decides, so that a router outside of the prefix of this host, but with a route without gateway, is on the link.
pub(super) fn on_link(ip: IpAddr, device: Option<&str>) -> bool {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    link_local || netlink::route_to(ip, device).is_some_and(|route| !route.via_gateway)
}

fn is_global(ip: IpAddr, family: Family) -> bool {
    match (ip, family) {
        (IpAddr::V4(v4), Family::Ipv4) => !v4.is_link_local() && !v4.is_loopback(),
        (IpAddr::V6(v6), Family::Ipv6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LO: u32 = 1;
    const ETH0: u32 = 2;
    const ETH1: u32 = 3;

    fn of(entries: &[(u32, &str, Usability)]) -> Addresses {
        let entry = |(interface, net, usability): &(u32, &str, Usability)| {
            let net: IpNet = net.parse().unwrap();
            Address { interface: *interface, ip: net.addr(), prefix: net.prefix_len(), usability: *usability }
        };
        Addresses { entries: entries.iter().map(entry).collect() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn end(text: &str) -> SocketAddr {
        SocketAddr::new(ip(text), 179)
    }

    fn ends(local: &str) -> Ends<'static> {
        Ends { local: end(local), route: None, current: NextHops::default(), is_announced: &|_| false }
    }

    #[test]
    fn next_hop_of_the_other_family_is_the_best_usable_address_of_the_interface() {
        use Usability::{Deprecated, Preferred, Temporary, Unproven};
        let local = (ETH0, "10.9.0.1/24", Preferred);
        let good = (ETH0, "fd00:9::1/64", Preferred);
        // Each row in the kernel's order, the newest first.
        for (name, entries, expected) in [
            ("alone", &[good][..], Some("fd00:9::1")),
            ("none", &[], None),
            ("link-local", &[(ETH0, "fe80::1/64", Preferred)], None),
            ("duplicate", &[(ETH0, "fd00:9::fe/64", Unproven), good], Some("fd00:9::1")),
            ("only duplicate", &[(ETH0, "fd00:9::fe/64", Unproven)], None),
            ("deprecated", &[(ETH0, "fd00:9::dead/64", Deprecated), good], Some("fd00:9::1")),
            ("only deprecated", &[(ETH0, "fd00:9::dead/64", Deprecated)], None),
            ("single", &[(ETH0, "fd00:9::777/128", Preferred), good], Some("fd00:9::1")),
            ("only single", &[(ETH0, "fd00:9::777/128", Preferred)], Some("fd00:9::777")),
            ("announced", &[(ETH0, "fd00:9::50/64", Preferred), good], Some("fd00:9::1")),
            ("only announced", &[(ETH0, "fd00:9::50/128", Preferred)], None),
            ("another prefix", &[(ETH0, "fd00:aaaa::5/64", Preferred), good], Some("fd00:9::1")),
            ("temporary", &[(ETH0, "fd00:9::7e/64", Temporary), good], Some("fd00:9::1")),
            ("temporary is older", &[good, (ETH0, "fd00:9::7e/64", Temporary)], Some("fd00:9::1")),
            ("only temporary", &[(ETH0, "fd00:9::7e/64", Temporary)], Some("fd00:9::7e")),
            ("another interface", &[(ETH1, "fd00:7::1/64", Preferred)], None),
            ("another interface first", &[(ETH1, "fd00:7::1/64", Preferred), good], Some("fd00:9::1")),
        ] {
            let addresses = of(&[&[local], entries].concat());
            let announced = ip("fd00:9::50");
            let ends = Ends { is_announced: &|ip| ip == announced, ..ends("10.9.0.1") };
            let expected = NextHops { v4: Some(ip("10.9.0.1")), v6: expected.map(ip) };
            assert_eq!(addresses.next_hops(&ends), expected, "{name}");
        }
    }

    #[test]
    fn next_hop_stays_while_it_is_as_good_as_any_other() {
        use Usability::{Deprecated, Preferred};
        let local = (ETH0, "10.9.0.1/24", Preferred);
        let old = (ETH0, "fd00:9::1/64", Preferred);
        let new = (ETH0, "fd00:9::2/64", Preferred);
        let ends = Ends { current: NextHops { v4: None, v6: Some(ip("fd00:9::2")) }, ..ends("10.9.0.1") };
        assert_eq!(of(&[local, new, old]).next_hops(&ends).v6, Some(ip("fd00:9::2")));
        let fading = (ETH0, "fd00:9::2/64", Deprecated);
        assert_eq!(of(&[local, fading, old]).next_hops(&ends).v6, Some(ip("fd00:9::1")));
        assert_eq!(of(&[local, old]).next_hops(&ends).v6, Some(ip("fd00:9::1")));
    }

    #[test]
    fn interface_towards_the_router_has_the_next_hop_if_that_of_the_session_has_none() {
        use Usability::Preferred;
        let mut entries = vec![
            (LO, "127.0.0.1/8", Preferred),
            (LO, "10.99.0.1/32", Preferred),
            (LO, "::1/128", Preferred),
            (ETH0, "fd00:9::1/64", Preferred),
            (ETH1, "fd00:7::1/64", Preferred),
        ];
        let route = Some(Route { interface: ETH0, via_gateway: true, source: None });
        let ends = Ends { route, ..ends("10.99.0.1") };
        assert_eq!(of(&entries).next_hops(&ends).v6, Some(ip("fd00:9::1")));
        entries.push((LO, "fd00:99::1/128", Preferred));
        assert_eq!(of(&entries).next_hops(&ends).v6, Some(ip("fd00:99::1")), "the interface of the session first");
    }

    #[test]
    fn link_local_address_is_looked_up_on_its_own_link() {
        let addresses = of(&[(ETH0, "fe80::1/64", Usability::Preferred), (ETH1, "10.9.0.1/24", Usability::Preferred)]);
        let on = |scope| SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 179, 0, scope));
        assert!(addresses.has_end(on(ETH0)) && addresses.has_end(on(0)));
        assert!(!addresses.has_end(on(ETH1)));
        assert!(!addresses.has_end(end("10.9.0.2")));
        assert_eq!(addresses.own_v4(end("10.9.0.1")), Some(Ipv4Addr::new(10, 9, 0, 1)));
        assert_eq!(addresses.own_v4(end("fe80::1")), None);
        let hops = addresses.next_hops(&ends("fe80::1"));
        assert_eq!(hops, NextHops { v4: None, v6: Some(ip("fe80::1")) });
    }

    #[test]
    fn loopback_and_link_local_addresses_are_on_link_and_unroutable_ones_are_not() {
        for near in ["127.0.0.2", "fe80::2"] {
            assert!(on_link(ip(near), None), "{near}");
        }
        assert!(!on_link(ip("0.0.0.1"), None), "no route");
    }
}
