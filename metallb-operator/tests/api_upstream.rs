//! The controller under upstream's Roles and definitions, against a real API server.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "the harness says why it skips")]

use std::time::{Duration, Instant};

use axum::http::Request;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use metallb_operator::api::{ConfigurationState, IpAddressPool};
use serde_json::{Value, json};

use support::api_server::Identity;
use support::scene::{Controller, Scene, holds};

#[allow(dead_code, reason = "nodes and endpoints do not matter here")]
mod support {
    pub(crate) mod api_server;
    pub(crate) mod scene;
}

/// The permissions of the controller in upstream's manifests.
const ROLES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: upstream}
rules:
- {apiGroups: [''], resources: [services, namespaces], verbs: [get, list, watch]}
- {apiGroups: [''], resources: [nodes], verbs: [list]}
- {apiGroups: [''], resources: [services/status], verbs: [update]}
- {apiGroups: [''], resources: [events], verbs: [create, patch]}
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations]
  resourceNames: [metallb-webhook-configuration]
  verbs: [create, delete, get, list, patch, update, watch]
- {apiGroups: [metallb.io], resources: [configurationstates], verbs: [create, delete, get, list, patch, update, watch]}
- {apiGroups: [metallb.io], resources: [configurationstates/status], verbs: [get, patch, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: upstream}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: upstream}
subjects: [{kind: User, name: upstream, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: upstream, namespace: metallb-system}
rules:
- {apiGroups: [''], resources: [secrets], verbs: [create, delete, get, list, patch, update, watch]}
- {apiGroups: [''], resources: [pods], verbs: [get, list]}
- apiGroups: [metallb.io]
  resources: [ipaddresspools, communities, l2advertisements, bgpadvertisements]
  verbs: [get, list, watch]
- {apiGroups: [metallb.io], resources: [ipaddresspools/status], verbs: [update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: upstream, namespace: metallb-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: upstream}
subjects: [{kind: User, name: upstream, apiGroup: rbac.authorization.k8s.io}]
";

/// A controller whose requests are made as the user `upstream`.
fn controller(scene: &Scene) -> Controller {
    let file = std::fs::read(scene.api.kubeconfig_file(Identity::Admin)).unwrap();
    let mut config: Value = serde_json::from_slice(&file).unwrap();
    config["users"][0]["user"]["as"] = "upstream".into();
    let path = scene.directory.path().join("upstream.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    scene.launch("upstream", |command| {
        command.env("KUBECONFIG", path);
    })
}

/// Waits for longer than the tests of other files: the Lease is waived after a minute.
async fn in_time(controller: &Controller, mut probe: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(150);
    while let Err(evidence) = probe().await {
        assert!(Instant::now() < deadline, "{evidence}\n{}", controller.output());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_controller_works_under_the_roles_of_upstream_and_reports_what_they_lack() {
    let test = "api_controller_works_under_the_roles_of_upstream_and_reports_what_they_lack";
    let Some(scene) = Scene::start(test).await else { return };
    scene.api.apply(ROLES).await.unwrap();
    scene.pool("edge", "10.0.0.0/30", "").await;
    scene.service("web", "", "").await;
    left_behind(&scene).await;
    let controller = controller(&scene);
    let states: Api<ConfigurationState> = Api::namespaced(scene.client.clone(), "metallb-system");
    let state = async || states.get_opt("controller").await.unwrap().and_then(|state| state.status).unwrap_or_default();

    // Nobody leads yet, and that is said.
    in_time(&controller, async || {
        let state = state().await;
        let summary = state.error_summary.unwrap_or_default();
        let is_told = summary.contains("no controller leads") && summary.contains("leases");
        holds(is_told && state.result.as_deref() == Some("Invalid"), summary)
    })
    .await;
    let begun = Instant::now();
    in_time(&controller, async || {
        let found = scene.addresses().await;
        holds(found["web"] == ["10.0.0.0"], format!("{found:?}"))
    })
    .await;
    assert!(begun.elapsed() > Duration::from_secs(50), "without a Lease after {:?}", begun.elapsed());
    let annotation = scene.services().get("web").await.unwrap().metadata.annotations.unwrap();
    assert_eq!(annotation["metallb.io/ip-allocated-from-pool"], "edge");

    // Now it works, and what is missing is told by an Event, and what blocks changes by both.
    scene.is_told("metallb-system", "metallb-controller", "leaseWaived", &controller).await;
    scene.is_told("default", "metallb-webhook-configuration", "webhookLeftBehind", &controller).await;
    in_time(&controller, async || {
        let summary = state().await.error_summary.unwrap_or_default();
        holds(summary.contains("metallb-webhook-configuration") && !summary.contains("leads"), summary)
    })
    .await;
    let managers = states.get("controller").await.unwrap().metadata.managed_fields.unwrap_or_default();
    let is_upstreams = |entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.manager.as_deref() == Some("poolReconciler") && entry.subresource.as_deref() == Some("status")
    };
    assert!(managers.iter().any(is_upstreams), "{managers:?}");

    // The status of a pool follows, is put right after an edit, and comes back with a new pool of the same name.
    let pools: Api<IpAddressPool> = Api::namespaced(scene.client.clone(), "metallb-system");
    let counted = async || {
        in_time(&controller, async || {
            let status = pools.get("edge").await.unwrap().status.unwrap_or_default();
            holds((status.assigned_ipv4, status.available_ipv4) == (1, 3), format!("{status:?}"))
        })
        .await;
    };
    counted().await;
    let edit = Patch::Merge(json!({ "status": { "assignedIPv4": 9 } }));
    pools.patch_status("edge", &PatchParams::default(), &edit).await.unwrap();
    counted().await;
    pools.delete("edge", &kube::api::DeleteParams::default()).await.unwrap();
    scene.pool("edge", "10.0.0.0/30", "").await;
    counted().await;

    let output = controller.output();
    assert_eq!(output.matches("leadershipAcquired").count(), 1, "{output}");
    assert_eq!(output.matches("kindPolled").count(), 1, "Nodes may be listed only\n{output}");
    assert!(!output.contains("statusRefused"), "{output}");
}

/// The Events of a configuration object are those that `kubectl describe` selects: by uid, kind and version.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_events_of_configuration_objects_are_shown_by_describe() {
    let Some(scene) = Scene::start("api_events_of_configuration_objects_are_shown_by_describe").await else { return };
    let controller = scene.controller("first");
    scene.pool("typo", "10.0.9.0/33", "").await;
    scene.is_told("metallb-system", "typo", "InvalidAddress", &controller).await;
    let pools: Api<IpAddressPool> = Api::namespaced(scene.client.clone(), "metallb-system");
    let uid = pools.get("typo").await.unwrap().metadata.uid.unwrap();
    let selector = format!(
        "involvedObject.name=typo,involvedObject.namespace=metallb-system,involvedObject.kind=IPAddressPool,\
         involvedObject.uid={uid}"
    );
    let events: Api<Event> = Api::namespaced(scene.client.clone(), "metallb-system");
    let found = events.list(&ListParams::default().fields(&selector)).await.unwrap().items;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].involved_object.api_version.as_deref(), Some("metallb.io/v1beta1"));
}

