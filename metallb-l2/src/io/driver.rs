//! The thread.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;

use super::inventory::{self, InterfaceFilter};
use super::port::Port;
use super::raw_socket::{RawSocket, ReceiveBatch};
use super::sys;
use crate::counters::Counters;
use crate::engine::{Config, Engine, Event};
use crate::group::{GroupChange, Membership};
use crate::interface::{Announcement, Interface, MacAddr};

/// Owns the thread; dropping it stops the thread and with it all answers.
#[derive(Debug)]
pub struct Driver {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Talks to the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

/// Why the driver does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The interfaces cannot be listed.
    #[error("network interfaces can't be listed")]
    List(#[source] io::Error),
    /// A socket that is needed cannot be opened; packet sockets need `CAP_NET_RAW`.
    #[error("{what} can't be opened")]
    Socket {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a listener is told.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum News {
    /// The interfaces in use are these now; there may be none.
    Interfaces(Vec<Interface>),
    /// The kernel took the whole first round of announcements for these addresses: after they became ours, after their interfaces
    /// changed, or after they were to be announced again.
    Announced(Vec<IpAddr>),
}

type Listener = Box<dyn FnMut(&News) + Send>;

enum Command {
    Announce(Vec<Announcement>),
    AnnounceAgain(Vec<IpAddr>),
    Befriend(Vec<MacAddr>),
    Listen(Listener),
    Count(mpsc::SyncSender<Counters>),
    Stop,
}

#[derive(Debug, Default)]
struct Shared {
    counted: Counters,
    interfaces: Vec<Interface>,
    events: Vec<Event>,
}

impl Driver {
    /// Starts the thread on the interfaces that `filter` lets through, now and whenever they change. `seed` jitters the gratuitous
    /// schedule.
    ///
    /// # Errors
    /// The host does not allow it, see [`StartError`].
    pub fn start(filter: InterfaceFilter, seed: u64) -> Result<Self, StartError> {
        Self::start_with(filter, Config::default(), seed)
    }

    /// As [`start`](Self::start), with another configuration than the default.
    ///
    /// # Errors
    /// The host does not allow it, see [`StartError`].
    pub fn start_with(filter: InterfaceFilter, config: Config, seed: u64) -> Result<Self, StartError> {
        let socket = |what, result: io::Result<OwnedFd>| result.map_err(|source| StartError::Socket { what, source });
        let news = socket("a netlink socket", sys::routing_news())?;
        let members = socket("a UDP socket", sys::membership_socket())?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| StartError::Socket { what: "an event descriptor", source: error.into() })?;
        let interfaces = inventory::list(&filter).map_err(StartError::List)?;
        if let Some(first) = interfaces.first() {
            // Fail now rather than in the thread when the capability is missing.
            RawSocket::open(first.index).map_err(|source| StartError::Socket { what: "a packet socket", source })?;
        }
        let (commands, queue) = mpsc::channel();
        let handle = Handle { commands, wake: Arc::new(wake), shared: Arc::default() };
        let mut worker = Worker {
            engine: Engine::new(config, seed, now()),
            ports: BTreeMap::new(),
            filter,
            news,
            members,
            queue,
            listeners: Vec::new(),
            announced: Vec::new(),
            relist_at: None,
            listed_at: now(),
            wake: Arc::clone(&handle.wake),
            shared: Arc::clone(&handle.shared),
        };
        worker.use_interfaces(interfaces);
        let thread = std::thread::Builder::new()
            .name("l2".to_owned())
            .spawn(move || worker.run())
            .map_err(|source| StartError::Socket { what: "a thread", source })?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A handle to the thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.handle.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Replaces the addresses that are answered for. What is new among them is announced at once, in one burst, and
    /// [`News::Announced`] tells when it has left.
    pub fn announce<A: Into<Announcement>>(&self, addresses: Vec<A>) {
        self.send(Command::Announce(addresses.into_iter().map(Into::into).collect()));
    }

    /// Announces addresses that are held anew, as the winner does when two speakers held them.
    pub fn announce_again(&self, addresses: Vec<IpAddr>) {
        self.send(Command::AnnounceAgain(addresses));
    }

    /// Replaces the hardware addresses of the other speakers, whose claims are no conflict.
    pub fn set_friends(&self, friends: Vec<MacAddr>) {
        self.send(Command::Befriend(friends));
    }

    /// Tells a listener what happens, in order, beginning with the interfaces in use now. It is called on the thread that answers,
    /// so it must not wait: it should hand on and return.
    pub fn listen(&self, listener: impl FnMut(&News) + Send + 'static) {
        self.send(Command::Listen(Box::new(listener)));
    }

    /// What happened so far. Waits for the thread to say, which it does between two batches of frames; should it be gone or late,
    /// what it said last.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (reply, counted) = mpsc::sync_channel(1);
        self.send(Command::Count(reply));
        match counted.recv_timeout(PATIENCE) {
            Ok(counters) => {
                self.lock().counted.clone_from(&counters);
                counters
            }
            Err(_) => self.lock().counted.clone(),
        }
    }

    /// The interfaces in use.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        self.lock().interfaces.clone()
    }

    /// Events since the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    fn send(&self, command: Command) {
        // Either fails only when the thread is gone; then there is nothing to command.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    engine: Engine,
    ports: BTreeMap<u32, Port>,
    filter: InterfaceFilter,
    news: OwnedFd,
    members: OwnedFd,
    queue: mpsc::Receiver<Command>,
    listeners: Vec<Listener>,
    /// Whose announcements were handed to the ports and may still wait there.
    announced: Vec<IpAddr>,
    /// When the interfaces are to be listed again.
    relist_at: Option<Instant>,
    listed_at: Instant,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Continue,
    Stop,
}

impl Worker {
    fn run(&mut self) {
        let mut batch = ReceiveBatch::new();
        let mut poller = sys::Poller::default();
        loop {
            self.drain();
            self.wait(&mut poller);
            if poller.is_ready(WAKE) && self.obey() == Next::Stop {
                return;
            }
            if poller.is_ready(NEWS) {
                sys::discard(&self.news);
                // At once when it is quiet, and else as soon as it has been for a while: containers come and go in swarms.
                self.relist_by(self.listed_at + RELIST_PERIOD);
            }
            if self.relist_at.is_some_and(|at| at <= now()) {
                self.relist();
            }
            self.serve(&poller, &mut batch);
            self.engine.handle_timeout(now());
        }
    }

