//! The table of network devices, kept up to date by netlink changes, and the rule which of them are used.
//!
//! The rule follows upstream MetalLB, see `docs/upstream-behaviour.md#l2-interfaces`, except that a member of a VRF may
//! be used if an advertisement names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::foreign::ForeignAddresses;
use crate::interface::{Interface, MacAddr};

/// Decides by name whether an interface may be used.
pub type InterfaceFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A device as the kernel describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Link {
    /// The interface index.
    pub(crate) index: u32,
    /// The name.
    pub(crate) name: Arc<str>,
    /// The hardware address, if it is an Ethernet address.
    pub(crate) mac: Option<MacAddr>,
    /// Whether it is up and has carrier (`IFF_UP` and `IFF_RUNNING`).
    pub(crate) running: bool,
    /// Whether it can broadcast (`IFF_BROADCAST`).
    pub(crate) broadcast: bool,
    /// Whether it resolves neighbours: neither `IFF_LOOPBACK` nor `IFF_NOARP` is set.
    pub(crate) uses_arp: bool,
    /// The kind of device that controls it.
    pub(crate) controller: Controller,
}

/// The kind of device that controls another one (`IFLA_MASTER`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Controller {
    /// None.
    #[default]
    None,
    /// A bridge, bond or team: it receives the frames of its ports and answers for them.
    Device,
    /// A VRF: it separates routes, not frames, so its member answers for itself but belongs to another network.
    Vrf,
}

/// A change reported by the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// A device was added or changed.
    Link(Link),
    /// A device was removed.
    LinkGone(u32),
    /// A device has an IPv6 link-local address. It is not usable as a source while duplicate address detection is in
    /// progress or after it has failed (RFC 4862 §5.4).
    LinkLocal {
        /// The index of the device.
        index: u32,
        /// The address.
        ip: Ipv6Addr,
        /// Whether it may be used as a source.
        usable: bool,
    },
    /// A device lost a link-local address.
    LinkLocalGone {
        /// The index of the device.
        index: u32,
        /// The address.
        ip: Ipv6Addr,
    },
    /// A device has an address that is not IPv6 link-local, in a network of `prefix` bits.
    Address {
        /// The index of the device.
        index: u32,
        /// The address.
        ip: IpAddr,
        /// The length of the network prefix in bits.
        prefix: u8,
    },
    /// A device lost such an address.
    AddressGone {
        /// The index of the device.
        index: u32,
        /// The address.
        ip: IpAddr,
        /// The length of the network prefix in bits.
        prefix: u8,
    },
    /// A default route was added, changed or removed.
    DefaultRoutes,
}

/// The table of devices and their addresses.
pub(crate) struct Links {
    filter: InterfaceFilter,
    /// Each device with the decision of the filter, which is asked once per name.
    links: BTreeMap<u32, (Link, bool)>,
    link_local: BTreeMap<u32, BTreeMap<Ipv6Addr, bool>>,
    addresses: BTreeMap<u32, BTreeSet<(IpAddr, u8)>>,
}

