//! Follows the objects of one kind and executes the requests of the ledger.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Error, Resource as _};
use metallb_core::model::ServiceKey;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::Desired;
use super::ledger::{Ledger, Object, Request};
use super::objects::{self, NODE_LABEL, Owner, StatusKind};
use crate::sink::service_status::{Failure, classify};
use crate::source::changes::Metadata;
use crate::source::watches::Backoff;
use crate::sys;

/// Starts the task that keeps the objects of one kind equal to the desired ones.
pub(super) fn spawn<K: StatusKind>(
    client: &Client,
    namespace: &str,
    node: &str,
    pod: &str,
    desired: Arc<Desired<K::Status>>,
) {
    let objects: Api<K> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (node, pod) = (node.to_owned(), pod.to_owned());
    tokio::spawn(async move {
        let owner = Owner { pod: owner_of(&pods, &pod).await, node };
        let worker = Worker {
            objects,
            owner,
            desired,
            ledger: Ledger::default(),
            requests: FuturesUnordered::new(),
            random: SmallRng::seed_from_u64(sys::seed()),
            is_failing: false,
        };
        worker.run().await;
    });
}

/// The reference to our Pod; `None` for a process without a Pod.
async fn owner_of(pods: &Api<Pod>, name: &str) -> Option<OwnerReference> {
    let mut pause = Backoff::default();
    while !name.is_empty() {
        match pods.get(name).await {
            Ok(pod) => return pod.owner_ref(&()),
            Err(error) => {
                tracing::debug!(%error, event = "ownPodUnknown", "cannot read the Pod of this process, retrying");
                tokio::time::sleep(pause.next(rand::random())).await;
            }
        }
    }
    None
}

struct Worker<K: StatusKind> {
    objects: Api<K>,
    owner: Owner,
    desired: Arc<Desired<K::Status>>,
    ledger: Ledger<K::Status>,
    /// At most [`REQUESTS`].
    requests: FuturesUnordered<BoxFuture<'static, (ServiceKey, Result<Option<K>, Error>)>>,
    random: SmallRng,
    /// Whether the log says that objects cannot be written.
    is_failing: bool,
}

impl<K: StatusKind> Worker<K> {
    async fn run(mut self) {
        let mine = watcher::Config::default().labels(&format!("{NODE_LABEL}={}", self.owner.node));
        let mut events = watcher::watcher(self.objects.clone(), mine).boxed();
        let mut pause = Backoff::default();
        let mut resume_watch = None;
        let mut listed: Vec<K> = Vec::new();
        loop {
            let now = Instant::now();
            while self.requests.len() < REQUESTS
                && let Some((service, request)) = self.ledger.next(now, |service| self.desired.of(service))
            {
                self.start(service, request);
            }
            let due = self.ledger.next_due(now);
            tokio::select! {
                () = self.desired.updated.notified() => {
                    let changed = self.desired.take_changed();
                    self.ledger.changed(changed);
                }
                Some((service, result)) = self.requests.next() => self.end(service, result),
                () = sys::sleep_until(resume_watch), if resume_watch.is_some() => resume_watch = None,
                event = events.next(), if resume_watch.is_none() => match event {
                    None => return,
                    Some(Ok(event)) => {
                        pause.reset();
                        self.follow(event, &mut listed);
                    }
                    Some(Err(error)) => {
                        tracing::debug!(
                            %error, event = "statusWatchInterrupted", "the watch of statuses was interrupted, retrying"
                        );
                        resume_watch = Some(now + pause.next(self.random.random()));
                    }
                },
                () = sys::sleep_until(due), if due.is_some() => {}
            }
        }
    }

