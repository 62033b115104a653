//! The thread that keeps the Lease: it executes the decisions of the elector and publishes the state of the leadership.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::elector::{Elector, End, Request};
use super::forbidden::{self, Forbidden};
use super::grant::Grant;
use super::identity::PodUid;
use super::journal::Journal;
use super::lock::PodLock;
use super::record::Version;
use super::{Claim, LeaseSettings, RELEASE_LIMIT, Standing, follow};
use crate::client;
use crate::sink::status_verb::is_forbidden;
use crate::sys;

/// Messages of other tasks to the keeper.
#[derive(Debug)]
pub(super) enum Input {
    /// The Lease, as a list or a watch shows it.
    Seen(Box<Lease>),
    /// There is no Lease, as of this version.
    Gone(Option<Version>),
    /// A watch follows the Lease from now on.
    Watched,
    /// No watch follows the Lease.
    Unwatched(Error),
    /// The uid of the Pod; `None` when the API server does not tell it.
    Pod(Option<PodUid>),
    /// Whether the Role lacks a verb for the Lease.
    Reviewed(bool),
}

/// Publishes the state. Dropping it ends the leadership.
#[derive(Debug)]
pub(super) struct Office {
    standing: watch::Sender<Standing>,
    grant: Arc<Grant>,
}

impl Office {
    pub(super) const fn new(standing: watch::Sender<Standing>, grant: Arc<Grant>) -> Self {
        Self { standing, grant }
    }

    fn publish(&self, elector: &Elector, claim: Claim) {
        // Before the standing, so that a reader that learns of a term may write in it.
        match elector.grant() {
            Some((term, until)) => self.grant.give(term, until),
            None => self.grant.withdraw(),
        }
        let standing = elector.standing(claim);
        self.standing.send_if_modified(|before| std::mem::replace(before, standing) != standing);
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.grant.withdraw();
        self.standing.send_if_modified(|standing| standing.term.take().is_some());
    }
}

/// Runs until `released` is answered or dropped.
pub(super) fn run(config: kube::Config, settings: &LeaseSettings, office: Office, released: oneshot::Receiver<()>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, event = "leaseKeeperFailed", "cannot start the runtime that keeps the Lease");
            return;
        }
    };
    runtime.block_on(async {
        // As client-go's callers do: a request that hangs leaves the time for another one.
        let limit = settings.timing.deadline / 2;
        match client::with_limit(config, limit) {
            Ok(client) => Keeper::new(client, settings, office).run(released).await,
            Err(error) => {
                tracing::error!(%error, event = "leaseKeeperFailed", "cannot build the client that keeps the Lease");
            }
        }
    });
    // A pending name resolution must not delay the end.
    runtime.shutdown_background();
}

struct Keeper<'a> {
    settings: &'a LeaseSettings,
    leases: Api<Lease>,
    pods: Api<Pod>,
    elector: Elector,
    office: Office,
    uid: Option<PodUid>,
    lock: Option<PodLock>,
    journal: Journal,
    rewinds: u64,
    forbidden: Forbidden,
}

impl<'a> Keeper<'a> {
    fn new(client: Client, settings: &'a LeaseSettings, office: Office) -> Self {
        Self {
            settings,
            leases: Api::namespaced(client.clone(), &settings.namespace),
            pods: Api::namespaced(client, &settings.namespace),
            elector: Elector::new(settings.clone()),
            office,
            uid: settings.identity.uid().cloned(),
            lock: None,
            journal: Journal::new(&settings.name),
            rewinds: 0,
            forbidden: Forbidden::default(),
        }
    }

    async fn run(mut self, released: oneshot::Receiver<()>) {
        // Each sender waits when the queue is full; the keeper empties it between two requests.
        let (sender, mut inputs) = mpsc::channel(16);
        if self.uid.is_none() && !self.settings.identity.pod().is_empty() {
            tokio::spawn(ask_for_uid(self.pods.clone(), self.settings.identity.pod().to_owned(), sender.clone()));
            // The first signature in the Lease should name the Pod, but nothing depends on it.
            if let Ok(Some(input)) = tokio::time::timeout(UID_LIMIT, inputs.recv()).await {
                self.take(input);
            }
        }
        let mut follower = self.follow(&sender);
        let mut released = Some(released);
        let mut last: Option<Instant> = None;
        let mut under_way: Option<Pin<Box<dyn Future<Output = Answer>>>> = None;
        let mut sent = Instant::now();
        loop {
            self.take_lock();
            let step = self.elector.poll(Instant::now(), Timestamp::now());
            self.office.publish(&self.elector, self.claim());
            self.journal.claimed(self.claim());
            if self.forbidden.take_review(Instant::now()) {
                let (client, settings) = (self.leases.clone().into_client(), self.settings);
                tokio::spawn(review(client, settings.namespace.clone(), settings.name.clone(), sender.clone()));
            }
            self.journal.turned(self.elector.take_turns());
            if self.elector.is_released() || last.is_some_and(|last| last <= Instant::now()) {
                break;
            }
            if let Some(request) = step.request {
                sent = Instant::now();
                under_way = Some(Box::pin(send(self.leases.clone(), self.settings.name.clone(), request)));
            }
            if self.rewinds != self.elector.rewinds() {
                self.rewinds = self.elector.rewinds();
                follower.abort();
                follower = self.follow(&sender);
            }
            let wake = [step.wake, last, self.lock_retry()].into_iter().flatten().min();
            tokio::select! {
                answer = or_never(&mut under_way) => {
                    under_way = None;
                    self.journal.answered(answer.error.as_ref());
                    let now = Instant::now();
                    self.forbidden.answered(now, answer.permission());
                    self.elector.ended(now, answer.end);
                    if self.forbidden.leads(now) {
                        self.elector.lead_without_lease(now, sent);
                    }
                }
                Some(input) = inputs.recv() => self.take(input),
                () = sys::sleep_until(wake) => {}
                asked = or_never(&mut released) => {
                    released = None;
                    if asked.is_err() {
                        break;
                    }
                    self.elector.release();
                    last = Some(Instant::now() + RELEASE_LIMIT);
                }
            }
        }
        if last.is_some() && !self.elector.is_released() {
            self.journal.not_released();
        }
    }

