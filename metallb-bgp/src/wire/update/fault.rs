//! The errors of a received UPDATE and the reaction to them (RFC 7606).

use std::fmt;

use crate::wire::iana::{AttributeType, UpdateSubcode};

/// How to react to an UPDATE, from the mildest to the strongest reaction. If there are several errors, the strongest
/// reaction applies (RFC 7606 §3).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Outcome {
    /// The message has no error.
    Accept,
    /// The attribute is discarded; the routes remain valid.
    AttributeDiscard(Fault),
    /// The routes are well-formed but must not be used: the path has a loop, or the next hop is not a host address.
    RouteIgnored(Fault),
    /// The routes are treated as withdrawn.
    TreatAsWithdraw(Fault),
    /// The prefixes cannot be located: the receiver ignores this family for the rest of the session (RFC 7606 §7.11).
    DisableFamily(Fault),
}

/// An error of an UPDATE.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Fault {
    /// The type code of the attribute; 0 if the error is not in an attribute.
    pub attribute: u8,
    /// The kind of error.
    pub kind: FaultKind,
}

/// The kinds of errors in attributes: few enough to be values of a metric label.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum FaultKind {
    /// The attribute is not allowed on this session.
    Unexpected,
    /// The attribute occurs twice; the first occurrence counts.
    Duplicate,
    /// The path contains our own AS number.
    OwnAsn,
    /// The next hop is not a host address.
    Martian,
    /// The flags do not match the type code.
    Flags,
    /// The length is invalid.
    Length,
    /// The value is invalid.
    Value,
    /// The path does not begin with the peer's AS number.
    FirstAsn,
    /// A mandatory attribute is missing.
    Missing,
    /// The attribute extends past the end of all attributes.
    Overrun,
}

impl Outcome {
    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::AttributeDiscard(_) => "attribute-discard",
            Self::RouteIgnored(_) => "route-ignored",
            Self::TreatAsWithdraw(_) => "treat-as-withdraw",
            Self::DisableFamily(_) => "disable-family",
        }
    }

    /// The error, if there is one.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match *self {
            Self::Accept => None,
            Self::AttributeDiscard(fault)
            | Self::RouteIgnored(fault)
            | Self::TreatAsWithdraw(fault)
            | Self::DisableFamily(fault) => Some(fault),
        }
    }
}

impl Fault {
    /// The subcode of UPDATE Message Error (RFC 4271 §6.3), for an error that ends the session.
    pub(super) const fn subcode(self) -> UpdateSubcode {
        match (self.kind, AttributeType::from_code(self.attribute)) {
            (FaultKind::Flags, _) => UpdateSubcode::AttributeFlags,
            (FaultKind::Length, _) => UpdateSubcode::AttributeLength,
            (FaultKind::Missing, _) => UpdateSubcode::MissingWellKnownAttribute,
            (FaultKind::Value, Some(AttributeType::Origin)) => UpdateSubcode::InvalidOrigin,
            (FaultKind::Martian, _) => UpdateSubcode::InvalidNextHop,
            (_, Some(AttributeType::AsPath)) => UpdateSubcode::MalformedAsPath,
            (FaultKind::Value, _) => UpdateSubcode::OptionalAttribute,
            _ => UpdateSubcode::MalformedAttributeList,
        }
    }
}

impl FaultKind {
    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Duplicate => "duplicate",
            Self::OwnAsn => "own-asn",
            Self::Martian => "martian",
            Self::Flags => "flags",
            Self::Length => "length",
            Self::Value => "value",
            Self::FirstAsn => "first-asn",
            Self::Missing => "missing",
            Self::Overrun => "overrun",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attribute {}: {}", self.attribute, self.kind.name())
    }
}
