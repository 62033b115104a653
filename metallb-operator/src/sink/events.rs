//! core/v1 Events on Services, as upstream's users and tests read them: `source.component`, `count`, `lastTimestamp`.
//!
//! Repeating an Event raises the count of the existing object instead of making a new one.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use metallb_core::config::Problem;
use metallb_core::model::ServiceKey;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How important an Event is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Severity {
    /// `type: Normal`
    Normal,
    /// `type: Warning`
    Warning,
}

/// The object that an Event is about.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Regarding {
    /// `v1`, `metallb.io/v1beta1`, …
    pub api_version: &'static str,
    /// The kind, as in YAML.
    pub kind: &'static str,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Identity of the object, so that a namesake created later is not mistaken for it.
    pub uid: Option<String>,
}

/// One thing worth telling the owner of an object.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Notice {
    /// What it is about.
    pub regarding: Regarding,
    /// Normal or Warning.
    pub severity: Severity,
    /// The stable reason, for tools.
    pub reason: String,
    /// The text, for people.
    pub message: String,
}

impl Notice {
    /// About a Service.
    #[must_use]
    pub fn about_service(
        key: &ServiceKey,
        uid: Option<String>,
        severity: Severity,
        reason: &str,
        message: String,
    ) -> Self {
        let regarding = Regarding {
            api_version: "v1",
            kind: "Service",
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid,
        };
        Self { regarding, severity, reason: reason.to_owned(), message }
    }

    /// About a Lease that controllers share.
    #[must_use]
    pub fn about_lease(namespace: &str, name: &str, message: &str) -> Self {
        let regarding = Regarding {
            api_version: "coordination.k8s.io/v1",
            kind: "Lease",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: None,
        };
        Self {
            regarding,
            severity: Severity::Warning,
            reason: "restoreDetected".to_owned(),
            message: message.to_owned(),
        }
    }

    /// About a configuration object that is in error.
    #[must_use]
    pub fn about_problem(problem: &Problem) -> Self {
        let regarding = Regarding {
            api_version: if problem.object.kind == "BGPPeer" { "metallb.io/v1beta2" } else { "metallb.io/v1beta1" },
            kind: problem.object.kind,
            namespace: problem.object.namespace.as_deref().unwrap_or_default().to_owned(),
            name: problem.object.name.to_string(),
            uid: None,
        };
        let message = format!("{}: {}", problem.field, problem.message);
        Self { regarding, severity: Severity::Warning, reason: problem.code.as_str().to_owned(), message }
    }
}

/// A cloneable, never-blocking front to the task that writes Events.
#[derive(Clone, Debug)]
pub struct EventSender {
    queue: mpsc::Sender<Notice>,
}

impl EventSender {
    /// Queues a notice. When the API server is so slow that the queue is full the notice is dropped and logged: Events are
    /// advice, and waiting for them must never hold up an announcement.
    pub fn send(&self, notice: Notice) {
        if let Err(error) = self.queue.try_send(notice) {
            let notice = match error {
                mpsc::error::TrySendError::Full(notice) | mpsc::error::TrySendError::Closed(notice) => notice,
            };
            tracing::warn!(reason = notice.reason, message = notice.message, "event dropped, the queue is full");
        }
    }
}

/// Starts the writer. It ends when the last sender is gone and the queue is empty.
#[must_use]
pub fn spawn(client: Client, component: &'static str) -> (EventSender, JoinHandle<()>) {
    let (queue, mut notices) = mpsc::channel(QUEUE);
    let task = tokio::spawn(async move {
        let mut writer = Writer { client, component, written: HashMap::new() };
        while let Some(notice) = notices.recv().await {
            if let Err(error) = writer.write(&notice).await {
                tracing::warn!(%error, reason = notice.reason, "event could not be written");
            }
        }
    });
    (EventSender { queue }, task)
}

struct Writer {
    client: Client,
    component: &'static str,
    /// Events already written, by the hash of their notice: the object's name and its count.
    written: HashMap<u64, (String, i32)>,
}

impl Writer {
    async fn write(&mut self, notice: &Notice) -> Result<(), Error> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &notice.regarding.namespace);
        let now = Timestamp::now();
        let mut hasher = DefaultHasher::new();
        notice.hash(&mut hasher);
        let identity = hasher.finish();

        if let Some((name, count)) = self.written.get_mut(&identity) {
            let patch = json!({ "count": *count + 1, "lastTimestamp": Time(now) });
            match events.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // Events expire after an hour: write it anew.
                Err(Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }

        // The instant makes the name unique, as client-go's recorder does.
        let name = format!("{}.{:x}", notice.regarding.name, now.as_nanosecond());
        let event = self.event(notice, name.clone(), now);
        events.create(&PostParams::default(), &event).await?;
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        self.written.insert(identity, (name, 1));
        Ok(())
    }

    fn event(&self, notice: &Notice, name: String, now: Timestamp) -> Event {
        let regarding = &notice.regarding;
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(regarding.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(regarding.api_version.to_owned()),
                kind: Some(regarding.kind.to_owned()),
                namespace: Some(regarding.namespace.clone()),
                name: Some(regarding.name.clone()),
                uid: regarding.uid.clone(),
                ..ObjectReference::default()
            },
            type_: Some(match notice.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            reason: Some(notice.reason.clone()),
            message: Some(notice.message.clone()),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        }
    }
}

/// Notices that may wait for the API server: one per Service of a large cluster at start-up.
const QUEUE: usize = 16_384;

/// Events whose objects are remembered for counting; beyond it counting starts anew.
const REMEMBERED: usize = 16_384;
