//! The nine kinds of `metallb.io`; `metallb crds` prints their definitions (`docs/upstream-behaviour.md#crds`).

mod advertisements;
mod objects;
mod peers;
mod pools;
mod schema;
mod statuses;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use advertisements::{
    BgpAdvertisement, BgpAdvertisementSpec, Community, CommunityAlias, CommunitySpec, L2Advertisement,
    L2AdvertisementSpec, NodePreference,
};
pub use objects::objects;
pub use peers::{
    BfdProfile, BfdProfileSpec, BgpPeer, BgpPeerSpec, BgpPeerV1Beta1, BgpPeerV1Beta1Spec, NodeSelector,
    NodeSelectorRequirement, SecretReference,
};
pub use pools::{IpAddressPool, IpAddressPoolSpec, IpAddressPoolStatus, QuarantinedAddress, ServiceAllocation};
pub use statuses::{
    AddressConflict, ConfigurationState, ConfigurationStateStatus, InterfaceInfo, RefusedAddress, ServiceBgpStatus,
    ServiceBgpStatusSpec, ServiceBgpStatusStatus, ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus,
};

// Upstream's definitions do not require `spec` of most kinds and have no default for it, so stored objects may lack it.
// kube-derive has no attribute for that; each such kind passes `serde(default)` on by `cfg_attr`.

/// No fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Empty {}

/// `metav1.LabelSelector`, matched as a whole when it is merged.
pub type LabelSelector = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// All definitions, by plural name.
///
/// `BGPPeer` is served in both versions without a conversion webhook: every field of v1beta1 has the same name and
/// meaning in v1beta2, so the API server's own conversion, which changes only `apiVersion`, is correct. Unset timers
/// stay unset, whereas upstream's webhook turns them into 0s (`docs/upstream-behaviour.md#crds`).
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = [
        optional_spec(BfdProfile::crd()),
        optional_spec(BgpAdvertisement::crd()),
        peers::bgp_peer_crd(),
        optional_spec(Community::crd()),
        statuses::configuration_state_crd(),
        pools::ip_address_pool_crd(),
        optional_spec(L2Advertisement::crd()),
        optional_spec(ServiceBgpStatus::crd()),
        optional_spec(ServiceL2Status::crd()),
    ];
    all.iter_mut().for_each(schema::finish);
    all.into()
}

