//! The loop: wait, hear, obey, keep time, send, tell.

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
use super::{BfdError, BfdPath, BfdReport, BfdSnapshot, BfdStatus};
use crate::bfd::{
    AddSessionError, Discriminator, Engine, Event, EventKind, Hops, Profile, RoutingDomain, SessionKey, State,
    Transmit, TransmitKind,
};

#[derive(Debug)]
pub(super) enum Command {
    Add { path: BfdPath, profile: Profile, reply: mpsc::Sender<Result<watch::Receiver<BfdStatus>, BfdError>> },
    Remove { path: BfdPath },
    SetAdmin { path: BfdPath, up: bool },
    Report { reply: mpsc::Sender<BfdReport> },
    Shutdown { until: Instant },
}

pub(super) struct Driver {
    inbox: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    engine: Engine,
    listeners: Vec<Listener>,
    senders: HashMap<Discriminator, Outlet>,
    watched: BTreeMap<BfdPath, Watched>,
    /// VRF devices; the number of a domain is its place here plus one.
    vrfs: Vec<String>,
    next_port: u16,
    maintain_at: Instant,
    stop_at: Option<Instant>,
}

struct Outlet {
    sender: Sender,
    errors: u64,
    failing: bool,
}

struct Watched {
    profile: Profile,
    /// What the engine knows it by; `None` while there is a problem.
    key: Option<SessionKey>,
    status: watch::Sender<BfdStatus>,
}

impl Driver {
    pub(super) fn new(inbox: mpsc::Receiver<Command>, wake: Arc<EventFd>, seed: u64) -> Self {
        Self {
            inbox,
            wake,
            engine: Engine::new(seed),
            listeners: Vec::new(),
            senders: HashMap::new(),
            watched: BTreeMap::new(),
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
            // Packets that waited while we were late prove that neighbours were alive: they come before any deadline.
            self.receive(&woken, now, &mut buffer);
            // Whoever asks for something wakes us after it. Once a second we look anyway: all of them may be gone.
            if (called || now >= self.maintain_at) && self.obey(now).is_break() {
                return;
            }
            self.engine.handle_timeout(now);
            if now >= self.maintain_at {
                self.maintain(now);
            }
            self.transmit();
            self.tell();
            if self.stop_at.is_some_and(|at| at <= now || self.engine.sessions().is_empty()) {
                return;
            }
        }
    }