impl Links {
    /// An empty table. Devices that `filter` refuses are never used.
    pub(crate) const fn new(filter: InterfaceFilter) -> Self {
        Self { filter, links: BTreeMap::new(), link_local: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    /// Applies a change. Returns whether it added, changed or removed a usable interface.
    pub(crate) fn apply(&mut self, change: Change) -> bool {
        let index = match &change {
            Change::Link(Link { index, .. })
            | Change::LinkGone(index)
            | Change::LinkLocal { index, .. }
            | Change::LinkLocalGone { index, .. }
            | Change::Address { index, .. }
            | Change::AddressGone { index, .. } => *index,
            Change::DefaultRoutes => return false,
        };
        let before = self.interface(index);
        match change {
            Change::Link(link) => {
                let known = self.links.get(&index).filter(|(known, _)| known.name == link.name);
                let allowed = known.map_or_else(|| (self.filter)(&link.name), |(_, allowed)| *allowed);
                self.links.insert(index, (link, allowed));
            }
            Change::LinkGone(_) => {
                self.links.remove(&index);
                self.link_local.remove(&index);
                self.addresses.remove(&index);
            }
            Change::LinkLocal { ip, usable, .. } => {
                self.link_local.entry(index).or_default().insert(ip, usable);
            }
            Change::LinkLocalGone { ip, .. } => {
                if let Some(addresses) = self.link_local.get_mut(&index) {
                    addresses.remove(&ip);
                }
            }
            Change::Address { ip, prefix, .. } => drop(self.addresses.entry(index).or_default().insert((ip, prefix))),
            Change::AddressGone { ip, prefix, .. } => {
                if let Some(addresses) = self.addresses.get_mut(&index) {
                    addresses.remove(&(ip, prefix));
                }
            }
            Change::DefaultRoutes => {}
        }
        before != self.interface(index)
    }

    /// Replaces the whole table by `changes`, a complete description of the host.
    pub(crate) fn replace(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.links.clear();
        self.link_local.clear();
        self.addresses.clear();
        for change in changes {
            self.apply(change);
        }
    }

    /// The usable interfaces.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = Interface> {
        self.links.keys().filter_map(|&index| self.interface(index))
    }

    /// The addresses of this host, on devices where other hosts can ask for them. Addresses on devices without ARP are
    /// internal, and may even be the announced ones.
    pub(crate) fn foreign_addresses(&self) -> ForeignAddresses {
        let mut foreign = ForeignAddresses::new();
        for (index, addresses) in &self.addresses {
            let Some((link, _)) = self.links.get(index).filter(|(link, _)| link.uses_arp) else { continue };
            addresses.iter().for_each(|&(ip, prefix)| foreign.add_interface_address(&link.name, ip, prefix));
        }
        foreign
    }

    /// The usable interface that has the address `ip` in a network that contains `other`.
    pub(crate) fn interface_to(&self, ip: IpAddr, other: IpAddr) -> Option<Interface> {
        let shared = |&(own, prefix): &(IpAddr, u8)| own == ip && same_network(own, prefix, other);
        let mut holders = self.addresses.iter().filter(|(_, addresses)| addresses.iter().any(shared));
        holders.find_map(|(&index, _)| self.interface(index))
    }

    /// The device without ARP that has an address. In IPVS mode kube-proxy adds the addresses of Services to such a
    /// device.
    pub(crate) fn internal_device(&self, ip: IpAddr) -> Option<Arc<str>> {
        let has = |addresses: &BTreeSet<_>| addresses.range((ip, 0)..=(ip, u8::MAX)).next().is_some();
        let mut holders = self.addresses.iter().filter(|(_, addresses)| has(addresses));
        holders.find_map(|(index, _)| {
            let (link, _) = self.links.get(index)?;
            (!link.uses_arp).then(|| Arc::clone(&link.name))
        })
    }

    fn interface(&self, index: u32) -> Option<Interface> {
        let (link, allowed) = self.links.get(&index)?;
        let usable = *allowed && link.running && link.uses_arp && link.controller != Controller::Device;
        let addresses = self.link_local.get(&index).into_iter().flatten();
        Some(Interface {
            index,
            name: Arc::clone(&link.name),
            mac: link.mac.filter(|_| usable)?,
            arp: link.broadcast,
            link_local: addresses.filter(|(_, usable)| **usable).map(|(ip, _)| *ip).next(),
            only_by_name: link.controller == Controller::Vrf,
        })
    }
}

/// Whether two addresses have their first `prefix` bits in common.
fn same_network(ip: IpAddr, prefix: u8, other: IpAddr) -> bool {
    let differs = match (ip, other) {
        (IpAddr::V4(ip), IpAddr::V4(other)) => (ip.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(ip), IpAddr::V6(other)) => (ip.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    differs >= u32::from(prefix)
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("links", &self.links)
            .field("link_local", &self.link_local)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0() -> Link {
        Link {
            index: 2,
            name: "eth0".into(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            running: true,
            broadcast: true,
            uses_arp: true,
            controller: Controller::None,
        }
    }

    fn links() -> Links {
        Links::new(Arc::new(|name| !name.starts_with("veth")))
    }

    fn names(links: &Links) -> Vec<String> {
        links.interfaces().map(|interface| interface.name.to_string()).collect()
    }

    #[test]
    fn only_running_devices_with_arp_and_without_bridge_or_bond_are_used() {
        let rows: [(&str, fn(&mut Link), bool); 8] = [
            ("unchanged", |_| {}, true),
            ("down, or without carrier", |link| link.running = false, false),
            ("loopback, or without ARP", |link| link.uses_arp = false, false),
            ("without hardware address", |link| link.mac = None, false),
            ("port of a bridge or bond", |link| link.controller = Controller::Device, false),
            ("member of a VRF", |link| link.controller = Controller::Vrf, true),
            ("excluded", |link| link.name = "veth0".into(), false),
            ("point to point", |link| link.broadcast = false, true),
        ];
        for (what, change, used) in rows {
            let mut link = eth0();
            change(&mut link);
            let mut links = links();
            assert_eq!(links.apply(Change::Link(link.clone())), used, "{what}");
            let found: Vec<Interface> = links.interfaces().collect();
            assert_eq!(found.len(), usize::from(used), "{what}");
            let same = |interface: &Interface| {
                interface.arp == link.broadcast && interface.only_by_name == (link.controller == Controller::Vrf)
            };
            assert!(found.iter().all(same), "{what}");
        }
    }

    #[test]
    fn each_kind_of_change_affects_usable_interfaces_once() {
        let mut links = links();
        let with = |change: fn(&mut Link)| {
            let mut link = eth0();
            change(&mut link);
            Change::Link(link)
        };
        let steps = [
            ("added, still down", with(|link| link.running = false), false),
            ("up", with(|_| {}), true),
            ("renamed", with(|link| link.name = "lan0".into()), true),
            ("renamed to an excluded name", with(|link| link.name = "veth0".into()), true),
            ("renamed back", with(|_| {}), true),
            ("another hardware address", with(|link| link.mac = Some(MacAddr([2, 0, 0, 0, 0, 7]))), true),
            ("carrier lost", with(|link| link.running = false), true),
            ("carrier back", with(|_| {}), true),
            ("taken into a bridge", with(|link| link.controller = Controller::Device), true),
            ("released", with(|_| {}), true),
            ("removed", Change::LinkGone(2), true),
        ];
        for (what, change, matters) in steps {
            assert_eq!(links.apply(change.clone()), matters, "{what}");
            assert!(!links.apply(change), "{what}, again");
        }
        assert_eq!(names(&links), [""; 0]);
    }

    #[test]
    fn link_local_address_is_used_while_it_exists_and_is_usable() {
        let mut links = links();
        let ip: Ipv6Addr = "fe80::1".parse().unwrap();
        // The kernel may report the device and its address in any order.
        assert!(!links.apply(Change::LinkLocal { index: 2, ip, usable: false }));
        links.apply(Change::Link(eth0()));
        let found = |links: &Links| links.interfaces().next().unwrap().link_local;
        assert_eq!(found(&links), None);
        assert!(links.apply(Change::LinkLocal { index: 2, ip, usable: true }));
        assert_eq!(found(&links), Some(ip));
        assert!(!links.apply(Change::LinkLocal { index: 2, ip: "fe80::2".parse().unwrap(), usable: true }));
        assert_eq!(found(&links), Some(ip), "the source stays the same");
        assert!(links.apply(Change::LinkLocalGone { index: 2, ip }));
        assert_eq!(found(&links), Some("fe80::2".parse().unwrap()));
        links.apply(Change::LinkGone(2));
        links.apply(Change::Link(eth0()));
        assert_eq!(found(&links), None, "a reused index belongs to another device");
    }

    #[test]
    fn addresses_of_devices_with_arp_are_foreign_and_others_are_internal() {
        let mut links = links();
        let ip: IpAddr = "192.168.10.5".parse().unwrap();
        let has = |index, ip| Change::Address { index, ip, prefix: 24 };
        assert!(!links.apply(has(2, ip)), "no interface changed");
        assert_eq!(
            (links.foreign_addresses(), links.internal_device(ip)),
            (ForeignAddresses::new(), None),
            "the device is unknown"
        );
        links.apply(Change::Link(eth0()));
        let mut expected = ForeignAddresses::new();
        expected.add_interface_address(&"eth0".into(), ip, 24);
        assert_eq!((links.foreign_addresses(), links.internal_device(ip)), (expected.clone(), None));
        let inner: IpAddr = "192.168.10.77".parse().unwrap();
        links.apply(Change::Link(Link { index: 3, name: "kube-ipvs0".into(), uses_arp: false, ..eth0() }));
        links.apply(has(3, inner));
        assert_eq!((links.foreign_addresses(), links.internal_device(inner)), (expected, Some("kube-ipvs0".into())));
        links.apply(Change::AddressGone { index: 3, ip: inner, prefix: 24 });
        assert_eq!(links.internal_device(inner), None);
        links.apply(Change::LinkGone(2));
        links.apply(Change::Link(eth0()));
        assert_eq!(links.foreign_addresses(), ForeignAddresses::new(), "a reused index belongs to another device");
    }

    #[test]
    fn complete_description_replaces_the_table() {
        let mut links = links();
        links.apply(Change::Link(eth0()));
        links.replace([Change::Link(Link { index: 3, name: "eth1".into(), ..eth0() })]);
        assert_eq!(names(&links), ["eth1"]);
    }

    #[test]
    fn interface_is_found_for_a_host_in_the_network_of_its_address() {
        let mut links = links();
        links.apply(Change::Link(eth0()));
        links.apply(Change::Link(Link { index: 3, name: "veth0".into(), ..eth0() }));
        for (index, address, prefix) in
            [(2, "10.0.0.5", 24), (2, "fd00::5", 64), (2, "10.9.0.5", 32), (3, "10.3.0.5", 24)]
        {
            links.apply(Change::Address { index, ip: address.parse().unwrap(), prefix });
        }
        let rows = [
            ("10.0.0.5", "10.0.0.255", true),
            ("10.0.0.5", "10.0.1.5", false),
            ("10.0.0.6", "10.0.0.7", false),
            ("10.9.0.5", "10.9.0.6", false),
            ("fd00::5", "fd00::ffff:0:0:1", true),
            ("fd00::5", "fd00:0:0:1::5", false),
            ("10.0.0.5", "fd00::5", false),
            // The interface is excluded by the filter.
            ("10.3.0.5", "10.3.0.6", false),
        ];
        for (ip, other, expected) in rows {
            let found = links.interface_to(ip.parse().unwrap(), other.parse().unwrap());
            assert_eq!(found.map(|interface| interface.index), expected.then_some(2), "{ip} and {other}");
        }
    }
}
