//! Addresses of pools: what may be written, which prefixes it means, how many addresses that is.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::model::IpFamily;

/// One entry of `spec.addresses`: a CIDR or a range, as the prefixes that cover it exactly, ascending.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressBlock {
    text: String,
    prefixes: Vec<IpNet>,
}

/// Why an entry of `spec.addresses` is refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither `address/length` nor `first-last`.
    #[error("invalid CIDR \"{0}\": expected address/length or first-last")]
    Malformed(String),
    /// A range end that is no address.
    #[error("invalid IP range \"{range}\": \"{end}\" is not an IP address")]
    BadEnd {
        /// The range as written.
        range: String,
        /// The end that is wrong.
        end: String,
    },
    /// The range runs backwards.
    #[error("invalid IP range \"{range}\": start IP {first} is after the end IP {last}")]
    Reversed {
        /// The range as written.
        range: String,
        /// Its first address.
        first: IpAddr,
        /// Its last address.
        last: IpAddr,
    },
    /// One end is IPv4, the other IPv6.
    #[error("invalid IP range \"{0}\": both ends must be of one family")]
    MixedFamilies(String),
}

impl AddressBlock {
    /// The entry as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The prefixes that cover it, ascending, of one family.
    #[must_use]
    pub fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// The shortest prefix length among them.
    #[must_use]
    pub fn shortest_prefix(&self) -> u8 {
        self.prefixes.iter().map(IpNet::prefix_len).min().unwrap_or(0)
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(&self) -> IpFamily {
        self.prefixes.first().map_or(IpFamily::V4, |prefix| IpFamily::of(prefix.addr()))
    }
}

impl FromStr for AddressBlock {
    type Err = AddressError;

    /// Reads what Go's `net.ParseCIDR` reads, or a range (`docs/upstream-behaviour.md#configuration-addresses`): host
    /// bits are masked, ranges are
    /// trimmed and CIDRs are not, IPv4-mapped addresses are IPv4, a mixed range is refused.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let prefixes = match text.split_once('-') {
            Some((first, last)) => {
                let end = |end: &str| {
                    parse_ip(end.trim())
                        .ok_or_else(|| AddressError::BadEnd { range: text.to_owned(), end: end.trim().to_owned() })
                };
                let (first, last) = (end(first)?, end(last)?);
                let reversed = || AddressError::Reversed { range: text.to_owned(), first, last };
                match (first, last) {
                    (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => cover_v4(a, b),
                    (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => cover_v6(a, b),
                    (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => return Err(reversed()),
                    _ => return Err(AddressError::MixedFamilies(text.to_owned())),
                }
            }
            None => vec![parse_cidr(text).ok_or_else(|| AddressError::Malformed(text.to_owned()))?],
        };
        Ok(Self { text: text.to_owned(), prefixes })
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads an address as Go's `net.ParseIP` does; an IPv4-mapped IPv6 address is IPv4, zone identifiers are refused.
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(canonical)
}

/// The address that is meant: IPv4-mapped IPv6 becomes IPv4.
#[must_use]
pub fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// An IPv4 address that ends in `.0` or `.255`, which some old routers and clients refuse. IPv6 addresses are never buggy.
#[must_use]
pub fn is_buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
}

/// How many addresses a prefix has: at most `i64::MAX`, which also stands for 2^62 and more
/// (`docs/upstream-behaviour.md#allocation-counters`).
#[must_use]
pub fn capacity(prefix: &IpNet) -> i64 {
    match prefix.max_prefix_len() - prefix.prefix_len() {
        host_bits @ 0..62 => 1 << host_bits,
        _ => i64::MAX,
    }
}

/// How many addresses of a prefix are buggy, as [`is_buggy`] says: never more than [`capacity`].
#[must_use]
pub fn buggy_count(prefix: &IpNet) -> i64 {
    let IpNet::V4(net) = prefix else { return 0 };
    match net.prefix_len() {
        length @ 0..=24 => 2 << (24 - length),
        // A part of one /24: only its ends can be.
        _ => BTreeSet::from([net.network(), net.broadcast()])
            .into_iter()
            .filter(|&end| is_buggy(end.into()))
            .map(|_| 1)
            .sum(),
    }
}

/// `net.ParseCIDR`: no trimming, a length with leading zeros is fine, host bits are masked off.
fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    // `u8::from_str` would take a sign.
    let length: u8 = length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse().ok())??;
    match address.parse().ok()? {
        IpAddr::V4(v4) => Some(IpNet::V4(Ipv4Net::new(v4, length).ok()?.trunc())),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) if length >= 96 => Some(IpNet::V4(Ipv4Net::new(v4, length - 96).ok()?.trunc())),
            _ => Some(IpNet::V6(Ipv6Net::new(v6, length).ok()?.trunc())),
        },
    }
}

