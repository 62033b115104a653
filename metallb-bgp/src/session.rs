//! One session with one peer: the state machine of RFC 4271 §8, sans-IO, for a speaker that connects and never listens.
//!
//! ```text
//!            connected            OPEN                KEEPALIVE
//!   Idle ──> Connect ──> OpenSent ──> OpenConfirm ──> Established
//!     ^         │           │             │               │
//!     └─────────┴───────────┴─────────────┴───────────────┘  any failure: back-off, jittered, then again
//! ```
//!
//! Both ends connect to port 179 in general, and RFC 4271 §6.8 tells which of two connections stays. Here there is never a second one:
//! nothing of ours listens, so no collision can arise.

mod backoff;
mod config;
mod event;
mod negotiate;
mod state;
mod timer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::backoff::Backoff;
pub use self::config::{ConfigChange, RemoteAsn, SessionConfig};
pub use self::event::{Action, BfdState, Counters, DownReason, Event, Stop};
pub use self::negotiate::Negotiated;
use self::negotiate::negotiate;
pub use self::state::State;
use self::timer::{Timer, Timers};
use crate::rib::{AdjRibOut, NextHops};
use crate::types::{Attributes, Family, RouterId};
use crate::wire::notification::Notification;
use crate::wire::open::{Capabilities, GracefulRestart, Open};
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::update::Encoding;
use crate::wire::{DecodeContext, DecodeError, Message, decode, keepalive, update};

/// One session. After every input all outputs must be drained.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    state: State,
    stopped: bool,
    rib: AdjRibOut,
    next_hops: NextHops,
    router_id: RouterId,
    negotiated: Option<Negotiated>,
    input: Vec<u8>,
    output: Vec<u8>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    backoff: Backoff,
    timers: Timers,
    established_at: Option<Instant>,
    /// The process is new: peers may still hold routes of the one before.
    restarting: bool,
    /// `set_routes` was called at least once.
    routes_known: bool,
    owed: Owed,
    /// The connection takes no more bytes for now.
    blocked: bool,
    /// BFD was up and went down: it must come back first.
    path_lost: bool,
    bfd: Option<BfdState>,
    last_down: Option<DownReason>,
    counters: Counters,
}

/// What the peer is to be told as soon as the connection takes bytes. However often something changes before, it is told once: neither a
/// slow peer nor one that asks for everything all the time makes the output grow.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    updates: bool,
    end_of_rib: bool,
}

impl Session {
    /// A session that begins to connect at once. `seed` jitters its timers.
    #[must_use]
    pub fn new(config: SessionConfig, router_id: RouterId, seed: u64, now: Instant) -> Self {
        let mut session = Self {
            state: State::Idle,
            stopped: false,
            rib: AdjRibOut::default(),
            next_hops: NextHops::default(),
            router_id,
            negotiated: None,
            input: Vec::new(),
            output: Vec::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            backoff: Backoff::new(seed, config.connect_time),
            timers: Timers::default(),
            established_at: None,
            restarting: config.graceful_restart,
            routes_known: false,
            owed: Owed::default(),
            blocked: false,
            path_lost: false,
            bfd: None,
            last_down: None,
            counters: Counters::default(),
            config,
        };
        session.connect(now);
        session
    }

