//! One configured peer, sans-IO: when to connect, which of two connections is kept, and which routes to advertise.
//!
//! ```text
//!            connected             OPEN                KEEPALIVE
//!   Idle ──> Connect ───> OpenSent ──> OpenConfirm ──> Established
//!     ^         │  ╲        ↑  │            │               │
//!     │         │   Active ─┘  │            │               │      Active: waiting for the peer to connect
//!     └─────────┴──────────────┴────────────┴───────────────┘      any failure: back-off, then retry
//! ```
//!
//! If only this end connects, there is never a second connection. If both ends connect, both resolve the collision by
//! RFC 4271 §6.8 and keep the same connection.

mod collision;
#[cfg(feature = "io")]
mod direct;

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

#[cfg(feature = "io")]
pub(crate) use self::direct::DirectWrites;
use crate::rib::{AdjRibOut, NextHops, SharedPrefixes};
use crate::session::{
    Action, Backoff, BfdState, ConfigChange, ConnectionError, Counters, DownReason, Event, Mode, Negotiated, Role,
    Session, SessionConfig, Shared, Slot, State, Step, Stop, Timer, Timers,
};
use crate::types::{Asn, Attributes, RouterId};
use crate::wire::iana::CeaseSubcode;
use crate::wire::notification::Notification;

/// One peer.
///
/// The driver passes inputs with the `handle_*` methods and commands with the others. After each of them it drains
/// [`poll_transmit`](Self::poll_transmit) for both slots, [`poll_action`](Self::poll_action) and
/// [`poll_event`](Self::poll_event), and re-arms its timer on [`poll_timeout`](Self::poll_timeout). Time never goes
/// backwards. The same seed and the same inputs give the same bytes. The [crate documentation](crate) has an example.
#[derive(Debug)]
pub struct Peer {
    shared: Shared,
    attempt: Attempt,
    sessions: [Option<Session>; 2],
    /// The remaining bytes of connections that have ended.
    shutdown_messages: [Vec<u8>; 2],
    timers: Timers,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    stopped: bool,
    /// BFD went from Up to Down. Until this time the next attempt waits for BFD.
    bfd_wait: Option<Instant>,
    bfd: Option<BfdState>,
    last_down: Option<DownReason>,
}

/// The current attempt to get a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Attempt {
    /// None: there is a connection, or the pause before the next attempt is running.
    None,
    /// This end is opening a connection.
    Connecting(Slot),
    /// The peer is expected to open a connection.
    Waiting,
}

impl Peer {
    /// A peer, to which the driver connects immediately unless the mode is passive. `seed` jitters its timers.
    #[must_use]
    pub fn new(config: SessionConfig, seed: u64, now: Instant) -> Self {
        let mut peer = Self {
            attempt: Attempt::None,
            sessions: [None, None],
            shutdown_messages: [Vec::new(), Vec::new()],
            timers: Timers::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            stopped: false,
            bfd_wait: None,
            bfd: None,
            last_down: None,
            shared: Shared {
                rib: AdjRibOut::default(),
                counters: Counters::default(),
                backoff: Backoff::new(seed, config.connect_time),
                restarting: config.graceful_restart,
                routes_known: false,
                last_open: None,
                config,
            },
        };
        peer.start(now);
        peer
    }

    /// Shares the memory of prefixes with other peers, see [`AdjRibOut::share_prefixes`].
    pub fn share_prefixes(&mut self, with: &SharedPrefixes) {
        self.shared.rib.share_prefixes(with);
    }

    /// The connection of [`Action::Connect`] is open. `next_hops` are the addresses of this end.
    pub fn handle_connected(&mut self, now: Instant, router_id: RouterId, next_hops: NextHops) {
        if let Attempt::Connecting(slot) = self.attempt {
            self.attempt = Attempt::None;
            self.timers.set(Timer::Connect, None);
            self.open(now, slot, Role::Active, router_id, next_hops);
        }
    }

