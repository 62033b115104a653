//! core/v1 Events on Services, as upstream's users and tests read them: `source.component`, `count`, `lastTimestamp`.
//!
//! A repeated Event raises the count of the existing object, similar Events are combined, and each object has a budget
//! (`recorder`). kube's `Recorder` is not used because it writes
//! events.k8s.io/v1.

mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Event as KubeEvent, EventSource, ObjectReference as KubeObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use metallb_core::config::Problem;
use metallb_core::model::ServiceKey;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::recorder::{Admission, Outcome, Recorder, Request, SeriesId};
use crate::sink::status_verb::is_forbidden;

/// Importance of an Event.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventType {
    /// `type: Normal`
    Normal,
    /// `type: Warning`
    Warning,
}

/// The object that an Event is about (`involvedObject`).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ObjectReference {
    /// API version, such as `v1` or `metallb.io/v1beta1`.
    pub api_version: &'static str,
    /// Kind, as in YAML.
    pub kind: &'static str,
    /// Namespace of the object; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Uid of the object, which distinguishes it from a later object of the same name.
    pub uid: Option<String>,
}

/// An Event to write.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Event {
    /// The object that the Event is about.
    pub regarding: ObjectReference,
    /// Normal or Warning.
    pub event_type: EventType,
    /// Stable reason for tools.
    pub reason: String,
    /// Text for people.
    pub message: String,
}

impl Event {
    /// An Event about a Service.
    #[must_use]
    pub fn about_service(
        key: &ServiceKey,
        uid: Option<String>,
        event_type: EventType,
        reason: &str,
        message: String,
    ) -> Self {
        let regarding = ObjectReference {
            api_version: "v1",
            kind: "Service",
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid,
        };
        Self { regarding, event_type, reason: reason.to_owned(), message }
    }

    /// An Event about a Lease that controllers share.
    #[must_use]
    pub fn about_lease(namespace: &str, name: &str, reason: &str, message: &str) -> Self {
        let regarding = ObjectReference {
            api_version: "coordination.k8s.io/v1",
            kind: "Lease",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: None,
        };
        Self { regarding, event_type: EventType::Warning, reason: reason.to_owned(), message: message.to_owned() }
    }

    /// An Event about a webhook configuration that was left behind.
    #[must_use]
    pub fn about_webhooks(name: &str, uid: String, message: &str) -> Self {
        let regarding = ObjectReference {
            api_version: "admissionregistration.k8s.io/v1",
            kind: "ValidatingWebhookConfiguration",
            namespace: String::new(),
            name: name.to_owned(),
            uid: Some(uid),
        };
        let reason = "webhookLeftBehind".to_owned();
        Self { regarding, event_type: EventType::Warning, reason, message: message.to_owned() }
    }

    /// An Event about a configuration object with a problem. Without the uid, `kubectl describe` does not show it.
    #[must_use]
    pub fn about_problem(problem: &Problem, uid: Option<String>) -> Self {
        let regarding = ObjectReference {
            api_version: if problem.object.kind == "BGPPeer" { "metallb.io/v1beta2" } else { "metallb.io/v1beta1" },
            kind: problem.object.kind,
            namespace: problem.object.namespace.as_deref().unwrap_or_default().to_owned(),
            name: problem.object.name.to_string(),
            uid,
        };
        let message = format!("{}: {}", problem.field, problem.message);
        Self { regarding, event_type: EventType::Warning, reason: problem.code.as_str().to_owned(), message }
    }
}

/// Handle of the task that writes Events. Cloneable; never blocks.
#[derive(Clone, Debug)]
pub struct EventSender {
    queue: mpsc::Sender<Event>,
    /// Events that did not fit into the queue since the last log line.
    dropped: Arc<AtomicU64>,
}

