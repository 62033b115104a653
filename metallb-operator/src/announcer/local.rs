//! Addresses of this node that speak for or against announcing an address from it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use metallb_bgp::ipnet::IpNet;
use metallb_core::announcement::L2Announcement;
use metallb_core::model::ServiceKey;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::obstacles::ObstacleKind;

/// An address of this node with the prefix of its link, and the interface.
pub(super) type OwnAddress = (String, IpNet);

/// A finding about an address, as text.
pub(super) type Findings = BTreeMap<IpAddr, (ObstacleKind, String)>;

/// The addresses of this node on interfaces where other hosts can ask for them.
pub(super) fn own_addresses() -> Vec<OwnAddress> {
    let internal = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP;
    let Ok(listed) = getifaddrs() else { return Vec::new() };
    let own = |entry: nix::ifaddrs::InterfaceAddress| {
        if entry.flags.intersects(internal) {
            return None;
        }
        let (address, mask) = (entry.address?, entry.netmask?);
        let net = match (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
            (Some(ip), Some(mask)) => IpNet::with_netmask(ip.ip().into(), mask.ip().into()).ok()?,
            _ => {
                let (ip, mask) = (address.as_sockaddr_in6()?.ip(), mask.as_sockaddr_in6()?.ip());
                IpNet::with_netmask(ip.into(), mask.into()).ok()?
            }
        };
        Some((entry.interface_name, net))
    };
    listed.filter_map(own).collect()
}

/// Announced addresses in no subnet of this node, and addresses of Services that an interface of this node has while
/// another node announces them. `services` are all addresses on L2, `l2` those of this node.
pub(super) fn findings(
    l2: &BTreeMap<ServiceKey, L2Announcement>,
    services: impl Iterator<Item = IpAddr>,
    own: &[OwnAddress],
) -> Findings {
    let mut found = Findings::new();
    let announced: std::collections::BTreeSet<IpAddr> =
        l2.values().flat_map(|announcement| announcement.ips.iter().copied()).collect();
    for ip in services.filter(|ip| !announced.contains(ip)) {
        if let Some((interface, _)) = own.iter().find(|(_, net)| net.addr() == ip) {
            let text = format!(
                "{interface} of this node has {ip}, so its kernel answers beside the node that announces it: remove the \
                 address from the interface"
            );
            found.insert(ip, (ObstacleKind::OnInterface, text));
        }
    }
    for announcement in l2.values() {
        let named = &announcement.interfaces;
        let in_scope = |interface: &str| named.is_empty() || named.iter().any(|name| name.as_str() == interface);
        for &ip in &announcement.ips {
            let is_of_family = |net: &IpNet| net.addr().is_ipv4() == ip.is_ipv4() && !is_link_local(net.addr());
            let nets: Vec<&OwnAddress> =
                own.iter().filter(|(interface, net)| in_scope(interface) && is_of_family(net)).collect();
            if nets.is_empty() || nets.iter().any(|(_, net)| net.contains(&ip)) {
                continue;
            }
            let shown = nets.iter().take(3).map(|(interface, net)| format!("{net} on {interface}"));
            let text = format!(
                "{ip} is in no subnet of this node ({}), so hosts of its own subnet may not reach it: select nodes of that \
                 subnet with `nodeSelectors`, unless routers send its traffic here",
                shown.collect::<Vec<_>>().join(", ")
            );
            found.insert(ip, (ObstacleKind::OtherSubnet, text));
        }
    }
    found
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_outside_of_all_subnets_or_on_an_interface_is_found() {
        use ObstacleKind::{OnInterface, OtherSubnet};
        let own = [("eth0", "10.8.0.1/24"), ("eth1", "10.9.0.1/24"), ("eth0", "fe80::1/64"), ("eth0", "10.9.0.50/32")];
        for (what, announced, interfaces, addresses, expected) in [
            ("in the subnet", true, &[][..], &own[..2], None),
            ("in another subnet", true, &[], &own[..1], Some(OtherSubnet)),
            ("in the subnet of another interface", true, &["eth0"], &own[..2], Some(OtherSubnet)),
            ("no address at all", true, &[], &own[2..3], None),
            ("not announced here", false, &[], &own[..1], None),
            ("on an interface", false, &[], &own, Some(OnInterface)),
            ("on an interface of the owner, which is refused", true, &[], &own, None),
        ] {
            let own: Vec<OwnAddress> =
                addresses.iter().map(|(name, net)| ((*name).to_owned(), net.parse().unwrap())).collect();
            let ip: IpAddr = "10.9.0.50".parse().unwrap();
            let announcement = L2Announcement {
                ips: vec![ip],
                interfaces: interfaces.iter().map(|name| (*name).into()).collect(),
                failed: false,
            };
            let l2 = BTreeMap::from([(ServiceKey::new("default", "web"), announcement)]);
            let l2 = if announced { l2 } else { BTreeMap::new() };
            let found = findings(&l2, [ip].into_iter(), &own);
            assert_eq!(found.get(&ip).map(|(kind, _)| *kind), expected, "{what}: {found:?}");
        }
    }
}
