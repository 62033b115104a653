//! UDP sockets with the options that BFD needs.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::bfd::{ECHO_PORT, Hops, MULTI_HOP_PORT, Meta, RoutingDomain, SINGLE_HOP_PORT, TTL};

/// The port of a listening socket.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Port {
    SingleHop,
    MultiHop,
    Echo,
}

impl Port {
    pub(super) fn of(hops: Hops) -> Self {
        match hops {
            Hops::Single => Self::SingleHop,
            Hops::Multiple => Self::MultiHop,
        }
    }

    pub(super) fn number(self) -> u16 {
        match self {
            Self::SingleHop => SINGLE_HOP_PORT,
            Self::MultiHop => MULTI_HOP_PORT,
            Self::Echo => ECHO_PORT,
        }
    }
}

/// A socket that receives on one port, for one address family and VRF.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) port: Port,
    pub(super) domain: RoutingDomain,
    socket: Socket,
}

impl Listener {
    pub(super) fn open(port: Port, v4: bool, domain: RoutingDomain, vrf: Option<&str>) -> io::Result<Self> {
        let socket = udp(v4, vrf)?;
        if v4 {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        // The kernel may limit the size. Packets that wait while the thread is delayed keep sessions up.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&SocketAddr::new(unspecified(v4), port.number()).into())?;
        Ok(Self { port, domain, socket })
    }

    /// The next datagram. `None` if the kernel did not report its TTL, source or destination.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(Meta, &'a [u8])>> {
        let mut control = cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let length = received.bytes;
        let (mut ttl, mut to) = (None, None);
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                    ttl = u8::try_from(value).ok();
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let local = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                    to = Some((IpAddr::V4(local), u32::try_from(info.ipi_ifindex).unwrap_or(0)));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    to = Some((IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)), info.ipi6_ifindex));
                }
                _ => {}
            }
        }
        let from = received.address.as_ref().and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        let (Some(remote), Some((local, interface)), Some(ttl)) = (from, to, ttl) else { return Ok(None) };
        let hops = if self.port == Port::MultiHop { Hops::Multiple } else { Hops::Single };
        let meta = Meta { remote, local, interface, domain: self.domain, ttl, hops };
        Ok(buffer.get(..length).map(|payload| (meta, payload)))
    }

    /// Sends from the port of this socket with the given TTL.
    pub(super) fn send(&self, payload: &[u8], to: SocketAddr, ttl: u8) -> io::Result<()> {
        let ttl = libc::c_int::from(ttl);
        let hop = if to.is_ipv4() { ControlMessage::Ipv4Ttl(&ttl) } else { ControlMessage::Ipv6HopLimit(&ttl) };
        let parts = [io::IoSlice::new(payload)];
        sendmsg(self.socket.as_raw_fd(), &parts, &[hop], MsgFlags::MSG_DONTWAIT, Some(&SockaddrStorage::from(to)))?;
        Ok(())
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.socket.domain().is_ok_and(|domain| domain == Domain::IPV4)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket for the control packets of a session, whose source port must not change (RFC 5881 §4).
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    to: socket2::SockAddr,
}

impl Sender {
    /// Binds to the first of `ports` that is free.
    pub(super) fn open(
        remote: SocketAddr,
        local: Option<IpAddr>,
        device: Option<&str>,
        ports: impl Iterator<Item = u16>,
    ) -> io::Result<Self> {
        let v4 = remote.is_ipv4();
        let socket = udp(v4, device)?;
        if v4 {
            socket.set_ttl_v4(TTL.into())?;
            socket.set_tos_v4(INTERNETWORK_CONTROL)?;
        } else {
            socket.set_unicast_hops_v6(TTL.into())?;
            socket.set_tclass_v6(INTERNETWORK_CONTROL)?;
        }
        let scope = match remote {
            SocketAddr::V6(remote) => remote.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let mut outcome = Err(io::Error::from(io::ErrorKind::AddrInUse));
        for port in ports.take(BIND_ATTEMPTS) {
            outcome = socket.bind(&scoped(local.unwrap_or(unspecified(v4)), port, scope).into());
            if !matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
        }
        outcome.map(|()| Self { socket, to: remote.into() })
    }

    pub(super) fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, &self.to).map(drop)
    }
}

/// A socket address, with the scope of a link-local address.
pub(super) fn scoped(address: IpAddr, port: u16, interface: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, interface).into(),
        _ => SocketAddr::new(address, port),
    }
}

pub(super) fn interface_index(name: &str) -> io::Result<NonZeroU32> {
    let index = nix::net::if_::if_nametoindex(name)?;
    NonZeroU32::new(index).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn udp(v4: bool, device: Option<&str>) -> io::Result<Socket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if !v4 {
        socket.set_only_v6(true)?;
    }
    socket.bind_device(device.map(str::as_bytes))?;
    Ok(socket)
}

fn unspecified(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Size of the receive buffer of a socket, which bounds the datagrams that wait; the kernel drops further ones.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Traffic class with DSCP CS6.
const INTERNETWORK_CONTROL: u32 = 0xc0;
const BIND_ATTEMPTS: usize = 64;
