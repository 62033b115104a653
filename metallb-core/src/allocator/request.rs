//! What a Service needs of an allocator.

use super::SharingKey;
use crate::model::{IpFamily, Labels, Service, ServiceKey, ServicePort};

/// A Service that needs addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
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

impl Request {
    /// What `service` asks for, given the families it needs.
    #[must_use]
    pub fn new(service: &Service, demand: FamilyDemand) -> Self {
        Self {
            service: service.key.clone(),
            labels: service.labels.clone(),
            ports: service.ports.clone(),
            key: SharingKey::of(service),
            demand,
        }
    }
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
