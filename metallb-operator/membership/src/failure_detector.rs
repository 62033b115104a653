//! The failure detector for the nodes whose addresses this node would inherit: it pings them directly and often.
//!
//! ```text
//! pong ──100 ms── ping ──50── ping ──50── ping ──50── suspected: PingReq to others, pings continue
//! ```
//!
//! - Only a pong to this node's own ping ends a suspicion. A datagram of another kind proves that the node can send,
//!   not that it can receive.
//! - A `PingReqReply` "reachable" of another member postpones the next round of `PingReq`. "Unreachable" of one member,
//!   contradicted by none, confirms the suspicion: the node is declared dead.
//! - If two nodes monitor each other, the one with the lower name pings, and its pings count as proof of life, until it
//!   reports by a `Probe` that pongs are missing. A `Probe` raises the suspicion at once.
//! - The first in order of the nodes that ping this one sets the pace: this node sends its own pings at the same
//!   moments, so that idle processes wake up together.
//!
//! No node is declared dead without a second opinion, unless there is no other member, or none has answered for
//! [`Timing::isolation`]. A pause of this process is not mistaken for silence of others, because pings sent without an
//! answer are counted, not time.

mod monitored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

use self::monitored::{Monitored, State, Suspicion, is_recent};

/// The times of the failure detector.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// The time from a pong to the next ping.
    pub interval: Duration,
    /// The time from an unanswered ping to the next one.
    pub retry: Duration,
    /// The number of unanswered pings that raises a suspicion.
    pub attempts: u32,
    /// How long other members may take to answer a `PingReq`.
    pub reply_timeout: Duration,
    /// After this silence of a node, if no other member answers either, it is declared dead without a second opinion.
    pub isolation: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            retry: Duration::from_millis(50),
            attempts: 3,
            reply_timeout: Duration::from_millis(200),
            isolation: Duration::from_secs(1),
        }
    }
}

/// What a received datagram proves about its sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Evidence {
    /// A `Ping`: the sender monitors this node and receives its pongs.
    Ping,
    /// A `Pong` or a `JoinAck`: the sender receives.
    Pong,
    /// A `Probe`: the sender does not receive pongs.
    Probe,
    /// Any other datagram: the sender can send.
    Other,
}

/// What the engine has to do for the failure detector.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Send a `Ping`.
    Ping(NodeName),
    /// Send a `Probe`: earlier pings were not answered.
    Probe(NodeName),
    /// Ask `witness` to ping `target`.
    PingReq { witness: NodeName, target: NodeName, token: u32 },
    /// Report that a node is suspected.
    Suspected(NodeName),
    /// Report that a suspected node answered.
    Refuted(NodeName),
    /// Report that a node is dead, and when it was last heard.
    DeclareDead(NodeName, Instant),
    /// Report that a dead node answered.
    Recovered(NodeName),
}

/// Monitors nodes and declares them dead.
#[derive(Debug)]
pub(crate) struct FailureDetector {
    /// `interval` is raised when many nodes are monitored.
    timing: Timing,
    /// The interval as configured.
    interval: Duration,
    me: NodeName,
    nodes: BTreeMap<NodeName, Monitored>,
    /// The nodes to monitor. `nodes` also has suspected and dead ones that were selected earlier.
    selected: BTreeSet<NodeName>,
    last_token: u32,
    /// The node that sets the pace, and when it last pinged this one.
    pace: Option<(NodeName, Instant)>,
}

impl FailureDetector {
    pub(crate) fn new(me: NodeName, timing: Timing) -> Self {
        Self {
            interval: timing.interval,
            timing,
            me,
            nodes: BTreeMap::new(),
            selected: BTreeSet::new(),
            last_token: 0,
            pace: None,
        }
    }

    /// Replaces the nodes to monitor.
    pub(crate) fn select(&mut self, now: Instant, selected: BTreeSet<NodeName>) {
        self.nodes.retain(|node, monitored| selected.contains(node) || !matches!(monitored.state, State::Alive));
        // Limits the rate of pings, however many nodes are monitored.
        self.timing.interval = self.interval.max(INTERVAL_PER_NODE * u32::try_from(selected.len()).unwrap_or(u32::MAX));
        for node in &selected {
            let first = now + self.timing.interval;
            self.nodes.entry(node.clone()).or_insert_with(|| Monitored::new(now, first));
        }
        self.selected = selected;
    }

    /// Stops monitoring a node that gossip has declared dead.
    pub(crate) fn remove(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }

    /// Whether a node is to be monitored permanently.
    pub(crate) fn is_selected(&self, node: &NodeName) -> bool {
        self.selected.contains(node)
    }

    /// The nodes that are monitored now.
    pub(crate) fn monitored(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }

