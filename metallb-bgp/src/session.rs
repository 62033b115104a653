//! One session with one peer: the state machine of RFC 4271 §8, sans-IO, for a speaker that connects and never listens.
//!
//! ```text
//!            connected            OPEN                KEEPALIVE
//!   Idle ──> Connect ──> OpenSent ──> OpenConfirm ──> Established
//!     ^         │           │             │               │
//!     └─────────┴───────────┴─────────────┴───────────────┘  any failure: back-off, jittered, then again
//! ```

mod backoff;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::backoff::Backoff;
use crate::rib::{AdjRibOut, NextHops};
use crate::types::{Asn, Attributes, Family, RouterId};
use crate::wire::notification::Notification;
use crate::wire::open::{Capabilities, GracefulRestart, Open};
use crate::wire::update::Encoding;
use crate::wire::{MessageType, keepalive, split, update};

/// What a session must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionConfig {
    /// The number we show.
    pub asn: Asn,
    /// The number that we accept.
    pub remote: RemoteAsn,
    /// Proposed hold time, whole seconds, 0 or at least 3.
    pub hold_time: Duration,
    /// Keepalive interval; a third of the hold time where it is not given.
    pub keepalive_time: Option<Duration>,
    /// The pause between attempts; jittered back-off from one second where it is not given.
    pub connect_time: Option<Duration>,
    /// Families to carry.
    pub families: Vec<Family>,
    /// Ask the peer to keep the routes while this speaker restarts.
    pub graceful_restart: bool,
}

/// The autonomous system number that is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteAsn {
    /// Exactly this.
    Number(Asn),
    /// The same as ours.
    Internal,
    /// Any other than ours.
    External,
}

/// Where a session stands (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Waiting before the next attempt, or stopped.
    Idle,
    /// Connecting.
    Connect,
    /// OPEN sent.
    OpenSent,
    /// OPEN accepted.
    OpenConfirm,
    /// Exchanging routes.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Open a connection, then call `handle_connected` or `handle_failed`.
    Connect,
    /// Send what is left, then close the connection.
    Close,
}

/// Something worth telling.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The session is up.
    Established {
        /// The peer's number.
        asn: Asn,
        /// The hold time in force; zero means none.
        hold_time: Duration,
    },
    /// The session, or the attempt at one, ended.
    Down {
        /// The state it was in.
        from: State,
        /// Why.
        reason: DownReason,
    },
}

/// Why a session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DownReason {
    /// No connection came about.
    ConnectFailed(String),
    /// The connection broke.
    ConnectionLost(String),
    /// The peer said so.
    Received(Notification),
    /// We said so.
    Sent(Notification),
    /// It was stopped on purpose.
    Stopped,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailed(error) => write!(f, "connect failed: {error}"),
            Self::ConnectionLost(error) => write!(f, "connection lost: {error}"),
            Self::Received(notification) => write!(f, "received {notification}"),
            Self::Sent(notification) => write!(f, "sent {notification}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What passed so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// OPEN sent.
    pub opens_sent: u64,
    /// OPEN received.
    pub opens_received: u64,
    /// UPDATE sent.
    pub updates_sent: u64,
    /// UPDATE received.
    pub updates_received: u64,
    /// KEEPALIVE sent.
    pub keepalives_sent: u64,
    /// KEEPALIVE received.
    pub keepalives_received: u64,
    /// NOTIFICATION sent.
    pub notifications_sent: u64,
    /// NOTIFICATION received.
    pub notifications_received: u64,
    /// ROUTE-REFRESH received.
    pub route_refreshes_received: u64,
    /// Prefixes that the peer offered and that were dropped.
    pub prefixes_dropped: u64,
}

/// One session. After every input all outputs must be drained.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    state: State,
    stopped: bool,
    rib: AdjRibOut,
    next_hops: NextHops,
    router_id: RouterId,
    peer: Option<Open>,
    input: Vec<u8>,
    output: Vec<u8>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    hold_at: Option<Instant>,
    keepalive_at: Option<Instant>,
    /// The peer takes nothing any more: RFC 9687.
    send_hold_at: Option<Instant>,
    established_at: Option<Instant>,
    restarting: bool,
    last_down: Option<DownReason>,
    counters: Counters,
}

