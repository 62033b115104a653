//! The nine kinds of `metallb.io`, one file each; `metallb crds` prints them (contract control-plane §1).

mod advertisements;
mod peers;
mod pools;
mod statuses;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
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
    ConfigurationState, ConfigurationStateStatus, InterfaceInfo, ServiceBgpStatus, ServiceBgpStatusStatus, ServiceL2Status,
    ServiceL2StatusStatus,
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
        BfdProfile::crd(),
        BgpAdvertisement::crd(),
        peers::bgp_peer_crd(),
        Community::crd(),
        statuses::configuration_state_crd(),
        IpAddressPool::crd(),
        L2Advertisement::crd(),
        ServiceBgpStatus::crd(),
        ServiceL2Status::crd(),
    ];
    for definition in &mut all {
        let annotations = definition.metadata.annotations.get_or_insert_default();
        annotations.insert("controller-gen.kubebuilder.io/version".to_owned(), "v0.19.0".to_owned());
    }
    all
}
