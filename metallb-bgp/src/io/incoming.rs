//! Connections that peers open: one socket for all of them, and who may come in by it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::addresses::Addresses;
use super::command::Command;
use super::connector::ttl;
use super::ticket::{IncomingReport, Refusal, Tally, Ticket};
use super::{Distance, PeerConfig, Router, sockopt};
use crate::session::Mode;

/// Who may come in, and what came.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    expected: Mutex<Vec<Expected>>,
    tally: Arc<Tally>,
}

/// A peer that may connect.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) router: Router,
    pub(super) distance: Distance,
    /// Whether the socket proves the peer's password, where it has one.
    pub(super) proven: bool,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Incoming {
    pub(super) fn expect(&self, expected: Vec<Expected>) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = expected;
    }

    pub(super) fn report(&self) -> IncomingReport {
        self.tally.report()
    }

    /// Hands a connection to its peer; one that is nobody's is closed by dropping it.
    fn admit(&self, stream: TcpStream, from: SocketAddr) -> Result<(), Refusal> {
        let ip = from.ip().to_canonical();
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = expected.iter().find(|peer| is_from(&peer.router, ip, from)).ok_or(Refusal::UnknownPeer)?;
        if !peer.proven {
            return Err(Refusal::NoKey);
        }
        let on_link = Addresses::read().on_link(ip);
        if peer.distance == Distance::Direct && !on_link {
            return Err(Refusal::NotDirect);
        }
        prepare(&stream, ip.is_ipv4(), ttl(peer.distance, on_link)).map_err(|_| Refusal::Broken)?;
        // A peer that connects faster than its task can look is not queued for without end.
        if peer.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            peer.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::NoPlace);
        }
        let ticket = Ticket::new(Arc::clone(&self.tally), Arc::clone(&peer.waiting));
        // The task is gone only when it was told to stop.
        peer.commands.send(Command::Accepted(stream, Some(ticket))).map_err(|_| Refusal::NoPlace)
    }
}

/// The socket. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Door {
    socket: Socket,
    keys: BTreeMap<IpAddr, Vec<u8>>,
    task: tokio::task::JoinHandle<()>,
}

impl Door {
    /// Listens, and lets in whom `incoming` expects. An unspecified IPv6 address serves both families.
    pub(super) fn open(address: SocketAddr, incoming: Arc<Incoming>) -> io::Result<(Self, SocketAddr)> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
            socket.set_unicast_hops_v6(TTL)?;
        }
        if address.is_ipv4() || address.ip().is_unspecified() {
            // The answer to the first packet already: a neighbour may ask for proof of being direct (RFC 5082).
            socket.set_ttl_v4(TTL)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.try_clone()?.into())?;
        let bound = listener.local_addr()?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        if let Err(reason) = incoming.admit(stream, from) {
                            incoming.tally.refuse(reason);
                            tracing::debug!(%from, reason = reason.as_str(), "BGP connection refused");
                        }
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: others may give theirs back.
                        tracing::warn!(%error, reason = "accept_failed", "BGP connections can't be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Ok((Self { socket, keys: BTreeMap::new(), task }, bound))
    }

    /// Whether connections of a peer are proven by its password, where it has one, from now on.
    pub(super) fn prove(&mut self, config: &PeerConfig) -> bool {
        let Some(password) = &config.endpoint.password else { return true };
        // A neighbour whose address is not known cannot have a key.
        let Router::At(address) = config.endpoint.router else { return false };
        let ip = address.ip();
        if self.keys.get(&ip) == Some(password) {
            return true;
        }
        match self.set_key(ip, password) {
            Ok(()) => {
                self.keys.insert(ip, password.clone());
                true
            }
            Err(error) => {
                tracing::warn!(peer = %ip, %error, reason = "key_refused", "the peer can't connect to us: its password can't be checked");
                false
            }
        }
    }

    /// Forgets the passwords of peers that are gone, or have none any more.
    pub(super) fn keep_keys<'a>(&mut self, peers: impl Iterator<Item = &'a PeerConfig>) {
        let wanted: Vec<IpAddr> = peers
            .filter(|config| config.endpoint.password.is_some())
            .filter_map(|config| match config.endpoint.router {
                Router::At(address) => Some(address.ip()),
                Router::Behind { .. } => None,
            })
            .collect();
        let gone: Vec<IpAddr> = self.keys.keys().filter(|ip| !wanted.contains(ip)).copied().collect();
        for ip in gone {
            self.keys.remove(&ip);
            // No key is what there is then, whatever the kernel says.
            let _ = self.set_key(ip, &[]);
        }
    }

    fn set_key(&self, ip: IpAddr, password: &[u8]) -> io::Result<()> {
        let ip = match (ip, self.socket.domain()?) {
            (IpAddr::V4(v4), Domain::IPV6) => IpAddr::V6(v4.to_ipv6_mapped()),
            (ip, _) => ip,
        };
        sockopt::set_md5(self.socket.as_fd(), ip, password)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a peer's configuration lets it connect here. A VRF has sockets of its own.
pub(super) fn may_connect(config: &PeerConfig) -> bool {
    config.session.mode != Mode::Active && config.endpoint.device.is_none()
}

fn is_from(router: &Router, ip: IpAddr, from: SocketAddr) -> bool {
    let scope = match from {
        SocketAddr::V6(from) => from.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    match router {
        Router::At(address) => address.ip() == ip,
        Router::Behind { interface, .. } => {
            let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            link_local && nix::net::if_::if_nametoindex(interface.as_str()).is_ok_and(|index| index == scope)
        }
    }
}

fn prepare(stream: &TcpStream, v4: bool, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if v4 {
        socket.set_ttl_v4(ttl.into())?;
    } else {
        socket.set_unicast_hops_v6(ttl.into())?;
    }
    socket.set_tcp_nodelay(true)
}

const TTL: u32 = 255;
const BACKLOG: i32 = 64;
/// Connections of one peer that may wait for its task.
const WAITING: usize = 4;
const PAUSE: Duration = Duration::from_millis(200);
