//! The holders of addresses and their ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hashbrown::HashTable;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::occupancy::{Occupancy, Occupant};
use super::request::hash;
use super::{AllocateError, Allocation, Request, SharingMismatch};
use crate::model::{ServiceKey, ServicePort};

/// Maps Services to addresses and addresses to Services. Both maps lead to a slot, so that each holder is stored once.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    holders: Slab<Allocation>,
    by_service: HashTable<Indexed>,
    occupants: Occupancy,
    /// The holders of each address that has several.
    crowds: FxHashMap<IpAddr, Crowd>,
}

/// The slot of a holder, and half of the hash of its key: it rules out nearly all other holders without reading their
/// keys, and places the entry when the table grows.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    hash: u32,
    slot: u32,
}

#[derive(Clone, Debug, Default)]
struct Crowd {
    services: BTreeSet<ServiceKey>,
    ports: BTreeMap<ServicePort, ServiceKey>,
}

/// The reason why a Service cannot get an address.
enum Conflict<'a> {
    Key,
    Port(ServicePort, &'a ServiceKey),
}

impl Ledger {
    /// The allocation of a Service.
    pub(super) fn holding(&self, service: &ServiceKey) -> Option<&Allocation> {
        self.find(hash(service), service)
    }

    /// The allocation of the requesting Service.
    pub(super) fn held_by(&self, request: &Request) -> Option<&Allocation> {
        self.find(request.hash(), &request.service)
    }

    /// All allocations, in no particular order.
    pub(super) fn into_holdings(self) -> impl Iterator<Item = Allocation> {
        self.holders.into_iter().map(|(_, allocation)| allocation)
    }

    pub(super) fn is_occupied(&self, ip: IpAddr) -> bool {
        self.occupants.of(ip) != Occupant::Nobody
    }

    /// The holders of an address, in key order.
    pub(super) fn holders_of(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        let (one, many) = match self.occupants.of(ip) {
            Occupant::Nobody => (None, None),
            Occupant::One(slot) => (self.holders.get(slot as usize), None),
            Occupant::Many => (None, self.crowds.get(&ip)),
        };
        let one = one.map(|allocation| &allocation.request.service);
        one.into_iter().chain(many.into_iter().flat_map(|crowd| &crowd.services))
    }

    /// Stores the allocation of a Service that has none. Reports for each address whether it had no holder.
    pub(super) fn enter(&mut self, allocation: Allocation, mut first_holder: impl FnMut(bool)) -> &Allocation {
        let vacant = self.holders.vacant_key();
        // There are never 2^32 Services.
        let slot = vacant as u32;
        for &ip in &allocation.ips {
            let before = self.occupants.set(ip, Occupant::One(slot));
            first_holder(before == Occupant::Nobody);
            if before != Occupant::Nobody {
                self.join(ip, before, &allocation.request);
            }
        }
        let indexed = Indexed { hash: half(allocation.request.hash()), slot };
        self.by_service.insert_unique(spread(indexed.hash), indexed, |indexed| spread(indexed.hash));
        self.holders.vacant_entry().insert(allocation)
    }

    /// Removes the allocation of a Service.
    pub(super) fn strike(&mut self, hash: u64, service: &ServiceKey) -> Option<Allocation> {
        let (hash, holders) = (half(hash), &self.holders);
        let is_it = |indexed: &Indexed| indexed.hash == hash && is_of(holders, indexed.slot, service);
        let (found, _) = self.by_service.find_entry(spread(hash), is_it).ok()?.remove();
        let allocation = self.holders.try_remove(found.slot as usize)?;
        for &ip in &allocation.ips {
            match self.occupants.of(ip) {
                Occupant::Nobody => {}
                Occupant::One(_) => self.occupants.clear(ip),
                Occupant::Many => self.part(ip, service),
            }
        }
        Some(allocation)
    }

    /// Whether a Service may hold an address together with those that hold it already.
    pub(super) fn admits(&self, request: &Request, ip: IpAddr) -> bool {
        self.conflict(request, ip).is_none()
    }

    /// The holders of an address whose sharing key or ports exclude the requesting Service, in key order.
    pub(super) fn rivals<'a>(&'a self, request: &'a Request, ip: IpAddr) -> impl Iterator<Item = &'a ServiceKey> {
        self.holders_of(ip).filter(move |&holder| {
            let Some(held) = self.holding(holder) else { return false };
            let shares_port = || request.ports.iter().any(|port| held.request.ports.contains(port));
            *holder != request.service && (!held.request.key.admits(&request.key) || shares_port())
        })
    }

    /// Like [`admits`](Self::admits), with the reason as an error.
    pub(super) fn check(&self, request: &Request, ip: IpAddr) -> Result<(), AllocateError> {
        match self.conflict(request, ip) {
            None => Ok(()),
            Some(Conflict::Port(port, holder)) => Err(AllocateError::PortInUse { ip, port, holder: holder.clone() }),
            Some(Conflict::Key) => {
                let holders = self.holders_of(ip).filter(|&holder| *holder != request.service).cloned().collect();
                let held = |holder: &ServiceKey| self.holding(holder).map(|held| &held.request.key);
                let other = self.holders_of(ip).filter(|&holder| *holder != request.service).find_map(held);
                let mismatch = SharingMismatch::between(&request.key, other.unwrap_or(&request.key));
                Err(AllocateError::InUse { service: request.service.clone(), ip, holders, mismatch })
            }
        }
    }

