//! Follows one kind of the Kubernetes API: lists it once, then watches it.
//!
//! The watcher of kube-runtime hides the versions of lists. Without them, an outdated answer of a lagging server looks
//! like a change (`docs/design/0029-own-list-and-watch-loop.md`).
//!
//! If the API server is unreachable, refuses, or no longer knows the kind, the last content stays, and the next attempt
//! follows within two seconds. An object that cannot be decoded is reported, and the other objects are still followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::Resource;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::DeserializeGuard;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub(crate) use self::pace::Backoff;
use self::pace::Outage;
use self::position::{Failure, Next, Position};
pub use crate::source::changes::{Change, Listed, Round};
use crate::source::changes::{Metadata, ObjectName, Undecodable, Version};

mod pace;
mod position;

/// What the owner of a watch asks of it. A new round interrupts whatever the watch does, and it lists anew at once.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// The current round.
    pub round: Round,
    /// The last round in which the owner forgot all versions.
    pub forgotten: Round,
    /// Version of the newest answer that the owner got elsewhere: a list below it is outdated.
    pub floor: Option<Version>,
}

/// Follows `api` and sends each change, wrapped by `wrap`, until the receiver or the owner of `demand` is dropped.
pub fn spawn<K, M>(
    api: Api<DeserializeGuard<K>>,
    demand: watch::Receiver<Demand>,
    queue: mpsc::Sender<M>,
    wrap: impl Fn(Change<K>) -> M + Send + Sync + 'static,
) -> JoinHandle<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    M: Send + 'static,
{
    let follower = Follower {
        api,
        kind: K::kind(&()).into_owned(),
        queue,
        wrap,
        position: Position::default(),
        undecodable: BTreeMap::new(),
        backoff: Backoff::default(),
        outage: Outage::default(),
        is_polled: false,
        random: SmallRng::seed_from_u64(crate::sys::seed()),
    };
    tokio::spawn(follower.run(demand))
}

struct Follower<K, M, W> {
    api: Api<DeserializeGuard<K>>,
    kind: String,
    queue: mpsc::Sender<M>,
    wrap: W,
    position: Position,
    /// Objects that were reported as undecodable, and their versions.
    undecodable: BTreeMap<ObjectName, Version>,
    backoff: Backoff,
    outage: Outage,
    /// Whether the log says that the kind is listed but not watched.
    is_polled: bool,
    random: SmallRng,
}

