//! One open connection with a peer: OpenSent, OpenConfirm and Established of RFC 4271 §8, sans-IO.
//!
//! [`Peer`](crate::peer::Peer) holds what outlives a connection: routes, back-off, and collision resolution.

mod backoff;
mod config;
mod event;
mod negotiate;
mod outbox;
mod state;
mod timer;

use std::time::{Duration, Instant};

pub(crate) use self::backoff::Backoff;
pub use self::config::{ConfigChange, Mode, RemoteAsn, SessionConfig};
pub use self::event::{Action, BfdState, ConnectionError, Counters, DownReason, Event, Role, Slot, Stop};
pub use self::negotiate::Negotiated;
use self::negotiate::negotiate;
use self::outbox::Pending;
pub use self::state::State;
pub(crate) use self::timer::{Timer, Timers};
use crate::rib::{AdjRibOut, NextHops};
use crate::types::{Asn, Family, RouterId};
use crate::wire::iana::{FsmSubcode, MessageType};
use crate::wire::notification::{Notification, NotificationCode};
use crate::wire::open::{Capabilities, GracefulRestart, Open};
use crate::wire::refresh::{RefreshKind, RouteRefresh};
use crate::wire::{DecodeContext, DecodeError, Message, decode, keepalive};

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    role: Role,
    state: State,
    router_id: RouterId,
    /// The addresses of this end that a next hop can be.
    offered: NextHops,
    /// The next hops in use, of the negotiated families.
    next_hops: NextHops,
    /// Whether our OPEN offered IPv6 next hops for IPv4 prefixes.
    offers_extended: bool,
    negotiated: Option<Negotiated>,
    input: Vec<u8>,
    /// Number of bytes of `input` that were decoded.
    read: usize,
    output: Vec<u8>,
    timers: Timers,
    established_at: Option<Instant>,
    pending: Pending,
    /// The connection accepts no bytes at the moment.
    blocked: bool,
}

/// The state of a peer that outlives its connections.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: SessionConfig,
    pub(crate) rib: AdjRibOut,
    pub(crate) counters: Counters,
    pub(crate) backoff: Backoff,
    /// The process has just started, and peers may still hold the routes of the previous one.
    pub(crate) restarting: bool,
    /// The routes were set at least once.
    pub(crate) routes_known: bool,
    /// AS number and BGP identifier in the peer's last OPEN.
    pub(crate) last_open: Option<(Asn, RouterId)>,
}

/// The result of processing one message or timer.
#[derive(Debug)]
pub(crate) enum Step {
    /// There is no complete message and no expired timer left.
    Idle,
    /// A message or a timer was processed.
    Processed,
    /// The peer's OPEN was accepted. If there is another connection, one of the two must be closed.
    OpenAccepted,
    /// The session is established.
    Established,
    /// The session has ended. The remaining bytes to send are in the output.
    Ended(DownReason),
}

