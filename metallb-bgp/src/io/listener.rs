//! The listening socket for connections that peers open, and the peers that may connect.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::addresses::on_link;
use super::connector::ttl;
use super::driver::Handle;
use super::incoming_report::{IncomingCounters, IncomingReport, PendingConnection, Refusal};
use super::{Distance, PeerConfig, Router, sockopt};
use crate::session::Mode;

/// The peers that may connect, and counters of connections.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    allowed: Mutex<Vec<AllowedPeer>>,
    counters: Arc<IncomingCounters>,
}

/// A peer that may connect.
#[derive(Debug)]
pub(super) struct AllowedPeer {
    pub(super) router: Router,
    pub(super) distance: Distance,
    /// Whether the kernel verifies the password of the peer, if it has one.
    pub(super) has_key: bool,
    pub(super) handle: Handle,
}

impl Incoming {
    pub(super) fn set_allowed(&self, allowed: Vec<AllowedPeer>) {
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    pub(super) fn report(&self) -> IncomingReport {
        self.counters.report()
    }

    /// Hands a connection to its peer, or closes it by dropping it.
    fn admit(&self, stream: TcpStream, from: SocketAddr) -> Result<(), Refusal> {
        let ip = from.ip().to_canonical();
        let allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = allowed.iter().find(|peer| is_from(&peer.router, ip, from)).ok_or(Refusal::UnknownPeer)?;
        if !peer.has_key {
            return Err(Refusal::NoKey);
        }
        let on_link = on_link(ip, None);
        if peer.distance == Distance::Direct && !on_link {
            return Err(Refusal::NotDirect);
        }
        prepare(&stream, ip.is_ipv4(), ttl(peer.distance, on_link)).map_err(|_| Refusal::Broken)?;
        let pending = PendingConnection::new(Arc::clone(&self.counters));
        if peer.handle.accept(stream, Some(pending)) { Ok(()) } else { Err(Refusal::NoPlace) }
    }
}

/// The listening socket and its task, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    keys: BTreeMap<IpAddr, Vec<u8>>,
    task: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// Starts to listen. An unspecified IPv6 address serves both families.
    pub(super) fn open(address: SocketAddr, incoming: Arc<Incoming>) -> io::Result<(Self, SocketAddr)> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
            socket.set_unicast_hops_v6(TTL)?;
        }
        if address.is_ipv4() || address.ip().is_unspecified() {
            // It applies from the first segment on: a neighbour may require GTSM (RFC 5082).
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
                            incoming.counters.refuse(reason);
                            let reason = reason.as_str();
                            tracing::debug!(%from, event = "bgpConnectionRefused", reason, "BGP connection refused");
                        }
                    }
                    Err(error) => {
                        // Most likely the process is out of file descriptors, which may be temporary.
                        tracing::warn!(%error, event = "bgpAcceptFailed", "cannot accept BGP connections");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        });
        Ok((Self { socket, keys: BTreeMap::new(), task }, bound))
    }

    /// Makes the kernel verify the password of a peer. Returns `true` if it does, or if the peer has no password.
    pub(super) fn ensure_key(&mut self, config: &PeerConfig) -> bool {
        let Some(password) = &config.endpoint.password else { return true };
        // A key needs the address of the peer.
        let Router::Address(address) = config.endpoint.router else { return false };
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
                tracing::warn!(
                    peer = %ip, %error, event = "bgpKeyRefused",
                    "connections of this BGP peer are refused: the kernel cannot verify its password"
                );
                false
            }
        }
    }

    /// Removes the passwords of all peers except `peers`.
    pub(super) fn retain_keys<'a>(&mut self, peers: impl Iterator<Item = &'a PeerConfig>) {
        let wanted: Vec<IpAddr> = peers
            .filter(|config| config.endpoint.password.is_some())
            .filter_map(|config| match config.endpoint.router {
                Router::Address(address) => Some(address.ip()),
                Router::Unnumbered { .. } => None,
            })
            .collect();
        let removed: Vec<IpAddr> = self.keys.keys().filter(|ip| !wanted.contains(ip)).copied().collect();
        for ip in removed {
            self.keys.remove(&ip);
            // The kernel reports an error if there was no key, which is the wanted state.
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

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the configuration of a peer allows it to connect. A VRF would need a listening socket of its own.
pub(super) fn may_connect(config: &PeerConfig) -> bool {
    config.session.mode != Mode::Active && config.endpoint.device.is_none()
}

fn is_from(router: &Router, ip: IpAddr, from: SocketAddr) -> bool {
    let scope = match from {
        SocketAddr::V6(from) => from.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    match router {
        Router::Address(address) => address.ip() == ip,
        Router::Unnumbered { interface, .. } => {
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

/// TTL of the handshake (RFC 5082).
const TTL: u32 = 255;
/// Limit of connections that the kernel queues; it resets further ones.
const BACKLOG: i32 = 64;
/// Pause after an error of `accept`.
const RETRY: Duration = Duration::from_millis(200);
