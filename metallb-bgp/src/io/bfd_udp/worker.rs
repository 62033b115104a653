//! The BFD thread: it waits, receives, applies commands, processes timers, transmits and publishes events.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use tokio::sync::watch;

use super::socket::{Listener, Port, Sender, interface_index, scoped};
use super::{BfdError, BfdPath, BfdProblem, BfdReport, BfdSnapshot, BfdStatus};
use crate::bfd::{
    Discriminator, Engine, Event, EventKind, Hops, Profile, RoutingDomain, SessionKey, State, Transmit, TransmitKind,
};
use crate::error::IoError;

#[derive(Debug)]
pub(super) enum Command {
    Add { path: BfdPath, profile: Profile, reply: mpsc::SyncSender<Result<watch::Receiver<BfdStatus>, BfdError>> },
    Remove { path: BfdPath },
    SetAdmin { path: BfdPath, up: bool },
    Report { reply: mpsc::SyncSender<BfdReport> },
    Shutdown { until: Instant },
}

pub(super) struct Worker {
    queue: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    engine: Engine,
    listeners: Vec<Listener>,
    senders: HashMap<Discriminator, SessionSender>,
    sessions: BTreeMap<BfdPath, Session>,
    /// The VRF devices. The number of a routing domain is its index here plus one.
    vrfs: Vec<String>,
    next_port: u16,
    maintain_at: Instant,
    stop_at: Option<Instant>,
}

/// The sending socket of a session.
struct SessionSender {
    sender: Sender,
    errors: u64,
    /// The last packet could not be sent.
    failing: bool,
}

/// A configured session.
struct Session {
    profile: Profile,
    /// Its key in the engine; `None` while a problem keeps it from running.
    key: Option<SessionKey>,
    status: watch::Sender<BfdStatus>,
}

impl Worker {
    pub(super) fn new(queue: mpsc::Receiver<Command>, wake: Arc<EventFd>, seed: u64) -> Self {
        Self {
            queue,
            wake,
            engine: Engine::new(seed),
            listeners: Vec::new(),
            senders: HashMap::new(),
            sessions: BTreeMap::new(),
            vrfs: Vec::new(),
            next_port: FIRST_PORT + (seed % u64::from(PORTS)) as u16,
            maintain_at: Instant::now() + MAINTENANCE,
            stop_at: None,
        }
    }

    pub(super) fn run(mut self) {
        let mut buffer = [0; DATAGRAM];
        let mut woken = Vec::new();
        loop {
            let called = self.wait(&mut woken);
            let now = Instant::now();
            // Packets that waited while this thread was delayed prove that neighbours were alive, so they are handled
            // before the timers.
            self.receive(&woken, now, &mut buffer);
            // Each command is followed by a wake-up. The check once a second finds out whether all handles were
            // dropped.
            if (called || now >= self.maintain_at) && self.apply_commands(now).is_break() {
                return;
            }
            self.engine.handle_timeout(now);
            if now >= self.maintain_at {
                self.maintain(now);
            }
            self.transmit();
            self.publish_events();
            if self.stop_at.is_some_and(|at| at <= now || self.engine.sessions().is_empty()) {
                return;
            }
        }
    }