impl Session {
    /// A session that begins to connect at once. `seed` jitters its timers.
    #[must_use]
    pub fn new(config: SessionConfig, router_id: RouterId, seed: u64, now: Instant) -> Self {
        let restarting = config.graceful_restart;
        let backoff = Backoff::new(seed, config.connect_time);
        let mut session = Self {
            config,
            state: State::Idle,
            stopped: false,
            rib: AdjRibOut::default(),
            next_hops: NextHops::default(),
            router_id,
            peer: None,
            input: Vec::new(),
            output: Vec::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            backoff,
            retry_at: Some(now),
            hold_at: None,
            keepalive_at: None,
            send_hold_at: None,
            established_at: None,
            restarting,
            last_down: None,
            counters: Counters::default(),
        };
        session.handle_timeout(now);
        session
    }

    /// The connection is open. `next_hops` are this end's addresses.
    pub fn handle_connected(&mut self, now: Instant, router_id: RouterId, next_hops: NextHops) {
        if self.state != State::Connect {
            return;
        }
        self.router_id = router_id;
        self.next_hops = NextHops {
            v4: next_hops.v4.filter(|_| self.config.families.contains(&Family::Ipv4)),
            v6: next_hops.v6.filter(|_| self.config.families.contains(&Family::Ipv6)),
        };
        self.input.clear();
        self.output.clear();
        self.open().encode(&mut self.output);
        self.counters.opens_sent += 1;
        self.state = State::OpenSent;
        // RFC 4271 §8.2.2: a large value until the peer's OPEN tells.
        self.hold_at = Some(now + OPEN_HOLD);
        self.retry_at = None;
    }

    /// The connection did not come about, or broke.
    pub fn handle_failed(&mut self, now: Instant, error: &str) {
        let reason = match self.state {
            State::Idle => return,
            State::Connect => DownReason::ConnectFailed(error.to_owned()),
            _ => DownReason::ConnectionLost(error.to_owned()),
        };
        self.down(now, reason);
    }

