//! SHA-256 of `node#ip` (`docs/upstream-behaviour.md#l2-order`), on blocks that are padded once per node.
//!
//! A hash of one short message is mostly buffering and padding. Here a node's name is laid out once; per address only
//! the address, the end mark and the bit length are written into a copy of that block, and one compression follows.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use sha2::block_api::compress256;

use crate::address::canonical;
use crate::model::NodeName;

/// The digest of `node#ip`. The lowest answers for the address; order is that of the 32 bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rank([u32; 8]);

impl Rank {
    /// The rank of one node for one address. For many of them, lay out each [`NodeBlock`] and [`IpText`] once.
    #[must_use]
    pub fn of(node: &NodeName, ip: IpAddr) -> Self {
        NodeBlock::new(node).rank(&IpText::new(ip))
    }

    /// Whether this rank precedes the other. The first eight bytes nearly always decide, without a branch that the
    /// processor could mispredict.
    #[inline]
    pub(super) fn beats(&self, other: &Self) -> bool {
        let (mine, others) = (self.leading(), other.leading());
        if mine == others { self < other } else { mine < others }
    }

    /// The first eight bytes as a number.
    #[inline]
    pub(super) fn leading(&self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }

    /// The 32 bytes of the digest.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lower-case hexadecimal, as `sha256sum` prints it.
impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{word:08x}"))
    }
}

/// The text of an address that is hashed: dotted quad (also for IPv4-mapped addresses) or RFC 5952.
#[derive(Clone, Debug)]
pub struct IpText {
    /// A lane of zeros, the text, the end mark 0x80, and zeros.
    padded: [u8; LANE + IP_TEXT_MAX + 1],
    len: u8,
}

impl IpText {
    /// The canonical text of an address.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        let mut padded = [0; LANE + IP_TEXT_MAX + 1];
        let text = &mut padded[LANE..LANE + IP_TEXT_MAX];
        let len = match canonical(ip) {
            IpAddr::V4(v4) => dotted_quad(v4, text),
            IpAddr::V6(v6) => {
                let mut rest = &mut *text;
                // Can't fail: no address is longer than eight groups of four digits and seven colons.
                let _ = write!(rest, "{v6}");
                IP_TEXT_MAX - rest.len()
            }
        };
        padded[LANE + len] = END_MARK;
        Self { padded, len: len as u8 }
    }

    /// The text and the end mark.
    fn marked(&self) -> &[u8] {
        &self.padded[LANE..=LANE + usize::from(self.len)]
    }

    /// A text of less than a lane, `shift` bytes further on in two lanes.
    fn shifted(&self, shift: usize) -> [&[u8]; 2] {
        let (low, high) = (LANE - shift, 2 * LANE - shift);
        [&self.padded[low..low + LANE], &self.padded[high..high + LANE]]
    }
}

/// A node's name, laid out for hashing.
#[derive(Clone, Debug)]
pub struct NodeBlock {
    /// The state after the whole blocks of `name#`, which only names of 63 characters and more have.
    state: [u32; 8],
    /// The rest of `name#`, and zeros.
    tail: [u8; BLOCK],
    tail_len: u8,
    /// Bits of `name#`.
    name_bits: u64,
}

impl NodeBlock {
    /// Lays out a name.
    #[must_use]
    pub fn new(node: &NodeName) -> Self {
        let mut message = Vec::with_capacity(node.as_str().len() + 1);
        message.extend_from_slice(node.as_str().as_bytes());
        message.push(b'#');
        let (blocks, rest) = message.as_chunks::<BLOCK>();
        let mut state = INITIAL;
        compress256(&mut state, blocks);
        let mut tail = [0; BLOCK];
        tail[..rest.len()].copy_from_slice(rest);
        Self { state, tail, tail_len: rest.len() as u8, name_bits: message.len() as u64 * 8 }
    }

