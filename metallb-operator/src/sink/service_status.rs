//! Writes the status of Services and reports the result of each write.
//!
//! One patch writes status and annotation. It names the uid and the resourceVersion of the decision, so the API server
//! refuses it if either has changed. After a conflict or an unknown result, the object is read before the result is
//! reported: the next decision then uses what the API server holds, not what a watch may deliver later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service as KubeService;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use metallb_core::assignment::{Settle, Write, WriteEnd};
use metallb_core::model::{ALLOCATED_FROM, ObjectVersion, PoolName, ServiceKey, Uid, WRITE_SETTLED};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::sink::lease::{Leadership, Term};
use crate::sink::status_verb::{StatusVerb, merged};
use crate::source::watches::Round;

/// Starts writes. Their results arrive at the receiver that was created with it.
pub(crate) struct ServiceStatusWriter {
    client: Client,
    leadership: Leadership,
    permits: Arc<Semaphore>,
    verb: StatusVerb,
    ended: mpsc::Sender<Ended>,
}

/// The result of a write.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The write.
    pub(crate) write: Write,
    /// The round of lists in which the write began.
    pub(crate) asked: Round,
    /// The result.
    pub(crate) end: WriteEnd,
    /// What the API server returned about the object afterwards.
    pub(crate) seen: Seen,
    /// The error, if the write failed.
    pub(crate) failure: Option<Failure>,
}

/// What the API server returned about an object.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Nothing.
    Nothing,
    /// The object.
    Object(Box<KubeService>),
    /// The object of this uid does not exist.
    Gone(Option<Uid>),
}

/// Why a write failed, by how the controller reacts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// This process may no longer write; nothing was sent.
    NotSent,
    /// Another version was stored before.
    Conflict,
    /// The object does not exist.
    Gone,
    /// The API server refuses the write for good: admission, authorization, validation. With its message.
    Refused(String),
    /// The API server is overloaded; it may state a delay.
    Throttled(Option<Duration>),
    /// Whether the write was stored is unknown. With the error.
    Unknown(String),
}

// === impl ServiceStatusWriter ===

impl ServiceStatusWriter {
    /// A writer that observes `leadership`, and the receiver of results.
    pub(crate) fn new(client: Client, leadership: Leadership) -> (Self, mpsc::Receiver<Ended>) {
        // At most one write per Service runs; when the queue is full, tasks wait until earlier results are read.
        let (ended, ends) = mpsc::channel(ENDS);
        (
            Self { client, leadership, permits: Arc::new(Semaphore::new(WRITERS)), verb: StatusVerb::default(), ended },
            ends,
        )
    }

    /// Starts a write in a term of leadership and a round of lists.
    pub(crate) fn start(&self, term: Term, write: Write, asked: Round) {
        let services: Api<KubeService> = Api::namespaced(self.client.clone(), write.key.namespace.as_str());
        let (leadership, permits, ended) = (self.leadership.clone(), Arc::clone(&self.permits), self.ended.clone());
        let verb = self.verb.clone();
        tokio::spawn(async move {
            let permit = permits.acquire_owned().await.ok();
            let end = carry_out(&services, &verb, write, asked, || leadership.may_write(term), permit).await;
            // The receiver is dropped only when the process ends.
            let _ = ended.send(end).await;
        });
    }
}

/// Sends the write and, if its result requires it, reads the object.
async fn carry_out(
    services: &Api<KubeService>,
    verb: &StatusVerb,
    write: Write,
    asked: Round,
    may_write: impl Fn() -> bool,
    permit: Option<OwnedSemaphorePermit>,
) -> Ended {
    // The process may have been suspended: check the clock again before sending.
    if !may_write() {
        return Ended { write, asked, end: WriteEnd::Rejected, seen: Seen::Nothing, failure: Some(Failure::NotSent) };
    }
    let request = async {
        match store(services, verb, &write, may_write).await {
            Ok(object) => (WriteEnd::Written, Seen::Object(Box::new(object)), None),
            Err(failure) => {
                let (end, seen) = match &failure {
                    Failure::Gone => (WriteEnd::Rejected, Seen::Gone(write.uid.clone())),
                    Failure::Conflict => (WriteEnd::Rejected, read(services, &write.key, write.uid.as_ref()).await),
                    Failure::Unknown(_) => (WriteEnd::Unknown, read(services, &write.key, write.uid.as_ref()).await),
                    Failure::NotSent | Failure::Refused(_) | Failure::Throttled(_) => {
                        (WriteEnd::Rejected, Seen::Nothing)
                    }
                };
                (end, seen, Some(failure))
            }
        }
    };
    let (end, seen, failure) = give_back_when_slow(request, permit).await;
    Ended { write, asked, end, seen, failure }
}

