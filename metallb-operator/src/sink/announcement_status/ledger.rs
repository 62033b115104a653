//! Compares the status objects of this node with the desired ones and says what to write next. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metallb_core::model::ServiceKey;

use crate::sink::pauses::Pauses;
use crate::sink::service_status::Failure;
use crate::source::changes::Identity;

/// The known objects of one kind, and the Services whose object may differ from the desired one.
///
/// At most one request per Service runs at a time, and its end brings the Service back to a comparison with the desired
/// state of that moment.
#[derive(Debug)]
pub(super) struct Ledger<S> {
    objects: BTreeMap<ServiceKey, Object<S>>,
    /// Whether the objects were listed; before that nothing is written.
    is_listed: bool,
    open: BTreeSet<ServiceKey>,
    running: BTreeSet<ServiceKey>,
    pauses: Pauses,
    losses: BTreeMap<ServiceKey, Losses>,
}

/// An object of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Object<S> {
    /// Its uid and version.
    pub(super) identity: Identity,
    /// Whether the present Pod owns it. The object of an earlier Pod is about to be collected.
    pub(super) owned: bool,
    /// Its status.
    pub(super) status: Option<S>,
}

/// A request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Request<S> {
    /// Create the object, or take it over from another node or Pod, and set its status.
    Claim(S),
    /// Set the status.
    Update(S),
    /// Delete this version of the object.
    Delete(Identity),
}

/// How often others took or deleted an object that this node wants.
#[derive(Clone, Copy, Debug)]
struct Losses {
    count: u32,
    last: Instant,
    /// When the object is claimed again at the earliest.
    claim_at: Instant,
}

impl<S> Default for Ledger<S> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            is_listed: false,
            open: BTreeSet::new(),
            running: BTreeSet::new(),
            pauses: Pauses::default(),
            losses: BTreeMap::new(),
        }
    }
}