    /// Bytes from the peer, in order.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if matches!(self.state, State::Idle | State::Connect) {
            return;
        }
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        loop {
            match split(rest) {
                Ok(Some((kind, body, size))) => {
                    if let Err(notification) = self.handle_message(now, kind, body) {
                        self.refuse(now, notification);
                    }
                    if self.state == State::Idle {
                        return;
                    }
                    rest = &rest[size..];
                }
                Ok(None) => break,
                Err(notification) => {
                    self.refuse(now, notification);
                    return;
                }
            }
        }
        self.input = rest.to_vec();
    }

    /// Timers. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.state == State::Idle && !self.stopped && due(self.retry_at) {
            self.state = State::Connect;
            self.retry_at = None;
            self.actions.push_back(Action::Connect);
        }
        if due(self.hold_at) {
            self.refuse(now, Notification::hold_timer_expired());
        }
        if due(self.send_hold_at) {
            self.refuse(now, Notification::new(8, 0, &[]));
        }
        if due(self.keepalive_at) {
            self.send_keepalive(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.retry_at, self.hold_at, self.keepalive_at, self.send_hold_at].into_iter().flatten().min()
    }

    /// Replaces the routes that the peer should know.
    pub fn set_routes(&mut self, now: Instant, routes: BTreeMap<IpNet, Arc<Attributes>>) {
        if self.rib.set(routes) && self.state == State::Established {
            self.send_updates(now);
        }
    }

    /// Ends the session for good. With graceful restart the peer is to keep the routes, so nothing is said; else it is told, so that it
    /// drops them at once.
    pub fn stop(&mut self, now: Instant, keep_routes: bool, text: &str) {
        self.stopped = true;
        if matches!(self.state, State::Idle | State::Connect) || (keep_routes && self.config.graceful_restart) {
            self.down(now, DownReason::Stopped);
        } else {
            self.refuse(now, Notification::shutdown(text));
        }
        self.retry_at = None;
    }

    /// Takes the bytes to send.
    pub fn poll_transmit(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Tells that the bytes taken last could, or could not yet, be handed to the connection (RFC 9687).
    pub fn handle_send(&mut self, now: Instant, blocked: bool) {
        let hold = self.hold_time();
        self.send_hold_at = match (blocked, self.send_hold_at) {
            (true, Some(at)) => Some(at),
            (true, None) if !hold.is_zero() => Some(now + SEND_HOLD.max(hold * 2)),
            _ => None,
        };
    }

    /// What the driver must do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Where the session stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when it is established.
    #[must_use]
    pub const fn established_at(&self) -> Option<Instant> {
        self.established_at
    }

    /// Why it ended last.
    #[must_use]
    pub const fn last_down(&self) -> Option<&DownReason> {
        self.last_down.as_ref()
    }

    /// What the peer said of itself.
    #[must_use]
    pub const fn peer(&self) -> Option<&Open> {
        self.peer.as_ref()
    }

    /// The routes.
    #[must_use]
    pub const fn rib(&self) -> &AdjRibOut {
        &self.rib
    }

    /// What passed so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    fn open(&self) -> Open {
        Open {
            asn: self.config.asn,
            // Whole seconds below 65536 by the configuration's own bounds.
            hold_time: u16::try_from(self.config.hold_time.as_secs()).unwrap_or(u16::MAX),
            router_id: self.router_id,
            capabilities: Capabilities {
                families: self.config.families.clone(),
                four_octet_asn: true,
                route_refresh: true,
                graceful_restart: self.config.graceful_restart.then(|| GracefulRestart {
                    restarting: self.restarting,
                    restart_time: RESTART_TIME,
                    preserved: self.config.families.clone(),
                }),
            },
        }
    }

    fn handle_message(&mut self, now: Instant, kind: MessageType, body: &[u8]) -> Result<(), Notification> {
        match (self.state, kind) {
            (_, MessageType::Notification) => {
                self.counters.notifications_received += 1;
                if let Some(notification) = Notification::decode(body) {
                    self.down(now, DownReason::Received(notification));
                }
            }
            (State::OpenSent, MessageType::Open) => {
                self.counters.opens_received += 1;
                self.accept(now, Open::decode(body)?)?;
            }
            (State::OpenConfirm, MessageType::Keepalive) => {
                self.counters.keepalives_received += 1;
                self.rearm_hold(now);
                self.establish(now);
            }
            (State::Established, MessageType::Keepalive) => {
                self.counters.keepalives_received += 1;
                self.rearm_hold(now);
            }
            (State::Established, MessageType::Update) => {
                self.counters.updates_received += 1;
                self.rearm_hold(now);
                self.counters.prefixes_dropped += update::count(body)? as u64;
            }
            (State::Established, MessageType::RouteRefresh) => {
                self.counters.route_refreshes_received += 1;
                self.rearm_hold(now);
                self.rib.reset();
                self.send_updates(now);
            }
            // RFC 6608: the subcode says in which state the message was unexpected.
            (State::OpenSent, _) => return Err(Notification::new(5, 1, &[])),
            (State::OpenConfirm, _) => return Err(Notification::new(5, 2, &[])),
            (State::Established, MessageType::Open) => return Err(Notification::new(5, 3, &[])),
            (State::Idle | State::Connect, _) => {}
        }
        Ok(())
    }

    fn accept(&mut self, now: Instant, open: Open) -> Result<(), Notification> {
        let expected = match self.config.remote {
            RemoteAsn::Number(asn) => open.asn == asn,
            RemoteAsn::Internal => open.asn == self.config.asn,
            RemoteAsn::External => open.asn != self.config.asn,
        };
        if !expected {
            return Err(Notification::new(2, 2, &[]));
        }
        // RFC 6286: an internal peer must have another identifier.
        if open.router_id == self.router_id && open.asn == self.config.asn {
            return Err(Notification::new(2, 3, &open.router_id.0.octets()));
        }
        if !open.capabilities.families.contains(&Family::Ipv6) {
            self.next_hops.v6 = None;
        }
        // A peer without the capability carries IPv4 (RFC 4760 §8).
        if !open.capabilities.families.is_empty() && !open.capabilities.families.contains(&Family::Ipv4) {
            self.next_hops.v4 = None;
        }
        self.peer = Some(open);
        self.state = State::OpenConfirm;
        self.send_keepalive(now);
        self.rearm_hold(now);
        Ok(())
    }

    fn establish(&mut self, now: Instant) {
        self.state = State::Established;
        self.established_at = Some(now);
        self.rib.reset();
        let asn = self.peer.as_ref().map_or(Asn(0), |peer| peer.asn);
        self.events.push_back(Event::Established { asn, hold_time: self.hold_time() });
        self.send_updates(now);
        // The mark that ends the first exchange: a restarting speaker's peer drops now what was not offered again.
        for family in self.config.families.clone() {
            update::end_of_rib(&mut self.output, family);
            self.counters.updates_sent += 1;
        }
        self.restarting = false;
    }

    fn send_updates(&mut self, now: Instant) {
        let encoding = Encoding {
            asn: self.config.asn,
            internal: self.peer.as_ref().is_some_and(|peer| peer.asn == self.config.asn),
            four_octet_asn: self.peer.as_ref().is_some_and(|peer| peer.capabilities.four_octet_asn),
        };
        let messages = self.rib.update(&mut self.output, &encoding, &self.next_hops);
        self.counters.updates_sent += messages;
        // An update tells the peer that we live.
        if messages > 0 && self.keepalive_at.is_some() {
            self.keepalive_at = Some(now + self.keepalive_time());
        }
        // A session that stays up has earned a quick retry.
        self.backoff.note_established(now);
    }

    fn send_keepalive(&mut self, now: Instant) {
        keepalive(&mut self.output);
        self.counters.keepalives_sent += 1;
        self.keepalive_at = (!self.hold_time().is_zero()).then(|| now + self.keepalive_time());
    }

    fn rearm_hold(&mut self, now: Instant) {
        let hold = self.hold_time();
        self.hold_at = (!hold.is_zero()).then(|| now + hold);
    }

    /// The smaller of the two proposals; zero turns both timers off.
    fn hold_time(&self) -> Duration {
        let theirs = self.peer.as_ref().map_or(self.config.hold_time, |peer| Duration::from_secs(peer.hold_time.into()));
        self.config.hold_time.min(theirs)
    }

    fn keepalive_time(&mut self) -> Duration {
        let third = self.hold_time() / 3;
        let period = self.config.keepalive_time.filter(|time| !time.is_zero()).map_or(third, |time| time.min(third));
        // RFC 4271 §10: 75 to 100 %.
        self.backoff.jitter(period)
    }

    fn refuse(&mut self, now: Instant, notification: Notification) {
        if !matches!(self.state, State::Idle | State::Connect) {
            notification.encode(&mut self.output);
            self.counters.notifications_sent += 1;
        }
        self.down(now, DownReason::Sent(notification));
    }

    fn down(&mut self, now: Instant, reason: DownReason) {
        let from = std::mem::replace(&mut self.state, State::Idle);
        self.input.clear();
        (self.hold_at, self.keepalive_at, self.send_hold_at) = (None, None, None);
        self.established_at = None;
        self.peer = None;
        self.rib.reset();
        self.actions.push_back(Action::Close);
        self.last_down = Some(reason.clone());
        self.events.push_back(Event::Down { from, reason });
        self.retry_at = (!self.stopped).then(|| now + self.backoff.next(now));
    }
}

/// How long to wait for the peer's OPEN.
const OPEN_HOLD: Duration = Duration::from_secs(240);

/// The least send hold time (RFC 9687 §3.2).
const SEND_HOLD: Duration = Duration::from_secs(480);

/// How long the peer should keep the routes of a speaker that restarts, in seconds.
const RESTART_TIME: u16 = 120;

#[cfg(test)]
mod tests;