/// The commands of docs/migration.md: upstream's definition of BGPPeer converts by a webhook, and its controller owns the
/// `caBundle`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_definition_of_peers_is_applied_over_that_of_upstream_after_the_conversion_is_removed() {
    let test = "api_definition_of_peers_is_applied_over_that_of_upstream_after_the_conversion_is_removed";
    let Some(scene) = Scene::start(test).await else { return };
    let definitions: Api<CustomResourceDefinition> = Api::all(scene.client.clone());
    let name = "bgppeers.metallb.io";
    let ours = metallb_operator::api::definitions().into_iter().find(|d| d.metadata.name.as_deref() == Some(name));
    let ours = ours.unwrap();
    let mut upstreams = serde_json::to_value(&ours).unwrap();
    upstreams["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1beta1", "v1beta2"],
        "clientConfig": { "service": { "name": "metallb-webhook-service", "namespace": "metallb-system" } },
    } });
    let kubectl = PatchParams::apply("kubectl").force();
    definitions.patch(name, &kubectl, &Patch::Apply(&upstreams)).await.unwrap();
    let pem = rcgen::generate_simple_self_signed(["cert".to_owned()]).unwrap().cert.pem();
    let certificate = json!({ "spec": { "conversion": { "webhook": {
        "clientConfig": { "caBundle": ByteString(pem.into_bytes()) },
    } } } });
    let manager = PatchParams { field_manager: Some("MetalLB".to_owned()), ..PatchParams::default() };
    definitions.patch(name, &manager, &Patch::Merge(&certificate)).await.unwrap();
    // The reason for the order of the commands.
    definitions.patch(name, &kubectl, &Patch::Apply(&ours)).await.unwrap_err();

    let removal = json!([{ "op": "replace", "path": "/spec/conversion", "value": { "strategy": "None" } }]);
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let request = Request::patch(path)
        .header("Content-Type", "application/json-patch+json")
        .body(removal.to_string().into_bytes())
        .unwrap();
    scene.client.request_text(request).await.unwrap();
    definitions.patch(name, &kubectl, &Patch::Apply(&ours)).await.unwrap();
    let conversion = definitions.get(name).await.unwrap().spec.conversion.unwrap();
    assert_eq!((conversion.strategy.as_str(), conversion.webhook), ("None", None));
}

/// A webhook configuration as upstream's, which nothing serves.
async fn left_behind(scene: &Scene) {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
    ));
    let configurations: Api<DynamicObject> = Api::all_with(scene.client.clone(), &kind);
    let configuration = serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "metallb-webhook-configuration" },
        "webhooks": [{
            "name": "communityvalidationwebhook.metallb.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": { "service": {
                "name": "metallb-webhook-service", "namespace": "metallb-system",
                "path": "/validate-metallb-io-v1beta1-community",
            } },
            "rules": [{
                "apiGroups": ["metallb.io"], "apiVersions": ["v1beta1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["communities"],
            }],
        }],
    }))
    .unwrap();
    configurations.create(&PostParams::default(), &configuration).await.unwrap();
}
