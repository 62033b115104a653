//! Holders of addresses that no valid pool contains for the time being.
//!
//! An editing mistake in a pool, or a pool that is deleted and created again, must not give its Services other
//! addresses. A sheltered holder keeps its status as it is, and nobody else gets its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{demand_of, desired_ips, desired_pool, same_set};
use crate::address::AddressBlock;
use crate::allocator::{Allocator, Request};
use crate::assignment::{AssignReason, ServiceFamily};
use crate::config::Config;
use crate::model::{PoolName, Service};

/// Which pools shelter the holders of their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelter {
    /// Pools that exist and have no valid form, with the blocks that can be parsed.
    withheld: BTreeMap<PoolName, Vec<AddressBlock>>,
    /// Pools that were deleted a short time ago.
    departed: BTreeSet<PoolName>,
    unknown: UnknownPools,
}

/// The treatment of a Service whose recorded pool does not exist and is not known to have existed a short time ago.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UnknownPools {
    /// It loses addresses that no pool contains.
    #[default]
    Release,
    /// It keeps them. A controller that has just begun to lead cannot know when the pool was deleted.
    Keep,
}

/// Why a holder is sheltered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// The pool is invalid or cannot be read.
    Withheld(PoolName),
    /// The pool does not exist at the moment.
    Missing(PoolName),
}

impl Shelter {
    pub(super) fn set_config(&mut self, config: &Config) {
        self.withheld.clone_from(&config.withheld);
        self.departed = config.departed.keys().cloned().collect();
    }

    /// False if nothing changed.
    pub(super) fn set_unknown_pools(&mut self, unknown: UnknownPools) -> bool {
        std::mem::replace(&mut self.unknown, unknown) != unknown
    }

    /// Why a Service keeps the addresses of its status whatever `allocator` says; nearly always `None`.
    pub(super) fn cause(&self, service: &Service, allocator: &Allocator) -> Option<Cause> {
        if self.withheld.is_empty() && self.departed.is_empty() && self.unknown == UnknownPools::Release {
            return None;
        }
        let held = service.status_ips().filter(|ips| !ips.is_empty())?;
        if desired_ips(service).is_ok_and(|desired| !desired.is_empty() && !same_set(&desired, &held)) {
            return None;
        }
        let (recorded, wanted) = (service.recorded_pool(), desired_pool(service));
        if recorded.is_some() && wanted.is_some_and(|wanted| Some(wanted) != recorded) {
            return None;
        }
        let has_no_place = || {
            let family = ServiceFamily::of_service(service).unwrap_or(ServiceFamily::Dual);
            allocator.has_no_place(&Request::new(service, demand_of(family, service)), &held)
        };
        if let Some(name) = recorded.or(wanted) {
            let cause = if self.withheld.contains_key(name) {
                Some(Cause::Withheld(name.into()))
            } else {
                self.is_missing(name, allocator).then(|| Cause::Missing(name.into()))
            };
            // Where the Service asks for the pool by name, no other pool can serve it.
            if let Some(cause) = cause.filter(|_| wanted.is_some() || has_no_place()) {
                return Some(cause);
            }
        }
        if allocator.pool_of(&held).is_some() {
            return None;
        }
        let may_contain = |blocks: &[AddressBlock]| match blocks {
            // Nothing of the pool can be parsed, so it may contain everything that belongs to no pool by its record.
            [] => recorded.is_none(),
            _ => held.iter().all(|&ip| contains(blocks, ip)),
        };
        let pool = self.withheld.iter().find(|(_, blocks)| may_contain(blocks));
        pool.filter(|_| has_no_place()).map(|(name, _)| Cause::Withheld(name.clone()))
    }

    fn is_missing(&self, name: &str, allocator: &Allocator) -> bool {
        let is_unknown = || allocator.pools().all(|pool| pool.name.as_str() != name);
        self.departed.contains(name) || self.unknown == UnknownPools::Keep && is_unknown()
    }
}

impl Cause {
    pub(super) const fn reason(&self) -> AssignReason {
        match self {
            Self::Withheld(_) => AssignReason::KeptPoolInvalid,
            Self::Missing(_) => AssignReason::KeptPoolMissing,
        }
    }

    /// The reason as a sentence about a Service that holds `held`.
    pub(super) fn explanation(&self, held: &str) -> String {
        match self {
            Self::Withheld(pool) => format!("keeps {held}: the IPAddressPool {pool} is invalid or cannot be read"),
            Self::Missing(pool) => {
                format!("keeps {held} for the grace time: the IPAddressPool {pool} does not exist at the moment")
            }
        }
    }
}

fn contains(blocks: &[AddressBlock], ip: IpAddr) -> bool {
    blocks.iter().flat_map(AddressBlock::prefixes).any(|prefix| prefix.contains(&ip))
}
