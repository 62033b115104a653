//! Follows one Lease by list and watch, so that a release is noticed at once.
//!
//! The answers may come from a cache; the elector judges how old they are. Without a watch the elector reads the Lease
//! by itself.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Error;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::keeper::Input;
use super::record::Version;

/// Lists and watches the Lease `name` until the receiver is gone. Each failure is followed by a pause of at most a
/// second.
pub(super) async fn run(leases: Api<Lease>, name: String, inputs: mpsc::Sender<Input>) {
    let mut failures = 0_u32;
    loop {
        let begun = Instant::now();
        let Err(end) = follow(&leases, &name, &inputs).await else { return };
        if inputs.send(Input::Unwatched(end)).await.is_err() {
            return;
        }
        failures = if begun.elapsed() > LASTING { 0 } else { failures.saturating_add(1) };
        tokio::time::sleep(pause(failures, crate::sys::seed())).await;
    }
}

/// One list and the watches after it; `Ok` if the receiver is dropped.
async fn follow(leases: &Api<Lease>, name: &str, inputs: &mpsc::Sender<Input>) -> Result<(), Error> {
    let field = format!("metadata.name={name}");
    let listed = leases.list(&ListParams::default().fields(&field)).await?;
    let mut version = listed.metadata.resource_version.unwrap_or_default();
    let first = match listed.items.into_iter().next() {
        Some(lease) => Input::Seen(Box::new(lease)),
        None => Input::Gone(Version::parse(&version)),
    };
    if inputs.send(first).await.is_err() || inputs.send(Input::Watched).await.is_err() {
        return Ok(());
    }
    let parameters = WatchParams::default().fields(&field);
    loop {
        let begun = Instant::now();
        let mut events = leases.watch(&parameters, &version).await?.boxed();
        while let Some(event) = events.try_next().await? {
            let input = match event {
                WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                    version = lease.metadata.resource_version.clone().unwrap_or(version);
                    Input::Seen(Box::new(lease))
                }
                WatchEvent::Deleted(lease) => {
                    version = lease.metadata.resource_version.clone().unwrap_or(version);
                    Input::Gone(Version::of(&lease))
                }
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(Error::Api(status)),
            };
            if inputs.send(input).await.is_err() {
                return Ok(());
            }
        }
        // A server ends each watch after some minutes. One that ends at once is not asked again at once.
        tokio::time::sleep(SHORTEST.saturating_sub(begun.elapsed())).await;
    }
}

/// A pause from half of its length to its whole length, so that claimants do not come back together.
fn pause(failures: u32, random: u64) -> Duration {
    let length = (FIRST_PAUSE * 2_u32.pow(failures.min(4))).min(LONGEST_PAUSE);
    let half = length / 2;
    half + Duration::from_nanos(random % u64::try_from(half.as_nanos()).unwrap_or(1).max(1))
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A watch that lasted for longer was no failure.
const LASTING: Duration = Duration::from_secs(5);

/// The time between the beginnings of two watches.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_between_tries_stays_within_a_second() {
        for failures in 0..40 {
            for random in [0, 1, u64::MAX / 2, u64::MAX] {
                let pause = pause(failures, random);
                assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{failures}: {pause:?}");
            }
        }
    }
}
