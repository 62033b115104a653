//! Codecs of ARP and NDP messages in Ethernet frames. Decoding never panics and never allocates.

pub mod arp;
mod checksum;
mod ethernet;
pub mod ndp;

pub use self::ethernet::Ethernet;
use crate::interface::MacAddr;

/// An encoded frame of at most [`FRAME_MAX`] bytes, stored inline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame {
    bytes: [u8; FRAME_MAX],
    len: u8,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Frame {
    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// An Ethernet frame with `payload`, padded to the minimum length of Ethernet. A payload that does not fit would be
    /// cut; the messages of this crate all fit.
    fn new(destination: MacAddr, source: MacAddr, ethertype: u16, payload: &[u8]) -> Self {
        let mut bytes = [0; FRAME_MAX];
        bytes[..6].copy_from_slice(&destination.0);
        bytes[6..12].copy_from_slice(&source.0);
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let len = payload.len().min(FRAME_MAX - ETHERNET_HEADER);
        bytes[ETHERNET_HEADER..ETHERNET_HEADER + len].copy_from_slice(&payload[..len]);
        // FRAME_MAX fits in a byte.
        Self { bytes, len: (ETHERNET_HEADER + len).max(FRAME_MIN) as u8 }
    }
}

/// EtherType of ARP (IANA registry "IEEE 802 Numbers").
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (IEEE 802.1ad).
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Length of an Ethernet header in bytes.
pub const ETHERNET_HEADER: usize = 14;
/// The minimum length of a frame without its check sequence.
const FRAME_MIN: usize = 60;
/// The length of the longest frame that this crate encodes, a neighbour advertisement.
pub const FRAME_MAX: usize = ETHERNET_HEADER + 40 + 32;
