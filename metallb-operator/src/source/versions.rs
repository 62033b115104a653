//! Decides which of two answers of the API server about an object is newer. Pure.
//!
//! Watches, lists and answers to our own writes arrive in any order, and API servers lag behind each other.
//! [`Versions`] accepts an answer only if it is newer than everything known about the object, so that a picture built
//! from accepted answers never goes back in time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use metallb_core::model::ServiceKey;

use crate::source::watches::{Change, Listed, Round};

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

/// One change of the picture of a kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step<K> {
    /// A new object, or a newer version than that in the picture.
    Put(ObjectName, K),
    /// The object in the picture no longer exists.
    Remove(ObjectName),
}

/// The newest known version of each object of a kind, and the objects known to be deleted.
#[derive(Debug, Default)]
pub struct Versions {
    /// `None`: the object is in the picture, and its version was forgotten.
    known: BTreeMap<ObjectName, Option<Identity>>,
    deleted: Deleted,
    /// Version of the newest list: an unknown object that is not newer was deleted.
    floor: Option<Version>,
    /// The round in which versions were last forgotten.
    forgotten: Round,
    /// Versions were forgotten, and no list has followed yet.
    awaits_list: bool,
}

/// Objects known to be deleted, the latest [`Deleted::LIMIT`] of them.
#[derive(Debug, Default)]
struct Deleted {
    uids: HashSet<Uid>,
    /// The last one of each name, at a version at which it existed or was just deleted: a new object is newer.
    last: BTreeMap<ObjectName, Identity>,
    /// In order of their deletion.
    order: VecDeque<(Uid, ObjectName)>,
}

impl Versions {
    /// Uid and version of the newest accepted object of this name; `None` if there is none or its version was
    /// forgotten.
    #[must_use]
    pub fn identity(&self, name: &ObjectName) -> Option<&Identity> {
        self.known.get(name)?.as_ref()
    }

    /// The changes of the picture that follow from `change`. Outdated information yields no change.
    pub fn follow<K: Resource<DynamicType = ()>>(&mut self, change: Change<K>) -> Vec<Step<K>> {
        match change {
            Change::Apply(object) => self.put(object).into_iter().collect(),
            Change::Delete(Metadata { name, identity }) => {
                let is_gone = self.delete(&name, &identity);
                is_gone.then_some(Step::Remove(name)).into_iter().collect()
            }
            Change::Reset(listed) => self.reset(listed),
        }
    }

    /// Processes the answer to a request of our own that began in round `asked`.
    pub fn answered<K: Resource<DynamicType = ()>>(&mut self, object: K, asked: Round) -> Option<Step<K>> {
        if asked < self.forgotten { None } else { self.put(object) }
    }

    /// Processes a "not found" for a request of our own that began in round `asked`. True if the picture loses the
    /// object.
    pub fn missing(&mut self, name: &ObjectName, uid: &Uid, asked: Round) -> bool {
        if self.awaits_list || asked < self.forgotten {
            return false;
        }
        let known = self.identity(name).filter(|known| known.uid == *uid).cloned();
        let is_known = known.is_some();
        match known {
            Some(known) => {
                self.known.remove(name);
                self.deleted.push(name, known);
            }
            None => self.deleted.push_uid(name, uid),
        }
        is_known
    }

    /// Forgets all versions and deletions, because an older history replaced theirs. The names stay, so that the next
    /// list tells which of them no longer exist; until a list of `round`, nothing else is accepted.
    pub fn forget(&mut self, round: Round) {
        self.known.values_mut().for_each(|identity| *identity = None);
        self.deleted = Deleted::default();
        self.floor = None;
        self.forgotten = round;
        self.awaits_list = true;
    }

    fn put<K: Resource<DynamicType = ()>>(&mut self, object: K) -> Option<Step<K>> {
        let Metadata { name, identity } = Metadata::of(object.meta());
        let floor = self.floor.clone();
        let is_admitted = !self.awaits_list && self.admit(&name, identity, floor.as_ref());
        is_admitted.then_some(Step::Put(name, object))
    }

