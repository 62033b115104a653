//! Checks the path attributes of a received UPDATE by RFC 7606.

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Fault, FaultKind, Multiprotocol, Outcome};
use crate::types::Family;
use crate::wire::iana::attribute_flags::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE};
use crate::wire::iana::{AttributeType, Origin, SegmentType, UpdateSubcode};
use crate::wire::notification::Notification;
use crate::wire::{DecodeContext, Reader, nlri};

/// One pass over all attributes.
pub(super) struct Check<'a, 'c> {
    context: &'c DecodeContext,
    /// Prefixes follow the attributes.
    announces: bool,
    /// One bit for each type code.
    seen: [u64; 4],
    /// The first error that asks for treat-as-withdraw, with its attribute.
    serious: Option<(Fault, &'a [u8])>,
    pub(super) found: Found<'a>,
}

/// The result of a pass. The caller reads it in place: a copy made right after small fields were written would stall on
/// them.
pub(super) struct Found<'a> {
    pub(super) reach: Option<(Multiprotocol<'a>, usize)>,
    pub(super) unreach: Option<(Multiprotocol<'a>, usize)>,
    pub(super) attributes: usize,
    pub(super) outcome: Outcome,
}

/// The result for one attribute: the severity and the kind of its error.
type Checked = Result<(), (Severity, FaultKind)>;

#[derive(Clone, Copy)]
enum Severity {
    Discard,
    Ignore,
    Withdraw,
    Disable,
}

impl<'a, 'c> Check<'a, 'c> {
    #[inline(always)]
    pub(super) const fn new(context: &'c DecodeContext, announces: bool) -> Self {
        let found = Found { reach: None, unreach: None, attributes: 0, outcome: Outcome::Accept };
        Self { context, announces, seen: [0; 4], serious: None, found }
    }

    #[inline(always)]
    pub(super) fn run(&mut self, attributes: &'a [u8]) -> Result<(), Notification> {
        let mut rest = attributes;
        while !rest.is_empty() {
            let Some((flags, code, value, after)) = next(rest) else {
                // The total length still locates the prefixes (RFC 7606 §4).
                let code = rest.get(1).copied().unwrap_or(0);
                self.record(code, rest, (Severity::Withdraw, FaultKind::Overrun));
                break;
            };
            let whole = &rest[..rest.len() - after.len()];
            rest = after;
            self.found.attributes += 1;
            let (word, bit) = (usize::from(code >> 6), 1_u64 << (code & 63));
            if self.seen[word] & bit != 0 {
                if matches!(
                    AttributeType::from_code(code),
                    Some(AttributeType::MpReachNlri | AttributeType::MpUnreachNlri)
                ) {
                    return Err(Notification::new(UpdateSubcode::MalformedAttributeList, &[]));
                }
                self.record(code, whole, (Severity::Discard, FaultKind::Duplicate));
                continue;
            }
            self.seen[word] |= bit;
            let Some(checked) = self.check(flags, code, value) else {
                // An unknown attribute that is marked well-known (RFC 4271 §6.3).
                return Err(Notification::new(UpdateSubcode::UnrecognizedWellKnownAttribute, whole));
            };
            if let Err(error) = checked {
                self.record(code, whole, error);
            }
        }
        self.check_mandatory();
        // RFC 7606 §5.2: if there are no prefixes to treat as withdrawn, the session must end.
        if let Some((fault, whole)) = self.serious.filter(|_| !self.announces && self.found.reach.is_none())
            && !matches!(self.found.outcome, Outcome::DisableFamily(_))
        {
            return Err(Notification::new(fault.subcode(), whole));
        }
        Ok(())
    }

    /// `None` for an unknown attribute that is marked well-known.
    fn check(&mut self, flags: u8, code: u8, value: &'a [u8]) -> Option<Checked> {
        let context = self.context;
        let internal = context.is_internal();
        Some(match AttributeType::from_code(code) {
            Some(AttributeType::Origin) => well_known(flags)
                .and_then(|()| length(value.len() == 1))
                .and_then(|()| valid(Origin::from_code(value[0]).is_some())),
            Some(AttributeType::AsPath) => well_known(flags).and_then(|()| self.path(value)),
            Some(AttributeType::NextHop) => well_known(flags).and_then(|()| next_hop(value)),
            Some(AttributeType::MultiExitDisc) => optional(flags, 0).and_then(|()| length(value.len() == 4)),
            Some(AttributeType::LocalPref) if !internal => Err((Severity::Discard, FaultKind::Unexpected)),
            Some(AttributeType::LocalPref) => well_known(flags).and_then(|()| length(value.len() == 4)),
            Some(AttributeType::AtomicAggregate) => {
                well_known(flags).and_then(|()| discard(value.is_empty(), FaultKind::Length))
            }
            Some(AttributeType::Aggregator) => optional(flags, TRANSITIVE)
                .and_then(|()| discard(value.len() == if context.four_octet_asn { 8 } else { 6 }, FaultKind::Length))
                .and_then(|()| discard(value[..value.len() - 4].iter().any(|octet| *octet != 0), FaultKind::Value)),
            Some(AttributeType::Communities) => optional(flags, TRANSITIVE).and_then(|()| multiple(value, 4)),
            Some(AttributeType::OriginatorId | AttributeType::ClusterList) if !internal => {
                Err((Severity::Discard, FaultKind::Unexpected))
            }
            Some(AttributeType::OriginatorId) => optional(flags, 0).and_then(|()| length(value.len() == 4)),
            Some(AttributeType::ClusterList) => optional(flags, 0).and_then(|()| multiple(value, 4)),
            Some(AttributeType::MpReachNlri) => self.reach(flags, value),
            Some(AttributeType::MpUnreachNlri) => self.unreach(flags, value),
            Some(AttributeType::ExtendedCommunities) => optional(flags, TRANSITIVE).and_then(|()| multiple(value, 8)),
            Some(AttributeType::As4Path | AttributeType::As4Aggregator) if context.four_octet_asn => {
                Err((Severity::Discard, FaultKind::Unexpected))
            }
            Some(AttributeType::As4Path) => discard(as4_path(value), FaultKind::Value),
            Some(AttributeType::As4Aggregator) => discard(value.len() == 8, FaultKind::Length)
                .and_then(|()| discard(value[..4] != [0; 4], FaultKind::Value)),
            Some(AttributeType::Ipv6ExtendedCommunities) => {
                optional(flags, TRANSITIVE).and_then(|()| multiple(value, 20))
            }
            Some(AttributeType::LargeCommunity) => optional(flags, TRANSITIVE).and_then(|()| multiple(value, 12)),
            _ if flags & OPTIONAL == 0 => return None,
            // Unknown, or without meaning to this speaker: AIGP, tunnel encapsulation, prefix SID, ATTR_SET.
            _ => Ok(()),
        })
    }

    /// A sequence of AS numbers that begins with the peer's and does not contain ours (RFC 7606 §7.2, RFC 7607, RFC
    /// 9774, RFC 5065).
    fn path(&self, value: &[u8]) -> Checked {
        let width = if self.context.four_octet_asn { 4 } else { 2 };
        let malformed = Err((Severity::Withdraw, FaultKind::Value));
        let mut reader = Reader(value);
        let (mut first, mut looped) = (None, false);
        while let Some(kind) = reader.u8() {
            let Some(numbers) = reader.u8().and_then(|count| reader.take(usize::from(count) * width)) else {
                return malformed;
            };
            if kind != SegmentType::AsSequence.code() || numbers.is_empty() {
                return malformed;
            }
            for number in numbers.chunks_exact(width) {
                let number = number.iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet));
                if number == 0 {
                    return malformed;
                }
                first.get_or_insert(number);
                looped |= number == self.context.local_asn.0;
            }
        }
        let peer = match width {
            4 => self.context.remote_asn.0,
            _ => self.context.remote_asn.two_octets().into(),
        };
        if !self.context.is_internal() && first != Some(peer) {
            return Err((Severity::Withdraw, FaultKind::FirstAsn));
        }
        if looped { Err((Severity::Ignore, FaultKind::OwnAsn)) } else { Ok(()) }
    }

