//! Conditions under which Services share an address (`docs/upstream-behaviour.md#allocation-sharing`).

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::place::{PerFamily, Place};
use crate::model::{AnnotationKey, IpFamily, Service, TrafficPolicy};

/// The values that two Services must have in common to share an address.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SharingKey {
    /// The annotation `allow-shared-ip`; empty means that the Service does not share.
    pub sharing: Arc<str>,
    /// Empty for the traffic policy Cluster; the selector for Local, because both Services must lead to the same pods.
    pub backend: Arc<str>,
}

impl SharingKey {
    /// The key of a Service.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let sharing = service.annotation(AnnotationKey::AllowSharedIp).unwrap_or_default();
        let backend = match service.traffic_policy {
            TrafficPolicy::Cluster => Arc::default(),
            TrafficPolicy::Local => {
                let pairs: Vec<String> = service.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
                pairs.join(",").into()
            }
        };
        Self { sharing: if sharing.is_empty() { Arc::default() } else { sharing.into() }, backend }
    }

    /// Whether the Service shares addresses.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        !self.sharing.is_empty()
    }

    /// Whether a Service with the key `other` may join holders with this key.
    #[must_use]
    pub fn admits(&self, other: &Self) -> bool {
        self.is_shareable() && self == other
    }
}

/// The addresses of one pool whose holders share, in the order of allocation.
#[derive(Clone, Debug, Default)]
pub(super) struct SharingIndex {
    places: FxHashMap<SharingKey, PerFamily<BTreeSet<Place>>>,
}

impl SharingIndex {
    pub(super) fn insert(&mut self, key: &SharingKey, place: Place) {
        if key.is_shareable() {
            self.places.entry(key.clone()).or_default().of_mut(IpFamily::of(place.ip)).insert(place);
        }
    }

    pub(super) fn remove(&mut self, key: &SharingKey, place: Place) {
        let Some(places) = self.places.get_mut(key) else { return };
        places.of_mut(IpFamily::of(place.ip)).remove(&place);
        if places.v4.is_empty() && places.v6.is_empty() {
            self.places.remove(key);
        }
    }

    /// Addresses that a Service with `key` may join if its ports are free there.
    pub(super) fn candidates(&self, key: &SharingKey, family: IpFamily) -> impl Iterator<Item = Place> {
        let places = key.is_shareable().then(|| self.places.get(key)).flatten();
        places.into_iter().flat_map(move |places| places.of(family)).copied()
    }

    /// Whether some Service with this key holds an address of the family here.
    pub(super) fn has_candidates(&self, key: &SharingKey, family: IpFamily) -> bool {
        self.candidates(key, family).next().is_some()
    }
}
