//! Which interfaces may be announced on, as the kernel says now (contract speaker §1.5).

use std::collections::BTreeMap;
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
            if ip.is_unicast_link_local() && entry.link_local.is_none() {
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
