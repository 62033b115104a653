//! The task around one session. It waits, feeds, drains and arms one timer; it decides nothing.

use std::future::{Future, pending};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use super::addresses::Addresses;
use super::bfd_udp::BfdStatus;
use super::command::Command;
use super::connector::{connect, next_hops};
use super::discovery::Finder;
use super::exchange::Exchange;
use super::path_watch::{PathWatch, PathWatches, path_to};
use super::snapshot::{PeerEvent, PeerSnapshot};
use super::{PeerConfig, Router};
use crate::peer::Peer;
use crate::session::{Action, BfdState, Event, Slot, State, Stop};

/// What those who use a peer's task share with it.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    pub(super) exchange: Arc<Mutex<Exchange>>,
    /// Changes of routes that the task was told and has not done.
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) snapshot: Arc<Mutex<PeerSnapshot>>,
}

impl Shares {
    pub(super) fn new(engine: Peer, config: &PeerConfig) -> Self {
        let snapshot = Arc::new(Mutex::new(PeerSnapshot::of(&engine, config)));
        Self { exchange: Arc::new(Mutex::new(Exchange::new(engine))), queued: Arc::default(), snapshot }
    }
}

/// A peer, its connections and what is on the way between them. There is a second connection only while both ends connect, until the peer's
/// engine has closed one.
pub(super) struct Driver {
    name: Arc<str>,
    config: PeerConfig,
    shares: Shares,
    events: mpsc::Sender<PeerEvent>,
    links: [Link; 2],
    stopping: bool,
    /// Looks for a router that has no configured address.
    finder: Option<Finder>,
    watches: Arc<PathWatches>,
    bfd: Option<PathWatch>,
    /// When BFD is to begin.
    watch_at: Option<Instant>,
}

enum Link {
    Closed,
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Open(Arc<TcpStream>, Ends),
}

/// Both ends of a connection, ours first.
type Ends = (SocketAddr, SocketAddr);

enum LinkEvent {
    Connected(TcpStream),
    Readable,
    Writable,
}

