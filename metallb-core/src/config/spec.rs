//! The configuration objects as written: values of the right types, not yet validated.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{LabelSelector, Labels, ObjectRef, Timestamp, Uid};

/// The used part of `metadata`.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectMeta {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.labels`
    pub labels: Labels,
    /// `metadata.annotations` under the prefix `metallb.io/`
    pub annotations: Labels,
    /// `metadata.creationTimestamp`
    pub created: Option<Timestamp>,
    /// `metadata.uid`; `None` for an object of a file.
    pub uid: Option<Uid>,
}

impl ObjectMeta {
    /// Namespace and name; everything else is empty.
    #[must_use]
    pub fn named(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), ..Self::default() }
    }
}

/// All configuration objects of one namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Resources {
    /// `IPAddressPool`
    pub pools: Vec<PoolSpec>,
    /// `L2Advertisement`
    pub l2_advertisements: Vec<L2AdvertisementSpec>,
    /// `BGPAdvertisement`
    pub bgp_advertisements: Vec<BgpAdvertisementSpec>,
    /// `BGPPeer`
    pub peers: Vec<PeerSpec>,
    /// `BFDProfile`
    pub bfd_profiles: Vec<BfdProfileSpec>,
    /// `Community`
    pub communities: Vec<CommunitySpec>,
    /// `Secret`, for the passwords of peers. Never serialized.
    #[serde(skip)]
    pub secrets: Vec<SecretSpec>,
    /// Objects that exist but cannot be read: they are neither valid nor deleted. Never serialized.
    #[serde(skip)]
    pub unreadable: BTreeMap<ObjectRef, Unreadable>,
}

/// An object that exists but cannot be read, for example because a field has the wrong type.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Unreadable {
    /// `metadata.uid`; `None` for an object of a file.
    pub uid: Option<Uid>,
    /// Why it cannot be read, for a problem of the object; `None` if the reader reports the problem itself.
    pub error: Option<String>,
}

/// A kind of configuration object.
pub trait Spec: Ord {
    /// `kind`
    const KIND: &'static str;
    /// The metadata.
    fn meta(&self) -> &ObjectMeta;
    /// A reference to the object.
    fn reference(&self) -> ObjectRef {
        ObjectRef::new(Self::KIND, &self.meta().namespace, &self.meta().name)
    }
}

macro_rules! kinds {
    ($($spec:ident $kind:literal)*) => {$(
        impl Spec for $spec {
            const KIND: &'static str = $kind;
            fn meta(&self) -> &ObjectMeta {
                &self.meta
            }
        }
    )*};
}

kinds! {
    PoolSpec "IPAddressPool"
    L2AdvertisementSpec "L2Advertisement"
    BgpAdvertisementSpec "BGPAdvertisement"
    PeerSpec "BGPPeer"
    BfdProfileSpec "BFDProfile"
    CommunitySpec "Community"
    SecretSpec "Secret"
}

/// `IPAddressPool`
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PoolSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.addresses`
    pub addresses: Vec<String>,
    /// `spec.autoAssign`
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`
    pub avoid_buggy_ips: bool,
    /// `spec.serviceAllocation`
    pub service_allocation: Option<ServiceAllocationSpec>,
}

impl Default for PoolSpec {
    /// The defaults of the custom resource: `autoAssign: true`, `avoidBuggyIPs: false`.
    fn default() -> Self {
        Self {
            meta: ObjectMeta::default(),
            addresses: Vec::new(),
            auto_assign: true,
            avoid_buggy_ips: false,
            service_allocation: None,
        }
    }
}

/// `spec.serviceAllocation` of a pool.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ServiceAllocationSpec {
    /// Lower numbers are preferred; 0 comes last.
    pub priority: i64,
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// Labels of namespaces.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Labels of Services.
    pub service_selectors: Vec<LabelSelector>,
}

