//! One BFD session: its state, the state of the neighbour, and its timers.

pub(super) mod echo;
mod transition;

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use self::echo::{Echo, EchoPacket};
use super::rate::{Budget, jittered};
use super::{ControlPacket, Diagnostic, Discriminator, Hops, Interval, Profile, Role, State};

/// The protocol with one neighbour. The engine demultiplexes received packets and addresses sent ones.
#[derive(Debug)]
pub(super) struct Session {
    profile: Profile,
    hops: Hops,
    discriminator: Discriminator,
    random: SmallRng,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// The values in our packets.
    advertised: Timing,
    /// The values that our timers use. They differ from `advertised` until the neighbour has confirmed a change.
    used: Timing,
    /// A poll sequence is in progress.
    polling: bool,
    transmit_interval: Option<Duration>,
    transmit_at: Option<Instant>,
    sent_at: Option<Instant>,
    received_at: Option<Instant>,
    detect_at: Option<Instant>,
    echo: Echo,
    budget: Budget,
    send: PendingPackets,
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
    /// The cause of the change.
    pub cause: Cause,
    /// The diagnostic in our packets.
    pub diagnostic: Diagnostic,
    /// The diagnostic in the last packet of the neighbour.
    pub remote_diagnostic: Diagnostic,
    /// C: the BFD implementation of the neighbour survives a restart of its control plane. Only then does a failure
    /// abort its graceful restart (RFC 5882 §4.3).
    pub control_plane_independent: bool,
}

/// The cause of a state change.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Cause {
    /// The three-way handshake with the neighbour progressed.
    Handshake,
    /// No packet was received for the detection time.
    DetectionTimeExpired,
    /// Echo packets are no longer returned.
    EchoFailed,
    /// The neighbour reports that the session is down.
    NeighborDown,
    /// The neighbour's administrator took the session down.
    NeighborAdminDown,
    /// Our administrator took the session down.
    AdminDown,
    /// Our administrator enabled the session again.
    AdminUp,
}

impl Cause {
    /// Whether the path may have failed, so that clients must react. An administrative change is no failure (RFC 5882
    /// §3.2).
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::DetectionTimeExpired | Self::EchoFailed | Self::NeighborDown)
    }

    /// A stable name for logs and status.
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

/// Counters of a session since its creation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Control packets accepted.
    pub control_packets_in: u64,
    /// Control packets sent.
    pub control_packets_out: u64,
    /// Our echo packets that were returned.
    pub echo_packets_in: u64,
    /// Echo packets sent.
    pub echo_packets_out: u64,
    /// Transitions to Up.
    pub up_events: u64,
    /// Transitions from Up.
    pub down_events: u64,
    /// Transitions reported to clients, which FRR counts as notifications of zebra.
    pub notifications: u64,
    /// Packets outside the schedule that the rate limit suppressed.
    pub replies_limited: u64,
    /// Periodic packets that were sent late by more than a quarter of their interval.
    pub transmissions_late: u64,
    /// Periodic packets that were sent late by more than five milliseconds.
    pub transmissions_late_by_5_ms: u64,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outgoing {
    Control(ControlPacket),
    Echo(EchoPacket),
}

/// The values in the last packet of the neighbour.
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
    /// The initial values (RFC 5880 §6.8.1).
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

/// Packets to send. Each kind is pending at most once, so this is not a queue.
#[derive(Debug, Default)]
struct PendingPackets {
    control: bool,
    response: bool,
    echo: bool,
}

impl Session {
    /// A session in state Down. `discriminator` must be unique on this host; `seed` determines jitter and echo tags.
    pub(super) fn new(profile: Profile, hops: Hops, discriminator: Discriminator, seed: u64, now: Instant) -> Self {
        let mut session = Self {
            profile,
            hops,
            discriminator,
            random: SmallRng::seed_from_u64(seed),
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
            send: PendingPackets::default(),
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

    /// The diagnostic of the last change.
    pub(super) fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// The counters.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// The interval of our periodic packets before jitter; `None` while none are sent.
    pub(super) fn transmit_interval(&self) -> Option<Duration> {
        let passive = self.profile.role == Role::Passive && self.remote.discriminator.is_none();
        let on_demand =
            self.remote.demand && !self.polling && (self.state, self.remote.state) == (State::Up, State::Up);
        if passive || on_demand || self.remote.required_min_rx == Interval::ZERO {
            return None;
        }
        Some(self.used.desired_min_tx.max(self.remote.required_min_rx).duration())
    }

    /// The detection time of this side (RFC 5880 §6.8.4); zero before the first packet of the neighbour.
    pub(super) fn detection_time(&self) -> Duration {
        if self.remote.discriminator.is_none() {
            return Duration::ZERO;
        }
        self.receive_interval() * u32::from(self.remote.detect_multiplier.get())
    }

    /// The interval of the neighbour's periodic packets before jitter.
    pub(super) fn receive_interval(&self) -> Duration {
        self.used.required_min_rx.max(self.remote.desired_min_tx).duration()
    }

    /// The detection time of the neighbour, computed from the values exchanged.
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

    /// Processes a packet of the neighbour (RFC 5880 §6.8.6, from the update of the session variables on). Returns
    /// `false` if the session is administratively down and drops packets.
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
            self.send.response |= self.take_budget(now);
        }
        self.received_at = Some(now);
        self.detect_at = Some(now + self.detection_time());
        self.transmit_early(now);
        true
    }

