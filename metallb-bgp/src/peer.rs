//! The relation to one peer, sans-IO: when to connect, which of two connections stays, and what the peer should know.
//!
//! ```text
//!            connected             OPEN                KEEPALIVE
//!   Idle ──> Connect ───> OpenSent ──> OpenConfirm ──> Established
//!     ^         │  ╲        ↑  │            │               │
//!     │         │   Active ─┘  │            │               │      Active: waiting for the peer to connect
//!     └─────────┴──────────────┴────────────┴───────────────┘      any failure: back-off, jittered, then again
//! ```
//!
//! A speaker that only connects never has a second connection. Where both ends connect, each judges the two by RFC 4271 §6.8 and comes
//! to the same end.

mod collision;

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::rib::{AdjRibOut, NextHops, SharedPrefixes};
use crate::session::{
    Action, Backoff, BfdState, ConfigChange, Counters, DownReason, Event, Mode, Negotiated, Role, Session,
    SessionConfig, Shared, Slot, State, Step, Stop, Timer, Timers,
};
use crate::types::{Attributes, RouterId};
use crate::wire::notification::Notification;

/// One peer. After every input all outputs must be drained.
#[derive(Debug)]
pub struct Peer {
    shared: Shared,
    attempt: Attempt,
    sessions: [Option<Session>; 2],
    /// The last words of connections that are over.
    farewells: [Vec<u8>; 2],
    timers: Timers,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    stopped: bool,
    /// BFD was up and went down: it must come back first.
    path_lost: bool,
    bfd: Option<BfdState>,
    last_down: Option<DownReason>,
}

/// What is done to get a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Attempt {
    /// Nothing: there is one, or it is not yet time.
    None,
    /// One is being opened.
    Connecting(Slot),
    /// The peer is expected to open one.
    Waiting,
}

impl Peer {
    /// A peer that is connected to at once, or waited for. `seed` jitters its timers.
    #[must_use]
    pub fn new(config: SessionConfig, seed: u64, now: Instant) -> Self {
        let mut peer = Self {
            attempt: Attempt::None,
            sessions: [None, None],
            farewells: [Vec::new(), Vec::new()],
            timers: Timers::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            stopped: false,
            path_lost: false,
            bfd: None,
            last_down: None,
            shared: Shared {
                rib: AdjRibOut::default(),
                counters: Counters::default(),
                backoff: Backoff::new(seed, config.connect_time),
                restarting: config.graceful_restart,
                routes_known: false,
                config,
            },
        };
        peer.start(now);
        peer
    }

    /// Keeps the prefixes of the routes together with those of other peers, see [`AdjRibOut::share_prefixes`].
    pub fn share_prefixes(&mut self, with: &SharedPrefixes) {
        self.shared.rib.share_prefixes(with);
    }

    /// The connection that was asked for is open. `next_hops` are this end's addresses.
    pub fn handle_connected(&mut self, now: Instant, router_id: RouterId, next_hops: NextHops) {
        if let Attempt::Connecting(slot) = self.attempt {
            self.attempt = Attempt::None;
            self.timers.set(Timer::Connect, None);
            self.open(now, slot, Role::Active, router_id, next_hops);
        }
    }

    /// The peer has opened a connection. `None` when there is no place for it: close it without a word. A connection that gets a slot may
    /// still be closed at once, with a NOTIFICATION.
    pub fn handle_accepted(&mut self, now: Instant, router_id: RouterId, next_hops: NextHops) -> Option<Slot> {
        if self.shared.config.mode == Mode::Active || self.state() == State::Idle {
            return None;
        }
        let taken = |slot: Slot| self.session(slot).is_some() || self.attempt == Attempt::Connecting(slot);
        let slot = Slot::ALL.into_iter().find(|slot| !taken(*slot))?;
        let established = self.established().and_then(|slot| self.session(slot));
        let refused = established.is_some_and(|session| !session.peer_may_restart());
        self.open(now, slot, Role::Passive, router_id, next_hops);
        if refused {
            self.collide(now, slot);
        } else {
            self.settle_attempt();
        }
        Some(slot)
    }

