//! Which address belongs to whom (contract control-plane §3).
//!
//! The answer is always the lowest usable address of the first prefix, in written order, that has one. "Usable" is free, or held by
//! Services that the asker may share it with. Neither search depends on how large or how full a pool is: free addresses are
//! ordered intervals, and shared ones are indexed by sharing key.
//!
//! ```
//! use std::net::IpAddr;
//! use metallb_core::allocator::{Allocator, FamilyDemand, Request};
//! use metallb_core::config::Config;
//! use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources};
//! use metallb_core::model::{Cluster, Service, ServiceKey};
//!
//! let pool = PoolSpec {
//!     meta: ObjectMeta { namespace: "metallb-system".into(), name: "edge".into(), ..ObjectMeta::default() },
//!     addresses: vec!["192.0.2.0/24".into()],
//!     auto_assign: true,
//!     avoid_buggy_ips: false,
//!     service_allocation: None,
//! };
//! let config = Config::parse(&Resources { pools: vec![pool], ..Resources::default() }, &Cluster::default()).config;
//! let mut allocator = Allocator::new();
//! allocator.set_pools(config.pools.values());
//!
//! let web = Service::load_balancer(ServiceKey::new("default", "web"));
//! let held = allocator.allocate(&Request::new(&web, FamilyDemand::V4))?;
//! assert_eq!(held.ips, ["192.0.2.0".parse::<IpAddr>().unwrap()]);
//! # Ok::<(), metallb_core::allocator::AllocateError>(())
//! ```

mod addresses;
mod error;
mod free_space;
mod ledger;
mod occupancy;
mod place;
mod pool_state;
mod request;
mod selection;
mod sharing;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use self::addresses::Addresses;
pub use self::error::{AllocateError, NotAllowedCause, quoted};
use self::ledger::Ledger;
use self::place::Place;
use self::pool_state::{PoolState, PrefixTable};
pub use self::request::{FamilyDemand, Request, Terms};
use self::selection::{PoolOrder, incompatibility};
pub use self::selection::{PoolRefusal, PoolVerdict};
pub use self::sharing::{SharingKey, SharingMismatch};
use self::standing::Standing;
use crate::address::is_buggy;
use crate::config::Pool;
use crate::model::{IpFamily, NodeName, PoolName, ServiceKey};

/// Who holds what, and what is left.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    /// By name, so that a position is as good as a name and searching is bisection.
    pools: Vec<PoolState>,
    order: PoolOrder,
    prefixes: PrefixTable,
    ledger: Ledger,
    /// Addresses that Services of other load balancers hold: never handed out.
    blocked: FxHashMap<IpAddr, BTreeSet<ServiceKey>>,
    /// The same relation from the other side.
    blockers: FxHashMap<ServiceKey, Vec<IpAddr>>,
    /// Addresses that the API shows on Services, or may come to show: nobody else gets one that its Service does not hold.
    standing: Standing,
    /// Addresses that a host outside of the cluster uses, and its hardware address: never handed out.
    quarantined: BTreeMap<IpAddr, Arc<str>>,
    /// Addresses of nodes that must not be handed out.
    node_addresses: BTreeMap<IpAddr, NodeName>,
}

/// What one Service holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allocation {
    /// The pool that all its addresses are from.
    pub pool: PoolName,
    /// Its addresses, in the order of the status.
    pub ips: Addresses,
    /// What it asked for when it got them: its ports, and with whom it may share.
    pub request: Request,
}

/// Addresses that a Service could have now; nothing has been given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    /// The pool that all of them are from.
    pub pool: PoolName,
    /// One address, or one of each family.
    pub ips: Addresses,
}

