//! The configuration objects as written: values of the right type, not yet known to make sense.

use std::fmt;

use crate::model::{LabelSelector, Labels, ObjectRef, Timestamp};

/// The part of `metadata` that matters.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct ObjectMeta {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.labels`
    pub labels: Labels,
    /// `metadata.creationTimestamp`
    pub created: Option<Timestamp>,
}

/// All configuration objects of one namespace.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
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
    /// `Secret`, for the passwords of peers.
    pub secrets: Vec<SecretSpec>,
}

/// A kind of configuration object.
pub trait Spec: Ord {
    /// The kind as in YAML.
    const KIND: &'static str;
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// A reference to the object, for problems.
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
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
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

/// `spec.serviceAllocation` of a pool.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct ServiceAllocationSpec {
    /// Lower is preferred; 0 is last.
    pub priority: i64,
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// Labels of namespaces.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Labels of Services.
    pub service_selectors: Vec<LabelSelector>,
}

/// `L2Advertisement`
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
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
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BgpAdvertisementSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.aggregationLength`, default 32.
    pub aggregation_length: i64,
    /// `spec.aggregationLengthV6`, default 128.
    pub aggregation_length_v6: i64,
    /// `spec.localPref`, default 0: not set.
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

/// `BGPPeer` v1beta2. Durations are text as Go writes them (`90s`, `1m30s`).
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct PeerSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.myASN`
    pub my_asn: i64,
    /// `spec.peerASN`; 0 is absent.
    pub peer_asn: i64,
    /// `spec.dynamicASN`; empty is absent.
    pub dynamic_asn: String,
    /// `spec.localASN`; 0 is absent.
    pub local_asn: i64,
    /// `spec.peerAddress`
    pub address: String,
    /// `spec.interface`
    pub interface: String,
    /// `spec.sourceAddress`
    pub source_address: String,
    /// `spec.peerPort`; 0 is the default, 179.
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
    /// `spec.password`
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
    /// `spec.disableMP`, without effect.
    pub disable_mp: bool,
    /// `spec.dualStackAddressFamily`
    pub dual_stack: bool,
}

/// `BFDProfile`; intervals in milliseconds.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
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
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct CommunitySpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `spec.communities`: alias and value.
    pub communities: Vec<(String, String)>,
}

/// The part of a `Secret` that a peer's password needs.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct SecretSpec {
    /// Metadata.
    pub meta: ObjectMeta,
    /// `type`
    pub secret_type: String,
    /// `data.password`, decoded.
    pub password: Option<Password>,
}

/// A password. Printing it, even for debugging, prints asterisks.
#[derive(Clone, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Password(String);

impl Password {
    /// Takes the text in.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the socket option that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
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
