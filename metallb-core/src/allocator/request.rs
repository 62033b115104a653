//! What a Service needs of an allocator.

use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::SharingKey;
use crate::model::{IpFamily, Labels, Service, ServiceKey, ServicePort};

/// A Service that needs addresses. A clone costs next to nothing: who holds addresses keeps the request that got them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request(Arc<Prepared>);

#[derive(Debug, Eq, PartialEq)]
struct Prepared {
    /// Of the Service's key, so that a lookup need not read its text.
    hash: u64,
    terms: Terms,
}

/// What a request says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Terms {
    /// Who asks.
    pub service: ServiceKey,
    /// Its labels, for pools that choose by them.
    pub labels: Labels,
    /// The ports it will use.
    pub ports: Vec<ServicePort>,
    /// With whom it may share.
    pub key: SharingKey,
    /// Which families it needs.
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
    /// What `service` asks for, given the families it needs.
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

/// The same for equal keys, always.
pub(super) fn hash(service: &ServiceKey) -> u64 {
    FxBuildHasher.hash_one(service)
}
