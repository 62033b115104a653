//! Selection of the pool that serves a Service (`docs/upstream-behaviour.md#allocation`).

use std::net::IpAddr;

use serde::Serialize;

use super::place::Place;
use super::pool_state::PoolState;
use super::{Addresses, AllocateError, Allocation, Allocator, FamilyDemand, Grant, Request};
use crate::config::{Pool, any_matches};
use crate::model::{IpFamily, PoolName};
use crate::reason::reasons;
use crate::spelling::nearest;

/// A pool that does not serve a Service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PoolVerdict {
    /// The pool.
    pub pool: PoolName,
    /// The reason.
    pub refusal: PoolRefusal,
}

reasons! {
    /// Why a pool does not serve a Service.
    pub enum PoolRefusal {
        /// `autoAssign` is false and the Service does not ask for the pool.
        NotAutoAssigned,
        /// The pool is for other namespaces.
        Namespace,
        /// The pool is for Services with other labels.
        ServiceSelector,
        /// The pool has no addresses of a family that is needed.
        Family,
        /// All usable addresses of a family that is needed are in use.
        Full,
        /// All usable addresses are in use, and on every one that could be shared a port is taken.
        PortsTaken,
        /// All usable addresses are in use; one has the same sharing key, but another traffic policy or selector.
        BackendDiffers,
    }
}

impl PoolRefusal {
    /// The reason as part of a sentence about the pool.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::NotAutoAssigned => "is not assigned automatically (autoAssign: false)",
            Self::Namespace => "serves other namespaces",
            Self::ServiceSelector => "serves Services with other labels",
            Self::Family => "has no addresses of a family that is needed (one pool must have all that are needed)",
            Self::Full => "is full",
            Self::BackendDiffers => {
                "is full, and the Services with the same metallb.io/allow-shared-ip have another \
                 externalTrafficPolicy, or with Local another selector"
            }
            Self::PortsTaken => "is full, and the addresses that could be shared have a port taken",
        }
    }
}

/// The reason why `serviceAllocation` excludes a Service from a pool, if it does.
pub(super) fn incompatibility(pool: &Pool, request: &Request) -> Option<PoolRefusal> {
    let allocation = pool.allocation.as_ref()?;
    if allocation.namespaces.as_ref().is_some_and(|names| !names.contains(&request.service.namespace)) {
        return Some(PoolRefusal::Namespace);
    }
    (!any_matches(&allocation.service_selectors, &request.labels)).then_some(PoolRefusal::ServiceSelector)
}

/// The reason why a pool has no address for a request.
pub(super) fn shortage(state: &PoolState, demand: FamilyDemand, request: &Request) -> PoolRefusal {
    let families: &[IpFamily] = match demand {
        FamilyDemand::V4 => &[IpFamily::V4],
        FamilyDemand::V6 => &[IpFamily::V6],
        FamilyDemand::Both | FamilyDemand::PreferBoth { .. } => &[IpFamily::V4, IpFamily::V6],
    };
    let prefers = matches!(demand, FamilyDemand::PreferBoth { .. });
    if !prefers && families.iter().any(|&family| !state.pool.has_family(family)) {
        return PoolRefusal::Family;
    }
    let shares = families.iter().any(|&family| state.shared.has_candidates(&request.key, family));
    match shares {
        true => PoolRefusal::PortsTaken,
        false if state.shared.has_other_backend(&request.key) => PoolRefusal::BackendDiffers,
        false => PoolRefusal::Full,
    }
}

/// The order of pools, as positions; the parts that do not depend on the request are sorted once.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolOrder {
    /// Pools with `serviceAllocation`: by priority, then by name.
    pinned: Vec<usize>,
    /// Pools for all Services, by name.
    open: Vec<usize>,
    /// Pools that must be requested.
    manual: Vec<usize>,
}

