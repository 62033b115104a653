//! The task around one session. It waits, feeds, drains and arms one timer; it decides nothing.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use super::PeerConfig;
use super::connector::{connect, next_hops, own_v4};
use crate::session::{Action, BfdState, Counters, Event, Negotiated, Session, SessionConfig, State, Stop};
use crate::types::Attributes;

/// An event of a named peer.
#[derive(Clone, Debug)]
pub struct PeerEvent {
    /// The peer's name.
    pub peer: Arc<str>,
    /// What happened.
    pub event: Event,
}

/// Where a peer stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// The state of the session.
    pub state: State,
    /// How long it is established.
    pub uptime: Option<Duration>,
    /// Why it ended last, in words.
    pub last_down: Option<String>,
    /// What is in force, from the peer's OPEN on.
    pub negotiated: Option<Negotiated>,
    /// Routes that the peer was told.
    pub routes_told: usize,
    /// Routes that the peer should know.
    pub routes_wanted: usize,
    /// What passed so far.
    pub counters: Counters,
}

/// What the speaker wants of a task.
#[derive(Debug)]
pub(super) enum Command {
    Routes(BTreeMap<IpNet, Arc<Attributes>>),
    Configure(SessionConfig),
    Bfd(BfdState),
    Stop(Stop),
}

/// A session, its connection and what is on the way between both.
pub(super) struct Driver {
    name: Arc<str>,
    config: PeerConfig,
    session: Session,
    events: mpsc::Sender<PeerEvent>,
    snapshot: Arc<Mutex<PeerSnapshot>>,
    link: Link,
    unsent: Vec<u8>,
    stopping: bool,
}

enum Link {
    Closed,
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Open(TcpStream),
}

enum LinkEvent {
    Connected(TcpStream),
    Received(usize),
    Writable,
}

