//! `IPAddressPool`

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LabelSelector;

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
    /// Whether addresses go to Services that do not ask for this pool.
    #[serde(default = "enabled")]
    pub auto_assign: bool,
    /// Leave IPv4 addresses that end in .0 or .255 alone.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Restrict the pool to some namespaces or Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}

/// Whom a pool serves.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Lower is preferred; 0 or absent is last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub priority: Option<i64>,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces by label; one must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selectors: Option<Vec<LabelSelector>>,
    /// Services by label; one must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
}

/// Counters of a pool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct IpAddressPoolStatus {
    /// Distinct IPv4 addresses in use.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// Distinct IPv6 addresses in use.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// IPv4 addresses left.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// IPv6 addresses left.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
    /// Addresses that hosts outside of the cluster use: they are handed out to nobody for a while.
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
    /// When it is handed out again unless the host is seen once more, as RFC 3339 writes it.
    pub until: String,
}

fn enabled() -> bool {
    true
}
