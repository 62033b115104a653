//! Conversion of the ConfigMap of MetalLB before 0.13 to custom resources
//! (`docs/upstream-behaviour.md#configuration-legacy`).
//!
//! The caller reads and writes the YAML. Unlike upstream's tool, an invalid document is an error, not an empty result.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::duration::parse_go_duration;
use super::spec::{
    BfdProfileSpec, BgpAdvertisementSpec, CommunitySpec, L2AdvertisementSpec, ObjectMeta, Password, PeerSpec, PoolSpec,
    Resources,
};
use super::{Config, ConfigReason, Problem, Severity};
use crate::model::{Cluster, LabelSelector, Labels, Requirement};

/// The document under `data.config`. An unknown field is an error, because its effect would be lost. A field without a
/// value is treated as absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LegacyConfig {
    /// Routers.
    #[serde(deserialize_with = "or_default")]
    pub peers: Vec<LegacyPeer>,
    /// Aliases of communities.
    #[serde(deserialize_with = "or_default")]
    pub bgp_communities: BTreeMap<String, String>,
    /// Pools with their protocol.
    #[serde(deserialize_with = "or_default")]
    pub address_pools: Vec<LegacyPool>,
    /// BFD profiles.
    #[serde(deserialize_with = "or_default")]
    pub bfd_profiles: Vec<LegacyBfdProfile>,
}

/// Reads a value; `null` becomes the default.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// One of `peers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LegacyPeer {
    /// `my-asn`
    #[serde(deserialize_with = "or_default")]
    pub my_asn: i64,
    /// `peer-asn`
    #[serde(deserialize_with = "or_default")]
    pub peer_asn: i64,
    /// `peer-address`
    #[serde(deserialize_with = "or_default")]
    pub peer_address: String,
    /// `source-address`
    #[serde(deserialize_with = "or_default")]
    pub source_address: String,
    /// `peer-port`
    #[serde(deserialize_with = "or_default")]
    pub peer_port: i64,
    /// `hold-time`
    pub hold_time: Option<String>,
    /// `keepalive-time`
    pub keepalive_time: Option<String>,
    /// `router-id`
    #[serde(deserialize_with = "or_default")]
    pub router_id: String,
    /// `node-selectors`
    #[serde(deserialize_with = "or_default")]
    pub node_selectors: Vec<LegacySelector>,
    /// `password`
    #[serde(deserialize_with = "or_default")]
    pub password: LegacyPassword,
    /// `bfd-profile`
    #[serde(deserialize_with = "or_default")]
    pub bfd_profile: String,
    /// `ebgp-multihop`
    #[serde(deserialize_with = "or_default")]
    pub ebgp_multihop: bool,
}

/// A password. It is read as plain text and printed as asterisks.
#[derive(Clone, Debug, Default)]
pub struct LegacyPassword(pub Password);

impl<'de> Deserialize<'de> for LegacyPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Password::new(text)))
    }
}

/// One of a peer's `node-selectors`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LegacySelector {
    /// Labels that must have exactly these values.
    #[serde(deserialize_with = "or_default")]
    pub match_labels: Labels,
    /// Further requirements.
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Vec<LegacyRequirement>,
}

/// One of a selector's `match-expressions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LegacyRequirement {
    /// The label's key.
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    /// The operator.
    #[serde(deserialize_with = "or_default")]
    pub operator: String,
    /// Its values.
    #[serde(deserialize_with = "or_default")]
    pub values: Vec<String>,
}

/// One of `address-pools`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LegacyPool {
    /// `bgp` or `layer2`.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// `name`
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// CIDRs and ranges.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Default: true.
    pub auto_assign: Option<bool>,
    /// Default: false.
    #[serde(deserialize_with = "or_default")]
    pub avoid_buggy_ips: bool,
    /// `bgp-advertisements`
    #[serde(deserialize_with = "or_default")]
    pub bgp_advertisements: Vec<LegacyBgpAdvertisement>,
}

/// One of a pool's `bgp-advertisements`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LegacyBgpAdvertisement {
    /// Default: 32.
    pub aggregation_length: Option<i64>,
    /// Default: 128.
    pub aggregation_length_v6: Option<i64>,
    /// Default: not set.
    #[serde(deserialize_with = "or_default")]
    pub localpref: i64,
    /// Communities and aliases.
    #[serde(deserialize_with = "or_default")]
    pub communities: Vec<String>,
}

