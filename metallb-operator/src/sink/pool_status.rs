//! Writes the counters of pools into their status. A newer state replaces an older one, so a burst costs few requests.
//!
//! The writer compares the status that the API server shows with the desired one. A status that somebody edits, or that
//! a pool lacks because it was created again, is written again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt as _};
use metallb_core::model::PoolName;
use serde_json::json;
use tokio::sync::watch;

use crate::api::{IpAddressPool, IpAddressPoolStatus};
use crate::sink::lease::{Leadership, Term};
use crate::sink::status_verb::StatusWriter;

/// The desired statuses of all pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolStatuses {
    /// The term of leadership that computed them; `None` for a standby, which writes nothing.
    pub(crate) term: Option<Term>,
    /// By pool.
    pub(crate) pools: BTreeMap<PoolName, IpAddressPoolStatus>,
}

/// Starts the writer. It ends when the sender is dropped.
pub(crate) fn spawn(client: Client, namespace: &str, leadership: Leadership) -> watch::Sender<PoolStatuses> {
    let (sender, mut desired) = watch::channel(PoolStatuses::default());
    let statuses = StatusWriter::new::<IpAddressPool>(client.clone(), namespace, None);
    let pools: Api<IpAddressPool> = Api::namespaced(client, namespace);
    tokio::spawn(async move {
        let mut events = watcher(pools, watcher::Config::default()).default_backoff().boxed();
        let mut stored = Stored::default();
        let mut failures = Failures::default();
        loop {
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                event = events.next() => match event {
                    Some(Ok(event)) => stored.see(event),
                    // The watch backs off and continues.
                    Some(Err(_)) => continue,
                    None => return,
                },
            }
            let wanted = desired.borrow_and_update().clone();
            let Some(current) = wanted.term else { continue };
            let due = stored.differing(&wanted.pools);
            if due.is_empty() {
                continue;
            }
            let mut failed = false;
            for (name, status) in due {
                if !leadership.may_write(current) {
                    break;
                }
                match write(&statuses, &name, &status).await {
                    Ok(()) => {
                        failures.ended(&name);
                        stored.written(name, status);
                    }
                    Err(error) => {
                        failed = true;
                        failures.failed(&name, &error);
                    }
                }
            }
            tokio::time::sleep(if failed { RETRY } else { PAUSE }).await;
            if failed {
                desired.mark_changed();
            }
        }
    });
    sender
}

/// The statuses that the API server showed last.
#[derive(Debug, Default)]
struct Stored {
    pools: BTreeMap<PoolName, Option<IpAddressPoolStatus>>,
    /// Pools of a list that is not complete.
    listing: BTreeMap<PoolName, Option<IpAddressPoolStatus>>,
}

impl Stored {
    fn see(&mut self, event: Event<IpAddressPool>) {
        let entry = |pool: IpAddressPool| (PoolName::from(pool.name_any().as_str()), pool.status);
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(pool) => self.listing.extend([entry(pool)]),
            Event::InitDone => self.pools = std::mem::take(&mut self.listing),
            Event::Apply(pool) => self.pools.extend([entry(pool)]),
            Event::Delete(pool) => {
                self.pools.remove(&entry(pool).0);
            }
        }
    }

    fn written(&mut self, name: PoolName, status: IpAddressPoolStatus) {
        if let Some(stored) = self.pools.get_mut(&name) {
            *stored = Some(status);
        }
    }

    /// The existing pools whose status is not the desired one.
    fn differing(&self, wanted: &BTreeMap<PoolName, IpAddressPoolStatus>) -> Vec<(PoolName, IpAddressPoolStatus)> {
        let differs = |&(name, status): &(&PoolName, &IpAddressPoolStatus)| {
            self.pools.get(name).is_some_and(|stored| stored.as_ref() != Some(status))
        };
        wanted.iter().filter(differs).map(|(name, status)| (name.clone(), status.clone())).collect()
    }
}

/// Reports each failure once, and its end.
#[derive(Debug, Default)]
struct Failures {
    reported: BTreeMap<PoolName, String>,
}

impl Failures {
    fn failed(&mut self, pool: &PoolName, error: &kube::Error) {
        let text = error.to_string();
        if self.reported.get(pool) != Some(&text) {
            tracing::warn!(%pool, %error, event = "poolStatusFailed", "cannot write the status of a pool, retrying");
            self.reported.insert(pool.clone(), text);
        }
    }

    fn ended(&mut self, pool: &PoolName) {
        if self.reported.remove(pool).is_some() {
            tracing::info!(%pool, event = "poolStatusWritten", "the status of a pool is written again");
        }
    }
}

async fn write(statuses: &StatusWriter, name: &PoolName, status: &IpAddressPoolStatus) -> Result<(), kube::Error> {
    let mut patch = json!({ "status": status });
    if status.quarantined.is_empty() {
        // An earlier controller may have left entries.
        patch["status"]["quarantined"] = serde_json::Value::Null;
    }
    match statuses.merge(name.as_str(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Pause between two rounds: at most five writes a second per pool.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::IpAddressPoolSpec;

    fn pool(name: &str, assigned: Option<i64>) -> IpAddressPool {
        let spec: IpAddressPoolSpec = serde_json::from_value(json!({ "addresses": ["10.0.0.0/30"] })).unwrap();
        let mut pool = IpAddressPool::new(name, spec);
        pool.status = assigned.map(counters);
        pool
    }

    fn counters(assigned_ipv4: i64) -> IpAddressPoolStatus {
        IpAddressPoolStatus { assigned_ipv4, available_ipv4: 4 - assigned_ipv4, ..IpAddressPoolStatus::default() }
    }

    #[test]
    fn status_is_written_where_the_stored_one_differs_however_that_came_about() {
        let wanted = BTreeMap::from([(PoolName::from("a"), counters(1)), (PoolName::from("gone"), counters(0))]);
        let mut stored = Stored::default();
        let mut step = |event: Event<IpAddressPool>| {
            stored.see(event);
            let due: Vec<String> = stored.differing(&wanted).into_iter().map(|(name, _)| name.to_string()).collect();
            for (name, status) in stored.differing(&wanted) {
                stored.written(name, status);
            }
            due
        };
        assert!(step(Event::Init).is_empty());
        assert!(step(Event::InitApply(pool("a", None))).is_empty(), "the list is not complete");
        assert_eq!(step(Event::InitDone), ["a"], "it has no status");
        assert!(step(Event::Apply(pool("a", Some(1)))).is_empty(), "the answer to the write");
        assert_eq!(step(Event::Apply(pool("a", Some(3)))), ["a"], "somebody edited it");
        assert!(step(Event::Delete(pool("a", Some(1)))).is_empty());
        assert_eq!(step(Event::Apply(pool("a", None))), ["a"], "it was created again");
    }
}
