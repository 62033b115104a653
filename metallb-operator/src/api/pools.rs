//! `IPAddressPool`

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LabelSelector, schema};

/// Addresses for Services of type LoadBalancer.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    plural = "ipaddresspools",
    singular = "ipaddresspool",
    root = "IpAddressPool",
    namespaced,
    status = "IpAddressPoolStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Auto Assign","type":"boolean","jsonPath":".spec.autoAssign"}"#,
    printcolumn = r#"{"name":"Avoid Buggy IPs","type":"boolean","jsonPath":".spec.avoidBuggyIPs"}"#,
    printcolumn = r#"{"name":"Addresses","type":"string","jsonPath":".spec.addresses"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IpAddressPoolSpec {
    /// Addresses over which this pool has authority: CIDRs (`192.168.10.0/24`) or ranges (`192.168.9.1-192.168.9.5`), of
    /// either family.
    pub addresses: Vec<String>,
    /// Whether Services that do not request this pool may get its addresses.
    #[serde(default = "enabled")]
    pub auto_assign: bool,
    /// Do not assign IPv4 addresses that end in .0 or .255.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Restricts the pool to some namespaces or Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}

/// The Services that a pool serves.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Priority among the pools that serve a Service: lower is preferred; 0 or absent comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub priority: Option<i64>,
    /// Namespaces by name; added to those that namespaceSelectors match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces by label; one selector must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selectors: Option<Vec<LabelSelector>>,
    /// Services by label; one selector must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
}

/// The definition, in which a status has all counters. The type reads `status: {}` too, which clients of Go types write.
pub(super) fn ip_address_pool_crd() -> CustomResourceDefinition {
    let mut definition = IpAddressPool::crd();
    schema::require(&mut definition, &["status"], &["assignedIPv4", "assignedIPv6", "availableIPv4", "availableIPv6"]);
    definition
}

/// Counters of a pool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct IpAddressPoolStatus {
    /// Distinct IPv4 addresses in use.
    #[serde(default, rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// Distinct IPv6 addresses in use.
    #[serde(default, rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// Available IPv4 addresses.
    #[serde(default, rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// Available IPv6 addresses.
    #[serde(default, rename = "availableIPv6")]
    pub available_ipv6: i64,
    /// Addresses that hosts outside of the cluster use. They are not assigned while they are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedAddress>,
}

/// An address that a host outside of the cluster uses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedAddress {
    /// The address.
    pub ip: String,
    /// The hardware address of the host.
    pub mac_address: String,
    /// When the address becomes available again if the host is not seen before then, in RFC 3339 format.
    pub until: String,
}

fn enabled() -> bool {
    true
}
