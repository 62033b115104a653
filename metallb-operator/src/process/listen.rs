//! Listening sockets of the administrative server. A socket on all addresses takes IPv4 and IPv6 connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

/// An address to serve on, and the pages that are served there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listen {
    /// The address. An unspecified one stands for all addresses of both families.
    pub address: SocketAddr,
    /// The pages.
    pub pages: Pages,
}

/// The pages of an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pages {
    /// `/metrics` only: whoever reaches the node reaches them.
    Metrics,
    /// All pages.
    All,
}

/// Listens on `address`. If the host has no IPv6, all addresses means all IPv4 addresses.
///
/// # Errors
/// The operating system refuses the address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return open(address);
    }
    match open(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port())) {
        Err(error) if error.raw_os_error().is_some_and(|code| NO_IPV6.contains(&code)) => {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        result => result,
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // The default is a setting of the host, net.ipv6.bindv6only.
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Errors of a host on which IPv6 is off.
const NO_IPV6: [i32; 2] = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];

const BACKLOG: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listener_on_all_addresses_takes_both_families() {
        for given in ["0.0.0.0:0", "[::]:0"] {
            let listener = bind(given.parse().unwrap()).unwrap();
            let bound = listener.local_addr().unwrap();
            let mut hosts = vec!["127.0.0.1"];
            if bound.is_ipv6() {
                hosts.push("::1");
            }
            for host in hosts {
                let address = SocketAddr::new(host.parse().unwrap(), bound.port());
                let connected = tokio::net::TcpStream::connect(address).await;
                // A host may have IPv6 sockets and no ::1.
                let is_without = connected.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EADDRNOTAVAIL));
                assert!(connected.is_ok() || (host == "::1" && is_without), "{given} {host}: {connected:?}");
            }
        }
    }

    #[tokio::test]
    async fn listener_on_one_address_takes_that_address_only() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
