//! The definitions, the roles and the customer's manifests against a real kube-apiserver.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that cannot go on ends; the harness says why it skips"
)]

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use metallb_operator::api::{self, BgpPeer};
use metallb_operator::cli::crds;
use metallb_operator::source::translate;
use serde_json::json;

use support::api_server::{ApiServer, Identity, condition};

#[allow(dead_code, reason = "no processes are started here")]
mod support {
    #[allow(dead_code, reason = "each test takes what it needs")]
    pub(crate) mod api_server;
}

#[test]
fn shipped_definitions_are_what_the_binary_prints() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    for definition in api::definitions() {
        let file = directory.join(format!("metallb.io_{}.yaml", definition.spec.names.plural));
        let shipped = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let printed = crds::yaml(&definition).unwrap();
        assert_eq!(shipped, printed, "{}: run `metallb crds --output-dir deploy/crds`", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_definitions_are_accepted_and_fill_in_defaults() {
    let Some(api) = start("api_definitions_are_accepted_and_fill_in_defaults").await else { return };
    let definitions: Api<CustomResourceDefinition> = Api::all(api.client(Identity::Admin).await);
    for definition in definitions.list(&ListParams::default()).await.unwrap() {
        let name = definition.name_any();
        assert_eq!(condition(&definition, "NamesAccepted"), Some("True"), "{name}");
        assert_eq!(condition(&definition, "NonStructuralSchema"), None, "{name}");
    }

    // Each row: what is written, and the whole `spec` that is read back (`docs/upstream-behaviour.md#crds`).
    let rows = [
        (
            object("IPAddressPool", &json!({ "addresses": ["10.0.0.0/24"] })),
            json!({ "addresses": ["10.0.0.0/24"], "autoAssign": true, "avoidBuggyIPs": false }),
        ),
        (
            object("BGPPeer", &json!({ "myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1" })),
            json!({
                "myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "peerPort": 179,
                "disableMP": false, "dualStackAddressFamily": false,
            }),
        ),
        (object("BGPAdvertisement", &json!({})), json!({ "aggregationLength": 32, "aggregationLengthV6": 128 })),
        (object("L2Advertisement", &json!({})), json!({})),
        (
            object("Community", &json!({ "communities": [{ "name": "a" }] })),
            json!({ "communities": [{ "name": "a" }] }),
        ),
        (object("BFDProfile", &json!({ "receiveInterval": 10 })), json!({ "receiveInterval": 10 })),
    ];
    for (written, expected) in rows {
        let read = api.apply(&written).await.unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(read[0].data["spec"], expected, "{written}");
    }
    // Nothing of these is required, so `spec` itself may be absent.
    for kind in
        ["BGPAdvertisement", "L2Advertisement", "Community", "BFDProfile", "ServiceL2Status", "ConfigurationState"]
    {
        let text = format!(
            "apiVersion: metallb.io/v1beta1\nkind: {kind}\nmetadata: {{name: bare, namespace: metallb-system}}\n"
        );
        api.apply(&text).await.unwrap_or_else(|error| panic!("{kind} without spec: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_schema_refuses_invalid_objects_with_a_reason() {
    let Some(api) = start("api_schema_refuses_invalid_objects_with_a_reason").await else { return };
    let peer = |extra: serde_json::Value| {
        let mut spec = json!({ "myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1" });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        object("BGPPeer", &spec)
    };
    let selector = json!([{ "matchLabels": { "a": "b" } }]);
    // Each row: a manifest, and what the refusal must contain.
    let rows = [
        (object("IPAddressPool", &json!({})), "spec.addresses: Required value"),
        (object("BGPPeer", &json!({ "peerASN": 2 })), "spec.myASN: Required value"),
        (peer(json!({ "myASN": 4_294_967_296_u64 })), "should be less than or equal to 4294967295"),
        (peer(json!({ "localASN": 0 })), "should be greater than or equal to 1"),
        (peer(json!({ "dynamicASN": "any" })), "supported values: \"internal\", \"external\""),
        (peer(json!({ "peerPort": 0 })), "should be greater than or equal to 1"),
        (peer(json!({ "peerPort": 16_385 })), "should be less than or equal to 16384"),
        (peer(json!({ "connectTime": "500ms" })), "connect time should be between 1 seconds to 65535"),
        (peer(json!({ "connectTime": "1500ms" })), "connect time should contain a whole number of seconds"),
        (object("BFDProfile", &json!({ "receiveInterval": 9 })), "should be greater than or equal to 10"),
        (object("BFDProfile", &json!({ "transmitInterval": 60_001 })), "should be less than or equal to 60000"),
        (object("BFDProfile", &json!({ "detectMultiplier": 1 })), "should be greater than or equal to 2"),
        (object("BFDProfile", &json!({ "minimumTtl": 255 })), "should be less than or equal to 254"),
        (object("BGPAdvertisement", &json!({ "aggregationLength": 0 })), "should be greater than or equal to 1"),
        (object("BGPAdvertisement", &json!({ "localPref": -1 })), "should be greater than or equal to 0"),
        (
            object("BGPAdvertisement", &json!({ "serviceSelectors": selector, "aggregationLength": 24 })),
            "serviceSelectors and aggregationLength are mutually exclusive",
        ),
        (
            object("BGPAdvertisement", &json!({ "serviceSelectors": selector, "aggregationLengthV6": 64 })),
            "serviceSelectors and aggregationLength are mutually exclusive",
        ),
        (
            object("L2Advertisement", &json!({ "preferredNodeSelectors": [{ "weight": 101, "preference": {} }] })),
            "should be less than or equal to 100",
        ),
        (
            object("L2Advertisement", &json!({ "nodeSelectors": [{ "matchExpressions": [{ "key": "a" }] }] })),
            "operator: Required",
        ),
    ];
    for (manifest, reason) in rows {
        match api.apply(&manifest).await {
            Ok(_) => panic!("accepted: {manifest}"),
            Err(error) => {
                assert!(error.to_string().contains(reason), "{manifest}\nrefused with: {error}\nexpected: {reason}");
            }
        }
    }

    let with_selectors = json!({ "serviceSelectors": selector, "aggregationLength": 32, "aggregationLengthV6": 128 });
    api.apply(&object("BGPAdvertisement", &with_selectors)).await.expect("whole addresses go with serviceSelectors");
    for (restart, allowed) in [(true, true), (false, false)] {
        let changed = api.apply(&peer(json!({ "enableGracefulRestart": restart }))).await;
        assert_eq!(changed.is_ok(), allowed, "enableGracefulRestart: {restart}: {changed:?}");
        if let Err(error) = changed {
            assert!(error.to_string().contains("EnableGracefulRestart cannot be changed after creation"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_older_peer_is_read_as_the_newer_one_with_unset_timers() {
    let Some(api) = start("api_older_peer_is_read_as_the_newer_one_with_unset_timers").await else { return };
    api.apply(
        "apiVersion: metallb.io/v1beta1\nkind: BGPPeer\nmetadata: {name: old, namespace: metallb-system}\nspec:\n  myASN: 1\n  \
         peerASN: 2\n  peerAddress: 10.0.0.1\n  nodeSelectors:\n  - matchExpressions:\n    - {key: rack, operator: In, values: [a]}\n",
    )
    .await
    .unwrap();
    let peers: Api<BgpPeer> = Api::namespaced(api.client(Identity::Speaker).await, "metallb-system");
    let peer = translate::bgp_peer(&peers.get("old").await.unwrap());
    assert_eq!((peer.my_asn, peer.peer_asn, peer.address.as_str()), (1, 2, "10.0.0.1"));
    assert_eq!((peer.hold_time, peer.keepalive_time, peer.port), (None, None, 179));
    assert_eq!(peer.node_selectors[0].match_expressions[0].values, ["a"]);

    let refused = api
        .apply(
            "apiVersion: metallb.io/v1beta1\nkind: BGPPeer\nmetadata: {name: empty, namespace: metallb-system}\nspec:\n  myASN: 1\n  \
             peerASN: 2\n  peerAddress: 10.0.0.1\n  nodeSelectors:\n  - matchExpressions:\n    - {key: rack, operator: In, values: []}\n",
        )
        .await;
    assert!(refused.is_err_and(|error| error.to_string().contains("should have at least 1 items")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_seed_manifests_apply_and_are_read_as_facts() {
    let Some(api) = start("api_seed_manifests_apply_and_are_read_as_facts").await else { return };
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/seed");
    let mut files: Vec<_> = std::fs::read_dir(seed).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 6);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        api.apply(&text).await.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    let labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), "kind-control-plane".to_owned())]);
    api.create_node("kind-control-plane", &labels, true).await;
    api.create_node("kind-worker", &BTreeMap::new(), false).await;
    let endpoint = ("10.244.0.5".parse().unwrap(), "kind-control-plane");
    api.create_endpoints("default", "metallb1-cluster", 8080, &[endpoint]).await;

    let speaker = api.client(Identity::Speaker).await;
    let nodes = Api::<Node>::all(speaker.clone()).list(&ListParams::default()).await.unwrap();
    let ready: Vec<_> = nodes.iter().map(translate::node).map(|node| (node.name.to_string(), node.ready)).collect();
    assert_eq!(ready, [("kind-control-plane".to_owned(), Some(true)), ("kind-worker".to_owned(), Some(false))]);
    let slices =
        Api::<EndpointSlice>::namespaced(speaker.clone(), "default").list(&ListParams::default()).await.unwrap();
    let slice =
        slices.iter().filter_map(translate::endpoint_slice).find(|(key, _)| &*key.name == "metallb1-cluster").unwrap();
    assert_eq!(slice.1[0].node.as_ref().map(ToString::to_string).as_deref(), Some("kind-control-plane"));
    let service = Api::<Service>::namespaced(speaker, "default").get("metallb1-cluster").await.unwrap();
    assert_eq!(translate::service(&service).ports[0].port, 18081);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_roles_allow_what_is_needed_and_nothing_else() {
    let Some(api) = start("api_roles_allow_what_is_needed_and_nothing_else").await else { return };
    let controller = api.client(Identity::Controller).await;
    let speaker = api.client(Identity::Speaker).await;
    // Each row: verbs, group, resource, subresource, name, namespace ("" is all), controller may, speaker may.
    let system = "metallb-system";
    let rows = [
        ("get list watch", "", "services", "", "", "", true, true),
        ("get list watch", "", "namespaces", "", "", "", true, true),
        ("get list watch", "", "nodes", "", "", "", true, true),
        ("get list watch", "discovery.k8s.io", "endpointslices", "", "", "", false, true),
        ("create patch", "", "events", "", "", "", true, true),
        ("patch update", "", "services", "status", "", "", true, false),
        ("create delete patch update", "", "services", "", "", "", false, false),
        ("create delete patch update", "", "nodes", "", "", "", false, false),
        ("get list watch", "metallb.io", "ipaddresspools", "", "", system, true, true),
        ("get list watch", "metallb.io", "communities", "", "", system, true, true),
        ("get list watch", "metallb.io", "l2advertisements", "", "", system, true, true),
        ("get list watch", "metallb.io", "bgpadvertisements", "", "", system, true, true),
        ("get list watch", "metallb.io", "bgppeers", "", "", system, false, true),
        ("get list watch", "metallb.io", "bfdprofiles", "", "", system, false, true),
        ("get list watch", "metallb.io", "ipaddresspools", "", "", "elsewhere", false, false),
        ("create delete patch update", "metallb.io", "ipaddresspools", "", "", system, false, false),
        ("patch update", "metallb.io", "ipaddresspools", "status", "", system, true, false),
        // What speakers say of other hosts that use addresses.
        ("get list watch", "metallb.io", "servicel2statuses", "", "", system, true, true),
        ("create patch delete", "metallb.io", "servicel2statuses", "", "", system, false, true),
        ("patch", "metallb.io", "servicel2statuses", "status", "", system, false, true),
        ("get list watch create patch delete", "metallb.io", "servicebgpstatuses", "", "", system, false, true),
        ("patch", "metallb.io", "servicebgpstatuses", "status", "", system, false, true),
        ("get list watch", "", "secrets", "", "", system, false, true),
        ("get list watch", "", "secrets", "", "", "elsewhere", false, false),
        // The key of the speakers' gossip is made, never read by who made it.
        ("create", "", "secrets", "", "", system, true, false),
        ("create", "", "secrets", "", "", "elsewhere", false, false),
        ("delete patch update", "", "secrets", "", "", system, false, false),
        ("get list watch create", "metallb.io", "configurationstates", "", "", system, true, true),
        ("patch", "metallb.io", "configurationstates", "status", "", system, true, true),
        ("delete", "metallb.io", "configurationstates", "", "", system, false, false),
        ("get", "", "pods", "", "", system, true, true),
        ("list", "", "pods", "", "", system, false, true),
        ("create delete", "", "pods", "", "", system, false, false),
        ("create", "", "pods", "exec", "", system, false, false),
        ("list watch update", "coordination.k8s.io", "leases", "", "metallb-controller", system, true, false),
        // A speaker learns from its version that etcd was restored.
        ("get", "coordination.k8s.io", "leases", "", "metallb-controller", system, true, true),
        ("create", "coordination.k8s.io", "leases", "", "", system, true, false),
        ("get list watch update delete", "coordination.k8s.io", "leases", "", "other", system, false, false),
        ("list watch delete patch", "coordination.k8s.io", "leases", "", "", system, false, false),
        ("create update", "apiextensions.k8s.io", "customresourcedefinitions", "", "", "", false, false),
        ("create update", "rbac.authorization.k8s.io", "clusterroles", "", "", "", false, false),
    ];
    let mut wrong = Vec::new();
    for (verbs, group, resource, subresource, name, namespace, controller_may, speaker_may) in rows {
        for verb in verbs.split(' ') {
            for (who, client, expected) in
                [("controller", &controller, controller_may), ("speaker", &speaker, speaker_may)]
            {
                let asked = ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(name.to_owned()),
                    namespace: Some(namespace.to_owned()),
                    ..ResourceAttributes::default()
                };
                if may(client, asked).await != expected {
                    wrong.push(format!(
                        "{who} {verb} {group}/{resource}/{subresource} {name} in \"{namespace}\": not {expected}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn start(test: &str) -> Option<ApiServer> {
    let api = ApiServer::start(test).await?;
    api.install().await;
    Some(api)
}

fn object(kind: &str, spec: &serde_json::Value) -> String {
    let version = if kind == "BGPPeer" { "v1beta2" } else { "v1beta1" };
    json!({
        "apiVersion": format!("metallb.io/{version}"),
        "kind": kind,
        "metadata": { "name": "sample", "namespace": "metallb-system" },
        "spec": spec,
    })
    .to_string()
}

async fn may(client: &Client, asked: ResourceAttributes) -> bool {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(asked),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    answer.status.is_some_and(|status| status.allowed)
}
