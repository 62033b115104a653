//! The nine kinds of `metallb.io`, one file each; `metallb crds` prints them (contract control-plane §1).

mod advertisements;
mod peers;
mod pools;
mod statuses;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use advertisements::{
    BgpAdvertisement, BgpAdvertisementSpec, Community, CommunityAlias, CommunitySpec, L2Advertisement, L2AdvertisementSpec,
    NodePreference,
};
pub use peers::{
    BfdProfile, BfdProfileSpec, BgpPeer, BgpPeerSpec, BgpPeerV1Beta1, BgpPeerV1Beta1Spec, SecretReference,
};
pub use pools::{IpAddressPool, IpAddressPoolSpec, IpAddressPoolStatus, ServiceAllocation};
pub use statuses::{
    ConfigurationState, ConfigurationStateStatus, InterfaceInfo, ServiceBgpStatus, ServiceBgpStatusSpec, ServiceBgpStatusStatus,
    ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus,
};

/// A specification without fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Empty {}

/// `metav1.LabelSelector`, matched as a whole when it is merged.
pub type LabelSelector = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// All definitions, by kind. `BGPPeer` is served in both versions; converting between them needs a webhook, see
/// [`with_conversion_webhook`].
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        without_required_spec(BfdProfile::crd()),
        without_required_spec(BgpAdvertisement::crd()),
        peers::bgp_peer_crd(),
        without_required_spec(Community::crd()),
        statuses::configuration_state_crd(),
        IpAddressPool::crd(),
        without_required_spec(L2Advertisement::crd()),
        without_required_spec(ServiceBgpStatus::crd()),
        without_required_spec(ServiceL2Status::crd()),
    ];
    for definition in &mut all {
        let annotations = definition.metadata.annotations.get_or_insert_default();
        annotations.insert("controller-gen.kubebuilder.io/version".to_owned(), "v0.19.0".to_owned());
    }
    all
}

/// Lets users leave `spec` out where no field of it is required; the API server fills in an empty one.
fn without_required_spec(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else { continue };
        schema.required = None;
        if let Some(spec) = schema.properties.as_mut().and_then(|properties| properties.get_mut("spec")) {
            spec.default = Some(JSON(serde_json::json!({})));
        }
    }
    definition
}
