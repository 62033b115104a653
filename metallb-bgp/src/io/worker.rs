//! The task of a peer: it waits for an input, passes it to the engine, drains all outputs, and re-arms one timer.

mod host;

use std::future::{Future, pending};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use self::host::Source;
use super::addresses::Addresses;
use super::bfd_client::{BfdClient, BfdSessions, path_to};
use super::bfd_udp::BfdStatus;
use super::connector::connect;
use super::mailbox::Commands;
use super::resolver::Resolver;
use super::shared_peer::{Shared, SharedPeer};
use super::snapshot::{EndedSession, PeerEvent};
use super::{PeerConfig, Router};
use crate::error::IoError;
use crate::session::{Action, BfdState, ConnectionError, Event, Slot, State, Stop};
use crate::wire::notification::ShutdownCommunication;

/// Runs one peer. There is a second connection only while both ends connect, until the engine has closed one.
pub(super) struct Worker {
    name: Arc<str>,
    config: PeerConfig,
    shared: Shared,
    /// Bounded by its owner; an event is dropped when it is full.
    events: mpsc::Sender<PeerEvent>,
    links: [Link; 2],
    host: watch::Receiver<Arc<Addresses>>,
    sources: [Source; 2],
    /// A session ended because its local address was removed, so the next change of addresses may help.
    retry_on_change: bool,
    stopping: bool,
    /// Finds the address of an unnumbered router.
    resolver: Option<Resolver>,
    bfd_sessions: Arc<BfdSessions>,
    bfd: Option<BfdClient>,
    /// When to start BFD.
    bfd_start_at: Option<Instant>,
}

enum Link {
    Closed,
    Connecting(Pin<Box<dyn Future<Output = Result<TcpStream, ConnectionError>> + Send>>),
    Open(Arc<TcpStream>, Ends),
}

/// The local and the remote address of a connection.
type Ends = (SocketAddr, SocketAddr);

enum LinkEvent {
    Connected(TcpStream),
    Readable,
    Writable,
}

impl Worker {
    pub(super) fn new(
        name: Arc<str>,
        config: PeerConfig,
        shared: Shared,
        events: mpsc::Sender<PeerEvent>,
        bfd_sessions: Arc<BfdSessions>,
        host: watch::Receiver<Arc<Addresses>>,
    ) -> Self {
        let bfd_start_at = config.bfd.map(|_| Instant::now() + BFD_WITHOUT_SESSION);
        Self {
            name,
            config,
            shared,
            events,
            links: [Link::Closed, Link::Closed],
            host,
            sources: [Source::default(); 2],
            retry_on_change: false,
            stopping: false,
            resolver: None,
            bfd_sessions,
            bfd: None,
            bfd_start_at,
        }
    }