    /// The attempt to open a connection failed.
    pub fn handle_connect_failed(&mut self, now: Instant, error: &str) {
        let Attempt::Connecting(_) = self.attempt else { return };
        self.attempt = Attempt::None;
        self.timers.set(Timer::Connect, None);
        let reason = DownReason::ConnectFailed(error.to_owned());
        if self.sessions.iter().any(Option::is_some) {
            self.events.push_back(Event::Dropped { role: Role::Active, reason });
            return;
        }
        self.note_down(State::Connect, reason);
        let pause = self.pause(now);
        if self.shared.config.mode == Mode::Both {
            self.attempt = Attempt::Waiting;
        }
        self.timers.set(Timer::IdleHold, Some(now + pause));
    }

    /// A connection broke.
    pub fn handle_failed(&mut self, now: Instant, slot: Slot, error: &str) {
        if self.attempt == Attempt::Connecting(slot) {
            self.handle_connect_failed(now, error);
        } else if self.session(slot).is_some() {
            self.end(now, slot, DownReason::ConnectionLost(error.to_owned()));
        }
    }

    /// Bytes from the peer, in order.
    pub fn handle_bytes(&mut self, now: Instant, slot: Slot, bytes: &[u8]) {
        let Some(session) = &mut self.sessions[slot as usize] else { return };
        session.receive(bytes);
        while let Some(session) = &mut self.sessions[slot as usize] {
            let step = session.step(now, &mut self.shared);
            if matches!(step, Step::Done) {
                return session.flush(now, &mut self.shared);
            }
            self.follow(now, slot, step);
        }
    }

