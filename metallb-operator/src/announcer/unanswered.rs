//! The addresses that this node is elected for and does not answer for, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use metallb_core::announcement::L2Announcement;
use metallb_core::model::{InterfaceName, ServiceKey};
use metallb_l2::interface::{ForeignAddress, Interface};

/// Why requests for an address are not answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Unanswered {
    /// A host, a router or a network uses the address.
    Foreign(ForeignAddress),
    /// This node has none of the interfaces that the L2Advertisements name, or no usable interface at all.
    NoInterface {
        /// The named interfaces; empty means all of the node.
        named: Vec<InterfaceName>,
        /// The usable interfaces of this node.
        usable: Vec<Arc<str>>,
    },
    /// The interfaces have no IPv6 link-local address, which is the source of neighbour advertisements (RFC 4861 §4.4).
    NoLinkLocal(Vec<Arc<str>>),
}

/// Finds the addresses of `l2` that are not answered on `interfaces`. An address of several Services is answered if it is
/// for one of them.
pub(super) fn unanswered(
    l2: &BTreeMap<ServiceKey, L2Announcement>,
    interfaces: &[Interface],
    foreign: BTreeMap<IpAddr, ForeignAddress>,
) -> BTreeMap<IpAddr, Unanswered> {
    let mut found: BTreeMap<IpAddr, Unanswered> = BTreeMap::new();
    let mut answered = BTreeSet::new();
    for announcement in l2.values() {
        let named = &announcement.interfaces;
        let in_scope = |interface: &&Interface| match named.is_empty() {
            true => !interface.only_by_name,
            false => named.iter().any(|name| name.as_str() == &*interface.name),
        };
        let scope: Vec<&Interface> = interfaces.iter().filter(in_scope).collect();
        let names = |interfaces: &mut dyn Iterator<Item = &Interface>| {
            interfaces.map(|interface| Arc::clone(&interface.name)).collect::<Vec<_>>()
        };
        for &ip in &announcement.ips {
            let reason = if scope.is_empty() {
                Unanswered::NoInterface { named: named.clone(), usable: names(&mut interfaces.iter()) }
            } else if ip.is_ipv6() && scope.iter().all(|interface| interface.link_local.is_none()) {
                Unanswered::NoLinkLocal(names(&mut scope.iter().copied()))
            } else {
                answered.insert(ip);
                continue;
            };
            found.insert(ip, reason);
        }
    }
    found.retain(|ip, _| !answered.contains(ip));
    found.extend(foreign.into_iter().map(|(ip, objection)| (ip, Unanswered::Foreign(objection))));
    found
}

impl Unanswered {
    /// All values of [`code`](Self::code).
    pub(super) const CODES: [&'static str; 6] =
        ["own_address", "another_node", "gateway", "broadcast_address", "no_interface", "no_link_local"];

    /// A stable name for metrics.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Foreign(ForeignAddress::AnotherNode) => "another_node",
            Self::Foreign(ForeignAddress::Gateway) => "gateway",
            Self::Foreign(ForeignAddress::BroadcastAddress(_)) => "broadcast_address",
            Self::Foreign(_) => "own_address",
            Self::NoInterface { .. } => "no_interface",
            Self::NoLinkLocal(_) => "no_link_local",
        }
    }

    /// Whether a decision about advertisements reports it already, as upstream does.
    pub(super) const fn is_reported_as_failed(&self) -> bool {
        matches!(self, Self::NoInterface { named, .. } if !named.is_empty())
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(objection) => objection.fmt(f),
            Self::NoInterface { named, .. } if named.is_empty() => {
                f.write_str("this node has no interface that is up, has carrier and is not excluded")
            }
            Self::NoInterface { named, usable } => write!(
                f,
                "its L2Advertisements name {}, and the usable interfaces of this node are {}: correct `interfaces`, or \
                 select other nodes with `nodeSelectors`",
                joined(named.iter().map(InterfaceName::as_str)),
                joined(usable.iter().map(AsRef::as_ref)),
            ),
            Self::NoLinkLocal(interfaces) => write!(
                f,
                "no IPv6 link-local address on {}, so neighbour solicitations are not answered: set \
                 net.ipv6.conf.*.disable_ipv6 to 0",
                joined(interfaces.iter().map(AsRef::as_ref))
            ),
        }
    }
}