    fn reach(&mut self, flags: u8, value: &'a [u8]) -> Checked {
        disable(flags & FLAG_KIND == OPTIONAL, FaultKind::Flags)?;
        let broken = (Severity::Disable, FaultKind::Length);
        let mut reader = Reader(value);
        let (Some(afi), Some(safi), Some(size)) = (reader.u16(), reader.u8(), reader.u8()) else { return Err(broken) };
        let next_hop = reader.take(size.into()).ok_or(broken)?;
        // The reserved octet, formerly the number of SNPAs, is ignored (RFC 4760 §3).
        reader.u8().ok_or(broken)?;
        let Some(family) = Family::from_codes(afi, safi).filter(|family| self.context.carries(*family)) else {
            return Err((Severity::Discard, FaultKind::Unexpected));
        };
        let legal = match (family, next_hop.len()) {
            (Family::Ipv4, 4) | (Family::Ipv6, 16 | 32) => true,
            (Family::Ipv4, 16 | 32) => self.context.extended_next_hop,
            _ => false,
        };
        disable(legal, FaultKind::Length)?;
        self.found.reach = Some(multiprotocol(family, reader.0)?);
        Ok(())
    }

    fn unreach(&mut self, flags: u8, value: &'a [u8]) -> Checked {
        disable(flags & FLAG_KIND == OPTIONAL, FaultKind::Flags)?;
        let mut reader = Reader(value);
        let (Some(afi), Some(safi)) = (reader.u16(), reader.u8()) else {
            return Err((Severity::Disable, FaultKind::Length));
        };
        let Some(family) = Family::from_codes(afi, safi).filter(|family| self.context.carries(*family)) else {
            return Err((Severity::Discard, FaultKind::Unexpected));
        };
        self.found.unreach = Some(multiprotocol(family, reader.0)?);
        Ok(())
    }

