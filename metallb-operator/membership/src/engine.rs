//! The membership engine: which speakers are live.
//!
//! It combines SWIM gossip (the crate `foca`), which keeps the list of members and finds every dead one within seconds,
//! with the failure detector, which finds a dead owner of addresses within half a second.

mod event;
mod gossip;
mod hardware;
mod indirect;
mod join;
mod link;
mod liveness;
mod receive;
mod resolve;
mod ring;
#[cfg(any(test, feature = "testing"))]
mod testing;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub use self::event::{Counters, Event, Rejected, Transmit, Urgency};
use self::gossip::Gossip;
use self::hardware::OwnHardware;
use self::indirect::PingRequests;
use self::join::Joining;
pub use self::link::Link;
use self::link::Return;
use self::liveness::Liveness;
use self::resolve::Resolver;
pub use crate::failure_detector::Timing;
use crate::failure_detector::{Action, FailureDetector};
use crate::hosts::{EarlyDatagrams, Hosts, PendingMessages};
use crate::wire::identity::Identity;
use crate::wire::message::{Body, Message, Readiness};
use crate::wire::seal::Keyring;

/// The configuration of an engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member. Its incarnation must be higher than that of each earlier start on this node.
    pub me: Identity,
    /// A number that no other start of any speaker shares: drawn from the system's random source.
    pub session: u64,
    /// The keys of the cluster.
    pub keys: Keyring,
    /// The times of the failure detector.
    pub timing: Timing,
    /// Slower gossip, for nodes that are far apart.
    pub wan: bool,
}

/// Finds out which speakers are live.
///
/// Facts go in through `join`, `monitor` and the `handle_*` methods. After each of them, call `poll_event` and
/// `poll_transmit` until they return `None`, then wait until `poll_timeout`. Time never goes backwards. The same seed
/// and inputs give the same outputs. [`Member`](crate::member::Member) adds the handover of addresses.
pub struct Engine {
    config: Config,
    /// The sequence number of the last datagram sent.
    sequence: u64,
    readiness: Readiness,
    link: Link,
    /// Set while this node prepares to become ready again.
    returning: Option<Return>,
    hardware: OwnHardware,
    gossip: Gossip,
    hosts: Hosts,
    pending: PendingMessages,
    early: EarlyDatagrams,
    detector: FailureDetector,
    ping_requests: PingRequests,
    joining: Joining,
    resolver: Resolver,
    phase: Phase,
    /// The nodes whose addresses this node would inherit.
    predecessors: BTreeSet<NodeName>,
    /// The earliest time at which this node refutes its own death again.
    refute_after: Instant,
    liveness: Liveness,
    /// When a datagram of any member last arrived.
    last_heard: Instant,
    /// Not capped: the caller empties it after each input, which adds a few datagrams per known host at most.
    outgoing: VecDeque<Transmit>,
    /// Not capped, for the same reason.
    events: VecDeque<Event>,
    counters: Counters,
}

/// The progress of joining the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// `join` has not been called: nothing is sent or accepted.
    Idle,
    /// Other members may answer until then.
    Joining(Instant),
    /// The live members are known.
    Joined,
}

impl Engine {
    /// An engine that is silent until [`join`](Self::join). `seed` starts the random choices of gossip.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        Self {
            sequence: 0,
            readiness: Readiness::Ready,
            link: Link::Up,
            returning: None,
            hardware: OwnHardware::default(),
            gossip: Gossip::new(config.me.clone(), config.wan, SmallRng::seed_from_u64(seed)),
            hosts: Hosts::default(),
            pending: PendingMessages::default(),
            early: EarlyDatagrams::default(),
            detector: FailureDetector::new(config.me.node().clone(), config.timing),
            ping_requests: PingRequests::default(),
            joining: Joining::new(now),
            resolver: Resolver::new(now),
            phase: Phase::Idle,
            predecessors: BTreeSet::new(),
            refute_after: now,
            liveness: Liveness::new(config.me.node().clone(), now),
            last_heard: now,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// Replaces the keys; the first one seals from now on.
    pub(crate) fn set_keys(&mut self, keys: Keyring) {
        self.config.keys = keys;
    }

