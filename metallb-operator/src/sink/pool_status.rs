//! Writes the counters of pools into their status. A newer state replaces an older one, so a burst costs few requests.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use metallb_core::model::PoolName;
use serde_json::json;
use tokio::sync::watch;

use crate::api::{IpAddressPool, IpAddressPoolStatus};
use crate::sink::lease::{Leadership, Term};

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
    let pools: Api<IpAddressPool> = Api::namespaced(client, namespace);
    tokio::spawn(async move {
        let mut written: BTreeMap<PoolName, IpAddressPoolStatus> = BTreeMap::new();
        let mut term = None;
        while desired.changed().await.is_ok() {
            let wanted = desired.borrow_and_update().clone();
            let Some(current) = wanted.term else { continue };
            if term.replace(current) != Some(current) {
                // Another leader may have written since.
                written.clear();
            }
            written.retain(|name, _| wanted.pools.contains_key(name));
            let mut failed = false;
            for (name, status) in &wanted.pools {
                if written.get(name) == Some(status) || !leadership.may_write(current) {
                    continue;
                }
                match write(&pools, name, status).await {
                    Ok(()) => {
                        written.insert(name.clone(), status.clone());
                    }
                    Err(error) => {
                        failed = true;
                        tracing::debug!(
                            pool = %name, %error, event = "poolStatusFailed",
                            "cannot write the status of a pool, retrying"
                        );
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

async fn write(pools: &Api<IpAddressPool>, name: &PoolName, status: &IpAddressPoolStatus) -> Result<(), kube::Error> {
    let mut patch = json!({ "status": status });
    if status.quarantined.is_empty() {
        // An earlier controller may have left entries.
        patch["status"]["quarantined"] = serde_json::Value::Null;
    }
    match pools.patch_status(name.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Pause between two rounds: at most five writes a second per pool.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(1);