impl PoolOrder {
    /// `pools` are sorted by name.
    pub(super) fn new(pools: &[PoolState]) -> Self {
        let mut order = Self::default();
        for (position, state) in pools.iter().enumerate() {
            let list = match (&state.pool.allocation, state.pool.auto_assign) {
                (_, false) => &mut order.manual,
                (Some(_), true) => &mut order.pinned,
                (None, true) => &mut order.open,
            };
            list.push(position);
        }
        order.pinned.sort_by_key(|&position| {
            let priority = pools[position].pool.allocation.as_ref().and_then(|allocation| allocation.priority);
            (priority.is_none(), priority)
        });
        order
    }
}

impl Allocator {
    /// Addresses by automatic allocation: from pools pinned to the Service, then from the others. Each of the two lists
    /// is exhausted, single addresses for `PreferBoth` included, before the next.
    pub(super) fn find_anywhere(&self, request: &Request) -> Result<Grant, AllocateError> {
        let pinned = self.order.pinned.iter().copied();
        let pinned = pinned.filter(|&position| incompatibility(&self.pools[position].pool, request).is_none());
        self.first_fitting(pinned, request)
            .or_else(|| self.first_fitting(self.order.open.iter().copied(), request))
            .ok_or_else(|| AllocateError::Exhausted { verdicts: self.verdicts_before(request, |_| false) })
    }

    fn unknown_pool(&self, name: &str) -> AllocateError {
        let names = self.pools.iter().take(COMPARED).map(|state| state.pool.name.as_str());
        AllocateError::UnknownPool { name: name.to_owned(), nearest: nearest(name, names).map(PoolName::from) }
    }

    /// Addresses from the pool that the Service requests.
    pub(super) fn find_from(&self, request: &Request, name: &str) -> Result<Grant, AllocateError> {
        let position = self.position(name).ok_or_else(|| self.unknown_pool(name))?;
        let state = &self.pools[position];
        let pool = || state.pool.name.clone();
        if let Some(refusal) = incompatibility(&state.pool, request) {
            return Err(AllocateError::NotCompatible { pool: pool(), refusal });
        }
        self.first_fitting(std::iter::once(position), request).ok_or_else(|| {
            let refusal = shortage(state, request.demand, request);
            AllocateError::PoolExhausted { pool: pool(), demand: request.demand, refusal }
        })
    }

    /// An address of the family that the Service lacks, in addition to the address it has.
    pub(super) fn find_family(&self, request: &Request) -> Result<Grant, AllocateError> {
        let Some(held) = self.ledger.held_by(request) else {
            return Err(AllocateError::BadSet(Vec::new()));
        };
        let (missing, demand) = match held.ips[..] {
            [IpAddr::V4(_)] => (IpFamily::V6, FamilyDemand::V6),
            [IpAddr::V6(_)] => (IpFamily::V4, FamilyDemand::V4),
            _ => return Err(AllocateError::BadSet(held.ips.to_vec())),
        };
        let has = self.check(request, &held.ips)?;
        let state = &self.pools[has.pool];
        match self.lowest_usable(state, missing, request, None) {
            Some(found) => Ok(Grant::pair(has.pool, has.places[0], found)),
            None => {
                let refusal = shortage(state, demand, request);
                Err(AllocateError::PoolExhausted { pool: state.pool.name.clone(), demand, refusal })
            }
        }
    }

    /// The pools that automatic allocation would refuse now, in its order, with the reasons. Pools after the one that
    /// it would choose are left out.
    #[must_use]
    pub fn verdicts(&self, request: &Request) -> Vec<PoolVerdict> {
        self.verdicts_before(request, |position| self.first_fitting(std::iter::once(position), request).is_some())
    }

    /// The verdicts on all pools before the first one that serves.
    fn verdicts_before(&self, request: &Request, serves: impl Fn(usize) -> bool) -> Vec<PoolVerdict> {
        let mut verdicts = Vec::with_capacity(self.pools.len());
        for &position in self.order.pinned.iter().chain(&self.order.open).chain(&self.order.manual) {
            let state = &self.pools[position];
            let refusal = if !state.pool.auto_assign {
                PoolRefusal::NotAutoAssigned
            } else if let Some(refusal) = incompatibility(&state.pool, request) {
                refusal
            } else if serves(position) {
                break;
            } else {
                shortage(state, request.demand, request)
            };
            verdicts.push(PoolVerdict { pool: state.pool.name.clone(), refusal });
        }
        verdicts
    }

