//! Tasks around sessions. They wait, feed, drain and arm one timer; they decide nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::sys;
use crate::rib::NextHops;
use crate::session::{Action, Counters, Event, Session, SessionConfig, State};
use crate::types::{Attributes, RouterId};

/// A peer and how to reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerConfig {
    /// What the session must be.
    pub session: SessionConfig,
    /// Where the router is.
    pub endpoint: Endpoint,
    /// The identifier; the local IPv4 address, or `fallback_router_id`, where it is not given.
    pub router_id: Option<Ipv4Addr>,
    /// The identifier of a host without any IPv4 address.
    pub fallback_router_id: Ipv4Addr,
}

/// Where a router is and how packets get there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// The address to connect from; left to the kernel where it is not given, or is not on this host.
    pub source: Option<IpAddr>,
    /// Time to live; `None` leaves the default. 1 keeps a session with a direct neighbour direct.
    pub ttl: Option<u8>,
    /// TCP MD5 password, at most 80 bytes.
    pub password: Option<Vec<u8>>,
    /// The device to bind to, for a VRF.
    pub device: Option<String>,
}

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
pub struct PeerSnapshot {
    /// The state of the session.
    pub state: State,
    /// How long it is established.
    pub uptime: Option<Duration>,
    /// Why it ended last, in words.
    pub last_down: Option<String>,
    /// Routes that the peer was told.
    pub routes_told: usize,
    /// Routes that the peer should know.
    pub routes_wanted: usize,
    /// What passed so far.
    pub counters: Counters,
}

/// All sessions of this host. Must be used inside a tokio runtime; dropping it ends them without a word.
#[derive(Debug)]
pub struct Speaker {
    peers: BTreeMap<Arc<str>, Running>,
    events: mpsc::Sender<PeerEvent>,
    seed: u64,
}

#[derive(Debug)]
struct Running {
    config: PeerConfig,
    commands: mpsc::UnboundedSender<Command>,
    snapshot: Arc<Mutex<Option<PeerSnapshot>>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Command {
    Routes(BTreeMap<IpNet, Arc<Attributes>>),
    Stop { keep_routes: bool, text: String },
}

impl Speaker {
    /// No peers. Events go to `events`; when nobody takes them they are dropped. `seed` jitters all timers.
    #[must_use]
    pub fn new(events: mpsc::Sender<PeerEvent>, seed: u64) -> Self {
        Self { peers: BTreeMap::new(), events, seed }
    }

    /// Replaces the peers. A session whose configuration is unchanged goes on untouched; the others end and begin anew.
    pub fn set_peers(&mut self, configs: BTreeMap<Arc<str>, PeerConfig>) {
        self.peers.retain(|name, running| {
            let keep = configs.get(name) == Some(&running.config);
            if !keep {
                // The task ends by itself once the peer was told.
                let text = "configuration changed".to_owned();
                let _ = running.commands.send(Command::Stop { keep_routes: false, text });
            }
            keep
        });
        for (name, config) in configs {
            if self.peers.contains_key(&name) {
                continue;
            }
            let (commands, queue) = mpsc::unbounded_channel();
            let snapshot = Arc::default();
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let now = Instant::now();
            let router_id = RouterId(config.router_id.unwrap_or(config.fallback_router_id));
            let task = Task {
                name: Arc::clone(&name),
                session: Session::new(config.session.clone(), router_id, self.seed, now),
                config: config.clone(),
                events: self.events.clone(),
                snapshot: Arc::clone(&snapshot),
            };
            let task = tokio::spawn(task.run(queue));
            self.peers.insert(name, Running { config, commands, snapshot, task });
        }
    }

    /// Replaces the routes of a peer; one that is not there is ignored.
    pub fn set_routes(&self, peer: &str, routes: BTreeMap<IpNet, Arc<Attributes>>) {
        if let Some(running) = self.peers.get(peer) {
            // The task is gone only when it was told to stop.
            let _ = running.commands.send(Command::Routes(routes));
        }
    }

    /// Where every peer stands.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, PeerSnapshot> {
        let read = |running: &Running| running.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.peers.iter().filter_map(|(name, running)| Some((Arc::clone(name), read(running)?))).collect()
    }