    /// The connection is open. `next_hops` are this end's addresses.
    pub fn handle_connected(&mut self, now: Instant, router_id: RouterId, next_hops: NextHops) {
        if self.state != State::Connect {
            return;
        }
        self.router_id = router_id;
        self.next_hops = next_hops;
        self.input.clear();
        self.output.clear();
        self.open().encode(&mut self.output);
        self.counters.opens_sent += 1;
        self.state = State::OpenSent;
        self.timers.clear();
        // RFC 4271 §8.2.2: a large value until the peer's OPEN tells.
        self.timers.set(Timer::Hold, Some(now + OPEN_HOLD));
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
            let outcome = match decode(rest, &self.decode_context()) {
                Ok(Some((message, size))) => {
                    rest = &rest[size..];
                    self.handle_message(now, message)
                }
                Ok(None) => break,
                Err(DecodeError::Notify(notification)) => Err(notification),
                Err(error @ DecodeError::BrokenNotification) => {
                    self.handle_failed(now, &error.to_string());
                    Ok(())
                }
            };
            if let Err(notification) = outcome {
                self.refuse(now, notification);
            }
            if self.state == State::Idle {
                return;
            }
        }
        self.input = rest.to_vec();
        self.flush(now);
    }

    /// Timers. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::IdleHold => self.connect(now),
                Timer::Connect => self.handle_failed(now, "timed out"),
                Timer::Hold => self.refuse(now, Notification::hold_timer_expired()),
                Timer::SendHold => self.refuse(now, Notification::new(8, 0, &[])),
                Timer::Keepalive => self.send_keepalive(now),
            }
        }
    }

    /// Tells that the bytes taken last could, or could not yet, be handed to the connection. While they could not, nothing but
    /// keepalives is added to them; when that lasts too long the session ends (RFC 9687).
    pub fn handle_send(&mut self, now: Instant, blocked: bool) {
        self.blocked = blocked;
        let hold = self.hold_time();
        let at = match self.timers.at(Timer::SendHold) {
            _ if !blocked || hold.is_zero() => None,
            Some(at) => Some(at),
            None => Some(now + SEND_HOLD.max(hold * 2)),
        };
        self.timers.set(Timer::SendHold, at);
        self.flush(now);
    }

    /// What BFD says of the path (RFC 5882). When it fails, so does the session, which comes back when BFD does.
    pub fn handle_bfd(&mut self, now: Instant, state: BfdState) {
        let before = self.bfd.replace(state);
        match state {
            BfdState::Down => {
                self.path_lost |= before == Some(BfdState::Up);
                match self.state {
                    _ if !self.path_lost => {}
                    State::Idle | State::Connect => self.handle_failed(now, "BFD is down"),
                    // RFC 9384
                    _ => self.refuse(now, Notification::new(6, 10, &[])),
                }
            }
            BfdState::Up | BfdState::AdminDown => {
                let waited = std::mem::take(&mut self.path_lost);
                if waited && self.state == State::Idle && !self.stopped {
                    let pause = self.backoff.jitter(BFD_SETTLE);
                    self.timers.set(Timer::IdleHold, Some(now + pause));
                }
            }
        }
    }

    /// Changes what can be changed while the session goes on. False, and nothing is done, when the change needs a new session.
    pub fn reconfigure(&mut self, config: SessionConfig) -> bool {
        if self.config.change_to(&config) == ConfigChange::Restart {
            return false;
        }
        self.backoff.set_fixed(config.connect_time);
        self.config = config;
        true
    }

    /// Replaces the routes that the peer should know.
    pub fn set_routes(&mut self, now: Instant, routes: BTreeMap<IpNet, Arc<Attributes>>) {
        self.routes_known = true;
        self.owed.updates |= self.rib.set(routes);
        self.flush(now);
    }

    /// Ends the session for good.
    pub fn stop(&mut self, now: Instant, stop: Stop) {
        self.stopped = true;
        let kept = self.negotiated.as_ref().is_some_and(|negotiated| negotiated.graceful_restart);
        let notification = match stop {
            _ if matches!(self.state, State::Idle | State::Connect) => None,
            // RFC 4724 §4: a connection that ends without a NOTIFICATION is what a restart looks like.
            Stop::Restart(_) | Stop::Reconfigured if kept => None,
            Stop::Restart(text) | Stop::Shutdown(text) => Some(Notification::shutdown(&text)),
            Stop::Deconfigured => Some(Notification::new(6, 3, &[])),
            Stop::Reconfigured => Some(Notification::new(6, 6, &[])),
        };
        match notification {
            Some(notification) => self.refuse(now, notification),
            None => self.down(now, DownReason::Stopped),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Takes the bytes to send.
    pub fn poll_transmit(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
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

    /// What is in force, from the peer's OPEN on.
    #[must_use]
    pub const fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
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

    fn connect(&mut self, now: Instant) {
        self.state = State::Connect;
        self.timers.set(Timer::Connect, Some(now + CONNECT_PATIENCE));
        self.actions.push_back(Action::Connect);
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
                    ..GracefulRestart::default()
                }),
                extended_next_hop: self.lacks_v4(),
                ..Capabilities::default()
            },
        }
    }

    fn handle_message(&mut self, now: Instant, message: Message<'_>) -> Result<(), Notification> {
        match (self.state, message) {
            (_, Message::Notification(notification)) => {
                self.counters.notifications_received += 1;
                self.down(now, DownReason::Received(notification));
            }
            (State::OpenSent, Message::Open(open)) => {
                self.counters.opens_received += 1;
                self.accept(now, &open)?;
            }
            (State::OpenConfirm, Message::Keepalive) => {
                self.counters.keepalives_received += 1;
                self.rearm_hold(now);
                self.establish(now);
            }
            (State::Established, Message::Keepalive) => {
                self.counters.keepalives_received += 1;
                self.rearm_hold(now);
            }
            (State::Established, Message::Update(update)) => {
                self.counters.updates_received += 1;
                self.rearm_hold(now);
                self.counters.updates_malformed += u64::from(update.outcome().fault().is_some());
                self.counters.prefixes_dropped += update.offered() as u64;
            }
            (State::Established, Message::RouteRefresh(refresh)) => {
                self.counters.route_refreshes_received += 1;
                self.rearm_hold(now);
                // Marks of a peer's own refresh and families that are not carried mean nothing here (RFC 7313 §5).
                if let RouteRefresh { kind: RefreshKind::Request, family: Some(family) } = refresh {
                    self.rib.replay(Some(family));
                    self.owed.updates = true;
                }
            }
            (state, message) => {
                // RFC 6608: the subcode says in which state the message was unexpected, the data which one it was.
                let subcode = match state {
                    State::OpenSent => 1,
                    State::OpenConfirm => 2,
                    State::Established => 3,
                    State::Idle | State::Connect => return Ok(()),
                };
                return Err(Notification::new(5, subcode, &[code(&message)]));
            }
        }
        Ok(())
    }

    /// Whether IPv4 prefixes need an IPv6 next hop (RFC 8950): this end has no IPv4 address to give.
    fn lacks_v4(&self) -> bool {
        self.config.families.contains(&Family::Ipv4) && self.next_hops.v4.is_none() && self.next_hops.v6.is_some()
    }

    fn decode_context(&self) -> DecodeContext {
        let Some(negotiated) = &self.negotiated else { return DecodeContext::default() };
        DecodeContext {
            local_asn: self.config.asn,
            remote_asn: negotiated.remote_asn,
            four_octet_asn: negotiated.four_octet_asn,
            extended_next_hop: negotiated.extended_next_hop,
            ipv4: negotiated.families.contains(&Family::Ipv4),
            ipv6: negotiated.families.contains(&Family::Ipv6),
            ..DecodeContext::default()
        }
    }

    fn accept(&mut self, now: Instant, open: &Open) -> Result<(), Notification> {
        let mut negotiated = negotiate(&self.config, self.router_id, open)?;
        negotiated.extended_next_hop &= self.lacks_v4();
        if negotiated.extended_next_hop {
            self.next_hops.v4 = self.next_hops.v6;
        }
        let carried = |family| negotiated.families.contains(&family);
        self.next_hops.v4 = self.next_hops.v4.filter(|_| carried(Family::Ipv4));
        self.next_hops.v6 = self.next_hops.v6.filter(|_| carried(Family::Ipv6));
        self.negotiated = Some(negotiated);
        self.state = State::OpenConfirm;
        self.send_keepalive(now);
        self.rearm_hold(now);
        Ok(())
    }

    fn establish(&mut self, now: Instant) {
        let Some(negotiated) = &self.negotiated else { return };
        self.events.push_back(Event::Established { asn: negotiated.remote_asn, hold_time: negotiated.hold_time });
        self.state = State::Established;
        self.established_at = Some(now);
        self.counters.established += 1;
        self.backoff.note_established(now);
        self.restarting = false;
        self.owed = Owed { updates: true, end_of_rib: true };
    }

    /// Tells the peer what it is owed.
    fn flush(&mut self, now: Instant) {
        let Some(negotiated) = self.negotiated.as_ref().filter(|_| self.state == State::Established && !self.blocked)
        else {
            return;
        };
        let mut messages = 0;
        if std::mem::take(&mut self.owed.updates) {
            let encoding = Encoding {
                asn: self.config.asn,
                internal: negotiated.internal,
                four_octet_asn: negotiated.four_octet_asn,
            };
            messages += self.rib.update(&mut self.output, &encoding, &self.next_hops);
        }
        // The mark that ends the first exchange: the peer drops now what it kept over a restart and was not offered again. So it must wait
        // until the routes are known.
        if self.routes_known && std::mem::take(&mut self.owed.end_of_rib) {
            for &family in &negotiated.families {
                update::end_of_rib(&mut self.output, family);
                messages += 1;
            }
        }
        self.counters.updates_sent += messages;
        // An update tells the peer that we live.
        if messages > 0 && self.timers.at(Timer::Keepalive).is_some() {
            self.arm_keepalive(now);
        }
    }

    fn send_keepalive(&mut self, now: Instant) {
        keepalive(&mut self.output);
        self.counters.keepalives_sent += 1;
        self.arm_keepalive(now);
    }

    fn arm_keepalive(&mut self, now: Instant) {
        let third = self.hold_time() / 3;
        let period = self.config.keepalive_time.filter(|time| !time.is_zero()).map_or(third, |time| time.min(third));
        // RFC 4271 §10: 75 to 100 %.
        let at = (!period.is_zero()).then(|| now + self.backoff.jitter(period));
        self.timers.set(Timer::Keepalive, at);
    }

    fn rearm_hold(&mut self, now: Instant) {
        let hold = self.hold_time();
        self.timers.set(Timer::Hold, (!hold.is_zero()).then(|| now + hold));
    }

    fn hold_time(&self) -> Duration {
        self.negotiated.as_ref().map_or(self.config.hold_time, |negotiated| negotiated.hold_time)
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
        self.timers.clear();
        self.established_at = None;
        self.negotiated = None;
        self.blocked = false;
        self.owed = Owed::default();
        self.rib.reset();
        self.actions.push_back(Action::Close);
        self.last_down = Some(reason.clone());
        self.events.push_back(Event::Down { from, reason });
        if !self.stopped {
            let pause = self.backoff.next(now);
            let pause = if self.path_lost { pause.max(BFD_PATIENCE) } else { pause };
            self.timers.set(Timer::IdleHold, Some(now + pause));
        }
    }
}

/// The type as it stands in the header.
const fn code(message: &Message<'_>) -> u8 {
    match message {
        Message::Open(_) => 1,
        Message::Update(_) => 2,
        Message::Notification(_) => 3,
        Message::Keepalive => 4,
        Message::RouteRefresh(_) => 5,
    }
}

/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for the peer's OPEN.
const OPEN_HOLD: Duration = Duration::from_secs(240);

/// The least send hold time (RFC 9687 §3.2).
const SEND_HOLD: Duration = Duration::from_secs(480);

/// How long to wait for BFD to come back before it is tried without: the peer may have been set up anew without BFD.
const BFD_PATIENCE: Duration = Duration::from_secs(120);

/// How long to wait once BFD came back.
const BFD_SETTLE: Duration = Duration::from_secs(1);

/// How long the peer should keep the routes of a speaker that restarts, in seconds.
const RESTART_TIME: u16 = 120;

#[cfg(test)]
mod tests;
