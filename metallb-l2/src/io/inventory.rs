//! Which interfaces may be announced on, as the kernel says now (contract speaker §1.5).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv6Addr;
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::interface::{Interface, MacAddr};

/// Says whether an interface may be used at all, by name.
pub type InterfaceFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Lists the interfaces that are up, have carrier, do ARP or NDP, and are no port of a bridge, bond or VRF; those that `filter`
/// refuses are left out.
///
/// # Errors
/// The kernel cannot be asked.
pub fn list(filter: &InterfaceFilter) -> std::io::Result<Vec<Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    let unproven = fs::read_to_string(IPV6_ADDRESSES).map(|table| unproven_addresses(&table)).unwrap_or_default();
    for address in getifaddrs()? {
        let name = address.interface_name;
        if !filter(&name) || !usable(&name, address.flags) {
            continue;
        }
        let entry = found.entry(name.clone()).or_insert_with(|| Interface {
            index: 0,
            name: name.as_str().into(),
            mac: MacAddr([0; 6]),
            arp: address.flags.contains(InterfaceFlags::IFF_BROADCAST),
            link_local: None,
        });
        let Some(storage) = address.address else { continue };
        if let Some(link) = storage.as_link_addr() {
            entry.index = u32::try_from(link.ifindex()).unwrap_or(0);
            entry.mac = MacAddr(link.addr().unwrap_or_default());
        } else if let Some(v6) = storage.as_sockaddr_in6() {
            let ip: Ipv6Addr = v6.ip();
            let proven = !unproven.contains(&(name.clone(), ip));
            if ip.is_unicast_link_local() && entry.link_local.is_none() && proven {
                entry.link_local = Some(ip);
            }
        }
    }
    // Without a hardware address there is nothing to answer with.
    Ok(found.into_values().filter(|interface| interface.index != 0 && interface.mac != MacAddr([0; 6])).collect())
}

fn usable(name: &str, flags: InterfaceFlags) -> bool {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    flags.contains(wanted)
        && !flags.intersects(InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP)
        && fs::symlink_metadata(format!("/sys/class/net/{name}/master")).is_err()
}

/// Addresses that may not be used as a source yet, or ever: their duplicate address detection goes on or failed (RFC 4862 §5.4).
/// When it ends the kernel tells, and the interfaces are listed again.
fn unproven_addresses(table: &str) -> BTreeSet<(String, Ipv6Addr)> {
    let parse = |line: &str| {
        let [address, _index, _prefix_len, _scope, flags, name] =
            line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let address = u128::from_str_radix(address, 16).ok()?;
        (flags & (TENTATIVE | DAD_FAILED) != 0).then(|| (String::from(name), Ipv6Addr::from_bits(address)))
    };
    table.lines().filter_map(parse).collect()
}

/// The kernel's table of IPv6 addresses with their flags, which `getifaddrs` leaves out; that of the network namespace of this very
/// thread. Without it all count as usable.
const IPV6_ADDRESSES: &str = "/proc/thread-self/net/if_inet6";
/// `IFA_F_TENTATIVE`, `IFA_F_DADFAILED` of `linux/if_addr.h`.
const TENTATIVE: u32 = 0x40;
const DAD_FAILED: u32 = 0x08;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tentative_and_failed_addresses_are_told_from_usable_ones() {
        let table = "\
            fe800000000000000000000000000001 02 40 20 80     eth0\n\
            fe800000000000000000000000000002 03 40 20 c0     eth1\n\
            fe800000000000000000000000000003 04 40 20 88     eth2\n\
            nonsense\n";
        let unproven: Vec<(String, Ipv6Addr)> = unproven_addresses(table).into_iter().collect();
        let expected = [("eth1", "fe80::2"), ("eth2", "fe80::3")];
        assert_eq!(unproven, expected.map(|(name, ip)| (name.to_owned(), ip.parse().unwrap())));
    }

    #[test]
    fn loopback_is_never_listed() {
        let all: InterfaceFilter = Arc::new(|_| true);
        assert!(list(&all).unwrap().iter().all(|interface| &*interface.name != "lo" && interface.index != 0));
    }
}
