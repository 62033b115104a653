//! Who held the controllers' Lease, and since when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use tokio::task::JoinHandle;

/// Follows the Lease until it is dropped.
#[derive(Debug)]
pub(crate) struct LeaseLog {
    terms: Arc<Mutex<Vec<Term>>>,
    following: JoinHandle<()>,
}

/// One holder of the Lease; empty where it was given back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Term {
    pub(crate) holder: String,
    pub(crate) since: Instant,
}

// === impl LeaseLog ===

impl LeaseLog {
    pub(crate) fn start(client: Client) -> Self {
        let leases: Api<Lease> = Api::namespaced(client, "metallb-system");
        let terms = Arc::new(Mutex::new(Vec::new()));
        let following = tokio::spawn(follow(leases, Arc::clone(&terms)));
        Self { terms, following }
    }

    /// All terms so far, the releases in between included.
    pub(crate) fn terms(&self) -> Vec<Term> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who holds it; empty if nobody does.
    pub(crate) fn holder(&self) -> String {
        self.terms().pop().map(|term| term.holder).unwrap_or_default()
    }

    /// Waits until it is held by another than this one; returns since when.
    pub(crate) async fn other_than(&self, holder: &str, patience: Duration) -> Option<Instant> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(term) = self.terms().pop()
                && !term.holder.is_empty()
                && term.holder != holder
            {
                return Some(term.since);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

impl Drop for LeaseLog {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn follow(leases: Api<Lease>, terms: Arc<Mutex<Vec<Term>>>) {
    // From the beginning: the first events tell the state.
    let mut version = "0".to_owned();
    loop {
        let only = WatchParams::default().fields("metadata.name=metallb-controller");
        let Ok(stream) = leases.watch(&only, &version).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut stream = stream.boxed();
        while let Ok(Some(event)) = stream.try_next().await {
            let holder = match event {
                WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                    version = lease.resource_version().unwrap_or_default();
                    lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
                }
                WatchEvent::Deleted(lease) => {
                    version = lease.resource_version().unwrap_or_default();
                    String::new()
                }
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(_) => {
                    version = "0".to_owned();
                    break;
                }
            };
            let mut terms = terms.lock().unwrap_or_else(PoisonError::into_inner);
            if terms.last().is_none_or(|term: &Term| term.holder != holder) {
                terms.push(Term { holder, since: Instant::now() });
            }
        }
    }
}
