//! ROUTE-REFRESH (RFC 2918) and its demarcation of begin and end (RFC 7313).

use super::iana::{MessageType, RefreshSubtype, Safi};
use super::message;
use crate::types::Family;

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RouteRefresh {
    /// The subtype.
    pub kind: RefreshKind,
    /// The address family; `None` for one that this crate does not support.
    pub family: Option<Family>,
}

/// The subtype of a ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefreshKind {
    /// A request to send all routes of the family again.
    Request,
    /// BoRR: all routes of the family follow.
    Begin,
    /// EoRR: all routes have been sent; the receiver may drop the others.
    End,
    /// An unassigned subtype, which a receiver ignores (RFC 7313 §5).
    Unknown(u8),
}

impl RouteRefresh {
    /// Decodes the body of a message.
    #[must_use]
    pub fn decode(body: [u8; 4]) -> Self {
        let [high, low, subtype, safi] = body;
        let kind = match RefreshSubtype::from_code(subtype) {
            Some(RefreshSubtype::Request) => RefreshKind::Request,
            Some(RefreshSubtype::BeginOfRefresh) => RefreshKind::Begin,
            Some(RefreshSubtype::EndOfRefresh) => RefreshKind::End,
            None => RefreshKind::Unknown(subtype),
        };
        Self { kind, family: Family::from_codes(u16::from_be_bytes([high, low]), safi) }
    }

    /// Appends a message of `kind` for `family`.
    pub fn encode(out: &mut Vec<u8>, kind: RefreshKind, family: Family) {
        message(out, MessageType::RouteRefresh.code(), |out| {
            out.extend_from_slice(&family.afi().code().to_be_bytes());
            let subtype = match kind {
                RefreshKind::Request => RefreshSubtype::Request.code(),
                RefreshKind::Begin => RefreshSubtype::BeginOfRefresh.code(),
                RefreshKind::End => RefreshSubtype::EndOfRefresh.code(),
                RefreshKind::Unknown(other) => other,
            };
            out.extend_from_slice(&[subtype, Safi::Unicast.code()]);
        });
    }
}