    /// The rank of this node for an address.
    #[must_use]
    #[inline]
    pub fn rank(&self, ip: &IpText) -> Rank {
        let (start, ip_len) = (usize::from(self.tail_len), usize::from(ip.len));
        let mut state = self.state;
        if self.is_short() && ip_len < LANE {
            // The common case, an IPv4 address after a name of up to 39 characters, in whole lanes: a load that spans
            // several stores would stall for a third of the time of the compression.
            let mut block = self.tail;
            let (lanes, _) = block.as_chunks_mut::<LANE>();
            let [low, high] = ip.shifted(start % LANE);
            merge(&mut lanes[start / LANE], low);
            merge(&mut lanes[start / LANE + 1], high);
            merge(&mut lanes[LENGTH_AT / LANE], &LENGTHS[start + ip_len]);
            compress256(&mut state, std::slice::from_ref(&block));
            return Rank(state);
        }
        let bits = self.name_bits + ip_len as u64 * 8;
        let mut blocks = [[0; BLOCK]; 2];
        let flat = blocks.as_flattened_mut();
        flat[..start].copy_from_slice(&self.tail[..start]);
        flat[start..=start + ip_len].copy_from_slice(ip.marked());
        let used = if start + ip_len < LENGTH_AT { 1 } else { 2 };
        let end = used * BLOCK;
        flat[end - LENGTH_BYTES..end].copy_from_slice(&bits.to_be_bytes());
        compress256(&mut state, &blocks[..used]);
        Rank(state)
    }

    /// The ranks of this node for many addresses, one after the other; the name is copied into the block once for all
    /// of them.
    #[inline]
    pub(super) fn rank_each<'t>(&self, ips: impl Iterator<Item = &'t IpText>, mut each: impl FnMut(Rank)) {
        if !self.is_short() {
            return ips.for_each(|ip| each(self.rank(ip)));
        }
        let start = usize::from(self.tail_len);
        let at = start / LANE;
        let mut block = self.tail;
        for ip in ips {
            let ip_len = usize::from(ip.len);
            if ip_len >= LANE {
                each(self.rank(ip));
                continue;
            }
            let (lanes, _) = block.as_chunks_mut::<LANE>();
            let (name, _) = self.tail.as_chunks::<LANE>();
            let [low, high] = ip.shifted(start % LANE);
            lanes[at] = name[at];
            merge(&mut lanes[at], low);
            lanes[LENGTH_AT / LANE] = LENGTHS[start + ip_len];
            if at + 1 == LENGTH_AT / LANE {
                merge(&mut lanes[at + 1], high);
            } else {
                lanes[at + 1].copy_from_slice(high);
            }
            let mut state = self.state;
            compress256(&mut state, std::slice::from_ref(&block));
            each(Rank(state));
        }
    }

    /// Whether the name and any IPv4 address fit in one block.
    fn is_short(&self) -> bool {
        usize::from(self.tail_len) <= SHORT_TAIL && self.name_bits == u64::from(self.tail_len) * 8
    }
}

