//! The decision for one Service, and its effects.

use std::net::IpAddr;

use serde::Serialize;

use super::AssignReason;
use crate::allocator::PoolVerdict;
use crate::model::{PoolName, ServiceKey};

/// The decision for a Service.
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
    /// Pools that were refused before the one that serves, or all of them, with the reasons.
    pub verdicts: Vec<PoolVerdict>,
    /// Events for the Service.
    pub events: Vec<ServiceEvent>,
    /// The status to write; `None` if the Service has it already.
    pub write: Option<StatusWrite>,
    /// The next pending Service that can be served now because addresses became free. Decide on it too; its outcome
    /// names the one after it.
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

/// The state of a Service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AssignmentState {
    /// It has the addresses that it needs.
    Assigned,
    /// It needs an address and has none.
    Pending,
    /// It is not handled: another type or load balancer class.
    Ignored,
}

/// An Event on a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceEvent {
    /// Normal or warning.
    pub kind: EventKind,
    /// The stable reason (`docs/upstream-behaviour.md#events`).
    pub reason: &'static str,
    /// The text for people.
    pub message: String,
}

/// `type` of an Event.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventKind {
    /// Expected.
    Normal,
    /// A problem.
    Warning,
}
