//! The request of a Service to the allocator.

use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::SharingKey;
use crate::model::{IpFamily, Labels, Service, ServiceKey, ServicePort};

/// A Service that needs addresses. A clone is cheap: each holder keeps the request that got its addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request(Arc<Prepared>);

#[derive(Debug, Eq, PartialEq)]
struct Prepared {
    /// The hash of the Service's key, so that a lookup does not read its text.
    hash: u64,
    terms: Terms,
}

/// The contents of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Terms {
    /// The Service.
    pub service: ServiceKey,
    /// Its labels, for pools with service selectors.
    pub labels: Labels,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The condition under which it shares an address.
    pub key: SharingKey,
    /// The families that it needs.
    pub demand: FamilyDemand,
}

/// The families that a Service needs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FamilyDemand {
    /// One IPv4 address.
    V4,
    /// One IPv6 address.
    V6,
    /// One of each, from one pool.
    Both,
    /// One of each if a pool has both, else one, of this family if possible.
    PreferBoth {
        /// The family of `ipFamilies[0]`.
        first: IpFamily,
    },
}

impl Request {
    /// The request of `service` for these families.
    #[must_use]
    pub fn new(service: &Service, demand: FamilyDemand) -> Self {
        Self::from(Terms {
            service: service.key.clone(),
            labels: service.labels.clone(),
            ports: service.ports.clone(),
            key: SharingKey::of(service),
            demand,
        })
    }

    /// The hash of the Service's key.
    pub(super) fn hash(&self) -> u64 {
        self.0.hash
    }
}

impl From<Terms> for Request {
    fn from(terms: Terms) -> Self {
        Self(Arc::new(Prepared { hash: hash(&terms.service), terms }))
    }
}

impl Deref for Request {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.0.terms
    }
}

/// The hash of a key; equal keys have equal hashes in every process.
pub(super) fn hash(service: &ServiceKey) -> u64 {
    FxBuildHasher.hash_one(service)
}