/// At most five names.
fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    if names.len() > 5 {
        names.truncate(5);
        names.push("…");
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use metallb_l2::interface::MacAddr;

    use super::*;

    fn interface(name: &str, link_local: bool) -> Interface {
        let link_local = link_local.then(|| "fe80::1".parse().unwrap());
        Interface::new(2, name, MacAddr([2, 0, 0, 0, 0, 1]), link_local)
    }

    fn announcement(ips: &[&str], interfaces: &[&str]) -> L2Announcement {
        L2Announcement {
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            interfaces: interfaces.iter().map(|name| (*name).into()).collect(),
            failed: false,
        }
    }

    #[test]
    fn address_is_unanswered_without_interface_link_local_address_or_if_a_host_has_it() {
        let (eth0, bare) = (interface("eth0", true), interface("eth0", false));
        let mut vrf = interface("red0", true);
        vrf.only_by_name = true;
        for (what, interfaces, named, ip, expected) in [
            ("usual", vec![eth0.clone()], &[][..], "10.0.0.1", None),
            ("usual, IPv6", vec![eth0.clone()], &[], "fd00::1", None),
            ("named", vec![eth0.clone()], &["eth0"], "10.0.0.1", None),
            ("one of two named", vec![eth0.clone()], &["eth9", "eth0"], "10.0.0.1", None),
            ("other name", vec![eth0.clone()], &["eth9"], "10.0.0.1", Some("no_interface")),
            ("no interface", vec![], &[], "10.0.0.1", Some("no_interface")),
            ("VRF is not meant", vec![vrf.clone()], &[], "10.0.0.1", Some("no_interface")),
            ("VRF is named", vec![vrf.clone()], &["red0"], "10.0.0.1", None),
            ("IPv6 is off", vec![bare.clone()], &[], "fd00::1", Some("no_link_local")),
            ("IPv6 is off, IPv4", vec![bare.clone()], &[], "10.0.0.1", None),
            ("IPv6 is off on the named one", vec![bare, vrf], &["eth0"], "fd00::1", Some("no_link_local")),
        ] {
            let l2 = BTreeMap::from([(ServiceKey::new("default", "web"), announcement(&[ip], named))]);
            let found = unanswered(&l2, &interfaces, BTreeMap::new());
            assert_eq!(found.get(&ip.parse().unwrap()).map(Unanswered::code), expected, "{what}");
            let foreign = BTreeMap::from([(ip.parse().unwrap(), ForeignAddress::Gateway)]);
            let found = unanswered(&l2, &interfaces, foreign);
            assert_eq!(found.values().map(Unanswered::code).collect::<Vec<_>>(), ["gateway"], "{what}");
        }
    }

    #[test]
    fn shared_address_is_answered_if_one_of_its_services_has_an_interface() {
        let ips = &["10.0.0.1"][..];
        let l2 = BTreeMap::from([
            (ServiceKey::new("default", "a"), announcement(ips, &["eth9"])),
            (ServiceKey::new("default", "b"), announcement(ips, &["eth0"])),
            (ServiceKey::new("default", "c"), announcement(ips, &["eth8"])),
        ]);
        assert_eq!(unanswered(&l2, &[interface("eth0", true)], BTreeMap::new()), BTreeMap::new());
    }

    #[test]
    fn reason_names_the_interfaces_and_the_remedy() {
        let no_interface = Unanswered::NoInterface { named: vec!["eth9".into()], usable: vec!["eth0".into()] };
        let text = no_interface.to_string();
        assert!(text.contains("name eth9") && text.contains("are eth0") && text.contains("`interfaces`"), "{text}");
        assert!(Unanswered::NoLinkLocal(vec!["eth0".into()]).to_string().contains("disable_ipv6"));
    }
}
