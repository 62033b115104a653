//! Which address belongs to whom (contract control-plane §3).
//!
//! The answer is always the lowest usable address of the first prefix, in written order, that has one. "Usable" is free, or held by
//! Services that the asker may share it with. Neither search depends on how large or how full a pool is: free addresses are
//! ordered intervals, and shared ones are indexed by sharing key.

mod free_space;
mod request;
mod selection;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use thiserror::Error;

use self::free_space::FreeSpace;
pub use self::request::{FamilyDemand, Request, SharingKey};
pub use self::selection::{PoolRefusal, PoolVerdict};
use crate::address::is_buggy;
use crate::config::Pool;
use crate::model::{IpFamily, PoolName, ServiceKey, ServicePort};

/// Who holds what, and what is left.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    pools: BTreeMap<PoolName, PoolState>,
    /// All prefixes of all pools by first address: they are disjoint, so the one before an address is the only candidate.
    prefixes: BTreeMap<IpAddr, PrefixOwner>,
    holders: FxHashMap<ServiceKey, Allocation>,
    occupied: FxHashMap<IpAddr, Occupant>,
    /// Addresses that Services of other load balancers hold: never handed out.
    blocked: FxHashMap<IpAddr, BTreeSet<ServiceKey>>,
}

/// What one Service holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allocation {
    /// The pool that all its addresses are from.
    pub pool: PoolName,
    /// One address, or one of each family, in the order of the status.
    pub ips: Vec<IpAddr>,
    /// The ports it uses on them.
    pub ports: Vec<ServicePort>,
    /// With whom it may share them.
    pub key: SharingKey,
}

/// Counters of one pool; addresses in use count once however many Services share them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PoolCounters {
    /// Distinct IPv4 addresses in use.
    pub assigned_v4: i64,
    /// Distinct IPv6 addresses in use.
    pub assigned_v6: i64,
    /// IPv4 addresses left; saturated capacity less those in use.
    pub available_v4: i64,
    /// IPv6 addresses left; saturated capacity less those in use.
    pub available_v6: i64,
    /// Services that hold an address.
    pub services: i64,
}

/// Why an address is not given.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AllocateError {
    /// No pool has what is needed.
    #[error("no available IPs")]
    Exhausted {
        /// Every pool that was looked at, in order, and why it was refused.
        verdicts: Vec<PoolVerdict>,
    },
    /// The pool that was asked for has nothing left.
    #[error("no available IPs in pool {pool}{}", demand_suffix(*.demand))]
    PoolExhausted {
        /// The pool.
        pool: PoolName,
        /// What was needed of it.
        demand: FamilyDemand,
    },
    /// There is no pool of this name.
    #[error("unknown pool \"{0}\"")]
    UnknownPool(String),
    /// No pool contains these addresses, or they are buggy ones of a pool that avoids them.
    #[error("{} is not allowed in config", quoted(.0))]
    NotAllowed(Vec<IpAddr>),
    /// The pool is not for this Service.
    #[error("pool {pool} not compatible for ip assignment")]
    NotCompatible {
        /// The pool.
        pool: PoolName,
        /// Why it is not.
        refusal: PoolRefusal,
    },
    /// Another Service holds the address and does not share it.
    #[error("can't change sharing key for \"{service}\", address also in use by {}", holders_text(.holders))]
    InUse {
        /// The asker.
        service: ServiceKey,
        /// The address.
        ip: IpAddr,
        /// Who holds it.
        holders: Vec<ServiceKey>,
    },
    /// Another Service uses the port on the address.
    #[error("port {port} is already in use on \"{ip}\"")]
    PortInUse {
        /// The address.
        ip: IpAddr,
        /// The port.
        port: ServicePort,
        /// Who uses it.
        holder: ServiceKey,
    },
    /// A Service of another load balancer class holds the address.
    #[error("\"{ip}\" is in use by {holder}, which belongs to another load balancer class")]
    Blocked {
        /// The address.
        ip: IpAddr,
        /// Who holds it.
        holder: ServiceKey,
    },
    /// Not one address, and not one of each family.
    #[error("{} can't be held together: one address, or one of each family", quoted(.0))]
    BadSet(Vec<IpAddr>),
}

