//! Prefixes on the wire (RFC 4271 §4.3): a length in bits, then as many octets as the length needs.

use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// A prefix type: IPv4 or IPv6.
pub trait Nlri: Copy + Ord {
    /// Length of an address in bits.
    const BITS: u8;

    /// Length of a host route in octets, the maximum for a prefix: the length octet and the address.
    const WIDTH: usize = 1 + Self::BITS as usize / 8;

    /// A prefix from its first octets. Bits after `length`, which is at most [`BITS`](Self::BITS), are cleared.
    fn read(length: u8, octets: &[u8]) -> Option<Self>;

    /// Splits off a host route. `None` if `bytes` does not start with one.
    fn split_host(bytes: &[u8]) -> Option<(Self, &[u8])>;

    /// Writes the prefix to the start of `out` and returns its length in octets, or `None` if it does not fit. Bytes
    /// after it may be overwritten.
    fn write(self, out: &mut [u8]) -> Option<usize>;
}

impl Nlri for Ipv4Net {
    const BITS: u8 = 32;

    fn read(length: u8, octets: &[u8]) -> Option<Self> {
        let mut address = [0; 4];
        address.get_mut(..octets.len())?.copy_from_slice(octets);
        Self::new(address.into(), length).ok().map(|net| net.trunc())
    }

    #[inline]
    fn split_host(bytes: &[u8]) -> Option<(Self, &[u8])> {
        match bytes.split_first_chunk()? {
            (&[32, a, b, c, d], rest) => Some((Self::from(Ipv4Addr::new(a, b, c, d)), rest)),
            _ => None,
        }
    }

    #[inline]
    fn write(self, out: &mut [u8]) -> Option<usize> {
        write(&wide_v4(self), out)
    }
}

impl Nlri for Ipv6Net {
    const BITS: u8 = 128;

    fn read(length: u8, octets: &[u8]) -> Option<Self> {
        let mut address = [0; 16];
        address.get_mut(..octets.len())?.copy_from_slice(octets);
        Self::new(address.into(), length).ok().map(|net| net.trunc())
    }

    #[inline]
    fn split_host(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[length, ref octets @ ..], rest) = bytes.split_first_chunk::<17>()?;
        (length == 128).then(|| (Self::from(Ipv6Addr::from(*octets)), rest))
    }

    #[inline]
    fn write(self, out: &mut [u8]) -> Option<usize> {
        write(&wide_v6(self), out)
    }
}

/// A prefix in its wide form: the length octet, then all octets of the address. For a host route this is the wire form;
/// for other prefixes the wire form is its start.
pub type Wide<const N: usize> = [u8; N];

/// The wide form of an IPv4 prefix.
#[must_use]
#[inline]
pub const fn wide_v4(net: Ipv4Net) -> Wide<5> {
    let [a, b, c, d] = net.addr().octets();
    [net.prefix_len(), a, b, c, d]
}

/// The wide form of an IPv6 prefix.
#[must_use]
#[inline]
pub fn wide_v6(net: Ipv6Net) -> Wide<17> {
    let mut wide = [0; 17];
    wide[0] = net.prefix_len();
    wide[1..].copy_from_slice(&net.addr().octets());
    wide
}

/// Writes the whole wide form if there is room, which avoids a copy of variable length; at the end of the buffer only
/// the wire form.
#[inline]
pub(super) fn write<const N: usize>(wide: &Wide<N>, out: &mut [u8]) -> Option<usize> {
    let size = 1 + usize::from(wide[0]).div_ceil(8);
    match out.first_chunk_mut::<N>() {
        Some(room) => *room = *wide,
        None => out.get_mut(..size)?.copy_from_slice(wide.get(..size)?),
    }
    Some(size)
}

/// Counts the prefixes. `None` if one is too long or truncated.
///
/// Load balancers announce host routes. Their stride is constant, so eight are checked at once, without the dependency
/// of each offset on the length before it.
#[must_use]
#[inline]
pub fn count<P: Nlri>(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let Some((&length, after)) = bytes.split_first() {
        if length == P::BITS {
            while let Some((_, rest)) = eight_hosts::<P>(bytes) {
                count += 8;
                bytes = rest;
            }
            while let Some((_, rest)) = P::split_host(bytes) {
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

/// Splits off eight host routes, if `bytes` starts with eight.
#[inline]
fn eight_hosts<P: Nlri>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (eight, rest) = bytes.split_at_checked(8 * P::WIDTH)?;
    let others = (0..8).fold(0, |others, index| others | (eight[index * P::WIDTH] ^ P::BITS));
    (others == 0).then_some((eight, rest))
}

/// Iterates over the prefixes of a part of a message. It ends at the first malformed prefix; a decoded message has
/// none.
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
        // A host route has a constant stride: the offset of the next prefix does not depend on the length read here.
        if let Some((host, rest)) = P::split_host(self.bytes) {
            self.bytes = rest;
            return Some(host);
        }
        let (&length, after) = self.bytes.split_first()?;
        if length > P::BITS {
            return None;
        }
        let (octets, rest) = after.split_at_checked(usize::from(length).div_ceil(8))?;
        self.bytes = rest;
        P::read(length, octets)
    }

    /// Several times faster than repeated calls of [`next`](Self::next): runs of host routes are processed eight at a
    /// time.
    #[inline]
    fn fold<B, F: FnMut(B, P) -> B>(mut self, init: B, mut each: F) -> B {
        let mut folded = init;
        loop {
            while let Some((mut eight, rest)) = eight_hosts::<P>(self.bytes) {
                while let Some((host, others)) = P::split_host(eight) {
                    folded = each(folded, host);
                    eight = others;
                }
                self.bytes = rest;
            }
            match self.next() {
                Some(prefix) => folded = each(folded, prefix),
                None => return folded,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_bits_of_a_received_prefix_are_cleared() {
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
        fn count_equals_that_of_a_plain_loop(
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
            let (mut one_by_one, mut folded) = (Vec::new(), Vec::new());
            for net in Prefixes::<Ipv4Net>::new(&bytes) {
                one_by_one.push(net);
            }
            Prefixes::<Ipv4Net>::new(&bytes).for_each(|net| folded.push(net));
            prop_assert_eq!(one_by_one, folded);
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
