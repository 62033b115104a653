//! All sessions of a host: whose packet is it, and what is due next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::rate::Random;
use super::session::echo::EchoPacket;
use super::session::{Outgoing, Session};
use super::timer::{TimerId, Wheel};
use super::{
    AddSessionError, ControlPacket, Counters, DecodeError, Diagnostic, Discriminator, Hops, Interval, Profile,
    RoutingDomain, SessionKey, State, StateChange, TTL,
};

/// Thousands of sessions, one clock. See the [module](super) for how to drive it.
#[derive(Debug)]
pub struct Engine {
    sessions: HashMap<Discriminator, Entry>,
    /// For packets of neighbours that do not know our discriminator yet.
    by_neighbor: BTreeMap<(RoutingDomain, Hops, IpAddr), Vec<Discriminator>>,
    deadlines: Wheel,
    random: Random,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    discards: BTreeMap<Discard, u64>,
}

#[derive(Debug)]
struct Entry {
    key: SessionKey,
    session: Session,
    timer: TimerId,
    /// Deconfigured: says AdminDown until then (RFC 5882 §3.2), unless it is wanted again.
    remove_at: Option<Instant>,
}

/// Where a datagram came from and went to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Meta {
    /// The sender.
    pub remote: IpAddr,
    /// The address it was sent to.
    pub local: IpAddr,
    /// The index of the interface it came in by.
    pub interface: u32,
    /// The VRF of the socket.
    pub domain: RoutingDomain,
    /// Time to live, or hop limit, as received.
    pub ttl: u8,
    /// By the port it came to.
    pub hops: Hops,
}

/// A datagram to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// Whose it is; all control packets of a session must leave from one source port (RFC 5881 §4).
    pub session: Discriminator,
    /// The path.
    pub key: SessionKey,
    /// Which port, and whose packet.
    pub kind: TransmitKind,
    /// TTL to send with.
    pub ttl: u8,
    bytes: [u8; MAX_DATAGRAM],
    length: u8,
}

impl Transmit {
    /// The UDP payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }

    fn new(session: Discriminator, key: SessionKey, kind: TransmitKind, ttl: u8, payload: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_DATAGRAM];
        bytes.get_mut(..payload.len())?.copy_from_slice(payload);
        Some(Self { session, key, kind, ttl, bytes, length: u8::try_from(payload.len()).ok()? })
    }
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransmitKind {
    /// A control packet, to the port of the session's kind.
    Control,
    /// An echo packet of ours, to port 3785.
    Echo,
    /// An echo packet of the neighbour, on its way back to port 3785.
    EchoReturn,
}

/// News of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Event {
    /// The session.
    pub session: Discriminator,
    /// Its path.
    pub key: SessionKey,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// Its state changed.
    StateChanged(StateChange),
    /// It was deconfigured and has said so for long enough; it no longer exists.
    Removed,
}

/// Why a datagram was dropped. A dropped one changes no session.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Discard {
    /// Too few or too many hops away.
    #[error("ttl")]
    Ttl,
    /// Our own address as the source.
    #[error("own_address")]
    OwnAddress,
    /// No valid control packet.
    #[error("malformed")]
    Malformed,
    /// Not a discriminator of ours.
    #[error("unknown_discriminator")]
    UnknownDiscriminator,
    /// Nobody configured this neighbour, or not on this address or interface.
    #[error("unknown_neighbor")]
    UnknownNeighbor,
    /// A discriminator of ours from another address, port, interface or VRF than its session's.
    #[error("wrong_path")]
    WrongPath,
    /// An authenticated packet; authentication is not configured.
    #[error("authentication")]
    Authentication,
    /// The session is administratively down.
    #[error("admin_down")]
    AdminDown,
    /// An echo packet that nobody here sent, or wants to return.
    #[error("echo")]
    Echo,
}