    /// Sends the next periodic packet now, while the driver is awake, if at least 75 % of the interval have passed
    /// since the previous one. This saves a wake-up and stays within the jitter of RFC 5880 §6.8.7.
    fn transmit_early(&mut self, now: Instant) {
        let (Some(sent), Some(interval)) = (self.sent_at, self.transmit_interval) else { return };
        if self.state == State::Up && now.saturating_duration_since(sent) >= interval * 3 / 4 {
            self.transmit_at = self.transmit_at.map(|at| at.min(now));
        }
    }

    /// Processes a returned echo packet. Returns `false` if no packet with this tag is in flight.
    pub(super) fn handle_echo(&mut self, now: Instant, tag: u64) -> bool {
        let genuine = self.echo.returned(tag);
        if let Some(interval) = self.echo.interval.filter(|_| genuine) {
            self.counters.echo_packets_in += 1;
            self.echo.detect_at = Some(now + interval * u32::from(self.remote.detect_multiplier.get()));
        }
        genuine
    }

    /// Processes expired timers.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.detect_at) {
            // The values of the neighbour are reset (RFC 5880 §6.8.1).
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
        if std::mem::take(&mut self.send.response) {
            // The response replaces a periodic packet, except for the P bit.
            self.send.control &= self.polling;
            return Some(Outgoing::Control(self.control_packet(Final::Yes)));
        }
        if std::mem::take(&mut self.send.control) {
            return Some(Outgoing::Control(self.control_packet(Final::No)));
        }
        if std::mem::take(&mut self.send.echo) {
            let tag = self.random.next_u64();
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

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.transmit_at, self.detect_at, self.echo.transmit_at, self.echo.detect_at].into_iter().flatten().min()
    }

    /// Changes the profile. A session that is Up stays Up and negotiates the new timers.
    pub(super) fn update(&mut self, now: Instant, profile: Profile) {
        if profile != self.profile {
            let announce = profile.detect_multiplier != self.profile.detect_multiplier
                || profile.echo.is_some() != self.profile.echo.is_some();
            self.profile = profile;
            self.negotiate(now);
            if announce && self.transmit_interval.is_some() {
                self.send.control |= self.take_budget(now);
            }
        }
    }

    /// Takes the session administratively down, or enables it again.
    pub(super) fn set_admin(&mut self, now: Instant, up: bool) {
        match (up, self.state) {
            (false, State::AdminDown) | (true, State::Down | State::Init | State::Up) => return,
            (false, _) => {
                self.enter(now, State::AdminDown, Cause::AdminDown);
                self.detect_at = None;
                // Not rate-limited: the neighbour must be informed.
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
        // The neighbour should be informed immediately (RFC 5880 §6.8.7).
        if self.transmit_interval().is_some() {
            self.send.control |= self.take_budget(now);
        }
    }

    /// Updates packets and timers for the current profile and state (RFC 5880 §6.8.3). While Up, each change of the
    /// advertised values is confirmed by a poll sequence; before, the neighbour learns them with the handshake.
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
            // Sending faster and receiving slower are safe immediately, the opposite only after the neighbour has
            // confirmed.
            self.used.desired_min_tx = self.used.desired_min_tx.min(wanted.desired_min_tx);
            self.used.required_min_rx = self.used.required_min_rx.max(wanted.required_min_rx);
            self.send.control |= self.remote.required_min_rx != Interval::ZERO && self.take_budget(now);
        }
        self.schedule(now);
        self.schedule_echo(now);
        if let Some(received_at) = self.received_at.filter(|_| self.detect_at.is_some()) {
            self.detect_at = Some(received_at + self.detection_time());
        }
    }

    /// A shorter interval counts from the last packet, so that an overdue packet is sent now. A longer one starts with
    /// the next packet.
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
        let accepted = self.remote.required_min_echo_rx;
        let interval = self
            .profile
            .echo
            .filter(|_| self.returns_echo() && accepted != Interval::ZERO)
            .map(|own| own.max(accepted).duration());
        if interval == self.echo.interval {
            return;
        }
        self.echo.stop();
        self.echo.interval = interval;
        self.echo.transmit_at = interval.map(|_| now);
    }

    fn take_budget(&mut self, now: Instant) -> bool {
        let granted = self.budget.take(now, self.advertised.desired_min_tx.duration());
        self.counters.replies_limited += u64::from(!granted);
        granted
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        jittered(&mut self.random, interval, self.profile.detect_multiplier.get())
    }

    fn control_packet(&mut self, is_final: Final) -> ControlPacket {
        self.counters.control_packets_out += 1;
        let echo = self.profile.echo.filter(|_| self.hops == Hops::Single).unwrap_or(Interval::ZERO);
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling && matches!(is_final, Final::No),
            is_final: matches!(is_final, Final::Yes),
            // BFD runs in the process of the speaker and restarts with it.
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

/// Whether a packet has the F bit.
#[derive(Clone, Copy)]
enum Final {
    Yes,
    No,
}

/// Minimum transmit interval while not Up (RFC 5880 §6.8.3).
const SLOW_START: Interval = Interval(1_000_000);
