//! Watches as streams of plain changes: a kind is listed once, then followed for ever.
//!
//! A relist arrives as one [`Change::Reset`], so that an object deleted while the watch was broken cannot linger. An object
//! that cannot be decoded is reported and skipped; the rest of its kind keeps flowing.

use std::fmt::Debug;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::Resource;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// One change of one kind.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// All objects of the kind, as just listed.
    Reset(Vec<K>),
    /// An object that appeared or changed.
    Apply(K),
    /// An object that is gone, as it was last seen.
    Delete(K),
}

/// Follows `api` and sends each change, wrapped by `wrap`, until the receiver is gone. Errors are retried with back-off
/// for ever: an API server that is away must change nothing.
pub fn spawn<K, M>(
    api: Api<DeserializeGuard<K>>,
    queue: mpsc::Sender<M>,
    wrap: impl Fn(Change<K>) -> M + Send + 'static,
) -> JoinHandle<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    M: Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    tokio::spawn(async move {
        let mut listed: Option<Vec<K>> = None;
        let mut events = watch(api, watcher::Config::default()).default_backoff().boxed();
        loop {
            let event = match events.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, kind, "watch interrupted, retrying");
                    continue;
                }
            };
            let change = match event {
                Event::Init => {
                    listed = Some(Vec::new());
                    continue;
                }
                Event::InitApply(object) => {
                    if let (Some(listed), Some(object)) = (&mut listed, decoded(object, &kind)) {
                        listed.push(object);
                    }
                    continue;
                }
                Event::InitDone => Change::Reset(listed.take().unwrap_or_default()),
                Event::Apply(object) => match decoded(object, &kind) {
                    Some(object) => Change::Apply(object),
                    None => continue,
                },
                Event::Delete(object) => match decoded(object, &kind) {
                    Some(object) => Change::Delete(object),
                    None => continue,
                },
            };
            if queue.send(wrap(change)).await.is_err() {
                return;
            }
        }
    })
}

fn decoded<K>(object: DeserializeGuard<K>, kind: &str) -> Option<K> {
    match object.0 {
        Ok(object) => Some(object),
        Err(error) => {
            let name = error.metadata.name.as_deref().unwrap_or("?");
            let namespace = error.metadata.namespace.as_deref().unwrap_or("");
            tracing::error!(kind, namespace, name, error = error.error, "object skipped, it cannot be decoded");
            None
        }
    }
}
