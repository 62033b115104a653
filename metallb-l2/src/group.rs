//! Membership in solicited-node groups (RFC 4291 §2.7.1): without it, questions for our addresses do not reach us.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::interface::Interface;
use crate::vip::VipTable;
use crate::wire::ndp;

/// A solicited-node group to join or leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupChange {
    /// On which interface.
    pub interface: u32,
    /// The group.
    pub group: Ipv6Addr,
    /// Join, or leave.
    pub membership: Membership,
}

/// What to do about a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Membership {
    /// Become a member.
    Join,
    /// Be a member no more.
    Leave,
}

/// The groups that are joined, and the changes that nobody took yet.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    joined: BTreeSet<(u32, Ipv6Addr)>,
    changes: VecDeque<GroupChange>,
}

impl Groups {
    /// Brings the groups to what the addresses and interfaces demand. Addresses that share their last 24 bits share a group, which
    /// is left when the last of them goes. As it follows from the present facts alone, no count can be off by one.
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

    pub(crate) fn next_change(&mut self) -> Option<GroupChange> {
        self.changes.pop_front()
    }
}
