//! The hardware addresses that members answer ARP and NDP requests with. An address claimed by one of them is not a
//! conflict with a foreign host: members settle it among themselves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use metallb_l2::interface::MacAddr;

use super::{Engine, Event};
use crate::wire::message::{HARDWARE_MAX, Message};

/// The hardware addresses of this node, and the member that they were last repeated to.
#[derive(Debug, Default)]
pub(super) struct OwnHardware {
    addresses: Vec<MacAddr>,
    repeated_to: Option<SocketAddr>,
}

impl Engine {
    /// Replaces the hardware addresses of this node and sends them to all members. Beyond [`HARDWARE_MAX`] they are not
    /// reported.
    pub(crate) fn set_hardware(&mut self, now: Instant, addresses: impl IntoIterator<Item = MacAddr>) {
        let distinct: BTreeSet<MacAddr> = addresses.into_iter().collect();
        let addresses: Vec<MacAddr> = distinct.into_iter().take(HARDWARE_MAX).collect();
        if addresses == self.hardware.addresses {
            return;
        }
        self.hardware.addresses = addresses;
        for address in self.member_addresses() {
            self.send_hardware(now, address);
        }
        self.recompute_live(now);
    }

    /// The hardware addresses that other members reported. Those of a dead member are included while it is remembered.
    pub(crate) fn hardware_of_others(&self) -> BTreeSet<MacAddr> {
        self.hosts.iter().flat_map(|host| host.hardware.iter().copied()).collect()
    }

    /// Repeats the report to one member after the other, in case it was lost. The cost does not grow with the number of
    /// members.
    pub(super) fn repeat_hardware(&mut self, now: Instant) {
        let members = self.member_addresses();
        let later = members.iter().filter(|address| self.hardware.repeated_to.is_none_or(|last| **address > last));
        let next = later.min().or_else(|| members.iter().min()).copied();
        self.hardware.repeated_to = next;
        if let Some(address) = next {
            self.send_hardware(now, address);
        }
    }

    pub(super) fn send_hardware(&mut self, now: Instant, to: SocketAddr) {
        if !self.hardware.addresses.is_empty() {
            let addresses = self.hardware.addresses.iter().map(|address| address.0).collect();
            self.send_to(now, to, Message::HardwareAddresses(addresses));
        }
    }

    pub(super) fn handle_hardware(&mut self, from: SocketAddr, addresses: Vec<[u8; 6]>) {
        let addresses: Vec<MacAddr> = addresses.into_iter().map(MacAddr).collect();
        if let Some(host) = self.hosts.get_mut(from).filter(|host| host.hardware != addresses) {
            host.hardware = addresses;
            self.events.push_back(Event::HardwareChanged);
        }
    }
}