/// `L2Advertisement`
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct L2AdvertisementSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.ipAddressPools`
    pub pools: Vec<String>,
    /// `spec.ipAddressPoolSelectors`
    pub pool_selectors: Vec<LabelSelector>,
    /// `spec.nodeSelectors`
    pub node_selectors: Vec<LabelSelector>,
    /// `spec.serviceSelectors`
    pub service_selectors: Vec<LabelSelector>,
    /// `spec.interfaces`
    pub interfaces: Vec<String>,
    /// `spec.preferredNodeSelectors`: weight and preference.
    pub preferences: Vec<(i64, LabelSelector)>,
}

/// `BGPAdvertisement`
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BgpAdvertisementSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.aggregationLength`, default 32.
    pub aggregation_length: i64,
    /// `spec.aggregationLengthV6`, default 128.
    pub aggregation_length_v6: i64,
    /// `spec.localPref`; 0 means not set.
    pub local_pref: i64,
    /// `spec.communities`
    pub communities: Vec<String>,
    /// `spec.ipAddressPools`
    pub pools: Vec<String>,
    /// `spec.ipAddressPoolSelectors`
    pub pool_selectors: Vec<LabelSelector>,
    /// `spec.nodeSelectors`
    pub node_selectors: Vec<LabelSelector>,
    /// `spec.peers`
    pub peers: Vec<String>,
    /// `spec.serviceSelectors`
    pub service_selectors: Vec<LabelSelector>,
}

impl Default for BgpAdvertisementSpec {
    /// The defaults of the custom resource: host routes for every pool, from every node to every peer.
    fn default() -> Self {
        Self {
            meta: ObjectMeta::default(),
            aggregation_length: 32,
            aggregation_length_v6: 128,
            local_pref: 0,
            communities: Vec::new(),
            pools: Vec::new(),
            pool_selectors: Vec::new(),
            node_selectors: Vec::new(),
            peers: Vec::new(),
            service_selectors: Vec::new(),
        }
    }
}

/// `BGPPeer` v1beta2. Durations are text in the format of Go (`90s`, `1m30s`).
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PeerSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.myASN`
    pub my_asn: i64,
    /// `spec.peerASN`; 0 means not set.
    pub peer_asn: i64,
    /// `spec.dynamicASN`; empty means not set.
    pub dynamic_asn: String,
    /// `spec.localASN`; 0 means not set.
    pub local_asn: i64,
    /// `spec.peerAddress`
    pub address: String,
    /// `spec.interface`
    pub interface: String,
    /// `spec.sourceAddress`
    pub source_address: String,
    /// `spec.peerPort`; 0 means the default, 179.
    pub port: i64,
    /// `spec.holdTime`
    pub hold_time: Option<String>,
    /// `spec.keepaliveTime`
    pub keepalive_time: Option<String>,
    /// `spec.connectTime`
    pub connect_time: Option<String>,
    /// `spec.routerID`
    pub router_id: String,
    /// `spec.nodeSelectors`
    pub node_selectors: Vec<LabelSelector>,
    /// `spec.password`. Never serialized.
    #[serde(skip)]
    pub password: Password,
    /// `spec.passwordSecret.name`
    pub password_secret: String,
    /// `spec.bfdProfile`
    pub bfd_profile: String,
    /// `spec.enableGracefulRestart`
    pub graceful_restart: bool,
    /// `spec.ebgpMultiHop`
    pub ebgp_multihop: bool,
    /// `spec.vrf`
    pub vrf: String,
    /// `spec.disableMP`; it has no effect.
    pub disable_mp: bool,
    /// `spec.dualStackAddressFamily`
    pub dual_stack: bool,
}

/// `BFDProfile`; intervals in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BfdProfileSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.receiveInterval`
    pub receive_interval: Option<i64>,
    /// `spec.transmitInterval`
    pub transmit_interval: Option<i64>,
    /// `spec.detectMultiplier`
    pub detect_multiplier: Option<i64>,
    /// `spec.echoInterval`
    pub echo_interval: Option<i64>,
    /// `spec.echoMode`
    pub echo_mode: bool,
    /// `spec.passiveMode`
    pub passive_mode: bool,
    /// `spec.minimumTtl`
    pub minimum_ttl: Option<i64>,
}

/// `Community`
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct CommunitySpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.communities`: alias and value.
    pub communities: Vec<(String, String)>,
}

/// The used part of a `Secret` with the password of a peer.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct SecretSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `type`
    pub secret_type: String,
    /// `data.password`, decoded.
    pub password: Option<Password>,
}

/// A password. `Debug` prints asterisks.
#[derive(Clone, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Password(String);

impl Password {
    /// Wraps the text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "***" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_never_printed() {
        assert_eq!(format!("{:?}", Password::new("hunter2".to_owned())), "***");
        assert_eq!(format!("{:?}", Password::default()), "\"\"");
    }
}