    fn reset<K: Resource<DynamicType = ()>>(&mut self, listed: Listed<K>) -> Vec<Step<K>> {
        let Listed { objects, undecodable, version, round } = listed;
        if round < self.forgotten {
            return Vec::new();
        }
        self.awaits_list = false;
        // A list that is as new as everything known is complete.
        let floor = self.floor.clone().filter(|floor| version.is_older_than(floor));
        let mut present = BTreeSet::new();
        let mut steps = Vec::new();
        for object in objects {
            let Metadata { name, identity } = Metadata::of(object.meta());
            present.insert(name.clone());
            if self.admit(&name, identity, floor.as_ref()) {
                steps.push(Step::Put(name, object));
            }
        }
        // An undecodable object keeps its last good form, unless that belongs to an earlier object of the same name.
        present.extend(undecodable.into_iter().filter_map(|now| match self.known.get(&now.name) {
            Some(Some(known))
                if known.uid != now.identity.uid && now.identity.version.is_newer_than(&known.version) =>
            {
                None
            }
            _ => Some(now.name),
        }));
        let is_gone = |name: &ObjectName, known: &Option<Identity>| {
            let is_unknown_to_list = known.as_ref().is_some_and(|known| version.is_older_than(&known.version));
            !present.contains(name) && !is_unknown_to_list
        };
        let gone: Vec<_> = self.known.extract_if(.., |name, known| is_gone(name, known)).collect();
        for (name, known) in gone {
            if let Some(known) = known {
                self.deleted.push(&name, Identity { uid: known.uid, version: version.clone() });
            }
            steps.push(Step::Remove(name));
        }
        raise(&mut self.floor, &version);
        steps
    }

    /// Whether the object is newer than the known one of its name; if so, it becomes the known one.
    fn admit(&mut self, name: &ObjectName, object: Identity, floor: Option<&Version>) -> bool {
        if self.deleted.uids.contains(&object.uid) {
            return false;
        }
        let newest = match self.known.get(name) {
            Some(known) => known.as_ref().map(|known| &known.version),
            None => floor,
        };
        let last = self.deleted.last.get(name).map(|last| &last.version);
        if newest.into_iter().chain(last).any(|before| !object.version.is_newer_than(before)) {
            return false;
        }
        if let Some(before) = self.identity(name)
            && before.uid != object.uid
        {
            // Its deletion was missed.
            let before = before.uid.clone();
            self.deleted.push_uid(name, &before);
        }
        self.known.insert(name.clone(), Some(object));
        true
    }

    /// Processes a deletion. True if it removes the known object of this name.
    fn delete(&mut self, name: &ObjectName, deleted: &Identity) -> bool {
        if self.awaits_list {
            return false;
        }
        let is_gone = match self.known.get(name) {
            None => false,
            // A known newer object of the same name stays: it was created after this deletion.
            Some(Some(known)) if known.uid != deleted.uid => {
                deleted.version.partial_cmp(&known.version) == Some(Ordering::Greater)
            }
            Some(_) => true,
        };
        if is_gone && let Some(known) = self.known.remove(name).flatten() {
            self.deleted.push(name, known);
        }
        self.deleted.push(name, deleted.clone());
        is_gone
    }
}

impl Deleted {
    fn push(&mut self, name: &ObjectName, deleted: Identity) {
        self.push_uid(name, &deleted.uid);
        match self.last.get(name) {
            Some(last) if !deleted.version.is_newer_than(&last.version) => {}
            _ => drop(self.last.insert(name.clone(), deleted)),
        }
    }

    fn push_uid(&mut self, name: &ObjectName, uid: &Uid) {
        // Incomplete metadata without a uid proves nothing about other objects.
        if uid.0.is_empty() || !self.uids.insert(uid.clone()) {
            return;
        }
        self.order.push_back((uid.clone(), name.clone()));
        if self.order.len() > Self::LIMIT
            && let Some((oldest, name)) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
            if self.last.get(&name).is_some_and(|last| last.uid == oldest) {
                self.last.remove(&name);
            }
        }
    }

    /// Number of remembered deletions. Above it, the oldest is dropped: an answer older than all later deletions could
    /// then restore the object until the next list. Requests end within seconds, so such an answer does not occur.
    const LIMIT: usize = 4096;
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

/// Raises a bound to `version`, unless it is higher already.
pub(crate) fn raise(bound: &mut Option<Version>, version: &Version) {
    if bound.as_ref().is_none_or(|bound| version.is_newer_than(bound)) {
        *bound = Some(version.clone());
    }
}

#[cfg(test)]
mod tests;
