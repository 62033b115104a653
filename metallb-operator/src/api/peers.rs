//! `BGPPeer` in both versions, `BFDProfile`

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LabelSelector;

/// A router with which nodes have a BGP session.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta2",
    kind = "BGPPeer",
    plural = "bgppeers",
    singular = "bgppeer",
    root = "BgpPeer",
    namespaced,
    status = "super::Empty",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.peerAddress"}"#,
    printcolumn = r#"{"name":"ASN","type":"string","jsonPath":".spec.peerASN"}"#,
    printcolumn = r#"{"name":"BFD Profile","type":"string","jsonPath":".spec.bfdProfile"}"#,
    printcolumn = r#"{"name":"Multi Hops","type":"string","jsonPath":".spec.ebgpMultiHop"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerSpec {
    /// Our autonomous system number.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub my_asn: i64,
    /// The router's autonomous system number; either this or dynamicASN is required.
    #[serde(default, rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub peer_asn: Option<i64>,
    /// The autonomous system number to present to this router instead of myASN.
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub local_asn: Option<i64>,
    /// Accept our own autonomous system number (`internal`) or any other one (`external`).
    #[serde(default, rename = "dynamicASN", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["internal", "external"]))]
    pub dynamic_asn: Option<String>,
    /// The router's address; either this or interface is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// The interface on which the router is found by its link-local address (unnumbered session).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The local address of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// The TCP port to connect to.
    #[serde(default = "bgp_port", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_384), extend("format" = null))]
    pub peer_port: Option<i32>,
    /// Hold time, such as `90s`; 0 or at least 3 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<String>,
    /// Keepalive interval, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// Pause between attempts to connect, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self).getSeconds() >= 1 && duration(self).getSeconds() <= 65535", "message": "connect time should be between 1 seconds to 65535"},
        {"rule": "duration(self).getMilliseconds() % 1000 == 0", "message": "connect time should contain a whole number of seconds"},
    ]))]
    pub connect_time: Option<String>,
    /// BGP identifier of the nodes, an IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Nodes that have the session; one selector must match. Empty means all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// TCP MD5 password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Secret of type kubernetes.io/basic-auth with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,
    /// Name of the BFDProfile of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile: Option<String>,
    /// Whether the router keeps the routes while a speaker restarts (RFC 4724).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self == oldSelf", "message": "EnableGracefulRestart cannot be changed after creation"},
    ]))]
    pub enable_graceful_restart: Option<bool>,
    /// Whether the router may be more than one hop away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multi_hop: Option<bool>,
    /// Name of the VRF device of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Deprecated, without effect.
    #[serde(default, rename = "disableMP")]
    pub disable_mp: bool,
    /// Whether the session carries routes of both address families.
    #[serde(default)]
    pub dual_stack_address_family: bool,
}

/// A Secret by name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretReference {
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Ignored: Secrets are looked up in the namespace of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn bgp_port() -> Option<i32> {
    Some(179)
}

/// A router with which nodes have a BGP session, in the older version.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPPeer",
    plural = "bgppeers",
    singular = "bgppeer",
    root = "BgpPeerV1Beta1",
    namespaced,
    status = "super::Empty",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.peerAddress"}"#,
    printcolumn = r#"{"name":"ASN","type":"string","jsonPath":".spec.peerASN"}"#,
    printcolumn = r#"{"name":"BFD Profile","type":"string","jsonPath":".spec.bfdProfile"}"#,
    printcolumn = r#"{"name":"Multi Hops","type":"string","jsonPath":".spec.ebgpMultiHop"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerV1Beta1Spec {
    /// Our autonomous system number.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub my_asn: i64,
    /// The router's autonomous system number.
    #[serde(rename = "peerASN")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub peer_asn: i64,
    /// The router's address.
    pub peer_address: String,
    /// The local address of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// The TCP port to connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16_384), extend("format" = null))]
    pub peer_port: Option<i32>,
    /// Hold time, such as `90s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<String>,
    /// Keepalive interval, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// BGP identifier of the nodes, an IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Nodes that have the session; one selector must match. Empty means all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<NodeSelector>>,
    /// TCP MD5 password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Name of the BFDProfile of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile: Option<String>,
    /// Whether the router may be more than one hop away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multi_hop: Option<bool>,
}

/// Nodes by label, in the form of v1beta1.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// Labels that a node must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements on the labels; all must be met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_expressions: Option<Vec<NodeSelectorRequirement>>,
}

/// One requirement on the labels of a node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct NodeSelectorRequirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values; the schema asks for at least one.
    #[schemars(length(min = 1))]
    pub values: Vec<String>,
}

impl From<NodeSelector> for LabelSelector {
    fn from(selector: NodeSelector) -> Self {
        let requirement = |from: NodeSelectorRequirement| LabelSelectorRequirement {
            key: from.key,
            operator: from.operator,
            values: Some(from.values),
        };
        Self {
            match_labels: selector.match_labels,
            match_expressions: selector.match_expressions.map(|all| all.into_iter().map(requirement).collect()),
        }
    }
}

/// One definition that serves both versions; v1beta2 is stored.
pub(super) fn bgp_peer_crd() -> CustomResourceDefinition {
    let mut definition = BgpPeer::crd();
    let mut old = BgpPeerV1Beta1::crd().spec.versions;
    for version in &mut old {
        version.storage = false;
        version.deprecated = Some(true);
        version.deprecation_warning = Some("v1beta1 is deprecated, please use v1beta2".to_owned());
    }
    old.append(&mut definition.spec.versions);
    definition.spec.versions = old;
    definition
}

/// Settings of BFD sessions.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BFDProfile",
    plural = "bfdprofiles",
    singular = "bfdprofile",
    root = "BfdProfile",
    namespaced,
    status = "super::Empty",
    derive = "PartialEq",
    derive = "Default",
    attr = "cfg_attr(all(), serde(default))",
    printcolumn = r#"{"name":"Passive Mode","type":"boolean","jsonPath":".spec.passiveMode"}"#,
    printcolumn = r#"{"name":"Transmit Interval","type":"integer","jsonPath":".spec.transmitInterval"}"#,
    printcolumn = r#"{"name":"Receive Interval","type":"integer","jsonPath":".spec.receiveInterval"}"#,
    printcolumn = r#"{"name":"Multiplier","type":"integer","jsonPath":".spec.detectMultiplier"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct BfdProfileSpec {
    /// Shortest interval between received packets, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub receive_interval: Option<i32>,
    /// Shortest interval between sent packets, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub transmit_interval: Option<i32>,
    /// Packets that may be missed before the session goes down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<i32>,
    /// Interval of echo packets, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub echo_interval: Option<i32>,
    /// Whether the echo function is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo_mode: Option<bool>,
    /// Whether the session waits for the router's first packet before it sends (passive role).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive_mode: Option<bool>,
    /// Lowest TTL of packets that multihop sessions accept.
    #[serde(rename = "minimumTtl", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<i32>,
}
