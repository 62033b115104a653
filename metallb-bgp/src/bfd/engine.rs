//! All BFD sessions of a host: demultiplexing of packets, and timers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use thiserror::Error;

use super::session::echo::EchoPacket;
use super::session::{Outgoing, Session};
use super::timer::{TimerId, Wheel};
use super::{
    AddSessionError, ControlPacket, Counters, DecodeError, Diagnostic, Discriminator, Hops, Interval, Profile,
    RoutingDomain, SessionKey, State, StateChange, TTL,
};

/// Any number of sessions with one timer wheel. See the [module](super) for how to drive it.
#[derive(Debug)]
pub struct Engine {
    sessions: HashMap<Discriminator, Entry>,
    /// Finds the session for packets of neighbours that do not know our discriminator yet.
    by_neighbor: BTreeMap<(RoutingDomain, Hops, IpAddr), Vec<Discriminator>>,
    deadlines: Wheel,
    random: SmallRng,
    /// Bounded by the driver, which drains it after every batch of inputs: each input adds at most a few packets.
    transmits: VecDeque<Transmit>,
    /// Bounded as `transmits`.
    events: VecDeque<Event>,
    discards: BTreeMap<Discard, u64>,
}

#[derive(Debug)]
struct Entry {
    key: SessionKey,
    session: Session,
    timer: TimerId,
    /// Set for a removed session, which sends AdminDown until then (RFC 5882 §3.2) unless it is added again.
    remove_at: Option<Instant>,
}

/// The source and destination of a received datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Meta {
    /// The source address.
    pub remote: IpAddr,
    /// The destination address.
    pub local: IpAddr,
    /// The index of the receiving interface.
    pub interface: u32,
    /// The VRF of the socket.
    pub domain: RoutingDomain,
    /// The TTL or hop limit, as received.
    pub ttl: u8,
    /// Single-hop or multi-hop, by the destination port.
    pub hops: Hops,
}

/// A datagram to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Transmit {
    /// The session. All its control packets must have the same source port (RFC 5881 §4).
    pub session: Discriminator,
    /// The path.
    pub key: SessionKey,
    /// The kind of packet, which determines the port.
    pub kind: TransmitKind,
    /// The TTL to send with.
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

/// The kind of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransmitKind {
    /// A control packet, to the single-hop or multi-hop port.
    Control,
    /// One of our echo packets, to port 3785.
    Echo,
    /// An echo packet of the neighbour, returned to port 3785.
    EchoReturn,
}

/// An event of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The session.
    pub session: Discriminator,
    /// The path of the session.
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
    /// The session was removed: it has sent AdminDown for the detection time of the neighbour.
    Removed,
}

/// Why a received datagram was dropped. A dropped datagram changes no session.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Discard {
    /// The TTL is too low.
    #[error("ttl")]
    Ttl,
    /// The source is our own address.
    #[error("own_address")]
    OwnAddress,
    /// The payload is not a valid packet.
    #[error("malformed")]
    Malformed,
    /// Your discriminator is not one of ours.
    #[error("unknown_discriminator")]
    UnknownDiscriminator,
    /// There is no session with this neighbour on this address and interface.
    #[error("unknown_neighbor")]
    UnknownNeighbor,
    /// The address, port, interface or VRF differs from that of the session with this discriminator.
    #[error("wrong_path")]
    WrongPath,
    /// The packet has an authentication section, which is not supported.
    #[error("authentication")]
    Authentication,
    /// The session is administratively down.
    #[error("admin_down")]
    AdminDown,
    /// The echo packet is neither one of ours nor one to return.
    #[error("echo")]
    Echo,
}

impl From<DecodeError> for Discard {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// The status of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SessionSnapshot {
    /// The path.
    pub key: SessionKey,
    /// Our discriminator.
    pub discriminator: Discriminator,
    /// The discriminator of the neighbour.
    pub remote_discriminator: Option<Discriminator>,
    /// The state.
    pub state: State,
    /// The state that the neighbour reported.
    pub remote_state: State,
    /// The diagnostic of the last state change.
    pub diagnostic: Diagnostic,
    /// The diagnostic that the neighbour reported.
    pub remote_diagnostic: Diagnostic,
    /// The interval of our packets before jitter; `None` while none are sent.
    pub transmit_interval: Option<Duration>,
    /// The interval of the neighbour's packets before jitter; `None` before its first packet.
    pub receive_interval: Option<Duration>,
    /// The detection time of this side; zero before the first packet of the neighbour.
    pub detection_time: Duration,
    /// The detection time of the neighbour, computed; zero before its first packet.
    pub remote_detection_time: Duration,
    /// The timers that the neighbour advertised; `None` before its first packet.
    pub remote_timers: Option<RemoteTimers>,
    /// The counters.
    pub counters: Counters,
}

/// The timers that a neighbour advertised. The slower side determines each interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RemoteTimers {
    /// Desired minimum transmit interval.
    pub transmit_interval: Interval,
    /// Required minimum receive interval; zero if it wants no packets.
    pub receive_interval: Interval,
    /// Number of its consecutive packets that must be lost before the session fails.
    pub detect_multiplier: NonZeroU8,
}