fn optional_spec(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    schema::make_spec_optional(&mut definition);
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The API server stores such objects under definitions without a default for `spec`, as upstream's are.
    #[test]
    fn object_without_specification_or_with_an_empty_status_is_read() {
        fn reads<K: serde::de::DeserializeOwned>(kind: &str, object: serde_json::Value) -> K {
            serde_json::from_value(object).unwrap_or_else(|error| panic!("{kind}: {error}"))
        }
        let bare = || serde_json::json!({ "metadata": { "name": "x" } });
        let _: L2Advertisement = reads("L2Advertisement", bare());
        let _: Community = reads("Community", bare());
        let _: BfdProfile = reads("BFDProfile", bare());
        let _: ServiceL2Status = reads("ServiceL2Status", bare());
        let _: ServiceBgpStatus = reads("ServiceBGPStatus", bare());
        let advertisement: BgpAdvertisement = reads("BGPAdvertisement", bare());
        let spec = advertisement.spec;
        assert_eq!((spec.aggregation_length, spec.aggregation_length_v6), (32, 128));
        let with =
            |spec: serde_json::Value| serde_json::json!({ "metadata": { "name": "x" }, "spec": spec, "status": {} });
        let pool: IpAddressPool = reads("IPAddressPool", with(serde_json::json!({ "addresses": ["10.0.0.0/24"] })));
        assert_eq!(pool.status, Some(IpAddressPoolStatus::default()));
        let _: BgpPeer = reads("BGPPeer", with(serde_json::json!({ "myASN": 64512 })));
        let older = serde_json::json!({ "myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1" });
        let _: BgpPeerV1Beta1 = reads("BGPPeer v1beta1", with(older));
        let _: L2Advertisement = reads("L2Advertisement", with(serde_json::json!({})));
        let _: ServiceL2Status = reads("ServiceL2Status", with(serde_json::json!({})));
        let state = |status: serde_json::Value| {
            serde_json::json!({
                "apiVersion": "metallb.io/v1beta1", "kind": "ConfigurationState",
                "metadata": { "name": "x" }, "status": status,
            })
        };
        let _: ConfigurationState = reads("ConfigurationState", state(serde_json::json!({})));
        let _: ConfigurationState = reads("ConfigurationState", state(serde_json::Value::Null));
    }

    /// The printer columns of upstream: name, type, path and priority of each column.
    #[test]
    fn printer_columns_names_and_subresources_equal_those_of_upstream() {
        let expected: [(&str, &[&str]); 9] = [
            (
                "bfdprofiles",
                &[
                    "Passive Mode boolean .spec.passiveMode",
                    "Transmit Interval integer .spec.transmitInterval",
                    "Receive Interval integer .spec.receiveInterval",
                    "Multiplier integer .spec.detectMultiplier",
                ],
            ),
            (
                "bgpadvertisements",
                &[
                    "IPAddressPools string .spec.ipAddressPools",
                    "IPAddressPool Selectors string .spec.ipAddressPoolSelectors",
                    "Peers string .spec.peers",
                    "Node Selectors string .spec.nodeSelectors 10",
                ],
            ),
            (
                "bgppeers",
                &[
                    "Address string .spec.peerAddress",
                    "ASN string .spec.peerASN",
                    "BFD Profile string .spec.bfdProfile",
                    "Multi Hops string .spec.ebgpMultiHop",
                ],
            ),
            ("communities", &[]),
            (
                "configurationstates",
                &[
                    "Result string .status.result",
                    "ErrorSummary string .status.errorSummary",
                    "Age date .metadata.creationTimestamp",
                ],
            ),
            (
                "ipaddresspools",
                &[
                    "Auto Assign boolean .spec.autoAssign",
                    "Avoid Buggy IPs boolean .spec.avoidBuggyIPs",
                    "Addresses string .spec.addresses",
                ],
            ),
            (
                "l2advertisements",
                &[
                    "IPAddressPools string .spec.ipAddressPools",
                    "IPAddressPool Selectors string .spec.ipAddressPoolSelectors",
                    "Interfaces string .spec.interfaces",
                    "Node Selectors string .spec.nodeSelectors 10",
                ],
            ),
            (
                "servicebgpstatuses",
                &[
                    "Node string .status.node",
                    "Service Name string .status.serviceName",
                    "Service Namespace string .status.serviceNamespace",
                ],
            ),
            (
                "servicel2statuses",
                &[
                    "Allocated Node string .status.node",
                    "Service Name string .status.serviceName",
                    "Service Namespace string .status.serviceNamespace",
                ],
            ),
        ];
        let definitions = definitions();
        assert_eq!(definitions.len(), expected.len());
        for (definition, (plural, columns)) in definitions.iter().zip(expected) {
            let names = &definition.spec.names;
            assert_eq!(names.plural, plural);
            assert_eq!(names.singular.as_deref(), Some(names.kind.to_lowercase().as_str()));
            assert_eq!(names.list_kind, Some(format!("{}List", names.kind)));
            assert_eq!((&names.short_names, &names.categories), (&None, &None), "{plural}");
            assert_eq!((definition.spec.group.as_str(), definition.spec.scope.as_str()), ("metallb.io", "Namespaced"));
            for version in &definition.spec.versions {
                let printed: Vec<String> = version
                    .additional_printer_columns
                    .iter()
                    .flatten()
                    .map(|column| {
                        let priority = column.priority.map(|priority| format!(" {priority}")).unwrap_or_default();
                        format!("{} {} {}{priority}", column.name, column.type_, column.json_path)
                    })
                    .collect();
                assert_eq!(printed, columns, "{plural} {}", version.name);
                assert!(version.subresources.as_ref().is_some_and(|all| all.status.is_some()), "{plural}");
            }
        }
        let versions: Vec<_> =
            definitions[2].spec.versions.iter().map(|v| (v.name.as_str(), v.storage, v.deprecated)).collect();
        assert_eq!(versions, [("v1beta1", false, Some(true)), ("v1beta2", true, None)]);
    }
}
