//! One session: its state, what the neighbour said, and its timers.

pub(super) mod echo;
mod transition;

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use self::echo::{Echo, EchoPacket};
use super::rate::{Budget, Random};
use super::{ControlPacket, Diagnostic, Discriminator, Hops, Interval, Profile, Role, State};

/// The protocol between us and one neighbour; whose packet it is and where packets go is the engine's business.
#[derive(Debug)]
pub(super) struct Session {
    profile: Profile,
    hops: Hops,
    discriminator: Discriminator,
    random: Random,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// What our packets say.
    advertised: Timing,
    /// What our timers use: differs from `advertised` where the neighbour has not confirmed yet.
    used: Timing,
    /// A poll sequence is under way.
    polling: bool,
    transmit_interval: Option<Duration>,
    transmit_at: Option<Instant>,
    sent_at: Option<Instant>,
    received_at: Option<Instant>,
    detect_at: Option<Instant>,
    echo: Echo,
    budget: Budget,
    send: Outstanding,
    changes: VecDeque<StateChange>,
    counters: Counters,
}

/// A change of the local state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StateChange {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// What made it change.
    pub cause: Cause,
    /// What our packets give as the reason.
    pub diagnostic: Diagnostic,
    /// What the neighbour's last packet gave as its reason.
    pub remote_diagnostic: Diagnostic,
    /// The neighbour's BFD survives a restart of its control plane (C). Only then does a failure abort its graceful restart
    /// (RFC 5882 §4.3).
    pub control_plane_independent: bool,
}

/// What made a state change.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Cause {
    /// The neighbour is there.
    Handshake,
    /// No packet for the detection time.
    DetectionTimeExpired,
    /// Echo packets no longer return.
    EchoFailed,
    /// The neighbour no longer hears us.
    NeighborDown,
    /// The neighbour's administrator took the session down.
    NeighborAdminDown,
    /// Our administrator took it down.
    AdminDown,
    /// Our administrator allowed it again.
    AdminUp,
}

impl Cause {
    /// Whether the path may be broken, so that clients must act; an administrator's wish is no such sign (RFC 5882 §3.2).
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::DetectionTimeExpired | Self::EchoFailed | Self::NeighborDown)
    }

    /// A stable word for logs and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::DetectionTimeExpired => "detection_time_expired",
            Self::EchoFailed => "echo_failed",
            Self::NeighborDown => "neighbor_down",
            Self::NeighborAdminDown => "neighbor_admin_down",
            Self::AdminDown => "admin_down",
            Self::AdminUp => "admin_up",
        }
    }
}

/// What passed so far (contract speaker §9).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Control packets accepted.
    pub control_packets_in: u64,
    /// Control packets sent.
    pub control_packets_out: u64,
    /// Echo packets of ours that came back.
    pub echo_packets_in: u64,
    /// Echo packets sent.
    pub echo_packets_out: u64,
    /// Changes to Up.
    pub up_events: u64,
    /// Changes from Up.
    pub down_events: u64,
    /// Changes reported to clients, what FRR's daemon counts as notifications of zebra.
    pub notifications: u64,
    /// Packets outside the schedule that the budget held back.
    pub replies_limited: u64,
    /// Periodic packets that left more than a quarter of their interval late.
    pub transmissions_late: u64,
    /// Periodic packets that left more than five milliseconds late, whatever their interval.
    pub transmissions_late_by_5_ms: u64,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outgoing {
    Control(ControlPacket),
    Echo(EchoPacket),
}

/// What the neighbour said last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    pub(super) discriminator: Option<Discriminator>,
    pub(super) state: State,
    pub(super) diagnostic: Diagnostic,
    pub(super) demand: bool,
    pub(super) control_plane_independent: bool,
    pub(super) detect_multiplier: NonZeroU8,
    pub(super) desired_min_tx: Interval,
    pub(super) required_min_rx: Interval,
    pub(super) required_min_echo_rx: Interval,
}

