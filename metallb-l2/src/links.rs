//! The network devices of a host, kept in step by changes; says which of them may be announced on (contract speaker §1.5).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::foreign::ForeignAddresses;
use crate::interface::{Interface, MacAddr};

/// Says whether a device may be used at all, by name.
pub type InterfaceFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A device as the kernel describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Link {
    /// The kernel's number.
    pub(crate) index: u32,
    /// The name.
    pub(crate) name: Arc<str>,
    /// Its hardware address, if it is one of Ethernet.
    pub(crate) mac: Option<MacAddr>,
    /// Up, and able to carry frames: its cable is in, and what it stands on runs too.
    pub(crate) running: bool,
    /// It can broadcast.
    pub(crate) broadcast: bool,
    /// It uses_arp addresses: neither the loopback device nor one that says it does no ARP.
    pub(crate) uses_arp: bool,
    /// What it is a part of.
    pub(crate) controller: Controller,
}

/// What a device is a part of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Controller {
    /// Nothing.
    #[default]
    Nothing,
    /// A bridge, a bond or the like: frames go through that device, which answers in its stead.
    Device,
    /// A VRF, which divides routes and not frames: it answers for itself, though in another network than the rest.
    Vrf,
}

/// Something that the kernel told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// A device is there, or is different.
    Link(Link),
    /// A device is gone.
    LinkGone(u32),
    /// A device has a link-local address. It cannot be a source while duplicate address detection goes on, or when that has failed
    /// (RFC 4862 §5.4).
    LinkLocal {
        /// Which device.
        index: u32,
        /// The address.
        ip: Ipv6Addr,
        /// Whether it may be used.
        usable: bool,
    },
    /// A device has a link-local address no more.
    LinkLocalGone {
        /// Which device.
        index: u32,
        /// The address.
        ip: Ipv6Addr,
    },
    /// A device has an address that is not link-local, in a network whose addresses begin with the same `prefix` bits.
    Address {
        /// Which device.
        index: u32,
        /// The address.
        ip: IpAddr,
        /// The bits.
        prefix: u8,
    },
    /// A device has such an address no more.
    AddressGone {
        /// Which device.
        index: u32,
        /// The address.
        ip: IpAddr,
        /// The bits.
        prefix: u8,
    },
    /// A default route came, went or is different.
    DefaultRoutes,
}

/// The devices. Its size is that of the host's own tables.
pub(crate) struct Links {
    filter: InterfaceFilter,
    /// With the filter's word, asked once per name.
    links: BTreeMap<u32, (Link, bool)>,
    link_local: BTreeMap<u32, BTreeMap<Ipv6Addr, bool>>,
    addresses: BTreeMap<u32, BTreeSet<(IpAddr, u8)>>,
}

impl Links {
    /// No devices yet; what `filter` refuses will never be usable.
    #[must_use]
    pub(crate) const fn new(filter: InterfaceFilter) -> Self {
        Self { filter, links: BTreeMap::new(), link_local: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    /// Takes in a change. Says whether an interface that may be announced on came, went or is different.
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

    /// Forgets everything and takes in `changes`, a whole description of the host.
    pub(crate) fn replace(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.links.clear();
        self.link_local.clear();
        self.addresses.clear();
        for change in changes {
            self.apply(change);
        }
    }

    /// The interfaces that may be announced on.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = Interface> {
        self.links.keys().filter_map(|&index| self.interface(index))
    }

    /// What the addresses of this host rule out: those of devices where others ask for them. The loopback device and those of the
    /// kind have addresses for inner use, be it the ones that are announced.
    #[must_use]
    pub(crate) fn foreign(&self) -> ForeignAddresses {
        let mut foreign = ForeignAddresses::new();
        for (index, addresses) in &self.addresses {
            let Some((link, _)) = self.links.get(index).filter(|(link, _)| link.uses_arp) else { continue };
            addresses.iter().for_each(|&(ip, prefix)| foreign.add_interface_address(&link.name, ip, prefix));
        }
        foreign
    }

    /// The interface in use that has an address, when it says of `other` that it is on the same link.
    #[must_use]
    pub(crate) fn interface_to(&self, ip: IpAddr, other: IpAddr) -> Option<Interface> {
        let shared = |&(own, prefix): &(IpAddr, u8)| own == ip && on_link(own, prefix, other);
        let mut holders = self.addresses.iter().filter(|(_, addresses)| addresses.iter().any(shared));
        holders.find_map(|(&index, _)| self.interface(index))
    }

    /// A device that has an address for inner use, as kube-proxy gives those of Services to one of its own where it works with IPVS.
    #[must_use]
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

/// Whether another address begins with the same `prefix` bits.
fn on_link(ip: IpAddr, prefix: u8, other: IpAddr) -> bool {
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
            controller: Controller::Nothing,
        }
    }

