//! The nine kinds of `metallb.io`; `metallb crds` prints their definitions (contract control-plane §1).

mod advertisements;
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
pub use peers::{
    BfdProfile, BfdProfileSpec, BgpPeer, BgpPeerSpec, BgpPeerV1Beta1, BgpPeerV1Beta1Spec, NodeSelector,
    NodeSelectorRequirement, SecretReference,
};
pub use pools::{IpAddressPool, IpAddressPoolSpec, IpAddressPoolStatus, ServiceAllocation};
pub use statuses::{
    ConfigurationState, ConfigurationStateStatus, InterfaceInfo, ServiceBgpStatus, ServiceBgpStatusSpec,
    ServiceBgpStatusStatus, ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus,
};

/// No fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Empty {}

/// `metav1.LabelSelector`, matched as a whole when it is merged.
pub type LabelSelector = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// All definitions, by plural name.
///
/// `BGPPeer` is served in both versions without a conversion webhook: every field of v1beta1 has the same name and meaning in
/// v1beta2, so the API server's own conversion, which changes nothing but `apiVersion`, is right. Timers that are unset stay
/// unset, where upstream's webhook turns them into 0s (contract control-plane §12, 16).
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = [
        optional_spec(BfdProfile::crd()),
        optional_spec(BgpAdvertisement::crd()),
        peers::bgp_peer_crd(),
        optional_spec(Community::crd()),
        statuses::configuration_state_crd(),
        IpAddressPool::crd(),
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