impl<K, M, W> Follower<K, M, W>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    M: Send + 'static,
    W: Fn(Change<K>) -> M + Send + Sync + 'static,
{
    async fn run(mut self, mut demand: watch::Receiver<Demand>) {
        let queue = self.queue.clone();
        loop {
            let asked = demand.borrow_and_update().clone();
            self.position.meet(&asked);
            // An interrupted step may lose an event; the list that follows contains it.
            tokio::select! {
                () = queue.closed() => return,
                changed = demand.changed() => if changed.is_err() { return },
                () = self.step(&asked) => {}
            }
        }
    }

    /// One list or one watch, and the pause after a failure.
    async fn step(&mut self, asked: &Demand) {
        let end = match self.position.next() {
            Next::List => self.list(asked).await,
            Next::Watch(from) => self.watch(&from).await,
        };
        let Err(failure) = end else { return };
        self.position.failed(&failure);
        if failure.forbids_watch() {
            if !std::mem::replace(&mut self.is_polled, true) {
                tracing::info!(
                    kind = self.kind, error = %failure, event = "kindPolled",
                    "the Role forbids watch, the kind is listed every 30 s"
                );
            }
            sleep(POLL).await;
            return;
        }
        if self.outage.failed(Instant::now(), failure.cause()) {
            tracing::warn!(
                kind = self.kind, error = %failure, event = "watchInterrupted",
                "cannot list or watch a kind, its last content stays in use"
            );
        }
        sleep(self.backoff.next(self.random.random())).await;
    }

    async fn list(&mut self, asked: &Demand) -> Result<(), Failure> {
        let mut params = ListParams::default().limit(PAGE);
        let (mut found, mut version) = (Vec::new(), None);
        loop {
            let page = self.api.list(&params).await?;
            let read =
                page.metadata.resource_version.filter(|version| !version.is_empty()).ok_or(Failure::NoVersion)?;
            let read = Version::from(read.as_str());
            // A list is valid only if all pages have one version.
            if version.get_or_insert_with(|| read.clone()) != &read {
                return Err(Failure::Torn);
            }
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        let version = version.ok_or(Failure::NoVersion)?;
        self.position.listed(&version, asked)?;
        self.followed();
        let (mut objects, mut undecodable) = (Vec::with_capacity(found.len()), Vec::new());
        for object in found {
            match self.decoded(object) {
                Ok(object) => objects.push(object),
                Err(broken) => undecodable.push(broken),
            }
        }
        let still: BTreeSet<&ObjectName> = undecodable.iter().map(|broken| &broken.metadata.name).collect();
        self.undecodable.retain(|name, _| still.contains(name));
        self.send(Change::Reset(Listed { objects, undecodable, version, round: asked.round })).await;
        Ok(())
    }

    async fn watch(&mut self, from: &Version) -> Result<(), Failure> {
        let seconds = self.random.random_range(WATCH_SECONDS);
        let (params, from) = (WatchParams::default().timeout(seconds), from.to_string());
        let answer = timeout(OPENING, self.api.watch(&params, &from)).await;
        let mut events = answer.map_err(|_| Failure::NoAnswer)??.boxed();
        self.followed();
        let opened = Instant::now();
        let deadline = opened + Duration::from_secs(seconds.into()) + OPENING;
        let mut is_silent = true;
        let end = loop {
            let event = match timeout_at(deadline, events.try_next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Err(error)) => break Err(error.into()),
                // A watch that outlives its time is on a dead connection: it goes on from where it was on another one.
                Ok(Ok(None)) | Err(_) => break Ok(()),
            };
            if let Err(failure) = self.take(event).await {
                break Err(failure);
            }
            is_silent = false;
        };
        if is_silent && opened.elapsed() < SHORT {
            return end.and(Err(Failure::Short));
        }
        self.backoff.reset();
        end
    }

    async fn take(&mut self, event: WatchEvent<DeserializeGuard<K>>) -> Result<(), Failure> {
        match event {
            WatchEvent::Bookmark(bookmark) => self.position.saw(&bookmark.metadata.resource_version.as_str().into()),
            WatchEvent::Error(status) => return Err(Failure::Ended(status)),
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.position.saw(&Metadata::of(object.meta()).identity.version);
                let change = self.decoded(object).map_or_else(Change::Broken, Change::Apply);
                self.send(change).await;
            }
            WatchEvent::Deleted(object) => {
                let metadata = Metadata::of(object.meta());
                self.position.saw(&metadata.identity.version);
                self.undecodable.remove(&metadata.name);
                self.send(Change::Delete(metadata)).await;
            }
        }
        Ok(())
    }

    /// The object, or an undecodable one, which is reported once per version.
    fn decoded(&mut self, object: DeserializeGuard<K>) -> Result<K, Undecodable> {
        let metadata = Metadata::of(object.meta());
        match object.0 {
            Ok(object) => {
                self.undecodable.remove(&metadata.name);
                Ok(object)
            }
            Err(error) => {
                let Metadata { name, identity } = &metadata;
                let before = self.undecodable.insert(name.clone(), identity.version.clone());
                if before.as_ref() != Some(&identity.version) {
                    tracing::error!(
                        kind = self.kind, namespace = %name.namespace, name = %name.name, error = error.error,
                        event = "objectUndecodable", "cannot decode an object, its last good form stays in use"
                    );
                }
                Err(Undecodable { metadata, error: error.error })
            }
        }
    }

    /// Records that the kind is followed again.
    fn followed(&mut self) {
        if self.outage.ended() {
            tracing::info!(kind = self.kind, event = "watchResumed", "a kind is listed and watched again");
        }
    }

    async fn send(&self, change: Change<K>) {
        // The receiver is dropped only when the process ends, and then this task ends too.
        let _ = self.queue.send((self.wrap)(change)).await;
    }
}

/// Objects per page, as `kubectl` asks for.
const PAGE: u32 = 500;

/// Duration of a watch: below the limits of load balancers and of the runtime, and random to spread the load.
const WATCH_SECONDS: std::ops::RangeInclusive<u32> = 260..=290;

/// Time limit for the first answer to a watch.
const OPENING: Duration = Duration::from_secs(10);

/// Pause between two lists of a kind that may not be watched.
const POLL: Duration = Duration::from_secs(30);

/// A watch that ends sooner and without an event is a failure: a pause follows.
const SHORT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