    /// The lowest usable address of a family in a pool: the earlier of the first free one and the first one that can be
    /// shared. Addresses that only the requesting Service holds, `own`, count as free.
    pub(super) fn lowest_usable(
        &self,
        state: &PoolState,
        family: IpFamily,
        request: &Request,
        own: Option<&Allocation>,
    ) -> Option<Place> {
        let mut free = state.first_free(family);
        let standing = self.standing.of(&request.service);
        if own.is_some() || !standing.is_empty() {
            free = self.lowest_own(state, family, request, own, standing).into_iter().chain(free).min();
        }
        let shared = state
            .shared
            .candidates(&request.key, family)
            .take_while(|&place| free.is_none_or(|free| place < free))
            .find(|place| self.may_hold(request, place.ip));
        shared.or(free)
    }

    /// The lowest address of a family in a pool that the requesting Service holds, or releases while the API still
    /// shows it.
    #[inline(never)]
    fn lowest_own(
        &self,
        state: &PoolState,
        family: IpFamily,
        request: &Request,
        own: Option<&Allocation>,
        standing: &[IpAddr],
    ) -> Option<Place> {
        let own = own.into_iter().filter(|held| held.pool == state.pool.name).flat_map(|held| &held.ips);
        own.chain(standing)
            .filter(|&&ip| IpFamily::of(ip) == family && self.may_hold(request, ip))
            .filter_map(|&ip| self.locate(&[ip]).ok())
            .filter(|(pool, _)| self.pools[*pool].pool.name == state.pool.name)
            .map(|(_, [place, _])| place)
            .min()
    }

    /// Whether no holder of an address excludes the requesting Service.
    fn may_hold(&self, request: &Request, ip: IpAddr) -> bool {
        !self.is_blocked(ip) && self.ledger.admits(request, ip) && self.leaver_of(request, ip).is_none()
    }

    /// The choice by family among pools that serve the Service.
    fn first_fitting(&self, candidates: impl Iterator<Item = usize>, request: &Request) -> Option<Grant> {
        let own = self.ledger.held_by(request);
        let mut singles: [Option<(usize, Place)>; 2] = [None, None];
        for position in candidates {
            let one = |family| self.lowest_usable(&self.pools[position], family, request, own);
            let found = match request.demand {
                FamilyDemand::V4 => one(IpFamily::V4).map(|place| Grant::one(position, place)),
                FamilyDemand::V6 => one(IpFamily::V6).map(|place| Grant::one(position, place)),
                FamilyDemand::Both | FamilyDemand::PreferBoth { .. } => {
                    let (v4, v6) = (one(IpFamily::V4), one(IpFamily::V6));
                    singles[0] = singles[0].or(v4.map(|place| (position, place)));
                    singles[1] = singles[1].or(v6.map(|place| (position, place)));
                    v4.zip(v6).map(|(v4, v6)| Grant::pair(position, v4, v6))
                }
            };
            if found.is_some() {
                return found;
            }
        }
        let FamilyDemand::PreferBoth { first } = request.demand else { return None };
        let [v4, v6] = singles;
        let single = match first {
            IpFamily::V4 => v4.or(v6),
            IpFamily::V6 => v6.or(v4),
        };
        single.map(|(position, place)| Grant::one(position, place))
    }
}

impl Grant {
    const fn one(pool: usize, place: Place) -> Self {
        Self { pool, ips: Addresses::one(place.ip), places: [place; 2] }
    }

    /// Two places of different families.
    const fn pair(pool: usize, first: Place, second: Place) -> Self {
        Self { pool, ips: Addresses::pair(first.ip, second.ip), places: [first, second] }
    }
}

/// Number of pools that are compared with an unknown name.
const COMPARED: usize = 1_000;
