//! Which of two answers of the API server about an object is the newer one. Pure.
//!
//! Watches, lists and the answers to our own writes reach a process in any order, and may come from API servers that lag
//! behind each other. [`Versions`] admits an answer only when it is newer than everything known of the object, so that a
//! picture made of admitted answers never goes back in time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use kube::Resource;

use crate::source::changes::{Change, Listed, Round, raise};
pub use crate::source::changes::{Identity, Metadata, ObjectName, Uid, Version};

/// One change of the picture of a kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step<K> {
    /// An object that is new, or newer than the one in the picture.
    Put(ObjectName, K),
    /// The object in the picture is gone.
    Remove(ObjectName),
}

/// The newest version known of each object of a kind, and the objects known to be deleted.
#[derive(Debug, Default)]
pub struct Versions {
    /// `None`: the object is in the picture, and its version was forgotten.
    known: BTreeMap<ObjectName, Option<Identity>>,
    deleted: Deleted,
    /// The version of the newest list: an object that is not known and not newer than it was deleted.
    floor: Option<Version>,
    /// The round in which versions were last forgotten.
    forgotten: Round,
    /// Versions were forgotten and no list followed yet.
    awaits_list: bool,
}

/// Objects known to be deleted, the latest [`Deleted::LIMIT`] of them.
#[derive(Debug, Default)]
struct Deleted {
    uids: HashSet<Uid>,
    /// The last one of each name, and a version at which it was alive or just deleted: a namesake is newer.
    last: BTreeMap<ObjectName, Identity>,
    /// In the order of their deletions.
    order: VecDeque<(Uid, ObjectName)>,
}

impl Versions {
    /// Uid and version of the newest object admitted under this name; `None` where there is none, or its version was
    /// forgotten.
    #[must_use]
    pub fn identity(&self, name: &ObjectName) -> Option<&Identity> {
        self.known.get(name)?.as_ref()
    }

    /// The steps by which the picture follows a change. What is older than the picture makes no step.
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

    /// Takes in the answer to a request of our own that began in round `asked`.
    pub fn answered<K: Resource<DynamicType = ()>>(&mut self, object: K, asked: Round) -> Option<Step<K>> {
        if asked < self.forgotten { None } else { self.put(object) }
    }

    /// Takes in that a request of our own, begun in round `asked`, did not find this object. True when the picture loses it.
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

    /// Forgets all versions and deletions: the history that they belong to was replaced by an older one. The names stay, for
    /// the next list to say which of them are gone; until a list of `round` nothing else is admitted.
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
        // A list that is as new as everything seen so far says itself which objects there are.
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
        // An object that cannot be decoded keeps its last good form, unless that belongs to a namesake before it.
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

    /// Whether the object is newer than what is known under its name; if so, it is known from now on.
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

    /// Takes in a deletion. True when the known object of this name is gone by it.
    fn delete(&mut self, name: &ObjectName, deleted: &Identity) -> bool {
        if self.awaits_list {
            return false;
        }
        let is_gone = match self.known.get(name) {
            None => false,
            // A namesake that is known stays when it was created after this deletion.
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

    /// Deleted objects that are remembered. The oldest one is dropped when there are more: an answer that is older than all of
    /// the later deletions could bring it back, until the next list. Requests end within seconds, so that there is none.
    const LIMIT: usize = 4096;
}

#[cfg(test)]
mod tests;
