//! A store for one Lease that is linearizable, as etcd behind an API server is.

use k8s_openapi::api::coordination::v1::Lease;

use super::super::{End, Request};
use super::Version;

/// The Lease, and all that a watch would have told.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) lease: Option<Lease>,
    pub(super) revision: u64,
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Seen(Box<Lease>),
    Gone(u64),
}

impl Server {
    /// Carries out a request and answers it.
    pub(super) fn answer(&mut self, request: &Request) -> End {
        match (request, &self.lease) {
            (Request::Get, Some(lease)) => End::Done(Box::new(lease.clone())),
            (Request::Get | Request::Update(_), None) => End::Absent,
            (Request::Create(_), Some(_)) => End::Conflict,
            (Request::Update(lease), Some(present)) if Version::of(lease) != Version::of(present) => End::Conflict,
            (Request::Create(lease) | Request::Update(lease), _) => End::Done(Box::new(self.store(lease))),
        }
    }

    /// Stores a Lease whatever was there.
    pub(super) fn store(&mut self, lease: &Lease) -> Lease {
        self.revision += 1;
        let mut lease = lease.clone();
        lease.metadata.resource_version = Some(self.revision.to_string());
        self.lease = Some(lease.clone());
        self.events.push(Event::Seen(Box::new(lease.clone())));
        lease
    }

    /// Changes the Lease behind everybody's back.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Lease)) {
        let mut lease = self.lease.clone().unwrap();
        change(&mut lease);
        self.store(&lease);
    }

    pub(super) fn delete(&mut self) {
        self.revision += 1;
        self.lease = None;
        self.events.push(Event::Gone(self.revision));
    }
}
