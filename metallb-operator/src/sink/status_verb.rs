//! Writes the status of an object by `patch`, or by `update` where the Role forbids `patch`.
//!
//! Upstream's Roles allow the controller to update some statuses but not to patch them. An update replaces the version
//! that was read; a later write of another process makes it fail with a conflict.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, Error, Resource};
use serde_json::{Value, json};

/// How the status of a kind is written. Clones share what is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusVerb {
    forbidden_at: Arc<Mutex<Option<Instant>>>,
}

/// Writes the status of objects of one kind in one namespace.
#[derive(Clone, Debug)]
pub(crate) struct StatusWriter {
    objects: Api<DynamicObject>,
    kind: ApiResource,
    verb: StatusVerb,
    manager: Option<&'static str>,
}

// === impl StatusVerb ===

impl StatusVerb {
    /// Whether a status is written by `patch`. It is tried again [`PROBE`] after it was forbidden.
    pub(crate) fn is_patch(&self, now: Instant) -> bool {
        let at = self.forbidden_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_none_or(|at| now.saturating_duration_since(at) >= PROBE)
    }

    /// Whether `error` shows that the Role forbids `patch`; that is remembered.
    pub(crate) fn is_forbidden_by(&self, error: &Error, now: Instant) -> bool {
        let is_forbidden = is_forbidden(error, "patch");
        if is_forbidden {
            let before = self.forbidden_at.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
            if before.is_none() {
                tracing::info!(
                    %error, event = "patchForbidden", "the Role forbids patch, the statuses of this kind are updated"
                );
            }
        }
        is_forbidden
    }
}

// === impl StatusWriter ===

impl StatusWriter {
    /// A writer for the kind `K`. With a field manager, the fields are applied by the server in its name.
    pub(crate) fn new<K>(client: Client, namespace: &str, manager: Option<&'static str>) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let kind = ApiResource::erase::<K>(&());
        let objects = Api::namespaced_with(client, namespace, &kind);
        Self { objects, kind, verb: StatusVerb::default(), manager }
    }

    /// Merges `status`, an object with the key `status`, into the object `name`.
    ///
    /// # Errors
    /// The API server refuses the write or does not answer. A conflict is tried again before.
    pub(crate) async fn merge(&self, name: &str, status: &Value) -> Result<DynamicObject, Error> {
        if self.verb.is_patch(Instant::now()) {
            match self.patch(name, status).await {
                Err(error) if self.verb.is_forbidden_by(&error, Instant::now()) => {}
                result => return result,
            }
        }
        let mut tries = 1;
        loop {
            let object = self.objects.get(name).await?;
            let parameters = PostParams { field_manager: self.manager.map(str::to_owned), ..PostParams::default() };
            match self.objects.replace_status(name, &parameters, &merged(&object, status)?).await {
                Err(Error::Api(answer)) if answer.code == 409 && tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn patch(&self, name: &str, status: &Value) -> Result<DynamicObject, Error> {
        let Some(manager) = self.manager else {
            return self.objects.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        };
        let (version, kind) = (&self.kind.api_version, &self.kind.kind);
        let mut applied = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name } });
        json_patch::merge(&mut applied, status);
        let parameters = PatchParams::apply(manager).force();
        self.objects.patch_status(name, &parameters, &Patch::Apply(&applied)).await
    }
}

/// `object` with a merge patch applied.
///
/// # Errors
/// The result is no object of Kubernetes.
pub(crate) fn merged(object: &DynamicObject, patch: &Value) -> Result<DynamicObject, Error> {
    let mut value = serde_json::to_value(object).map_err(Error::SerdeError)?;
    json_patch::merge(&mut value, patch);
    serde_json::from_value(value).map_err(Error::SerdeError)
}

/// Whether the API server answered that the Role of this process does not allow `verb`. Admission and quotas answer 403
/// too.
pub(crate) fn is_forbidden(error: &Error, verb: &str) -> bool {
    matches!(error, Error::Api(status) if is_role_denial(status, verb))
}

fn is_role_denial(status: &Status, verb: &str) -> bool {
    status.code == 403 && status.message.contains(&format!("cannot {verb} resource"))
}

/// Time after which a forbidden `patch` is tried again: a Role may have been extended.
const PROBE: Duration = Duration::from_mins(10);

/// Number of updates that are tried when others write the same object.
const TRIES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, message: &str) -> Error {
        Error::Api(Box::new(Status { code, message: message.to_owned(), ..Status::failure("", "") }))
    }

    #[test]
    fn patch_is_given_up_only_where_the_role_forbids_it_and_tried_again_later() {
        let now = Instant::now();
        let forbidden =
            "services \"web\" is forbidden: User \"u\" cannot patch resource \"services/status\" in API group \"\"";
        let rows = [
            ("the Role", answer(403, forbidden), true),
            ("another verb", answer(403, &forbidden.replace("patch", "update")), false),
            ("admission", answer(403, "admission webhook \"x\" denied the request: no"), false),
            ("a conflict", answer(409, forbidden), false),
        ];
        for (name, error, is_given_up) in rows {
            let verb = StatusVerb::default();
            assert!(verb.is_patch(now), "{name}");
            assert_eq!(verb.is_forbidden_by(&error, now), is_given_up, "{name}");
            assert_eq!(verb.is_patch(now), !is_given_up, "{name}");
            assert_eq!(verb.clone().is_patch(now), !is_given_up, "{name}: clones share what is known");
            assert!(verb.is_patch(now + PROBE), "{name}");
        }
    }

    #[test]
    fn update_carries_the_merged_object_with_its_version_and_unknown_fields() {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "resourceVersion": "7", "annotations": { "a": "1", "b": "2" } },
            "spec": { "new": true },
            "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ipMode": "VIP" }] }, "newer": 1 },
        }))
        .unwrap();
        let patch = json!({
            "metadata": { "annotations": { "b": null } }, "status": { "loadBalancer": { "ingress": null } },
        });
        let value = serde_json::to_value(merged(&object, &patch).unwrap()).unwrap();
        assert_eq!(value["metadata"]["annotations"], json!({ "a": "1" }));
        assert_eq!(value["metadata"]["resourceVersion"], "7");
        assert_eq!(value["status"], json!({ "loadBalancer": {}, "newer": 1 }));
        assert_eq!(value["spec"], json!({ "new": true }));
    }
}
