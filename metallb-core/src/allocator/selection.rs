//! Which pool serves a Service (contract control-plane §3.2, §3.4).

use std::net::IpAddr;

use serde::Serialize;

use super::{Allocator, FamilyDemand, PoolState, Request};
use crate::config::{Pool, any_matches};
use crate::model::{IpFamily, PoolName};

/// One pool that was looked at and refused.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PoolVerdict {
    /// The pool.
    pub pool: PoolName,
    /// Why it was refused.
    pub refusal: PoolRefusal,
}

/// Why a pool does not serve a Service.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
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
}

impl PoolRefusal {
    /// All reasons with one sentence each.
    pub const ALL: &[(Self, &str)] = &[
        (Self::NotAutoAssigned, "`autoAssign` is false and the Service does not ask for the pool."),
        (Self::Namespace, "The pool is for other namespaces."),
        (Self::ServiceSelector, "The pool is for Services with other labels."),
        (Self::Family, "The pool has no addresses of a family that is needed."),
        (Self::Full, "All usable addresses of a family that is needed are in use."),
    ];

    /// The code, as machines read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAutoAssigned => "NotAutoAssigned",
            Self::Namespace => "Namespace",
            Self::ServiceSelector => "ServiceSelector",
            Self::Family => "Family",
            Self::Full => "Full",
        }
    }

    /// The reason as part of a sentence about the pool.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::NotAutoAssigned => "is not assigned automatically (autoAssign: false)",
            Self::Namespace => "serves other namespaces",
            Self::ServiceSelector => "serves Services with other labels",
            Self::Family => "has no addresses of a family that is needed",
            Self::Full => "is full",
        }
    }
}

/// Why `serviceAllocation` keeps a pool from a Service; `None` when it does not.
pub(super) fn incompatibility(pool: &Pool, request: &Request) -> Option<PoolRefusal> {
    let allocation = pool.allocation.as_ref()?;
    if allocation.namespaces.as_ref().is_some_and(|names| !names.contains(&request.service.namespace)) {
        return Some(PoolRefusal::Namespace);
    }
    (!any_matches(&allocation.service_selectors, &request.labels)).then_some(PoolRefusal::ServiceSelector)
}

impl Allocator {
    /// The pool and addresses for automatic allocation: pools pinned to the Service by priority and name, then the others by
    /// name. Each of the two lists is exhausted, single addresses for `PreferBoth` included, before the next.
    pub(super) fn select(&self, request: &Request) -> Result<(PoolName, Vec<IpAddr>), Vec<PoolVerdict>> {
        let mut verdicts = Vec::new();
        let mut pinned = Vec::new();
        let mut open = Vec::new();
        for (name, state) in &self.pools {
            let refusal = if state.pool.auto_assign {
                incompatibility(&state.pool, request)
            } else {
                Some(PoolRefusal::NotAutoAssigned)
            };
            match (refusal, &state.pool.allocation) {
                (Some(refusal), _) => verdicts.push(PoolVerdict { pool: name.clone(), refusal }),
                (None, Some(allocation)) => {
                    pinned.push((allocation.priority.is_none(), allocation.priority, name, state));
                }
                (None, None) => open.push((name, state)),
            }
        }
        pinned.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let pinned: Vec<_> = pinned.into_iter().map(|(_, _, name, state)| (name, state)).collect();
        for candidates in [pinned, open] {
            if let Some((name, ips)) = self.select_among(&candidates, request, &mut verdicts) {
                return Ok((name.clone(), ips));
            }
        }
        Err(verdicts)
    }

    fn select_among<'a>(
        &self,
        candidates: &[(&'a PoolName, &PoolState)],
        request: &Request,
        verdicts: &mut Vec<PoolVerdict>,
    ) -> Option<(&'a PoolName, Vec<IpAddr>)> {
        let mut singles: [Option<(&PoolName, IpAddr)>; 2] = [None, None];
        for &(name, state) in candidates {
            let one = |family| self.lowest_usable(state, family, request);
            let found = match request.demand {
                FamilyDemand::V4 => one(IpFamily::V4).map(|ip| vec![ip]),
                FamilyDemand::V6 => one(IpFamily::V6).map(|ip| vec![ip]),
                FamilyDemand::Both | FamilyDemand::PreferBoth { .. } => {
                    let (v4, v6) = (one(IpFamily::V4), one(IpFamily::V6));
                    singles[0] = singles[0].or(v4.map(|ip| (name, ip)));
                    singles[1] = singles[1].or(v6.map(|ip| (name, ip)));
                    v4.zip(v6).map(|(v4, v6)| vec![v4, v6])
                }
            };
            match found {
                Some(ips) => return Some((name, ips)),
                None => verdicts.push(PoolVerdict { pool: name.clone(), refusal: shortage(state, request.demand) }),
            }
        }
        let FamilyDemand::PreferBoth { first } = request.demand else { return None };
        let [v4, v6] = singles;
        let single = match first {
            IpFamily::V4 => v4.or(v6),
            IpFamily::V6 => v6.or(v4),
        };
        single.map(|(name, ip)| (name, vec![ip]))
    }

    /// Addresses for `request` from one pool.
    pub(super) fn find_in(&self, state: &PoolState, request: &Request) -> Result<Vec<IpAddr>, PoolRefusal> {
        let mut ignored = Vec::new();
        self.select_among(&[(&state.pool.name, state)], request, &mut ignored)
            .map(|(_, ips)| ips)
            .ok_or_else(|| shortage(state, request.demand))
    }
}

/// What a pool lacks that gave nothing.
fn shortage(state: &PoolState, demand: FamilyDemand) -> PoolRefusal {
    let has = |family| state.pool.has_family(family);
    let served = match demand {
        FamilyDemand::V4 => has(IpFamily::V4),
        FamilyDemand::V6 => has(IpFamily::V6),
        FamilyDemand::Both => has(IpFamily::V4) && has(IpFamily::V6),
        FamilyDemand::PreferBoth { .. } => true,
    };
    if served { PoolRefusal::Full } else { PoolRefusal::Family }
}
