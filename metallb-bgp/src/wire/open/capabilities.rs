//! Capabilities (RFC 5492): multiprotocol, route refresh, enhanced route refresh, extended next hop, extended messages,
//! graceful restart and four-octet AS numbers.

use crate::types::{Asn, Family};
use crate::wire::Reader;
use crate::wire::iana::{Afi, CapabilityCode, Safi, graceful_restart as flags};

/// The capabilities of one side.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Address families (RFC 4760), each at most once. Without any multiprotocol capability it is IPv4 unicast.
    pub families: Vec<Family>,
    /// Whether the sender named a family that is neither IPv4 nor IPv6 unicast. It is never sent.
    pub other_families: bool,
    /// Four-octet AS numbers (RFC 6793).
    pub four_octet_asn: bool,
    /// Route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Enhanced route refresh, which marks its begin and end (RFC 7313).
    pub enhanced_refresh: bool,
    /// IPv4 unicast with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages of up to 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// Graceful restart (RFC 4724).
    pub graceful_restart: Option<GracefulRestart>,
}

/// The graceful restart capability (RFC 4724 §3).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarting: bool,
    /// N: a NOTIFICATION or an expired hold timer is handled gracefully too (RFC 8538).
    pub notification: bool,
    /// How long the receiver should keep the routes, in seconds, at most 4095.
    pub restart_time: u16,
    /// Families whose forwarding state the sender preserves.
    pub preserved: Vec<Family>,
}

impl Capabilities {
    pub(super) fn encode(&self, asn: Asn) -> Vec<u8> {
        let mut out = Vec::new();
        for family in distinct(&self.families) {
            out.extend_from_slice(&[CapabilityCode::Multiprotocol.code(), 4]);
            out.extend_from_slice(&family.afi().code().to_be_bytes());
            out.extend_from_slice(&[0, Safi::Unicast.code()]);
        }
        if self.route_refresh {
            out.extend_from_slice(&[CapabilityCode::RouteRefresh.code(), 0]);
        }
        if self.extended_next_hop {
            out.extend_from_slice(&[CapabilityCode::ExtendedNextHop.code(), IPV4_OVER_IPV6.len() as u8]);
            out.extend_from_slice(&IPV4_OVER_IPV6);
        }
        if self.extended_message {
            out.extend_from_slice(&[CapabilityCode::ExtendedMessage.code(), 0]);
        }
        if let Some(restart) = &self.graceful_restart {
            let families = distinct(&restart.preserved);
            let length = 2 + 4 * families.clone().count() as u8;
            out.extend_from_slice(&[CapabilityCode::GracefulRestart.code(), length]);
            let flag = |set: bool, bit: u16| if set { bit } else { 0 };
            let bits = flag(restart.restarting, flags::RESTART_STATE) | flag(restart.notification, flags::NOTIFICATION);
            out.extend_from_slice(&(bits | restart.restart_time & flags::RESTART_TIME_MASK).to_be_bytes());
            for family in families {
                out.extend_from_slice(&family.afi().code().to_be_bytes());
                out.extend_from_slice(&[Safi::Unicast.code(), flags::FORWARDING_STATE]);
            }
        }
        if self.four_octet_asn {
            out.extend_from_slice(&[CapabilityCode::FourOctetAsn.code(), 4]);
            out.extend_from_slice(&asn.0.to_be_bytes());
        }
        if self.enhanced_refresh {
            out.extend_from_slice(&[CapabilityCode::EnhancedRouteRefresh.code(), 0]);
        }
        out
    }

    /// Adds the capabilities of one optional parameter. Unknown capabilities are skipped (RFC 5492 §3), and so are
    /// malformed ones, except for the two that decide how the rest of the session is decoded. `None` means malformed.
    pub(super) fn decode(&mut self, value: &[u8], asn: &mut Option<Asn>) -> Option<()> {
        let mut reader = Reader(value);
        while let Some(code) = reader.u8() {
            let length = reader.u8()?;
            let value = reader.take(length.into())?;
            match (CapabilityCode::from_code(code), value) {
                (Some(CapabilityCode::Multiprotocol), _) => {
                    let &[high, low, _, safi] = value else { return None };
                    let family = Family::from_codes(u16::from_be_bytes([high, low]), safi);
                    self.other_families |= family.is_none();
                    self.families.extend(family.filter(|family| !self.families.contains(family)));
                }
                (Some(CapabilityCode::FourOctetAsn), _) => {
                    let number = Asn(u32::from_be_bytes(value.try_into().ok()?));
                    // Two different numbers contradict each other.
                    if asn.replace(number).is_some_and(|before| before != number) {
                        return None;
                    }
                    self.four_octet_asn = true;
                }
                (Some(CapabilityCode::RouteRefresh), []) => self.route_refresh = true,
                (Some(CapabilityCode::EnhancedRouteRefresh), []) => self.enhanced_refresh = true,
                (Some(CapabilityCode::ExtendedMessage), []) => self.extended_message = true,
                (Some(CapabilityCode::ExtendedNextHop), _) if value.len().is_multiple_of(6) => {
                    self.extended_next_hop |= value.chunks_exact(6).any(|entry| entry == IPV4_OVER_IPV6);
                }
                // The last instance counts (RFC 4724 §3), even if it is malformed.
                (Some(CapabilityCode::GracefulRestart), _) => self.graceful_restart = GracefulRestart::decode(value),
                _ => {}
            }
        }
        Some(())
    }
}

impl GracefulRestart {
    fn decode(value: &[u8]) -> Option<Self> {
        let (bits, tuples) = value.split_first_chunk::<2>()?;
        let (tuples, []) = tuples.as_chunks::<4>() else { return None };
        let bits = u16::from_be_bytes(*bits);
        let preserved = |&[high, low, safi, bits]: &[u8; 4]| {
            let family = Family::from_codes(u16::from_be_bytes([high, low]), safi);
            family.filter(|_| bits & flags::FORWARDING_STATE != 0)
        };
        Some(Self {
            restarting: bits & flags::RESTART_STATE != 0,
            notification: bits & flags::NOTIFICATION != 0,
            restart_time: bits & flags::RESTART_TIME_MASK,
            preserved: tuples.iter().filter_map(preserved).collect(),
        })
    }
}

/// Each family once, in the given order, so that a capability never becomes too long.
fn distinct(families: &[Family]) -> impl Iterator<Item = Family> + Clone {
    families.iter().enumerate().filter(|(at, family)| !families[..*at].contains(family)).map(|(_, family)| *family)
}

/// The value of the extended next hop capability for IPv4 unicast with an IPv6 next hop: AFI, SAFI in two octets, next
/// hop AFI.
const IPV4_OVER_IPV6: [u8; 6] = [0, Afi::Ipv4.code() as u8, 0, Safi::Unicast.code(), 0, Afi::Ipv6.code() as u8];
