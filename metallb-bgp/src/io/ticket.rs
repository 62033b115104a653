//! What becomes of a connection that came in, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Why a connection that came in was closed without a word.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Refusal {
    /// No peer that may connect has this address.
    UnknownPeer,
    /// The peer must be a direct neighbour, and its address belongs to no link of this host.
    NotDirect,
    /// The peer has a password that this socket does not know.
    NoKey,
    /// The peer has connections enough, or is to be left alone for a while.
    NoPlace,
    /// The connection broke before it could be used.
    Broken,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::UnknownPeer, Self::NotDirect, Self::NoKey, Self::NoPlace, Self::Broken];

    /// A short name that never changes, for logs and metrics.
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

/// What came in so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct IncomingReport {
    /// Connections that became a peer's.
    pub accepted: u64,
    /// Connections that were closed at once, by reason.
    pub refused: BTreeMap<Refusal, u64>,
}

/// What came in, while it goes on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// A connection on its way to its peer's task.
#[derive(Debug)]
pub(super) struct Ticket {
    tally: Arc<Tally>,
    waiting: Arc<AtomicUsize>,
}

impl Tally {
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

impl Ticket {
    /// For one of those that `waiting` counts.
    pub(super) const fn new(tally: Arc<Tally>, waiting: Arc<AtomicUsize>) -> Self {
        Self { tally, waiting }
    }

    /// The connection became the peer's, or there was no place for it.
    pub(super) fn settle(self, taken: bool) {
        if taken {
            self.tally.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.tally.refuse(Refusal::NoPlace);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
