//! Prefixes as they stand in a message (RFC 4271 §4.3): a length in bits, then as many octets as it needs.

use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// A kind of prefix: of IPv4 or IPv6.
pub trait Nlri: Copy + Ord {
    /// Bits of an address.
    const BITS: u8;

    /// Length octet and address of a host route: the most bytes that one prefix takes.
    const WIDTH: usize = 1 + Self::BITS as usize / 8;

    /// A prefix from its first octets; bits beyond `length`, which is at most [`BITS`](Self::BITS), are cleared.
    fn read(length: u8, octets: &[u8]) -> Option<Self>;

    /// Writes the prefix to the beginning of `out` and tells how many bytes it took, or `None` when it does not fit. Bytes behind it may
    /// be overwritten.
    fn write(self, out: &mut [u8]) -> Option<usize>;
}

impl Nlri for Ipv4Net {
    const BITS: u8 = 32;

    fn read(length: u8, octets: &[u8]) -> Option<Self> {
        if let (32, Ok(octets)) = (length, <[u8; 4]>::try_from(octets)) {
            return Some(Self::from(Ipv4Addr::from(octets)));
        }
        let mut address = [0; 4];
        address.get_mut(..octets.len())?.copy_from_slice(octets);
        Self::new(address.into(), length).ok().map(|net| net.trunc())
    }

    #[inline]
    fn write(self, out: &mut [u8]) -> Option<usize> {
        let size = 1 + usize::from(self.prefix_len()).div_ceil(8);
        let [a, b, c, d] = self.addr().octets();
        let bytes = [self.prefix_len(), a, b, c, d];
        write(&bytes, size, out)
    }
}

impl Nlri for Ipv6Net {
    const BITS: u8 = 128;

    fn read(length: u8, octets: &[u8]) -> Option<Self> {
        if let (128, Ok(octets)) = (length, <[u8; 16]>::try_from(octets)) {
            return Some(Self::from(Ipv6Addr::from(octets)));
        }
        let mut address = [0; 16];
        address.get_mut(..octets.len())?.copy_from_slice(octets);
        Self::new(address.into(), length).ok().map(|net| net.trunc())
    }

    #[inline]
    fn write(self, out: &mut [u8]) -> Option<usize> {
        let size = 1 + usize::from(self.prefix_len()).div_ceil(8);
        let mut bytes = [0; 17];
        bytes[0] = self.prefix_len();
        bytes[1..].copy_from_slice(&self.addr().octets());
        write(&bytes, size, out)
    }
}

/// Writes all of `bytes` where there is room, which needs no look at `size`; at the end of the buffer only the `size` that count.
#[inline]
fn write<const N: usize>(bytes: &[u8; N], size: usize, out: &mut [u8]) -> Option<usize> {
    match out.first_chunk_mut::<N>() {
        Some(room) => *room = *bytes,
        None => out.get_mut(..size)?.copy_from_slice(&bytes[..size]),
    }
    Some(size)
}

/// Counts the prefixes; `None` when one is too long or cut off.
///
/// Host routes are what load balancers offer. Their stride is constant, so eight are checked at once without waiting for one length to
/// find the next.
#[must_use]
pub fn count<P: Nlri>(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let Some((&length, after)) = bytes.split_first() {
        if length == P::BITS {
            while let Some((eight, rest)) = bytes.split_at_checked(8 * P::WIDTH) {
                if (0..8).fold(0, |others, index| others | (eight[index * P::WIDTH] ^ P::BITS)) != 0 {
                    break;
                }
                count += 8;
                bytes = rest;
            }
            while let Some((one, rest)) = bytes.split_at_checked(P::WIDTH).filter(|(one, _)| one[0] == P::BITS) {
                debug_assert_eq!(one.len(), P::WIDTH);
                count += 1;
                bytes = rest;
            }
            if bytes.first() == Some(&P::BITS) {
                return None;
            }
            continue;
        }
        if length > P::BITS {
            return None;
        }
        bytes = after.get(usize::from(length).div_ceil(8)..)?;
        count += 1;
    }
    Some(count)
}

/// The prefixes of a part of a message. It ends at the first that is malformed; in a decoded message there is none.
#[derive(Clone, Copy, Debug)]
pub struct Prefixes<'a, P> {
    bytes: &'a [u8],
    kind: PhantomData<P>,
}

impl<'a, P: Nlri> Prefixes<'a, P> {
    /// The prefixes of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, kind: PhantomData }
    }
}

impl<P: Nlri> Iterator for Prefixes<'_, P> {
    type Item = P;

    #[inline]
    fn next(&mut self) -> Option<P> {
        let (&length, after) = self.bytes.split_first()?;
        if length > P::BITS {
            return None;
        }
        // The stride of a host route is spelled out: the next prefix is found without waiting for the length of this one.
        let size = if length == P::BITS { P::WIDTH - 1 } else { usize::from(length).div_ceil(8) };
        let (octets, rest) = after.split_at_checked(size)?;
        self.bytes = rest;
        P::read(length, octets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_bits_are_cleared_as_case_u09_asks() {
        let nets: Vec<Ipv4Net> = Prefixes::new(&[9, 0x0a, 0xff, 0]).collect();
        assert_eq!(nets, ["10.128.0.0/9".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]);
    }

    #[test]
    fn prefix_at_the_end_of_a_buffer_needs_only_its_own_bytes() {
        let net: Ipv4Net = "10.1.16.0/20".parse().unwrap();
        let mut room = [0; 4];
        assert_eq!(net.write(&mut room), Some(4));
        assert_eq!(room, [20, 10, 1, 16]);
        assert_eq!(net.write(&mut room[..3]), None);
    }

    fn slow_count(mut bytes: &[u8], bits: u8) -> Option<usize> {
        let mut count = 0;
        while let Some((&length, rest)) = bytes.split_first() {
            bytes = rest.get(usize::from(length).div_ceil(8)..).filter(|_| length <= bits)?;
            count += 1;
        }
        Some(count)
    }

    proptest! {
        #[test]
        fn count_agrees_with_a_plain_loop(
            runs in proptest::collection::vec((prop_oneof![Just(32_u8), Just(128), 0_u8..=130], 0_usize..20), 0..8),
            cut in 0_usize..4,
        ) {
            let mut bytes = Vec::new();
            for (length, times) in runs {
                for index in 0..times {
                    bytes.push(length);
                    bytes.extend((0..usize::from(length).div_ceil(8)).map(|at| (at + index) as u8));
                }
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert_eq!(count::<Ipv4Net>(&bytes), slow_count(&bytes, 32));
            prop_assert_eq!(count::<Ipv6Net>(&bytes), slow_count(&bytes, 128));
            if let Some(counted) = count::<Ipv6Net>(&bytes) {
                prop_assert_eq!(Prefixes::<Ipv6Net>::new(&bytes).count(), counted);
            }
        }

        #[test]
        fn prefixes_round_trip(address: u128, length in 0_u8..=128) {
            let net = Ipv6Net::new(address.into(), length).unwrap().trunc();
            let mut out = [0xee; 40];
            let size = net.write(&mut out).unwrap();
            prop_assert_eq!(Prefixes::<Ipv6Net>::new(&out[..size]).collect::<Vec<_>>(), vec![net]);
        }
    }
}
