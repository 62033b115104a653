//! What a Service needs of an allocator.

use std::sync::Arc;

use crate::model::{AnnotationKey, IpFamily, Labels, Service, ServiceKey, ServicePort, TrafficPolicy};

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

/// What two Services must have in common to share an address (contract control-plane §3.6).
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SharingKey {
    /// The annotation `allow-shared-ip`; empty shares with nobody.
    pub sharing: Arc<str>,
    /// Empty for the traffic policy Cluster; for Local the selector, as both must end at the same pods.
    pub backend: Arc<str>,
}

impl SharingKey {
    /// The key of a Service.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let sharing = service.annotation(AnnotationKey::AllowSharedIp).unwrap_or_default();
        let backend = match service.traffic_policy {
            TrafficPolicy::Cluster => String::new(),
            TrafficPolicy::Local => {
                let pairs: Vec<String> = service.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
                pairs.join(",")
            }
        };
        Self { sharing: sharing.into(), backend: backend.into() }
    }

    /// Whether holders with this key let an asker with `other` in.
    pub(super) fn admits(&self, other: &Self) -> bool {
        !self.sharing.is_empty() && self == other
    }
}