impl From<DecodeError> for Discard {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SessionSnapshot {
    /// The path.
    pub key: SessionKey,
    /// Our name for it.
    pub discriminator: Discriminator,
    /// The neighbour's name for it.
    pub remote_discriminator: Option<Discriminator>,
    /// The state.
    pub state: State,
    /// The neighbour's state as it told.
    pub remote_state: State,
    /// Why the state changed last.
    pub diagnostic: Diagnostic,
    /// The same, as the neighbour tells.
    pub remote_diagnostic: Diagnostic,
    /// Between our packets, before jitter; `None` while we send none.
    pub transmit_interval: Option<Duration>,
    /// Between the neighbour's packets, before jitter; `None` before it spoke.
    pub receive_interval: Option<Duration>,
    /// How long the neighbour may be silent; zero before it spoke.
    pub detection_time: Duration,
    /// How long we may be, as far as we know; zero before it spoke.
    pub remote_detection_time: Duration,
    /// What the neighbour asks for; `None` before it spoke.
    pub remote_timers: Option<RemoteTimers>,
    /// What passed so far.
    pub counters: Counters,
}

/// The timers that a neighbour asks for; the slower of both ends decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RemoteTimers {
    /// Desired minimum transmit interval.
    pub transmit_interval: Interval,
    /// Required minimum receive interval; zero where it wants no packets.
    pub receive_interval: Interval,
    /// How many of its packets in a row may be lost before we give up.
    pub detect_multiplier: NonZeroU8,
}

