//! Decides which of two answers of the API server about an object is newer. Pure.
//!
//! Watches, lists and answers to our own writes arrive in any order, and API servers lag behind each other.
//! [`Versions`] accepts an answer only if it is newer than everything known about the object, so that a picture built
//! from accepted answers never goes back in time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use kube::Resource;

use crate::source::changes::{Change, Listed, Round, Undecodable, raise};
pub use crate::source::changes::{Identity, Metadata, ObjectName, Uid, Version};

/// One change of the picture of a kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step<K> {
    /// A new object, or a newer version than that in the picture.
    Put(ObjectName, K),
    /// The newest version of the object cannot be decoded.
    Broken(ObjectName, Broken),
    /// The object in the picture no longer exists.
    Remove(ObjectName),
}

/// An object that cannot be decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// Its uid.
    pub uid: Uid,
    /// The error.
    pub error: String,
}

/// The newest known version of each object of a kind, and the objects known to be deleted.
#[derive(Debug, Default)]
pub struct Versions {
    /// `None`: the object is in the picture, and its version was forgotten.
    known: BTreeMap<ObjectName, Option<Identity>>,
    /// The objects whose newest version cannot be decoded. `known` may hold an earlier version.
    broken: BTreeMap<ObjectName, Identity>,
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
            Change::Broken(object) => self.breaks(object).into_iter().collect(),
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
        if self.is_older_than_broken(&name, &identity) {
            return None;
        }
        let is_admitted = !self.awaits_list && self.admit(&name, identity, floor.as_ref());
        if is_admitted {
            self.broken.remove(&name);
        }
        is_admitted.then_some(Step::Put(name, object))
    }

    fn is_older_than_broken(&self, name: &ObjectName, object: &Identity) -> bool {
        self.broken.get(name).is_some_and(|broken| !object.version.is_newer_than(&broken.version))
    }

    /// An object that cannot be decoded is noted, unless something newer is known.
    fn breaks<K>(&mut self, object: Undecodable) -> Option<Step<K>> {
        let Undecodable { metadata: Metadata { name, identity }, error } = object;
        let is_outdated = self.identity(&name).is_some_and(|known| !identity.version.is_newer_than(&known.version));
        if self.awaits_list || is_outdated || self.deleted.uids.contains(&identity.uid) {
            return None;
        }
        let uid = identity.uid.clone();
        let before = self.broken.insert(name.clone(), identity.clone());
        (before != Some(identity)).then_some(Step::Broken(name, Broken { uid, error }))
    }

    fn reset<K: Resource<DynamicType = ()>>(&mut self, listed: Listed<K>) -> Vec<Step<K>> {
        let Listed { objects, undecodable, version, round } = listed;
        if round < self.forgotten {
            return Vec::new();
        }
        let is_first = std::mem::replace(&mut self.awaits_list, false);
        // A list that is as new as everything known is complete.
        let floor = self.floor.clone().filter(|floor| version.is_older_than(floor));
        let mut present = BTreeSet::new();
        let mut steps = Vec::new();
        for object in objects {
            let Metadata { name, identity } = Metadata::of(object.meta());
            present.insert(name.clone());
            if self.is_older_than_broken(&name, &identity) && !is_first {
                continue;
            }
            if self.admit(&name, identity, floor.as_ref()) {
                self.broken.remove(&name);
                steps.push(Step::Put(name, object));
            }
        }
        let listed_broken: BTreeSet<ObjectName> =
            undecodable.iter().map(|broken| broken.metadata.name.clone()).collect();
        let is_repaired_or_gone = |name: &ObjectName, broken: &Identity| {
            !listed_broken.contains(name) && (is_first || !version.is_older_than(&broken.version))
        };
        let no_longer_broken = self.broken.extract_if(.., |name, broken| is_repaired_or_gone(name, broken));
        let no_longer_broken: Vec<_> = no_longer_broken.map(|(name, _)| name).collect();
        // An undecodable object keeps its last good form, unless that belongs to an earlier object of the same name.
        present.extend(undecodable.iter().map(|broken| &broken.metadata).filter_map(|now| {
            match self.known.get(&now.name) {
                Some(Some(known))
                    if known.uid != now.identity.uid && now.identity.version.is_newer_than(&known.version) =>
                {
                    None
                }
                _ => Some(now.name.clone()),
            }
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
        for name in no_longer_broken {
            // A removal that is repeated changes nothing.
            if !self.known.contains_key(&name) {
                steps.push(Step::Remove(name));
            }
        }
        steps.extend(undecodable.into_iter().filter_map(|broken| self.breaks(broken)));
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
        let broken = self.broken.get(name);
        let was_broken =
            broken.is_some_and(|known| known.uid == deleted.uid || deleted.version.is_newer_than(&known.version));
        if was_broken {
            self.broken.remove(name);
        }
        let is_gone = was_broken && !self.known.contains_key(name)
            || match self.known.get(name) {
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
        // Half an object, which has no uid, says nothing about others.
        if uid.as_str().is_empty() || !self.uids.insert(uid.clone()) {
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

#[cfg(test)]
mod tests;