    /// Waits for frames, routing news, commands or the time.
    fn wait(&self, poller: &mut sys::Poller) {
        poller.clear();
        poller.push(self.wake.as_fd(), false);
        poller.push(self.news.as_fd(), false);
        for port in self.ports.values() {
            poller.push(port.socket.as_fd(), port.has_frames_waiting());
        }
        let next = self.engine.poll_timeout().into_iter().chain(self.relist_at).min();
        if let Err(error) = poller.wait(next.map(|at| at.saturating_duration_since(now())))
            && !sys::is_transient(&error)
        {
            tracing::warn!(%error, "can't wait for frames");
            #[allow(clippy::disallowed_methods, reason = "the driver waits; there is nothing else left to wait with")]
            std::thread::sleep(RETRY);
        }
    }

    fn obey(&mut self) -> Next {
        // It only counts wake-ups; there is nothing to do when it was read already.
        let _ = self.wake.read();
        loop {
            match self.queue.try_recv() {
                Ok(Command::Announce(addresses)) => self.engine.set_addresses(now(), addresses),
                Ok(Command::AnnounceAgain(addresses)) => self.engine.announce_again(now(), addresses),
                Ok(Command::Befriend(friends)) => self.engine.set_friends(friends),
                Ok(Command::Listen(mut listener)) => {
                    let interfaces = self.lock().interfaces.clone();
                    listener(&News::Interfaces(interfaces));
                    self.listeners.push(listener);
                }
                // The asker may have lost its patience.
                Ok(Command::Count(reply)) => drop(reply.try_send(self.engine.counters())),
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return Next::Stop,
                Err(mpsc::TryRecvError::Empty) => return Next::Continue,
            }
            // An engine is drained after every input.
            self.drain();
        }
    }

    fn serve(&mut self, poller: &sys::Poller, batch: &mut ReceiveBatch) {
        let mut broken = false;
        for (place, (&index, port)) in self.ports.iter_mut().enumerate() {
            // Ports that came since the wait are not meant by the answer, but reading them is harmless.
            if !poller.is_ready(FIRST_PORT + place) {
                continue;
            }
            port.flush(index);
            if let Err(error) = port.serve(index, &mut self.engine, batch) {
                tracing::debug!(%error, interface = index, "interface can't be read");
                broken = true;
            }
        }
        if broken {
            // The list of interfaces is likely stale, but news of it may still be on its way.
            self.relist_by(now() + RETRY);
        }
    }