    /// Records the mandatory attributes that are missing (RFC 4271 §5).
    fn check_mandatory(&mut self) {
        let reached = self.announces || self.found.reach.is_some_and(|(_, count)| count > 0);
        for (kind, needed) in [
            (AttributeType::Origin, reached),
            (AttributeType::AsPath, reached),
            (AttributeType::NextHop, self.announces),
        ] {
            let code = kind.code();
            if needed && self.seen[0] & 1 << code == 0 {
                self.record(code, &[], (Severity::Withdraw, FaultKind::Missing));
            }
        }
    }

    fn record(&mut self, code: u8, whole: &'a [u8], (severity, kind): (Severity, FaultKind)) {
        let fault = Fault { attribute: code, kind };
        let outcome = match severity {
            Severity::Discard => Outcome::AttributeDiscard(fault),
            Severity::Ignore => Outcome::RouteIgnored(fault),
            Severity::Withdraw => Outcome::TreatAsWithdraw(fault),
            Severity::Disable => Outcome::DisableFamily(fault),
        };
        if matches!(severity, Severity::Withdraw) {
            self.serious.get_or_insert((fault, whole));
        }
        // Of errors with the same severity, the first is reported.
        if std::mem::discriminant(&outcome) != std::mem::discriminant(&self.found.outcome) {
            self.found.outcome = self.found.outcome.max(outcome);
        }
    }
}

/// Splits off the first attribute: flags, type code, value, and the bytes after it. `None` if it is truncated.
fn next(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (&[flags, code, short], after) = bytes.split_first_chunk::<3>()?;
    if flags & EXTENDED_LENGTH == 0 {
        let (value, after) = after.split_at_checked(short.into())?;
        return Some((flags, code, value, after));
    }
    let (low, after) = after.split_first()?;
    let (value, after) = after.split_at_checked(u16::from_be_bytes([short, *low]).into())?;
    Some((flags, code, value, after))
}

fn multiprotocol(family: Family, prefixes: &[u8]) -> Result<(Multiprotocol<'_>, usize), (Severity, FaultKind)> {
    let count = match family {
        Family::Ipv4 => nlri::count::<Ipv4Net>(prefixes),
        Family::Ipv6 => nlri::count::<Ipv6Net>(prefixes),
    };
    let count = count.ok_or((Severity::Disable, FaultKind::Value))?;
    Ok((Multiprotocol { family, prefixes }, count))
}

fn well_known(flags: u8) -> Checked {
    // Every router recognises a well-known attribute, so the partial flag cannot be set.
    refuse(flags & (FLAG_KIND | PARTIAL) == TRANSITIVE, FaultKind::Flags)
}

fn optional(flags: u8, transitive: u8) -> Checked {
    refuse(flags & FLAG_KIND == OPTIONAL | transitive, FaultKind::Flags)
}

fn length(good: bool) -> Checked {
    refuse(good, FaultKind::Length)
}

fn valid(good: bool) -> Checked {
    refuse(good, FaultKind::Value)
}

fn multiple(value: &[u8], of: usize) -> Checked {
    length(!value.is_empty() && value.len().is_multiple_of(of))
}

fn next_hop(value: &[u8]) -> Checked {
    let &[first, ..] = value else { return length(false) };
    length(value.len() == 4)?;
    // 0/8, loopback, multicast and reserved addresses.
    let host = !matches!(first, 0 | 127 | 224..);
    if host { Ok(()) } else { Err((Severity::Ignore, FaultKind::Martian)) }
}

fn refuse(good: bool, kind: FaultKind) -> Checked {
    if good { Ok(()) } else { Err((Severity::Withdraw, kind)) }
}

fn discard(good: bool, kind: FaultKind) -> Checked {
    if good { Ok(()) } else { Err((Severity::Discard, kind)) }
}

fn disable(good: bool, kind: FaultKind) -> Checked {
    if good { Ok(()) } else { Err((Severity::Disable, kind)) }
}

/// A non-empty list of segments, of which none is a confederation segment (RFC 6793 §6).
fn as4_path(value: &[u8]) -> bool {
    let mut reader = Reader(value);
    while let Some(kind) = reader.u8() {
        let numbers = reader.u8().and_then(|count| reader.take(usize::from(count) * 4));
        if !matches!(SegmentType::from_code(kind), Some(SegmentType::AsSet | SegmentType::AsSequence))
            || numbers.is_none_or(<[u8]>::is_empty)
        {
            return false;
        }
    }
    !value.is_empty()
}

const FLAG_KIND: u8 = OPTIONAL | TRANSITIVE;