/// The fewest prefixes that cover `first..=last` exactly.
fn cover_v4(first: Ipv4Addr, last: Ipv4Addr) -> Vec<IpNet> {
    ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
}

/// The fewest prefixes that cover `first..=last` exactly.
fn cover_v6(first: Ipv6Addr, last: Ipv6Addr) -> Vec<IpNet> {
    ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(text: &str) -> Vec<String> {
        text.parse::<AddressBlock>().unwrap().prefixes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn range_says_whether_its_ends_are_reversed_or_of_two_families() {
        let error = |text: &str| text.parse::<AddressBlock>().unwrap_err();
        assert!(matches!(error("1.2.3.9-1.2.3.4"), AddressError::Reversed { .. }));
        assert!(matches!(error("fc00::9-fc00::4"), AddressError::Reversed { .. }));
        assert!(matches!(error("1.2.3.4-fc00::4"), AddressError::MixedFamilies(_)));
    }

    #[test]
    fn address_block_reads_what_go_reads() {
        let rows: [(&str, &[&str]); 16] = [
            ("1.2.3.0/24", &["1.2.3.0/24"]),
            ("1.2.3.77/24", &["1.2.3.0/24"]),
            ("1.2.3.0/024", &["1.2.3.0/24"]),
            ("1.2.3.0/000000024", &["1.2.3.0/24"]),
            ("1.2.3.0/000024", &["1.2.3.0/24"]),
            ("fc00:f853:0ccd:e799::/124", &["fc00:f853:ccd:e799::/124"]),
            ("0.0.0.0/0", &["0.0.0.0/0"]),
            ("::/0", &["::/0"]),
            (
                "40.0.0.150-40.0.0.200",
                &["40.0.0.150/31", "40.0.0.152/29", "40.0.0.160/27", "40.0.0.192/29", "40.0.0.200/32"],
            ),
            (" 1.2.3.4 - 1.2.3.4 ", &["1.2.3.4/32"]),
            ("0.0.0.0-255.255.255.255", &["0.0.0.0/0"]),
            ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["::/0"]),
            ("::1-::3", &["::1/128", "::2/127"]),
            ("::ffff:1.2.3.0/120", &["1.2.3.0/24"]),
            ("::ffff:1.2.3.4-1.2.3.5", &["1.2.3.4/31"]),
            ("255.255.255.254-255.255.255.255", &["255.255.255.254/31"]),
        ];
        for (text, expected) in rows {
            assert_eq!(prefixes(text), expected, "{text}");
        }
    }

    #[test]
    fn address_block_refuses_what_go_refuses() {
        for text in [
            "",
            "1.2.3.4",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "01.2.3.4/32",
            "1.2.3.0/33",
            "fe80::1%eth0/64",
            "::/129",
            "1.2.3.4-5",
            "x-",
            "-x",
            "1.2.3.4-1.2.3.5-1.2.3.6",
            "1.2.3.0/24-1.2.4.0/24",
            "1.2.3.4–1.2.3.9",
            "1.2.3.9-1.2.3.4",
            "1.2.3.4-fc00::1",
            "::1-1.2.3.4",
            "fc00::1-1.2.3.4",
            "1.2.3.0/+24",
            "1.2.3.0/",
        ] {
            assert!(text.parse::<AddressBlock>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn capacity_never_goes_negative_or_overflows() {
        let rows = [
            ("1.2.3.0/24", false, 256),
            ("1.2.3.0/24", true, 254),
            ("1.2.3.128/25", true, 127),
            ("1.2.3.0/32", true, 0),
            ("1.2.3.255/32", true, 0),
            ("1.2.0.0/16", true, 65_536 - 512),
            ("1000::/64", true, i64::MAX),
            ("1000::/66", false, i64::MAX),
            ("1000::/67", false, 1 << 61),
            ("1000::/127", true, 2),
        ];
        for (prefix, avoid, expected) in rows {
            let prefix = prefix.parse().unwrap();
            let avoided = if avoid { buggy_count(&prefix) } else { 0 };
            assert_eq!(capacity(&prefix) - avoided, expected, "{prefix}");
        }
    }
}
