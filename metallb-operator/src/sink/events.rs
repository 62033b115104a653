//! core/v1 Events on Services, as upstream's users and tests read them: `source.component`, `count`, `lastTimestamp`.
//!
//! A repeated Event raises the count of the existing object. kube's `Recorder` is not used because it writes
//! events.k8s.io/v1.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

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
    /// Namespace of the object.
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
    pub fn about_lease(namespace: &str, name: &str, message: &str) -> Self {
        let regarding = ObjectReference {
            api_version: "coordination.k8s.io/v1",
            kind: "Lease",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: None,
        };
        Self {
            regarding,
            event_type: EventType::Warning,
            reason: "restoreDetected".to_owned(),
            message: message.to_owned(),
        }
    }

    /// An Event about a configuration object with a problem.
    #[must_use]
    pub fn about_problem(problem: &Problem) -> Self {
        let regarding = ObjectReference {
            api_version: if problem.object.kind == "BGPPeer" { "metallb.io/v1beta2" } else { "metallb.io/v1beta1" },
            kind: problem.object.kind,
            namespace: problem.object.namespace.as_deref().unwrap_or_default().to_owned(),
            name: problem.object.name.to_string(),
            uid: None,
        };
        let message = format!("{}: {}", problem.field, problem.message);
        Self { regarding, event_type: EventType::Warning, reason: problem.code.as_str().to_owned(), message }
    }
}

/// Handle of the task that writes Events. Cloneable; never blocks.
#[derive(Clone, Debug)]
pub struct EventSender {
    queue: mpsc::Sender<Event>,
}

impl EventSender {
    /// Queues an Event. If the queue is full, the Event is dropped and logged: Events are informational, and an
    /// announcement must never wait for the API server.
    pub fn send(&self, event: Event) {
        if let Err(error) = self.queue.try_send(event) {
            let event = match error {
                mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => event,
            };
            tracing::warn!(
                event = "eventDropped",
                reason = event.reason,
                message = event.message,
                "the queue of Events is full, an Event was dropped"
            );
        }
    }
}

/// Starts the writer. It ends when the last sender is dropped and the queue is empty.
#[must_use]
pub fn spawn(client: Client, component: &'static str) -> (EventSender, JoinHandle<()>) {
    let (queue, mut queued) = mpsc::channel(QUEUE);
    let task = tokio::spawn(async move {
        let mut writer = Writer { client, component, written: HashMap::new() };
        while let Some(event) = queued.recv().await {
            if let Err(error) = writer.write(&event).await {
                tracing::warn!(
                    %error, event = "eventWriteFailed", reason = event.reason, "cannot write an Event"
                );
            }
        }
    });
    (EventSender { queue }, task)
}

struct Writer {
    client: Client,
    component: &'static str,
    /// Written Events: the hash of the Event, the name of the object, and its count.
    written: HashMap<u64, (String, i32)>,
}

impl Writer {
    async fn write(&mut self, event: &Event) -> Result<(), Error> {
        let events: Api<KubeEvent> = Api::namespaced(self.client.clone(), &event.regarding.namespace);
        let now = Timestamp::now();
        let mut hasher = DefaultHasher::new();
        event.hash(&mut hasher);
        let identity = hasher.finish();

        if let Some((name, count)) = self.written.get_mut(&identity) {
            let patch = json!({ "count": *count + 1, "lastTimestamp": Time(now) });
            match events.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // The API server deletes Events after an hour: create it again.
                Err(Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }

        // The time makes the name unique, as in client-go's recorder.
        let name = format!("{}.{:x}", event.regarding.name, now.as_nanosecond());
        let object = self.object(event, name.clone(), now);
        events.create(&PostParams::default(), &object).await?;
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        self.written.insert(identity, (name, 1));
        Ok(())
    }

    fn object(&self, event: &Event, name: String, now: Timestamp) -> KubeEvent {
        let regarding = &event.regarding;
        KubeEvent {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(regarding.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: KubeObjectReference {
                api_version: Some(regarding.api_version.to_owned()),
                kind: Some(regarding.kind.to_owned()),
                namespace: Some(regarding.namespace.clone()),
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
            count: Some(1),
            ..KubeEvent::default()
        }
    }
}

/// Length of the queue: one Event per Service of a large cluster at start. Further Events are dropped.
const QUEUE: usize = 16_384;

/// Number of Events whose count is remembered; above it, counting restarts.
const REMEMBERED: usize = 16_384;
