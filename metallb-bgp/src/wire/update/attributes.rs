//! Path attributes of a received update, judged by RFC 7606.

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Fault, FaultKind, Multiprotocol, Outcome};
use crate::types::Family;
use crate::wire::iana::{self, attribute};
use crate::wire::notification::Notification;
use crate::wire::{DecodeContext, Reader, nlri};

/// One pass over all attributes.
pub(super) struct Walk<'a, 'c> {
    context: &'c DecodeContext,
    /// Prefixes follow the attributes.
    announces: bool,
    /// One bit for each code.
    seen: [u64; 4],
    /// The first error from treat-as-withdraw on, with the attribute that had it.
    grave: Option<(Fault, &'a [u8])>,
    pub(super) found: Found<'a>,
}

/// What a pass found. It is read where it is: a copy right after small fields were written would wait for them.
pub(super) struct Found<'a> {
    pub(super) reach: Option<(Multiprotocol<'a>, usize)>,
    pub(super) unreach: Option<(Multiprotocol<'a>, usize)>,
    pub(super) attributes: usize,
    pub(super) outcome: Outcome,
}

/// What is wrong with one attribute: how grave it is, and why.
type Verdict = Result<(), (Severity, FaultKind)>;

#[derive(Clone, Copy)]
enum Severity {
    Discard,
    Ignore,
    Withdraw,
    Disable,
}

impl<'a, 'c> Walk<'a, 'c> {
    #[inline(always)]
    pub(super) const fn new(context: &'c DecodeContext, announces: bool) -> Self {
        let found = Found { reach: None, unreach: None, attributes: 0, outcome: Outcome::Accept };
        Self { context, announces, seen: [0; 4], grave: None, found }
    }

    #[inline(always)]
    pub(super) fn run(&mut self, attributes: &'a [u8]) -> Result<(), Notification> {
        let mut rest = attributes;
        while !rest.is_empty() {
            let Some((flags, code, value, after)) = next(rest) else {
                // The total length still tells where the prefixes are (RFC 7606 §4).
                let code = rest.get(1).copied().unwrap_or(0);
                self.note(code, rest, (Severity::Withdraw, FaultKind::Overrun));
                break;
            };
            let whole = &rest[..rest.len() - after.len()];
            rest = after;
            self.found.attributes += 1;
            let (word, bit) = (usize::from(code >> 6), 1_u64 << (code & 63));
            if self.seen[word] & bit != 0 {
                if matches!(code, attribute::MP_REACH | attribute::MP_UNREACH) {
                    return Err(Notification::new(3, 1, &[]));
                }
                self.note(code, whole, (Severity::Discard, FaultKind::Duplicate));
                continue;
            }
            self.seen[word] |= bit;
            let Some(verdict) = self.judge(flags, code, value) else {
                // An unknown attribute that claims to be well-known (RFC 4271 §6.3).
                return Err(Notification::new(3, 2, whole));
            };
            if let Err(verdict) = verdict {
                self.note(code, whole, verdict);
            }
        }
        self.require();
        // RFC 7606 §5.2: without prefixes to withdraw there is no milder way than to end the session.
        if let Some((fault, whole)) = self.grave.filter(|_| !self.announces && self.found.reach.is_none())
            && !matches!(self.found.outcome, Outcome::DisableFamily(_))
        {
            return Err(Notification::new(3, fault.subcode(), whole));
        }
        Ok(())
    }

    /// `None` for an unknown attribute that claims to be well-known.
    fn judge(&mut self, flags: u8, code: u8, value: &'a [u8]) -> Option<Verdict> {
        let context = self.context;
        let internal = context.internal();
        Some(match code {
            attribute::ORIGIN => {
                well_known(flags).and_then(|()| length(value.len() == 1)).and_then(|()| valid(value[0] <= 2))
            }
            attribute::AS_PATH => well_known(flags).and_then(|()| self.path(value)),
            attribute::NEXT_HOP => well_known(flags).and_then(|()| next_hop(value)),
            attribute::MED => optional(flags, 0).and_then(|()| length(value.len() == 4)),
            attribute::LOCAL_PREF if !internal => Err((Severity::Discard, FaultKind::Unexpected)),
            attribute::LOCAL_PREF => well_known(flags).and_then(|()| length(value.len() == 4)),
            attribute::ATOMIC_AGGREGATE => {
                well_known(flags).and_then(|()| discard(value.is_empty(), FaultKind::Length))
            }
            attribute::AGGREGATOR => optional(flags, iana::TRANSITIVE)
                .and_then(|()| discard(value.len() == if context.four_octet_asn { 8 } else { 6 }, FaultKind::Length))
                .and_then(|()| discard(value[..value.len() - 4].iter().any(|octet| *octet != 0), FaultKind::Value)),
            attribute::COMMUNITIES => optional(flags, iana::TRANSITIVE).and_then(|()| multiple(value, 4)),
            attribute::ORIGINATOR_ID | attribute::CLUSTER_LIST if !internal => {
                Err((Severity::Discard, FaultKind::Unexpected))
            }
            attribute::ORIGINATOR_ID => optional(flags, 0).and_then(|()| length(value.len() == 4)),
            attribute::CLUSTER_LIST => optional(flags, 0).and_then(|()| multiple(value, 4)),
            attribute::MP_REACH => self.reach(flags, value),
            attribute::MP_UNREACH => self.unreach(flags, value),
            attribute::EXTENDED_COMMUNITIES => optional(flags, iana::TRANSITIVE).and_then(|()| multiple(value, 8)),
            attribute::AS4_PATH | attribute::AS4_AGGREGATOR if context.four_octet_asn => {
                Err((Severity::Discard, FaultKind::Unexpected))
            }
            attribute::AS4_PATH => discard(as4_path(value), FaultKind::Value),
            attribute::AS4_AGGREGATOR => discard(value.len() == 8, FaultKind::Length)
                .and_then(|()| discard(value[..4] != [0; 4], FaultKind::Value)),
            attribute::IPV6_EXTENDED_COMMUNITIES => {
                optional(flags, iana::TRANSITIVE).and_then(|()| multiple(value, 20))
            }
            attribute::LARGE_COMMUNITIES => optional(flags, iana::TRANSITIVE).and_then(|()| multiple(value, 12)),
            _ if flags & iana::OPTIONAL == 0 => return None,
            // Not known, or known and without meaning to us: AIGP, tunnel encapsulation, prefix SID, ATTR_SET.
            _ => Ok(()),
        })
    }

    /// RFC 7606 §7.2, RFC 7607, RFC 9774, RFC 5065: a sequence of numbers that begins with the peer's and does not have ours.
    fn path(&self, value: &[u8]) -> Verdict {
        let width = if self.context.four_octet_asn { 4 } else { 2 };
        let malformed = Err((Severity::Withdraw, FaultKind::Value));
        let mut reader = Reader(value);
        let (mut first, mut looped) = (None, false);
        while let Some(kind) = reader.u8() {
            let Some(numbers) = reader.u8().and_then(|count| reader.take(usize::from(count) * width)) else {
                return malformed;
            };
            if kind != iana::AS_SEQUENCE || numbers.is_empty() {
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
        if !self.context.internal() && first != Some(peer) {
            return Err((Severity::Withdraw, FaultKind::FirstAsn));
        }
        if looped { Err((Severity::Ignore, FaultKind::OwnAsn)) } else { Ok(()) }
    }

    fn reach(&mut self, flags: u8, value: &'a [u8]) -> Verdict {
        disable(flags & FLAG_KIND == iana::OPTIONAL, FaultKind::Flags)?;
        let broken = (Severity::Disable, FaultKind::Length);
        let mut reader = Reader(value);
        let (Some(afi), Some(safi), Some(size)) = (reader.u16(), reader.u8(), reader.u8()) else { return Err(broken) };
        let next_hop = reader.take(size.into()).ok_or(broken)?;
        // The octet that used to count SNPAs: ignored (RFC 4760 §3).
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

    fn unreach(&mut self, flags: u8, value: &'a [u8]) -> Verdict {
        disable(flags & FLAG_KIND == iana::OPTIONAL, FaultKind::Flags)?;
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

    /// The attributes that a route must have (RFC 4271 §5).
    fn require(&mut self) {
        let reached = self.announces || self.found.reach.is_some_and(|(_, count)| count > 0);
        for (code, needed) in
            [(attribute::ORIGIN, reached), (attribute::AS_PATH, reached), (attribute::NEXT_HOP, self.announces)]
        {
            if needed && self.seen[0] & 1 << code == 0 {
                self.note(code, &[], (Severity::Withdraw, FaultKind::Missing));
            }
        }
    }

    fn note(&mut self, code: u8, whole: &'a [u8], (severity, kind): (Severity, FaultKind)) {
        let fault = Fault { attribute: code, kind };
        let outcome = match severity {
            Severity::Discard => Outcome::AttributeDiscard(fault),
            Severity::Ignore => Outcome::RouteIgnored(fault),
            Severity::Withdraw => Outcome::TreatAsWithdraw(fault),
            Severity::Disable => Outcome::DisableFamily(fault),
        };
        if matches!(severity, Severity::Withdraw) {
            self.grave.get_or_insert((fault, whole));
        }
        // Of equally grave errors the first is named.
        if std::mem::discriminant(&outcome) != std::mem::discriminant(&self.found.outcome) {
            self.found.outcome = self.found.outcome.max(outcome);
        }
    }
}

/// Splits the first attribute off: flags, code, value and what follows. `None` when it is cut off.
fn next(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (&[flags, code, short], after) = bytes.split_first_chunk::<3>()?;
    if flags & iana::EXTENDED == 0 {
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

fn well_known(flags: u8) -> Verdict {
    // What everybody knows, nobody can have passed on unknown.
    refuse(flags & (FLAG_KIND | iana::PARTIAL) == iana::TRANSITIVE, FaultKind::Flags)
}

fn optional(flags: u8, transitive: u8) -> Verdict {
    refuse(flags & FLAG_KIND == iana::OPTIONAL | transitive, FaultKind::Flags)
}

fn length(good: bool) -> Verdict {
    refuse(good, FaultKind::Length)
}

fn valid(good: bool) -> Verdict {
    refuse(good, FaultKind::Value)
}

fn multiple(value: &[u8], of: usize) -> Verdict {
    length(!value.is_empty() && value.len().is_multiple_of(of))
}

fn next_hop(value: &[u8]) -> Verdict {
    let &[first, ..] = value else { return length(false) };
    length(value.len() == 4)?;
    // This network, loopback, multicast and what lies beyond.
    let host = !matches!(first, 0 | 127 | 224..);
    if host { Ok(()) } else { Err((Severity::Ignore, FaultKind::Martian)) }
}

fn refuse(good: bool, kind: FaultKind) -> Verdict {
    if good { Ok(()) } else { Err((Severity::Withdraw, kind)) }
}

fn discard(good: bool, kind: FaultKind) -> Verdict {
    if good { Ok(()) } else { Err((Severity::Discard, kind)) }
}

fn disable(good: bool, kind: FaultKind) -> Verdict {
    if good { Ok(()) } else { Err((Severity::Disable, kind)) }
}

/// RFC 6793 §6: a non-empty list of segments. Confederation segments have no place there; a speaker that used the path would drop them.
fn as4_path(value: &[u8]) -> bool {
    let mut reader = Reader(value);
    while let Some(kind) = reader.u8() {
        let numbers = reader.u8().and_then(|count| reader.take(usize::from(count) * 4));
        if !matches!(kind, iana::AS_SET | iana::AS_SEQUENCE) || numbers.is_none_or(<[u8]>::is_empty) {
            return false;
        }
    }
    !value.is_empty()
}

const FLAG_KIND: u8 = iana::OPTIONAL | iana::TRANSITIVE;