    fn follow(&mut self, event: Event<K>, listed: &mut Vec<K>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.push(object),
            Event::InitDone => {
                let mut known = Vec::with_capacity(listed.len());
                for object in listed.drain(..) {
                    match self.owner.read(&object) {
                        Ok(read) => known.push(read),
                        Err(name) => self.discard(name),
                    }
                }
                self.ledger.listed(known, self.desired.services());
            }
            Event::Apply(object) => {
                if let Ok((service, object)) = self.owner.read(&object) {
                    self.ledger.seen(service, object);
                }
            }
            Event::Delete(object) => {
                let identity = Metadata::of(object.meta()).identity;
                if let Ok((service, _)) = self.owner.read(&object) {
                    self.ledger.gone(&service, &identity, Instant::now());
                }
            }
        }
    }

    /// Deletes an object of an older release. If this fails, the next list finds it again.
    fn discard(&self, name: String) {
        let objects = self.objects.clone();
        tokio::spawn(async move {
            if let Err(error) = objects.delete(&name, &DeleteParams::default()).await {
                tracing::debug!(%error, name, event = "statusNotDeleted", "cannot delete an outdated status object");
            }
        });
    }

    fn start(&self, service: ServiceKey, request: Request<K::Status>) {
        let (objects, owner) = (self.objects.clone(), self.owner.clone());
        let send = async move {
            let result = send(&objects, &owner, &service, request).await;
            (service, result)
        };
        self.requests.push(send.boxed());
    }

    fn end(&mut self, service: ServiceKey, result: Result<Option<K>, Error>) {
        match result {
            Ok(object) => {
                let object: Option<Object<K::Status>> =
                    object.and_then(|object| self.owner.read(&object).ok()).map(|(_, object)| object);
                self.ledger.succeeded(service, object);
                if self.is_failing && !self.ledger.has_failures() {
                    self.is_failing = false;
                    tracing::info!(
                        event = "statusesWritten", kind = %K::kind(&()), "all status objects are written again"
                    );
                }
            }
            Err(error) => {
                let failure = classify(&error, &self.owner.name::<K>(&service));
                if matches!(failure, Failure::Refused(_) | Failure::Unknown(_))
                    && !std::mem::replace(&mut self.is_failing, true)
                {
                    tracing::warn!(
                        %service, %error, event = "statusWriteFailed", kind = %K::kind(&()),
                        "cannot write a status object, retrying"
                    );
                }
                let jitter = self.random.random();
                self.ledger.failed(service, &failure, Instant::now(), jitter);
            }
        }
    }
}

/// Executes a request. Returns the object as it is afterwards, `None` if it does not exist.
async fn send<K: StatusKind>(
    objects: &Api<K>,
    owner: &Owner,
    service: &ServiceKey,
    request: Request<K::Status>,
) -> Result<Option<K>, Error> {
    let name = owner.name::<K>(service);
    match request {
        Request::Claim(status) => {
            let mut object = K::blank();
            *object.meta_mut() = owner.metadata::<K>(service);
            match objects.create(&PostParams::default(), &object).await {
                Ok(_) => {}
                // Another node, or an earlier Pod, has the object: it becomes ours.
                Err(Error::Api(answer)) if answer.code == 409 => {
                    let metadata = owner.metadata::<K>(service);
                    let ours = json!({ "metadata": {
                        "labels": metadata.labels, "ownerReferences": metadata.owner_references,
                    } });
                    objects.patch(&name, &PatchParams::default(), &Patch::Merge(ours)).await?;
                }
                Err(error) => return Err(error),
            }
            patch_status(objects, &name, &status).await
        }
        Request::Update(status) => patch_status(objects, &name, &status).await,
        Request::Delete(identity) => {
            let version = identity.version.to_string();
            let preconditions =
                Preconditions { uid: Some(identity.uid.as_str().to_owned()), resource_version: Some(version) };
            let this_version = DeleteParams::default().preconditions(preconditions);
            match objects.delete(&name, &this_version).await {
                Ok(_) => Ok(None),
                Err(Error::Api(answer)) if answer.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        }
    }
}

async fn patch_status<K: StatusKind>(objects: &Api<K>, name: &str, status: &K::Status) -> Result<Option<K>, Error> {
    let patch = Patch::Merge(objects::status_patch::<K>(status));
    objects.patch_status(name, &PatchParams::default(), &patch).await.map(Some)
}

/// Requests that run at the same time, for one kind.
const REQUESTS: usize = 16;