    /// Replaces the nodes whose addresses this node would inherit. In a small cluster it monitors exactly these. In a
    /// large one each member monitors a few others and reports a death to all.
    pub fn monitor(&mut self, now: Instant, predecessors: impl IntoIterator<Item = NodeName>) {
        let me = self.config.me.node();
        self.predecessors = predecessors.into_iter().filter(|node| node != me).collect();
        self.select_monitored(now);
        self.recompute_live(now);
    }

    /// Changes the readiness of this node and sends it to all members. [`Readiness::Draining`] and
    /// [`Readiness::NotReady`] take effect immediately. [`Readiness::Ready`] is sent after the monitored members have
    /// answered, or after 150 ms.
    pub(crate) fn set_readiness(&mut self, now: Instant, readiness: Readiness) {
        match (self.readiness, readiness) {
            (Readiness::NotReady, Readiness::Ready) if self.phase == Phase::Joined => {
                if self.returning.is_none() {
                    self.begin_return(now);
                }
            }
            _ => {
                self.returning = None;
                self.apply_readiness(now, readiness);
            }
        }
        self.recompute_live(now);
    }

    fn apply_readiness(&mut self, now: Instant, readiness: Readiness) {
        if readiness == self.readiness {
            return;
        }
        self.readiness = readiness;
        self.liveness.outdated = true;
        self.send_readiness(now);
        if readiness == Readiness::Draining {
            self.notify_declared_dead(now);
        }
    }

    /// Sends the readiness of this node to all members again, in case the first datagram was lost.
    pub(crate) fn send_readiness(&mut self, now: Instant) {
        for address in self.member_addresses() {
            self.send_to(now, address, Message::Readiness);
        }
    }

    fn member_addresses(&self) -> Vec<SocketAddr> {
        self.gossip.members().map(|member| member.address).collect()
    }

