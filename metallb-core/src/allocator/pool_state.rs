//! The addresses of one pool, and the lookup of the pool of an address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::free_space::FreeSpace;
use super::place::{PerFamily, Place};
use super::sharing::SharingIndex;
use crate::config::Pool;
use crate::model::IpFamily;

/// A pool and its free addresses.
#[derive(Clone, Debug)]
pub(super) struct PoolState {
    pub(super) pool: Arc<Pool>,
    pub(super) capacity: PerFamily<i64>,
    /// Distinct addresses in use.
    pub(super) in_use: PerFamily<i64>,
    /// Services that hold one.
    pub(super) services: i64,
    pub(super) shared: SharingIndex,
    free: Vec<FreeSpace>,
    /// Prefixes with free addresses, in written order.
    open: PerFamily<BTreeSet<u32>>,
}

impl PoolState {
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        let mut open: PerFamily<BTreeSet<u32>> = PerFamily::default();
        let mut free = Vec::new();
        for (index, prefix) in (0..).zip(pool.prefixes()) {
            let space = FreeSpace::new(prefix, pool.avoid_buggy_ips);
            if !space.is_empty() {
                open.of_mut(IpFamily::of(prefix.addr())).insert(index);
            }
            free.push(space);
        }
        Self {
            pool: Arc::clone(pool),
            capacity: PerFamily { v4: pool.capacity(IpFamily::V4), v6: pool.capacity(IpFamily::V6) },
            in_use: PerFamily::default(),
            services: 0,
            shared: SharingIndex::default(),
            free,
            open,
        }
    }

    /// The first free address of a family.
    pub(super) fn first_free(&self, family: IpFamily) -> Option<Place> {
        let &index = self.open.of(family).first()?;
        Some(Place::new(index, self.free.get(index as usize)?.lowest()?))
    }

    /// Takes an address; one that is not free stays as it is.
    pub(super) fn take(&mut self, place: Place) {
        let Some(free) = self.free.get_mut(place.index as usize) else { return };
        if free.take(place.ip) && free.is_empty() {
            self.open.of_mut(IpFamily::of(place.ip)).remove(&place.index);
        }
    }

    /// Makes an address free again, unless the pool avoids it.
    pub(super) fn give_back(&mut self, place: Place) {
        let Some(free) = self.free.get_mut(place.index as usize) else { return };
        let was_empty = free.is_empty();
        free.give_back(place.ip);
        if was_empty && !free.is_empty() {
            self.open.of_mut(IpFamily::of(place.ip)).insert(place.index);
        }
    }
}

/// All prefixes of all pools. They are disjoint, so the last one that begins at or before an address is the only
/// candidate.
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixTable(Vec<PrefixOwner>);

#[derive(Clone, Debug)]
struct PrefixOwner {
    first: IpAddr,
    last: IpAddr,
    pool: usize,
    index: u32,
}

impl PrefixTable {
    pub(super) fn new(pools: &[PoolState]) -> Self {
        let prefixes = pools.iter().enumerate().flat_map(|(pool, state)| {
            (0..).zip(state.pool.prefixes()).map(move |(index, net)| PrefixOwner {
                first: net.network(),
                last: net.broadcast(),
                pool,
                index,
            })
        });
        let mut owners: Vec<PrefixOwner> = prefixes.collect();
        owners.sort_by_key(|owner| owner.first);
        Self(owners)
    }

    /// The position of the pool of an address, and the place of the address there.
    pub(super) fn find(&self, ip: IpAddr) -> Option<(usize, Place)> {
        let after = self.0.partition_point(|owner| owner.first <= ip);
        let owner = self.0.get(after.checked_sub(1)?).filter(|owner| ip <= owner.last)?;
        Some((owner.pool, Place::new(owner.index, ip)))
    }
}