/// One of `bfd-profiles`; intervals in milliseconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LegacyBfdProfile {
    /// `name`
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `receive-interval`
    pub receive_interval: Option<i64>,
    /// `transmit-interval`
    pub transmit_interval: Option<i64>,
    /// `detect-multiplier`
    pub detect_multiplier: Option<i64>,
    /// `echo-interval`
    pub echo_interval: Option<i64>,
    /// `echo-mode`
    #[serde(deserialize_with = "or_default")]
    pub echo_mode: bool,
    /// `passive-mode`
    #[serde(deserialize_with = "or_default")]
    pub passive_mode: bool,
    /// `minimum-ttl`
    pub minimum_ttl: Option<i64>,
}

/// Result of a conversion.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Conversion {
    /// The objects, each kind in the order of the document.
    pub resources: Resources,
    /// Changes that a person should review.
    pub notes: Vec<ConversionNote>,
}

/// A conversion that may differ from what the author of the ConfigMap expects.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConversionNote {
    /// Kubernetes does not allow the old name.
    #[error("\"{from}\" is renamed to \"{to}\", because Kubernetes does not allow the name")]
    Renamed {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// A pool has another name now. Services that name it must be changed.
    #[error(
        "a Service with the annotation address-pool: \"{from}\" loses its addresses unless the annotation becomes \
         \"{to}\""
    )]
    PoolRenamed {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// The protocol is neither `bgp` nor `layer2`, so the pool is not advertised.
    #[error("pool \"{pool}\" has the unknown protocol \"{protocol}\" and is not advertised")]
    UnknownProtocol {
        /// The pool.
        pool: String,
        /// The protocol as written.
        protocol: String,
    },
}

/// Error of converting a ConfigMap. Each is an error in the ConfigMap.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConversionError {
    /// The name contains no letter a-z to start with.
    #[error("\"{0}\" contains no letter a-z to start a name with")]
    Unnameable(String),
    /// The text is not a duration.
    #[error("peer {peer}: invalid {field} \"{text}\"")]
    Duration {
        /// Number of the peer, starting at 1.
        peer: usize,
        /// The field.
        field: &'static str,
        /// The text as written.
        text: String,
    },
    /// A converted object is not valid.
    #[error("{0}")]
    Invalid(Problem),
}

impl LegacyConfig {
    /// Converts the whole document.
    ///
    /// # Errors
    /// All errors of the document, see [`ConversionError`].
    pub fn convert(&self, namespace: &str) -> Result<Conversion, Vec<ConversionError>> {
        let mut converter = Converter {
            namespace,
            resources: Resources::default(),
            names: BTreeMap::new(),
            notes: Vec::new(),
            errors: Vec::new(),
        };
        for (index, peer) in self.peers.iter().enumerate() {
            converter.peer(index + 1, peer);
        }
        for pool in &self.address_pools {
            converter.pool(pool);
        }
        for profile in &self.bfd_profiles {
            converter.bfd_profile(profile);
        }
        converter.communities(&self.bgp_communities);
        converter.finish()
    }
}

struct Converter<'a> {
    namespace: &'a str,
    resources: Resources,
    /// New names by kind and old name.
    names: BTreeMap<(&'static str, String), String>,
    notes: Vec<ConversionNote>,
    errors: Vec<ConversionError>,
}