    /// Sleeps until there is something to do. Returns whether there are commands, and in `woken` which listeners have
    /// datagrams.
    fn wait(&self, woken: &mut Vec<bool>) -> bool {
        let mut descriptors = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(self.listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        let deadlines = [self.engine.poll_timeout(), Some(self.maintain_at), self.stop_at];
        let sleep = deadlines.into_iter().flatten().min().map(|at| at.saturating_duration_since(Instant::now()));
        // An interrupted wait is treated as a short one.
        let _ = ppoll(&mut descriptors, sleep.map(TimeSpec::from), None);
        let mut ready = descriptors.iter().map(|descriptor| descriptor.any().unwrap_or(false));
        let called = ready.next().unwrap_or(false);
        woken.clear();
        woken.extend(ready);
        called
    }

    fn receive(&mut self, woken: &[bool], now: Instant, buffer: &mut [u8]) {
        let deadline = self.engine.poll_timeout();
        let late = deadline.is_some_and(|at| now > at + LATE);
        // A read that finds no datagram costs as much as one that does. With few sessions a second datagram is rare,
        // and if there is one, the next wait ends at once. Before a timer is processed, however, all datagrams must be
        // read.
        let due = deadline.is_some_and(|at| now >= at);
        let batch = if self.sessions.len() <= FEW_SESSIONS && !due { 1 } else { BATCH };
        for (listener, woken) in self.listeners.iter().zip(woken) {
            if !woken && !late {
                continue;
            }
            for _ in 0..batch {
                match listener.receive(buffer) {
                    Ok(Some((meta, payload))) => {
                        // The engine counts dropped datagrams.
                        let _ = match listener.port {
                            Port::Echo => self.engine.handle_echo(now, &meta, payload),
                            Port::SingleHop | Port::MultiHop => self.engine.handle_packet(now, &meta, payload),
                        };
                    }
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
    }

    fn apply_commands(&mut self, now: Instant) -> std::ops::ControlFlow<()> {
        // Resets the counter. It fails if the counter is zero.
        let _ = self.wake.read();
        loop {
            match self.queue.try_recv() {
                Ok(Command::Add { path, profile, reply }) => {
                    // The receiver may have been dropped.
                    let _ = reply.send(self.add(now, &path, profile));
                }
                Ok(Command::Remove { path }) => self.remove(now, &path),
                Ok(Command::SetAdmin { path, up }) => {
                    if let Some(key) = self.sessions.get(&path).and_then(|session| session.key) {
                        self.engine.set_admin(now, &key, up);
                    }
                }
                Ok(Command::Report { reply }) => {
                    let _ = reply.send(self.report());
                }
                Ok(Command::Shutdown { until }) => {
                    for path in self.sessions.keys().cloned().collect::<Vec<_>>() {
                        self.remove(now, &path);
                    }
                    self.stop_at = Some(until);
                }
                Err(TryRecvError::Empty) => return std::ops::ControlFlow::Continue(()),
                Err(TryRecvError::Disconnected) => return std::ops::ControlFlow::Break(()),
            }
        }
    }

    fn add(&mut self, now: Instant, path: &BfdPath, profile: Profile) -> Result<watch::Receiver<BfdStatus>, BfdError> {
        if let Some(session) = self.sessions.get_mut(path) {
            session.profile = profile;
            if let Some(key) = session.key {
                self.engine.update_session(now, &key, profile);
            }
            return Ok(session.status.subscribe());
        }
        let (status, receiver) = watch::channel(BfdStatus::default());
        self.sessions.insert(path.clone(), Session { profile, key: None, status });
        if let Err(BfdProblem::Path(error)) = self.start(now, path) {
            self.sessions.remove(path);
            return Err(error.into());
        }
        Ok(receiver)
    }

    fn remove(&mut self, now: Instant, path: &BfdPath) {
        if let Some(key) = self.sessions.remove(path).and_then(|session| session.key) {
            self.engine.remove_session(now, &key);
        }
    }

    /// Starts a session in the engine. An error is also reported in the status of the session.
    fn start(&mut self, now: Instant, path: &BfdPath) -> Result<(), BfdProblem> {
        let Some(profile) = self.sessions.get(path).map(|session| session.profile) else { return Ok(()) };
        let outcome = self.open(now, path, profile);
        let Some(session) = self.sessions.get_mut(path) else { return Ok(()) };
        session.key = outcome.as_ref().ok().copied();
        let problem = outcome.as_ref().err().copied();
        session.status.send_if_modified(|status| {
            let new = status.problem != problem;
            if let Some(error) = problem.filter(|_| new) {
                tracing::warn!(
                    peer = %path.remote, event = "bfdNotRunning", %error,
                    "BFD session cannot run, retrying every second"
                );
            }
            status.problem = problem;
            new
        });
        outcome.map(drop)
    }

    fn open(&mut self, now: Instant, path: &BfdPath, profile: Profile) -> Result<SessionKey, BfdProblem> {
        let interface = path.interface.as_deref().map(interface_index).transpose().map_err(IoError::from)?;
        let domain = self.domain(path.vrf.as_deref());
        let key = SessionKey { remote: path.remote, hops: path.hops, domain, local: path.local, interface };
        self.listen(Port::of(path.hops), &key, path.vrf.as_deref()).map_err(IoError::from)?;
        if path.hops == Hops::Single {
            self.listen(Port::Echo, &key, path.vrf.as_deref()).map_err(IoError::from)?;
        }
        let discriminator = self.engine.add_session(now, key, profile)?;
        if !self.senders.contains_key(&discriminator) {
            match self.open_sender(path, &key) {
                Ok(sender) => {
                    self.senders.insert(discriminator, SessionSender { sender, errors: 0, failing: false });
                }
                Err(error) => {
                    self.engine.remove_session(now, &key);
                    return Err(IoError::from(error).into());
                }
            }
        }
        Ok(key)
    }

    fn open_sender(&mut self, path: &BfdPath, key: &SessionKey) -> io::Result<Sender> {
        let scope = key.interface.map_or(0, std::num::NonZeroU32::get);
        let remote = scoped(key.remote, Port::of(key.hops).number(), scope);
        let next = &mut self.next_port;
        let ports = std::iter::from_fn(|| {
            *next = next.checked_add(1).unwrap_or(FIRST_PORT);
            Some(*next)
        });
        Sender::open(remote, key.local, path.interface.as_deref().or(path.vrf.as_deref()), ports)
    }

    fn listen(&mut self, port: Port, key: &SessionKey, vrf: Option<&str>) -> io::Result<()> {
        if self.listener(port, key).is_none() {
            self.listeners.push(Listener::open(port, key.remote.is_ipv4(), key.domain, vrf)?);
        }
        Ok(())
    }

    fn listener(&self, port: Port, key: &SessionKey) -> Option<&Listener> {
        self.listeners.iter().find(|listener| {
            (listener.port, listener.domain, listener.is_ipv4()) == (port, key.domain, key.remote.is_ipv4())
        })
    }

    fn domain(&mut self, vrf: Option<&str>) -> RoutingDomain {
        let Some(vrf) = vrf else { return RoutingDomain::default() };
        let known = self.vrfs.iter().position(|known| known == vrf);
        let place = known.unwrap_or_else(|| {
            self.vrfs.push(vrf.to_owned());
            self.vrfs.len() - 1
        });
        RoutingDomain(u32::try_from(place + 1).unwrap_or(u32::MAX))
    }

    /// Starts sessions that could not run before, and restarts those whose interface was recreated.
    fn maintain(&mut self, now: Instant) {
        self.maintain_at = now + MAINTENANCE;
        let stale = |path: &BfdPath, session: &Session| match (&session.key, &path.interface) {
            (None, _) => true,
            (Some(key), Some(name)) => interface_index(name).is_ok_and(|index| Some(index) != key.interface),
            (Some(_), None) => false,
        };
        let stale: Vec<BfdPath> =
            self.sessions.iter().filter(|(path, session)| stale(path, session)).map(|(path, _)| path.clone()).collect();
        for path in stale {
            if let Some(key) = self.sessions.get(&path).and_then(|session| session.key) {
                self.engine.remove_session(now, &key);
            }
            // An error is in the status of the session.
            let _ = self.start(now, &path);
        }
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.engine.poll_transmit() {
            let outcome = self.send(&transmit);
            let Some(sender) = self.senders.get_mut(&transmit.session) else { continue };
            match outcome {
                Ok(()) => sender.failing = false,
                Err(error) => {
                    sender.errors += 1;
                    if !std::mem::replace(&mut sender.failing, true) {
                        let peer = transmit.key.remote;
                        tracing::warn!(%peer, %error, event = "bfdSendFailed", "a BFD packet could not be sent");
                    }
                }
            }
        }
    }

    fn send(&self, transmit: &Transmit) -> io::Result<()> {
        match transmit.kind {
            TransmitKind::Control => match self.senders.get(&transmit.session) {
                Some(sender) => sender.sender.send(transmit.payload()),
                None => Ok(()),
            },
            TransmitKind::Echo | TransmitKind::EchoReturn => {
                let scope = transmit.key.interface.map_or(0, std::num::NonZeroU32::get);
                let to = scoped(transmit.key.remote, Port::Echo.number(), scope);
                let listener = self.listener(Port::Echo, &transmit.key);
                listener.map_or(Ok(()), |listener| listener.send(transmit.payload(), to, transmit.ttl))
            }
        }
    }

    fn publish_events(&mut self) {
        while let Some(Event { session, key, kind }) = self.engine.poll_event() {
            let change = match kind {
                EventKind::StateChanged(change) => change,
                EventKind::Removed => {
                    self.senders.remove(&session);
                    continue;
                }
            };
            let (peer, from, to, reason) = (key.remote, change.from, change.to, change.cause.as_str());
            let (local, remote) = (change.diagnostic, change.remote_diagnostic);
            tracing::info!(
                %peer, event = "bfdStateChanged", %from, %to, reason, diagnostic = %local, remote_diagnostic = %remote,
                "BFD session changed its state"
            );
            let Some(session) = self.sessions.values().find(|session| session.key == Some(key)) else { continue };
            session.status.send_modify(|status| {
                status.state = change.to;
                status.cause = Some(change.cause);
                status.diagnostic = change.diagnostic;
                status.failures += u64::from(change.from == State::Up && change.cause.is_failure());
                status.control_plane_independent = change.control_plane_independent;
            });
        }
    }

    fn report(&self) -> BfdReport {
        let running: BTreeMap<SessionKey, _> =
            self.engine.sessions().into_iter().map(|snapshot| (snapshot.key, snapshot)).collect();
        let snapshots = self.sessions.iter().map(|(path, session)| {
            let snapshot = session.key.and_then(|key| running.get(&key).copied());
            let sender = snapshot.and_then(|snapshot| self.senders.get(&snapshot.discriminator));
            BfdSnapshot {
                path: path.clone(),
                status: session.status.borrow().clone(),
                session: snapshot,
                send_errors: sender.map_or(0, |sender| sender.errors),
            }
        });
        let discards = self.engine.discards().iter().map(|(reason, count)| (*reason, *count)).collect();
        BfdReport { sessions: snapshots.collect(), discards }
    }
}

/// Source ports are 49152 to 65535 (RFC 5881 §4).
const FIRST_PORT: u16 = 49_152;
const PORTS: u16 = 16_384;
/// Size of the receive buffer.
const DATAGRAM: usize = 2_048;
/// Maximum number of datagrams that are read from a socket before timers are processed.
const BATCH: usize = 4_096;
/// Up to this number of sessions, datagrams usually arrive one at a time.
const FEW_SESSIONS: usize = 4;
/// After a delay of this thread by more than this, all sockets are read before a timer is processed.
const LATE: Duration = Duration::from_millis(1);
/// Interval of the checks for sessions that cannot run.
const MAINTENANCE: Duration = Duration::from_secs(1);