    /// Sleeps until there is something to do; returns whether somebody called, and in `woken` which listeners have datagrams.
    fn wait(&self, woken: &mut Vec<bool>) -> bool {
        let mut descriptors = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(self.listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        let deadlines = [self.engine.poll_timeout(), Some(self.maintain_at), self.stop_at];
        let sleep = deadlines.into_iter().flatten().min().map(|at| at.saturating_duration_since(Instant::now()));
        // An interrupted or failed wait is a short one.
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
        // To find out that there is no second datagram costs as much as the first. With few sessions there hardly ever is one, and
        // should there be, the next wait ends at once; but before a deadline is acted on everything must be heard.
        let due = deadline.is_some_and(|at| now >= at);
        let batch = if self.watched.len() <= FEW && !due { 1 } else { BATCH };
        for (listener, woken) in self.listeners.iter().zip(woken) {
            if !woken && !late {
                continue;
            }
            for _ in 0..batch {
                match listener.receive(buffer) {
                    Ok(Some((meta, payload))) => {
                        // A dropped datagram is counted by the engine.
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

    fn obey(&mut self, now: Instant) -> std::ops::ControlFlow<()> {
        // Resets the counter; it is empty when nobody called.
        let _ = self.wake.read();
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Add { path, profile, reply }) => {
                    // A caller that went away does not want the answer.
                    let _ = reply.send(self.add(now, &path, profile));
                }
                Ok(Command::Remove { path }) => self.remove(now, &path),
                Ok(Command::SetAdmin { path, up }) => {
                    if let Some(key) = self.watched.get(&path).and_then(|watched| watched.key) {
                        self.engine.set_admin(now, &key, up);
                    }
                }
                Ok(Command::Report { reply }) => {
                    let _ = reply.send(self.report());
                }
                Ok(Command::Shutdown { until }) => {
                    for path in self.watched.keys().cloned().collect::<Vec<_>>() {
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
        if let Some(watched) = self.watched.get_mut(path) {
            watched.profile = profile;
            if let Some(key) = watched.key {
                self.engine.update_session(now, &key, profile);
            }
            return Ok(watched.status.subscribe());
        }
        let (status, receiver) = watch::channel(BfdStatus::default());
        self.watched.insert(path.clone(), Watched { profile, key: None, status });
        if let Err(Refusal::Path(error)) = self.start(now, path) {
            self.watched.remove(path);
            return Err(error.into());
        }
        Ok(receiver)
    }

    fn remove(&mut self, now: Instant, path: &BfdPath) {
        if let Some(key) = self.watched.remove(path).and_then(|watched| watched.key) {
            self.engine.remove_session(now, &key);
        }
    }

    /// Makes a watched path a session; what hinders it is told to the client.
    fn start(&mut self, now: Instant, path: &BfdPath) -> Result<(), Refusal> {
        let Some(profile) = self.watched.get(path).map(|watched| watched.profile) else { return Ok(()) };
        let outcome = self.open(now, path, profile);
        let Some(watched) = self.watched.get_mut(path) else { return Ok(()) };
        watched.key = outcome.as_ref().ok().copied();
        let problem: Option<Arc<str>> = outcome.as_ref().err().map(|error| error.to_string().into());
        watched.status.send_if_modified(|status| {
            let new = status.problem != problem;
            if let Some(problem) = problem.as_ref().filter(|_| new) {
                tracing::warn!(peer = %path.remote, reason = "bfd_not_running", problem = problem.as_ref(), "BFD session waits");
            }
            status.problem = problem;
            new
        });
        outcome.map(drop)
    }

    fn open(&mut self, now: Instant, path: &BfdPath, profile: Profile) -> Result<SessionKey, Refusal> {
        let interface = path.interface.as_deref().map(interface_index).transpose()?;
        let domain = self.domain(path.vrf.as_deref());
        let key = SessionKey { remote: path.remote, hops: path.hops, domain, local: path.local, interface };
        self.listen(Port::of(path.hops), &key, path.vrf.as_deref())?;
        if path.hops == Hops::Single {
            self.listen(Port::Echo, &key, path.vrf.as_deref())?;
        }
        let discriminator = self.engine.add_session(now, key, profile)?;
        if !self.senders.contains_key(&discriminator) {
            match self.outlet(path, &key) {
                Ok(sender) => drop(self.senders.insert(discriminator, Outlet { sender, errors: 0, failing: false })),
                Err(error) => {
                    self.engine.remove_session(now, &key);
                    return Err(error.into());
                }
            }
        }
        Ok(key)
    }

    fn outlet(&mut self, path: &BfdPath, key: &SessionKey) -> io::Result<Sender> {
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

    /// Starts what could not start before, and follows interfaces that were made anew.
    fn maintain(&mut self, now: Instant) {
        self.maintain_at = now + MAINTENANCE;
        let stale = |path: &BfdPath, watched: &Watched| match (&watched.key, &path.interface) {
            (None, _) => true,
            (Some(key), Some(name)) => interface_index(name).is_ok_and(|index| Some(index) != key.interface),
            (Some(_), None) => false,
        };
        let stale: Vec<BfdPath> =
            self.watched.iter().filter(|(path, watched)| stale(path, watched)).map(|(path, _)| path.clone()).collect();
        for path in stale {
            if let Some(key) = self.watched.get(&path).and_then(|watched| watched.key) {
                self.engine.remove_session(now, &key);
            }
            // What hinders it is in its status.
            let _ = self.start(now, &path);
        }
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.engine.poll_transmit() {
            let outcome = self.send(&transmit);
            let Some(outlet) = self.senders.get_mut(&transmit.session) else { continue };
            match outcome {
                Ok(()) => outlet.failing = false,
                Err(error) => {
                    outlet.errors += 1;
                    if !std::mem::replace(&mut outlet.failing, true) {
                        let peer = transmit.key.remote;
                        tracing::warn!(%peer, %error, reason = "bfd_send_failed", "a BFD packet could not be sent");
                    }
                }
            }
        }
    }

    fn send(&self, transmit: &Transmit) -> io::Result<()> {
        match transmit.kind {
            TransmitKind::Control => match self.senders.get(&transmit.session) {
                Some(outlet) => outlet.sender.send(transmit.payload()),
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

    fn tell(&mut self) {
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
            tracing::info!(%peer, %from, %to, reason, diagnostic = %local, remote_diagnostic = %remote, "BFD session changed");
            let Some(watched) = self.watched.values().find(|watched| watched.key == Some(key)) else { continue };
            watched.status.send_modify(|status| {
                status.state = change.to;
                status.cause = Some(change.cause);
                status.diagnostic = change.diagnostic;
                status.failures += u64::from(change.from == State::Up && change.cause.is_failure());
                status.control_plane_independent = change.control_plane_independent;
            });
        }
    }

    fn report(&self) -> BfdReport {
        let sessions: BTreeMap<SessionKey, _> =
            self.engine.sessions().into_iter().map(|session| (session.key, session)).collect();
        let snapshots = self.watched.iter().map(|(path, watched)| {
            let session = watched.key.and_then(|key| sessions.get(&key).copied());
            let outlet = session.and_then(|session| self.senders.get(&session.discriminator));
            BfdSnapshot {
                path: path.clone(),
                status: watched.status.borrow().clone(),
                session,
                send_errors: outlet.map_or(0, |outlet| outlet.errors),
            }
        });
        let discards = self.engine.discards().iter().map(|(reason, count)| (*reason, *count)).collect();
        BfdReport { sessions: snapshots.collect(), discards }
    }
}

/// Why a path is no session yet.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Path(#[from] AddSessionError),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// RFC 5881 §4: 49152 to 65535.
const FIRST_PORT: u16 = 49_152;
const PORTS: u16 = 16_384;
const DATAGRAM: usize = 2_048;
/// So many datagrams of one socket before deadlines get their turn.
const BATCH: usize = 4_096;
/// With so many sessions a datagram comes alone.
const FEW: usize = 4;
/// After such a delay every socket is read before a neighbour may be declared dead.
const LATE: Duration = Duration::from_millis(1);
const MAINTENANCE: Duration = Duration::from_secs(1);
