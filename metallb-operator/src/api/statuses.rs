//! `ServiceL2Status`, `ServiceBGPStatus`, `ConfigurationState`: written, never read as configuration.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::core::TypeMeta;
use kube::{CustomResource, CustomResourceExt as _, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The node that answers ARP and NDP requests for a Service.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "ServiceL2Status",
    plural = "servicel2statuses",
    singular = "servicel2status",
    namespaced,
    status = "ServiceL2StatusStatus",
    derive = "PartialEq",
    derive = "Default",
    attr = "cfg_attr(all(), serde(default))",
    printcolumn = r#"{"name":"Allocated Node","type":"string","jsonPath":".status.node"}"#,
    printcolumn = r#"{"name":"Service Name","type":"string","jsonPath":".status.serviceName"}"#,
    printcolumn = r#"{"name":"Service Namespace","type":"string","jsonPath":".status.serviceNamespace"}"#
)]
pub struct ServiceL2StatusSpec {}

/// State of a Service on L2, reported by the speaker of the node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceL2StatusStatus {
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}]))]
    pub node: Option<String>,
    /// The Service's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}]))]
    pub service_name: Option<String>,
    /// The Service's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}]))]
    pub service_namespace: Option<String>,
    /// Interfaces on which the node answers; absent means all interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<InterfaceInfo>>,
    /// Addresses of the Service that hosts outside of the cluster used recently.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<Vec<AddressConflict>>,
    /// Addresses of the Service that the node does not answer for, with the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<RefusedAddress>>,
}

/// An address that is not announced.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedAddress {
    /// The address.
    pub ip: String,
    /// The reason.
    pub reason: String,
}

/// An address that a host outside of the cluster uses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressConflict {
    /// The address.
    pub ip: String,
    /// The hardware address of the host.
    pub mac_address: String,
}

/// An interface by name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct InterfaceInfo {
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The BGP peers to which a node advertises a Service.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "ServiceBGPStatus",
    plural = "servicebgpstatuses",
    singular = "servicebgpstatus",
    root = "ServiceBgpStatus",
    namespaced,
    status = "ServiceBgpStatusStatus",
    derive = "PartialEq",
    derive = "Default",
    attr = "cfg_attr(all(), serde(default))",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.node"}"#,
    printcolumn = r#"{"name":"Service Name","type":"string","jsonPath":".status.serviceName"}"#,
    printcolumn = r#"{"name":"Service Namespace","type":"string","jsonPath":".status.serviceNamespace"}"#
)]
pub struct ServiceBgpStatusSpec {}

/// State of a Service on BGP, reported by the speaker of the node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceBgpStatusStatus {
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}]))]
    pub node: Option<String>,
    /// The Service's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}]))]
    pub service_name: Option<String>,
    /// The Service's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "Value is immutable"}]))]
    pub service_namespace: Option<String>,
    /// Names of the BGPPeers, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<String>>,
}

/// Whether the configuration is valid for the controller or a speaker. It has no specification, so the derived type
/// cannot read it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Resource, Serialize)]
#[resource(inherit = ConfigurationStateDefinition)]
pub struct ConfigurationState {
    /// Version and kind.
    #[serde(flatten)]
    pub types: TypeMeta,
    /// Name, labels, owner.
    pub metadata: ObjectMeta,
    /// The result of the validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ConfigurationStateStatus>,
}

impl ConfigurationState {
    /// An object without a result.
    #[must_use]
    pub fn new(metadata: ObjectMeta) -> Self {
        Self { types: TypeMeta::resource::<Self>(), metadata, status: None }
    }
}

/// The definition of [`ConfigurationState`].
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "ConfigurationState",
    root = "ConfigurationStateDefinition",
    plural = "configurationstates",
    singular = "configurationstate",
    namespaced,
    status = "ConfigurationStateStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Result","type":"string","jsonPath":".status.result"}"#,
    printcolumn = r#"{"name":"ErrorSummary","type":"string","jsonPath":".status.errorSummary"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct ConfigurationStateSpec {}

/// The definition without `spec`, which the derived one cannot leave out, and with the limits of a standard condition.
pub(super) fn configuration_state_crd() -> CustomResourceDefinition {
    let mut definition = ConfigurationStateDefinition::crd();
    for root in schema::roots(&mut definition) {
        root.description = Some("Whether the configuration makes sense to a controller or a speaker.".to_owned());
        root.required = None;
        if let Some(properties) = &mut root.properties {
            properties.remove("spec");
        }
        let mut field = |name: &str, limit: &dyn Fn(&mut JSONSchemaProps)| {
            schema::property(root, &["status", "conditions", name]).into_iter().for_each(limit);
        };
        field("message", &|message| message.max_length = Some(32_768));
        field("observedGeneration", &|generation| generation.minimum = Some(0.0));
        field("reason", &|reason| {
            (reason.min_length, reason.max_length) = (Some(1), Some(1024));
            reason.pattern = Some("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$".to_owned());
        });
        field("status", &|status| {
            status.enum_ = Some(["True", "False", "Unknown"].map(|text| JSON(text.into())).into());
        });
        field("type", &|kind| {
            kind.max_length = Some(316);
            kind.pattern = Some(CONDITION_TYPE.to_owned());
        });
    }
    definition
}

/// A qualified name, as apimachinery asks of condition types.
const CONDITION_TYPE: &str = concat!(
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?",
    r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
);

/// The result of the validation, with its reasons.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationStateStatus {
    /// `Valid`, `Invalid` or `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Valid", "Invalid", "Unknown"]))]
    pub result: Option<String>,
    /// The messages of all conditions that report an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_summary: Option<String>,
    /// One condition per reconciler.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
}
