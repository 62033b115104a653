//! The Internet checksum (RFC 1071) of an ICMPv6 message.

use std::net::Ipv6Addr;

/// The checksum with the pseudo-header of RFC 8200 §8.1; 0 over a message with a correct checksum.
#[must_use]
pub(super) fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(body);
    sum += body.len() as u64 + u64::from(NEXT_HEADER);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    // The loop leaves at most 16 bits.
    !(sum as u16)
}

/// The sum of 32-bit words, which folds to the sum of the 16-bit words. A packet is too short to overflow 64 bits.
fn words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

const NEXT_HEADER: u8 = 58;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn checksum_agrees_with_the_packet_library(
            source: u128,
            destination: u128,
            body in proptest::collection::vec(any::<u8>(), 4..200),
        ) {
            let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
            let mut zeroed = body;
            zeroed[2..4].fill(0);
            let packet = pnet_packet::icmpv6::Icmpv6Packet::new(&zeroed).unwrap();
            let expected = pnet_packet::icmpv6::checksum(&packet, &source, &destination);
            let sum = icmpv6(source, destination, &zeroed);
            // The library uses the other representation of zero in one's complement.
            prop_assert!(sum == expected || (sum, expected) == (0, 0xffff) || (sum, expected) == (0xffff, 0));
            zeroed[2..4].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(matches!(icmpv6(source, destination, &zeroed), 0 | 0xffff));
        }
    }
}