/// Addresses that may be given, and where they lie.
#[derive(Clone, Copy, Debug)]
struct Grant {
    /// The position of their pool.
    pool: usize,
    ips: Addresses,
    /// The place of each; the second counts for nothing where there is one address.
    places: [Place; 2],
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

// === impl Allocator ===

impl Allocator {
    /// No pools, no holders.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the pools, which must not overlap. A holder whose addresses lie together in one of the new pools keeps them,
    /// whatever that pool is called; the others lose them and are returned, in key order.
    pub fn set_pools<'a>(&mut self, pools: impl IntoIterator<Item = &'a Arc<Pool>>) -> Vec<ServiceKey> {
        self.pools = pools.into_iter().map(PoolState::new).collect();
        self.pools.sort_by(|a, b| a.pool.name.cmp(&b.pool.name));
        self.order = PoolOrder::new(&self.pools);
        self.prefixes = PrefixTable::new(&self.pools);
        for &ip in self.blocked.keys().chain(self.quarantined.keys()).chain(self.node_addresses.keys()) {
            if let Some((pool, place)) = self.prefixes.find(ip) {
                self.pools[pool].take(place);
            }
        }
        for ip in self.standing.addresses() {
            if let Ok((pool, [place, _])) = self.locate(&[ip]) {
                self.pools[pool].take(place);
                *self.pools[pool].in_use.of_mut(IpFamily::of(ip)) += 1;
            }
        }
        let mut lost = Vec::new();
        for Allocation { ips, request, .. } in std::mem::take(&mut self.ledger).into_holdings() {
            match self.locate(&ips) {
                Ok((pool, places)) => {
                    self.enter(&request, Grant { pool, ips, places });
                }
                Err(_) => {
                    ips.iter().for_each(|&ip| self.standing.note_given_up(&request.service, ip));
                    lost.push(request.service.clone());
                }
            }
        }
        lost.sort();
        lost
    }