#[derive(Clone, Debug)]
struct PoolState {
    pool: Arc<Pool>,
    prefixes: Vec<PrefixState>,
    /// Prefixes with something free, per family, by index: the first is the first in written order.
    open_v4: BTreeSet<usize>,
    open_v6: BTreeSet<usize>,
    /// Addresses that may be shared, by key, family and order of handing out.
    shared: BTreeSet<(SharingKey, IpFamily, usize, IpAddr)>,
    in_use_v4: i64,
    in_use_v6: i64,
    services: i64,
}

#[derive(Clone, Debug)]
struct PrefixState {
    net: IpNet,
    free: FreeSpace,
}

#[derive(Clone, Debug)]
struct PrefixOwner {
    net: IpNet,
    pool: PoolName,
    index: usize,
}

#[derive(Clone, Debug, Default)]
struct Occupant {
    key: SharingKey,
    services: BTreeSet<ServiceKey>,
    ports: BTreeMap<ServicePort, ServiceKey>,
}

// === impl Allocator ===

impl Allocator {
    /// No pools, no holders.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the pools. A holder whose addresses lie together in one of the new pools keeps them, whatever that pool is
    /// called; the others lose them and are returned.
    pub fn set_pools<'a>(&mut self, pools: impl IntoIterator<Item = &'a Arc<Pool>>) -> Vec<ServiceKey> {
        self.pools = pools.into_iter().map(|pool| (pool.name.clone(), PoolState::new(pool))).collect();
        self.prefixes.clear();
        for state in self.pools.values() {
            for (index, prefix) in state.prefixes.iter().enumerate() {
                let owner = PrefixOwner { net: prefix.net, pool: state.pool.name.clone(), index };
                self.prefixes.insert(prefix.net.network(), owner);
            }
        }
        self.occupied.clear();
        for ip in self.blocked.keys().copied().collect::<Vec<_>>() {
            self.take_from_free(ip);
        }
        let mut lost = Vec::new();
        for (service, allocation) in std::mem::take(&mut self.holders) {
            match self.common_pool(&allocation.ips) {
                Some(pool) => self.commit(service, Allocation { pool, ..allocation }),
                None => lost.push(service),
            }
        }
        lost.sort();
        lost
    }

    /// What a Service holds.
    #[must_use]
    pub fn holding(&self, service: &ServiceKey) -> Option<&Allocation> {
        self.holders.get(service)
    }

    /// Who holds an address, in key order.
    pub fn holders_of(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.occupied.get(&ip).into_iter().flat_map(|occupant| &occupant.services)
    }

    /// The counters of a pool; `None` when there is no such pool.
    #[must_use]
    pub fn counters(&self, pool: &PoolName) -> Option<PoolCounters> {
        let state = self.pools.get(pool)?;
        Some(PoolCounters {
            assigned_v4: state.in_use_v4,
            assigned_v6: state.in_use_v6,
            available_v4: state.pool.capacity(IpFamily::V4).saturating_sub(state.in_use_v4),
            available_v6: state.pool.capacity(IpFamily::V6).saturating_sub(state.in_use_v6),
            services: state.services,
        })
    }

    /// Whether `ips` lie together in one pool, buggy addresses of pools that avoid them left out.
    #[must_use]
    pub fn is_configured(&self, ips: &[IpAddr]) -> bool {
        self.common_pool(ips).is_some()
    }

    /// Gives exactly `ips` to a Service, in place of what it held. On an error nothing changes.
    ///
    /// # Errors
    /// The checks of contract control-plane §3.5, in its order.
    pub fn assign(&mut self, request: &Request, ips: &[IpAddr]) -> Result<&Allocation, AllocateError> {
        if let Some((ip, holder)) = ips.iter().find_map(|&ip| Some((ip, self.blocker_of(ip)?.clone()))) {
            return Err(AllocateError::Blocked { ip, holder });
        }
        self.reclaim(request, ips)
    }

    /// Like [`assign`](Self::assign), for a Service whose status says that it holds `ips`: what it holds together with a Service
    /// of another load balancer class it keeps.
    ///
    /// # Errors
    /// As `assign`, but never [`AllocateError::Blocked`].
    pub fn reclaim(&mut self, request: &Request, ips: &[IpAddr]) -> Result<&Allocation, AllocateError> {
        let pool = self.common_pool(ips).ok_or_else(|| AllocateError::NotAllowed(ips.to_vec()))?;
        if let Some(refusal) = self.pools.get(&pool).and_then(|state| selection::incompatibility(&state.pool, request)) {
            return Err(AllocateError::NotCompatible { pool, refusal });
        }
        match ips {
            [_] => {}
            [a, b] if IpFamily::of(*a) != IpFamily::of(*b) => {}
            _ => return Err(AllocateError::BadSet(ips.to_vec())),
        }
        for &ip in ips {
            self.check_usable(request, ip)?;
        }
        Ok(self.replace(request, pool, ips.to_vec()))
    }

    /// Gives a Service addresses from the pool that it asks for, `autoAssign` or not.
    ///
    /// # Errors
    /// The pool is unknown, not for this Service, or has nothing left.
    pub fn allocate_from(&mut self, request: &Request, pool: &str) -> Result<&Allocation, AllocateError> {
        let state = self.pools.get(pool).ok_or_else(|| AllocateError::UnknownPool(pool.to_owned()))?;
        let pool = state.pool.name.clone();
        if let Some(refusal) = selection::incompatibility(&state.pool, request) {
            return Err(AllocateError::NotCompatible { pool, refusal });
        }
        let found = self.find_in(state, request).map_err(|_| AllocateError::PoolExhausted {
            pool: pool.clone(),
            demand: request.demand,
        })?;
        Ok(self.replace(request, pool, found))
    }

    /// Gives a Service addresses from whatever pool serves it best.
    ///
    /// # Errors
    /// No pool has what is needed; the error says why of each.
    pub fn allocate(&mut self, request: &Request) -> Result<&Allocation, AllocateError> {
        let (pool, ips) = self.select(request).map_err(|verdicts| AllocateError::Exhausted { verdicts })?;
        Ok(self.replace(request, pool, ips))
    }

    /// The address of the family that a Service lacks, from the pool that it has its address from, in addition to that one.
    ///
    /// # Errors
    /// The pool has no usable address of that family.
    pub fn add_family(&mut self, request: &Request) -> Result<&Allocation, AllocateError> {
        let Some(Allocation { pool, ips, .. }) = self.holders.get(&request.service).cloned() else {
            return Err(AllocateError::NotAllowed(Vec::new()));
        };
        let missing = match ips[..] {
            [IpAddr::V4(_)] => IpFamily::V6,
            [IpAddr::V6(_)] => IpFamily::V4,
            _ => return Err(AllocateError::BadSet(ips)),
        };
        let found = self.pools.get(&pool).and_then(|state| self.lowest_usable(state, missing, request));
        let Some(found) = found else {
            let demand = if missing == IpFamily::V4 { FamilyDemand::V4 } else { FamilyDemand::V6 };
            return Err(AllocateError::PoolExhausted { pool, demand });
        };
        let ips = [ips[0], found].to_vec();
        Ok(self.replace(request, pool, ips))
    }

    /// Takes back what a Service holds, and returns it.
    pub fn release(&mut self, service: &ServiceKey) -> Option<Allocation> {
        let allocation = self.holders.remove(service)?;
        if let Some(state) = self.pools.get_mut(&allocation.pool) {
            state.services -= 1;
        }
        for &ip in &allocation.ips {
            self.vacate(service, ip);
        }
        Some(allocation)
    }

    /// Notes that a Service of another load balancer class holds exactly `ips`; an empty list forgets it. True when an address
    /// became free.
    pub fn block(&mut self, service: &ServiceKey, ips: &[IpAddr]) -> bool {
        if self.blocked.is_empty() && ips.is_empty() {
            return false;
        }
        let mut freed = Vec::new();
        self.blocked.retain(|&ip, services| {
            if services.remove(service) && services.is_empty() {
                freed.push(ip);
            }
            !services.is_empty()
        });
        for &ip in ips {
            self.blocked.entry(ip).or_default().insert(service.clone());
            self.take_from_free(ip);
        }
        let mut any = false;
        for ip in freed {
            if !self.blocked.contains_key(&ip) && !self.occupied.contains_key(&ip) {
                self.give_back_to_free(ip);
                any = true;
            }
        }
        any
    }

    /// Whether a Service of another load balancer class holds an address.
    #[must_use]
    pub fn blocker_of(&self, ip: IpAddr) -> Option<&ServiceKey> {
        self.blocked.get(&ip).and_then(BTreeSet::first)
    }

    /// The pools, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values().map(|state| &state.pool)
    }

    /// Refuses an address that is held by Services which do not share it with the asker (contract §3.6).
    fn check_usable(&self, request: &Request, ip: IpAddr) -> Result<(), AllocateError> {
        let Some(occupant) = self.occupied.get(&ip) else { return Ok(()) };
        let others = || occupant.services.iter().filter(|&service| *service != request.service);
        if !occupant.key.admits(&request.key) && others().next().is_some() {
            let holders = others().cloned().collect();
            return Err(AllocateError::InUse { service: request.service.clone(), ip, holders });
        }
        for port in &request.ports {
            if let Some(holder) = occupant.ports.get(port).filter(|&holder| *holder != request.service) {
                return Err(AllocateError::PortInUse { ip, port: *port, holder: holder.clone() });
            }
        }
        Ok(())
    }

    /// The lowest usable address of a family in a pool: the earlier of the first free and the first that can be shared.
    fn lowest_usable(&self, state: &PoolState, family: IpFamily, request: &Request) -> Option<IpAddr> {
        let free = state.open(family).first().and_then(|&index| Some((index, state.prefixes.get(index)?.free.lowest()?)));
        let shared = (!request.key.sharing.is_empty()).then(|| {
            let lowest = match family {
                IpFamily::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
                IpFamily::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            };
            state
                .shared
                .range((request.key.clone(), family, 0, lowest)..)
                .take_while(|(key, of, ..)| *key == request.key && *of == family)
                .map(|&(_, _, index, ip)| (index, ip))
                .find(|&(_, ip)| self.blocker_of(ip).is_none() && self.check_usable(request, ip).is_ok())
        });
        match (free, shared.flatten()) {
            (Some(free), Some(shared)) => Some(free.min(shared).1),
            (free, shared) => free.or(shared).map(|(_, ip)| ip),
        }
    }

    fn replace(&mut self, request: &Request, pool: PoolName, ips: Vec<IpAddr>) -> &Allocation {
        self.release(&request.service);
        let allocation = Allocation { pool, ips, ports: request.ports.clone(), key: request.key.clone() };
        self.commit(request.service.clone(), allocation.clone());
        self.holders.entry(request.service.clone()).or_insert(allocation)
    }

    fn commit(&mut self, service: ServiceKey, allocation: Allocation) {
        for &ip in &allocation.ips {
            self.take_from_free(ip);
            let occupant = self.occupied.entry(ip).or_default();
            let fresh = occupant.services.is_empty();
            let old_key = std::mem::replace(&mut occupant.key, allocation.key.clone());
            occupant.services.insert(service.clone());
            occupant.ports.extend(allocation.ports.iter().map(|&port| (port, service.clone())));
            let Some(PrefixOwner { pool, index, .. }) = owner_of(&self.prefixes, ip) else { continue };
            let Some(state) = self.pools.get_mut(pool) else { continue };
            let family = IpFamily::of(ip);
            if fresh {
                *state.in_use(family) += 1;
            } else {
                state.shared.remove(&(old_key, family, *index, ip));
            }
            if !allocation.key.sharing.is_empty() {
                state.shared.insert((allocation.key.clone(), family, *index, ip));
            }
        }
        if let Some(state) = self.pools.get_mut(&allocation.pool) {
            state.services += 1;
        }
        self.holders.insert(service, allocation);
    }

    fn vacate(&mut self, service: &ServiceKey, ip: IpAddr) {
        let Some(occupant) = self.occupied.get_mut(&ip) else { return };
        occupant.services.remove(service);
        occupant.ports.retain(|_, holder| holder != service);
        if !occupant.services.is_empty() {
            return;
        }
        let key = std::mem::take(&mut occupant.key);
        self.occupied.remove(&ip);
        if let Some(PrefixOwner { pool, index, .. }) = owner_of(&self.prefixes, ip)
            && let Some(state) = self.pools.get_mut(pool)
        {
            let family = IpFamily::of(ip);
            state.shared.remove(&(key, family, *index, ip));
            *state.in_use(family) -= 1;
        }
        if !self.blocked.contains_key(&ip) {
            self.give_back_to_free(ip);
        }
    }

    fn take_from_free(&mut self, ip: IpAddr) {
        let Some(PrefixOwner { pool, index, .. }) = owner_of(&self.prefixes, ip) else { return };
        let Some(state) = self.pools.get_mut(pool) else { return };
        let Some(prefix) = state.prefixes.get_mut(*index) else { return };
        if prefix.free.take(ip) && prefix.free.is_empty() {
            state.open_mut(IpFamily::of(ip)).remove(index);
        }
    }

    fn give_back_to_free(&mut self, ip: IpAddr) {
        let Some(PrefixOwner { pool, index, .. }) = owner_of(&self.prefixes, ip) else { return };
        let Some(state) = self.pools.get_mut(pool) else { return };
        let Some(prefix) = state.prefixes.get_mut(*index) else { return };
        prefix.free.give_back(ip);
        if !prefix.free.is_empty() {
            state.open_mut(IpFamily::of(ip)).insert(*index);
        }
    }

    fn common_pool(&self, ips: &[IpAddr]) -> Option<PoolName> {
        let mut pools = ips.iter().map(|&ip| owner_of(&self.prefixes, ip).map(|owner| &owner.pool));
        let first = pools.next()??;
        let avoids = self.pools.get(first)?.pool.avoid_buggy_ips;
        let together = pools.all(|pool| pool == Some(first));
        (together && !(avoids && ips.iter().any(|&ip| is_buggy(ip)))).then(|| first.clone())
    }
}

