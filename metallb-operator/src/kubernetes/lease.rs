//! One writer among controllers: a `coordination.k8s.io/v1` Lease.
//!
//! During a rolling update two controllers run at once. Both follow the cluster; only the holder of the Lease writes, so no
//! address is ever given twice. A holder that cannot renew stops writing before the Lease runs out.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Who claims which Lease.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Identity of this process, unique among all that run.
    pub identity: String,
}

/// Keeps claiming in the background. The receiver is true while this process is the leader; `shutdown` gives the Lease back,
/// so that a successor need not wait for it to run out.
#[must_use]
pub fn spawn(
    client: Client,
    claimant: Claimant,
    mut shutdown: watch::Receiver<bool>,
) -> (watch::Receiver<bool>, JoinHandle<()>) {
    let (leader, is_leader) = watch::channel(false);
    let task = tokio::spawn(async move {
        let leases: Api<Lease> = Api::namespaced(client, &claimant.namespace);
        let mut held_since: Option<std::time::Instant> = None;
        loop {
            // The Lease must be counted from before the request: the server may have stored it long before the answer came.
            let asked = std::time::Instant::now();
            match tokio::time::timeout(REQUEST_TIMEOUT, claimant.claim(&leases)).await {
                Ok(Ok(true)) => held_since = Some(asked),
                Ok(Ok(false)) => held_since = None,
                Ok(Err(error)) => {
                    tracing::warn!(%error, lease = claimant.lease, "lease could not be claimed, retrying");
                }
                Err(_) => tracing::warn!(lease = claimant.lease, "lease could not be claimed in time, retrying"),
            }
            let leads = held_since.is_some_and(|since| since.elapsed() < DURATION - RENEW_EVERY);
            leader.send_if_modified(|was| {
                let changed = *was != leads;
                if changed {
                    tracing::info!(lease = claimant.lease, leads, "leadership changed");
                }
                *was = leads;
                changed
            });
            let pause = if leads { RENEW_EVERY } else { RETRY_EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = shutdown.wait_for(|stop| *stop) => break,
            }
        }
        leader.send_replace(false);
        if held_since.is_some() {
            // Best effort: when it fails the successor waits until the Lease runs out.
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, claimant.give_back(&leases)).await;
        }
    });
    (is_leader, task)
}

impl Claimant {
    /// One attempt: true when the Lease is ours now. Competing writers are told apart by resourceVersion.
    async fn claim(&self, leases: &Api<Lease>) -> Result<bool, Error> {
        let now = Timestamp::now();
        let claimed = match leases.get_opt(&self.lease).await? {
            None => leases.create(&PostParams::default(), &self.lease_object(None, 0, now)).await,
            Some(current) if self.may_take(&current, now) => {
                let transitions = current.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
                let transitions = if self.holds(&current) { transitions } else { transitions.saturating_add(1) };
                let version = current.metadata.resource_version;
                leases.replace(&self.lease, &PostParams::default(), &self.lease_object(version, transitions, now)).await
            }
            Some(_) => return Ok(false),
        };
        match claimed {
            Ok(_) => Ok(true),
            // Somebody else was quicker.
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn give_back(&self, leases: &Api<Lease>) -> Result<(), Error> {
        let current = leases.get(&self.lease).await?;
        if !self.holds(&current) {
            return Ok(());
        }
        let mut released = current;
        if let Some(spec) = &mut released.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        leases.replace(&self.lease, &PostParams::default(), &released).await.map(|_| ())
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(self.identity.as_str())
    }

    fn may_take(&self, lease: &Lease, now: Timestamp) -> bool {
        let Some(spec) = &lease.spec else { return true };
        if spec.holder_identity.as_deref().is_none_or(|holder| holder.is_empty() || holder == self.identity) {
            return true;
        }
        let lasts = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(0)));
        spec.renew_time.as_ref().is_none_or(|renewed| renewed.0.duration_until(now) > lasts)
    }

    fn lease_object(&self, resource_version: Option<String>, transitions: i32, now: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.lease.clone()),
                namespace: Some(self.namespace.clone()),
                resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                renew_time: Some(MicroTime(now)),
                acquire_time: Some(MicroTime(now)),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// How long a Lease is valid without renewal.
const DURATION: Duration = Duration::from_secs(15);

/// How often the holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How often the others try.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// A request that takes longer counts as failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(identity: &str) -> Claimant {
        Claimant { namespace: "ns".into(), lease: "metallb-controller".into(), identity: identity.into() }
    }

    #[test]
    fn lease_of_another_is_taken_only_after_it_ran_out() {
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        let held = claimant("a").lease_object(None, 0, start);
        let inside = start + SignedDuration::from_secs(15);
        let after = start + SignedDuration::from_secs(16);
        assert!(claimant("a").may_take(&held, inside));
        assert!(!claimant("b").may_take(&held, inside));
        assert!(claimant("b").may_take(&held, after));
    }

    #[test]
    fn lease_given_back_is_free_at_once() {
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        let mut lease = claimant("a").lease_object(None, 0, start);
        lease.spec.as_mut().unwrap().holder_identity = None;
        assert!(claimant("b").may_take(&lease, start));
    }
}