impl Engine {
    /// An engine without sessions. `seed` decides discriminators and jitter and must not be guessable.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: HashMap::new(),
            by_neighbor: BTreeMap::new(),
            deadlines: Wheel::default(),
            random: Random::new(seed),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            discards: BTreeMap::new(),
        }
    }

    /// Begins to watch a path. A session that is being removed is taken back.
    ///
    /// # Errors
    /// The path cannot be watched, or is watched already.
    pub fn add_session(
        &mut self,
        now: Instant,
        key: SessionKey,
        profile: Profile,
    ) -> Result<Discriminator, AddSessionError> {
        key.check()?;
        if let Some(discriminator) = self.find(&key) {
            match self.sessions.get_mut(&discriminator) {
                Some(entry) if entry.remove_at.is_some() => {
                    entry.remove_at = None;
                    entry.session.update(now, profile);
                    entry.session.set_admin(now, true);
                }
                _ => return Err(AddSessionError::Exists(discriminator)),
            }
            self.drain(discriminator);
            return Ok(discriminator);
        }
        let discriminator = Discriminator::draw(&mut self.random, |drawn| self.sessions.contains_key(&drawn));
        let session = Session::new(profile, key.hops, discriminator, self.random.next(), now);
        let timer = self.deadlines.register(discriminator);
        self.sessions.insert(discriminator, Entry { key, session, timer, remove_at: None });
        self.by_neighbor.entry((key.domain, key.hops, key.remote)).or_default().push(discriminator);
        self.drain(discriminator);
        Ok(discriminator)
    }

    /// Changes how a path is watched. A session that is Up stays Up and negotiates the new timers by a poll sequence; the same
    /// profile again changes nothing. False without such a session.
    pub fn update_session(&mut self, now: Instant, key: &SessionKey, profile: Profile) -> bool {
        self.with(key, |entry| entry.session.update(now, profile))
    }

    /// Stops watching a path: the neighbour is told AdminDown for its whole detection time, so that it takes nothing for a
    /// failure. False without such a session.
    pub fn remove_session(&mut self, now: Instant, key: &SessionKey) -> bool {
        self.with(key, |entry| {
            let known = entry.session.remote().discriminator.is_some();
            entry.session.set_admin(now, false);
            let linger = if known { entry.session.remote_detection_time() } else { Duration::ZERO };
            entry.remove_at.get_or_insert(now + linger);
        })
    }

    /// Holds a session administratively down, or lets it come up again. False without such a session.
    pub fn set_admin(&mut self, now: Instant, key: &SessionKey, up: bool) -> bool {
        self.with(key, |entry| {
            if entry.remove_at.is_none() {
                entry.session.set_admin(now, up);
            }
        })
    }

    /// A datagram that came to a control port. The checks follow RFC 5880 §6.8.6, RFC 5881 §5 and RFC 5883 §5.
    ///
    /// # Errors
    /// Why it was dropped; it is counted, and no session noticed it.
    pub fn handle_packet(&mut self, now: Instant, meta: &Meta, payload: &[u8]) -> Result<(), Discard> {
        let outcome = self.accept(now, meta, payload);
        self.count(outcome)
    }

    /// A datagram that came to the echo port: a packet of ours, or one to return.
    ///
    /// # Errors
    /// Why it was dropped; it is counted.
    pub fn handle_echo(&mut self, now: Instant, meta: &Meta, payload: &[u8]) -> Result<(), Discard> {
        let outcome = self.accept_echo(now, meta, payload);
        self.count(outcome)
    }

    /// Does what is due. Packets that wait in sockets must be handled first: they prove that a neighbour was alive while we were
    /// late. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(discriminator) = self.deadlines.pop(now) {
            let Some(entry) = self.sessions.get_mut(&discriminator) else { continue };
            if entry.remove_at.is_some_and(|at| at <= now) {
                self.forget(discriminator);
                continue;
            }
            entry.session.handle_timeout(now);
            self.drain(discriminator);
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Where the session of a path stands.
    #[must_use]
    pub fn session(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        self.find(key).and_then(|discriminator| self.sessions.get(&discriminator)).map(snapshot)
    }

    /// Where all sessions stand, by path.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionSnapshot> {
        let mut sessions: Vec<_> = self.sessions.values().map(snapshot).collect();
        sessions.sort_unstable_by_key(|session| session.key);
        sessions
    }

    /// How many datagrams were dropped, by reason.
    #[must_use]
    pub fn discards(&self) -> &BTreeMap<Discard, u64> {
        &self.discards
    }

    fn accept(&mut self, now: Instant, meta: &Meta, payload: &[u8]) -> Result<(), Discard> {
        if meta.hops == Hops::Single && meta.ttl != TTL {
            return Err(Discard::Ttl);
        }
        if meta.remote == meta.local {
            return Err(Discard::OwnAddress);
        }
        let packet = ControlPacket::decode(payload)?;
        let discriminator = match packet.your_discriminator {
            Some(yours) => yours,
            None => self.neighbor(meta).ok_or(Discard::UnknownNeighbor)?,
        };
        let entry = self.sessions.get_mut(&discriminator).ok_or(Discard::UnknownDiscriminator)?;
        if !entry.key.admits(meta) {
            return Err(Discard::WrongPath);
        }
        if meta.hops == Hops::Multiple && meta.ttl < entry.session.profile().minimum_ttl {
            return Err(Discard::Ttl);
        }
        if packet.authentication {
            return Err(Discard::Authentication);
        }
        let taken = entry.session.handle_packet(now, &packet);
        self.drain(discriminator);
        if taken { Ok(()) } else { Err(Discard::AdminDown) }
    }

    fn accept_echo(&mut self, now: Instant, meta: &Meta, payload: &[u8]) -> Result<(), Discard> {
        if meta.remote == meta.local {
            return Err(Discard::OwnAddress);
        }
        if meta.ttl == TTL {
            let discriminator = self.neighbor(meta).ok_or(Discard::Echo)?;
            let entry = self.sessions.get(&discriminator).filter(|entry| entry.session.returns_echo());
            let key = entry.ok_or(Discard::Echo)?.key;
            let back = Transmit::new(discriminator, key, TransmitKind::EchoReturn, TTL - 1, payload);
            self.transmits.push_back(back.ok_or(Discard::Malformed)?);
            return Ok(());
        }
        if meta.ttl != TTL - 1 {
            return Err(Discard::Ttl);
        }
        let packet = EchoPacket::decode(payload).ok_or(Discard::Malformed)?;
        let entry = self.sessions.get_mut(&packet.discriminator).ok_or(Discard::UnknownDiscriminator)?;
        if !entry.key.admits(meta) {
            return Err(Discard::WrongPath);
        }
        let genuine = entry.session.handle_echo(now, packet.tag);
        self.drain(packet.discriminator);
        if genuine { Ok(()) } else { Err(Discard::Echo) }
    }

    fn count(&mut self, outcome: Result<(), Discard>) -> Result<(), Discard> {
        outcome.inspect_err(|reason| *self.discards.entry(*reason).or_default() += 1)
    }

    /// Of the sessions that may take the packet, the one that says most about its path.
    fn neighbor(&self, meta: &Meta) -> Option<Discriminator> {
        let candidates = self.by_neighbor.get(&(meta.domain, meta.hops, meta.remote))?;
        let keys = candidates.iter().filter_map(|session| Some((self.sessions.get(session)?.key, *session)));
        keys.filter(|(key, _)| key.admits(meta))
            .max_by_key(|(key, _)| (key.local.is_some(), key.interface.is_some()))
            .map(|(_, session)| session)
    }

    fn find(&self, key: &SessionKey) -> Option<Discriminator> {
        let candidates = self.by_neighbor.get(&(key.domain, key.hops, key.remote))?;
        candidates.iter().find(|session| self.sessions.get(session).is_some_and(|entry| entry.key == *key)).copied()
    }

    fn with(&mut self, key: &SessionKey, act: impl FnOnce(&mut Entry)) -> bool {
        let Some(discriminator) = self.find(key) else { return false };
        let Some(entry) = self.sessions.get_mut(&discriminator) else { return false };
        act(entry);
        self.drain(discriminator);
        true
    }

    /// Collects what a session has to say, and its next deadline.
    fn drain(&mut self, discriminator: Discriminator) {
        let Some(Entry { key, session, timer, remove_at }) = self.sessions.get_mut(&discriminator) else { return };
        while let Some(outgoing) = session.poll_transmit() {
            let transmit = match outgoing {
                Outgoing::Control(packet) => {
                    Transmit::new(discriminator, *key, TransmitKind::Control, TTL, &packet.encode())
                }
                Outgoing::Echo(packet) => Transmit::new(discriminator, *key, TransmitKind::Echo, TTL, &packet.encode()),
            };
            self.transmits.extend(transmit);
        }
        while let Some(change) = session.poll_change() {
            let kind = EventKind::StateChanged(change);
            self.events.push_back(Event { session: discriminator, key: *key, kind });
        }
        let next = [session.poll_timeout(), *remove_at].into_iter().flatten().min();
        self.deadlines.arm(*timer, next);
    }

    fn forget(&mut self, discriminator: Discriminator) {
        let Some(Entry { key, timer, .. }) = self.sessions.remove(&discriminator) else { return };
        self.deadlines.forget(timer);
        let neighbor = (key.domain, key.hops, key.remote);
        if let Some(sessions) = self.by_neighbor.get_mut(&neighbor) {
            sessions.retain(|session| *session != discriminator);
            if sessions.is_empty() {
                self.by_neighbor.remove(&neighbor);
            }
        }
        self.events.push_back(Event { session: discriminator, key, kind: EventKind::Removed });
    }
}

