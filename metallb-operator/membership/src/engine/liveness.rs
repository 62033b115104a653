//! The set of live members, recomputed from gossip and the failure detector, and the failed members that still send.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use foca::OwnedNotification;
use metallb_core::model::NodeName;

use super::{Engine, Event, Phase};
use crate::wire::identity::Identity;
use crate::wire::message::Readiness;

#[derive(Debug)]
pub(super) struct Liveness {
    /// The nodes whose speakers are live and ready, this one included.
    pub(super) live: BTreeSet<NodeName>,
    /// Whether `live` must be recomputed.
    pub(super) outdated: bool,
    /// The time of the last recomputation.
    pub(super) recomputed_at: Instant,
    /// The nodes that failed without leaving and have not been live since.
    pub(super) failed: BTreeSet<NodeName>,
    /// The nodes that are not live and still send datagrams.
    unresponsive: BTreeMap<NodeName, Unresponsive>,
}

/// A node that sends and does not answer: its link may be unidirectional.
#[derive(Debug)]
struct Unresponsive {
    since: Instant,
    /// When [`Event::Failed`] is next repeated, and the time between the last two.
    repeat_at: Instant,
    interval: Duration,
}

impl Liveness {
    pub(super) fn new(me: NodeName, now: Instant) -> Self {
        Self {
            live: BTreeSet::from([me]),
            outdated: false,
            recomputed_at: now,
            failed: BTreeSet::new(),
            unresponsive: BTreeMap::new(),
        }
    }

    /// When the next repetition is due that does not wait for a datagram.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.unresponsive.values().filter_map(Unresponsive::claims_at).min()
    }
}

impl Unresponsive {
    fn new(now: Instant) -> Self {
        Self { since: now, repeat_at: now + REPEAT_INTERVAL, interval: REPEAT_INTERVAL }
    }

    /// When the next repetition is due during the time in which the node may announce addresses of others.
    fn claims_at(&self) -> Option<Instant> {
        (self.repeat_at < self.since + CLAIMS_FOR).then_some(self.repeat_at)
    }

    fn advance(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= CLAIMS_FOR {
            self.interval = (self.interval * 2).min(REPEAT_INTERVAL_MAX);
        }
        self.repeat_at = now + self.interval;
    }
}

impl Engine {
    /// Handles the outputs of gossip, then recomputes the live members if they may have changed.
    pub(super) fn recompute_live(&mut self, now: Instant) {
        self.drain_gossip(now);
        if !self.liveness.outdated || now < self.liveness.recomputed_at + self.recompute_interval() {
            return;
        }
        self.liveness.outdated = false;
        self.liveness.recomputed_at = now;
        self.gossip.tune();
        let isolated = self.is_isolated(now);
        let is_ready = |member: &&Identity| {
            !isolated
                && !self.detector.is_dead(member.node())
                && self.hosts.get(member.address).is_none_or(|host| host.readiness == Readiness::Ready)
        };
        let others = self.gossip.members().filter(is_ready);
        let me = (self.readiness == Readiness::Ready).then_some(self.config.me.node());
        let live: BTreeSet<NodeName> = others.map(Identity::node).chain(me).cloned().collect();
        if live != self.liveness.live {
            // A member that was alone on its side of a partition has taken over all addresses.
            let (failed, events) = (&mut self.liveness.failed, &mut self.events);
            let back = live.iter().filter(|node| failed.remove(*node)).map(|node| Event::Appeared(node.clone()));
            events.extend(back);
            self.liveness.unresponsive.retain(|node, _| !live.contains(node));
            self.liveness.live = live;
            self.events.push_back(Event::LiveChanged);
        }
        self.select_monitored(now);
    }

    /// The shortest time between two recomputations. In a large cluster it batches members that join together.
    pub(super) fn recompute_interval(&self) -> Duration {
        match u32::try_from(self.gossip.len()).unwrap_or(u32::MAX) {
            0..LARGE => Duration::ZERO,
            size => INTERVAL_PER_MEMBER * size,
        }
    }

    /// Records that a member failed, unless it said that it was leaving.
    pub(super) fn mark_failed(&mut self, node: &NodeName) {
        if self.hosts.by_node(node).is_none_or(|host| host.readiness != Readiness::Draining) {
            self.liveness.failed.insert(node.clone());
            self.events.push_back(Event::Failed(node.clone()));
        }
    }

    /// Whether this node hears none of several failed members. Its receive path is then more likely to be broken than
    /// all of them to be dead.
    pub(crate) fn may_have_unidirectional_link(&self) -> bool {
        self.liveness.failed.len() > 1 && self.live().iter().all(|node| node == self.config.me.node())
    }

    /// A datagram of a node arrived that is not an answer. A failed node that still sends may have lost its receive
    /// path, and may announce all addresses. While it does, the live nodes repeat their own announcements. Replayed
    /// datagrams cause one repetition a minute.
    pub(super) fn note_unresponsive(&mut self, now: Instant, node: &NodeName, readiness: Readiness) {
        if readiness != Readiness::Ready || self.phase != Phase::Joined || self.live().contains(node) {
            return;
        }
        let unresponsive = self.liveness.unresponsive.entry(node.clone()).or_insert_with(|| Unresponsive::new(now));
        if unresponsive.repeat_at <= now {
            unresponsive.advance(now);
            self.events.push_back(Event::Failed(node.clone()));
        }
    }

    /// An unresponsive node may continue to announce addresses after it has stopped to send datagrams to this one.
    pub(super) fn run_unresponsive(&mut self, now: Instant) {
        for (node, unresponsive) in &mut self.liveness.unresponsive {
            if unresponsive.claims_at().is_some_and(|at| at <= now) {
                unresponsive.advance(now);
                self.events.push_back(Event::Failed(node.clone()));
            }
        }
    }
}

/// Whether a notification of gossip may change the live members.
pub(super) fn is_outdated_by(live: &BTreeSet<NodeName>, notification: &OwnedNotification<Identity>) -> bool {
    match notification {
        OwnedNotification::MemberUp(member) => !live.contains(member.node()),
        _ => true,
    }
}

/// The time between two repetitions of [`Event::Failed`] for an unresponsive node, at first and at most.
const REPEAT_INTERVAL: Duration = Duration::from_millis(400);
const REPEAT_INTERVAL_MAX: Duration = Duration::from_secs(64);

/// How long a node may announce addresses of others after it lost its receive path: it starts after
/// [`Timing::isolation`] and sends gratuitous frames for five seconds.
///
/// [`Timing::isolation`]: super::Timing::isolation
const CLAIMS_FOR: Duration = Duration::from_secs(7);

/// From this number of members on, changes are batched.
const LARGE: u32 = 64;
const INTERVAL_PER_MEMBER: Duration = Duration::from_micros(10);
