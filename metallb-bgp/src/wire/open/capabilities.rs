//! Capabilities (RFC 5492): multiprotocol, route refresh in both forms, extended next hop, extended messages, graceful restart and
//! numbers of four octets.

use crate::types::{Asn, Family};
use crate::wire::Reader;
use crate::wire::iana::capability;

/// What one side can do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Capabilities {
    /// Families (RFC 4760), each once; none means IPv4.
    pub families: Vec<Family>,
    /// Numbers of four octets (RFC 6793).
    pub four_octet_asn: bool,
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// ROUTE-REFRESH that marks its beginning and end (RFC 7313).
    pub enhanced_refresh: bool,
    /// IPv4 unicast with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages of up to 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// Graceful restart (RFC 4724).
    pub graceful_restart: Option<GracefulRestart>,
}

/// The graceful restart capability.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GracefulRestart {
    /// This side has just restarted.
    pub restarting: bool,
    /// A NOTIFICATION or an expired hold timer is handled gracefully too (RFC 8538).
    pub notification: bool,
    /// How long the other side should keep the routes, in seconds, at most 4095.
    pub restart_time: u16,
    /// Families whose forwarding goes on.
    pub preserved: Vec<Family>,
}

impl Capabilities {
    pub(super) fn encode(&self, asn: Asn) -> Vec<u8> {
        let mut out = Vec::new();
        for family in both(&self.families) {
            out.extend_from_slice(&[capability::MULTIPROTOCOL, 4]);
            out.extend_from_slice(&family.afi().to_be_bytes());
            out.extend_from_slice(&[0, 1]);
        }
        if self.route_refresh {
            out.extend_from_slice(&[capability::ROUTE_REFRESH, 0]);
        }
        if self.extended_next_hop {
            out.extend_from_slice(&[capability::EXTENDED_NEXT_HOP, 6, 0, 1, 0, 1, 0, 2]);
        }
        if self.extended_message {
            out.extend_from_slice(&[capability::EXTENDED_MESSAGE, 0]);
        }
        if let Some(restart) = &self.graceful_restart {
            let families = both(&restart.preserved);
            out.extend_from_slice(&[capability::GRACEFUL_RESTART, 2 + 4 * families.clone().count() as u8]);
            let flag = |set: bool, bit: u16| if set { bit } else { 0 };
            let flags = flag(restart.restarting, RESTARTING) | flag(restart.notification, NOTIFICATION);
            out.extend_from_slice(&(flags | restart.restart_time & RESTART_TIME).to_be_bytes());
            for family in families {
                out.extend_from_slice(&family.afi().to_be_bytes());
                out.extend_from_slice(&[1, PRESERVED]);
            }
        }
        if self.four_octet_asn {
            out.extend_from_slice(&[capability::FOUR_OCTET_ASN, 4]);
            out.extend_from_slice(&asn.0.to_be_bytes());
        }
        if self.enhanced_refresh {
            out.extend_from_slice(&[capability::ENHANCED_REFRESH, 0]);
        }
        out
    }

    /// Adds what one parameter says. Capabilities that mean nothing to us are skipped (RFC 5492 §3); so are damaged ones, except the two
    /// that decide how the rest of the session is read. `None` means malformed.
    pub(super) fn decode(&mut self, value: &[u8], asn: &mut Option<Asn>) -> Option<()> {
        let mut reader = Reader(value);
        while let Some(code) = reader.u8() {
            let length = reader.u8()?;
            let value = reader.take(length.into())?;
            match (code, value) {
                (capability::MULTIPROTOCOL, _) => {
                    let &[high, low, _, safi] = value else { return None };
                    let family = Family::from_codes(u16::from_be_bytes([high, low]), safi);
                    self.families.extend(family.filter(|family| !self.families.contains(family)));
                }
                (capability::FOUR_OCTET_ASN, _) => {
                    let number = Asn(u32::from_be_bytes(value.try_into().ok()?));
                    // Two different numbers: there is no telling which one is meant.
                    if asn.replace(number).is_some_and(|before| before != number) {
                        return None;
                    }
                    self.four_octet_asn = true;
                }
                (capability::ROUTE_REFRESH, []) => self.route_refresh = true,
                (capability::ENHANCED_REFRESH, []) => self.enhanced_refresh = true,
                (capability::EXTENDED_MESSAGE, []) => self.extended_message = true,
                (capability::EXTENDED_NEXT_HOP, _) if value.len().is_multiple_of(6) => {
                    self.extended_next_hop |= value.chunks_exact(6).any(|entry| entry == [0, 1, 0, 1, 0, 2]);
                }
                // The last one counts (RFC 4724 §3), also when it is damaged.
                (capability::GRACEFUL_RESTART, _) => self.graceful_restart = GracefulRestart::decode(value),
                _ => {}
            }
        }
        Some(())
    }
}

impl GracefulRestart {
    fn decode(value: &[u8]) -> Option<Self> {
        let (flags, tuples) = value.split_first_chunk::<2>()?;
        let (tuples, []) = tuples.as_chunks::<4>() else { return None };
        let flags = u16::from_be_bytes(*flags);
        let preserved = |&[high, low, safi, flags]: &[u8; 4]| {
            Family::from_codes(u16::from_be_bytes([high, low]), safi).filter(|_| flags & PRESERVED != 0)
        };
        Some(Self {
            restarting: flags & RESTARTING != 0,
            notification: flags & NOTIFICATION != 0,
            restart_time: flags & RESTART_TIME,
            preserved: tuples.iter().filter_map(preserved).collect(),
        })
    }
}

/// Each family once, in the order given, so that no list makes a capability too long.
fn both(families: &[Family]) -> impl Iterator<Item = Family> + Clone {
    families.iter().enumerate().filter(|(at, family)| !families[..*at].contains(family)).map(|(_, family)| *family)
}

const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0fff;
const PRESERVED: u8 = 0x80;
