//! The Ethernet header (IEEE 802.3) and a priority tag behind it.

use super::{ETHERNET_HEADER, ETHERTYPE_VLAN};
use crate::interface::MacAddr;

/// A decoded Ethernet header and its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ethernet<'a> {
    /// The destination address.
    pub destination: MacAddr,
    /// The source address.
    pub source: MacAddr,
    /// The EtherType; for a frame with a VLAN tag, that of the tag.
    pub ethertype: u16,
    /// The rest of the frame.
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Splits a frame; `None` if it is shorter than its headers. A tag of VLAN 0 carries only a priority (IEEE 802.1Q
    /// §9.6) and is skipped. Any other tag stays in the payload.
    #[must_use]
    pub fn decode(frame: &'a [u8]) -> Option<Self> {
        let (header, payload) = frame.split_first_chunk::<ETHERNET_HEADER>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let ethertype = u16::from_be_bytes([t0, t1]);
        let (ethertype, payload) = match ethertype {
            ETHERTYPE_VLAN => {
                let ([c0, c1, i0, i1], inner) = payload.split_first_chunk::<VLAN_TAG>()?;
                match u16::from_be_bytes([*c0, *c1]) & VLAN_ID {
                    0 => (u16::from_be_bytes([*i0, *i1]), inner),
                    _ => (ethertype, payload),
                }
            }
            _ => (ethertype, payload),
        };
        Some(Self {
            destination: MacAddr([d0, d1, d2, d3, d4, d5]),
            source: MacAddr([s0, s1, s2, s3, s4, s5]),
            ethertype,
            payload,
        })
    }
}

/// Length of a tag after its EtherType: control information and the EtherType of the payload.
const VLAN_TAG: usize = 4;
/// The VLAN identifier within the control information.
const VLAN_ID: u16 = 0x0fff;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(after_addresses: &[u8]) -> Vec<u8> {
        [[2; 6], [4; 6]].concat().into_iter().chain(after_addresses.iter().copied()).collect()
    }

    #[test]
    fn header_is_split_from_the_payload() {
        let bytes = frame(&[0x08, 0x06, 1, 2, 3]);
        let decoded = Ethernet::decode(&bytes).unwrap();
        assert_eq!((decoded.destination, decoded.source), (MacAddr([2; 6]), MacAddr([4; 6])));
        assert_eq!((decoded.ethertype, decoded.payload), (0x0806, &[1, 2, 3][..]));
    }

    #[test]
    fn priority_tag_is_skipped_and_other_tags_are_kept() {
        let priority = frame(&[0x81, 0x00, 0xe0, 0x00, 0x08, 0x06, 7]);
        let decoded = Ethernet::decode(&priority).unwrap();
        assert_eq!((decoded.ethertype, decoded.payload), (0x0806, &[7][..]));
        let vlan = frame(&[0x81, 0x00, 0x00, 0x64, 0x08, 0x06, 7]);
        assert_eq!(Ethernet::decode(&vlan).unwrap().ethertype, ETHERTYPE_VLAN);
    }

    #[test]
    fn truncated_header_or_tag_is_refused() {
        let bytes = frame(&[0x81, 0x00, 0x00, 0x00, 0x08]);
        assert!((0..bytes.len()).all(|len| len == ETHERNET_HEADER || Ethernet::decode(&bytes[..len]).is_none()));
        assert_eq!(Ethernet::decode(&bytes), None);
    }
}