impl Remote {
    /// RFC 5880 §6.8.1.
    const UNKNOWN: Self = Self {
        discriminator: None,
        state: State::Down,
        diagnostic: Diagnostic::NONE,
        demand: false,
        control_plane_independent: false,
        detect_multiplier: NonZeroU8::MIN,
        desired_min_tx: Interval::ZERO,
        required_min_rx: Interval(1),
        required_min_echo_rx: Interval::ZERO,
    };
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Timing {
    desired_min_tx: Interval,
    required_min_rx: Interval,
}

/// Packets that wait to be drained.
#[derive(Debug, Default)]
struct Outstanding {
    control: bool,
    answer: bool,
    echo: bool,
}

impl Session {
    /// A session in state Down. `discriminator` must be unique on this host; `seed` decides jitter and echo tags.
    pub(super) fn new(profile: Profile, hops: Hops, discriminator: Discriminator, seed: u64, now: Instant) -> Self {
        let mut session = Self {
            profile,
            hops,
            discriminator,
            random: Random::new(seed),
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: Remote::UNKNOWN,
            advertised: Timing { desired_min_tx: Interval::ZERO, required_min_rx: Interval::ZERO },
            used: Timing { desired_min_tx: Interval::ZERO, required_min_rx: Interval::ZERO },
            polling: false,
            transmit_interval: None,
            transmit_at: None,
            sent_at: None,
            received_at: None,
            detect_at: None,
            echo: Echo::default(),
            budget: Budget::new(now),
            send: Outstanding::default(),
            changes: VecDeque::new(),
            counters: Counters::default(),
        };
        session.negotiate(now);
        session
    }

    /// The local state.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Why it changed last.
    pub(super) fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// What passed so far.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// The interval between periodic packets before jitter; `None` while none are sent.
    pub(super) fn transmit_interval(&self) -> Option<Duration> {
        let silent = self.profile.role == Role::Passive && self.remote.discriminator.is_none();
        let asked_not_to =
            self.remote.demand && !self.polling && (self.state, self.remote.state) == (State::Up, State::Up);
        if silent || asked_not_to || self.remote.required_min_rx == Interval::ZERO {
            return None;
        }
        Some(self.used.desired_min_tx.max(self.remote.required_min_rx).duration())
    }

    /// How long the neighbour may be silent (RFC 5880 §6.8.4); zero before it spoke.
    pub(super) fn detection_time(&self) -> Duration {
        if self.remote.discriminator.is_none() {
            return Duration::ZERO;
        }
        self.receive_interval() * u32::from(self.remote.detect_multiplier.get())
    }

    /// The interval between the neighbour's periodic packets before jitter.
    pub(super) fn receive_interval(&self) -> Duration {
        self.used.required_min_rx.max(self.remote.desired_min_tx).duration()
    }

    /// How long the neighbour waits for our packets, as far as we know.
    pub(super) fn remote_detection_time(&self) -> Duration {
        let interval = self.advertised.desired_min_tx.max(self.remote.required_min_rx).duration();
        interval * u32::from(self.profile.detect_multiplier.get())
    }

    pub(super) fn discriminator(&self) -> Discriminator {
        self.discriminator
    }

    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(super) fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(super) fn returns_echo(&self) -> bool {
        self.hops == Hops::Single && self.state == State::Up && self.profile.echo.is_some()
    }

    /// Acts on a packet of the neighbour; false where the session is administratively down and takes none (RFC 5880 §6.8.6, from
    /// the storing of the neighbour's values on).
    pub(super) fn handle_packet(&mut self, now: Instant, packet: &ControlPacket) -> bool {
        self.remote = Remote {
            discriminator: Some(packet.my_discriminator),
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
            detect_multiplier: packet.detect_multiplier,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            required_min_echo_rx: packet.required_min_echo_rx,
        };
        if packet.is_final && self.polling {
            self.polling = false;
            self.used = self.advertised;
        }
        if self.state == State::AdminDown {
            self.schedule(now);
            return false;
        }
        self.counters.control_packets_in += 1;
        if let Some((state, cause)) = transition::next(self.state, packet.state) {
            self.enter(now, state, cause);
        }
        self.negotiate(now);
        if packet.poll {
            self.send.answer |= self.spend(now);
        }
        self.received_at = Some(now);
        self.detect_at = Some(now + self.detection_time());
        self.ride(now);
        true
    }

    /// A packet that may leave by now does so while the driver is awake for another, which saves a wake-up. It still follows the one
    /// before after 75 % of the interval at least, and what its moment is drawn from is random at either end (RFC 5880 §6.8.7).
    fn ride(&mut self, now: Instant) {
        let (Some(sent), Some(interval)) = (self.sent_at, self.transmit_interval) else { return };
        if self.state == State::Up && now.saturating_duration_since(sent) >= interval * 3 / 4 {
            self.transmit_at = self.transmit_at.map(|at| at.min(now));
        }
    }