impl Driver {
    pub(super) fn new(
        name: Arc<str>,
        config: PeerConfig,
        shares: Shares,
        events: mpsc::Sender<PeerEvent>,
        watches: Arc<PathWatches>,
    ) -> Self {
        let watch_at = config.bfd.map(|_| Instant::now() + BFD_ALONE);
        Self {
            name,
            config,
            shares,
            events,
            links: [Link::Closed, Link::Closed],
            stopping: false,
            finder: None,
            watches,
            bfd: None,
            watch_at,
        }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut buffer = vec![0; 65_536];
        if let Router::Behind { interface, .. } = &self.config.endpoint.router {
            self.finder = Some(Finder::start(interface.clone()));
        }
        loop {
            self.drain().await;
            self.publish();
            if self.stopping && self.links.iter().all(|link| matches!(link, Link::Closed)) {
                return;
            }
            let timer = self.exchange().engine.poll_timeout().into_iter().chain(self.watch_at).min();
            let sleep = async {
                match timer {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            let sending = Slot::ALL.map(|slot| self.exchange().is_behind(slot));
            tokio::select! {
                command = commands.recv() => {
                    self.handle_command(command);
                    // What has been said meanwhile shares messages, and writes, with it.
                    for _ in 0..BATCH {
                        let Ok(command) = commands.try_recv() else { break };
                        self.handle_command(Some(command));
                    }
                }
                () = sleep => self.handle_timeout(&mut buffer),
                news = next_of(&mut self.bfd) => {
                    let now = Instant::now();
                    let mut exchange = self.exchange();
                    news.into_iter().for_each(|state| exchange.engine.handle_bfd(now, state));
                }
                (slot, event) = next(&mut self.links, sending) => {
                    self.handle_link(slot, event, &mut buffer);
                    // A peer that always has something to say must not keep this thread from the others.
                    yield_now().await;
                }
            }
        }
    }

    /// Does what the engine asks for and sends what it says, until there is nothing more, or the connection takes no more.
    async fn drain(&mut self) {
        loop {
            let actions = self.exchange().actions();
            for action in actions {
                match action {
                    Action::Connect(slot) => {
                        let neighbor = self.finder.as_ref().map(Finder::neighbor);
                        let attempt = connect(self.config.endpoint.clone(), neighbor);
                        self.links[slot as usize] = Link::Connecting(Box::pin(attempt));
                    }
                    Action::Close(slot) => {
                        // The farewell may take a moment; that the session is over must be seen before.
                        self.publish();
                        self.close(slot).await;
                    }
                }
            }
            if !self.exchange().send() {
                return;
            }
        }
    }

    fn handle_command(&mut self, command: Option<Command>) {
        let now = Instant::now();
        match command {
            Some(Command::Routes(routes)) => {
                let each = routes.iter().map(|(prefix, attributes)| (*prefix, attributes));
                self.change(|engine| engine.replace_routes(now, each));
            }
            Some(Command::Changes(changes)) => self.change(|engine| engine.change_routes(now, changes)),
            Some(Command::Bfd(state)) => self.exchange().engine.handle_bfd(now, state),
            // The next drain does it.
            Some(Command::Continue) => {}
            Some(Command::Configure(config)) => {
                // The speaker sends only what needs no new session.
                self.exchange().engine.reconfigure(config.session.clone());
                self.config = *config;
                self.follow_bfd(now);
            }
            Some(Command::Accepted(stream, ticket)) => {
                let taken = self.handle_accepted(now, stream);
                ticket.into_iter().for_each(|ticket| ticket.settle(taken));
            }
            Some(Command::Leave { keep_routes, reply }) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(self.exchange().engine.prepare_leave(now, keep_routes));
            }
            Some(Command::Stop(stop)) => {
                self.stopping = true;
                self.exchange().engine.stop(now, stop);
            }
            None => {
                self.stopping = true;
                self.exchange().engine.stop(now, Stop::Restart(String::new()));
            }
        }
    }

    /// Makes a change that was told; from its end on others may change routes themselves.
    fn change(&self, change: impl FnOnce(&mut Peer)) {
        let mut exchange = self.exchange();
        change(&mut exchange.engine);
        self.shares.queued.fetch_sub(1, Ordering::Release);
    }

    /// Never held while anything is waited for.
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.shares.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that the engine has no place for is dropped, which closes it.
    fn handle_accepted(&mut self, now: Instant, stream: TcpStream) -> bool {
        let Ok((ours, theirs)) = both_ends(&stream) else { return false };
        let addresses = Addresses::read();
        let router_id = self.config.router_id(addresses.own_v4(ours.ip()));
        let slot = self.exchange().engine.handle_accepted(now, router_id, next_hops(ours.ip(), &addresses));
        if let Some(slot) = slot {
            self.open(slot, stream, (ours, theirs));
            self.move_watch(theirs.ip());
        }
        slot.is_some()
    }

    /// What has arrived already goes first: that this host was busy is no reason to say that the peer was silent.
    fn handle_timeout(&mut self, buffer: &mut [u8]) {
        for slot in Slot::ALL {
            if let Link::Open(stream, _) = &self.links[slot as usize]
                && let Ok(length @ 1..) = stream.try_read(buffer)
            {
                self.exchange().engine.handle_bytes(Instant::now(), slot, &buffer[..length]);
            }
        }
        let now = Instant::now();
        self.exchange().engine.handle_timeout(now);
        if self.watch_at.take_if(|at| *at <= now).is_some() {
            match (self.ends(), &self.config.endpoint.router) {
                (Some((_, theirs)), _) => self.watch_path(theirs.ip()),
                (None, Router::At(address)) => self.watch_path(address.ip()),
                // Its address is not known before it is connected to.
                (None, Router::Behind { .. }) => {}
            }
        }
    }

    fn handle_link(&mut self, slot: Slot, event: io::Result<LinkEvent>, buffer: &mut [u8]) {
        let now = Instant::now();
        let failed = match event {
            Ok(LinkEvent::Connected(stream)) => match both_ends(&stream) {
                Ok((ours, theirs)) => {
                    self.open(slot, stream, (ours, theirs));
                    let addresses = Addresses::read();
                    let router_id = self.config.router_id(addresses.own_v4(ours.ip()));
                    self.exchange().engine.handle_connected(now, router_id, next_hops(ours.ip(), &addresses));
                    return self.move_watch(theirs.ip());
                }
                Err(error) => in_words(&error),
            },
            Ok(LinkEvent::Readable) => {
                let Link::Open(stream, _) = &self.links[slot as usize] else { return };
                match stream.try_read(buffer) {
                    Ok(0) => "closed by the peer".to_owned(),
                    Ok(length) => return self.exchange().engine.handle_bytes(now, slot, &buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(error) => in_words(&error),
                }
            }
            // The next drain writes.
            Ok(LinkEvent::Writable) => return,
            Err(error) => in_words(&error),
        };
        self.exchange().engine.handle_failed(now, slot, &failed);
    }

    fn open(&mut self, slot: Slot, stream: TcpStream, ends: Ends) {
        let stream = Arc::new(stream);
        self.exchange().open(slot, Arc::clone(&stream));
        self.links[slot as usize] = Link::Open(stream, ends);
    }

    /// Sends the last word, and gives the peer a moment to take it: closing with unread input would make the kernel reset the connection,
    /// and the word would be lost.
    async fn close(&mut self, slot: Slot) {
        let unsent = self.exchange().close(slot);
        let link = std::mem::replace(&mut self.links[slot as usize], Link::Closed);
        let Link::Open(stream, _) = link else { return };
        // The exchange has let go of it.
        let Some(mut stream) = Arc::into_inner(stream) else { return };
        let farewell = async move {
            stream.write_all(&unsent).await?;
            stream.shutdown().await?;
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let farewell = timeout(LAST_WORD, farewell);
        // Whether it worked makes no difference: the connection is over. The one that stays does not wait for it.
        match self.links[slot.other() as usize] {
            Link::Closed => drop(farewell.await),
            _ => drop(tokio::spawn(farewell)),
        }
    }

    /// Watches the path to the router by BFD, if that is asked for and not done yet.
    fn watch_path(&mut self, remote: IpAddr) {
        let Some(bfd) = &self.config.bfd else { return };
        let path = path_to(remote, &self.config.endpoint, bfd, &Addresses::read());
        if self.bfd.as_ref().is_some_and(|watch| *watch.path() == path) {
            return;
        }
        match self.watches.follow(path, bfd.profile) {
            Ok(watch) => self.bfd = Some(watch),
            Err(error) => {
                tracing::warn!(peer = &*self.name, %error, reason = "bfd_not_running", "the path is not watched");
            }
        }
    }

    /// The router may have another address on a new connection.
    fn move_watch(&mut self, remote: IpAddr) {
        if self.bfd.is_some() {
            self.watch_path(remote);
        }
    }

    /// Brings BFD in step with a changed configuration.
    fn follow_bfd(&mut self, now: Instant) {
        let Some(bfd) = &self.config.bfd else {
            if self.bfd.take().is_some() {
                // Without BFD nothing is known of the path.
                self.exchange().engine.handle_bfd(now, BfdState::AdminDown);
            }
            return;
        };
        let remote = match &self.bfd {
            Some(watch) => Some(watch.path().remote),
            None => self.ends().map(|(_, theirs)| theirs.ip()),
        };
        let profile = bfd.profile;
        if let Some(remote) = remote {
            self.watch_path(remote);
        }
        if let Some(watch) = &self.bfd
            && let Err(error) = watch.update(profile)
        {
            tracing::warn!(peer = &*self.name, %error, reason = "bfd_not_running", "the path is not watched");
        }
    }

    /// Both ends of the connection, ours first.
    fn ends(&self) -> Option<Ends> {
        self.links.iter().find_map(|link| match link {
            Link::Open(_, ends) => Some(*ends),
            Link::Closed | Link::Connecting(_) => None,
        })
    }

    /// Costs little where nothing but counters changed: it follows every input.
    fn publish(&mut self) {
        let (mut said, mut ended) = (false, None);
        let events: Vec<Event> = {
            let mut exchange = self.exchange();
            std::iter::from_fn(|| exchange.engine.poll_event()).collect()
        };
        for event in events {
            said = true;
            if let (Event::Established { .. }, None, Some(_)) = (&event, &self.bfd, &self.config.bfd) {
                self.watch_at = Some(Instant::now() + BFD_SETTLE);
            }
            match &event {
                Event::Established { asn, hold_time } => {
                    tracing::info!(peer = &*self.name, event = "bgpEstablished", %asn, ?hold_time, "BGP session established");
                }
                Event::Dropped { role, reason } => {
                    tracing::info!(peer = &*self.name, event = "bgpDropped", ?role, code = reason.code(), %reason, "BGP connection dropped");
                }
                Event::Down { from: from @ (State::Idle | State::Connect | State::Active), reason } => {
                    tracing::debug!(peer = &*self.name, event = "bgpDown", %from, code = reason.code(), %reason, "BGP session down");
                }
                Event::Down { from, reason } => {
                    if *from == State::Established {
                        ended = Some((reason.to_string(), Instant::now()));
                    }
                    tracing::warn!(peer = &*self.name, event = "bgpDown", %from, code = reason.code(), %reason, "BGP session down");
                }
            }
            // Events are for show: a listener that is too slow must not hold the session up.
            let _ = self.events.try_send(PeerEvent { peer: Arc::clone(&self.name), event });
        }
        let addresses = self.ends();
        let exchange = self.exchange();
        let mut snapshot = self.shares.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = &self.bfd {
            let status = watch.status();
            if snapshot.bfd.as_ref() != Some(&*status) {
                snapshot.bfd = Some(status.clone());
            }
            if snapshot.bfd_path.as_ref() != Some(watch.path()) {
                snapshot.bfd_path = Some(watch.path().clone());
            }
        } else {
            snapshot.bfd_path = None;
            snapshot.bfd = self.config.bfd.map(|_| BfdStatus::default());
        }
        snapshot.addresses = addresses;
        if ended.is_some() {
            snapshot.last_session = ended;
        }
        snapshot.follow(&exchange.engine, said);
    }
}

/// What BFD has to say; nothing ever where it does not watch.
async fn next_of(bfd: &mut Option<PathWatch>) -> Vec<BfdState> {
    match bfd {
        Some(watch) => watch.next().await,
        None => pending().await,
    }
}

/// What the kernel's number means, without the number.
fn in_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// A socket of both families shows addresses of IPv4 in those of IPv6.
fn both_ends(stream: &TcpStream) -> io::Result<Ends> {
    let plain = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
        IpAddr::V6(_) => address,
    };
    Ok((plain(stream.local_addr()?), plain(stream.peer_addr()?)))
}

/// What happens next on any connection; cancelling it loses nothing.
async fn next(links: &mut [Link; 2], sending: [bool; 2]) -> (Slot, io::Result<LinkEvent>) {
    let [one, two] = links;
    tokio::select! {
        event = one.next(sending[0]) => (Slot::One, event),
        event = two.next(sending[1]) => (Slot::Two, event),
    }
}

impl Link {
    async fn next(&mut self, sending: bool) -> io::Result<LinkEvent> {
        match self {
            Self::Closed => pending().await,
            Self::Connecting(attempt) => {
                let result = attempt.await;
                // A future that is done must not be polled again.
                *self = Self::Closed;
                result.map(LinkEvent::Connected)
            }
            Self::Open(stream, _) => {
                let interest = if sending { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                let ready = stream.ready(interest).await?;
                Ok(if ready.is_readable() { LinkEvent::Readable } else { LinkEvent::Writable })
            }
        }
    }
}

/// How long BFD waits for its first session of BGP. FRR makes its BFD session anew when it learns the addresses of that one, and takes
/// the end of the one before for a failure of the path if that was up already.
const BFD_SETTLE: Duration = Duration::from_secs(1);

/// How long BFD waits at most: a router may want BFD first.
const BFD_ALONE: Duration = Duration::from_secs(5);

/// So many more commands before what they ask for is done.
const BATCH: usize = 256;

/// How long a connection that is closed may take to accept its last bytes.
const LAST_WORD: Duration = Duration::from_millis(500);