    /// The peer has opened a connection. `None` if it is not accepted: close it. An accepted connection may still be
    /// closed immediately, with a NOTIFICATION.
    pub fn handle_accepted(&mut self, now: Instant, router_id: RouterId, next_hops: NextHops) -> Option<Slot> {
        if self.shared.config.mode == Mode::Active || self.state() == State::Idle {
            return None;
        }
        let taken = |slot: Slot| self.session(slot).is_some() || self.attempt == Attempt::Connecting(slot);
        let slot = Slot::ALL.into_iter().find(|slot| !taken(*slot))?;
        let established = self.established().and_then(|slot| self.session(slot));
        let collides = established.is_some_and(|session| !session.peer_may_restart());
        self.open(now, slot, Role::Passive, router_id, next_hops);
        if collides {
            self.close_collision(now, slot);
        } else {
            self.stop_waiting();
        }
        Some(slot)
    }

    fn handle_connect_failed(&mut self, now: Instant, error: ConnectionError) {
        let Attempt::Connecting(_) = self.attempt else { return };
        self.attempt = Attempt::None;
        self.timers.set(Timer::Connect, None);
        let reason = DownReason::ConnectFailed(error);
        if self.sessions.iter().any(Option::is_some) {
            self.events.push_back(Event::Dropped { role: Role::Active, reason });
            return;
        }
        self.note_down(State::Connect, reason);
        let pause = self.next_pause(now);
        if self.shared.config.mode == Mode::Both {
            self.attempt = Attempt::Waiting;
        }
        self.timers.set(Timer::IdleHold, Some(now + pause));
    }

    /// A connection ended, or could not be opened.
    pub fn handle_failed(&mut self, now: Instant, slot: Slot, error: ConnectionError) {
        if self.attempt == Attempt::Connecting(slot) {
            self.handle_connect_failed(now, error);
        } else if self.session(slot).is_some() {
            self.end(now, slot, DownReason::ConnectionLost(error));
        }
    }

    /// Bytes from the peer, in the order of the stream.
    pub fn handle_bytes(&mut self, now: Instant, slot: Slot, bytes: &[u8]) {
        let Some(session) = &mut self.sessions[slot as usize] else { return };
        session.receive(bytes);
        while let Some(session) = &mut self.sessions[slot as usize] {
            let step = session.step(now, &mut self.shared);
            if matches!(step, Step::Idle) {
                return session.flush(now, &mut self.shared);
            }
            self.apply(now, slot, step);
        }
    }

    /// The addresses of this host have changed: an established session advertises its routes with the new next hops,
    /// and withdraws those of a family that has none any more.
    pub fn set_next_hops(&mut self, now: Instant, slot: Slot, next_hops: NextHops) {
        if let Some(session) = &mut self.sessions[slot as usize] {
            session.set_next_hops(now, next_hops, &mut self.shared);
        }
    }

    /// The local address of a connection was removed from this host, and another one is used from now on. The peer should
    /// drop the routes with the old next hop, even if it would keep them over a restart.
    pub fn handle_source_removed(&mut self, now: Instant, slot: Slot, address: IpAddr) {
        if let Some(session) = &mut self.sessions[slot as usize] {
            session.close_hard(Notification::new(CeaseSubcode::OtherConfigurationChange, &[]), &mut self.shared);
            self.end(now, slot, DownReason::ConnectionLost(ConnectionError::SourceRemoved(address)));
        }
    }

    /// The cause of the last failure is gone, so the next attempt does not wait for the end of the pause.
    pub fn retry(&mut self, now: Instant) {
        if self.bfd_wait.is_none() && self.timers.at(Timer::IdleHold).is_some_and(|at| at > now + RETRY) {
            let pause = self.shared.backoff.jitter(RETRY);
            self.timers.set(Timer::IdleHold, Some(now + pause));
        }
    }

