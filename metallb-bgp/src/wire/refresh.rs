//! ROUTE-REFRESH (RFC 2918) and its marks of beginning and end (RFC 7313).

use super::message;
use crate::types::Family;

/// One ROUTE-REFRESH.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteRefresh {
    /// What it says.
    pub kind: RefreshKind,
    /// Of which family; `None` is one that is not carried.
    pub family: Option<Family>,
}

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefreshKind {
    /// Send all routes of the family again.
    Request,
    /// All routes follow.
    Begin,
    /// All routes have been sent; the others are gone.
    End,
    /// A subtype that nobody has defined: to be ignored (RFC 7313 §5).
    Unknown(u8),
}

impl RouteRefresh {
    /// Reads the body of a message.
    #[must_use]
    pub fn decode(body: [u8; 4]) -> Self {
        let [high, low, subtype, safi] = body;
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(other),
        };
        Self { kind, family: Family::from_codes(u16::from_be_bytes([high, low]), safi) }
    }

    /// Appends a message of `kind` for `family`.
    pub fn encode(out: &mut Vec<u8>, kind: RefreshKind, family: Family) {
        message(out, 5, |out| {
            out.extend_from_slice(&family.afi().to_be_bytes());
            let subtype = match kind {
                RefreshKind::Request => 0,
                RefreshKind::Begin => 1,
                RefreshKind::End => 2,
                RefreshKind::Unknown(other) => other,
            };
            out.extend_from_slice(&[subtype, 1]);
        });
    }
}
