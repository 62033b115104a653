//! Applies the changes of a kind to the facts.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use metallb_core::config::spec::{Spec, Unreadable};
use metallb_core::model::ObjectRef;

use crate::api;
use crate::source::versions::Step;

/// Applies changes to facts by name. True if a fact changed.
pub(super) fn keyed<K, V: PartialEq, N>(
    facts: &mut BTreeMap<N, V>,
    steps: Vec<Step<K>>,
    translate: impl Fn(&K) -> V,
) -> bool
where
    N: Ord + for<'a> From<&'a str> + Borrow<str>,
{
    let mut changed = false;
    for step in steps {
        match step {
            Step::Put(name, object) => {
                let fact = translate(&object);
                if facts.get(&*name.name) != Some(&fact) {
                    facts.insert((&*name.name).into(), fact);
                    changed = true;
                }
            }
            // The last form that was decoded stays.
            Step::Broken(..) => {}
            Step::Remove(name) => changed |= facts.remove(&*name.name).is_some(),
        }
    }
    changed
}

/// Applies changes to configuration objects, which are sorted by name. An object that cannot be decoded moves to
/// `unreadable`. True if a specification changed; the status and unknown fields do not count.
pub(super) fn listed<K, S: Spec>(
    list: &mut Vec<S>,
    unreadable: &mut BTreeMap<ObjectRef, Unreadable>,
    steps: Vec<Step<K>>,
    translate: impl Fn(&K) -> S,
) -> bool {
    let mut changed = false;
    for step in steps {
        let (name, new) = match step {
            Step::Put(name, object) => (name, Some(translate(&object))),
            Step::Broken(name, broken) => {
                let object = ObjectRef::new(S::KIND, &name.namespace, &name.name);
                let now = Unreadable { uid: Some(broken.uid.as_str().into()), error: Some(broken.error) };
                changed |= unreadable.insert(object, now.clone()).as_ref() != Some(&now);
                (name, None)
            }
            Step::Remove(name) => {
                changed |= unreadable.remove(&ObjectRef::new(S::KIND, &name.namespace, &name.name)).is_some();
                (name, None)
            }
        };
        if let Some(new) = &new {
            changed |= unreadable.remove(&new.reference()).is_some();
        }
        let place = list.binary_search_by(|old| old.meta().name.as_str().cmp(&name.name));
        match (place, new) {
            (Ok(at), Some(new)) if list[at] == new => {}
            (Ok(at), Some(new)) => {
                list[at] = new;
                changed = true;
            }
            (Err(at), Some(new)) => {
                list.insert(at, new);
                changed = true;
            }
            (Ok(at), None) => {
                list.remove(at);
                changed = true;
            }
            (Err(_), None) => {}
        }
    }
    changed
}

/// Applies changes to the conflicts that speakers report. True if one changed.
pub(super) fn conflicts(
    by_object: &mut BTreeMap<String, Vec<api::AddressConflict>>,
    steps: Vec<Step<api::ServiceL2Status>>,
) -> bool {
    let mut changed = false;
    for step in steps {
        let (name, now) = match step {
            Step::Put(name, object) => (name, object.status.and_then(|status| status.conflicts).unwrap_or_default()),
            Step::Broken(..) => continue,
            Step::Remove(name) => (name, Vec::new()),
        };
        let before = by_object.get(&*name.name).map_or(&[][..], Vec::as_slice);
        if before != now.as_slice() {
            changed = true;
            if now.is_empty() {
                by_object.remove(&*name.name);
            } else {
                by_object.insert(name.name.to_string(), now);
            }
        }
    }
    changed
}
