//! How a connection comes about, and which addresses are ours on it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::addresses::Addresses;
use super::discovery::Neighbor;
use super::{Distance, Endpoint, Router, sockopt};
use crate::rib::NextHops;

/// Finds the router and connects as the configuration says. `neighbor` tells of a router that is known by its interface only.
pub(super) async fn connect(endpoint: Endpoint, neighbor: Option<Neighbor>) -> io::Result<TcpStream> {
    let peer = match (&endpoint.router, neighbor) {
        (Router::At(address), _) => *address,
        (Router::Behind { port, .. }, Some(mut neighbor)) => neighbor.find(*port).await?,
        (Router::Behind { interface, .. }, None) => {
            return Err(io::Error::other(format!("nothing listens for a router on {interface}")));
        }
    };
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if let Some(device) = &endpoint.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(password) = &endpoint.password {
        sockopt::set_md5(socket.as_fd(), peer.ip(), password)?;
    }
    let addresses = Addresses::read();
    let ttl = ttl(endpoint.distance, addresses.on_link(peer.ip()));
    match peer {
        SocketAddr::V4(_) => socket.set_ttl_v4(ttl.into())?,
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into())?,
    }
    if let Some(source) = endpoint.source {
        match socket.bind(&SocketAddr::new(source, 0).into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                tracing::warn!(
                    %source, %peer, reason = "source_address_missing",
                    "source address is not on this host, the kernel chooses one"
                );
            }
            Err(error) => return Err(error),
        }
    }
    // A route must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(peer).await
}

/// This end's addresses on a connection: the local one, and for the other family an address of the same interface. A link-local one
/// serves both families (RFC 8950): unnumbered links have no other.
pub(super) fn next_hops(local: IpAddr, addresses: &Addresses) -> NextHops {
    match local {
        IpAddr::V4(_) => NextHops { v4: Some(local), v6: addresses.other_family(local) },
        IpAddr::V6(v6) if v6.is_unicast_link_local() => NextHops { v4: None, v6: Some(local) },
        IpAddr::V6(_) => NextHops { v4: addresses.other_family(local), v6: Some(local) },
    }
}

/// Packets of a session with a direct neighbour must not get further. On a link they cannot, and 255 also satisfies a neighbour that asks
/// for it as proof of being direct (GTSM, RFC 5082); elsewhere the first router on the way drops them.
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
        assert_eq!(ttl(Distance::Direct, true), 255, "nothing to pass, and the proof that some ask for");
        assert_eq!(ttl(Distance::Direct, false), 1);
        assert_eq!([true, false].map(|on_link| ttl(Distance::Routed, on_link)), [255; 2]);
    }
}