impl Converter<'_> {
    fn peer<'a>(&mut self, number: usize, peer: &'a LegacyPeer) {
        let written = |text: &'a Option<String>| text.as_deref().filter(|text| !text.is_empty());
        let hold_time = written(&peer.hold_time).unwrap_or(DEFAULT_HOLD_TIME);
        let hold_time = self.seconds(number, "hold-time", Some(hold_time));
        let keepalive_time = self.seconds(number, "keepalive-time", written(&peer.keepalive_time));
        let bfd_profile =
            if peer.bfd_profile.is_empty() { String::new() } else { self.name("BFDProfile", &peer.bfd_profile) };
        self.resources.peers.push(PeerSpec {
            meta: self.meta(format!("peer{number}")),
            my_asn: peer.my_asn,
            peer_asn: peer.peer_asn,
            address: peer.peer_address.clone(),
            source_address: peer.source_address.clone(),
            port: peer.peer_port,
            hold_time,
            keepalive_time,
            router_id: peer.router_id.clone(),
            node_selectors: peer.node_selectors.iter().map(LegacySelector::to_selector).collect(),
            password: peer.password.0.clone(),
            bfd_profile,
            ebgp_multihop: peer.ebgp_multihop,
            ..PeerSpec::default()
        });
    }

    fn pool(&mut self, pool: &LegacyPool) {
        let name = self.name("IPAddressPool", &pool.name);
        if name != pool.name {
            self.notes.push(ConversionNote::PoolRenamed { from: pool.name.clone(), to: name.clone() });
        }
        self.resources.pools.push(PoolSpec {
            meta: self.meta(name.clone()),
            addresses: pool.addresses.clone(),
            auto_assign: pool.auto_assign.unwrap_or(true),
            avoid_buggy_ips: pool.avoid_buggy_ips,
            ..PoolSpec::default()
        });
        for advertisement in &pool.bgp_advertisements {
            self.bgp_advertisement(&name, advertisement);
        }
        match pool.protocol.as_str() {
            "bgp" if pool.bgp_advertisements.is_empty() => {
                self.bgp_advertisement(&name, &LegacyBgpAdvertisement::default());
            }
            "bgp" => {}
            "layer2" => {
                let number = self.resources.l2_advertisements.len() + 1;
                let meta = self.meta(format!("l2advertisement{number}"));
                let advertisement = L2AdvertisementSpec { meta, pools: vec![name], ..L2AdvertisementSpec::default() };
                self.resources.l2_advertisements.push(advertisement);
            }
            other => self.notes.push(ConversionNote::UnknownProtocol { pool: name, protocol: other.to_owned() }),
        }
    }

    fn bgp_advertisement(&mut self, pool: &str, advertisement: &LegacyBgpAdvertisement) {
        let number = self.resources.bgp_advertisements.len() + 1;
        self.resources.bgp_advertisements.push(BgpAdvertisementSpec {
            meta: self.meta(format!("bgpadvertisement{number}")),
            aggregation_length: advertisement.aggregation_length.unwrap_or(32),
            aggregation_length_v6: advertisement.aggregation_length_v6.unwrap_or(128),
            local_pref: advertisement.localpref,
            communities: advertisement.communities.clone(),
            pools: vec![pool.to_owned()],
            ..BgpAdvertisementSpec::default()
        });
    }

    fn bfd_profile(&mut self, profile: &LegacyBfdProfile) {
        let name = self.name("BFDProfile", &profile.name);
        self.resources.bfd_profiles.push(BfdProfileSpec {
            meta: self.meta(name),
            receive_interval: profile.receive_interval,
            transmit_interval: profile.transmit_interval,
            detect_multiplier: profile.detect_multiplier,
            echo_interval: profile.echo_interval,
            echo_mode: profile.echo_mode,
            passive_mode: profile.passive_mode,
            minimum_ttl: profile.minimum_ttl,
        });
    }

    fn communities(&mut self, aliases: &BTreeMap<String, String>) {
        if !aliases.is_empty() {
            let communities = aliases.iter().map(|(alias, value)| (alias.clone(), value.clone())).collect();
            self.resources.communities.push(CommunitySpec { meta: self.meta("communities".to_owned()), communities });
        }
    }

    /// Validates the converted objects. Duplicate peers are not errors here, because they may be on different nodes.
    fn finish(mut self) -> Result<Conversion, Vec<ConversionError>> {
        let problems = Config::parse(&self.resources, &Cluster::default()).problems;
        let is_error =
            |problem: &Problem| problem.severity == Severity::Error && problem.code != ConfigReason::DuplicatePeer;
        self.errors.extend(problems.into_iter().filter(is_error).map(ConversionError::Invalid));
        if self.errors.is_empty() {
            self.notes.dedup();
            Ok(Conversion { resources: self.resources, notes: self.notes })
        } else {
            Err(self.errors)
        }
    }

    fn meta(&self, name: String) -> ObjectMeta {
        ObjectMeta::named(self.namespace, &name)
    }

    /// The duration rounded down to whole seconds, as text.
    fn seconds(&mut self, peer: usize, field: &'static str, text: Option<&str>) -> Option<String> {
        let text = text?;
        let Some(duration) = parse_go_duration(text) else {
            self.errors.push(ConversionError::Duration { peer, field, text: text.to_owned() });
            return None;
        };
        Some(format!("{}s", duration.as_secs()))
    }

    /// A valid name for Kubernetes (RFC 1123 subdomain): cut to 63 bytes, lower case, `-` for what is not allowed,
    /// starting with the first letter. Equal names stay equal, different ones become different.
    fn name(&mut self, kind: &'static str, old: &str) -> String {
        if let Some(known) = self.names.get(&(kind, old.to_owned())) {
            return known.clone();
        }
        let cut = (0..=old.len().min(63)).rev().find(|&end| old.is_char_boundary(end)).unwrap_or(0);
        let allowed = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
        let lower: String = old[..cut].to_lowercase().chars().map(allowed).collect();
        let Some(start) = lower.find(|c: char| c.is_ascii_lowercase()) else {
            self.errors.push(ConversionError::Unnameable(old.to_owned()));
            return old.to_owned();
        };
        let labels = lower[start..].split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty());
        let plain = labels.collect::<Vec<_>>().join(".");
        let is_taken = |new: &String| self.names.iter().any(|((of, _), taken)| *of == kind && taken == new);
        let numbered = |number: u32| {
            let suffix = format!("-{number}");
            let stem = &plain[..plain.len().min(63 - suffix.len())];
            format!("{}{suffix}", stem.trim_end_matches(['-', '.']))
        };
        let new = std::iter::once(plain.clone()).chain((2..).map(numbered)).find(|new| !is_taken(new));
        let new = new.unwrap_or(plain);
        if new != old {
            self.notes.push(ConversionNote::Renamed { from: old.to_owned(), to: new.clone() });
        }
        self.names.insert((kind, old.to_owned()), new.clone());
        new
    }
}