    /// The pools, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter().map(|state| &state.pool)
    }

    /// What a Service holds.
    #[must_use]
    pub fn holding(&self, service: &ServiceKey) -> Option<&Allocation> {
        self.ledger.holding(service)
    }

    /// Who holds an address, in key order.
    pub fn holders_of(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.ledger.holders_of(ip)
    }

    /// The counters of a pool; `None` when there is no such pool.
    #[must_use]
    pub fn counters(&self, pool: &PoolName) -> Option<PoolCounters> {
        let state = &self.pools[self.position(pool.as_str())?];
        Some(PoolCounters {
            assigned_v4: state.in_use.v4,
            assigned_v6: state.in_use.v6,
            available_v4: state.capacity.v4.saturating_sub(state.in_use.v4),
            available_v6: state.capacity.v6.saturating_sub(state.in_use.v6),
            services: state.services,
        })
    }

    /// The pool in which `ips` lie together, buggy addresses of pools that avoid them left out.
    #[must_use]
    pub fn pool_of(&self, ips: &[IpAddr]) -> Option<&Arc<Pool>> {
        self.locate(ips).ok().map(|(pool, _)| &self.pools[pool].pool)
    }

    /// Gives exactly `ips` to a Service, in place of what it held. On an error nothing changes.
    ///
    /// # Errors
    /// The checks of contract control-plane §3.5, in its order.
    pub fn assign(&mut self, request: &Request, ips: &[IpAddr]) -> Result<&Allocation, AllocateError> {
        self.offer_exactly(request, ips)?;
        self.reclaim(request, ips)
    }

    /// Like [`assign`](Self::assign), for a Service whose status says that it holds `ips`: what it holds together with a Service
    /// of another load balancer class it keeps.
    ///
    /// # Errors
    /// As `assign`, but never [`AllocateError::Blocked`], [`AllocateError::Quarantined`] or
    /// [`AllocateError::NodeAddress`].
    pub fn reclaim(&mut self, request: &Request, ips: &[IpAddr]) -> Result<&Allocation, AllocateError> {
        let grant = self.check(request, ips)?;
        Ok(self.replace(request, grant))
    }

    /// Gives a Service addresses from the pool that it asks for, `autoAssign` or not.
    ///
    /// # Errors
    /// The pool is unknown, not for this Service, or has nothing left.
    pub fn allocate_from(&mut self, request: &Request, pool: &str) -> Result<&Allocation, AllocateError> {
        let grant = self.find_from(request, pool)?;
        Ok(self.replace(request, grant))
    }

    /// Gives a Service addresses from whatever pool serves it best.
    ///
    /// # Errors
    /// No pool has what is needed; the error says why of each.
    pub fn allocate(&mut self, request: &Request) -> Result<&Allocation, AllocateError> {
        let grant = self.find_anywhere(request)?;
        Ok(self.replace(request, grant))
    }

    /// The address of the family that a Service lacks, from the pool that it has its address from, in addition to that one.
    ///
    /// # Errors
    /// The Service does not hold exactly one address, may not keep it with what it now asks for, or the pool has no usable address
    /// of the other family.
    pub fn add_family(&mut self, request: &Request) -> Result<&Allocation, AllocateError> {
        let grant = self.find_family(request)?;
        Ok(self.replace(request, grant))
    }

    /// What [`assign`](Self::assign) would do.
    ///
    /// # Errors
    /// Those of `assign`.
    pub fn offer_exactly(&self, request: &Request, ips: &[IpAddr]) -> Result<Offer, AllocateError> {
        if let Some((ip, holder)) = ips.iter().find_map(|&ip| Some((ip, self.blocker_of(ip)?.clone()))) {
            return Err(AllocateError::Blocked { ip, holder });
        }
        if let Some((ip, mac)) = self.quarantined_among(ips) {
            return Err(AllocateError::Quarantined { ip, mac: Arc::clone(mac) });
        }
        if let Some((ip, node)) = self.node_address_among(ips) {
            return Err(AllocateError::NodeAddress { ip, node: node.clone() });
        }
        if let Some((ip, holder)) = ips.iter().find_map(|&ip| Some((ip, self.leaver_of(request, ip)?.clone()))) {
            return Err(AllocateError::Releasing { ip, holder });
        }
        self.check(request, ips).map(|grant| self.offer(&grant))
    }

    /// What [`allocate_from`](Self::allocate_from) would do.
    ///
    /// # Errors
    /// Those of `allocate_from`.
    pub fn offer_from(&self, request: &Request, pool: &str) -> Result<Offer, AllocateError> {
        self.find_from(request, pool).map(|grant| self.offer(&grant))
    }

    /// What [`allocate`](Self::allocate) would do.
    ///
    /// # Errors
    /// Those of `allocate`.
    pub fn offer_anywhere(&self, request: &Request) -> Result<Offer, AllocateError> {
        self.find_anywhere(request).map(|grant| self.offer(&grant))
    }

    /// What [`add_family`](Self::add_family) would do: both addresses, the one it has first.
    ///
    /// # Errors
    /// Those of `add_family`.
    pub fn offer_family(&self, request: &Request) -> Result<Offer, AllocateError> {
        self.find_family(request).map(|grant| self.offer(&grant))
    }

    /// Takes back what a Service holds, and returns it.
    pub fn release(&mut self, service: &ServiceKey) -> Option<Allocation> {
        self.take_back(request::hash(service), service)
    }

    fn take_back(&mut self, hash: u64, service: &ServiceKey) -> Option<Allocation> {
        let allocation = self.ledger.strike(hash, service)?;
        let mut owner = None;
        for &ip in &allocation.ips {
            self.standing.note_given_up(service, ip);
            let Some((pool, place)) = self.prefixes.find(ip) else { continue };
            owner = Some(pool);
            // Nobody is left on an address that nobody may share.
            let key = &allocation.request.key;
            if key.is_shareable() && self.ledger.is_occupied(ip) {
                continue;
            }
            let (blocked, stands) = (self.is_blocked(ip), self.standing.has(ip));
            let state = &mut self.pools[pool];
            state.shared.remove(key, place);
            if !stands {
                *state.in_use.of_mut(IpFamily::of(ip)) -= 1;
            }
            if !blocked && !stands {
                state.give_back(place);
            }
        }
        if let Some(pool) = owner {
            self.pools[pool].services -= 1;
        }
        Some(allocation)
    }

    /// Notes which addresses the API shows on a Service, or may come to show because a write is under way; an empty list forgets
    /// them. An address that stands on a Service which does not hold it counts as in use, and nobody is given it but that Service; who
    /// holds it together with others keeps it. True when an address became free.
    pub fn set_standing(&mut self, service: &ServiceKey, ips: &[IpAddr]) -> bool {
        let held = self.ledger.holding(service);
        let holds = |ip| held.is_some_and(|held| held.ips.contains(&ip));
        let replaced = self.standing.replace(service, ips, holds);
        for ip in replaced.first {
            let Ok((pool, [place, _])) = self.locate(&[ip]) else { continue };
            if !self.ledger.is_occupied(ip) {
                let state = &mut self.pools[pool];
                *state.in_use.of_mut(IpFamily::of(ip)) += 1;
                state.take(place);
            }
        }
        // What its holders share can be joined again once nobody releases it.
        let mut any = replaced.settled.iter().any(|&ip| self.locate(&[ip]).is_ok());
        for ip in replaced.last {
            let Ok((pool, _)) = self.locate(&[ip]) else { continue };
            if !self.ledger.is_occupied(ip) {
                *self.pools[pool].in_use.of_mut(IpFamily::of(ip)) -= 1;
            }
            // An address that others hold can be joined again.
            any |= self.give_back(ip) || self.ledger.is_occupied(ip);
        }
        any
    }

    /// The addresses that stand on a Service.
    pub(crate) fn standing_on(&self, service: &ServiceKey) -> &[IpAddr] {
        self.standing.of(service)
    }

    /// The Services that keep the asker from an address which it does not hold, in key order.
    pub fn rivals<'a>(&'a self, request: &'a Request, ip: IpAddr) -> impl Iterator<Item = &'a ServiceKey> {
        self.ledger.rivals(request, ip).filter(move |_| !self.holds(&request.service, ip))
    }

    /// A Service other than the asker on which an address stands that it does not hold. Nobody is given such an address, not even a
    /// holder whose own status does not show it yet; a holder whose status shows it keeps it by [`reclaim`](Self::reclaim).
    fn leaver_of(&self, request: &Request, ip: IpAddr) -> Option<&ServiceKey> {
        self.standing.leaver(ip, &request.service)
    }

    /// Whether a Service holds an address.
    fn holds(&self, service: &ServiceKey, ip: IpAddr) -> bool {
        self.ledger.holding(service).is_some_and(|held| held.ips.contains(&ip))
    }

    /// Notes that a Service of another load balancer class holds exactly `ips`; an empty list forgets it. True when an address
    /// became free.
    pub fn block(&mut self, service: &ServiceKey, ips: &[IpAddr]) -> bool {
        let before = match ips {
            [] => self.blockers.remove(service),
            _ => self.blockers.insert(service.clone(), ips.to_vec()),
        };
        for &ip in ips {
            self.blocked.entry(ip).or_default().insert(service.clone());
            self.withhold(ip);
        }
        let mut any = false;
        for ip in before.into_iter().flatten().filter(|ip| !ips.contains(ip)) {
            let Some(services) = self.blocked.get_mut(&ip) else { continue };
            services.remove(service);
            if !services.is_empty() {
                continue;
            }
            self.blocked.remove(&ip);
            any |= self.give_back(ip);
        }
        any
    }

    /// Replaces the addresses that hosts outside of the cluster use, with the hardware address of each. Who holds one keeps it.
    pub fn set_quarantined(&mut self, quarantined: &BTreeMap<IpAddr, Arc<str>>) {
        let before = std::mem::replace(&mut self.quarantined, quarantined.clone());
        quarantined.keys().for_each(|&ip| self.withhold(ip));
        for ip in before.into_keys() {
            self.give_back(ip);
        }
    }

    /// Replaces the addresses of nodes that must not be handed out. A Service that holds one keeps it.
    pub fn set_node_addresses(&mut self, addresses: &BTreeMap<IpAddr, NodeName>) {
        if self.node_addresses == *addresses {
            return;
        }
        let before = std::mem::replace(&mut self.node_addresses, addresses.clone());
        addresses.keys().for_each(|&ip| self.withhold(ip));
        for ip in before.into_keys() {
            self.give_back(ip);
        }
    }

    /// The first of `ips` that is the address of a node and must not be handed out, and the node.
    #[must_use]
    pub fn node_address_among(&self, ips: &[IpAddr]) -> Option<(IpAddr, &NodeName)> {
        ips.iter().find_map(|&ip| Some((ip, self.node_addresses.get(&ip)?)))
    }

    /// Whether no pool could grant `ips` to the asker, whoever holds them.
    pub(crate) fn has_no_place(&self, request: &Request, ips: &[IpAddr]) -> bool {
        matches!(self.check(request, ips), Err(AllocateError::NotAllowed { .. } | AllocateError::NotCompatible { .. }))
    }

    /// Whether a Service could keep `ips`.
    pub(crate) fn may_reclaim(&self, request: &Request, ips: &[IpAddr]) -> bool {
        self.check(request, ips).is_ok()
    }

    /// Hands an address out to nobody from now on.
    fn withhold(&mut self, ip: IpAddr) {
        if let Some((pool, place)) = self.prefixes.find(ip) {
            self.pools[pool].take(place);
        }
    }

    /// Makes an address free again that nothing withholds any more and nobody holds. True when it is of a pool and became so.
    fn give_back(&mut self, ip: IpAddr) -> bool {
        let is_free = !self.ledger.is_occupied(ip) && !self.is_blocked(ip) && !self.standing.has(ip);
        let found = self.prefixes.find(ip).filter(|_| is_free);
        if let Some((pool, place)) = found {
            self.pools[pool].give_back(place);
        }
        found.is_some()
    }

    /// The first of `ips` that a host outside of the cluster uses, and its hardware address.
    #[must_use]
    pub fn quarantined_among(&self, ips: &[IpAddr]) -> Option<(IpAddr, &Arc<str>)> {
        ips.iter().find_map(|&ip| Some((ip, self.quarantined.get(&ip)?)))
    }

    /// A Service of another load balancer class that holds an address.
    #[must_use]
    pub fn blocker_of(&self, ip: IpAddr) -> Option<&ServiceKey> {
        self.blocked.get(&ip).and_then(BTreeSet::first)
    }

    /// Whether a Service of another load balancer class holds an address, or a foreign host or a node uses it; nearly always there
    /// is none at all.
    fn is_blocked(&self, ip: IpAddr) -> bool {
        let blocked = !self.blocked.is_empty() && self.blocked.contains_key(&ip);
        blocked
            || !self.quarantined.is_empty() && self.quarantined.contains_key(&ip)
            || !self.node_addresses.is_empty() && self.node_addresses.contains_key(&ip)
    }

    fn offer(&self, grant: &Grant) -> Offer {
        Offer { pool: self.pools[grant.pool].pool.name.clone(), ips: grant.ips }
    }

    /// `ips`, if the asker may have exactly these.
    fn check(&self, request: &Request, ips: &[IpAddr]) -> Result<Grant, AllocateError> {
        let not_allowed = |cause| AllocateError::NotAllowed { ips: ips.to_vec(), cause };
        let (pool, places) = self.locate(ips).map_err(not_allowed)?;
        let state = &self.pools[pool];
        if let Some(refusal) = incompatibility(&state.pool, request) {
            return Err(AllocateError::NotCompatible { pool: state.pool.name.clone(), refusal });
        }
        let ips = Addresses::new(ips).ok_or_else(|| AllocateError::BadSet(ips.to_vec()))?;
        ips.iter().try_for_each(|&ip| self.ledger.check(request, ip))?;
        Ok(Grant { pool, ips, places })
    }

    /// The position of the pool in which `ips` lie together, and the places of the first two.
    fn locate(&self, ips: &[IpAddr]) -> Result<(usize, [Place; 2]), NotAllowedCause> {
        let (&first, others) = ips.split_first().ok_or(NotAllowedCause::NoPool)?;
        let (common, place) = self.prefixes.find(first).ok_or(NotAllowedCause::NoPool)?;
        let mut places = [place; 2];
        for (index, &ip) in others.iter().enumerate() {
            let (pool, place) = self.prefixes.find(ip).ok_or(NotAllowedCause::NoPool)?;
            if pool != common {
                return Err(NotAllowedCause::SeveralPools);
            }
            if index == 0 {
                places[1] = place;
            }
        }
        let pool = &self.pools[common].pool;
        if pool.avoid_buggy_ips && ips.iter().any(|&ip| is_buggy(ip)) {
            return Err(NotAllowedCause::Avoided(pool.name.clone()));
        }
        Ok((common, places))
    }

    /// The position of a pool in `pools`.
    fn position(&self, name: &str) -> Option<usize> {
        self.pools.binary_search_by(|state| state.pool.name.as_str().cmp(name)).ok()
    }

    fn replace(&mut self, request: &Request, grant: Grant) -> &Allocation {
        self.take_back(request.hash(), &request.service);
        self.enter(request, grant)
    }

    /// Writes down what a Service holds from now on; it must hold nothing before, and may hold this.
    fn enter(&mut self, request: &Request, grant: Grant) -> &Allocation {
        let state = &mut self.pools[grant.pool];
        state.services += 1;
        let allocation = Allocation { pool: state.pool.name.clone(), ips: grant.ips, request: request.clone() };
        let mut places = grant.places.iter();
        let standing = &mut self.standing;
        self.ledger.enter(allocation, |first_holder| {
            let Some(&place) = places.next() else { return };
            standing.note_held(&request.service, place.ip);
            if first_holder {
                if !standing.has(place.ip) {
                    *state.in_use.of_mut(IpFamily::of(place.ip)) += 1;
                }
                state.take(place);
                state.shared.insert(&request.key, place);
            }
        })
    }
}