impl EventSender {
    /// Queues an Event. If the queue is full, the Event is dropped and counted: Events are informational, and an
    /// announcement must never wait for the API server.
    pub fn send(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts the writer. It ends when the last sender is dropped and the queue is empty.
#[must_use]
pub fn spawn(client: Client, component: &'static str) -> (EventSender, JoinHandle<()>) {
    let (queue, mut queued) = mpsc::channel(QUEUE);
    let dropped = Arc::<AtomicU64>::default();
    let lost = Arc::clone(&dropped);
    let task = tokio::spawn(async move {
        let writer = Writer { client, component };
        let mut recorder = Recorder::default();
        let mut losses = Losses::default();
        let mut requests = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !requests.is_empty() {
            tokio::select! {
                event = queued.recv(), if is_open => match event {
                    Some(event) => {
                        if recorder.record(event, Instant::now()) == Admission::OverBudget {
                            losses.over_budget += 1;
                        }
                    }
                    None => is_open = false,
                },
                Some((id, outcome, error)) = requests.next() => {
                    recorder.ended(id, outcome);
                    losses.failed(error);
                }
            }
            while let Some(request) = recorder.next() {
                requests.push(writer.write(request));
            }
            losses.queue_full += lost.swap(0, Ordering::Relaxed);
            losses.log(Instant::now());
        }
    });
    (EventSender { queue, dropped }, task)
}

/// Events that were not written, for one log line per minute.
#[derive(Debug, Default)]
struct Losses {
    queue_full: u64,
    over_budget: u64,
    failed: u64,
    last_error: Option<String>,
    logged_at: Option<Instant>,
}

impl Losses {
    fn failed(&mut self, error: Option<Error>) {
        let Some(error) = error else { return };
        // Nothing can be created in a namespace that is being deleted.
        if matches!(&error, Error::Api(status) if status.code == 403 && status.message.contains("being terminated")) {
            return;
        }
        self.failed += 1;
        self.last_error = Some(error.to_string());
    }

    fn log(&mut self, now: Instant) {
        let is_recent = self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_LINES);
        let (queue_full, over_budget, failed) = (self.queue_full, self.over_budget, self.failed);
        if is_recent || queue_full + over_budget + failed == 0 {
            return;
        }
        let error = self.last_error.take();
        tracing::warn!(
            event = "eventsNotWritten",
            queue_full,
            over_budget,
            failed,
            error,
            "some Events were not written: the queue was full, an object had too many, or the API server refused them"
        );
        *self = Self { logged_at: Some(now), ..Self::default() };
    }
}

struct Writer {
    client: Client,
    component: &'static str,
}

impl Writer {
    /// Executes a request.
    fn write(&self, request: Request) -> impl Future<Output = (SeriesId, Outcome, Option<Error>)> + use<> {
        let events: Api<KubeEvent> = Api::namespaced(self.client.clone(), namespace(&request.event.regarding));
        let now = Timestamp::now();
        let Request { id, event, object, count } = request;
        let is_known = object.is_some();
        // The time makes the name unique, as in client-go's recorder.
        let name = object.unwrap_or_else(|| format!("{}.{:x}", event.regarding.name, now.as_nanosecond()));
        let new = self.object(&event, name.clone(), count, now);
        async move {
            let result = if is_known {
                let patch = json!({ "count": count, "lastTimestamp": Time(now), "message": event.message });
                events.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await
            } else {
                events.create(&PostParams::default(), &new).await
            };
            match result {
                Ok(_) => (id, Outcome::Written(name), None),
                Err(Error::Api(status)) if status.code == 404 && is_known => (id, Outcome::Gone, None),
                // Without the verb, each repetition is an object of its own.
                Err(error) if is_known && is_forbidden(&error, "patch") => (id, Outcome::Gone, None),
                Err(error) => (id, Outcome::Failed, Some(error)),
            }
        }
    }

    fn object(&self, event: &Event, name: String, count: i32, now: Timestamp) -> KubeEvent {
        let regarding = &event.regarding;
        KubeEvent {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace(regarding).to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: KubeObjectReference {
                api_version: Some(regarding.api_version.to_owned()),
                kind: Some(regarding.kind.to_owned()),
                namespace: Some(regarding.namespace.clone()).filter(|namespace| !namespace.is_empty()),
                name: Some(regarding.name.clone()),
                uid: regarding.uid.clone(),
                ..KubeObjectReference::default()
            },
            type_: Some(match event.event_type {
                EventType::Normal => "Normal".to_owned(),
                EventType::Warning => "Warning".to_owned(),
            }),
            reason: Some(event.reason.clone()),
            message: Some(event.message.clone()),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(count),
            ..KubeEvent::default()
        }
    }
}

/// Namespace of an Event: that of its object, or the one that the API server demands for cluster-scoped objects.
fn namespace(regarding: &ObjectReference) -> &str {
    if regarding.namespace.is_empty() { "default" } else { &regarding.namespace }
}

/// Length of the queue: one Event per Service of a large cluster at start. Further Events are dropped.
const QUEUE: usize = 16_384;

/// Time between two log lines about Events that were not written.
const BETWEEN_LINES: Duration = Duration::from_mins(1);