    fn conflict(&self, request: &Request, ip: IpAddr) -> Option<Conflict<'_>> {
        match self.occupants.of(ip) {
            Occupant::Nobody => None,
            Occupant::One(slot) => {
                let held = &self.holders.get(slot as usize)?.request;
                if held.service == request.service {
                    return None;
                }
                if !held.key.admits(&request.key) {
                    return Some(Conflict::Key);
                }
                let port = request.ports.iter().find(|port| held.ports.contains(port))?;
                Some(Conflict::Port(*port, &held.service))
            }
            Occupant::Many => {
                let crowd = self.crowds.get(&ip)?;
                // All holders of one address have the same key, so that one of them suffices.
                let other = crowd.services.iter().find(|&holder| *holder != request.service)?;
                if !self.holding(other)?.request.key.admits(&request.key) {
                    return Some(Conflict::Key);
                }
                request.ports.iter().find_map(|port| {
                    let holder = crowd.ports.get(port).filter(|&holder| *holder != request.service)?;
                    Some(Conflict::Port(*port, holder))
                })
            }
        }
    }

    /// Adds a Service to an address that others hold; `before` is its occupant so far.
    fn join(&mut self, ip: IpAddr, before: Occupant, request: &Request) {
        self.occupants.set(ip, Occupant::Many);
        let crowd = self.crowds.entry(ip).or_default();
        if let Occupant::One(slot) = before
            && let Some(first) = self.holders.get(slot as usize)
        {
            crowd.add(&first.request);
        }
        crowd.add(request);
    }

    /// Removes a Service from an address that others hold too.
    fn part(&mut self, ip: IpAddr, service: &ServiceKey) {
        let Some(crowd) = self.crowds.get_mut(&ip) else { return };
        crowd.services.remove(service);
        crowd.ports.retain(|_, holder| holder != service);
        if crowd.services.is_empty() {
            self.crowds.remove(&ip);
            self.occupants.clear(ip);
        }
    }

    fn find(&self, hash: u64, service: &ServiceKey) -> Option<&Allocation> {
        let hash = half(hash);
        let is_it = |indexed: &Indexed| indexed.hash == hash && is_of(&self.holders, indexed.slot, service);
        let found = self.by_service.find(spread(hash), is_it)?;
        self.holders.get(found.slot as usize)
    }
}

impl Crowd {
    fn add(&mut self, request: &Request) {
        self.services.insert(request.service.clone());
        self.ports.extend(request.ports.iter().map(|&port| (port, request.service.clone())));
    }
}

fn is_of(holders: &Slab<Allocation>, slot: u32, service: &ServiceKey) -> bool {
    holders.get(slot as usize).is_some_and(|held| held.request.service == *service)
}

const fn half(hash: u64) -> u32 {
    (hash ^ hash >> 32) as u32
}

/// The table uses the bits at both ends of a 64-bit hash.
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::allocator::{Addresses, FamilyDemand};
    use crate::model::Service;

    #[test]
    fn holders_whose_hashes_agree_are_told_apart_by_their_names() {
        let mut seen: HashMap<u32, ServiceKey> = HashMap::new();
        let pair = (0_u32..).find_map(|number| {
            let key = ServiceKey::new("test", &format!("s{number}"));
            let other = seen.insert(half(hash(&key)), key.clone())?;
            Some([other, key])
        });
        let pair = pair.unwrap();
        let enter = |ledger: &mut Ledger, last: u8| {
            let request = Request::new(&Service::load_balancer(pair[usize::from(last)].clone()), FamilyDemand::V4);
            let ips = Addresses::one([10, 0, 0, last].into());
            ledger.enter(Allocation { pool: "p".into(), ips, request }, |first| assert!(first));
        };
        for struck in [0_u8, 1] {
            let mut ledger = Ledger::default();
            enter(&mut ledger, struck);
            let stays = usize::from(1 - struck);
            assert!(ledger.holding(&pair[stays]).is_none());
            assert!(ledger.strike(hash(&pair[stays]), &pair[stays]).is_none(), "the other one holds nothing yet");
            enter(&mut ledger, 1 - struck);
            for (last, key) in [0, 1].into_iter().zip(&pair) {
                assert_eq!(ledger.holding(key).unwrap().ips, [IpAddr::from([10, 0, 0, last])]);
            }
            let gone = &pair[usize::from(struck)];
            assert_eq!(ledger.strike(hash(gone), gone).unwrap().ips, [IpAddr::from([10, 0, 0, struck])]);
            assert!(ledger.strike(hash(gone), gone).is_none());
            assert_eq!(ledger.holding(&pair[stays]).unwrap().request.service, pair[stays]);
        }
    }
}
