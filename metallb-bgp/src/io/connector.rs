//! Opens connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::addresses::on_link;
use super::resolver::Neighbor;
use super::{Distance, Endpoint, Router, sockopt};
use crate::error::IoError;
use crate::session::ConnectionError;

/// Resolves the router and connects to it. `neighbor` is the router of an unnumbered peer.
pub(super) async fn connect(endpoint: Endpoint, neighbor: Option<Neighbor>) -> Result<TcpStream, ConnectionError> {
    let peer = match (&endpoint.router, neighbor) {
        (Router::Address(address), _) => *address,
        (Router::Unnumbered { port, .. }, Some(mut neighbor)) => neighbor.resolve(*port).await?,
        (Router::Unnumbered { interface, .. }, None) => {
            return Err(ConnectionError::NoRouter { interface: interface.clone() });
        }
    };
    Ok(connect_to(peer, &endpoint).await.map_err(IoError::from)?)
}

async fn connect_to(peer: SocketAddr, endpoint: &Endpoint) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if let Some(device) = &endpoint.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(password) = &endpoint.password {
        sockopt::set_md5(socket.as_fd(), peer.ip(), password)?;
    }
    let ttl = ttl(endpoint.distance, on_link(peer.ip(), endpoint.device.as_deref()));
    match peer {
        SocketAddr::V4(_) => socket.set_ttl_v4(ttl.into())?,
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into())?,
    }
    if let Some(source) = endpoint.source {
        match socket.bind(&SocketAddr::new(source, 0).into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                tracing::warn!(
                    %source, %peer, event = "sourceAddressMissing",
                    "this host does not have the source address of the BGP peer, so the kernel selects one"
                );
            }
            Err(error) => return Err(error),
        }
    }
    // Without Nagle's algorithm an update does not wait for the acknowledgement of the previous one.
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(peer).await
}

/// The TTL of a connection. Packets to a direct neighbour must not pass a router: on a link they cannot, and 255
/// satisfies GTSM (RFC 5082); otherwise the first router drops them.
pub(super) const fn ttl(distance: Distance, on_link: bool) -> u8 {
    match (distance, on_link) {
        (Distance::Direct, false) => 1,
        (Distance::Direct, true) | (Distance::Routed, _) => 255,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_to_a_direct_neighbour_do_not_pass_a_router() {
        assert_eq!(ttl(Distance::Direct, true), 255, "GTSM");
        assert_eq!(ttl(Distance::Direct, false), 1);
        assert_eq!([true, false].map(|on_link| ttl(Distance::Routed, on_link)), [255; 2]);
    }
}