impl<S: PartialEq> Ledger<S> {
    /// The desired status of these Services may have changed.
    pub(super) fn changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        for service in services {
            self.pauses.changed(&service);
            self.open.insert(service);
        }
    }

    /// Replaces the known objects by those of a list. `desired` names the Services that should have one.
    pub(super) fn listed(
        &mut self,
        objects: impl IntoIterator<Item = (ServiceKey, Object<S>)>,
        desired: impl IntoIterator<Item = ServiceKey>,
    ) {
        let mut before = std::mem::take(&mut self.objects);
        self.open.extend(desired);
        self.open.extend(before.keys().cloned());
        for (service, object) in objects {
            // The answer to a request of our own may be newer than the list.
            let known = before.remove(&service).filter(|known| is_newer(known, &object));
            self.open.insert(service.clone());
            self.objects.insert(service, known.unwrap_or(object));
        }
        self.is_listed = true;
    }

    /// The API server reports this object.
    pub(super) fn seen(&mut self, service: ServiceKey, object: Object<S>) {
        let is_outdated = self.objects.get(&service).is_some_and(|known| {
            known.identity.uid == object.identity.uid && !object.identity.version.is_newer_than(&known.identity.version)
        });
        if !is_outdated {
            self.objects.insert(service.clone(), object);
            self.open.insert(service);
        }
    }

    /// The API server reports that this node no longer has the object: it was deleted or another node has it.
    pub(super) fn gone(&mut self, service: &ServiceKey, of: &Identity, now: Instant) {
        let is_known = self
            .objects
            .get(service)
            .is_some_and(|known| known.identity.uid == of.uid && !known.identity.version.is_newer_than(&of.version));
        if is_known {
            self.objects.remove(service);
            // A request that is running may be our own deletion.
            if !self.running.contains(service) {
                self.lost(service, now);
            }
            self.open.insert(service.clone());
        }
    }

    /// The next request that is due. Answer it with [`ended`](Self::ended).
    pub(super) fn next(
        &mut self,
        now: Instant,
        desired: impl Fn(&ServiceKey) -> Option<S>,
    ) -> Option<(ServiceKey, Request<S>)> {
        if !self.is_listed {
            return None;
        }
        self.open.extend(self.pauses.due(now));
        let mut waiting = Vec::new();
        let mut found = None;
        while let Some(service) = self.open.pop_first() {
            if self.running.contains(&service) {
                // The end of the request opens it again.
                continue;
            }
            let request = self.request(&service, &desired);
            if request.is_some() && self.pauses.is_paused(&service, now) {
                continue;
            }
            match request {
                None => self.pauses.succeeded(&service),
                Some(Request::Claim(_)) if self.losses.get(&service).is_some_and(|losses| losses.claim_at > now) => {
                    waiting.push(service);
                }
                Some(request) => {
                    self.running.insert(service.clone());
                    found = Some((service, request));
                    break;
                }
            }
        }
        self.open.extend(waiting);
        found
    }

    /// When [`next`](Self::next) may have a request although nothing was reported.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let claims = self.open.iter().filter_map(|service| self.losses.get(service)).map(|losses| losses.claim_at);
        self.pauses.next().into_iter().chain(claims.filter(|at| *at > now)).min()
    }

    /// A request succeeded: the object as it is now, `None` if it does not exist.
    pub(super) fn succeeded(&mut self, service: ServiceKey, object: Option<Object<S>>) {
        self.running.remove(&service);
        self.pauses.succeeded(&service);
        match object {
            Some(object) => {
                // A watch may have delivered a later version already.
                let is_outdated = self.objects.get(&service).is_some_and(|known| is_newer(known, &object));
                if !is_outdated {
                    self.objects.insert(service.clone(), object);
                }
            }
            None => drop(self.objects.remove(&service)),
        }
        self.open.insert(service);
    }

    /// A request failed. `jitter` is between 0 and 1.
    pub(super) fn failed(&mut self, service: ServiceKey, failure: &Failure, now: Instant, jitter: f64) {
        self.running.remove(&service);
        if *failure == Failure::Gone {
            self.objects.remove(&service);
            self.lost(&service, now);
        }
        self.pauses.failed(&service, failure, false, now, jitter);
        self.open.insert(service);
    }

    /// Whether any Service waits after a failure.
    pub(super) fn has_failures(&self) -> bool {
        self.pauses.next().is_some()
    }

    fn request(&self, service: &ServiceKey, desired: impl Fn(&ServiceKey) -> Option<S>) -> Option<Request<S>> {
        match (desired(service), self.objects.get(service)) {
            (None, None) => None,
            (None, Some(known)) => Some(Request::Delete(known.identity.clone())),
            (Some(status), Some(known)) if known.owned && known.status.as_ref() == Some(&status) => None,
            (Some(status), Some(known)) if known.owned => Some(Request::Update(status)),
            (Some(status), _) => Some(Request::Claim(status)),
        }
    }

    fn lost(&mut self, service: &ServiceKey, now: Instant) {
        let before = self.losses.get(service).filter(|losses| now.saturating_duration_since(losses.last) < FORGET_LOSS);
        let count = before.map_or(0, |losses| losses.count).saturating_add(1);
        // The first loss is repaired at once: somebody deleted the object.
        let pause = if count == 1 { Duration::ZERO } else { CLAIM_PAUSE.saturating_mul(1 << (count - 2).min(16)) };
        let losses = Losses { count, last: now, claim_at: now + pause.min(CLAIM_PAUSE_MAX) };
        self.losses.retain(|_, losses| now.saturating_duration_since(losses.last) < FORGET_LOSS);
        self.losses.insert(service.clone(), losses);
    }
}

fn is_newer<S>(known: &Object<S>, other: &Object<S>) -> bool {
    known.identity.uid == other.identity.uid && known.identity.version.is_newer_than(&other.identity.version)
}

/// The first and the longest pause between claims of an object that others take: two nodes that both take themselves
/// for the owner, because they do not hear each other, must not write without end.
const CLAIM_PAUSE: Duration = Duration::from_millis(500);
const CLAIM_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A loss counts for this time.
const FORGET_LOSS: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests;
