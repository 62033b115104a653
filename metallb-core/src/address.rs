//! Address blocks of pools: parsing, covering prefixes, number of usable addresses.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::model::IpFamily;

/// One entry of `spec.addresses`, a CIDR or a range, as the ascending list of prefixes that cover it exactly.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressBlock {
    text: String,
    prefixes: Vec<IpNet>,
}

/// Error of parsing an entry of `spec.addresses`.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither `address/length` nor `first-last`.
    #[error("invalid CIDR \"{0}\": expected address/length or first-last")]
    Malformed(String),
    /// A range end that is not an address.
    #[error("invalid IP range \"{range}\": \"{end}\" is not an IP address")]
    BadEnd {
        /// The range as written.
        range: String,
        /// The end that is wrong.
        end: String,
    },
    /// The first address is higher than the last one.
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

    /// The covering prefixes in ascending order. All have the same family.
    #[must_use]
    pub fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// The shortest length of the covering prefixes.
    #[must_use]
    pub fn shortest_prefix(&self) -> u8 {
        self.prefixes.iter().map(IpNet::prefix_len).min().unwrap_or(0)
    }

    /// The first address, if a CIDR is written with another one.
    #[must_use]
    pub fn ignored_host_bits(&self) -> Option<IpAddr> {
        let written = parse_ip(self.text.split_once('/')?.0)?;
        let first = self.prefixes.first()?.network();
        (written != first).then_some(first)
    }

    /// The kind of its addresses that no client can use as the address of a Service, if it contains any.
    #[must_use]
    pub fn unusual(&self) -> Option<&'static str> {
        let overlaps = |special: &str| {
            let special: Option<IpNet> = special.parse().ok();
            special
                .is_some_and(|special| self.prefixes.iter().any(|own| own.contains(&special) || special.contains(own)))
        };
        UNUSUAL.iter().find(|(special, _)| overlaps(special)).map(|(_, what)| *what)
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(&self) -> IpFamily {
        self.prefixes.first().map_or(IpFamily::V4, |prefix| IpFamily::of(prefix.addr()))
    }
}

impl FromStr for AddressBlock {
    type Err = AddressError;

    /// Parses a CIDR like Go's `net.ParseCIDR`, or a range (`docs/upstream-behaviour.md#configuration-addresses`). Host
    /// bits are masked. Blanks around the ends of a range are ignored; a CIDR must not contain blanks. IPv4-mapped
    /// addresses become IPv4.
    ///
    /// # Errors
    /// See [`AddressError`].
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

/// Parses an address like Go's `net.ParseIP`: an IPv4-mapped IPv6 address becomes IPv4, a zone identifier is an error.
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(canonical)
}

/// Converts an IPv4-mapped IPv6 address to IPv4; returns other addresses unchanged.
#[must_use]
pub fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Whether this is an IPv4 address that ends in `.0` or `.255`, which some old routers and clients reject.
#[must_use]
pub fn is_buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
}

/// Number of addresses of a prefix. `i64::MAX` stands for 2^62 and more
/// (`docs/upstream-behaviour.md#allocation-counters`).
#[must_use]
pub fn capacity(prefix: &IpNet) -> i64 {
    match prefix.max_prefix_len() - prefix.prefix_len() {
        host_bits @ 0..62 => 1 << host_bits,
        _ => i64::MAX,
    }
}

/// Number of addresses of a prefix for which [`is_buggy`] is true; at most [`capacity`].
#[must_use]
pub fn buggy_count(prefix: &IpNet) -> i64 {
    let IpNet::V4(net) = prefix else { return 0 };
    match net.prefix_len() {
        length @ 0..=24 => 2 << (24 - length),
        // Inside one /24 only the first and the last address can end in .0 or .255.
        _ => BTreeSet::from([net.network(), net.broadcast()])
            .into_iter()
            .filter(|&end| is_buggy(end.into()))
            .map(|_| 1)
            .sum(),
    }
}

/// Like Go's `net.ParseCIDR`: no trimming, leading zeros of the length are allowed, host bits are masked.
fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    // `u8::from_str` would accept a sign.
    let length: u8 = length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse().ok())??;
    match address.parse().ok()? {
        IpAddr::V4(v4) => Some(IpNet::V4(Ipv4Net::new(v4, length).ok()?.trunc())),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) if length >= 96 => Some(IpNet::V4(Ipv4Net::new(v4, length - 96).ok()?.trunc())),
            _ => Some(IpNet::V6(Ipv6Net::new(v6, length).ok()?.trunc())),
        },
    }
}

/// The shortest list of prefixes that covers `first..=last` exactly.
fn cover_v4(first: Ipv4Addr, last: Ipv4Addr) -> Vec<IpNet> {
    ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
}

/// The shortest list of prefixes that covers `first..=last` exactly.
fn cover_v6(first: Ipv6Addr, last: Ipv6Addr) -> Vec<IpNet> {
    ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
}

/// Prefixes of special use (RFC 6890).
const UNUSUAL: [(&str, &str); 10] = [
    ("0.0.0.0/8", "unspecified"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(text: &str) -> Vec<String> {
        text.parse::<AddressBlock>().unwrap().prefixes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn range_with_reversed_or_mixed_ends_is_an_error() {
        let error = |text: &str| text.parse::<AddressBlock>().unwrap_err();
        assert!(matches!(error("1.2.3.9-1.2.3.4"), AddressError::Reversed { .. }));
        assert!(matches!(error("fc00::9-fc00::4"), AddressError::Reversed { .. }));
        assert!(matches!(error("1.2.3.4-fc00::4"), AddressError::MixedFamilies(_)));
    }

    #[test]
    fn address_block_parses_like_go() {
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
    fn address_block_rejects_text_that_go_rejects() {
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