/// Stores the write by a patch or, where the Role forbids it, by an update. Both name the version and the uid that the
/// write was decided on, so that nothing is written over a change that came between.
async fn store(
    services: &Api<KubeService>,
    verb: &StatusVerb,
    write: &Write,
    may_write: impl Fn() -> bool,
) -> Result<KubeService, Failure> {
    let patch = patch(write);
    let name = write.key.name.as_ref();
    let failed = |error: Error| classify(&error, &write.key.name);
    if verb.is_patch(Instant::now()) {
        match services.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(error) if verb.is_forbidden_by(&error, Instant::now()) => {}
            result => return result.map_err(failed),
        }
    }
    // Untyped, so that an update keeps fields of a newer Kubernetes.
    let kind = ApiResource::erase::<KubeService>(&());
    let objects: Api<DynamicObject> =
        Api::namespaced_with(services.clone().into_client(), write.key.namespace.as_str(), &kind);
    let found = objects.get(name).await.map_err(failed)?;
    let is_other = |known: Option<&str>, found: Option<&str>| known.is_some() && known != found;
    let metadata = &found.metadata;
    if is_other(write.version.as_ref().map(ObjectVersion::as_str), metadata.resource_version.as_deref())
        || is_other(write.uid.as_ref().map(Uid::as_str), metadata.uid.as_deref())
    {
        return Err(Failure::Conflict);
    }
    let update = merged(&found, &patch).map_err(failed)?;
    // Time has passed since the caller asked.
    if !may_write() {
        return Err(Failure::NotSent);
    }
    let stored = objects.replace_status(name, &PostParams::default(), &update).await.map_err(failed)?;
    stored.try_parse().map_err(|error| Failure::Unknown(error.to_string()))
}

/// Waits for a request. A slow request returns its permit, so that it does not delay others.
async fn give_back_when_slow<T>(request: impl Future<Output = T>, permit: Option<OwnedSemaphorePermit>) -> T {
    let mut request = std::pin::pin!(request);
    if let Ok(answer) = tokio::time::timeout(SLOW, request.as_mut()).await {
        return answer;
    }
    drop(permit);
    request.await
}

async fn read(services: &Api<KubeService>, key: &ServiceKey, uid: Option<&Uid>) -> Seen {
    match services.get(&key.name).await {
        Ok(object) => Seen::Object(Box::new(object)),
        Err(error) if classify(&error, &key.name) == Failure::Gone => Seen::Gone(uid.cloned()),
        Err(_) => Seen::Nothing,
    }
}

fn patch(write: &Write) -> Value {
    let mut patch = json!({ "metadata": {} });
    if let Some(version) = &write.version {
        patch["metadata"]["resourceVersion"] = version.as_str().into();
    }
    if let Some(uid) = &write.uid {
        patch["metadata"]["uid"] = uid.as_str().into();
    }
    if let Some(status) = &write.status {
        let ingress: Vec<Value> = status.ips.iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
        patch["metadata"]["annotations"][ALLOCATED_FROM] = status.pool.as_ref().map(PoolName::as_str).into();
        patch["status"]["loadBalancer"]["ingress"] = if ingress.is_empty() { Value::Null } else { ingress.into() };
    }
    match write.settle {
        Settle::Leave => {}
        Settle::Set => patch["metadata"]["annotations"][WRITE_SETTLED] = "pending".into(),
        Settle::Remove => patch["metadata"]["annotations"][WRITE_SETTLED] = Value::Null,
    }
    patch
}

