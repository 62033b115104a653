//! Services that want more than they have, in the order in which they will be served.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::model::{Service, ServiceKey, Timestamp};

#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    services: BTreeMap<Rank, Service>,
    ranks: FxHashMap<ServiceKey, Rank>,
}

/// The oldest first, those of unknown age last, then by name.
type Rank = (bool, Option<Timestamp>, ServiceKey);

impl Waiting {
    /// Adds a Service, or what is known of it now.
    pub(super) fn insert(&mut self, service: &Service) {
        self.remove(&service.key);
        let rank = (service.created.is_none(), service.created, service.key.clone());
        self.ranks.insert(service.key.clone(), rank.clone());
        self.services.insert(rank, service.clone());
    }

    /// Removes a Service; false when it did not wait.
    pub(super) fn remove(&mut self, service: &ServiceKey) -> bool {
        let Some(rank) = self.ranks.remove(service) else { return false };
        self.services.remove(&rank).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }
}
