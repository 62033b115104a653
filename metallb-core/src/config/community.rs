//! BGP communities as text (`docs/upstream-behaviour.md#configuration-communities`).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// A community of RFC 1997 (`A:B`) or RFC 8092 (`large:X:Y:Z`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Community {
    /// RFC 1997: two 16-bit numbers.
    Standard(u32),
    /// RFC 8092: three 32-bit numbers.
    Large(u32, u32, u32),
}

/// Error of parsing a community.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CommunityError {
    /// The text has neither two nor four parts.
    #[error("invalid community format: {0}")]
    Format(String),
    /// A part is not a number of the right size.
    #[error("invalid community value: invalid section \"{section}\" of community \"{community}\"")]
    Section {
        /// The community as written.
        community: String,
        /// The part that is wrong.
        section: String,
    },
    /// The text has four parts, and the first one is not `large`.
    #[error(
        "invalid community value: invalid marker for large community, expected community to be of format \
         large:<uint32>:<uint32>:<uint32> but got \"{0}\""
    )]
    Marker(String),
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let parts: Vec<&str> = text.split(':').collect();
        let section = |part: &str| CommunityError::Section { community: text.to_owned(), section: part.to_owned() };
        match parts[..] {
            [high, low] => {
                let half =
                    |part: &str| number(part).and_then(|value| u16::try_from(value).ok()).ok_or_else(|| section(part));
                Ok(Self::Standard(u32::from(half(high)?) << 16 | u32::from(half(low)?)))
            }
            ["large", x, y, z] => {
                let third = |part: &str| number(part).ok_or_else(|| section(part));
                Ok(Self::Large(third(x)?, third(y)?, third(z)?))
            }
            [_, _, _, _] => Err(CommunityError::Marker(text.to_owned())),
            _ => Err(CommunityError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for Community {
    /// `A:B` or `X:Y:Z`, without the word `large`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(value) => write!(f, "{}:{}", value >> 16, value & 0xffff),
            Self::Large(x, y, z) => write!(f, "{x}:{y}:{z}"),
        }
    }
}

impl Serialize for Community {
    /// The same text as `Display`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses decimal digits; `u32::from_str` would accept a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn community_text_is_parsed_or_rejected_with_the_wrong_part() {
        assert_eq!("12345:12345".parse(), Ok(Community::Standard(12345 << 16 | 12345)));
        assert!(matches!("12345".parse::<Community>(), Err(CommunityError::Format(_))));
        assert!(matches!("12345:12345:12345".parse::<Community>(), Err(CommunityError::Format(_))));
        assert_eq!("large:12345:12345:12345".parse(), Ok(Community::Large(12345, 12345, 12345)));
        assert!(matches!("larg:1:2:3".parse::<Community>(), Err(CommunityError::Marker(_))));
        assert!(matches!("large:12345:wrong:12345".parse::<Community>(), Err(CommunityError::Section { .. })));
        assert_eq!("large:1:2:3".parse::<Community>().unwrap().to_string(), "1:2:3");
        for text in [
            "1:",
            ":1",
            "65536:1",
            "1:65536",
            "+1:2",
            " 1:2",
            "1: 2",
            "99999999:1",
            "11111:11aaaa",
            "large:1:2:4294967296",
        ] {
            assert!(text.parse::<Community>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn communities_are_ordered_by_their_numbers() {
        for (less, more) in [
            ("0:1234", "0:2345"),
            ("large:1234:0:0", "large:1234:0:1"),
            ("large:123:456:789", "large:1234:0:0"),
            ("65535:65535", "large:0:0:0"),
        ] {
            let parsed = |text: &str| text.parse::<Community>().unwrap();
            assert!(parsed(less) < parsed(more), "{less} {more}");
        }
    }
}