impl Engine {
    /// An engine without sessions. `seed` determines discriminators and jitter and must be hard to guess.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: HashMap::new(),
            by_neighbor: BTreeMap::new(),
            deadlines: Wheel::default(),
            random: SmallRng::seed_from_u64(seed),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            discards: BTreeMap::new(),
        }
    }

    /// Adds a session. A session that is being removed is enabled again.
    ///
    /// # Errors
    /// The path is invalid, or has a session already.
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
        let session = Session::new(profile, key.hops, discriminator, self.random.next_u64(), now);
        let timer = self.deadlines.register(discriminator);
        self.sessions.insert(discriminator, Entry { key, session, timer, remove_at: None });
        self.by_neighbor.entry((key.domain, key.hops, key.remote)).or_default().push(discriminator);
        self.drain(discriminator);
        Ok(discriminator)
    }

    /// Changes the profile of a session. A session that is Up stays Up and negotiates the new timers by a poll
    /// sequence. An equal profile changes nothing. Returns `false` if there is no such session.
    pub fn update_session(&mut self, now: Instant, key: &SessionKey, profile: Profile) -> bool {
        self.with_session(key, |entry| entry.session.update(now, profile))
    }

    /// Removes a session: AdminDown is sent for the detection time of the neighbour, so that it does not assume a
    /// failure. Returns `false` if there is no such session.
    pub fn remove_session(&mut self, now: Instant, key: &SessionKey) -> bool {
        self.with_session(key, |entry| {
            let known = entry.session.remote().discriminator.is_some();
            entry.session.set_admin(now, false);
            let delay = if known { entry.session.remote_detection_time() } else { Duration::ZERO };
            entry.remove_at.get_or_insert(now + delay);
        })
    }

    /// Takes a session administratively down, or enables it again. Returns `false` if there is no such session.
    pub fn set_admin(&mut self, now: Instant, key: &SessionKey, up: bool) -> bool {
        self.with_session(key, |entry| {
            if entry.remove_at.is_none() {
                entry.session.set_admin(now, up);
            }
        })
    }

    /// A datagram that was received on a control port. The checks follow RFC 5880 §6.8.6, RFC 5881 §5 and RFC 5883 §5.
    ///
    /// # Errors
    /// Why it was dropped. Dropped datagrams are counted.
    pub fn handle_packet(&mut self, now: Instant, meta: &Meta, payload: &[u8]) -> Result<(), Discard> {
        let outcome = self.accept(now, meta, payload);
        self.count(outcome)
    }

    /// A datagram that was received on the echo port: one of ours, or one to return.
    ///
    /// # Errors
    /// Why it was dropped. Dropped datagrams are counted.
    pub fn handle_echo(&mut self, now: Instant, meta: &Meta, payload: &[u8]) -> Result<(), Discard> {
        let outcome = self.accept_echo(now, meta, payload);
        self.count(outcome)
    }

    /// Processes expired timers. Packets that wait in sockets must be handled first, because they prove that a
    /// neighbour was alive while this process was delayed. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(discriminator) = self.deadlines.pop(now) {
            let Some(entry) = self.sessions.get_mut(&discriminator) else { continue };
            if entry.remove_at.is_some_and(|at| at <= now) {
                self.delete(discriminator);
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

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The status of the session of a path.
    #[must_use]
    pub fn session(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        self.find(key).and_then(|discriminator| self.sessions.get(&discriminator)).map(snapshot)
    }

    /// The status of all sessions, sorted by path.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionSnapshot> {
        let mut sessions: Vec<_> = self.sessions.values().map(snapshot).collect();
        sessions.sort_unstable_by_key(|session| session.key);
        sessions
    }

    /// The number of dropped datagrams, by reason.
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
        let accepted = entry.session.handle_packet(now, &packet);
        self.drain(discriminator);
        if accepted { Ok(()) } else { Err(Discard::AdminDown) }
    }

    fn accept_echo(&mut self, now: Instant, meta: &Meta, payload: &[u8]) -> Result<(), Discard> {
        if meta.remote == meta.local {
            return Err(Discard::OwnAddress);
        }
        if meta.ttl == TTL {
            let discriminator = self.neighbor(meta).ok_or(Discard::Echo)?;
            let entry = self.sessions.get(&discriminator).filter(|entry| entry.session.returns_echo());
            let key = entry.ok_or(Discard::Echo)?.key;
            let returned = Transmit::new(discriminator, key, TransmitKind::EchoReturn, TTL - 1, payload);
            self.transmits.push_back(returned.ok_or(Discard::Malformed)?);
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

    /// Of the sessions that admit the packet, the one with the most specific path.
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

    fn with_session(&mut self, key: &SessionKey, act: impl FnOnce(&mut Entry)) -> bool {
        let Some(discriminator) = self.find(key) else { return false };
        let Some(entry) = self.sessions.get_mut(&discriminator) else { return false };
        act(entry);
        self.drain(discriminator);
        true
    }

    /// Collects packets and events of a session, and arms its timer.
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

    fn delete(&mut self, discriminator: Discriminator) {
        let Some(Entry { key, timer, .. }) = self.sessions.remove(&discriminator) else { return };
        self.deadlines.remove(timer);
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
    /// Whether a packet was received over this path. The source address is part of the path, and a change of it is not
    /// followed.
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

/// Maximum payload: every control packet and the echo packets of known implementations fit. Larger echo packets are not
/// returned.
const MAX_DATAGRAM: usize = 64;
