//! Whether a changed Service can change an election.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::{Holder, advertisements, local_nodes};
use crate::model::{AnnotationKey, Cluster, Endpoint};

/// All of a Service that counts in elections, and for where its owner answers, as a hash. While those of all Services, the configuration,
/// the nodes and who lives stay the same, so do all owners: endpoints come and go without end, and seldom decide anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stake(u64);

impl Stake {
    /// Of one moment; comparable as long as the configuration is the same one.
    #[must_use]
    pub fn new(holder: Holder<'_>, cluster: &Cluster) -> Self {
        let Holder { service, pool, ips } = holder;
        let mut hasher = DefaultHasher::new();
        (ips, service.created, &pool.name).hash(&mut hasher);
        for ad in advertisements(pool, service) {
            Arc::as_ptr(ad).hash(&mut hasher);
        }
        service.has_annotation(AnnotationKey::AllowSharedIp).hash(&mut hasher);
        let endpoints = cluster.endpoints.get(&service.key).map_or(&[][..], Vec::as_slice);
        endpoints.iter().any(Endpoint::is_usable).hash(&mut hasher);
        local_nodes(service, cluster).hash(&mut hasher);
        Self(hasher.finish())
    }
}
