//! The thread.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;

use super::inventory::{self, InterfaceFilter};
use super::sys;
use crate::engine::{Counters, Engine, Event};
use crate::interface::{Interface, MacAddr, Scope};

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

#[derive(Debug)]
enum Command {
    Announce(Vec<(IpAddr, Scope)>),
    Stop,
}

#[derive(Debug, Default)]
struct Shared {
    counters: Counters,
    interfaces: Vec<Interface>,
    events: Vec<Event>,
}

impl Driver {
    /// Starts the thread on the interfaces that `filter` lets through. `seed` jitters the gratuitous schedule.
    ///
    /// # Errors
    /// The host does not allow it, see [`StartError`].
    pub fn start(filter: InterfaceFilter, seed: u64) -> Result<Self, StartError> {
        let socket = |what, result: io::Result<OwnedFd>| result.map_err(|source| StartError::Socket { what, source });
        let news = socket("a netlink socket", sys::routing_news())?;
        let members = socket("a UDP socket", sys::membership_socket())?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| StartError::Socket { what: "an event descriptor", source: error.into() })?;
        let interfaces = inventory::list(&filter).map_err(StartError::List)?;
        if let Some(first) = interfaces.first() {
            // Fail now rather than in the thread when the capability is missing.
            socket("a packet socket", sys::packet_socket(first.index))?;
        }
        let (commands, queue) = mpsc::channel();
        let handle = Handle { commands, wake: Arc::new(wake), shared: Arc::default() };
        let mut worker = Worker {
            engine: Engine::new(seed),
            sockets: BTreeMap::new(),
            filter,
            news,
            members,
            queue,
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
    /// Replaces the addresses that are answered for.
    pub fn announce(&self, addresses: Vec<(IpAddr, Scope)>) {
        self.send(Command::Announce(addresses));
    }

    /// What happened so far, as of the last time the thread was idle.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().counters.clone()
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
    sockets: BTreeMap<u32, OwnedFd>,
    filter: InterfaceFilter,
    news: OwnedFd,
    members: OwnedFd,
    queue: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

impl Worker {
    fn run(&mut self) {
        let mut buffer = [0; 2048];
        let mut broken = false;
        loop {
            self.drain();
            self.share();
            let timeout = self.engine.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            // After an error on a socket the list of interfaces is likely stale, but news of it may still be on its way.
            let timeout = if broken { timeout.min(Some(RETRY)).or(Some(RETRY)) } else { timeout };
            let (ready, news, commands) = self.wait(timeout);
            if commands {
                let _ = self.wake.read();
                loop {
                    match self.queue.try_recv() {
                        Ok(Command::Announce(addresses)) => self.engine.set_addresses(Instant::now(), addresses),
                        Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return,
                        Err(mpsc::TryRecvError::Empty) => break,
                    }
                }
            }
            if news || broken {
                while matches!(sys::receive(&self.news, &mut buffer), Ok(Some(_))) {}
                match inventory::list(&self.filter) {
                    Ok(interfaces) => self.use_interfaces(interfaces),
                    Err(error) => tracing::warn!(%error, "interfaces could not be listed"),
                }
            }
            broken = false;
            let now = Instant::now();
            for index in ready {
                let Some(socket) = self.sockets.get(&index) else { continue };
                for _ in 0..BATCH {
                    match sys::receive(socket, &mut buffer) {
                        Ok(Some(frame)) => {
                            if let Ok(reply) = self.engine.handle_frame(now, index, frame)
                                && let Err(error) = sys::send(socket, reply.as_bytes())
                            {
                                tracing::debug!(%error, interface = index, "reply could not be sent");
                            }
                        }
                        Ok(None) => break,
                        Err(error) => {
                            tracing::debug!(%error, interface = index, "interface can't be read");
                            broken = true;
                            break;
                        }
                    }
                }
            }
            self.engine.handle_timeout(now);
        }
    }

    /// Waits for frames, routing news or commands.
    fn wait(&self, timeout: Option<Duration>) -> (Vec<u32>, bool, bool) {
        let mut polled: Vec<PollFd<'_>> = vec![
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.news.as_fd(), PollFlags::POLLIN),
        ];
        polled.extend(self.sockets.values().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up: waking early would spin until the time has come.
            PollTimeout::try_from(timeout + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut polled, timeout).is_err() {
            return (Vec::new(), false, false);
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let sockets = self.sockets.keys().copied().zip(&polled[2..]).filter(|(_, fd)| ready(fd)).map(|(index, _)| index);
        (sockets.collect(), ready(&polled[1]), ready(&polled[0]))
    }

    /// Opens sockets for interfaces that appeared, closes those of interfaces that are gone.
    fn use_interfaces(&mut self, interfaces: Vec<Interface>) {
        let usable: Vec<Interface> = interfaces
            .into_iter()
            .filter(|interface| {
                if self.sockets.contains_key(&interface.index) {
                    return true;
                }
                match sys::packet_socket(interface.index) {
                    Ok(socket) => {
                        self.sockets.insert(interface.index, socket);
                        true
                    }
                    Err(error) => {
                        tracing::warn!(%error, interface = &*interface.name, "interface can't be used");
                        false
                    }
                }
            })
            .collect();
        self.sockets.retain(|index, _| usable.iter().any(|interface| interface.index == *index));
        let known = std::mem::replace(&mut self.lock().interfaces, usable.clone());
        if known != usable {
            let names: Vec<&str> = usable.iter().map(|interface| &*interface.name).collect();
            tracing::info!(interfaces = ?names, "interfaces changed");
        }
        self.engine.set_interfaces(Instant::now(), usable);
    }

    /// Does what the engine wants done.
    fn drain(&mut self) {
        while let Some(change) = self.engine.poll_group() {
            // The kernel forgets the groups of interfaces that are gone.
            let Some(socket) = self.sockets.get(&change.interface) else { continue };
            let group = MacAddr::of_multicast(change.group);
            let joined = sys::set_group(socket, change.interface, group, change.join)
                .and_then(|()| sys::set_membership(&self.members, change.interface, change.group, change.join));
            if let Err(error) = joined {
                tracing::debug!(%error, group = %change.group, join = change.join, "group membership unchanged");
            }
        }
        while let Some(transmit) = self.engine.poll_transmit() {
            let Some(socket) = self.sockets.get(&transmit.interface) else { continue };
            if let Err(error) = sys::send(socket, transmit.frame.as_bytes()) {
                tracing::debug!(%error, interface = transmit.interface, "announcement could not be sent");
            }
        }
    }

    fn share(&mut self) {
        let events: Vec<Event> = std::iter::from_fn(|| self.engine.poll_event()).collect();
        let counters = self.engine.counters().clone();
        let mut shared = self.lock();
        shared.counters = counters;
        shared.events.extend(events);
        // Nobody may be listening.
        let excess = shared.events.len().saturating_sub(EVENTS_KEPT);
        shared.events.drain(..excess);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames of one interface that are handled before the others get their turn.
const BATCH: usize = 256;

/// How soon a broken interface is looked at again.
const RETRY: Duration = Duration::from_millis(200);

/// Events that wait for somebody to take them; older ones are dropped.
const EVENTS_KEPT: usize = 1024;