    /// Takes note that an echo packet came back; false for one that is not under way.
    pub(super) fn handle_echo(&mut self, now: Instant, tag: u64) -> bool {
        let genuine = self.echo.returned(tag);
        if let Some(interval) = self.echo.interval.filter(|_| genuine) {
            self.counters.echo_packets_in += 1;
            self.echo.detect_at = Some(now + interval * u32::from(self.remote.detect_multiplier.get()));
        }
        genuine
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.detect_at) {
            // The neighbour is gone, and with it all it asked for (RFC 5880 §6.8.1).
            self.detect_at = None;
            self.received_at = None;
            self.remote = Remote { diagnostic: self.remote.diagnostic, ..Remote::UNKNOWN };
            if matches!(self.state, State::Init | State::Up) {
                self.enter(now, State::Down, Cause::DetectionTimeExpired);
            }
            self.negotiate(now);
        }
        if due(self.echo.detect_at) {
            self.enter(now, State::Down, Cause::EchoFailed);
            self.negotiate(now);
        }
        if let (Some(at), Some(interval)) = (self.transmit_at.filter(|at| *at <= now), self.transmit_interval) {
            self.counters.transmissions_late += u64::from(now - at > interval / 4);
            self.counters.transmissions_late_by_5_ms += u64::from(now - at > Duration::from_millis(5));
            self.send.control = true;
            self.sent_at = Some(now);
            self.transmit_at = Some(now + self.jittered(interval));
        }
        if let (true, Some(interval)) = (due(self.echo.transmit_at), self.echo.interval) {
            self.send.echo = true;
            self.echo.transmit_at = Some(now + self.jittered(interval));
        }
    }

    /// The next packet to send.
    pub(super) fn poll_transmit(&mut self) -> Option<Outgoing> {
        if std::mem::take(&mut self.send.answer) {
            // It says all that a periodic packet would, except for a poll.
            self.send.control &= self.polling;
            return Some(Outgoing::Control(self.control_packet(Answer::Yes)));
        }
        if std::mem::take(&mut self.send.control) {
            return Some(Outgoing::Control(self.control_packet(Answer::No)));
        }
        if std::mem::take(&mut self.send.echo) {
            let tag = self.random.next();
            self.echo.sent(tag);
            self.counters.echo_packets_out += 1;
            return Some(Outgoing::Echo(EchoPacket { discriminator: self.discriminator, tag }));
        }
        None
    }