impl Session {
    /// A connection that has just been opened. `next_hops` are the addresses of this end.
    pub(crate) fn new(now: Instant, role: Role, router_id: RouterId, next_hops: NextHops, shared: &mut Shared) -> Self {
        let mut session = Self {
            role,
            state: match role {
                Role::Active => State::Connect,
                Role::Passive => State::Active,
            },
            router_id,
            offered: next_hops,
            next_hops: NextHops::default(),
            offers_extended: false,
            negotiated: None,
            input: Vec::new(),
            read: 0,
            output: Vec::new(),
            timers: Timers::default(),
            established_at: None,
            pending: Pending::default(),
            blocked: false,
        };
        if shared.config.delay_open.is_zero() {
            session.send_open(now, shared);
        } else {
            let delay = shared.backoff.jitter(shared.config.delay_open);
            session.timers.set(Timer::DelayOpen, Some(now + delay));
        }
        session
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    pub(crate) const fn router_id(&self) -> RouterId {
        self.router_id
    }

    pub(crate) const fn established_at(&self) -> Option<Instant> {
        self.established_at
    }

    pub(crate) const fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    pub(crate) const fn timers(&self) -> &Timers {
        &self.timers
    }

    #[cfg(test)]
    pub(crate) const fn timers_mut(&mut self) -> &mut Timers {
        &mut self.timers
    }

    /// Takes the bytes to send.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Buffers bytes from the peer for [`step`](Self::step).
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.read));
        self.input.extend_from_slice(bytes);
    }

    /// Processes one buffered message.
    pub(crate) fn step(&mut self, now: Instant, shared: &mut Shared) -> Step {
        let input = std::mem::take(&mut self.input);
        let step = match decode(&input[self.read..], &self.decode_context(&shared.config)) {
            Ok(Some((message, size))) => {
                self.read += size;
                self.handle_message(now, message, shared)
            }
            Ok(None) => Ok(Step::Idle),
            Err(DecodeError::Notify(notification)) => {
                Err(self.unexpected_instead_of(&notification).unwrap_or(notification))
            }
            Err(DecodeError::TruncatedNotification) => {
                Ok(Step::Ended(DownReason::ConnectionLost(ConnectionError::TruncatedNotification)))
            }
        };
        self.input = input;
        step.unwrap_or_else(|notification| Step::Ended(self.close(notification, shared)))
    }

    /// Processes one timer that is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) -> Step {
        match self.timers.pop_due(now) {
            Some(Timer::DelayOpen) => self.send_open(now, shared),
            Some(Timer::Hold) => {
                return Step::Ended(self.close(Notification::new(NotificationCode::HoldTimerExpired, &[]), shared));
            }
            Some(Timer::SendHold) => {
                let expired = Notification::new(NotificationCode::SendHoldTimerExpired, &[]);
                return Step::Ended(self.close(expired, shared));
            }
            Some(Timer::Keepalive) => self.send_keepalive(now, shared),
            Some(Timer::Refresh) => self.flush(now, shared),
            Some(Timer::IdleHold | Timer::Connect) | None => return Step::Idle,
        }
        Step::Processed
    }

    /// Reports whether the connection accepted all bytes that were taken last. While it is `blocked`, only keepalives
    /// are added to the output; if it stays blocked for too long, the session ends (RFC 9687).
    pub(crate) fn handle_send(&mut self, now: Instant, blocked: bool, shared: &mut Shared) {
        self.blocked = blocked;
        self.arm_send_hold(now, &shared.config);
        self.flush(now, shared);
    }

    /// The addresses of this end have changed: routes are advertised again with other next hops, or withdrawn.
    pub(crate) fn set_next_hops(&mut self, now: Instant, offered: NextHops, shared: &mut Shared) {
        self.offered = offered;
        let after = self.negotiated_next_hops();
        let before = std::mem::replace(&mut self.next_hops, after);
        if before != self.next_hops {
            shared.rib.change_next_hops(&before, &self.next_hops);
            self.handle_routes(now, shared);
        }
    }

    /// The next hops in use, from the peer's OPEN on.
    pub(crate) const fn next_hops(&self) -> &NextHops {
        &self.next_hops
    }

    /// Ends the session with a NOTIFICATION, which is sent only after an OPEN was sent (RFC 4271 §8.2.1.5), and returns
    /// the reason.
    pub(crate) fn close(&mut self, notification: Notification, shared: &mut Shared) -> DownReason {
        if matches!(self.state, State::Connect | State::Active) {
            return DownReason::NotSent(notification);
        }
        notification.encode(&mut self.output);
        shared.counters.notifications_sent += 1;
        DownReason::Sent(notification)
    }

    /// As [`close`](Self::close), by a Hard Reset if the peer would keep the routes after another NOTIFICATION (RFC
    /// 8538 §4).
    pub(crate) fn close_hard(&mut self, notification: Notification, shared: &mut Shared) -> DownReason {
        let hard = self.negotiated.as_ref().is_some_and(|negotiated| negotiated.hard_reset);
        self.close(if hard { notification.hard_reset() } else { notification }, shared)
    }

    /// Whether the peer keeps the routes while this speaker restarts (RFC 4724 §5).
    pub(crate) fn peer_keeps_routes(&self) -> bool {
        self.negotiated.as_ref().is_some_and(|negotiated| negotiated.graceful_restart)
    }

    /// Whether the peer may restart and open a new connection before the loss of this one is detected (RFC 4724 §5).
    pub(crate) fn peer_may_restart(&self) -> bool {
        self.negotiated.as_ref().is_some_and(|negotiated| negotiated.peer_restarts)
    }

    fn send_open(&mut self, now: Instant, shared: &mut Shared) {
        self.offers_extended = self.lacks_v4(&shared.config);
        self.open(shared).encode(&mut self.output);
        shared.counters.opens_sent += 1;
        self.state = State::OpenSent;
        self.timers.clear();
        // RFC 4271 §8.2.2: a large value until the peer's OPEN proposes one.
        self.timers.set(Timer::Hold, Some(now + OPEN_HOLD));
    }

    fn open(&self, shared: &Shared) -> Open {
        let config = &shared.config;
        Open {
            asn: config.asn,
            // The configuration allows whole seconds below 65,536 only.
            hold_time: u16::try_from(config.hold_time.as_secs()).unwrap_or(u16::MAX),
            router_id: self.router_id,
            capabilities: Capabilities {
                families: config.families.clone(),
                other_families: false,
                four_octet_asn: true,
                route_refresh: true,
                enhanced_refresh: true,
                extended_message: config.extended_messages,
                graceful_restart: config.graceful_restart.then(|| GracefulRestart {
                    restarting: shared.restarting,
                    notification: true,
                    restart_time: RESTART_TIME,
                    preserved: config.families.clone(),
                }),
                extended_next_hop: self.offers_extended,
            },
        }
    }

    fn handle_message(
        &mut self,
        now: Instant,
        message: Message<'_>,
        shared: &mut Shared,
    ) -> Result<Step, Notification> {
        let counters = &mut shared.counters;
        match (self.state, message) {
            (_, Message::Notification(notification)) => {
                counters.notifications_received += 1;
                return Ok(Step::Ended(DownReason::Received(notification)));
            }
            (State::Connect | State::Active | State::OpenSent, Message::Open(open)) => {
                counters.opens_received += 1;
                shared.last_open = Some((open.asn, open.router_id));
                if self.state != State::OpenSent {
                    // RFC 4271 §8.2.2, event 20: the peer's OPEN ends the delay of ours.
                    self.send_open(now, shared);
                }
                self.accept(now, &open, shared)?;
                return Ok(Step::OpenAccepted);
            }
            (State::OpenConfirm, Message::Keepalive) => {
                counters.keepalives_received += 1;
                self.rearm_hold(now, &shared.config);
                self.establish(now, shared);
                return Ok(Step::Established);
            }
            (State::Established, Message::Keepalive) => {
                counters.keepalives_received += 1;
                self.rearm_hold(now, &shared.config);
            }
            (State::Established, Message::Update(update)) => {
                counters.updates_received += 1;
                counters.updates_malformed += u64::from(update.outcome().fault().is_some());
                counters.prefixes_dropped += update.announced() as u64;
                self.rearm_hold(now, &shared.config);
            }
            (State::Established, Message::RouteRefresh(refresh)) => {
                counters.route_refreshes_received += 1;
                self.rearm_hold(now, &shared.config);
                // BoRR and EoRR of the peer, and unsupported families, are ignored (RFC 7313 §5).
                if let RouteRefresh { kind: RefreshKind::Request, family: Some(family) } = refresh {
                    self.pending.request(family);
                }
            }
            (_, message) => return Err(self.unexpected(message.message_type())),
        }
        Ok(Step::Processed)
    }

    /// A malformed message that is unexpected in this state is reported as unexpected (RFC 4271 §8.2.2).
    fn unexpected_instead_of(&self, error: &Notification) -> Option<Notification> {
        let established = self.state == State::Established;
        match error.known()? {
            NotificationCode::OpenMessage(_) if established => Some(self.unexpected(MessageType::Open)),
            NotificationCode::UpdateMessage(_) if !established => Some(self.unexpected(MessageType::Update)),
            NotificationCode::RouteRefreshMessage(_) if !established => {
                Some(self.unexpected(MessageType::RouteRefresh))
            }
            _ => None,
        }
    }

    /// Finite State Machine Error with the state in the subcode and the type of the message in the data (RFC 6608).
    fn unexpected(&self, message: MessageType) -> Notification {
        let subcode = match self.state {
            State::OpenSent => FsmSubcode::OpenSent,
            State::OpenConfirm => FsmSubcode::OpenConfirm,
            State::Established => FsmSubcode::Established,
            State::Idle | State::Connect | State::Active => FsmSubcode::Unspecified,
        };
        Notification::new(subcode, &[message.code()])
    }

    /// Whether IPv4 prefixes need an IPv6 next hop (RFC 8950), because this end has no IPv4 address.
    fn lacks_v4(&self, config: &SessionConfig) -> bool {
        config.families.contains(&Family::Ipv4) && self.offered.v4.is_none() && self.offered.v6.is_some()
    }

    fn negotiated_next_hops(&self) -> NextHops {
        let Some(negotiated) = &self.negotiated else { return NextHops::default() };
        let NextHops { v4, v6 } = self.offered;
        let v4 = v4.or(v6.filter(|_| negotiated.extended_next_hop));
        let carried = |family| negotiated.families.contains(&family);
        NextHops { v4: v4.filter(|_| carried(Family::Ipv4)), v6: v6.filter(|_| carried(Family::Ipv6)) }
    }

    fn decode_context(&self, config: &SessionConfig) -> DecodeContext {
        // RFC 8654 §4: our capability counts, whatever the peer supports.
        let extended_messages = config.extended_messages;
        let Some(negotiated) = &self.negotiated else {
            return DecodeContext { extended_messages, ..DecodeContext::default() };
        };
        DecodeContext {
            local_asn: config.asn,
            remote_asn: negotiated.remote_asn,
            four_octet_asn: negotiated.four_octet_asn,
            extended_messages,
            enhanced_refresh: negotiated.enhanced_refresh,
            extended_next_hop: negotiated.extended_next_hop,
            ipv4: negotiated.families.contains(&Family::Ipv4),
            ipv6: negotiated.families.contains(&Family::Ipv6),
        }
    }

    fn accept(&mut self, now: Instant, open: &Open, shared: &mut Shared) -> Result<(), Notification> {
        let mut negotiated = negotiate(&shared.config, self.router_id, open)?;
        negotiated.extended_next_hop &= self.offers_extended;
        self.negotiated = Some(negotiated);
        self.next_hops = self.negotiated_next_hops();
        self.state = State::OpenConfirm;
        self.send_keepalive(now, shared);
        self.rearm_hold(now, &shared.config);
        self.arm_send_hold(now, &shared.config);
        Ok(())
    }

    fn establish(&mut self, now: Instant, shared: &mut Shared) {
        self.state = State::Established;
        self.established_at = Some(now);
        shared.counters.established += 1;
        shared.backoff.note_established(now);
        shared.restarting = false;
        shared.rib.reset();
        self.pending = Pending::everything();
    }

    fn send_keepalive(&mut self, now: Instant, shared: &mut Shared) {
        keepalive(&mut self.output);
        shared.counters.keepalives_sent += 1;
        self.arm_keepalive(now, shared);
    }

    fn arm_keepalive(&mut self, now: Instant, shared: &mut Shared) {
        let third = self.hold_time(&shared.config) / 3;
        let chosen = shared.config.keepalive_time.filter(|time| !time.is_zero());
        let period = chosen.map_or(third, |time| time.min(third));
        // RFC 4271 §10: jitter.
        let at = (!period.is_zero()).then(|| now + shared.backoff.jitter(period));
        self.timers.set(Timer::Keepalive, at);
    }

    fn rearm_hold(&mut self, now: Instant, config: &SessionConfig) {
        let hold = self.hold_time(config);
        self.timers.set(Timer::Hold, (!hold.is_zero()).then(|| now + hold));
    }

    /// The timer runs from the moment when the connection stopped accepting bytes, after the hold time was negotiated.
    fn arm_send_hold(&mut self, now: Instant, config: &SessionConfig) {
        let hold = self.hold_time(config);
        let at = match self.timers.at(Timer::SendHold) {
            _ if !self.blocked || hold.is_zero() || self.negotiated.is_none() => None,
            Some(at) => Some(at),
            None => Some(now + SEND_HOLD.max(hold * 2)),
        };
        self.timers.set(Timer::SendHold, at);
    }

    fn hold_time(&self, config: &SessionConfig) -> Duration {
        self.negotiated.as_ref().map_or(config.hold_time, |negotiated| negotiated.hold_time)
    }
}

/// Limit for the peer's OPEN.
const OPEN_HOLD: Duration = Duration::from_secs(240);

/// Minimum of the send hold time (RFC 9687 §3.2).
pub(crate) const SEND_HOLD: Duration = Duration::from_secs(480);

/// How long the peer should keep the routes while this speaker restarts, in seconds.
const RESTART_TIME: u16 = 120;