    fn follow(&self, inputs: &mpsc::Sender<Input>) -> JoinHandle<()> {
        tokio::spawn(follow::run(self.leases.clone(), self.settings.name.clone(), inputs.clone()))
    }

    fn take(&mut self, input: Input) {
        let now = Instant::now();
        if matches!(input, Input::Seen(_) | Input::Gone(_) | Input::Watched) {
            self.forbidden.answered(now, forbidden::Answer::Allowed);
        }
        match input {
            Input::Seen(lease) => self.elector.observe(now, lease),
            Input::Gone(version) => self.elector.observe_absence(now, version),
            Input::Watched => {
                self.elector.follow(true);
                self.journal.watched(None);
            }
            Input::Unwatched(error) => {
                self.elector.follow(false);
                self.journal.watched(Some(&error));
            }
            Input::Pod(uid) => self.uid = uid,
            Input::Reviewed(is_denied) => self.forbidden.reviewed(now, is_denied),
        }
    }

    fn claim(&self) -> Claim {
        match self.forbidden.claim() {
            Claim::Waived if !self.elector.has_seen_nothing() => Claim::Refused,
            claim => claim,
        }
    }

    /// Takes the lock of the Pod as soon as no other process of the Pod holds it.
    fn take_lock(&mut self) {
        let (None, Some(uid)) = (&self.lock, &self.uid) else { return };
        match PodLock::take(&self.settings.name, uid) {
            Ok(lock) => {
                self.lock = Some(lock);
                self.elector.hold_pod_lock(uid.clone());
                self.journal.locked(None);
            }
            Err(error) => self.journal.locked(Some(&error)),
        }
    }

    fn lock_retry(&self) -> Option<Instant> {
        (self.lock.is_none() && self.uid.is_some()).then(|| Instant::now() + self.settings.timing.renew_every)
    }
}

/// The result of a request, and its error.
struct Answer {
    end: End,
    error: Option<Error>,
}

impl Answer {
    /// The permission that the answer proves.
    fn permission(&self) -> forbidden::Answer {
        match (&self.end, &self.error) {
            (End::Done(_) | End::Absent | End::Conflict, _) => forbidden::Answer::Allowed,
            (_, Some(error)) if ["get", "create", "update"].iter().any(|verb| is_forbidden(error, verb)) => {
                forbidden::Answer::Forbidden
            }
            _ => forbidden::Answer::Other,
        }
    }
}

/// Asks the API server whether the Role of this process lacks a verb that a claim needs, and reports the answer. Every
/// account may ask.
async fn review(client: Client, namespace: String, name: String, inputs: mpsc::Sender<Input>) {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    let mut is_denied = false;
    for verb in ["get", "create", "update"] {
        let attributes = ResourceAttributes {
            group: Some("coordination.k8s.io".to_owned()),
            resource: Some("leases".to_owned()),
            namespace: Some(namespace.clone()),
            // RBAC cannot limit a creation by name.
            name: (verb != "create").then(|| name.clone()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let asked = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = reviews.create(&PostParams::default(), &asked).await;
        is_denied |= answer.is_ok_and(|review| review.status.is_some_and(|status| !status.allowed));
    }
    // The receiver is gone only when the keeper ends.
    let _ = inputs.send(Input::Reviewed(is_denied)).await;
}

async fn send(leases: Api<Lease>, name: String, request: Request) -> Answer {
    let parameters = PostParams::default();
    let (answer, is_creation) = match request {
        Request::Get => (leases.get(&name).await, false),
        Request::Create(lease) => (leases.create(&parameters, &lease).await, true),
        Request::Update(lease) => (leases.replace(&name, &parameters, &lease).await, false),
    };
    let error = match answer {
        Ok(lease) => return Answer { end: End::Done(Box::new(lease)), error: None },
        Err(error) => error,
    };
    let code = if let Error::Api(status) = &error { status.code } else { 0 };
    match code {
        409 => Answer { end: End::Conflict, error: None },
        404 if !is_creation => Answer { end: End::Absent, error: None },
        // The namespace is not there, the Role forbids it, or the server has too much to do.
        400..500 => Answer { end: End::Refused, error: Some(error) },
        _ => Answer { end: End::Unknown, error: Some(error) },
    }
}

/// Reports the uid of the Pod once the API server has returned it.
async fn ask_for_uid(pods: Api<Pod>, pod: String, inputs: mpsc::Sender<Input>) {
    loop {
        match tokio::time::timeout(UID_LIMIT, pods.get_metadata_opt(&pod)).await {
            Ok(Ok(found)) => {
                let uid = found.and_then(|pod| PodUid::parse(&pod.metadata.uid?));
                // The receiver is gone only when the keeper ends.
                let _ = inputs.send(Input::Pod(uid)).await;
                return;
            }
            Ok(Err(Error::Api(status))) if (400..500).contains(&status.code) => {
                let _ = inputs.send(Input::Pod(None)).await;
                return;
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(UID_LIMIT).await,
        }
    }
}

async fn or_never<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// For how long the uid of the Pod is waited for, and how long one request for it may take.
const UID_LIMIT: Duration = Duration::from_secs(1);