    pub(crate) fn is_dead(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|monitored| matches!(monitored.state, State::Dead(_)))
    }

    /// Whether nodes are monitored and all of them are dead.
    pub(crate) fn all_are_dead(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.values().all(|monitored| matches!(monitored.state, State::Dead(_)))
    }

    /// Another member, which monitors the node, has declared it dead. The node is pinged before that is believed.
    pub(crate) fn handle_report(
        &mut self,
        now: Instant,
        node: &NodeName,
        witness: &NodeName,
        last_heard: Instant,
    ) -> Vec<Action> {
        let due = now + REPORT_TIMEOUT;
        let monitored = self.nodes.entry(node.clone()).or_insert_with(|| Monitored::new(last_heard, now));
        let mut actions = Vec::new();
        if matches!(monitored.state, State::Alive) {
            self.last_token = self.last_token.wrapping_add(1);
            monitored.state = State::Suspected(Suspicion::new(self.last_token, due));
            actions.extend([Action::Suspected(node.clone()), Action::Ping(node.clone())]);
            monitored.unanswered = monitored.unanswered.saturating_add(1);
            monitored.next_ping = now + self.timing.retry;
        }
        if let State::Suspected(suspicion) = &mut monitored.state {
            suspicion.asked.insert(witness.clone());
            suspicion.confirmed_by.insert(witness.clone());
            suspicion.deadline = suspicion.deadline.min(due);
        }
        actions
    }

    /// A datagram of the node itself has arrived. A suspected or dead node that sends anything but a pong is pinged at
    /// once.
    pub(crate) fn handle_evidence(&mut self, now: Instant, node: &NodeName, evidence: Evidence) -> Option<Action> {
        let interval = self.timing.interval;
        let paced = self.pace.as_ref().is_some_and(|(_, at)| is_recent(*at, now, interval));
        let monitored = self.nodes.get_mut(node)?;
        match (evidence, &monitored.state) {
            (Evidence::Pong, _) => monitored.answered_at = Some(now),
            (Evidence::Ping, State::Alive) => {
                monitored.pinged_us_at = Some(now);
                // A node that this one pings must answer: its pings do not prove that it receives.
                if *node > self.me || monitored.unanswered > 0 {
                    return None;
                }
            }
            (Evidence::Probe, State::Alive) => {
                // Its earlier pings counted as proof of life although it received no pong. This is worth as much as the
                // full number of unanswered pings.
                if monitored.answered_at.is_none_or(|at| now.saturating_duration_since(at) > interval) {
                    monitored.unanswered = self.timing.attempts;
                    monitored.next_ping = now;
                }
                return None;
            }
            (Evidence::Other, State::Alive) => return None,
            (_, State::Suspected(_) | State::Dead(_)) => {
                monitored.next_ping = now;
                return None;
            }
        }
        monitored.last_heard = now;
        monitored.unanswered = 0;
        // A node that pings this one need not be pinged. This node waits a little longer than the interval, so that the
        // two do not ping each other at the same time; so does a node that follows a pace.
        let leads = monitored.leads(now, node, &self.me, interval);
        monitored.next_ping = now + if leads || paced { interval + interval / PASSIVE_GRACE } else { interval };
        let action = match std::mem::replace(&mut monitored.state, State::Alive) {
            State::Alive => None,
            State::Suspected(_) => Some(Action::Refuted(node.clone())),
            State::Dead(_) => Some(Action::Recovered(node.clone())),
        };
        if !self.selected.contains(node) {
            self.nodes.remove(node);
        }
        if leads && evidence == Evidence::Ping {
            self.follow_pace(now, node);
        }
        action
    }

    /// A node that comes before this one in order has pinged it. The first of these nodes sets the pace.
    fn follow_pace(&mut self, now: Instant, leader: &NodeName) {
        let is_recent = |at: Instant| is_recent(at, now, self.timing.interval);
        if self.pace.as_ref().is_none_or(|(first, at)| first >= leader || !is_recent(*at)) {
            self.pace = Some((leader.clone(), now));
            self.align_pings(now);
        }
    }

    /// Starts a round of pings: each node without an outstanding ping is pinged now, or in the next round if it
    /// answered within half an interval. One interval of each node is thus between half and one and a half times as
    /// long; later ones are as configured.
    fn align_pings(&mut self, now: Instant) {
        let Self { timing: Timing { interval, .. }, me, nodes, .. } = self;
        for (node, monitored) in nodes.iter_mut() {
            let idle = matches!(monitored.state, State::Alive) && monitored.unanswered == 0;
            if idle && !monitored.leads(now, node, me, *interval) {
                let recently =
                    monitored.answered_at.is_some_and(|at| now.saturating_duration_since(at) < *interval / 2);
                monitored.next_ping = if recently { now + *interval + *interval / PASSIVE_GRACE } else { now };
            }
        }
    }

    /// The result of a `PingReq` has arrived.
    pub(crate) fn handle_ping_req_reply(
        &mut self,
        now: Instant,
        witness: &NodeName,
        target: &NodeName,
        token: u32,
        reachable: bool,
    ) -> Option<Action> {
        let monitored = self.nodes.get_mut(target)?;
        let State::Suspected(suspicion) = &mut monitored.state else { return None };
        if suspicion.token != token || !suspicion.asked.contains(witness) {
            return None;
        }
        suspicion.replied_at = Some(now);
        if reachable {
            // The node is alive although this one does not hear it. Ask again later.
            suspicion.asked.clear();
            suspicion.confirmed_by.clear();
            suspicion.deadline = now + PING_REQ_INTERVAL;
            return None;
        }
        suspicion.confirmed_by.insert(witness.clone());
        let all = suspicion.confirmed_by.len() == suspicion.asked.len();
        (all || suspicion.confirmed_by.len() >= CONFIRMATIONS).then(|| monitored.declare_dead(target, now))
    }

    /// Does what is due. `others(node)` returns the members that can be asked to ping a node: neither the node nor this
    /// one.
    pub(crate) fn handle_timeout(&mut self, now: Instant, others: impl Fn(&NodeName) -> Vec<NodeName>) -> Vec<Action> {
        let mut actions = Vec::new();
        let timing = self.timing;
        let shortest = INTERVAL_PER_NODE * u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        if self.nodes.values().any(|monitored| monitored.unanswered == 0 && monitored.next_ping <= now) {
            self.align_pings(now);
        }
        for (node, monitored) in &mut self.nodes {
            let due = monitored.next_ping <= now;
            if due && monitored.unanswered >= timing.attempts && matches!(monitored.state, State::Alive) {
                self.last_token = self.last_token.wrapping_add(1);
                actions.push(Action::Suspected(node.clone()));
                monitored.state = State::Suspected(Suspicion::new(self.last_token, now));
            }
            if let State::Suspected(suspicion) = &mut monitored.state
                && suspicion.deadline <= now
            {
                let others = others(node);
                let silent = now.saturating_duration_since(monitored.last_heard);
                let confirmed = !suspicion.confirmed_by.is_empty();
                let long_ago = |at: Instant| now.saturating_duration_since(at) >= timing.isolation;
                let isolated = silent >= timing.isolation && suspicion.replied_at.is_none_or(long_ago);
                if confirmed || others.is_empty() || isolated {
                    actions.push(monitored.declare_dead(node, now));
                } else {
                    self.last_token = self.last_token.wrapping_add(1);
                    suspicion.token = self.last_token;
                    suspicion.deadline = now + timing.reply_timeout;
                    suspicion.confirmed_by.clear();
                    // Members that were not asked in the last round come first.
                    let (asked, fresh): (Vec<_>, Vec<_>) =
                        others.into_iter().partition(|other| suspicion.asked.contains(other));
                    suspicion.asked = fresh.into_iter().chain(asked).take(WITNESSES).collect();
                    let ping_req = |witness: &NodeName| Action::PingReq {
                        witness: witness.clone(),
                        target: node.clone(),
                        token: suspicion.token,
                    };
                    actions.extend(suspicion.asked.iter().map(ping_req));
                }
            }
            if due {
                let ping = if monitored.unanswered < timing.attempts { Action::Ping } else { Action::Probe };
                actions.push(ping(node.clone()));
                monitored.unanswered = monitored.unanswered.saturating_add(1);
                monitored.next_ping = match monitored.state {
                    State::Dead(since) => now + dead_interval(now, since).max(shortest),
                    _ => now + timing.retry,
                };
            }
        }
        actions
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next = |monitored: &Monitored| match &monitored.state {
            State::Suspected(suspicion) => monitored.next_ping.min(suspicion.deadline),
            State::Alive | State::Dead(_) => monitored.next_ping,
        };
        self.nodes.values().map(next).min()
    }
}

/// The interval of pings to a dead node, to see it return: shorter at first, when that is most likely.
fn dead_interval(now: Instant, since: Instant) -> Duration {
    if now.saturating_duration_since(since) < DEAD_RECENTLY { DEAD_INTERVAL } else { DEAD_INTERVAL_LATER }
}

/// The shortest interval per monitored node: at most 200 pings per second are sent in all.
const INTERVAL_PER_NODE: Duration = Duration::from_millis(5);

/// How many members are sent a `PingReq` at once.
const WITNESSES: usize = 3;

/// How many members that do not reach the node suffice, whatever the remaining ones might reply.
const CONFIRMATIONS: usize = 2;

/// The time from a reply "reachable" to the next round of `PingReq`.
const PING_REQ_INTERVAL: Duration = Duration::from_millis(500);

/// How long a node is pinged after another member has declared it dead.
const REPORT_TIMEOUT: Duration = Duration::from_millis(100);

/// A passive monitor waits longer than the interval by this fraction of it, which is more than a pong takes.
const PASSIVE_GRACE: u32 = 5;

const DEAD_INTERVAL: Duration = Duration::from_millis(20);
const DEAD_INTERVAL_LATER: Duration = Duration::from_millis(100);
const DEAD_RECENTLY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
