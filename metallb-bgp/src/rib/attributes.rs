//! Attribute sets, each stored and encoded once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::types::{Attributes, Family};
use crate::wire::template::{Encoding, Template};

/// Identifies a set of attributes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SetId(pub(super) u32);

/// The sets in use.
#[derive(Clone, Debug, Default)]
pub(super) struct AttributeSets {
    slots: Vec<Option<Slot>>,
    free: Vec<SetId>,
    by_value: BTreeMap<Arc<Attributes>, SetId>,
    /// The set that was interned last: routes with equal attributes usually follow each other.
    last: Option<SetId>,
    withdraw: [Option<Template>; 2],
    /// Number of sets after the last sweep.
    kept: usize,
    /// Every set is encoded as that of a speaker that is about to leave.
    draining: bool,
}

#[derive(Clone, Debug)]
struct Slot {
    attributes: Arc<Attributes>,
    announce: [Option<Template>; 2],
}

/// Encodes sets for one family of one session.
pub(super) struct Templates<'a> {
    sets: &'a mut AttributeSets,
    encoding: &'a Encoding,
    family: Family,
    next_hop: IpAddr,
}

impl AttributeSets {
    pub(super) fn intern(&mut self, attributes: &Arc<Attributes>) -> SetId {
        let is_last = |id: &SetId| {
            let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
            slot.is_some_and(|slot| Arc::ptr_eq(&slot.attributes, attributes))
        };
        if let Some(id) = self.last.filter(is_last) {
            return id;
        }
        let id = self.by_value.get(attributes).copied().unwrap_or_else(|| self.insert(attributes));
        self.last = Some(id);
        id
    }

    /// Discards the encoded templates, because the next session may encode differently.
    pub(super) fn forget_templates(&mut self) {
        self.withdraw = [None, None];
        for slot in self.slots.iter_mut().flatten() {
            slot.announce = [None, None];
        }
    }

    /// Returns whether it changed, so that all routes must be advertised again.
    pub(super) fn set_draining(&mut self, draining: bool) -> bool {
        let changed = self.draining != draining;
        self.draining = draining;
        if changed {
            self.forget_templates();
        }
        changed
    }

    pub(super) const fn templates<'a>(
        &'a mut self,
        encoding: &'a Encoding,
        family: Family,
        next_hop: IpAddr,
    ) -> Templates<'a> {
        Templates { sets: self, encoding, family, next_hop }
    }

    /// Whether there are enough sets that a sweep is worth its cost.
    pub(super) fn needs_sweep(&self) -> bool {
        self.by_value.len() > 2 * self.kept + 16
    }

    /// Drops the sets that are not in `used`.
    pub(super) fn sweep(&mut self, used: impl Iterator<Item = SetId>) {
        let mut alive = vec![false; self.slots.len()];
        for id in used {
            alive[id.0 as usize] = true;
        }
        for (index, alive) in (0..).zip(alive) {
            let removed = if alive { None } else { self.slots[index as usize].take() };
            if let Some(slot) = removed {
                self.by_value.remove(&slot.attributes);
                self.free.push(SetId(index));
            }
        }
        self.kept = self.by_value.len();
    }

    fn insert(&mut self, attributes: &Arc<Attributes>) -> SetId {
        let slot = Some(Slot { attributes: Arc::clone(attributes), announce: [None, None] });
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id.0 as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                // A cluster has far fewer than 2³² sets.
                SetId((self.slots.len() - 1) as u32)
            }
        };
        self.by_value.insert(Arc::clone(attributes), id);
        id
    }
}

impl Templates<'_> {
    pub(super) fn withdraw(&mut self) -> &Template {
        let multiprotocol = self.next_hop.is_ipv6();
        let family = self.family;
        self.sets.withdraw[slot(family)].get_or_insert_with(|| Template::withdraw(family, multiprotocol))
    }

    /// `None` if the set does not exist.
    pub(super) fn announce(&mut self, id: SetId) -> Option<&Template> {
        let draining = self.sets.draining;
        let Slot { attributes, announce } = self.sets.slots.get_mut(id.0 as usize)?.as_mut()?;
        let build = || match draining {
            true => Template::announce(self.encoding, &attributes.draining(), self.next_hop, self.family),
            false => Template::announce(self.encoding, attributes, self.next_hop, self.family),
        };
        Some(announce[slot(self.family)].get_or_insert_with(build))
    }
}

const fn slot(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}
