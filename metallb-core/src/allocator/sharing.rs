//! Conditions under which Services share an address (`docs/upstream-behaviour.md#allocation-sharing`).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::place::{PerFamily, Place};
use crate::model::{AnnotationKey, IpFamily, Service, TrafficPolicy};
use crate::spelling::quoted;

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

/// The difference that keeps two Services from sharing an address.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SharingMismatch {
    /// At least one of them shares with nobody.
    NoKey {
        /// The key of the Service that asks; empty for none.
        asker: Arc<str>,
        /// The key of the holder; empty for none.
        holder: Arc<str>,
    },
    /// They have different keys.
    Key {
        /// The key of the Service that asks.
        asker: Arc<str>,
        /// The key of the holder.
        holder: Arc<str>,
    },
    /// They have the same key, but other backends: the traffic policy, or with `Local` the selector.
    Backend {
        /// The selector of the Service that asks; empty for the traffic policy Cluster.
        asker: Arc<str>,
        /// The selector of the holder; empty for the traffic policy Cluster.
        holder: Arc<str>,
    },
}

impl SharingMismatch {
    /// Compares the keys of two Services that do not share.
    #[must_use]
    pub fn between(asker: &SharingKey, holder: &SharingKey) -> Self {
        let pair = |of: fn(&SharingKey) -> &Arc<str>| (Arc::clone(of(asker)), Arc::clone(of(holder)));
        let (asker_key, holder_key) = pair(|key| &key.sharing);
        if !asker.is_shareable() || !holder.is_shareable() {
            return Self::NoKey { asker: asker_key, holder: holder_key };
        }
        if asker_key != holder_key {
            return Self::Key { asker: asker_key, holder: holder_key };
        }
        let (asker, holder) = pair(|key| &key.backend);
        Self::Backend { asker, holder }
    }
}

impl fmt::Display for SharingMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ANNOTATION: &str = "metallb.io/allow-shared-ip";
        match self {
            Self::NoKey { asker, holder } => {
                let value =
                    |key: &str| if key.is_empty() { "is not set".to_owned() } else { format!("is {}", quoted(key)) };
                write!(f, "{ANNOTATION} {} here and {} there", value(asker), value(holder))
            }
            Self::Key { asker, holder } => {
                write!(f, "{ANNOTATION} is {} here and {} there", quoted(asker), quoted(holder))
            }
            Self::Backend { asker, holder } if asker.is_empty() || holder.is_empty() => {
                let policy = |selector: &str| if selector.is_empty() { "Cluster" } else { "Local" };
                write!(f, "externalTrafficPolicy is {} here and {} there", policy(asker), policy(holder))
            }
            Self::Backend { asker, holder } => write!(
                f,
                "with externalTrafficPolicy Local the selectors must be equal, and they are {} here and {} there",
                quoted(asker),
                quoted(holder)
            ),
        }
    }
}

/// The addresses of one pool whose holders share, in the order of allocation.
#[derive(Clone, Debug, Default)]
pub(super) struct SharingIndex {
    places: FxHashMap<SharingKey, PerFamily<BTreeSet<Place>>>,
}

impl SharingIndex {
    /// Whether a Service with the same annotation holds one of the addresses, but another traffic policy or selector.
    pub(super) fn has_other_backend(&self, key: &SharingKey) -> bool {
        let other = |held: &SharingKey| held.sharing == key.sharing && held.backend != key.backend;
        key.is_shareable()
            && self.places.iter().any(|(held, places)| other(held) && !(places.v4.is_empty() && places.v6.is_empty()))
    }

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
