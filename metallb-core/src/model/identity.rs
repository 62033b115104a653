//! Names: one type per identity, so that a pool's name can't stand where a peer's is meant.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use thiserror::Error;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

names! {
    /// `metadata.uid`: tells an object from a later one of the same name.
    Uid
    /// `metadata.resourceVersion`, as the API server wrote it. Equal texts are the same state of an object.
    ObjectVersion
    /// Name of a Node object; also the name under which its speaker takes part in an election.
    NodeName
    /// Name of a Namespace.
    NamespaceName
    /// Name of an `IPAddressPool`.
    PoolName
    /// Name of a `BGPPeer` (`metadata.name`).
    PeerName
    /// Name of a `BFDProfile`.
    BfdProfileName
    /// Name of a network interface.
    InterfaceName
}

/// `namespace/name` of a Service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: NamespaceName,
    /// The name inside the namespace.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// A key from its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ServiceKey {
    /// Writes `namespace` and `name` as two fields, for a structure that flattens its key.
    pub(crate) fn serialize_parts<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ServiceKey", 2)?;
        fields.serialize_field("namespace", &self.namespace)?;
        fields.serialize_field("name", &*self.name)?;
        fields.end()
    }
}

impl Serialize for ServiceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The object that a problem, an Event or a reason is about.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectRef {
    /// The kind as in YAML.
    pub kind: &'static str,
    /// The namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<Arc<str>>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// A reference to a namespaced object.
    #[must_use]
    pub fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: Some(namespace.into()), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An instant as Kubernetes writes it: seconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From seconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub const fn unix(self) -> i64 {
        self.0
    }
}

/// Text that is not an RFC 3339 instant in UTC.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not an instant like 2024-08-20T11:03:18Z")]
pub struct TimestampError(pub String);

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads `YYYY-MM-DDTHH:MM:SS[.fraction]Z`, the only form that Kubernetes writes; the fraction is dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields = |text: &str, separator: char| -> Option<[i64; 3]> {
            let mut parts = text
                .split(separator)
                .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten());
            let fields = [parts.next()??, parts.next()??, parts.next()??];
            parts.next().is_none().then_some(fields)
        };
        let parse = || {
            let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
            let [year, month, day] = fields(date, '-')?;
            let whole = time.split_once('.').map_or(time, |(whole, _)| whole);
            let [hour, minute, second] = fields(whole, ':')?;
            let valid = (1..=12).contains(&month)
                && (1..=31).contains(&day)
                && (0..24).contains(&hour)
                && (0..60).contains(&minute)
                && (0..=60).contains(&second)
                && (0..=9999).contains(&year);
            valid.then(|| Self(days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second))
        };
        parse().ok_or_else(|| TimestampError(text.to_owned()))
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar: years begin in March, so that the leap day is last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_counts_seconds_since_the_epoch() {
        let rows = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2024-08-20T11:03:18.123456Z", 1_724_151_798),
            ("1969-12-31T23:59:59Z", -1),
            // A leap second is the second after.
            ("2016-12-31T23:59:60Z", 1_483_228_800),
            ("0000-03-01T00:00:00Z", -62_162_035_200),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
            ("1600-02-29T00:00:00Z", -11_670_998_400),
            ("1600-03-01T00:00:00Z", -11_670_912_000),
            ("1899-12-31T23:59:59Z", -2_208_988_801),
            ("1900-02-28T00:00:00Z", -2_203_977_600),
            ("1900-03-01T00:00:00Z", -2_203_891_200),
            ("2001-01-31T00:00:00Z", 980_899_200),
            ("2001-02-28T23:00:00Z", 983_401_200),
            ("2001-03-31T00:59:00Z", 986_000_340),
            ("2001-04-30T00:00:59Z", 988_588_859),
            ("2001-05-31T00:00:00Z", 991_267_200),
            ("2001-06-30T00:00:00Z", 993_859_200),
            ("2001-07-31T00:00:00Z", 996_537_600),
            ("2001-08-31T00:00:00Z", 999_216_000),
            ("2001-09-30T00:00:00Z", 1_001_808_000),
            ("2001-10-31T00:00:00Z", 1_004_486_400),
            ("2001-11-30T00:00:00Z", 1_007_078_400),
            ("2001-12-31T00:00:00Z", 1_009_756_800),
            ("2004-02-29T00:00:00Z", 1_078_012_800),
            ("2004-12-31T00:00:00Z", 1_104_451_200),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("2399-12-31T00:00:00Z", 13_569_379_200),
            ("2400-02-29T00:00:00Z", 13_574_563_200),
            ("2400-12-31T00:00:00Z", 13_601_001_600),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ];
        for (text, seconds) in rows {
            assert_eq!(text.parse().map(Timestamp::unix), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn timestamp_refuses_what_is_no_instant_in_utc() {
        for text in [
            "",
            "2024-08-20",
            "2024-08-20T11:03:18",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "2024-01-32T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:61Z",
            "10000-01-01T00:00:00Z",
            "2024-01-01T00:00:00:00Z",
            "2024-01-01T00:00Z",
            "2024--01T00:00:00Z",
            "2024-01-01-01T00:00:00Z",
            "+024-01-01T00:00:00Z",
            "2024-01-01T00:00:00+02:00",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
    }
}