    /// Runs until the peer is stopped and its connections are closed.
    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; 65_536];
        if let Router::Unnumbered { interface, .. } = &self.config.endpoint.router {
            self.resolver = Some(Resolver::start(interface.clone()));
        }
        let mailbox = Arc::clone(&self.shared.mailbox);
        loop {
            self.drain().await;
            self.publish();
            self.follow_router();
            if self.stopping && self.links.iter().all(|link| matches!(link, Link::Closed)) {
                return;
            }
            let timer = self.peer().engine.poll_timeout();
            let timer = timer.into_iter().chain(self.bfd_start_at).chain(self.source_check_at()).min();
            let sleep = async {
                match timer {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            let sending = Slot::ALL.map(|slot| self.peer().has_unsent(slot));
            tokio::select! {
                () = mailbox.changed() => self.apply_commands(),
                () = sleep => self.handle_timeout(&mut buffer),
                states = next_states(&mut self.bfd) => {
                    let now = Instant::now();
                    let mut peer = self.peer();
                    states.into_iter().for_each(|state| peer.engine.handle_bfd(now, state));
                }
                result = self.host.changed() => match result {
                    Ok(()) => self.follow_addresses(Instant::now()),
                    // The speaker is gone, and with it this peer.
                    Err(_) => return,
                },
                () = next_router(&mut self.resolver) => {}
                (slot, event) = next(&mut self.links, sending) => {
                    self.handle_link(slot, event, &mut buffer);
                    // A peer that sends without pause must not keep this thread from other peers.
                    yield_now().await;
                }
            }
        }
    }

    /// Executes the actions of the engine and sends its output, until there is none or the connection is blocked.
    async fn drain(&mut self) {
        loop {
            let actions = self.peer().poll_actions();
            for action in actions {
                match action {
                    Action::Connect(slot) => {
                        let neighbor = self.resolver.as_ref().map(Resolver::neighbor);
                        let attempt = connect(self.config.endpoint.clone(), neighbor);
                        self.links[slot as usize] = Link::Connecting(Box::pin(attempt));
                    }
                    Action::Close(slot) => {
                        // Closing may take a moment, so the end of the session is published before.
                        self.publish();
                        self.close(slot).await;
                    }
                }
            }
            if !self.peer().send() {
                return;
            }
        }
    }

    /// Applies all commands in the mailbox. Commands of different kinds do not depend on each other, except that a stop
    /// comes last.
    fn apply_commands(&mut self) {
        let now = Instant::now();
        let Commands { config, connections, drain, stop, closed } = self.shared.mailbox.take_commands();
        if let Some(config) = config {
            // The change needs no new session: the speaker has checked it.
            self.peer().engine.reconfigure(config.session.clone());
            self.config = *config;
            self.update_bfd(now);
        }
        let routes_changed = {
            // Commands about routes are taken and applied under one lock, so that no direct write gets in between.
            let mut peer = self.peer();
            let routes = self.shared.mailbox.take_routes();
            let changed = routes.all.is_some() || !routes.changes.is_empty();
            if let Some(all) = routes.all {
                peer.engine.replace_routes(now, all.iter().map(|(prefix, attributes)| (*prefix, attributes)));
            }
            if !routes.changes.is_empty() {
                peer.engine.change_routes(now, routes.changes);
            }
            changed
        };
        if routes_changed {
            // An address that is announced from now on is no next hop.
            self.follow_addresses(now);
        }
        for (stream, pending) in connections {
            let accepted = self.handle_accepted(now, stream);
            pending.into_iter().for_each(|pending| pending.resolve(accepted));
        }
        if let Some(drain) = drain {
            let started = self.peer().engine.prepare_leave(now, drain.keep_routes);
            // The receiver may have been dropped.
            let _ = drain.reply.send(started);
        }
        let stop = stop.or_else(|| closed.then(|| Stop::Restart(ShutdownCommunication::default())));
        if let Some(stop) = stop.filter(|_| !self.stopping) {
            self.stopping = true;
            self.peer().engine.stop(now, stop);
        }
    }

    /// Never held across an `await`.
    fn peer(&self) -> MutexGuard<'_, SharedPeer> {
        self.shared.lock()
    }

    /// Returns `false` for a connection that the engine does not accept. It is dropped, which closes it.
    fn handle_accepted(&mut self, now: Instant, stream: TcpStream) -> bool {
        let Ok((local, remote)) = ends_of(&stream) else { return false };
        let router_id = self.config.router_id(self.host.borrow().own_v4(local));
        let next_hops = self.next_hops((local, remote));
        let slot = self.peer().engine.handle_accepted(now, router_id, next_hops);
        if let Some(slot) = slot {
            self.open(slot, stream, (local, remote));
            self.move_bfd(remote.ip());
        }
        slot.is_some()
    }

    /// Bytes that have arrived are handled before the timers: a delay of this host is no silence of the peer.
    fn handle_timeout(&mut self, buffer: &mut [u8]) {
        for slot in Slot::ALL {
            if let Link::Open(stream, _) = &self.links[slot as usize]
                && let Ok(length @ 1..) = stream.try_read(buffer)
            {
                self.peer().engine.handle_bytes(Instant::now(), slot, &buffer[..length]);
            }
        }
        let now = Instant::now();
        self.peer().engine.handle_timeout(now);
        self.check_sources(now);
        if self.bfd_start_at.take_if(|at| *at <= now).is_some() {
            match (self.ends(), &self.config.endpoint.router) {
                (Some((_, remote)), _) => self.start_bfd(remote.ip()),
                (None, Router::Address(address)) => self.start_bfd(address.ip()),
                // The address is unknown before there is a connection.
                (None, Router::Unnumbered { .. }) => {}
            }
        }
    }

    fn handle_link(&mut self, slot: Slot, event: Result<LinkEvent, ConnectionError>, buffer: &mut [u8]) {
        let now = Instant::now();
        let error = match event {
            Ok(LinkEvent::Connected(stream)) => match ends_of(&stream) {
                Ok((local, remote)) => {
                    self.open(slot, stream, (local, remote));
                    let router_id = self.config.router_id(self.host.borrow().own_v4(local));
                    let next_hops = self.next_hops((local, remote));
                    self.peer().engine.handle_connected(now, router_id, next_hops);
                    return self.move_bfd(remote.ip());
                }
                Err(error) => IoError::from(error).into(),
            },
            Ok(LinkEvent::Readable) => {
                let Link::Open(stream, _) = &self.links[slot as usize] else { return };
                match stream.try_read(buffer) {
                    Ok(0) => ConnectionError::ClosedByPeer,
                    Ok(length) => return self.peer().engine.handle_bytes(now, slot, &buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(error) => IoError::from(error).into(),
                }
            }
            // The next drain writes.
            Ok(LinkEvent::Writable) => return,
            Err(error) => error,
        };
        self.peer().engine.handle_failed(now, slot, error);
    }

    fn open(&mut self, slot: Slot, stream: TcpStream, ends: Ends) {
        let stream = Arc::new(stream);
        self.peer().open(slot, Arc::clone(&stream));
        self.links[slot as usize] = Link::Open(stream, ends);
        self.sources[slot as usize] = Source::of(ends.0, &self.host.borrow());
    }

    /// Sends the remaining bytes and waits briefly for the peer to close: if a connection is closed with unread input,
    /// the kernel resets it, and the NOTIFICATION is lost.
    async fn close(&mut self, slot: Slot) {
        let unsent = self.peer().close(slot);
        let link = std::mem::replace(&mut self.links[slot as usize], Link::Closed);
        let Link::Open(stream, _) = link else { return };
        // The shared peer has released its reference.
        let Some(mut stream) = Arc::into_inner(stream) else { return };
        let shutdown = async move {
            stream.write_all(&unsent).await?;
            stream.shutdown().await?;
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let shutdown = timeout(CLOSE_TIMEOUT, shutdown);
        // The result does not matter, because the connection has ended. The other connection does not wait for it.
        match self.links[slot.other() as usize] {
            Link::Closed => drop(shutdown.await),
            _ => drop(tokio::spawn(shutdown)),
        }
    }

    /// Starts a BFD session on the path to the router, if it is configured and not running.
    fn start_bfd(&mut self, remote: IpAddr) {
        let Some(bfd) = &self.config.bfd else { return };
        let path = path_to(remote, &self.config.endpoint, bfd, &self.host.borrow());
        if self.bfd.as_ref().is_some_and(|client| *client.path() == path) {
            return;
        }
        match self.bfd_sessions.subscribe(path, bfd.profile) {
            Ok(client) => {
                if self.bfd.replace(client).is_some() {
                    // The failure of the previous path says nothing about this one.
                    self.peer().engine.forget_bfd(Instant::now());
                }
            }
            Err(error) => {
                tracing::warn!(peer = &*self.name, event = "bfdNotRunning", %error, "BFD session cannot be started");
            }
        }
    }

    /// The router may have a different address on a new connection.
    fn move_bfd(&mut self, remote: IpAddr) {
        if self.bfd.is_some() {
            self.start_bfd(remote);
        }
    }

    /// Starts, changes or ends BFD after a change of the configuration.
    fn update_bfd(&mut self, now: Instant) {
        let Some(bfd) = &self.config.bfd else {
            if self.bfd.take().is_some() {
                // Without BFD the state of the path is unknown.
                self.peer().engine.handle_bfd(now, BfdState::AdminDown);
            }
            return;
        };
        let remote = match &self.bfd {
            Some(client) => Some(client.path().remote),
            None => self.ends().map(|(_, remote)| remote.ip()),
        };
        let profile = bfd.profile;
        if let Some(remote) = remote {
            self.start_bfd(remote);
        }
        if let Some(client) = &self.bfd
            && let Err(error) = client.update(profile)
        {
            tracing::warn!(peer = &*self.name, event = "bfdNotRunning", %error, "BFD session cannot be changed");
        }
    }

    /// The addresses of the connection.
    fn ends(&self) -> Option<Ends> {
        self.links.iter().find_map(|link| match link {
            Link::Open(_, ends) => Some(*ends),
            Link::Closed | Link::Connecting(_) => None,
        })
    }

    /// Forwards events and updates the snapshot. It runs after every input, so it is cheap if only counters have
    /// changed.
    fn publish(&mut self) {
        let (mut has_events, mut ended) = (false, None);
        let events: Vec<Event> = {
            let mut peer = self.peer();
            std::iter::from_fn(|| peer.engine.poll_event()).collect()
        };
        for event in events {
            has_events = true;
            if let (Event::Established { .. }, None, Some(_)) = (&event, &self.bfd, &self.config.bfd) {
                self.bfd_start_at = Some(Instant::now() + BFD_AFTER_SESSION);
            }
            if let Event::Down { from: State::Established, reason } = &event {
                ended = Some(EndedSession { reason: reason.clone(), at: Instant::now() });
            }
            log(&self.name, &event);
            // A slow receiver must not block the session.
            let _ = self.events.try_send(PeerEvent { peer: Arc::clone(&self.name), event });
        }
        let addresses = self.ends();
        let peer = self.peer();
        let mut snapshot = self.shared.lock_snapshot();
        if let Some(client) = &self.bfd {
            let status = client.status();
            if snapshot.bfd.as_ref() != Some(&*status) {
                snapshot.bfd = Some(status.clone());
            }
            if snapshot.bfd_path.as_ref() != Some(client.path()) {
                snapshot.bfd_path = Some(client.path().clone());
            }
        } else {
            snapshot.bfd_path = None;
            snapshot.bfd = self.config.bfd.map(|_| BfdStatus::default());
        }
        snapshot.addresses = addresses;
        if ended.is_some() {
            snapshot.last_session = ended;
        }
        snapshot.waits_for_bfd_until = peer.engine.waits_for_bfd_until();
        snapshot.update(&peer.engine, has_events);
    }
}

fn log(peer: &str, event: &Event) {
    match event {
        Event::Established { asn, hold_time } => {
            tracing::info!(peer, event = "bgpEstablished", %asn, ?hold_time, "BGP session established");
        }
        Event::Dropped { role, reason } => {
            let code = reason.code();
            tracing::info!(peer, event = "bgpDropped", ?role, code, %reason, "BGP connection dropped");
        }
        Event::Down { from: from @ State::Established, reason } => {
            let code = reason.code();
            tracing::warn!(peer, event = "bgpDown", %from, code, %reason, "BGP session down");
        }
        // An attempt that fails is repeated for ever. The receiver of events knows whether the reason is a new one.
        Event::Down { from, reason } => {
            let code = reason.code();
            tracing::debug!(peer, event = "bgpDown", %from, code, %reason, "BGP session down");
        }
    }
}

/// The next states of BFD; pending for ever without BFD.
async fn next_states(bfd: &mut Option<BfdClient>) -> Vec<BfdState> {
    match bfd {
        Some(client) => client.next_states().await,
        None => pending().await,
    }
}

/// Waits until another router is found on the interface of an unnumbered peer.
async fn next_router(resolver: &mut Option<Resolver>) {
    match resolver {
        Some(resolver) => resolver.changed().await,
        None => pending().await,
    }
}

/// The addresses of a connection. A socket of both families shows IPv4 addresses as IPv4-mapped ones.
fn ends_of(stream: &TcpStream) -> io::Result<Ends> {
    let plain = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
        IpAddr::V6(_) => address,
    };
    Ok((plain(stream.local_addr()?), plain(stream.peer_addr()?)))
}