impl LegacySelector {
    fn to_selector(&self) -> LabelSelector {
        let requirement = |from: &LegacyRequirement| Requirement {
            key: from.key.clone(),
            operator: from.operator.clone(),
            values: from.values.clone(),
        };
        LabelSelector {
            match_labels: self.match_labels.clone(),
            match_expressions: self.match_expressions.iter().map(requirement).collect(),
        }
    }
}

const DEFAULT_HOLD_TIME: &str = "90s";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spec::Spec as _;

    fn convert(json: &str) -> Result<Conversion, Vec<ConversionError>> {
        serde_json::from_str::<LegacyConfig>(json).unwrap().convert("metallb-system")
    }

    #[test]
    fn peers_are_numbered_and_hold_time_has_its_default() {
        let converted = convert(
            r#"{"peers": [
                {"my-asn": 1, "peer-asn": 2, "peer-address": "10.0.0.1", "password": "x",
                 "node-selectors": [{"match-expressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]},
                {"my-asn": 1, "peer-asn": 2, "peer-address": "10.0.0.1", "hold-time": "9500ms",
                 "keepalive-time": "2s"}]}"#,
        )
        .unwrap();
        let [first, second] = &converted.resources.peers[..] else { panic!("two peers: {converted:?}") };
        assert_eq!(first.reference().to_string(), "BGPPeer/metallb-system/peer1");
        assert_eq!((first.hold_time.as_deref(), first.keepalive_time.as_deref()), (Some("90s"), None));
        assert_eq!(first.node_selectors[0].match_expressions[0].values, ["v"]);
        assert_eq!((second.hold_time.as_deref(), second.keepalive_time.as_deref()), (Some("9s"), Some("2s")));
        assert!(
            !format!("{:?}", serde_json::from_str::<LegacyConfig>(r#"{"peers": [{"password": "hunter2"}]}"#))
                .contains("hunter2")
        );
    }

    #[test]
    fn field_without_a_value_is_treated_as_absent() {
        let peer = r#""my-asn": 1, "peer-asn": 2, "peer-address": "10.0.0.1""#;
        let pool = r#""name": "one", "protocol": "bgp", "addresses": ["10.0.0.0/24"]"#;
        let plain = convert(&format!(r#"{{"peers": [{{{peer}}}], "address-pools": [{{{pool}}}]}}"#)).unwrap();
        let empty = convert(&format!(
            r#"{{"peers": [{{{peer}, "hold-time": "", "keepalive-time": "", "password": null, "peer-port": null,
                "node-selectors": null, "ebgp-multihop": null, "router-id": null}}],
                "address-pools": [{{{pool}, "bgp-advertisements": null, "avoid-buggy-ips": null, "auto-assign": null}}],
                "bgp-communities": null, "bfd-profiles": null}}"#
        ))
        .unwrap();
        assert_eq!(empty.resources, plain.resources);
    }

    #[test]
    fn advertisements_follow_the_protocol_and_are_counted_over_all_pools() {
        let converted = convert(
            r#"{"address-pools": [
                {"name": "one", "protocol": "bgp", "addresses": ["10.0.0.0/24"], "auto-assign": false,
                 "bgp-advertisements": [{"aggregation-length": 24, "localpref": 100, "communities": ["vip"]}, {}]},
                {"name": "two", "protocol": "bgp", "addresses": ["10.0.1.0/24"]},
                {"name": "three", "protocol": "layer2", "addresses": ["10.0.2.0/24"]},
                {"name": "four", "protocol": "l2", "addresses": ["10.0.3.0/24"]}],
                "bgp-communities": {"vip": "1:2", "a": "3:4"}}"#,
        )
        .unwrap();
        let resources = &converted.resources;
        let bgp: Vec<(&str, &str, i64)> = resources
            .bgp_advertisements
            .iter()
            .map(|ad| (ad.meta.name.as_str(), ad.pools[0].as_str(), ad.aggregation_length))
            .collect();
        let expected =
            [("bgpadvertisement1", "one", 24), ("bgpadvertisement2", "one", 32), ("bgpadvertisement3", "two", 32)];
        assert_eq!(bgp, expected);
        assert_eq!(resources.l2_advertisements[0].meta.name, "l2advertisement1");
        assert_eq!(resources.l2_advertisements[0].pools, ["three"]);
        assert_eq!(resources.pools.iter().map(|pool| pool.auto_assign).collect::<Vec<_>>(), [false, true, true, true]);
        assert_eq!(resources.communities[0].communities[0].0, "a");
        let note = ConversionNote::UnknownProtocol { pool: "four".to_owned(), protocol: "l2".to_owned() };
        assert_eq!(converted.notes, [note]);
    }

    #[test]
    fn names_are_converted_to_valid_names() {
        let long = format!("a{}", "b".repeat(70));
        let rows = [
            ("pool-1", "pool-1"),
            ("My_Pool", "my-pool"),
            ("1st.pool", "st.pool"),
            ("x", "x"),
            ("trailing-", "trailing"),
            (long.as_str(), &long[..63]),
            ("9ü_Ä-pool", "pool"),
        ];
        for (old, new) in rows {
            let json = format!(
                r#"{{"address-pools": [{{"name": "{old}", "protocol": "layer2", "addresses": ["10.0.0.0/24"]}}]}}"#
            );
            let converted = convert(&json).unwrap();
            assert_eq!(converted.resources.pools[0].meta.name, new, "{old}");
            assert_eq!(converted.resources.l2_advertisements[0].pools, [new], "{old}");
            assert_eq!(converted.notes.is_empty(), old == new, "{old}");
        }
    }

    #[test]
    fn every_field_of_a_peer_and_of_a_profile_is_converted() {
        let converted = convert(
            r#"{"peers": [{"my-asn": 1, "peer-asn": 2, "peer-address": "10.0.0.1", "source-address": "10.0.0.9",
                    "peer-port": 1179, "hold-time": "30s", "keepalive-time": "10s", "router-id": "10.0.0.8",
                    "password": "secret", "bfd-profile": "fast", "ebgp-multihop": true,
                    "node-selectors": [{"match-labels": {"rack": "1"}}]}],
                "bfd-profiles": [{"name": "fast", "receive-interval": 11, "transmit-interval": 12,
                    "detect-multiplier": 13, "echo-interval": 14, "echo-mode": true, "passive-mode": true,
                    "minimum-ttl": 15}]}"#,
        )
        .unwrap();
        let peer = &converted.resources.peers[0];
        assert_eq!((peer.my_asn, peer.peer_asn, peer.port, peer.ebgp_multihop), (1, 2, 1179, true));
        assert_eq!((peer.address.as_str(), peer.source_address.as_str()), ("10.0.0.1", "10.0.0.9"));
        assert_eq!((peer.hold_time.as_deref(), peer.keepalive_time.as_deref()), (Some("30s"), Some("10s")));
        assert_eq!(
            (peer.router_id.as_str(), peer.password.expose(), peer.bfd_profile.as_str()),
            ("10.0.0.8", "secret", "fast")
        );
        assert_eq!(peer.node_selectors[0].match_labels["rack"], "1");
        let profile = &converted.resources.bfd_profiles[0];
        let numbers = [
            profile.receive_interval,
            profile.transmit_interval,
            profile.detect_multiplier,
            profile.echo_interval,
            profile.minimum_ttl,
        ];
        assert_eq!(numbers, [11, 12, 13, 14, 15].map(Some));
        assert!(profile.echo_mode && profile.passive_mode);
    }

    #[test]
    fn renamed_bfd_profile_is_renamed_in_its_peers_too() {
        let converted = convert(
            r#"{"peers": [{"my-asn": 1, "peer-asn": 2, "peer-address": "10.0.0.1", "bfd-profile": "Fast_One"}],
                "bfd-profiles": [{"name": "Fast_One", "receive-interval": 100, "echo-mode": true}]}"#,
        )
        .unwrap();
        assert_eq!(converted.resources.peers[0].bfd_profile, "fast-one");
        assert_eq!(converted.resources.bfd_profiles[0].meta.name, "fast-one");
    }

    #[test]
    fn invalid_document_yields_errors_and_no_result() {
        let pool = |name: &str, addresses: &str| {
            format!(r#"{{"address-pools": [{{"name": "{name}", "protocol": "bgp", "addresses": ["{addresses}"]}}]}}"#)
        };
        let errors = convert(&pool("1234", "10.0.0.0/33")).unwrap_err();
        assert!(matches!(&errors[..], [ConversionError::Unnameable(_), ConversionError::Invalid(_)]), "{errors:?}");
        let errors =
            convert(r#"{"peers": [{"my-asn": 1, "peer-asn": 2, "peer-address": "10.0.0.1", "hold-time": "2s"}]}"#);
        assert!(matches!(&errors.unwrap_err()[..], [ConversionError::Invalid(_)]));
        let errors =
            convert(r#"{"peers": [{"my-asn": 1, "peer-asn": 2, "peer-address": "10.0.0.1", "hold-time": "soon"}]}"#);
        assert!(matches!(&errors.unwrap_err()[..], [ConversionError::Duration { peer: 1, field: "hold-time", .. }]));
        assert!(serde_json::from_str::<LegacyConfig>(r#"{"address-pool": []}"#).is_err());
    }

    #[test]
    fn converted_names_are_valid_and_unique_and_each_renamed_pool_is_noted() {
        let rows = [
            ("Public_Net", "public-net"),
            ("B\u{fc}ro 1. OG", "b-ro-1.og"),
            ("trailing-", "trailing"),
            ("a..b", "a.b"),
            ("1st floor", "st-floor"),
            ("dot.", "dot"),
            ("public-net", "public-net-2"),
            ("Public Net", "public-net-3"),
            ("fine", "fine"),
        ];
        let pools: Vec<serde_json::Value> = rows
            .iter()
            .enumerate()
            .map(|(number, (name, _))| {
                serde_json::json!({"name": name, "protocol": "layer2", "addresses": [format!("10.0.{number}.0/24")]})
            })
            .collect();
        let conversion = convert(&serde_json::json!({"address-pools": pools}).to_string()).unwrap();
        let names: Vec<&str> = conversion.resources.pools.iter().map(|pool| pool.meta.name.as_str()).collect();
        assert_eq!(names, rows.map(|(_, new)| new));
        let renamed = |note: &&ConversionNote| matches!(note, ConversionNote::PoolRenamed { .. });
        assert_eq!(conversion.notes.iter().filter(renamed).count(), rows.len() - 1);
    }
}
