//! The thread that keeps watch: it owns the gossip socket, and drives the [`Member`] that finds out who lives and hands addresses over.
//!
//! It has a thread of its own, so that neither a large configuration nor a slow API server delays the detection of a dead owner.
//! What it finds out it tells by a notification and a [`Snapshot`]; what this node is to answer for it is told by [`Handle::plan`].

#![allow(clippy::disallowed_methods, reason = "the driver tells the engine the time")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metallb_core::model::NodeName;
use metallb_l2::interface::{MacAddr, Scope};
use metallb_l2::io::{Handle as L2, Notification};
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::SockaddrStorage;
use nix::sys::time::TimeSpec;
use thiserror::Error;
use tokio::sync::Notify;

use crate::engine::{Config, Counters, Event, Link, Timing};
use crate::handover::Tally;
use crate::member::{LEAVE_PATIENCE, Member};
use crate::wire::identity::Identity;
use crate::wire::message::Hardware;
use crate::wire::seal::Keyring;

/// What a driver is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our node.
    pub node: NodeName,
    /// Where to listen, and where others reach us: a specific address.
    pub bind: SocketAddr,
    /// Directory with the file `secretkey`; without it datagrams travel in plain text.
    pub keys: Option<PathBuf>,
    /// Gossip for long distances.
    pub wan: bool,
}

/// Why the driver does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Others could not reach us.
    #[error("{0} is no address where other speakers can reach this one")]
    Unspecified(SocketAddr),
    /// The key is configured and cannot be read.
    #[error("the membership key {} can't be read", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host does not allow it.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Owns the thread; dropping it ends the thread without a word to the others, see [`Handle::leave`].
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
    shared: Arc<Mutex<Snapshot>>,
    changed: Arc<Notify>,
}

/// What the thread knows.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Whether the picture can be acted on.
    pub joined: bool,
    /// The nodes whose speakers live and can announce.
    pub live: BTreeSet<NodeName>,
    /// Members, ourselves included.
    pub members: usize,
    /// What membership counted.
    pub counters: Counters,
    /// How planned moves ended.
    pub handovers: Tally,
    /// How long unplanned takeovers took, from the last sign of life of the old owner to our announcement, since they were taken.
    pub takeovers: Vec<Duration>,
}

#[derive(Debug)]
enum Command {
    Join(Vec<SocketAddr>),
    Watch(BTreeSet<NodeName>),
    Plan(BTreeMap<IpAddr, Scope>, BTreeMap<IpAddr, NodeName>),
    Leave(BTreeMap<IpAddr, NodeName>, mpsc::SyncSender<()>),
    Announced(Vec<IpAddr>),
    Usable(Vec<Hardware>),
    Stop,
}

