//! What was wrong with an update, and what follows.

use std::fmt;

use crate::wire::iana::attribute;

/// What to do with an update, from the mildest to the strongest; of several errors the strongest counts (RFC 7606 §3).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing is wrong.
    Accept,
    /// The attribute is left out; the routes stand.
    AttributeDiscard(Fault),
    /// The routes are well-formed but must not be used: they loop, or their next hop is none.
    RouteIgnored(Fault),
    /// The routes are handled as if they had been withdrawn.
    TreatAsWithdraw(Fault),
    /// The prefixes cannot be found: nothing of this family is believed any more on this session (RFC 7606 §7.11).
    DisableFamily(Fault),
}

/// What was wrong.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Fault {
    /// The attribute's code; 0 where the error is in none.
    pub attribute: u8,
    /// What is wrong with it.
    pub kind: FaultKind,
}

/// Kinds of errors in attributes: a closed set, fit for a metric's label.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum FaultKind {
    /// It has no business on this session.
    Unexpected,
    /// It came before; the first one counts.
    Duplicate,
    /// The path has our own number.
    OwnAsn,
    /// The next hop is no address of a host.
    Martian,
    /// The flags are not those of its code.
    Flags,
    /// The length cannot be.
    Length,
    /// The value cannot be.
    Value,
    /// The path does not begin with the peer's number.
    FirstAsn,
    /// It must be there and is not.
    Missing,
    /// It goes beyond the end of all attributes.
    Overrun,
}

impl Outcome {
    /// A short name that never changes, for logs and metrics.
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

    /// What was wrong.
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
    /// The subcode of an UPDATE Message Error (RFC 4271 §6.3) for a session that has to end over it.
    pub(super) const fn subcode(self) -> u8 {
        match (self.kind, self.attribute) {
            (FaultKind::Flags, _) => 4,
            (FaultKind::Length, _) => 5,
            (FaultKind::Missing, _) => 3,
            (FaultKind::Value, attribute::ORIGIN) => 6,
            (FaultKind::Martian, _) => 8,
            (_, attribute::AS_PATH) => 11,
            (FaultKind::Value, _) => 9,
            _ => 1,
        }
    }
}

impl FaultKind {
    /// A short name that never changes, for logs and metrics.
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