/// The class of an error of a request about the object `name`.
pub(crate) fn classify(error: &Error, name: &str) -> Failure {
    let Error::Api(status) = error else { return Failure::Unknown(chain(error)) };
    // A server that does not serve the path yet answers 404 too, and names no object.
    let names_object = || status.details.as_ref().is_some_and(|details| details.name == name);
    match status.code {
        404 if names_object() => Failure::Gone,
        404 => Failure::Unknown(status.message.clone()),
        409 => Failure::Conflict,
        429 => {
            let seconds = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|&after| after > 0);
            Failure::Throttled(seconds.map(|seconds| Duration::from_secs(seconds.into())))
        }
        400..500 => Failure::Refused(status.message.clone()),
        _ => Failure::Unknown(status.message.clone()),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

/// Maximum number of concurrent requests, slow ones excluded.
const WRITERS: usize = 64;

/// Time after which a request counts as slow.
const SLOW: Duration = Duration::from_millis(500);

/// Length of the queue of results.
const ENDS: usize = 1024;

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;
    use metallb_core::assignment::{AssignReason, StatusWrite};

    use super::*;

    fn write(status: Option<StatusWrite>, settle: Settle) -> Write {
        Write {
            id: metallb_core::assignment::WriteId::default(),
            key: ServiceKey::new("default", "web"),
            uid: Some("u-1".into()),
            version: Some("7".into()),
            status,
            settle,
            reason: AssignReason::Assigned,
            events: Vec::new(),
        }
    }

    #[test]
    fn patch_names_uid_and_version_and_touches_only_what_changes() {
        let metadata = |more: Value| {
            let mut metadata = json!({ "uid": "u-1", "resourceVersion": "7" });
            if let Value::Object(more) = more {
                metadata["annotations"] = more.into();
            }
            metadata
        };
        let status = |ips: &[&str], pool: Option<&str>| {
            let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            Some(StatusWrite { ips, pool: pool.map(PoolName::from) })
        };
        let given = status(&["192.0.2.1", "2001:db8::1"], Some("edge"));
        assert_eq!(
            patch(&write(given, Settle::Leave)),
            json!({
                "metadata": metadata(json!({ ALLOCATED_FROM: "edge" })),
                "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }, { "ip": "2001:db8::1" }] } },
            })
        );
        assert_eq!(
            patch(&write(status(&[], None), Settle::Remove)),
            json!({
                "metadata": metadata(json!({ ALLOCATED_FROM: null, WRITE_SETTLED: null })),
                "status": { "loadBalancer": { "ingress": null } },
            })
        );
        assert_eq!(
            patch(&write(None, Settle::Set)),
            json!({ "metadata": metadata(json!({ WRITE_SETTLED: "pending" })) })
        );
    }

    #[test]
    fn answers_fall_into_classes_by_what_is_known_of_the_write() {
        let answer = |code: u16, after: u32| {
            let details: StatusDetails =
                serde_json::from_value(json!({ "name": "web", "retryAfterSeconds": after })).unwrap();
            let status = Status { code, message: "no".to_owned(), details: Some(details), ..Status::default() };
            classify(&Error::Api(Box::new(status)), "web")
        };
        let rows = [
            (404, 0, Failure::Gone),
            (409, 0, Failure::Conflict),
            (400, 0, Failure::Refused("no".to_owned())),
            (403, 0, Failure::Refused("no".to_owned())),
            (422, 0, Failure::Refused("no".to_owned())),
            (429, 0, Failure::Throttled(None)),
            (429, 5, Failure::Throttled(Some(Duration::from_secs(5)))),
            (500, 0, Failure::Unknown("no".to_owned())),
            (503, 0, Failure::Unknown("no".to_owned())),
            (504, 0, Failure::Unknown("no".to_owned())),
        ];
        for (code, after, expected) in rows {
            assert_eq!(answer(code, after), expected, "{code}");
        }
        let lost = Error::ReadEvents(std::io::Error::other("connection reset"));
        assert!(matches!(classify(&lost, "web"), Failure::Unknown(text) if text.contains("connection reset")));
        let no_path = Status { code: 404, message: "page not found".to_owned(), ..Status::default() };
        let no_path = classify(&Error::Api(Box::new(no_path)), "web");
        assert_eq!(no_path, Failure::Unknown("page not found".to_owned()), "no object is named");
    }
}
