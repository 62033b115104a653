//! Membership in solicited-node groups (RFC 4291 §2.7.1), which solicitations for announced addresses are sent to.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::interface::Interface;
use crate::vip::{VipId, VipTable};
use crate::wire::ndp;

/// A solicited-node group to join or leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct GroupChange {
    /// The index of the interface.
    pub interface: u32,
    /// The group.
    pub group: Ipv6Addr,
    /// Whether to join or leave it.
    pub membership: Membership,
}

/// A change of membership in a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Membership {
    /// Join the group.
    Join,
    /// Leave the group.
    Leave,
}

/// The joined groups, and the changes that the driver has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    joined: BTreeSet<(u32, Ipv6Addr)>,
    changes: VecDeque<GroupChange>,
}

impl Groups {
    /// Recomputes the groups from the addresses and interfaces. Addresses with the same last 24 bits share a group,
    /// which is left with the last of them. Recomputing from scratch needs no reference counts.
    pub(crate) fn update<'a>(&mut self, vips: &VipTable, interfaces: impl Iterator<Item = &'a Interface> + Clone) {
        let able = interfaces.filter(|interface| interface.link_local.is_some());
        let mut wanted = BTreeSet::new();
        for (_, vip) in vips.iter() {
            if let IpAddr::V6(v6) = vip.ip {
                let group = ndp::solicited_node(v6);
                wanted.extend(able.clone().filter(|i| vip.is_on(i.index)).map(|i| (i.index, group)));
            }
        }
        let change =
            |membership| move |&(interface, group): &(u32, Ipv6Addr)| GroupChange { interface, group, membership };
        self.changes.extend(self.joined.difference(&wanted).map(change(Membership::Leave)));
        self.changes.extend(wanted.difference(&self.joined).map(change(Membership::Join)));
        self.joined = wanted;
    }

    /// Recomputes the group of one address.
    pub(crate) fn update_one<'a>(
        &mut self,
        vips: &VipTable,
        id: VipId,
        interfaces: impl Iterator<Item = &'a Interface>,
    ) {
        let IpAddr::V6(v6) = vips.vip(id).ip else { return };
        let group = ndp::solicited_node(v6);
        for Interface { index: interface, .. } in interfaces.filter(|interface| interface.link_local.is_some()) {
            let interface = *interface;
            let is_wanted = vips.of_group(group).any(|vip| vip.is_on(interface));
            let membership = match is_wanted {
                true if self.joined.insert((interface, group)) => Membership::Join,
                false if self.joined.remove(&(interface, group)) => Membership::Leave,
                _ => continue,
            };
            self.changes.push_back(GroupChange { interface, group, membership });
        }
    }

    pub(crate) fn next_change(&mut self) -> Option<GroupChange> {
        self.changes.pop_front()
    }
}