impl Driver {
    /// Opens the socket and starts the thread. It is silent until [`Handle::join`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings, l2: L2) -> Result<Self, StartError> {
        let failed = |what: String| move |source| StartError::Io { what, source };
        if settings.bind.ip().is_unspecified() || settings.bind.port() == 0 {
            return Err(StartError::Unspecified(settings.bind));
        }
        let keys = match &settings.keys {
            Some(directory) => read_keys(directory)?,
            None => Keyring::default(),
        };
        if keys.is_plain() {
            tracing::warn!(
                event = "membershipPlain",
                "there is no membership key: members talk in plain text and believe anybody"
            );
        }
        let socket = UdpSocket::bind(settings.bind)
            .map_err(failed(format!("{} can't be bound for membership", settings.bind)))?;
        socket.set_nonblocking(true).map_err(failed("the membership socket can't be set up".to_owned()))?;
        let random = |_| failed("there is no randomness".to_owned())(io::ErrorKind::Unsupported.into());
        let (session, seed) = (getrandom::u64().map_err(random)?, getrandom::u64().map_err(random)?);
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| failed("an event descriptor can't be opened".to_owned())(error.into()))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let life = u64::try_from(since.as_micros()).unwrap_or(0);
        let me = Identity::new(settings.node.clone(), settings.bind, life);
        let config = Config { me, session, keys, timing: Timing::default(), wan: settings.wan };
        let (commands, queue) = mpsc::channel();
        let handle = Handle { commands, wake: Arc::new(wake), shared: Arc::default(), changed: Arc::default() };
        let news = handle.clone();
        l2.listen(move |what| match what {
            Notification::Interfaces(interfaces) => {
                news.send(Command::Usable(interfaces.iter().map(|interface| interface.mac.0).collect()));
            }
            Notification::Announced(ips) => news.send(Command::Announced(ips.clone())),
            _ => {}
        });
        let mut worker = Worker {
            member: Member::new(config, seed, Instant::now()),
            l2,
            socket,
            bind: settings.bind.ip(),
            link_at: None,
            queue,
            wake: Arc::clone(&handle.wake),
            shared: Arc::clone(&handle.shared),
            changed: Arc::clone(&handle.changed),
            keys: settings.keys.clone(),
            keys_at: Instant::now() + KEYS_PERIOD,
            left: None,
        };
        worker.publish();
        let thread = std::thread::Builder::new()
            .name("membership".to_owned())
            .spawn(move || worker.run())
            .map_err(failed("a thread can't be started".to_owned()))?;
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
    /// Says where other members may be; the first call enters the cluster.
    pub fn join(&self, contacts: Vec<SocketAddr>) {
        self.send(Command::Join(contacts));
    }

    /// Replaces the nodes that are watched directly.
    pub fn watch(&self, nodes: BTreeSet<NodeName>) {
        self.send(Command::Watch(nodes));
    }

    /// Replaces what this node answers for. `successors` says who has what is ours no more: it is handed over.
    pub fn plan(&self, mine: BTreeMap<IpAddr, Scope>, successors: BTreeMap<IpAddr, NodeName>) {
        self.send(Command::Plan(mine, successors));
    }

    /// Hands everything over, then ends the membership. Returns when that is done, at the latest after half a second.
    pub fn leave(&self, successors: BTreeMap<IpAddr, NodeName>) {
        let (done, left) = mpsc::sync_channel(1);
        self.send(Command::Leave(successors, done));
        // If it does not answer, there is nobody left to say goodbye.
        let _ = left.recv_timeout(LEAVE_PATIENCE * 2);
    }

    /// Waits until the snapshot may tell something new about who lives.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is known.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Takeovers since the last call.
    #[must_use]
    pub fn take_takeovers(&self) -> Vec<Duration> {
        std::mem::take(&mut self.lock().takeovers)
    }

    fn send(&self, command: Command) {
        // Either fails only when the thread is gone; then there is nothing to command.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Snapshot> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until `members` may know something new; for ever where speakers do not gossip.
pub async fn changed(members: Option<&Handle>) {
    match members {
        Some(members) => members.changed().await,
        None => std::future::pending().await,
    }
}

struct Worker {
    member: Member,
    l2: L2,
    socket: UdpSocket,
    bind: IpAddr,
    /// When to look at the link of the socket again, while it is down.
    link_at: Option<Instant>,
    queue: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Snapshot>>,
    changed: Arc<Notify>,
    keys: Option<PathBuf>,
    keys_at: Instant,
    /// Whom to tell when we have left.
    left: Option<mpsc::SyncSender<()>>,
}

/// What woke the thread, unless it was the time.
#[derive(Clone, Copy, Debug)]
struct Ready {
    commands: bool,
    datagrams: bool,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Continue,
    Stop,
}

impl Worker {
    fn run(&mut self) {
        let mut collected = false;
        loop {
            self.drain();
            self.publish();
            if self.member.has_left() {
                if let Some(left) = self.left.take() {
                    // Nobody may be waiting any more.
                    let _ = left.try_send(());
                }
                return;
            }
            // Each ping and each answer by itself would wake the thread. What comes after a pause is heard as it comes.
            let lull = self.member.take_lull();
            let collect_at = (lull && !collected).then(|| Instant::now() + COLLECT);
            collected = collect_at.is_some();
            let Ready { commands, datagrams } = self.wait(collect_at);
            if commands && self.obey() == Next::Stop {
                return;
            }
            // All that came in is heard before anybody is found silent.
            if datagrams {
                // What of a new plan is refused is known a moment after it: by the time others ask once more.
                self.member.set_refused(self.l2.refused().into_keys().collect());
                self.receive();
            }
            let now = Instant::now();
            if self.link_at.is_some_and(|at| at <= now) {
                self.look_at_link(now);
            }
            self.member.handle_timeout(now);
            if self.keys_at <= now {
                self.keys_at = now + KEYS_PERIOD;
                self.reload_keys();
            }
        }
    }

    /// Waits until something is due or comes in; datagrams are left alone until `collect_at`.
    fn wait(&self, collect_at: Option<Instant>) -> Ready {
        let next =
            self.member.poll_timeout().into_iter().chain([self.keys_at]).chain(self.link_at).chain(collect_at).min();
        let patience = next.map(|at| TimeSpec::from(at.saturating_duration_since(Instant::now())));
        let mut descriptors = [self.wake.as_fd(), self.socket.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let heeded = if collect_at.is_some() { 1 } else { descriptors.len() };
        // An interrupted wait is a short one.
        let _ = ppoll(&mut descriptors[..heeded], patience, None);
        let [commands, datagrams] = descriptors.map(|descriptor| descriptor.any().unwrap_or(true));
        Ready { commands, datagrams: datagrams || collect_at.is_some() }
    }

    /// Whether the interface that has our address can send. It is looked at when interfaces change, and while it can't.
    fn look_at_link(&mut self, now: Instant) {
        let link = link_of(self.bind);
        self.member.set_link(link);
        self.link_at = (link == Link::Down).then_some(now + LINK_PERIOD);
    }

    fn obey(&mut self) -> Next {
        // It only counts wake-ups.
        let _ = self.wake.read();
        loop {
            let command = match self.queue.try_recv() {
                Ok(command) => command,
                Err(mpsc::TryRecvError::Empty) => return Next::Continue,
                Err(mpsc::TryRecvError::Disconnected) => return Next::Stop,
            };
            let now = Instant::now();
            match command {
                Command::Join(contacts) => self.member.join(now, contacts),
                Command::Watch(nodes) => self.member.watch(now, nodes),
                Command::Plan(mine, successors) => self.member.plan(now, mine, &successors),
                Command::Announced(ips) => self.announced(now, &ips),
                Command::Usable(hardware) => {
                    self.look_at_link(now);
                    self.member.set_usable(now, hardware);
                }
                Command::Leave(successors, done) => {
                    self.left = Some(done);
                    self.member.leave(now, &successors);
                }
                Command::Stop => return Next::Stop,
            }
            self.drain();
        }
    }

    fn announced(&mut self, now: Instant, ips: &[IpAddr]) {
        let Some(took) = self.member.handle_announced(now, ips) else { return };
        tracing::info!(event = "takeover", addresses = ips.len(), ?took, "announced what a dead node had");
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.takeovers.len() < TAKEOVERS_KEPT {
            shared.takeovers.push(took);
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        // Bounded, so that a flood does not keep us from what is due.
        for _ in 0..RECEIVE_BATCH {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    self.member.handle_datagram(Instant::now(), from, datagram);
                    self.drain();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The kernel reports here that an earlier datagram found nobody.
                Err(_) => {}
            }
        }
    }

    /// Does what the member wants done.
    fn drain(&mut self) {
        while let Some(event) = self.member.poll_event() {
            self.handle(event);
        }
        if let Some(announcements) = self.member.poll_announcements() {
            self.l2.announce(announcements);
        }
        if let Some(again) = self.member.poll_again() {
            self.l2.announce_again(again);
        }
        if let Some(hosts) = self.member.poll_sought() {
            self.l2.solicit(self.bind, hosts);
        }
        while let Some(transmit) = self.member.poll_transmit() {
            if let Err(error) = self.socket.send_to(&transmit.datagram, transmit.to) {
                tracing::debug!(%error, to = %transmit.to, "a datagram could not be sent");
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Joined | Event::LiveChanged => {
                let live: Vec<&str> = self.member.live().iter().map(NodeName::as_str).collect();
                tracing::info!(event = "membersChanged", live = live.len(), members = ?live.get(..20).unwrap_or(&live), "who lives");
                self.publish();
                self.changed.notify_one();
            }
            Event::Suspected(node) => {
                tracing::info!(event = "memberSuspected", node = node.as_str(), "does not answer, others are asked");
            }
            Event::Refuted(node) => tracing::info!(event = "memberRefuted", node = node.as_str(), "answers after all"),
            Event::Gone { node, heard } => {
                let silent = heard.elapsed();
                tracing::warn!(
                    event = "memberGone",
                    node = node.as_str(),
                    ?silent,
                    "counts as dead: others do not hear it either"
                );
            }
            Event::Back(node) => tracing::info!(event = "memberBack", node = node.as_str(), "is back"),
            Event::HardwareChanged => {
                self.l2.set_speaker_macs(self.member.hardware_of_others().into_iter().map(MacAddr).collect());
            }
            Event::NameClash { node, address } => {
                tracing::error!(event = "nameClash", node = node.as_str(), %address, "a second host uses this node name, it is not believed");
            }
            // The member itself acts on these.
            Event::Lost(_) | Event::Met(_) | Event::Yielding { .. } | Event::Taken(..) | Event::Refused(..) => {}
        }
    }

    fn publish(&self) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.joined = self.member.has_joined();
        if shared.live != *self.member.live() {
            shared.live.clone_from(self.member.live());
        }
        shared.members = self.member.members() + 1;
        shared.counters = self.member.counters();
        shared.handovers = self.member.tally();
    }

    fn reload_keys(&mut self) {
        let Some(directory) = &self.keys else { return };
        match read_keys(directory) {
            Ok(keys) if !keys.is_plain() => self.member.set_keys(keys),
            // Whoever runs sealed does not fall back to plain text.
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the membership keys stay as they are"),
        }
    }
}

/// Whether the interface with this address has a carrier. What is not known is taken for up.
fn link_of(address: IpAddr) -> Link {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Link::Up };
    let has = |storage: &SockaddrStorage| match address {
        IpAddr::V4(ip) => storage.as_sockaddr_in().is_some_and(|known| known.ip() == ip),
        IpAddr::V6(ip) => storage.as_sockaddr_in6().is_some_and(|known| known.ip() == ip),
    };
    let mut ours = interfaces.filter(|interface| interface.address.as_ref().is_some_and(has)).peekable();
    let running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    if ours.peek().is_none() || ours.any(|interface| interface.flags.contains(running)) { Link::Up } else { Link::Down }
}

/// The keys in a directory: `secretkey` seals; files whose names begin with `secretkey-` are accepted too, while keys change.
fn read_keys(directory: &Path) -> Result<Keyring, StartError> {
    let read = |path: PathBuf| std::fs::read(&path).map_err(|source| StartError::Key { path, source });
    let mut secrets = vec![read(directory.join(KEY_FILE))?];
    let list = std::fs::read_dir(directory)
        .map_err(|source| StartError::Key { path: directory.to_owned(), source })?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_further = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("secretkey-"))
    };
    let mut further: Vec<PathBuf> = list.filter(is_further).collect();
    further.sort();
    for path in further {
        secrets.push(read(path)?);
    }
    Ok(Keyring::new(secrets.iter().map(Vec::as_slice)))
}

/// The key of the Secret that upstream's controller makes, too.
const KEY_FILE: &str = "secretkey";

/// How often the link is looked at while it is down, should nobody say that it is back.
const LINK_PERIOD: Duration = Duration::from_millis(500);

/// How long pings and answers are left to come in after a round of them, so that all of them wake the thread once.
const COLLECT: Duration = Duration::from_millis(1);

/// How often the keys are read again.
const KEYS_PERIOD: Duration = Duration::from_secs(5);

/// Datagrams that are taken in before the time is looked at.
const RECEIVE_BATCH: usize = 256;

/// Takeovers that wait to be counted.
const TAKEOVERS_KEPT: usize = 1024;
