//! What was decided for a Service, and what has to be done about it.

use std::net::IpAddr;

use serde::Serialize;

use super::AssignReason;
use crate::allocator::PoolVerdict;
use crate::model::{PoolName, ServiceKey};

/// What was decided for a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Assigned, pending or ignored.
    pub state: AssignmentState,
    /// The pool of the addresses.
    pub pool: Option<PoolName>,
    /// The addresses, in the order of the status.
    pub ips: Vec<IpAddr>,
    /// The stable reason.
    pub reason: AssignReason,
    /// The reason in words.
    pub message: String,
    /// Pools that were looked at before the one that serves, or all of them, and why each was refused.
    pub verdicts: Vec<PoolVerdict>,
    /// What to tell the owner of the Service.
    pub events: Vec<ServiceEvent>,
    /// What to write; `None` when the Service already says it.
    pub write: Option<StatusWrite>,
    /// The next Service that waits and can be served now, if something became free. It too must be converged; its outcome names
    /// the one after it.
    pub retry: Vec<ServiceKey>,
}

/// The status that a Service should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusWrite {
    /// `status.loadBalancer.ingress[].ip`
    pub ips: Vec<IpAddr>,
    /// The annotation `metallb.io/ip-allocated-from-pool`; `None` removes it.
    pub pool: Option<PoolName>,
}

/// Where a Service stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AssignmentState {
    /// It has what it needs.
    Assigned,
    /// It wants an address and has none.
    Pending,
    /// It is none of our business.
    Ignored,
}

/// An Event on a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceEvent {
    /// Whether somebody should look at it.
    pub kind: EventKind,
    /// The stable reason (contract control-plane §2.6).
    pub reason: &'static str,
    /// The text, for people.
    pub message: String,
}

/// `type` of an Event.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventKind {
    /// Things went as they should.
    Normal,
    /// Something is wrong.
    Warning,
}
