//! Pools that were deleted a short time ago.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::spec::{PoolSpec, Spec as _};
use crate::config::{Config, Pool};
use crate::model::PoolName;

/// Keeps deleted pools for a grace time. `kubectl replace --force` and some synchronisation tools delete a pool and
/// create it again.
#[derive(Clone, Debug, Default)]
pub(super) struct Departures {
    grace: Duration,
    /// The pools of the last update.
    in_force: BTreeMap<PoolName, (Arc<Pool>, PoolSpec)>,
    departed: BTreeMap<PoolName, Departed>,
}

#[derive(Clone, Debug)]
struct Departed {
    /// With the advertisements that it had.
    pool: Arc<Pool>,
    spec: PoolSpec,
    until: Instant,
}

impl Departures {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, ..Self::default() }
    }

    /// Gives the last valid form of a departed pool back to one that was created again: its new form may be invalid.
    pub(super) fn returned(&self, current: &[PoolSpec], good: &mut Vec<PoolSpec>) {
        for spec in current {
            let Some(departed) = self.departed.get(spec.meta.name.as_str()) else { continue };
            if !good.iter().any(|known| known.reference() == spec.reference()) {
                good.push(departed.spec.clone());
            }
        }
    }

    /// Takes in which pools exist after an update; returns those that departed and are still kept. `good` holds the
    /// last valid forms of the pools that exist.
    pub(super) fn follow(&mut self, config: &Config, good: &[PoolSpec], now: Instant) -> BTreeMap<PoolName, Arc<Pool>> {
        let exists = |name: &PoolName| config.pools.contains_key(name) || config.withheld.contains_key(name);
        let gone = std::mem::take(&mut self.in_force).into_iter().filter(|(name, _)| !exists(name));
        for (name, (pool, spec)) in gone {
            self.departed.entry(name).or_insert(Departed { pool, spec, until: now + self.grace });
        }
        self.departed.retain(|name, departed| !exists(name) && now < departed.until);
        let specs: BTreeMap<&str, &PoolSpec> = good.iter().map(|spec| (spec.meta.name.as_str(), spec)).collect();
        let with_spec = |(name, pool): (&PoolName, &Arc<Pool>)| {
            let spec = specs.get(name.as_str())?;
            Some((name.clone(), (Arc::clone(pool), (*spec).clone())))
        };
        self.in_force = config.pools.iter().filter_map(with_spec).collect();
        self.departed.iter().map(|(name, departed)| (name.clone(), Arc::clone(&departed.pool))).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.departed.values().map(|departed| departed.until).min()
    }
}