// === impl PoolState ===

impl PoolState {
    fn new(pool: &Arc<Pool>) -> Self {
        let prefixes: Vec<PrefixState> = pool
            .prefixes()
            .map(|net| PrefixState { net: *net, free: FreeSpace::new(net, pool.avoid_buggy_ips) })
            .collect();
        let open = |family| {
            let open = |(_, prefix): &(usize, &PrefixState)| {
                IpFamily::of(prefix.net.addr()) == family && !prefix.free.is_empty()
            };
            prefixes.iter().enumerate().filter(open).map(|(index, _)| index).collect()
        };
        Self {
            pool: Arc::clone(pool),
            open_v4: open(IpFamily::V4),
            open_v6: open(IpFamily::V6),
            prefixes,
            shared: BTreeSet::new(),
            in_use_v4: 0,
            in_use_v6: 0,
            services: 0,
        }
    }

    fn open(&self, family: IpFamily) -> &BTreeSet<usize> {
        match family {
            IpFamily::V4 => &self.open_v4,
            IpFamily::V6 => &self.open_v6,
        }
    }

    fn open_mut(&mut self, family: IpFamily) -> &mut BTreeSet<usize> {
        match family {
            IpFamily::V4 => &mut self.open_v4,
            IpFamily::V6 => &mut self.open_v6,
        }
    }

    fn in_use(&mut self, family: IpFamily) -> &mut i64 {
        match family {
            IpFamily::V4 => &mut self.in_use_v4,
            IpFamily::V6 => &mut self.in_use_v6,
        }
    }
}

fn owner_of(prefixes: &BTreeMap<IpAddr, PrefixOwner>, ip: IpAddr) -> Option<&PrefixOwner> {
    prefixes.range(..=ip).next_back().map(|(_, owner)| owner).filter(|owner| owner.net.contains(&ip))
}

/// A list of addresses as upstream prints it: `["1.2.3.0" "1000::"]`.
#[must_use]
pub fn quoted(ips: &[IpAddr]) -> String {
    let texts: Vec<String> = ips.iter().map(|ip| format!("\"{ip}\"")).collect();
    format!("[{}]", texts.join(" "))
}

fn holders_text(holders: &[ServiceKey]) -> String {
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn demand_suffix(demand: FamilyDemand) -> &'static str {
    match demand {
        FamilyDemand::Both | FamilyDemand::PreferBoth { .. } => " for dual IPFamily",
        FamilyDemand::V4 => " for ipv4 IPFamily",
        FamilyDemand::V6 => " for ipv6 IPFamily",
    }
}