/// Writes an address without `core::fmt`, which takes as long as three compressions. Returns its length.
fn dotted_quad(ip: Ipv4Addr, text: &mut [u8]) -> usize {
    let mut len = 0;
    let mut push = |byte| {
        text[len] = byte;
        len += 1;
    };
    for (index, octet) in ip.octets().into_iter().enumerate() {
        if index > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    len
}

/// Combines two lanes; one has zeros where the other has data.
fn merge(lane: &mut [u8; LANE], other: &[u8]) {
    for (byte, other) in lane.iter_mut().zip(other) {
        *byte |= other;
    }
}

/// Bytes of a SHA-256 block.
const BLOCK: usize = 64;
/// Bytes of the message length that closes the last block.
const LENGTH_BYTES: usize = 8;
/// Its offset in a block.
const LENGTH_AT: usize = BLOCK - LENGTH_BYTES;
/// The bit that ends the message.
const END_MARK: u8 = 0x80;
/// Eight groups of four digits and seven colons.
const IP_TEXT_MAX: usize = 39;
/// The width of a vector load; an IPv4 text of at most 15 characters and the end mark fit.
const LANE: usize = 16;
/// Longest `name#` with which a short address fits in the same block.
const SHORT_TAIL: usize = LENGTH_AT - LANE;
/// The last lane of a block, by the number of bytes of the message. No message is empty: without the first entry the
/// compiler sees that most bytes are zero in all lanes, and merges the others one by one.
static LENGTHS: [[u8; LANE]; LENGTH_AT] = {
    let mut lanes = [[0; LANE]; LENGTH_AT];
    lanes[0] = [0xff; LANE];
    let mut bytes = 1;
    while bytes < LENGTH_AT {
        let bits = (bytes * 8) as u16;
        lanes[bytes][LANE - 2] = (bits >> 8) as u8;
        lanes[bytes][LANE - 1] = bits as u8;
        bytes += 1;
    }
    lanes
};
/// FIPS 180-4 §5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn plain(node: &str, ip: &str) -> [u8; 32] {
        Sha256::digest(format!("{node}#{ip}")).into()
    }

    #[test]
    fn rank_of_every_name_length_equals_the_plain_digest() {
        for len in 1..=253 {
            let node = "n".repeat(len);
            for ip in ["1.2.3.4", "255.255.255.255", "::", "fd00::1", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"] {
                let rank = Rank::of(&node.as_str().into(), ip.parse().unwrap());
                assert_eq!(rank.to_bytes(), plain(&node, ip), "{len} {ip}");
            }
        }
    }

    #[test]
    fn rank_hashes_the_canonical_text_of_an_address() {
        for (written, canonical) in [
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("FC00:F853:0CCD:E799:0:0:0:0", "fc00:f853:ccd:e799::"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("0:0:0:0:0:0:102:304", "::102:304"),
        ] {
            let rank = Rank::of(&"node-a".into(), written.parse().unwrap());
            assert_eq!(rank.to_bytes(), plain("node-a", canonical), "{written}");
            assert_eq!(format!("{rank:?}"), rank.to_string());
        }
    }

    #[test]
    fn every_octet_is_written_as_the_standard_library_does() {
        for octet in 0..=255 {
            let ip = IpAddr::from([octet, 255 - octet, octet / 2, octet]);
            assert_eq!(Rank::of(&"node-a".into(), ip).to_bytes(), plain("node-a", &ip.to_string()));
        }
    }

    #[test]
    fn ranks_of_many_addresses_are_those_of_each() {
        let ips = ["1.2.3.4", "fd00::1", "255.255.255.255", "::", "9.9.9.9", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"];
        let texts = ips.map(|ip| IpText::new(ip.parse().unwrap()));
        for len in 1..=130 {
            let block = NodeBlock::new(&"n".repeat(len).as_str().into());
            let mut ranks = Vec::new();
            block.rank_each(texts.iter(), |rank| ranks.push(rank));
            assert_eq!(ranks, texts.each_ref().map(|text| block.rank(text)), "{len}");
        }
    }

    #[test]
    fn rank_beats_another_by_its_first_byte_that_differs() {
        let words = |changed: usize, word: u32| {
            let mut words = [7; 8];
            words[changed] = word;
            Rank(words)
        };
        for at in 0..8 {
            assert!(words(at, 6).beats(&words(at, 7)) && !words(at, 7).beats(&words(at, 6)), "word {at}");
            assert!(!words(at, 7).beats(&words(at, 7)), "nothing beats itself");
            let first_two = u64::from(words(at, 6) < words(2, 7) && at < 2);
            assert_eq!(u64::from(words(at, 6).leading() < words(at, 7).leading()), first_two, "word {at}");
        }
    }

    proptest! {
        #[test]
        fn rank_order_equals_the_order_of_digest_bytes(a in "[a-z0-9.-]{1,80}", b in "[a-z0-9.-]{1,80}", ip: IpAddr) {
            let rank = |node: &str| Rank::of(&node.into(), ip);
            prop_assert_eq!(rank(&a).cmp(&rank(&b)), rank(&a).to_bytes().cmp(&rank(&b).to_bytes()));
        }
    }
}
