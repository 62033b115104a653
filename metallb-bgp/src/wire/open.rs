//! OPEN (RFC 4271 §4.2), with optional parameters of either length (RFC 9072).

mod capabilities;

use std::net::Ipv4Addr;

pub use self::capabilities::{Capabilities, GracefulRestart};

use super::iana::{MessageType, OpenSubcode, ParameterType, VERSION};
use super::notification::Notification;
use super::{Reader, message};
use crate::types::{Asn, RouterId};

/// An OPEN message.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Open {
    /// The sender's AS number: from the capability if there is one, else from the fixed field.
    pub asn: Asn,
    /// The proposed hold time in seconds.
    pub hold_time: u16,
    /// The sender's BGP identifier.
    pub router_id: RouterId,
    /// The sender's capabilities.
    pub capabilities: Capabilities,
}

impl Open {
    /// An OPEN.
    #[must_use]
    pub const fn new(asn: Asn, hold_time: u16, router_id: RouterId, capabilities: Capabilities) -> Self {
        Self { asn, hold_time, router_id, capabilities }
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, MessageType::Open.code(), |out| {
            out.push(VERSION);
            out.extend_from_slice(&self.asn.two_octets().to_be_bytes());
            out.extend_from_slice(&self.hold_time.to_be_bytes());
            out.extend_from_slice(&self.router_id.0.octets());
            let capabilities = self.capabilities.encode(self.asn);
            match u8::try_from(capabilities.len() + 2) {
                Ok(length) => out.extend_from_slice(&[length, CAPABILITIES, length - 2]),
                Err(_) => {
                    // RFC 9072 §2. Each kind of capability is written once, so the sum stays far below u16::MAX.
                    let length = capabilities.len() as u16;
                    out.extend_from_slice(&[EXTENDED_LENGTH, EXTENDED_LENGTH]);
                    out.extend_from_slice(&(length + 3).to_be_bytes());
                    out.push(CAPABILITIES);
                    out.extend_from_slice(&length.to_be_bytes());
                }
            }
            out.extend_from_slice(&capabilities);
        });
    }

    /// Decodes the body of a message.
    ///
    /// # Errors
    /// The NOTIFICATION to send (RFC 4271 §6.2).
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::new(OpenSubcode::Unspecific, &[]);
        let mut reader = Reader(body);
        let mut fixed = || Some((reader.u8()?, reader.u16()?, reader.u16()?, reader.u32()?, reader.u8()?));
        let (version, asn, hold_time, router_id, length) = fixed().ok_or_else(malformed)?;
        if version != VERSION {
            let supported = u16::from(VERSION).to_be_bytes();
            return Err(Notification::new(OpenSubcode::UnsupportedVersionNumber, &supported));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::new(OpenSubcode::UnacceptableHoldTime, &hold_time.to_be_bytes()));
        }
        if router_id == 0 {
            return Err(Notification::new(OpenSubcode::BadBgpIdentifier, &router_id.to_be_bytes()));
        }
        // RFC 9072 §2: type 255 in first place means that two octets of length follow, here and in each parameter. The
        // octet before it then only says whether there are parameters.
        let extended = length != 0 && reader.0.first() == Some(&EXTENDED_LENGTH);
        let parameters = if extended {
            reader.u8();
            let length = reader.u16().ok_or_else(malformed)?;
            reader.take(length.into())
        } else {
            reader.take(length.into())
        };
        if !reader.0.is_empty() {
            return Err(malformed());
        }
        let mut parameters = Reader(parameters.ok_or_else(malformed)?);
        let mut capabilities = Capabilities::default();
        let mut four_octets = None;
        while let Some(kind) = parameters.u8() {
            let length = if extended { parameters.u16() } else { parameters.u8().map(u16::from) };
            let value = length.and_then(|length| parameters.take(length.into())).ok_or_else(malformed)?;
            if kind != CAPABILITIES {
                return Err(Notification::new(OpenSubcode::UnsupportedOptionalParameter, &[]));
            }
            capabilities.decode(value, &mut four_octets).ok_or_else(malformed)?;
        }
        let asn = four_octets.unwrap_or(Asn(asn.into()));
        if asn.0 == 0 {
            return Err(Notification::new(OpenSubcode::BadPeerAs, &[]));
        }
        Ok(Self { asn, hold_time, router_id: RouterId(Ipv4Addr::from(router_id)), capabilities })
    }
}