    /// Processes expired timers. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        for slot in Slot::ALL {
            while let Some(session) = &mut self.sessions[slot as usize] {
                match session.handle_timeout(now, &mut self.shared) {
                    Step::Idle => break,
                    step => self.apply(now, slot, step),
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
                    self.handle_connect_failed(now, ConnectionError::TimedOut);
                }
                // The other timers belong to sessions.
                _ => {}
            }
        }
    }

    /// Reports whether the connection accepted all bytes that were taken last. While it is `blocked`, only keepalives
    /// are added to the output; if it stays blocked for too long, the session ends (RFC 9687). If it is not blocked,
    /// more output may follow.
    pub fn handle_send(&mut self, now: Instant, slot: Slot, blocked: bool) {
        if let Some(session) = &mut self.sessions[slot as usize] {
            session.handle_send(now, blocked, &mut self.shared);
        }
    }

    /// The state of the path as reported by BFD (RFC 5882 §4.3.2). If BFD goes from Up to Down, the session ends, and the
    /// next attempt waits for BFD, but not for long: BFD of the router may have ended while BGP and the path are fine. BFD
    /// that was not Up since then says nothing about the path, and ends no session.
    pub fn handle_bfd(&mut self, now: Instant, state: BfdState) {
        let before = self.bfd.replace(state);
        match state {
            BfdState::Down => {
                if before != Some(BfdState::Up) {
                    return;
                }
                self.bfd_wait = Some(now + BFD_WAIT);
                if let Attempt::Connecting(slot) = self.attempt {
                    self.actions.push_back(Action::Close(slot));
                    self.handle_connect_failed(now, ConnectionError::BfdDown);
                }
                // RFC 9384
                self.close_all(now, &Notification::new(CeaseSubcode::BfdDown, &[]));
            }
            BfdState::Up | BfdState::AdminDown => self.end_bfd_wait(now),
        }
    }

    /// BFD watches another path from now on, so the failure of the previous one does not count.
    pub fn forget_bfd(&mut self, now: Instant) {
        self.bfd = None;
        self.end_bfd_wait(now);
    }

    /// The next attempt waits for BFD, at most until this time.
    #[must_use]
    pub fn waits_for_bfd_until(&self) -> Option<Instant> {
        let idle = self.attempt != Attempt::Waiting && self.state() == State::Idle;
        self.bfd_wait.filter(|_| idle).and(self.timers.at(Timer::IdleHold))
    }

    fn end_bfd_wait(&mut self, now: Instant) {
        let waited = self.bfd_wait.take().is_some();
        if waited && self.attempt == Attempt::None && self.timers.at(Timer::IdleHold).is_some() {
            let pause = self.shared.backoff.jitter(BFD_SETTLE);
            self.timers.set(Timer::IdleHold, Some(now + pause));
        }
    }

    /// Applies a change of the configuration that an established session survives. Returns `false` and changes nothing
    /// if the change needs a new session.
    pub fn reconfigure(&mut self, config: SessionConfig) -> bool {
        if self.shared.config.change_to(&config) == ConfigChange::Restart {
            return false;
        }
        self.shared.backoff.set_fixed(config.connect_time);
        self.shared.config = config;
        true
    }

    /// Replaces the routes to advertise. The first call also allows End-of-RIB to be sent.
    pub fn set_routes(&mut self, now: Instant, routes: impl IntoIterator<Item = (IpNet, Arc<Attributes>)>) {
        self.replace_routes(now, routes);
    }

    /// As [`set_routes`](Self::set_routes), with attributes that may be borrowed.
    pub(crate) fn replace_routes(
        &mut self,
        now: Instant,
        routes: impl IntoIterator<Item = (IpNet, impl Borrow<Arc<Attributes>>)>,
    ) {
        let first = !std::mem::replace(&mut self.shared.routes_known, true);
        if self.shared.rib.replace(routes) || first {
            self.send_routes(now);
        }
    }

    /// Changes single routes, or removes them with `None`, at a cost independent of the number of other routes. Call
    /// [`set_routes`](Self::set_routes) first: only it says that the routes are complete.
    pub fn change_routes(&mut self, now: Instant, changes: impl IntoIterator<Item = (IpNet, Option<Arc<Attributes>>)>) {
        let mut changed = false;
        for (prefix, attributes) in changes {
            changed |= self.shared.rib.change(prefix, attributes.as_ref());
        }
        if changed {
            self.send_routes(now);
        }
    }

    /// Starts or ends a graceful shutdown (RFC 8326): advertises each route again with the community GRACEFUL_SHUTDOWN
    /// and, to an internal peer, the lowest LOCAL_PREF, so that the peer moves traffic away before the routes are
    /// withdrawn.
    pub fn set_draining(&mut self, now: Instant, draining: bool) {
        self.shared.rib.set_draining(draining);
        self.send_routes(now);
    }

    /// Prepares a [`stop`](Self::stop) with `Restart` (`keep_routes`) or `Shutdown`: starts a graceful shutdown if the
    /// peer will drop the routes. A peer that keeps the routes over the restart gets nothing, because the lowest
    /// LOCAL_PREF would stay in use there. Returns whether the graceful shutdown was started; the peer then needs time
    /// to move traffic.
    pub fn prepare_leave(&mut self, now: Instant, keep_routes: bool) -> bool {
        let Some(session) = self.established().and_then(|slot| self.session(slot)) else { return false };
        if keep_routes && session.peer_keeps_routes() || self.shared.rib.wanted() == 0 {
            return false;
        }
        self.set_draining(now, true);
        true
    }

    /// Ends the session for good. Routes that the peer should not keep are withdrawn first, as far as the connection
    /// accepts bytes; the NOTIFICATION that follows withdraws the rest.
    pub fn stop(&mut self, now: Instant, stop: Stop) {
        self.stopped = true;
        if let Attempt::Connecting(slot) = std::mem::replace(&mut self.attempt, Attempt::None) {
            self.actions.push_back(Action::Close(slot));
        }
        self.timers.clear();
        let restarts =
            matches!(stop, Stop::Restart(_)) && self.sessions.iter().flatten().any(Session::peer_keeps_routes);
        if !restarts && !matches!(stop, Stop::Reconfigured) && self.shared.rib.set([]) {
            self.send_routes(now);
        }
        let mut was_up = false;
        for slot in Slot::ALL {
            let Some(session) = &mut self.sessions[slot as usize] else { continue };
            was_up = true;
            let shared = &mut self.shared;
            let reason = match &stop {
                // RFC 4724 §4: a restart is recognised by the end of the connection without a NOTIFICATION.
                Stop::Restart(_) | Stop::Reconfigured if session.peer_keeps_routes() => DownReason::Stopped,
                Stop::Restart(text) | Stop::Shutdown(text) => session.close_hard(Notification::shutdown(text), shared),
                Stop::Deconfigured => {
                    session.close_hard(Notification::new(CeaseSubcode::PeerDeconfigured, &[]), shared)
                }
                Stop::Reconfigured => {
                    session.close(Notification::new(CeaseSubcode::OtherConfigurationChange, &[]), shared)
                }
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

    /// Takes the bytes to send on a connection, including the last ones after the session has ended.
    pub fn poll_transmit(&mut self, slot: Slot) -> Vec<u8> {
        match &mut self.sessions[slot as usize] {
            Some(session) => session.take_output(),
            None => std::mem::take(&mut self.shutdown_messages[slot as usize]),
        }
    }

    /// The next action for the driver.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next event for the layer above.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The state of the peer: of two connections, the more advanced one.
    #[must_use]
    pub fn state(&self) -> State {
        let attempt = match self.attempt {
            Attempt::None => State::Idle,
            Attempt::Connecting(_) => State::Connect,
            Attempt::Waiting => State::Active,
        };
        self.sessions.iter().flatten().map(Session::state).max().unwrap_or(attempt).max(attempt)
    }

    /// The time at which the session was established, while it is.
    #[must_use]
    pub fn established_at(&self) -> Option<Instant> {
        self.sessions.iter().flatten().find_map(Session::established_at)
    }

    /// Why the last session, or attempt, ended.
    #[must_use]
    pub const fn last_down(&self) -> Option<&DownReason> {
        self.last_down.as_ref()
    }

    /// The negotiated capabilities, from the peer's OPEN on.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        let furthest = self.sessions.iter().flatten().max_by_key(|session| session.state());
        furthest.and_then(Session::negotiated)
    }

    /// The next hops in use, from the peer's OPEN on.
    #[must_use]
    pub fn next_hops(&self) -> Option<&NextHops> {
        let furthest = self.sessions.iter().flatten().max_by_key(|session| session.state());
        furthest.filter(|session| session.negotiated().is_some()).map(Session::next_hops)
    }

    /// The routes of the peer.
    #[must_use]
    pub const fn rib(&self) -> &AdjRibOut {
        &self.shared.rib
    }

    /// AS number and BGP identifier in the peer's last OPEN, whether or not it was accepted.
    #[must_use]
    pub const fn last_open(&self) -> Option<(Asn, RouterId)> {
        self.shared.last_open
    }

    /// The configuration of the session.
    #[must_use]
    pub const fn config(&self) -> &SessionConfig {
        &self.shared.config
    }

    /// Counters since the creation of the peer.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Starts an attempt: connects, or waits for the peer to connect.
    fn start(&mut self, now: Instant) {
        if self.shared.config.mode == Mode::Passive {
            self.attempt = Attempt::Waiting;
            return;
        }
        // There is no connection now, or one that the peer has opened in the meantime.
        if let Some(slot) = Slot::ALL.into_iter().find(|slot| self.session(*slot).is_none())
            && self.sessions.iter().all(Option::is_none)
        {
            self.attempt = Attempt::Connecting(slot);
            self.timers.set(Timer::Connect, Some(now + CONNECT_TIMEOUT));
            self.actions.push_back(Action::Connect(slot));
        }
    }

    fn open(&mut self, now: Instant, slot: Slot, role: Role, router_id: RouterId, next_hops: NextHops) {
        self.shutdown_messages[slot as usize].clear();
        self.sessions[slot as usize] = Some(Session::new(now, role, router_id, next_hops, &mut self.shared));
    }

    /// Ends the wait for the peer's connection, because there is one.
    fn stop_waiting(&mut self) {
        if self.attempt == Attempt::Waiting {
            self.attempt = Attempt::None;
            self.timers.set(Timer::IdleHold, None);
        }
    }

    fn apply(&mut self, now: Instant, slot: Slot, step: Step) {
        match step {
            Step::Idle | Step::Processed => {}
            Step::OpenAccepted => self.resolve_collision(now, slot),
            Step::Established => self.note_established(slot),
            Step::Ended(reason) => self.end(now, slot, reason),
        }
    }

    fn note_established(&mut self, slot: Slot) {
        // An attempt in progress could only add a connection that collides.
        if let Attempt::Connecting(other) = std::mem::replace(&mut self.attempt, Attempt::None) {
            self.timers.set(Timer::Connect, None);
            self.actions.push_back(Action::Close(other));
        }
        if let Some(negotiated) = self.session(slot).and_then(Session::negotiated) {
            let event = Event::Established { asn: negotiated.remote_asn, hold_time: negotiated.hold_time };
            self.events.push_back(event);
        }
    }

    fn close_all(&mut self, now: Instant, notification: &Notification) {
        for slot in Slot::ALL {
            if let Some(session) = &mut self.sessions[slot as usize] {
                let reason = session.close_hard(notification.clone(), &mut self.shared);
                self.end(now, slot, reason);
            }
        }
    }

    /// Ends a session.
    fn end(&mut self, now: Instant, slot: Slot, reason: DownReason) {
        let Some(mut session) = self.sessions[slot as usize].take() else { return };
        self.shutdown_messages[slot as usize] = session.take_output();
        self.actions.push_back(Action::Close(slot));
        let others = matches!(self.attempt, Attempt::Connecting(_)) || self.session(slot.other()).is_some();
        if others && session.state() != State::Established {
            self.events.push_back(Event::Dropped { role: session.role(), reason });
            return;
        }
        // RFC 4271 §8.2.2. A peer that is pausing closes our connection; it must be able to connect when its own pause
        // ends.
        let refused = session.state() == State::OpenSent && matches!(reason, DownReason::ConnectionLost(_));
        if refused && self.shared.config.mode == Mode::Both && !self.stopped {
            self.attempt = Attempt::Waiting;
        }
        self.note_down(session.state(), reason);
        if !self.stopped && !others {
            let pause = self.next_pause(now);
            self.timers.set(Timer::IdleHold, Some(now + pause));
        }
    }

    fn note_down(&mut self, from: State, reason: DownReason) {
        self.shared.rib.reset();
        self.last_down = Some(reason.clone());
        self.events.push_back(Event::Down { from, reason });
    }

    fn next_pause(&mut self, now: Instant) -> Duration {
        let pause = self.shared.backoff.next(now);
        self.bfd_wait.map_or(pause, |until| pause.max(until.saturating_duration_since(now)))
    }

    fn send_routes(&mut self, now: Instant) {
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

/// Limit for one connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for the wait for BFD after it went down. Then a connection is attempted without it, because BFD of the peer may
/// have ended or been removed from its configuration. On a working path BFD returns within about three seconds: it sends
/// a packet a second while it is down (RFC 5880 §6.8.3).
const BFD_WAIT: Duration = Duration::from_secs(10);

/// Pause before the next attempt when the cause of the failure is gone.
const RETRY: Duration = Duration::from_millis(200);

/// Pause between the return of BFD and the next attempt.
const BFD_SETTLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
