//! How a connection comes about, and which addresses are ours on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::{Endpoint, sockopt};
use crate::rib::NextHops;

/// Connects as the configuration says.
pub(super) async fn connect(endpoint: Endpoint) -> io::Result<TcpStream> {
    let peer = endpoint.address;
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if let Some(device) = &endpoint.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(password) = &endpoint.password {
        sockopt::set_md5(socket.as_fd(), peer.ip(), password)?;
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
    // A route must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(peer).await
}

/// This end's addresses on a connection: the local one, and for the other family an address of the same interface.
pub(super) fn next_hops(stream: &TcpStream) -> io::Result<NextHops> {
    let local = stream.local_addr()?.ip();
    let other = other_family(local);
    Ok(match local {
        IpAddr::V4(_) => NextHops { v4: Some(local), v6: other },
        IpAddr::V6(_) => NextHops { v4: other, v6: Some(local) },
    })
}

/// The IPv4 address among the next hops.
pub(super) const fn own_v4(next_hops: &NextHops) -> Option<Ipv4Addr> {
    match next_hops.v4 {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    }
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