const CAPABILITIES: u8 = ParameterType::Capabilities.code();
const EXTENDED_LENGTH: u8 = ParameterType::ExtendedLength.code();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Family;
    use crate::wire::iana::MessageType;
    use crate::wire::{DecodeContext, HEADER, split};

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn open_of_other_speakers_is_decoded() {
        // The OPEN of the speaker that MetalLB had before FRR.
        let native = bytes("04 fdea 005a b9ecf027 14 0212 010400010001 010400020001 41040000fdea");
        let open = Open::decode(&native).unwrap();
        assert_eq!((open.asn, open.hold_time, open.capabilities.four_octet_asn), (Asn(65002), 90, true));
        let without = bytes("04 fde9 00b4 0a000001 0e 02 0c 0104 00010001 0200 4002 00b4");
        let open = Open::decode(&without).unwrap();
        assert_eq!((open.asn, open.hold_time, open.capabilities.four_octet_asn), (Asn(65001), 180, false));
        assert!(Open::decode(&bytes("04 fde9 00b4 0a000001 00")).is_ok());
    }

    #[test]
    fn malformed_open_is_refused_with_its_subcode() {
        for (hex, code, subcode) in [
            ("03 fde9 00b4 0a000001 00", 2, 1),
            ("04 fde9 0002 0a000001 00", 2, 6),
            ("04 fde9 00b4 00000000 00", 2, 3),
            ("04 fde9 00b4 0a000001 03 01 01 00", 2, 4),
            ("04 fde9 00b4 0a000001 05 02 01 00", 2, 0),
            ("04 0000 00b4 0a000001 00", 2, 2),
        ] {
            let error = Open::decode(&bytes(hex)).unwrap_err();
            assert_eq!((error.code, error.subcode), (code, subcode), "{hex}");
        }
        assert!(Open::decode(&bytes("04 fde9 0000 0a000001 00")).is_ok(), "hold time 0 is legal");
    }

    proptest! {
        #[test]
        fn open_round_trips(
            asn in 1_u32.., hold in 3_u16.., id in 1_u32.., refresh: bool, more in any::<[bool; 3]>(),
            restart in proptest::option::of((any::<bool>(), any::<bool>(), 0_u16..4096)),
        ) {
            let open = Open {
                asn: Asn(asn),
                hold_time: hold,
                router_id: RouterId(id.into()),
                capabilities: Capabilities {
                    families: vec![Family::Ipv4, Family::Ipv6],
                    other_families: false,
                    four_octet_asn: true,
                    route_refresh: refresh,
                    extended_next_hop: more[0],
                    extended_message: more[1],
                    enhanced_refresh: more[2],
                    graceful_restart: restart.map(|(restarting, notification, restart_time)| GracefulRestart {
                        restarting, notification, restart_time, preserved: vec![Family::Ipv6],
                    }),
                },
            };
            let mut out = Vec::new();
            open.encode(&mut out);
            let (kind, body, size) = split(&out, &DecodeContext::default()).unwrap().unwrap();
            prop_assert_eq!((kind, size), (MessageType::Open, out.len()));
            prop_assert_eq!(Open::decode(body), Ok(open));
        }

        #[test]
        fn decode_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Open::decode(&body);
            let mut message = vec![0xff; 16];
            message.extend_from_slice(&body);
            if let Ok(Some((_, found, size))) = split(&message, &DecodeContext::default()) {
                prop_assert_eq!(found.len() + HEADER, size);
            }
        }
    }
}
