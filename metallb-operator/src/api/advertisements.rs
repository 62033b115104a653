//! `L2Advertisement`, `BGPAdvertisement`, `Community`

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LabelSelector;

/// Announces the addresses of pools by ARP and NDP.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    plural = "l2advertisements",
    singular = "l2advertisement",
    namespaced,
    status = "super::Empty",
    derive = "PartialEq",
    derive = "Default",
    attr = "cfg_attr(all(), serde(default))",
    printcolumn = r#"{"name":"IPAddressPools","type":"string","jsonPath":".spec.ipAddressPools"}"#,
    printcolumn = r#"{"name":"IPAddressPool Selectors","type":"string","jsonPath":".spec.ipAddressPoolSelectors"}"#,
    printcolumn = r#"{"name":"Interfaces","type":"string","jsonPath":".spec.interfaces"}"#,
    printcolumn = r#"{"name":"Node Selectors","type":"string","jsonPath":".spec.nodeSelectors","priority":10}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct L2AdvertisementSpec {
    /// Pools by name. Without names and selectors the advertisement applies to all pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address_pools: Option<Vec<String>>,
    /// Pools by label; one selector must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    /// Nodes that may answer ARP and NDP requests; one selector must match. Empty means all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// Services by label; one selector must match. Empty means all Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
    /// Interfaces on which nodes answer. Empty means all interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,
    /// Preferences among the nodes that may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_node_selectors: Option<Vec<NodePreference>>,
}

/// A weight for nodes that a selector matches.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct NodePreference {
    /// Added to the score of each node that matches.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The nodes; an empty selector matches every eligible node.
    pub preference: LabelSelector,
}

/// Advertises the addresses of pools by BGP.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPAdvertisement",
    plural = "bgpadvertisements",
    singular = "bgpadvertisement",
    root = "BgpAdvertisement",
    namespaced,
    status = "super::Empty",
    derive = "PartialEq",
    derive = "Default",
    attr = "cfg_attr(all(), serde(default))",
    printcolumn = r#"{"name":"IPAddressPools","type":"string","jsonPath":".spec.ipAddressPools"}"#,
    printcolumn = r#"{"name":"IPAddressPool Selectors","type":"string","jsonPath":".spec.ipAddressPoolSelectors"}"#,
    printcolumn = r#"{"name":"Peers","type":"string","jsonPath":".spec.peers"}"#,
    printcolumn = r#"{"name":"Node Selectors","type":"string","jsonPath":".spec.nodeSelectors","priority":10}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.serviceSelectors) || size(self.serviceSelectors) == 0 || ((!has(self.aggregationLength) || self.aggregationLength == 32) && (!has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128))",
    "message": "serviceSelectors and aggregationLength are mutually exclusive: the routes of selected Services are never aggregated",
}]))]
pub struct BgpAdvertisementSpec {
    /// Prefix length of IPv4 routes.
    #[serde(default = "host_v4")]
    #[schemars(range(min = 1))]
    pub aggregation_length: i32,
    /// Prefix length of IPv6 routes.
    #[serde(default = "host_v6", rename = "aggregationLengthV6")]
    pub aggregation_length_v6: i32,
    /// LOCAL_PREF of the routes, sent to internal peers only; 0 or absent means the default, 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub local_pref: Option<i64>,
    /// Communities: `A:B`, `large:X:Y:Z`, or the name of an alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
    /// Pools by name. Without names and selectors the advertisement applies to all pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_pools: Option<Vec<String>>,
    /// Pools by label; one selector must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    /// Nodes that advertise the routes; one selector must match. Empty means all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selectors: Option<Vec<LabelSelector>>,
    /// Names of the BGPPeers to advertise to. Empty means all peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<String>>,
    /// Services by label; one selector must match. Empty means all Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selectors: Option<Vec<LabelSelector>>,
}

impl Default for BgpAdvertisementSpec {
    /// The specification that the API server fills in: routes of single addresses.
    fn default() -> Self {
        Self {
            aggregation_length: host_v4(),
            aggregation_length_v6: host_v6(),
            local_pref: None,
            communities: None,
            ip_address_pools: None,
            ip_address_pool_selectors: None,
            node_selectors: None,
            peers: None,
            service_selectors: None,
        }
    }
}

fn host_v4() -> i32 {
    32
}

fn host_v6() -> i32 {
    128
}

/// Aliases of BGP communities.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "Community",
    plural = "communities",
    singular = "community",
    namespaced,
    status = "super::Empty",
    derive = "PartialEq",
    derive = "Default",
    attr = "cfg_attr(all(), serde(default))"
)]
pub struct CommunitySpec {
    /// The aliases; all Community objects share one set of names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<CommunityAlias>>,
}

/// An alias of a BGP community.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct CommunityAlias {
    /// The alias, for use in BGPAdvertisements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The community: `A:B` or `large:X:Y:Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}
