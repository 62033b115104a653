//! Writes `ServiceL2Status` and `ServiceBGPStatus`: what this node announces
//! (`docs/upstream-behaviour.md#statuses`).
//!
//! The names of the objects are derived from the Service, and a watch follows the objects of this node. A new or moved
//! status therefore costs two writes and no request to find the object, and nothing is listed while nothing changes.
//!
//! ```text
//! speaker ─> Desired ─┐
//!                     ├─> Ledger ─> requests, at most 16 at a time and one per object
//! watch of our objects┘     └────── answers
//! ```

mod ledger;
mod objects;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use metallb_core::model::ServiceKey;
use tokio::sync::Notify;

use self::objects::Owner;
use crate::announcer::{Announced, L2Announcement};
use crate::api::{ServiceBgpStatus, ServiceBgpStatusStatus, ServiceL2Status, ServiceL2StatusStatus};

/// Keeps the status objects of this node equal to what it announces, in the background.
pub(crate) struct StatusWriter {
    /// Builds the statuses; it names no Pod, which only the objects need.
    owner: Owner,
    announced: BTreeMap<ServiceKey, L2Announcement>,
    checks: AddressChecks,
    l2: Arc<Desired<ServiceL2StatusStatus>>,
    bgp: Arc<Desired<ServiceBgpStatusStatus>>,
}

/// Results of the checks of addresses.
#[derive(Clone, Default)]
pub(crate) struct AddressChecks {
    /// Foreign hosts that use an address.
    pub(crate) conflicts: BTreeMap<IpAddr, String>,
    /// Why an address is not announced.
    pub(crate) refused: BTreeMap<IpAddr, String>,
}

impl StatusWriter {
    /// Starts the tasks that write the objects in `namespace`. The Pod `pod` owns them; without a Pod they outlive the
    /// process.
    pub(crate) fn spawn(client: &Client, namespace: &str, node: &str, pod: &str) -> Self {
        let (l2, bgp) = (Arc::<Desired<_>>::default(), Arc::<Desired<_>>::default());
        worker::spawn::<ServiceL2Status>(client, namespace, node, pod, Arc::clone(&l2));
        worker::spawn::<ServiceBgpStatus>(client, namespace, node, pod, Arc::clone(&bgp));
        let owner = Owner { node: node.to_owned(), pod: None };
        Self { owner, announced: BTreeMap::new(), checks: AddressChecks::default(), l2, bgp }
    }

    /// Sets the announcements; only the Services in `changed` differ from the last call.
    pub(crate) fn update(&mut self, announced: &Announced, changed: &BTreeSet<ServiceKey>) {
        if changed.is_empty() {
            return;
        }
        for key in changed {
            match announced.l2.get(key) {
                Some(announcement) => drop(self.announced.insert(key.clone(), announcement.clone())),
                None => drop(self.announced.remove(key)),
            }
        }
        let l2 = |key: &ServiceKey| Some(self.owner.l2_status(key, self.announced.get(key)?, &self.checks));
        self.l2.set(changed.iter().map(|key| (key.clone(), l2(key))));
        let bgp = |key: &ServiceKey| {
            let (_, peers) = announced.bgp.get(key)?;
            Some(self.owner.bgp_status(key, peers.iter().map(ToString::to_string).collect()))
        };
        self.bgp.set(changed.iter().map(|key| (key.clone(), bgp(key))));
    }

    /// Sets the results of the checks; `is_changed` tells whether the result of one of these addresses changed.
    pub(crate) fn update_checks(&mut self, checks: AddressChecks, is_changed: impl Fn(&[IpAddr]) -> bool) {
        self.checks = checks;
        let touched = self.announced.iter().filter(|(_, announcement)| is_changed(&announcement.ips));
        let status = |(key, announcement): (&ServiceKey, _)| {
            (key.clone(), Some(self.owner.l2_status(key, announcement, &self.checks)))
        };
        self.l2.set(touched.map(status));
    }
}

/// The desired statuses of one kind, and the Services whose status changed since they were last taken: an update costs
/// as much as it changes.
#[derive(Debug)]
struct Desired<S> {
    inner: Mutex<Statuses<S>>,
    updated: Notify,
}

#[derive(Debug)]
struct Statuses<S> {
    by_service: BTreeMap<ServiceKey, S>,
    changed: BTreeSet<ServiceKey>,
}

impl<S> Default for Desired<S> {
    fn default() -> Self {
        let inner = Mutex::new(Statuses { by_service: BTreeMap::new(), changed: BTreeSet::new() });
        Self { inner, updated: Notify::new() }
    }
}

impl<S: PartialEq> Desired<S> {
    fn set(&self, statuses: impl Iterator<Item = (ServiceKey, Option<S>)>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (service, status) in statuses {
            if inner.by_service.get(&service) == status.as_ref() {
                continue;
            }
            match status {
                Some(status) => drop(inner.by_service.insert(service.clone(), status)),
                None => drop(inner.by_service.remove(&service)),
            }
            inner.changed.insert(service);
        }
        if !inner.changed.is_empty() {
            self.updated.notify_one();
        }
    }
}

impl<S: Clone> Desired<S> {
    fn of(&self, service: &ServiceKey) -> Option<S> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).by_service.get(service).cloned()
    }

    fn take_changed(&self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).changed)
    }

    fn services(&self) -> Vec<ServiceKey> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).by_service.keys().cloned().collect()
    }
}
