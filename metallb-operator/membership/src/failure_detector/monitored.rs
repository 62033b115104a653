//! The state of one monitored node.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

use super::{Action, DEAD_INTERVAL};

#[derive(Debug)]
pub(super) struct Monitored {
    /// When the node last proved that it is alive.
    pub(super) last_heard: Instant,
    /// Pings sent since then.
    pub(super) unanswered: u32,
    pub(super) next_ping: Instant,
    /// When it last pinged this node.
    pub(super) pinged_us_at: Option<Instant>,
    /// When it last answered this node.
    pub(super) answered_at: Option<Instant>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Alive,
    Suspected(Suspicion),
    /// Dead since then.
    Dead(Instant),
}

/// A round of indirect probes and its results.
#[derive(Debug)]
pub(super) struct Suspicion {
    pub(super) token: u32,
    /// The members that were sent a `PingReq`.
    pub(super) asked: BTreeSet<NodeName>,
    /// The members that do not reach the node either.
    pub(super) confirmed_by: BTreeSet<NodeName>,
    pub(super) deadline: Instant,
    /// When a member last replied.
    pub(super) replied_at: Option<Instant>,
}

impl Monitored {
    pub(super) const fn new(last_heard: Instant, next_ping: Instant) -> Self {
        Self { last_heard, unanswered: 0, next_ping, pinged_us_at: None, answered_at: None, state: State::Alive }
    }

    /// Whether the node pings this one and need not be pinged: it comes first in order.
    pub(super) fn leads(&self, now: Instant, node: &NodeName, me: &NodeName, interval: Duration) -> bool {
        node < me && self.pinged_us_at.is_some_and(|at| is_recent(at, now, interval))
    }

    pub(super) fn declare_dead(&mut self, node: &NodeName, now: Instant) -> Action {
        self.state = State::Dead(now);
        self.next_ping = now + DEAD_INTERVAL;
        Action::DeclareDead(node.clone(), self.last_heard)
    }
}

impl Suspicion {
    pub(super) fn new(token: u32, deadline: Instant) -> Self {
        Self { token, asked: BTreeSet::new(), confirmed_by: BTreeSet::new(), deadline, replied_at: None }
    }
}

/// Whether a node that pinged at `at` still pings regularly.
pub(super) fn is_recent(at: Instant, now: Instant, interval: Duration) -> bool {
    now.saturating_duration_since(at) <= interval * 2
}