impl SessionKey {
    /// Whether a packet took the path. The neighbour's address is part of it: an unexpected source is never followed.
    fn admits(&self, meta: &Meta) -> bool {
        (self.remote, self.hops, self.domain) == (meta.remote, meta.hops, meta.domain)
            && self.local.is_none_or(|local| local == meta.local)
            && self.interface.is_none_or(|interface| interface.get() == meta.interface)
    }
}

fn snapshot(entry: &Entry) -> SessionSnapshot {
    let Entry { key, session, .. } = entry;
    let remote = session.remote();
    let known = remote.discriminator.is_some();
    SessionSnapshot {
        key: *key,
        discriminator: session.discriminator(),
        remote_discriminator: remote.discriminator,
        state: session.state(),
        remote_state: remote.state,
        diagnostic: session.diagnostic(),
        remote_diagnostic: remote.diagnostic,
        transmit_interval: session.transmit_interval(),
        receive_interval: known.then(|| session.receive_interval()),
        detection_time: session.detection_time(),
        remote_detection_time: if known { session.remote_detection_time() } else { Duration::ZERO },
        remote_timers: known.then_some(RemoteTimers {
            transmit_interval: remote.desired_min_tx,
            receive_interval: remote.required_min_rx,
            detect_multiplier: remote.detect_multiplier,
        }),
        counters: session.counters(),
    }
}

/// Enough for every control packet and for the echo packets of known implementations; larger ones are not returned.
const MAX_DATAGRAM: usize = 64;