    fn relist_by(&mut self, at: Instant) {
        self.relist_at = Some(self.relist_at.map_or(at, |planned| planned.min(at)));
    }

    fn relist(&mut self) {
        self.relist_at = None;
        self.listed_at = now();
        match inventory::list(&self.filter) {
            Ok(interfaces) => self.use_interfaces(interfaces),
            Err(error) => {
                tracing::warn!(%error, "interfaces could not be listed");
                self.relist_by(now() + RETRY);
            }
        }
    }

    /// Opens sockets for interfaces that appeared, closes those of interfaces that are gone.
    fn use_interfaces(&mut self, interfaces: Vec<Interface>) {
        let mut usable = Vec::with_capacity(interfaces.len());
        for interface in interfaces {
            if let Entry::Vacant(vacant) = self.ports.entry(interface.index) {
                match Port::open(interface.index) {
                    Ok(port) => {
                        vacant.insert(port);
                    }
                    Err(error) => {
                        tracing::warn!(%error, interface = &*interface.name, "interface can't be used");
                        self.relist_by(now() + RETRY);
                        continue;
                    }
                }
            }
            usable.push(interface);
        }
        self.ports.retain(|index, _| usable.iter().any(|interface| interface.index == *index));
        let known = std::mem::replace(&mut self.lock().interfaces, usable.clone());
        if known != usable {
            let names: Vec<&str> = usable.iter().map(|interface| &*interface.name).collect();
            tracing::info!(interfaces = ?names, "interfaces changed");
            self.tell(&News::Interfaces(usable.clone()));
        }
        self.engine.set_interfaces(now(), usable);
    }

    fn tell(&mut self, news: &News) {
        self.listeners.iter_mut().for_each(|listener| listener(news));
    }

    /// Does what the engine wants done.
    fn drain(&mut self) {
        while let Some(change) = self.engine.poll_group() {
            self.change_group(change);
        }
        while let Some(transmit) = self.engine.poll_transmit() {
            if let Some(port) = self.ports.get_mut(&transmit.interface) {
                port.queue(transmit.frame);
            }
        }
        for (&index, port) in &mut self.ports {
            port.flush(index);
        }
        let mut events = std::iter::from_fn(|| self.engine.poll_event()).peekable();
        if events.peek().is_some() {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.events.extend(events);
            // Nobody may be listening.
            let excess = shared.events.len().saturating_sub(EVENTS_KEPT);
            shared.events.drain(..excess);
        }
        self.acknowledge();
    }

    /// Tells what was announced, once nothing waits to be sent.
    fn acknowledge(&mut self) {
        self.announced.extend(std::iter::from_fn(|| self.engine.poll_announced()));
        if !self.announced.is_empty() && !self.ports.values().any(Port::has_frames_waiting) {
            let announced = std::mem::take(&mut self.announced);
            self.tell(&News::Announced(announced));
        }
    }

    /// Twice: the packet socket makes the card receive the group, the UDP socket makes the kernel report it to switches. A card
    /// that is gone forgot its groups already, and one that filters nothing needs none, so failures are no more than a hint.
    fn change_group(&self, change: GroupChange) {
        let GroupChange { interface, group, membership } = change;
        let on_card =
            self.ports.get(&interface).map(|port| port.socket.set_group(MacAddr::of_multicast(group), membership));
        let reported = sys::set_membership(&self.members, interface, group, membership == Membership::Join);
        for error in on_card.into_iter().chain([reported]).filter_map(Result::err) {
            tracing::debug!(%error, %group, interface, ?membership, "group membership unchanged");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one place where the time comes from.
#[allow(clippy::disallowed_methods, reason = "drivers tell the engine the time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Places in the poller.
const WAKE: usize = 0;
const NEWS: usize = 1;
const FIRST_PORT: usize = 2;

/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How often the interfaces are listed at most.
const RELIST_PERIOD: Duration = Duration::from_millis(50);

/// How long an asker waits for the thread.
const PATIENCE: Duration = Duration::from_millis(500);

/// Events that wait for somebody to take them; older ones are dropped.
const EVENTS_KEPT: usize = 1024;
