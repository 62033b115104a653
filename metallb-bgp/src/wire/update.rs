//! A received UPDATE (RFC 4271 §4.3, RFC 4760, RFC 7606): a view that borrows, and how to react to its errors.
//!
//! This speaker accepts no routes and keeps nothing of an UPDATE. It still reacts to each error exactly as RFC 7606
//! requires, because a session that is reset over a malformed attribute takes down all services behind it.

mod attributes;
mod fault;

use ipnet::{Ipv4Net, Ipv6Net};

pub use self::fault::{Fault, FaultKind, Outcome};
use super::iana::{AttributeType, MessageType, Safi, UpdateSubcode, attribute_flags};
use super::nlri::{self, Nlri, Prefixes};
use super::notification::Notification;
pub use super::template::{Encoding, Template, withdraw};
use super::{DecodeContext, Reader, message};
use crate::types::Family;

/// A received UPDATE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Update<'a> {
    withdrawn: &'a [u8],
    announced: &'a [u8],
    reach: Option<Multiprotocol<'a>>,
    unreach: Option<Multiprotocol<'a>>,
    announced_count: usize,
    end_of_rib: Option<Family>,
    outcome: Outcome,
}

/// The content of MP_REACH_NLRI or MP_UNREACH_NLRI (RFC 4760) for a negotiated family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Multiprotocol<'a> {
    family: Family,
    prefixes: &'a [u8],
}

impl<'a> Update<'a> {
    /// Decodes the body of a message, in time linear in its length and without an allocation unless there is an error.
    ///
    /// # Errors
    /// The NOTIFICATION that ends the session, where RFC 7606 allows no milder reaction.
    #[inline(always)]
    pub fn decode(body: &'a [u8], context: &DecodeContext) -> Result<Self, Notification> {
        let malformed = || Notification::new(UpdateSubcode::MalformedAttributeList, &[]);
        let mut reader = Reader(body);
        let withdrawn = reader.u16().and_then(|length| reader.take(length.into())).ok_or_else(malformed)?;
        let attributes = reader.u16().and_then(|length| reader.take(length.into())).ok_or_else(malformed)?;
        let announced = reader.0;
        let network = || Notification::new(UpdateSubcode::InvalidNetworkField, &[]);
        nlri::count::<Ipv4Net>(withdrawn).ok_or_else(network)?;
        let counted = nlri::count::<Ipv4Net>(announced).ok_or_else(network)?;
        let mut check = attributes::Check::new(context, !announced.is_empty());
        check.run(attributes)?;
        let found = &check.found;
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
            announced_count: counted + reached,
            end_of_rib,
            outcome: found.outcome,
        })
    }

    /// How to react to the message.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The number of announced prefixes of both families, whatever the [`outcome`](Self::outcome).
    #[must_use]
    pub const fn announced(&self) -> usize {
        self.announced_count
    }

    /// The family, if the message is an End-of-RIB marker (RFC 4724 §2).
    #[must_use]
    pub const fn end_of_rib(&self) -> Option<Family> {
        self.end_of_rib
    }

    /// The announced IPv4 prefixes.
    pub fn announced_v4(&self) -> impl Iterator<Item = Ipv4Net> + use<'a> {
        Prefixes::new(self.announced).chain(prefixes(self.reach, Family::Ipv4))
    }

    /// The announced IPv6 prefixes.
    #[must_use]
    pub fn announced_v6(&self) -> Prefixes<'a, Ipv6Net> {
        prefixes(self.reach, Family::Ipv6)
    }

    /// The withdrawn IPv4 prefixes.
    pub fn withdrawn_v4(&self) -> impl Iterator<Item = Ipv4Net> + use<'a> {
        Prefixes::new(self.withdrawn).chain(prefixes(self.unreach, Family::Ipv4))
    }

    /// The withdrawn IPv6 prefixes.
    #[must_use]
    pub fn withdrawn_v6(&self) -> Prefixes<'a, Ipv6Net> {
        prefixes(self.unreach, Family::Ipv6)
    }
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    message(out, MessageType::Update.code(), |out| match family {
        Family::Ipv4 => out.extend_from_slice(&[0, 0, 0, 0]),
        Family::Ipv6 => {
            // Nothing withdrawn, and six octets of attributes: an MP_UNREACH_NLRI without prefixes.
            out.extend_from_slice(&[0, 0, 0, 6, attribute_flags::OPTIONAL, AttributeType::MpUnreachNlri.code(), 3]);
            out.extend_from_slice(&family.afi().code().to_be_bytes());
            out.push(Safi::Unicast.code());
        }
    });
}

fn prefixes<P: Nlri>(part: Option<Multiprotocol<'_>>, family: Family) -> Prefixes<'_, P> {
    Prefixes::new(part.filter(|part| part.family == family).map_or(&[], |part| part.prefixes))
}
