//! Names and versions of objects, and the changes of a kind that the API server reports. Pure.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use metallb_core::model::ServiceKey;

/// One change of one kind.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// All objects of the kind, from a list.
    Reset(Listed<K>),
    /// An object that appeared or changed.
    Apply(K),
    /// An object that appeared or changed and cannot be decoded.
    Broken(Undecodable),
    /// An object that was deleted; the version is that of the deletion.
    Delete(Metadata),
}

/// An object that cannot be decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Undecodable {
    /// Its metadata, which can.
    pub metadata: Metadata,
    /// The error.
    pub error: String,
}

/// A list of all objects of a kind, read from etcd and not from a cache.
#[derive(Clone, Debug)]
pub struct Listed<K> {
    /// The objects that can be decoded.
    pub objects: Vec<K>,
    /// The objects that cannot be decoded: they keep their last good form.
    pub undecodable: Vec<Undecodable>,
    /// The version of the list.
    pub version: Version,
    /// The round that was demanded before the list began.
    pub round: Round,
}

/// Counts the full lists on demand.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Round(u64);

/// `metadata.uid`: distinguishes an object from others of the same name before and after it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid(Arc<str>);

/// `metadata.resourceVersion` of an object, of a list or of a bookmark.
///
/// Versions of one resource compare as numbers (guaranteed from Kubernetes 1.35 on, KEP-5504, and true before). A
/// version that is not a number equals itself and compares with no other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version(Form);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Form {
    Number(u64),
    Opaque(Arc<str>),
}

/// The preconditions of a write: it changes only the object and version of its decision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The object.
    pub uid: Uid,
    /// Its version.
    pub version: Version,
}

/// Namespace and name of an object of any kind; the namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// The part of `metadata` that identifies objects and their versions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Metadata {
    /// Namespace and name.
    pub name: ObjectName,
    /// Uid and version.
    pub identity: Identity,
}

impl Version {
    /// Whether this version is newer, or different and not comparable.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        !matches!(self.partial_cmp(other), Some(Ordering::Less | Ordering::Equal))
    }

    /// Whether this version is certainly older.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Less)
    }
}

impl Metadata {
    /// The metadata of an object; absent fields are empty.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        fn text(field: Option<&String>) -> &str {
            field.map_or("", String::as_str)
        }
        let name = ObjectName {
            namespace: text(metadata.namespace.as_ref()).into(),
            name: text(metadata.name.as_ref()).into(),
        };
        let version = text(metadata.resource_version.as_ref()).into();
        Self { name, identity: Identity { uid: text(metadata.uid.as_ref()).into(), version } }
    }
}

impl Uid {
    /// The uid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        // A number in another notation would not be printed as the server wrote it.
        let number = text.parse().ok().filter(|number: &u64| number.to_string() == text);
        Self(number.map_or_else(|| Form::Opaque(text.into()), Form::Number))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Number(number) => write!(f, "{number}"),
            Form::Opaque(text) => f.write_str(text),
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (&self.0, &other.0) {
            (Form::Number(this), Form::Number(that)) => Some(this.cmp(that)),
            _ => (self == other).then_some(Ordering::Equal),
        }
    }
}

impl From<&ServiceKey> for ObjectName {
    fn from(key: &ServiceKey) -> Self {
        Self { namespace: key.namespace.as_str().into(), name: Arc::clone(&key.name) }
    }
}

impl From<&ObjectName> for ServiceKey {
    fn from(name: &ObjectName) -> Self {
        Self { namespace: (&*name.namespace).into(), name: Arc::clone(&name.name) }
    }
}

impl Round {
    /// The round after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Raises a bound to `version`, unless it is higher already.
pub(crate) fn raise(bound: &mut Option<Version>, version: &Version) {
    if bound.as_ref().is_none_or(|bound| version.is_newer_than(bound)) {
        *bound = Some(version.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_compares_as_a_number_or_with_itself_alone() {
        use Ordering::{Equal, Greater, Less};
        let rows = [
            ("9", "10", Some(Less)),
            ("10", "9", Some(Greater)),
            ("18446744073709551615", "18446744073709551614", Some(Greater)),
            ("7", "7", Some(Equal)),
            ("a7", "a7", Some(Equal)),
            ("a7", "a8", None),
            ("7", "a8", None),
            ("07", "8", None),
            ("+7", "8", None),
            ("18446744073709551616", "8", None),
            ("", "8", None),
            ("", "", Some(Equal)),
        ];
        for (this, that, order) in rows {
            let (left, right) = (Version::from(this), Version::from(that));
            assert_eq!(left.partial_cmp(&right), order, "{this} {that}");
            assert_eq!(left.is_older_than(&right), order == Some(Less), "{this} {that}");
            assert_eq!(left.is_newer_than(&right), matches!(order, None | Some(Greater)), "{this} {that}");
            assert_eq!(left.to_string(), this, "it is sent back as it came");
        }
    }
}
