//! Problems of a configuration, each with its object and field.

use std::fmt;

use serde::Serialize;

use crate::model::ObjectRef;
use crate::reason::reasons;

/// Severity of a problem.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is left out, or its last valid form stays in force.
    Error,
    /// The object is in force.
    Warning,
}

/// A problem of one object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The object to repair.
    pub object: ObjectRef,
    /// The path of the field, for example `spec.addresses[0]`.
    pub field: String,
    /// The stable reason.
    pub code: ConfigReason,
    /// Description for people.
    pub message: String,
}

impl Problem {
    /// An error on `field` of `object`.
    pub fn error(object: ObjectRef, field: impl Into<String>, code: ConfigReason, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, object, field: field.into(), code, message: message.into() }
    }

    /// A warning on `field` of `object`.
    pub fn warning(
        object: ObjectRef,
        field: impl Into<String>,
        code: ConfigReason,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, object, field: field.into(), code, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.field.is_empty() { "" } else { " " };
        write!(f, "{}{separator}{}: {}", self.object, self.field, self.message)
    }
}

reasons! {
    /// The stable reasons of configuration problems.
    pub enum ConfigReason {
        /// An entry of `spec.addresses` is neither a CIDR nor a range.
        InvalidAddress,
        /// A pool without addresses.
        NoAddresses,
        /// Two pools, or two entries of one pool, contain the same address.
        OverlappingAddresses,
        /// A pool contains an address of a node.
        NodeAddressInPool,
        /// A duplicate entry in a list.
        DuplicateValue,
        /// Two objects of one kind have the same name.
        DuplicateObject,
        /// A label selector that Kubernetes would not accept.
        InvalidSelector,
        /// An aggregation length is out of range, or shorter than an address block of a selected pool.
        InvalidAggregationLength,
        /// `serviceSelectors` together with an aggregation length.
        SelectorsWithAggregation,
        /// Two advertisements give one prefix to one peer with different local preferences.
        LocalPreferenceClash,
        /// A number is out of its range.
        OutOfRange,
        /// A community that is neither `A:B` nor `large:X:Y:Z`.
        InvalidCommunity,
        /// A community alias that no Community object defines.
        UnknownCommunity,
        /// A community alias that is defined twice.
        DuplicateCommunity,
        /// An autonomous system number is missing or contradictory.
        InvalidAsn,
        /// A peer address is missing, malformed or contradictory.
        InvalidPeerAddress,
        /// A source address is malformed.
        InvalidSourceAddress,
        /// A router ID is not a non-zero IPv4 address.
        InvalidRouterId,
        /// Hold, keepalive or connect time is out of range or contradictory.
        InvalidTimer,
        /// `ebgpMultiHop` on a session inside one autonomous system.
        MultihopWithInternalPeer,
        /// A password is given twice or is longer than TCP MD5 allows.
        InvalidPassword,
        /// A Secret that does not exist.
        SecretNotFound,
        /// A Secret of the wrong type or without a password.
        InvalidSecret,
        /// A BFD profile that does not exist.
        UnknownBfdProfile,
        /// BFD echo on a session that would carry IPv6.
        EchoWithIpv6,
        /// Two peers with one address select the same node.
        DuplicatePeer,
        /// A deprecated field that has no effect.
        DeprecatedField,
        /// A name of a pool or peer that does not exist.
        UnknownName,
        /// A prefix of a family that the session of a peer does not carry.
        FamilyNotCarried,
        /// A route for several addresses brings traffic to a node without an endpoint of a Service with
        /// `externalTrafficPolicy: Local`.
        AggregateDropsTraffic,
        /// Several nodes get one BGP identifier.
        SharedRouterId,
        /// An object that cannot be parsed.
        Malformed,
        /// A field that its kind does not have.
        UnknownField,
        /// A kind or version that does not exist.
        UnknownKind,
        /// An annotation that looks like one of MetalLB and does not exist.
        UnknownAnnotation,
        /// An object or file that cannot be read now: what it contained before stays in force.
        LastFormKept,
        /// Addresses that a Service can hardly use, or a range that is larger than it looks.
        UnusualAddress,
    }
}