impl Driver {
    pub(super) fn new(
        name: Arc<str>,
        config: PeerConfig,
        session: Session,
        events: mpsc::Sender<PeerEvent>,
        snapshot: Arc<Mutex<PeerSnapshot>>,
    ) -> Self {
        Self { name, config, session, events, snapshot, link: Link::Closed, unsent: Vec::new(), stopping: false }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut buffer = vec![0; 65_536];
        loop {
            self.drain().await;
            self.publish();
            if self.stopping && matches!(self.link, Link::Closed) {
                return;
            }
            let timer = self.session.poll_timeout();
            let sleep = async {
                match timer {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => self.handle_command(command),
                () = sleep => self.handle_timeout(&mut buffer),
                event = self.link.next(&mut buffer, !self.unsent.is_empty()) => {
                    self.handle_link(event, &buffer);
                    // A peer that always has something to say must not keep this thread from the others.
                    yield_now().await;
                }
            }
        }
    }

    /// Does what the session asks for and sends what it says, until there is nothing more, or the connection takes no more.
    async fn drain(&mut self) {
        loop {
            self.unsent.extend(self.session.poll_transmit());
            while let Some(action) = self.session.poll_action() {
                match action {
                    Action::Connect => self.link = Link::Connecting(Box::pin(connect(self.config.endpoint.clone()))),
                    Action::Close => {
                        // The farewell may take a moment; that the session is over must be seen before.
                        self.publish();
                        self.close().await;
                    }
                }
            }
            let Link::Open(stream) = &self.link else { return };
            if self.unsent.is_empty() {
                return;
            }
            let now = Instant::now();
            match stream.try_write(&self.unsent) {
                Ok(sent) => {
                    self.unsent.drain(..sent);
                    self.session.handle_send(now, !self.unsent.is_empty());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.session.handle_send(now, true);
                    return;
                }
                Err(error) => self.session.handle_failed(now, &error.to_string()),
            }
        }
    }

    fn handle_command(&mut self, command: Option<Command>) {
        let now = Instant::now();
        match command {
            Some(Command::Routes(routes)) => self.session.set_routes(now, routes),
            Some(Command::Bfd(state)) => self.session.handle_bfd(now, state),
            Some(Command::Configure(config)) => {
                // The speaker sends only what needs no new session.
                self.session.reconfigure(config);
            }
            Some(Command::Stop(stop)) => {
                self.stopping = true;
                self.session.stop(now, stop);
            }
            None => {
                self.stopping = true;
                self.session.stop(now, Stop::Restart(String::new()));
            }
        }
    }

    /// What has arrived already goes first: that this host was busy is no reason to say that the peer was silent.
    fn handle_timeout(&mut self, buffer: &mut [u8]) {
        if let Link::Open(stream) = &self.link
            && let Ok(length @ 1..) = stream.try_read(buffer)
        {
            self.session.handle_bytes(Instant::now(), &buffer[..length]);
        }
        self.session.handle_timeout(Instant::now());
    }

    fn handle_link(&mut self, event: io::Result<LinkEvent>, buffer: &[u8]) {
        let now = Instant::now();
        match event {
            Ok(LinkEvent::Connected(stream)) => match next_hops(&stream) {
                Ok(next_hops) => {
                    self.link = Link::Open(stream);
                    self.unsent.clear();
                    let router_id = self.config.router_id(own_v4(&next_hops));
                    self.session.handle_connected(now, router_id, next_hops);
                }
                Err(error) => self.session.handle_failed(now, &error.to_string()),
            },
            Ok(LinkEvent::Received(0)) => self.session.handle_failed(now, "closed by the peer"),
            Ok(LinkEvent::Received(length)) => self.session.handle_bytes(now, &buffer[..length]),
            // The next drain writes.
            Ok(LinkEvent::Writable) => {}
            Err(error) => self.session.handle_failed(now, &error.to_string()),
        }
    }

    /// Sends the last word, and gives the peer a moment to take it: closing with unread input would make the kernel reset the connection,
    /// and the word would be lost.
    async fn close(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        let Link::Open(mut stream) = std::mem::replace(&mut self.link, Link::Closed) else { return };
        let farewell = async {
            stream.write_all(&unsent).await?;
            stream.shutdown().await?;
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether it worked makes no difference: the connection is over.
        let _ = timeout(LAST_WORD, farewell).await;
    }

    fn publish(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match &event {
                Event::Established { asn, hold_time } => {
                    tracing::info!(peer = &*self.name, %asn, ?hold_time, "BGP session established");
                }
                Event::Down { from: State::Idle | State::Connect, reason } => {
                    tracing::debug!(peer = &*self.name, code = reason.code(), %reason, "BGP session down");
                }
                Event::Down { from, reason } => {
                    tracing::warn!(peer = &*self.name, %from, code = reason.code(), %reason, "BGP session down");
                }
            }
            // Events are for show: a listener that is too slow must not hold the session up.
            let _ = self.events.try_send(PeerEvent { peer: Arc::clone(&self.name), event });
        }
        let snapshot = PeerSnapshot::of(&self.session);
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

impl PeerSnapshot {
    pub(super) fn of(session: &Session) -> Self {
        Self {
            state: session.state(),
            uptime: session.established_at().map(|at| at.elapsed()),
            last_down: session.last_down().map(ToString::to_string),
            negotiated: session.negotiated().cloned(),
            routes_told: session.rib().told(),
            routes_wanted: session.rib().wanted(),
            counters: *session.counters(),
        }
    }
}

impl Link {
    /// What happens next on it; cancelling it loses nothing.
    async fn next(&mut self, buffer: &mut [u8], sending: bool) -> io::Result<LinkEvent> {
        match self {
            Self::Closed => pending().await,
            Self::Connecting(attempt) => {
                let result = attempt.await;
                // A future that is done must not be polled again.
                *self = Self::Closed;
                result.map(LinkEvent::Connected)
            }
            Self::Open(stream) => loop {
                let interest = if sending { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                let ready = stream.ready(interest).await?;
                if ready.is_readable() {
                    match stream.try_read(buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return result.map(LinkEvent::Received),
                    }
                }
                if ready.is_writable() {
                    return Ok(LinkEvent::Writable);
                }
            },
        }
    }
}

/// How long a connection that is closed may take to accept its last bytes.
const LAST_WORD: Duration = Duration::from_millis(500);
