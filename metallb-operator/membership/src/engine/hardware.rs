//! The hardware addresses that members answer with: that one of them claims an address is settled among members, and is no conflict
//! with another host.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use super::{Engine, Event};
use crate::wire::message::{HARDWARE_MAX, Hardware, Message};

/// What we say of ourselves, and to whom we said it last.
#[derive(Debug, Default)]
pub(super) struct OwnHardware {
    addresses: Vec<Hardware>,
    told: Option<SocketAddr>,
}

impl Engine {
    /// Replaces our own hardware addresses and tells all members at once. Of more than [`HARDWARE_MAX`] the rest stay unknown.
    pub fn set_hardware(&mut self, now: Instant, addresses: impl IntoIterator<Item = Hardware>) {
        let distinct: BTreeSet<Hardware> = addresses.into_iter().collect();
        let addresses: Vec<Hardware> = distinct.into_iter().take(HARDWARE_MAX).collect();
        if addresses == self.hardware.addresses {
            return;
        }
        self.hardware.addresses = addresses;
        for address in self.member_addresses() {
            self.tell_hardware(now, address);
        }
        self.settle(now);
    }

    /// The hardware addresses of the others, as they told them; those of a member that ended too, for as long as it is remembered.
    #[must_use]
    pub fn hardware_of_others(&self) -> BTreeSet<Hardware> {
        self.peers.iter().flat_map(|peer| peer.hardware.iter().copied()).collect()
    }

    /// Tells one member in turn, in case an earlier word was lost: its cost does not grow with the number of members.
    pub(super) fn repeat_hardware(&mut self, now: Instant) {
        let members = self.member_addresses();
        let later = members.iter().filter(|address| self.hardware.told.is_none_or(|told| **address > told));
        let next = later.min().or_else(|| members.iter().min()).copied();
        self.hardware.told = next;
        if let Some(address) = next {
            self.tell_hardware(now, address);
        }
    }

    pub(super) fn tell_hardware(&mut self, now: Instant, to: SocketAddr) {
        if !self.hardware.addresses.is_empty() {
            self.send_to(now, to, Message::Hardware(self.hardware.addresses.clone()));
        }
    }

    pub(super) fn hear_hardware(&mut self, from: SocketAddr, addresses: Vec<Hardware>) {
        if let Some(peer) = self.peers.get_mut(from).filter(|peer| peer.hardware != addresses) {
            peer.hardware = addresses;
            self.events.push_back(Event::HardwareChanged);
        }
    }
}