    fn links() -> Links {
        Links::new(Arc::new(|name| !name.starts_with("veth")))
    }

    fn names(links: &Links) -> Vec<String> {
        links.interfaces().map(|interface| interface.name.to_string()).collect()
    }

    #[test]
    fn only_devices_that_run_resolve_and_stand_for_themselves_are_used() {
        let rows: [(&str, fn(&mut Link), bool); 8] = [
            ("as it is", |_| {}, true),
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
    fn each_kind_of_event_changes_what_is_used_and_repeating_it_does_not() {
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
            ("and back", with(|_| {}), true),
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
    fn link_local_address_counts_once_it_is_proven_and_as_long_as_it_is_there() {
        let mut links = links();
        let ip: Ipv6Addr = "fe80::1".parse().unwrap();
        // The order in which the kernel tells of device and address does not matter.
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
        assert_eq!(found(&links), None, "a device of the same number is another one");
    }

    #[test]
    fn addresses_are_ruled_out_while_a_device_that_resolves_has_them_and_else_are_for_inner_use() {
        let mut links = links();
        let ip: IpAddr = "192.168.10.5".parse().unwrap();
        let has = |index, ip| Change::Address { index, ip, prefix: 24 };
        assert!(!links.apply(has(2, ip)), "no interface is different");
        assert_eq!(
            (links.foreign(), links.internal_device(ip)),
            (ForeignAddresses::new(), None),
            "nothing is known of the device"
        );
        links.apply(Change::Link(eth0()));
        let mut expected = ForeignAddresses::new();
        expected.add_interface_address(&"eth0".into(), ip, 24);
        assert_eq!((links.foreign(), links.internal_device(ip)), (expected.clone(), None));
        let inner: IpAddr = "192.168.10.77".parse().unwrap();
        links.apply(Change::Link(Link { index: 3, name: "kube-ipvs0".into(), uses_arp: false, ..eth0() }));
        links.apply(has(3, inner));
        assert_eq!((links.foreign(), links.internal_device(inner)), (expected, Some("kube-ipvs0".into())));
        links.apply(Change::AddressGone { index: 3, ip: inner, prefix: 24 });
        assert_eq!(links.internal_device(inner), None);
        links.apply(Change::LinkGone(2));
        links.apply(Change::Link(eth0()));
        assert_eq!(links.foreign(), ForeignAddresses::new(), "a device of the same number is another one");
    }

    #[test]
    fn whole_description_replaces_what_was_known() {
        let mut links = links();
        links.apply(Change::Link(eth0()));
        links.replace([Change::Link(Link { index: 3, name: "eth1".into(), ..eth0() })]);
        assert_eq!(names(&links), ["eth1"]);
    }

    #[test]
    fn host_is_on_the_link_of_an_address_that_begins_like_its_own() {
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
            // Its interface is excluded.
            ("10.3.0.5", "10.3.0.6", false),
        ];
        for (ip, other, expected) in rows {
            let found = links.interface_to(ip.parse().unwrap(), other.parse().unwrap());
            assert_eq!(found.map(|interface| interface.index), expected.then_some(2), "{ip} and {other}");
        }
    }
}