    /// The next change of state to report.
    pub(super) fn poll_change(&mut self) -> Option<StateChange> {
        self.changes.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.transmit_at, self.detect_at, self.echo.transmit_at, self.echo.detect_at].into_iter().flatten().min()
    }

    /// Changes how the path is watched; an established session stays up and negotiates.
    pub(super) fn update(&mut self, now: Instant, profile: Profile) {
        if profile != self.profile {
            let announce = profile.detect_multiplier != self.profile.detect_multiplier
                || profile.echo.is_some() != self.profile.echo.is_some();
            self.profile = profile;
            self.negotiate(now);
            if announce && self.transmit_interval.is_some() {
                self.send.control |= self.spend(now);
            }
        }
    }

    /// Takes the session down, or allows it again.
    pub(super) fn set_admin(&mut self, now: Instant, up: bool) {
        match (up, self.state) {
            (false, State::AdminDown) | (true, State::Down | State::Init | State::Up) => return,
            (false, _) => {
                self.enter(now, State::AdminDown, Cause::AdminDown);
                self.detect_at = None;
                // Whatever was provoked before: the neighbour has to hear this one.
                self.send.control |= self.transmit_interval.is_some();
            }
            (true, State::AdminDown) => {
                self.remote = Remote::UNKNOWN;
                self.enter(now, State::Down, Cause::AdminUp);
            }
        }
        self.negotiate(now);
    }

    fn enter(&mut self, now: Instant, to: State, cause: Cause) {
        let from = std::mem::replace(&mut self.state, to);
        self.diagnostic = match cause {
            Cause::DetectionTimeExpired => Diagnostic::DETECTION_TIME_EXPIRED,
            Cause::EchoFailed => Diagnostic::ECHO_FAILED,
            Cause::NeighborDown | Cause::NeighborAdminDown => Diagnostic::NEIGHBOR_DOWN,
            Cause::AdminDown => Diagnostic::ADMIN_DOWN,
            Cause::Handshake if to == State::Init => self.diagnostic,
            Cause::Handshake | Cause::AdminUp => Diagnostic::NONE,
        };
        self.counters.up_events += u64::from(to == State::Up);
        self.counters.down_events += u64::from(from == State::Up);
        self.counters.notifications += u64::from(to == State::Up || from == State::Up);
        self.changes.push_back(StateChange {
            from,
            to,
            cause,
            diagnostic: self.diagnostic,
            remote_diagnostic: self.remote.diagnostic,
            control_plane_independent: self.remote.control_plane_independent,
        });
        // The neighbour should know at once (RFC 5880 §6.8.7).
        if self.transmit_interval().is_some() {
            self.send.control |= self.spend(now);
        }
    }

    /// Makes packets and timers follow profile and state (RFC 5880 §6.8.3). While Up every change of the advertised values is
    /// confirmed by a poll sequence, one after the other; before, the neighbour learns them with the handshake.
    fn negotiate(&mut self, now: Instant) {
        let up = self.state == State::Up;
        let slow = if up { Interval::ZERO } else { SLOW_START };
        let wanted = Timing {
            desired_min_tx: self.profile.transmit_interval.max(slow),
            required_min_rx: self.profile.receive_interval,
        };
        if !up {
            (self.polling, self.advertised, self.used) = (false, wanted, wanted);
        } else if wanted != self.advertised && !self.polling {
            self.polling = true;
            self.advertised = wanted;
            // Faster sending and slower receiving are safe at once, the opposite only when the neighbour agreed.
            self.used.desired_min_tx = self.used.desired_min_tx.min(wanted.desired_min_tx);
            self.used.required_min_rx = self.used.required_min_rx.max(wanted.required_min_rx);
            self.send.control |= self.remote.required_min_rx != Interval::ZERO && self.spend(now);
        }
        self.schedule(now);
        self.schedule_echo(now);
        if let Some(received_at) = self.received_at.filter(|_| self.detect_at.is_some()) {
            self.detect_at = Some(received_at + self.detection_time());
        }
    }

    /// A shorter interval counts from the last packet, so an overdue one leaves now; a longer one begins with the next packet.
    fn schedule(&mut self, now: Instant) {
        let interval = self.transmit_interval();
        if interval == self.transmit_interval {
            return;
        }
        self.transmit_interval = interval;
        self.transmit_at = interval.map(|interval| {
            let at = self.sent_at.map_or(now, |sent| (sent + self.jittered(interval)).max(now));
            self.transmit_at.map_or(at, |planned| planned.min(at))
        });
    }

    fn schedule_echo(&mut self, now: Instant) {
        let willing = self.remote.required_min_echo_rx;
        let interval = self
            .profile
            .echo
            .filter(|_| self.returns_echo() && willing != Interval::ZERO)
            .map(|own| own.max(willing).duration());
        if interval == self.echo.interval {
            return;
        }
        self.echo.stop();
        self.echo.interval = interval;
        self.echo.transmit_at = interval.map(|_| now);
    }

    fn spend(&mut self, now: Instant) -> bool {
        let granted = self.budget.take(now, self.advertised.desired_min_tx.duration());
        self.counters.replies_limited += u64::from(!granted);
        granted
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        self.random.jittered(interval, self.profile.detect_multiplier.get())
    }

    fn control_packet(&mut self, answer: Answer) -> ControlPacket {
        self.counters.control_packets_out += 1;
        let echo = self.profile.echo.filter(|_| self.hops == Hops::Single).unwrap_or(Interval::ZERO);
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling && matches!(answer, Answer::No),
            is_final: matches!(answer, Answer::Yes),
            // This engine lives in the speaker's process: who restarts one restarts both.
            control_plane_independent: false,
            authentication: false,
            demand: false,
            detect_multiplier: self.profile.detect_multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.advertised.desired_min_tx,
            required_min_rx: self.advertised.required_min_rx,
            required_min_echo_rx: echo,
        }
    }
}

#[derive(Clone, Copy)]
enum Answer {
    Yes,
    No,
}

/// While not Up nobody sends faster than this (RFC 5880 §6.8.3).
const SLOW_START: Interval = Interval(1_000_000);
