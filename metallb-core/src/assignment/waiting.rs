//! Pending Services, in the order in which they will be served.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::model::{Service, ServiceKey, Timestamp};

#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    services: BTreeMap<Rank, Service>,
    ranks: FxHashMap<ServiceKey, Rank>,
}

/// By age, the oldest first and those of unknown age last, then by name.
type Rank = (bool, Option<Timestamp>, ServiceKey);

impl Waiting {
    /// Adds a Service, or replaces its request.
    pub(super) fn insert(&mut self, service: &Service) {
        self.remove(&service.key);
        let rank = (service.created.is_none(), service.created, service.key.clone());
        self.ranks.insert(service.key.clone(), rank.clone());
        self.services.insert(rank, service.clone());
    }

    /// Removes a Service; false if it was not pending.
    pub(super) fn remove(&mut self, service: &ServiceKey) -> bool {
        let Some(rank) = self.ranks.remove(service) else { return false };
        self.services.remove(&rank).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }
}
