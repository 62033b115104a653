//! A Lease as an object of the API: what is read from it, and what is written.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;

use super::identity::Identity;
use super::{LeaseSettings, LeaseTiming};

/// A resourceVersion as a number, which is how versions of one resource compare.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Version(u64);

impl Version {
    /// `None` for a version that is no number; such a version cannot be compared.
    pub(super) fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// The version of a Lease.
    pub(super) fn of(lease: &Lease) -> Option<Self> {
        Self::parse(lease.metadata.resource_version.as_deref()?)
    }
}

/// The holder of a Lease; `None` if it is free. client-go writes an empty text for a free Lease.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// How long a Lease of another process must be seen without a change until it is free: the larger of our own duration
/// and the one in the Lease, which is believed up to [`LeaseTiming::LONGEST`]. A Lease with no duration, or a negative
/// one, or one of a year, is therefore free after our own or the longest duration.
pub(super) fn believed_duration(lease: &Lease, timing: &LeaseTiming) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    let written = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    written.min(LeaseTiming::LONGEST).max(timing.duration)
}

/// The Lease to write for `holder`. `base` is what it replaces: its version makes the write fail when
/// another process was faster, and what people wrote into its metadata stays.
pub(super) fn claimed(base: Option<&Lease>, settings: &LeaseSettings, claimant: &Identity, now: Timestamp) -> Lease {
    let mut lease = base.cloned().unwrap_or_default();
    let before = lease.spec.take().unwrap_or_default();
    let is_renewal =
        before.holder_identity.as_deref().and_then(Identity::parse).is_some_and(|it| it.is_same_process(claimant));
    let transitions = before.lease_transitions.unwrap_or(0).max(0);
    let duration = settings.timing.duration.as_millis().div_ceil(1000);
    lease.metadata = metadata(lease.metadata, settings);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(claimant.to_string()),
        lease_duration_seconds: i32::try_from(duration).ok(),
        acquire_time: before.acquire_time.filter(|_| is_renewal).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_renewal || base.is_none() { transitions } else { transitions.saturating_add(1) }),
        ..before
    });
    lease
}

/// The Lease to write for a release.
pub(super) fn released(base: &Lease, settings: &LeaseSettings, now: Timestamp) -> Lease {
    let mut lease = base.clone();
    let before = lease.spec.take().unwrap_or_default();
    lease.metadata = metadata(lease.metadata, settings);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(String::new()),
        // A claimant that adds this to the time of the renewal, as client-go does, waits no longer than this.
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..before
    });
    lease
}

/// Without the fields that the server manages.
fn metadata(before: ObjectMeta, settings: &LeaseSettings) -> ObjectMeta {
    ObjectMeta {
        name: Some(settings.name.clone()),
        namespace: Some(settings.namespace.clone()),
        managed_fields: None,
        ..before
    }
}