/// The next event of any connection. Cancelling it loses nothing.
async fn next(links: &mut [Link; 2], sending: [bool; 2]) -> (Slot, Result<LinkEvent, ConnectionError>) {
    let [one, two] = links;
    tokio::select! {
        event = one.next(sending[0]) => (Slot::One, event),
        event = two.next(sending[1]) => (Slot::Two, event),
    }
}

impl Link {
    async fn next(&mut self, sending: bool) -> Result<LinkEvent, ConnectionError> {
        match self {
            Self::Closed => pending().await,
            Self::Connecting(attempt) => {
                let result = attempt.await;
                // A completed future must not be polled again.
                *self = Self::Closed;
                result.map(LinkEvent::Connected)
            }
            Self::Open(stream, _) => {
                let interest = if sending { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                let ready = stream.ready(interest).await.map_err(IoError::from)?;
                Ok(if ready.is_readable() { LinkEvent::Readable } else { LinkEvent::Writable })
            }
        }
    }
}

/// Delay of BFD after the first BGP session was established. FRR recreates its BFD session when it learns the addresses
/// of the BGP session, and treats the end of the previous one as a path failure if that was already Up.
const BFD_AFTER_SESSION: Duration = Duration::from_secs(1);

/// Delay of BFD if no BGP session is established: a router may require BFD first.
const BFD_WITHOUT_SESSION: Duration = Duration::from_secs(5);

/// Limit for the shutdown of a closed connection.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