    /// Leaves the cluster permanently.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.gossip.leave();
        self.recompute_live(now);
    }

    /// Sends a message to a member. Dropped if there is no such member.
    pub(crate) fn send(&mut self, now: Instant, to: &NodeName, message: Message) {
        if let Some(address) = self.address_of(to) {
            self.send_to(now, address, message);
        }
    }

    /// Processes a received datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.receive(now, from, datagram);
        self.recompute_live(now);
    }

    /// Does what is due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.gossip.run_timer(now) {
            self.drain_gossip(now);
        }
        if let Phase::Joining(until) = self.phase
            && until <= now
        {
            self.finish_joining();
        }
        self.run_return(now);
        self.liveness.outdated |= self.isolated_at().is_some_and(|at| at <= now);
        self.run_joining(now);
        self.pending.take_due(now).into_iter().for_each(|address| self.send_join(address));
        self.run_resolver(now);
        self.run_ping_requests(now);
        self.run_unresponsive(now);
        let Self { detector, gossip, config, hosts, .. } = self;
        let others = |target: &NodeName| -> Vec<NodeName> {
            // Those heard last come first: they are the most likely to answer.
            let mut others: Vec<(&NodeName, Instant)> = gossip
                .members()
                .map(Identity::node)
                .filter(|node| *node != target && *node != config.me.node())
                .filter_map(|node| Some((node, hosts.by_node(node)?.last_heard)))
                .collect();
            others.sort_by_key(|&(_, last_heard)| std::cmp::Reverse(last_heard));
            others.truncate(WITNESSES_CONSIDERED);
            others.into_iter().map(|(node, _)| node.clone()).collect()
        };
        let actions = detector.handle_timeout(now, others);
        actions.into_iter().for_each(|action| self.act(now, action));
        self.recompute_live(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outgoing.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let joining = match self.phase {
            Phase::Idle => return None,
            Phase::Joining(until) => Some(until),
            Phase::Joined => None,
        };
        // Timers of gossip may run late. They share the wake-ups of other timers and rarely cause one of their own.
        let gossip = self.gossip.poll_timeout().map(|at| at + GOSSIP_SLACK);
        let recompute = self.liveness.outdated.then(|| self.liveness.recomputed_at + self.recompute_interval());
        self.ping_requests
            .poll_timeout()
            .into_iter()
            .chain(gossip)
            .chain(joining)
            .chain(self.detector.poll_timeout())
            .chain(recompute)
            .chain(self.returning.as_ref().map(Return::poll_timeout))
            .chain(self.isolated_at())
            .chain(self.liveness.poll_timeout())
            .chain(self.pending.poll_timeout())
            .chain(self.resolver_timeout())
            .chain([self.joining.poll_timeout()])
            .min()
    }

    /// The nodes whose speakers are live and ready, this one included.
    #[must_use]
    pub const fn live(&self) -> &BTreeSet<NodeName> {
        &self.liveness.live
    }

    /// The number of members that gossip knows, without this one.
    pub(crate) fn members(&self) -> usize {
        self.gossip.len()
    }

    /// Whether the live members are known, as far as any have answered.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.phase == Phase::Joined
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn act(&mut self, now: Instant, action: Action) {
        match action {
            Action::Ping(node) => self.ping(now, &node, Message::Ping),
            Action::Probe(node) => self.ping(now, &node, Message::Probe),
            Action::PingReq { witness, target, token } => {
                if let Some(address) = self.address_of(&witness) {
                    self.send_to(now, address, Message::PingReq { target, token });
                }
            }
            Action::Suspected(node) => {
                self.counters.suspected += 1;
                self.events.push_back(Event::Suspected(node));
            }
            Action::Refuted(node) => {
                self.counters.refuted += 1;
                self.events.push_back(Event::Refuted(node));
            }
            Action::DeclareDead(node, last_heard) => {
                self.liveness.outdated = true;
                self.counters.declared_dead += 1;
                self.mark_failed(&node);
                self.report_death(now, &node, last_heard);
                self.events.push_back(Event::DeclaredDead { node, last_heard });
            }
            Action::Recovered(node) => {
                self.liveness.outdated = true;
                self.events.push_back(Event::Recovered(node));
            }
        }
    }

    fn ping(&mut self, now: Instant, node: &NodeName, ping: Message) {
        if let Some(address) = self.address_of(node) {
            match self.hosts.get(address) {
                Some(_) => self.send_to(now, address, ping),
                None => self.send_join(address),
            }
        }
    }

    /// The address of a node: its own statement, or else that of gossip.
    fn address_of(&self, node: &NodeName) -> Option<SocketAddr> {
        self.hosts
            .by_node(node)
            .map(|host| host.identity.address)
            .or_else(|| self.gossip.members().find(|member| member.node() == node).map(|member| member.address))
    }

    /// Sends a message, after a handshake if the session of the host is unknown.
    fn send_to(&mut self, now: Instant, address: SocketAddr, message: Message) {
        match self.hosts.get(address).map(|host| host.session) {
            Some(session) => self.transmit(address, session, message),
            None => {
                if self.pending.push(now, address, message) {
                    self.send_join(address);
                }
            }
        }
    }

    fn send_join(&mut self, address: SocketAddr) {
        self.transmit(address, 0, Message::Join);
    }

    fn transmit(&mut self, address: SocketAddr, receiver_session: u64, message: Message) {
        if self.link == Link::Down {
            return;
        }
        let urgency = match message {
            Message::Ping | Message::Pong => Urgency::Routine,
            _ => Urgency::Prompt,
        };
        let Some(body) = (Body { receiver_session, readiness: self.readiness, message }).encode() else { return };
        self.sequence += 1;
        let datagram = self.config.keys.seal(self.config.session, self.sequence, &body);
        self.counters.sent += 1;
        self.counters.bytes_sent += datagram.len() as u64;
        self.outgoing.push_back(Transmit { to: address, datagram, urgency });
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("me", &self.config.me).field("live", self.live()).finish_non_exhaustive()
    }
}

/// How late a timer of gossip may run.
const GOSSIP_SLACK: Duration = Duration::from_millis(100);

/// A host that was heard within this time can be reached.
const REACHABLE_FOR: Duration = Duration::from_secs(3);

/// How many members the failure detector may choose its witnesses from.
const WITNESSES_CONSIDERED: usize = 8;

#[cfg(test)]
mod tests;