    /// Ends all sessions and waits until the peers were told, at most `patience`. Peers with graceful restart keep the routes when
    /// `keep_routes` is set.
    pub async fn shutdown(mut self, keep_routes: bool, patience: Duration) {
        let peers = std::mem::take(&mut self.peers);
        for running in peers.values() {
            let _ = running.commands.send(Command::Stop { keep_routes, text: "shutting down".to_owned() });
        }
        let all = async {
            for running in peers.into_values() {
                // A task that panicked has closed its connection.
                let _ = running.task.await;
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }
}

struct Task {
    name: Arc<str>,
    config: PeerConfig,
    session: Session,
    events: mpsc::Sender<PeerEvent>,
    snapshot: Arc<Mutex<Option<PeerSnapshot>>>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut stream: Option<TcpStream> = None;
        let mut unsent: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 65_536];
        let mut stopping = false;
        loop {
            unsent.extend(self.session.poll_transmit());
            let mut close = false;
            while let Some(action) = self.session.poll_action() {
                match action {
                    Action::Close => close = true,
                    Action::Connect => {
                        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, connect(&self.config.endpoint));
                        // Commands wait for the attempt no longer than it takes; a stop ends it at once.
                        let result = tokio::select! {
                            result = attempt => result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                            command = commands.recv() => {
                                self.command(command, &mut stopping);
                                Err(io::ErrorKind::Interrupted.into())
                            }
                        };
                        let now = Instant::now();
                        match result.and_then(|stream| Ok((self.addresses(&stream)?, stream))) {
                            Ok(((router_id, next_hops), connected)) => {
                                unsent.clear();
                                stream = Some(connected);
                                self.session.handle_connected(now, router_id, next_hops);
                                unsent.extend(self.session.poll_transmit());
                            }
                            Err(error) => self.session.handle_failed(now, &error.to_string()),
                        }
                    }
                }
            }
            if close {
                if let Some(mut stream) = stream.take() {
                    // The last word: it is lost when the peer does not take it in time.
                    let _ = tokio::time::timeout(LAST_WORD, stream.write_all(&unsent)).await;
                    let _ = tokio::time::timeout(LAST_WORD, stream.shutdown()).await;
                }
                unsent.clear();
            }
            self.publish();
            if stopping && stream.is_none() {
                return;
            }
            let timer = self.session.poll_timeout();
            let sleep = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => self.command(command, &mut stopping),
                () = sleep => self.session.handle_timeout(Instant::now()),
                input = transfer(stream.as_mut(), &mut buffer, &mut unsent) => {
                    let now = Instant::now();
                    match input {
                        Ok(Transfer::Received(0)) => self.session.handle_failed(now, "closed by the peer"),
                        Ok(Transfer::Received(length)) => self.session.handle_bytes(now, &buffer[..length]),
                        Ok(Transfer::Sent) => self.session.handle_send(now, !unsent.is_empty()),
                        Err(error) => self.session.handle_failed(now, &error.to_string()),
                    }
                }
            }
        }
    }

    fn command(&mut self, command: Option<Command>, stopping: &mut bool) {
        let now = Instant::now();
        match command {
            Some(Command::Routes(routes)) => self.session.set_routes(now, routes),
            Some(Command::Stop { keep_routes, text }) => {
                *stopping = true;
                self.session.stop(now, keep_routes, &text);
            }
            None => {
                *stopping = true;
                self.session.stop(now, true, "");
            }
        }
    }

    fn publish(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match &event {
                Event::Established { asn, hold_time } => {
                    tracing::info!(peer = &*self.name, %asn, ?hold_time, "BGP session established");
                }
                Event::Down { from: State::Connect, reason } => {
                    tracing::debug!(peer = &*self.name, %reason, "BGP session down");
                }
                Event::Down { from, reason } => tracing::warn!(peer = &*self.name, %from, %reason, "BGP session down"),
            }
            let _ = self.events.try_send(PeerEvent { peer: Arc::clone(&self.name), event });
        }
        let snapshot = PeerSnapshot {
            state: self.session.state(),
            uptime: self.session.established_at().map(|at| at.elapsed()),
            last_down: self.session.last_down().map(ToString::to_string),
            routes_told: self.session.rib().told(),
            routes_wanted: self.session.rib().wanted(),
            counters: *self.session.counters(),
        };
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
    }

    /// Our identifier and next hops on a connection: its local address, and for the other family an address of the same
    /// interface.
    fn addresses(&self, stream: &TcpStream) -> io::Result<(RouterId, NextHops)> {
        let local = stream.local_addr()?.ip();
        let other = other_family(local);
        let next_hops = match local {
            IpAddr::V4(_) => NextHops { v4: Some(local), v6: other },
            IpAddr::V6(_) => NextHops { v4: other, v6: Some(local) },
        };
        let own = match next_hops.v4 {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        let id = self.config.router_id.or(own).unwrap_or(self.config.fallback_router_id);
        Ok((RouterId(id), next_hops))
    }
}

enum Transfer {
    Received(usize),
    Sent,
}

/// Sends what waits, and receives what comes, whichever is possible first.
async fn transfer(stream: Option<&mut TcpStream>, buffer: &mut [u8], unsent: &mut Vec<u8>) -> io::Result<Transfer> {
    let Some(stream) = stream else { return std::future::pending().await };
    let (mut input, output) = stream.split();
    if unsent.is_empty() {
        return input.read(buffer).await.map(Transfer::Received);
    }
    tokio::select! {
        received = input.read(buffer) => received.map(Transfer::Received),
        writable = output.writable() => {
            writable?;
            match output.try_write(unsent) {
                Ok(sent) => {
                    unsent.drain(..sent);
                    Ok(Transfer::Sent)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Transfer::Sent),
                Err(error) => Err(error),
            }
        }
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let peer = endpoint.address;
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if let Some(device) = &endpoint.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(password) = &endpoint.password {
        sys::set_md5(socket.as_fd(), peer.ip(), password)?;
    }
    if let Some(ttl) = endpoint.ttl {
        match peer {
            SocketAddr::V4(_) => socket.set_ttl_v4(ttl.into())?,
            SocketAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into())?,
        }
    }
    if let Some(source) = endpoint.source {
        match socket.bind(&SocketAddr::new(source, 0).into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                tracing::warn!(%source, %peer, "source address is not on this host, the kernel chooses one");
            }
            Err(error) => return Err(error),
        }
    }
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(peer).await
}

/// An address of the other family on the interface that has `local`; global ones only.
fn other_family(local: IpAddr) -> Option<IpAddr> {
    let addresses: Vec<(String, IpAddr)> = getifaddrs()
        .ok()?
        .filter_map(|entry| {
            let storage = entry.address?;
            let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let ip = v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
            Some((entry.interface_name, ip))
        })
        .collect();
    let interface = &addresses.iter().find(|(_, ip)| *ip == local)?.0;
    let global = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
    };
    let fits = |(name, ip): &&(String, IpAddr)| name == interface && ip.is_ipv4() != local.is_ipv4() && global(ip);
    addresses.iter().find(fits).map(|(_, ip)| *ip)
}

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that is closed may take to accept its last bytes.
const LAST_WORD: Duration = Duration::from_millis(500);