    /// Timers. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        for slot in Slot::ALL {
            while let Some(session) = &mut self.sessions[slot as usize] {
                match session.handle_timeout(now, &mut self.shared) {
                    Step::Done => break,
                    step => self.follow(now, slot, step),
                }
            }
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::IdleHold => self.start(now),
                Timer::Connect => {
                    if let Attempt::Connecting(slot) = self.attempt {
                        self.actions.push_back(Action::Close(slot));
                    }
                    self.handle_connect_failed(now, "timed out");
                }
                // The others belong to sessions.
                _ => {}
            }
        }
    }

    /// Tells that the bytes taken last could, or could not yet, be handed to the connection. While they could not, nothing but
    /// keepalives is added to them; when that lasts too long the session ends (RFC 9687). After those that could, more may follow.
    pub fn handle_send(&mut self, now: Instant, slot: Slot, blocked: bool) {
        if let Some(session) = &mut self.sessions[slot as usize] {
            session.handle_send(now, blocked, &mut self.shared);
        }
    }

    /// What BFD says of the path (RFC 5882). When it fails, so does the session, which comes back when BFD does.
    pub fn handle_bfd(&mut self, now: Instant, state: BfdState) {
        let before = self.bfd.replace(state);
        match state {
            BfdState::Down => {
                self.path_lost |= before == Some(BfdState::Up);
                if !self.path_lost {
                    return;
                }
                if let Attempt::Connecting(slot) = self.attempt {
                    self.actions.push_back(Action::Close(slot));
                    self.handle_connect_failed(now, "BFD is down");
                }
                // RFC 9384
                self.refuse_all(now, &Notification::new(6, 10, &[]));
            }
            BfdState::Up | BfdState::AdminDown => {
                let waited = std::mem::take(&mut self.path_lost);
                if waited && self.attempt == Attempt::None && self.timers.at(Timer::IdleHold).is_some() {
                    let pause = self.shared.backoff.jitter(BFD_SETTLE);
                    self.timers.set(Timer::IdleHold, Some(now + pause));
                }
            }
        }
    }

    /// Changes what can be changed while the session goes on. False, and nothing is done, when the change needs a new session.
    pub fn reconfigure(&mut self, config: SessionConfig) -> bool {
        if self.shared.config.change_to(&config) == ConfigChange::Restart {
            return false;
        }
        self.shared.backoff.set_fixed(config.connect_time);
        self.shared.config = config;
        true
    }

    /// Replaces the routes that the peer should know.
    pub fn set_routes(&mut self, now: Instant, routes: impl IntoIterator<Item = (IpNet, Arc<Attributes>)>) {
        self.replace_routes(now, routes);
    }

    /// The same with attributes that may be borrowed.
    pub(crate) fn replace_routes(
        &mut self,
        now: Instant,
        routes: impl IntoIterator<Item = (IpNet, impl Borrow<Arc<Attributes>>)>,
    ) {
        let first = !std::mem::replace(&mut self.shared.routes_known, true);
        if self.shared.rib.replace(routes) || first {
            self.tell_routes(now);
        }
    }

    /// Changes single routes; `None` takes one back. Costs no look at the others. The first routes come by
    /// [`set_routes`](Self::set_routes), which alone says that these are all.
    pub fn change_routes(&mut self, now: Instant, changes: impl IntoIterator<Item = (IpNet, Option<Arc<Attributes>>)>) {
        let mut changed = false;
        for (prefix, attributes) in changes {
            changed |= self.shared.rib.change(prefix, attributes.as_ref());
        }
        if changed {
            self.tell_routes(now);
        }
    }

    /// Asks the peer to move traffic away before the routes go (RFC 8326), or no longer to: each route is told again with the community
    /// GRACEFUL_SHUTDOWN and, to an internal peer, the least preference.
    pub fn set_draining(&mut self, now: Instant, draining: bool) {
        self.shared.rib.set_draining(draining);
        self.tell_routes(now);
    }

    /// Comes before [`stop`](Self::stop) with `Restart` (`keep_routes`) or `Shutdown`: a peer that will drop the routes is asked to move
    /// traffic away first. One that keeps them over the restart is told nothing, as nothing goes; the least preference would stay with it
    /// all the time. True when the peer was asked, and needs a moment.
    pub fn prepare_leave(&mut self, now: Instant, keep_routes: bool) -> bool {
        let Some(session) = self.established().and_then(|slot| self.session(slot)) else { return false };
        if keep_routes && session.keeps_routes() || self.shared.rib.wanted() == 0 {
            return false;
        }
        self.set_draining(now, true);
        true
    }

    /// Ends the session for good. Routes that are not to be kept are withdrawn first, as far as the connection takes it; the NOTIFICATION
    /// that follows takes what is left.
    pub fn stop(&mut self, now: Instant, stop: Stop) {
        self.stopped = true;
        if let Attempt::Connecting(slot) = std::mem::replace(&mut self.attempt, Attempt::None) {
            self.actions.push_back(Action::Close(slot));
        }
        self.timers.clear();
        let restarts = matches!(stop, Stop::Restart(_)) && self.sessions.iter().flatten().any(Session::keeps_routes);
        if !restarts && !matches!(stop, Stop::Reconfigured) && self.shared.rib.set([]) {
            self.tell_routes(now);
        }
        let mut was_up = false;
        for slot in Slot::ALL {
            let Some(session) = &mut self.sessions[slot as usize] else { continue };
            was_up = true;
            let shared = &mut self.shared;
            let reason = match &stop {
                // RFC 4724 §4: a connection that ends without a NOTIFICATION is what a restart looks like.
                Stop::Restart(_) | Stop::Reconfigured if session.keeps_routes() => DownReason::Stopped,
                Stop::Restart(text) | Stop::Shutdown(text) => session.refuse_hard(Notification::shutdown(text), shared),
                Stop::Deconfigured => session.refuse_hard(Notification::new(6, 3, &[]), shared),
                Stop::Reconfigured => session.refuse(Notification::new(6, 6, &[]), shared),
            };
            self.end(now, slot, reason);
        }
        if !was_up {
            self.note_down(State::Idle, DownReason::Stopped);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.sessions.iter().flatten().filter_map(|session| session.timers().next());
        sessions.chain(self.timers.next()).min()
    }

    /// Takes the bytes to send on a connection, also after its end.
    pub fn poll_transmit(&mut self, slot: Slot) -> Vec<u8> {
        match &mut self.sessions[slot as usize] {
            Some(session) => session.take_output(),
            None => std::mem::take(&mut self.farewells[slot as usize]),
        }
    }

    /// What the driver must do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Where the peer stands: of two connections, the one that got further.
    #[must_use]
    pub fn state(&self) -> State {
        let attempt = match self.attempt {
            Attempt::None => State::Idle,
            Attempt::Connecting(_) => State::Connect,
            Attempt::Waiting => State::Active,
        };
        self.sessions.iter().flatten().map(Session::state).max().unwrap_or(attempt).max(attempt)
    }

    /// Since when the session is established.
    #[must_use]
    pub fn established_at(&self) -> Option<Instant> {
        self.sessions.iter().flatten().find_map(Session::established_at)
    }

    /// Why it ended last.
    #[must_use]
    pub const fn last_down(&self) -> Option<&DownReason> {
        self.last_down.as_ref()
    }

    /// What is in force, from the peer's OPEN on.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        let furthest = self.sessions.iter().flatten().max_by_key(|session| session.state());
        furthest.and_then(Session::negotiated)
    }

    /// The routes.
    #[must_use]
    pub const fn rib(&self) -> &AdjRibOut {
        &self.shared.rib
    }

    /// What passed so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Connects, or waits for the peer to do so.
    fn start(&mut self, now: Instant) {
        if self.shared.config.mode == Mode::Passive {
            self.attempt = Attempt::Waiting;
            return;
        }
        // It is only called when there is no connection, or one that the peer opened meanwhile.
        if let Some(slot) = Slot::ALL.into_iter().find(|slot| self.session(*slot).is_none())
            && self.sessions.iter().all(Option::is_none)
        {
            self.attempt = Attempt::Connecting(slot);
            self.timers.set(Timer::Connect, Some(now + CONNECT_PATIENCE));
            self.actions.push_back(Action::Connect(slot));
        }
    }

    fn open(&mut self, now: Instant, slot: Slot, role: Role, router_id: RouterId, next_hops: NextHops) {
        self.farewells[slot as usize].clear();
        self.sessions[slot as usize] = Some(Session::new(now, role, router_id, next_hops, &mut self.shared));
    }

    /// While there is a connection, the peer is not waited for.
    fn settle_attempt(&mut self) {
        if self.attempt == Attempt::Waiting {
            self.attempt = Attempt::None;
            self.timers.set(Timer::IdleHold, None);
        }
    }

    fn follow(&mut self, now: Instant, slot: Slot, step: Step) {
        match step {
            Step::Done | Step::Read => {}
            Step::Opened => self.resolve(now, slot),
            Step::Established => self.note_established(slot),
            Step::Over(reason) => self.end(now, slot, reason),
        }
    }

    fn note_established(&mut self, slot: Slot) {
        // An attempt that is still going on can only bring a connection too many.
        if let Attempt::Connecting(other) = std::mem::replace(&mut self.attempt, Attempt::None) {
            self.timers.set(Timer::Connect, None);
            self.actions.push_back(Action::Close(other));
        }
        if let Some(negotiated) = self.session(slot).and_then(Session::negotiated) {
            let event = Event::Established { asn: negotiated.remote_asn, hold_time: negotiated.hold_time };
            self.events.push_back(event);
        }
    }

    fn refuse_all(&mut self, now: Instant, notification: &Notification) {
        for slot in Slot::ALL {
            if let Some(session) = &mut self.sessions[slot as usize] {
                let reason = session.refuse_hard(notification.clone(), &mut self.shared);
                self.end(now, slot, reason);
            }
        }
    }

    /// A session is over.
    fn end(&mut self, now: Instant, slot: Slot, reason: DownReason) {
        let Some(mut session) = self.sessions[slot as usize].take() else { return };
        self.farewells[slot as usize] = session.take_output();
        self.actions.push_back(Action::Close(slot));
        let others = matches!(self.attempt, Attempt::Connecting(_)) || self.session(slot.other()).is_some();
        if others && session.state() != State::Established {
            self.events.push_back(Event::Dropped { role: session.role(), reason });
            return;
        }
        // RFC 4271 §8.2.2. A router that pauses closes what is opened to it; one that did so to ours must find us when it tries itself.
        let refused = session.state() == State::OpenSent && matches!(reason, DownReason::ConnectionLost(_));
        if refused && self.shared.config.mode == Mode::Both && !self.stopped {
            self.attempt = Attempt::Waiting;
        }
        self.note_down(session.state(), reason);
        if !self.stopped && !others {
            let pause = self.pause(now);
            self.timers.set(Timer::IdleHold, Some(now + pause));
        }
    }

    fn note_down(&mut self, from: State, reason: DownReason) {
        self.shared.rib.reset();
        self.last_down = Some(reason.clone());
        self.events.push_back(Event::Down { from, reason });
    }

    fn pause(&mut self, now: Instant) -> Duration {
        let pause = self.shared.backoff.next(now);
        if self.path_lost { pause.max(BFD_PATIENCE) } else { pause }
    }

    fn tell_routes(&mut self, now: Instant) {
        for session in self.sessions.iter_mut().flatten() {
            session.handle_routes(now, &mut self.shared);
        }
    }

    fn session(&self, slot: Slot) -> Option<&Session> {
        self.sessions[slot as usize].as_ref()
    }

    fn established(&self) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| self.session(*slot).is_some_and(|one| one.state() == State::Established))
    }
}

/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for BFD to come back before it is tried without: the peer may have been set up anew without BFD.
const BFD_PATIENCE: Duration = Duration::from_secs(120);

/// How long to wait once BFD came back.
const BFD_SETTLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
