//! Detects a restore of etcd from a snapshot, for a process that writes too rarely to detect it by its own writes.
//!
//! After a restore, watches continue silently, although objects reverted to older versions. The controllers renew their
//! Lease every second, and etcd itself answers a GET, so a version below an earlier one proves the restore. Controllers
//! do not need this module, because they renew the Lease themselves.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use tokio::sync::watch;

/// Reads the Lease periodically. The receiver counts restores.
pub(crate) fn spawn(client: Client, namespace: &str, lease: &'static str) -> watch::Receiver<u64> {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let (found, restores) = watch::channel(0);
    tokio::spawn(async move {
        let mut highest = None;
        loop {
            tokio::time::sleep(PERIOD).await;
            // A Lease that cannot be read proves nothing.
            let Ok(metadata) = leases.get_metadata(lease).await else { continue };
            let version = metadata.metadata.resource_version.and_then(|version| version.parse().ok());
            if went_back(&mut highest, version) {
                tracing::warn!(
                    event = "restoreDetected",
                    lease,
                    "etcd was restored from a snapshot, listing all objects again"
                );
                found.send_modify(|count| *count += 1);
            }
        }
    });
    restores
}

/// Records a version; true if it is below an earlier one.
fn went_back(highest: &mut Option<u64>, version: Option<u64>) -> bool {
    let Some(version) = version else { return false };
    let before = highest.replace(version);
    before.is_some_and(|before| version < before)
}

/// Interval of reads. Limits the time until a restore is detected, at two requests a minute.
const PERIOD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_is_a_version_below_an_earlier_one() {
        let mut highest = None;
        let rows =
            [(Some(10), false), (Some(10), false), (Some(12), false), (None, false), (Some(7), true), (Some(8), false)];
        for (version, expected) in rows {
            assert_eq!(went_back(&mut highest, version), expected, "{version:?}");
        }
    }
}
