//! Counters of connections that peers open, by result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why an incoming connection was closed without a NOTIFICATION.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Refusal {
    /// The address belongs to no peer that may connect.
    UnknownPeer,
    /// The peer must be a direct neighbour, but its address is not on a link of this host.
    NotDirect,
    /// The peer has a password that could not be set on the listening socket.
    NoKey,
    /// The peer has a connection already, or is pausing.
    NoPlace,
    /// The connection broke before it could be used.
    Broken,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::UnknownPeer, Self::NotDirect, Self::NoKey, Self::NoPlace, Self::Broken];

    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownPeer => "unknown-peer",
            Self::NotDirect => "not-direct",
            Self::NoKey => "no-key",
            Self::NoPlace => "no-place",
            Self::Broken => "broken",
        }
    }
}

/// The number of incoming connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct IncomingReport {
    /// Connections that a peer's session accepted.
    pub accepted: u64,
    /// Connections that were closed immediately, by reason.
    pub refused: BTreeMap<Refusal, u64>,
}

/// The live counters.
#[derive(Debug, Default)]
pub(super) struct IncomingCounters {
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// A connection on its way to the task of its peer, which decides whether it is accepted.
#[derive(Debug)]
pub(super) struct PendingConnection {
    counters: Arc<IncomingCounters>,
}

impl IncomingCounters {
    pub(super) fn report(&self) -> IncomingReport {
        let refused = Refusal::ALL.into_iter().zip(&self.refused);
        IncomingReport {
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: refused.map(|(reason, count)| (reason, count.load(Ordering::Relaxed))).collect(),
        }
    }

    pub(super) fn refuse(&self, reason: Refusal) {
        if let Some(count) = self.refused.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl PendingConnection {
    pub(super) const fn new(counters: Arc<IncomingCounters>) -> Self {
        Self { counters }
    }

    /// Counts the connection as accepted by the session, or as refused.
    pub(super) fn resolve(self, accepted: bool) {
        if accepted {
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counters.refuse(Refusal::NoPlace);
        }
    }
}
