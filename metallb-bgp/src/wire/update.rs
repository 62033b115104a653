//! UPDATE as it is received (RFC 4271 §4.3, 4760, 7606): a view that borrows, and what to do about its errors.
//!
//! This speaker accepts no route, so nothing is kept; but an error must have the reaction that RFC 7606 asks for, no more and no less: a
//! session that resets over a damaged attribute takes all services behind it away.

mod attributes;
mod fault;

use ipnet::{Ipv4Net, Ipv6Net};

pub use self::fault::{Fault, FaultKind, Outcome};
use super::nlri::{self, Nlri, Prefixes};
use super::notification::Notification;
pub use super::template::{Encoding, Template, withdraw};
use super::{DecodeContext, Reader, iana, message};
use crate::types::Family;

/// A received update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Update<'a> {
    withdrawn: &'a [u8],
    announced: &'a [u8],
    reach: Option<Multiprotocol<'a>>,
    unreach: Option<Multiprotocol<'a>>,
    counted: usize,
    end_of_rib: Option<Family>,
    outcome: Outcome,
}

/// What MP_REACH_NLRI or MP_UNREACH_NLRI say (RFC 4760) of a family that is in force.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Multiprotocol<'a> {
    family: Family,
    prefixes: &'a [u8],
}

impl<'a> Update<'a> {
    /// Reads the body of a message. Time is linear in its length, and nothing is allocated unless there is an error.
    ///
    /// # Errors
    /// The NOTIFICATION that ends the session, where RFC 7606 leaves no milder way.
    #[inline(always)]
    pub fn decode(body: &'a [u8], context: &DecodeContext) -> Result<Self, Notification> {
        let malformed = || Notification::new(3, 1, &[]);
        let mut reader = Reader(body);
        let withdrawn = reader.u16().and_then(|length| reader.take(length.into())).ok_or_else(malformed)?;
        let attributes = reader.u16().and_then(|length| reader.take(length.into())).ok_or_else(malformed)?;
        let announced = reader.0;
        let network = || Notification::new(3, 10, &[]);
        nlri::count::<Ipv4Net>(withdrawn).ok_or_else(network)?;
        let counted = nlri::count::<Ipv4Net>(announced).ok_or_else(network)?;
        let mut walk = attributes::Walk::new(context, !announced.is_empty());
        walk.run(attributes)?;
        let found = &walk.found;
        let reached = found.reach.map_or(0, |(_, count)| count);
        let only_unreach = withdrawn.is_empty() && announced.is_empty() && found.attributes == 1;
        let end_of_rib = match found.unreach {
            _ if body == [0; 4] => Some(Family::Ipv4),
            Some((Multiprotocol { family, prefixes: [] }, _)) if only_unreach => Some(family),
            _ => None,
        };
        Ok(Self {
            withdrawn,
            announced,
            reach: found.reach.map(|(reach, _)| reach),
            unreach: found.unreach.map(|(unreach, _)| unreach),
            counted: counted + reached,
            end_of_rib,
            outcome: found.outcome,
        })
    }

    /// What to do with it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// How many prefixes of both families it offers, whatever [`outcome`](Self::outcome) says of them.
    #[must_use]
    pub const fn offered(&self) -> usize {
        self.counted
    }

    /// The family whose End-of-RIB marker this is (RFC 4724 §2).
    #[must_use]
    pub const fn end_of_rib(&self) -> Option<Family> {
        self.end_of_rib
    }

    /// IPv4 prefixes that it offers.
    pub fn announced_v4(&self) -> impl Iterator<Item = Ipv4Net> + use<'a> {
        Prefixes::new(self.announced).chain(prefixes(self.reach, Family::Ipv4))
    }

    /// IPv6 prefixes that it offers.
    #[must_use]
    pub fn announced_v6(&self) -> Prefixes<'a, Ipv6Net> {
        prefixes(self.reach, Family::Ipv6)
    }

    /// IPv4 prefixes that it withdraws.
    pub fn withdrawn_v4(&self) -> impl Iterator<Item = Ipv4Net> + use<'a> {
        Prefixes::new(self.withdrawn).chain(prefixes(self.unreach, Family::Ipv4))
    }

    /// IPv6 prefixes that it withdraws.
    #[must_use]
    pub fn withdrawn_v6(&self) -> Prefixes<'a, Ipv6Net> {
        prefixes(self.unreach, Family::Ipv6)
    }
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    message(out, 2, |out| match family {
        Family::Ipv4 => out.extend_from_slice(&[0, 0, 0, 0]),
        Family::Ipv6 => {
            out.extend_from_slice(&[0, 0, 0, 6, iana::OPTIONAL, iana::attribute::MP_UNREACH, 3, 0, 2, 1]);
        }
    });
}

fn prefixes<P: Nlri>(part: Option<Multiprotocol<'_>>, family: Family) -> Prefixes<'_, P> {
    Prefixes::new(part.filter(|part| part.family == family).map_or(&[], |part| part.prefixes))
}
