//! The task that finds the router on an unnumbered link, and keeps telling it where we are.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt::Ipv6RecvHopLimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};

use super::sockopt;
use crate::discovery::Discovery;

/// Looks for the router behind an interface until it is dropped. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub(super) struct Finder {
    neighbor: Neighbor,
    task: JoinHandle<()>,
}

/// What is known of the router.
#[derive(Clone, Debug)]
pub(super) struct Neighbor {
    interface: String,
    found: watch::Receiver<Found>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Found {
    /// The router's address and the number of the interface.
    router: Option<(Ipv6Addr, u32)>,
    /// Why nothing can be heard.
    problem: Option<String>,
}

impl Finder {
    /// Starts to look. Must be called inside a tokio runtime.
    pub(super) fn start(interface: String) -> Self {
        let (found, receiver) = watch::channel(Found::default());
        let neighbor = Neighbor { interface: interface.clone(), found: receiver };
        let task = tokio::spawn(async move {
            loop {
                // It ends only by an error: the interface is not there, or went away.
                let Err(error) = look(&interface, &found).await;
                let problem = Found { router: None, problem: Some(error.to_string()) };
                if found.send_if_modified(|found| std::mem::replace(found, problem.clone()) != problem) {
                    tracing::warn!(interface, %error, reason = "discovery_failed", "the router can't be looked for");
                }
                sleep(RETRY).await;
            }
        });
        Self { neighbor, task }
    }

    pub(super) fn neighbor(&self) -> Neighbor {
        self.neighbor.clone()
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Neighbor {
    /// The router's address, once it is known.
    ///
    /// # Errors
    /// It was not heard in time.
    pub(super) async fn find(&mut self, port: u16) -> io::Result<SocketAddr> {
        let found = timeout(PATIENCE, self.found.wait_for(|found| found.router.is_some())).await;
        let router = found.ok().and_then(Result::ok).and_then(|found| found.router);
        if let Some((address, scope)) = router {
            return Ok(SocketAddrV6::new(address, port, 0, scope).into());
        }
        let interface = &self.interface;
        let text = match &self.found.borrow().problem {
            Some(problem) => format!("no router can be looked for on {interface}: {problem}"),
            None => format!("no router advertisement was heard on {interface}"),
        };
        Err(io::Error::new(io::ErrorKind::NotFound, text))
    }
}

async fn look(interface: &str, found: &watch::Sender<Found>) -> io::Result<std::convert::Infallible> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    // The kernel is a member of the group of all nodes anyway; that of all routers is for those who forward.
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
    let socket = sockopt::readable(socket)?;
    let mut discovery = Discovery::new(Instant::now());
    let mut buffer = [0; 1500];
    loop {
        while let Some(transmit) = discovery.poll_transmit() {
            let to = SocketAddr::from(SocketAddrV6::new(transmit.to, 0, 0, index));
            // A link that has no address yet, or is down, will be tried again; only one that is gone matters.
            if let Err(error) = socket.get_ref().send_to(transmit.payload, &to.into())
                && matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
            {
                return Err(error);
            }
        }
        tokio::select! {
            ready = socket.readable() => {
                let mut ready = ready?;
                match ready.try_io(|socket| receive(socket.get_ref(), &mut buffer)) {
                    Ok(received) => {
                        let (from, hop_limit, length) = received?;
                        // Most of what arrives is other neighbour discovery.
                        let _ = discovery.handle_message(Instant::now(), from, hop_limit, &buffer[..length]);
                    }
                    Err(_would_block) => {}
                }
            }
            () = sleep_until(discovery.poll_timeout().into()) => discovery.handle_timeout(Instant::now()),
        }
        let now = Found { router: discovery.router().map(|router| (router, index)), problem: None };
        if found.send_if_modified(|found| std::mem::replace(found, now.clone()) != now)
            && let Some((router, _)) = now.router
        {
            tracing::info!(interface, %router, "router found");
        }
        if nix::net::if_::if_nametoindex(interface) != Ok(index) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<(Ipv6Addr, u8, usize)> {
    let mut control = cmsg_space!(libc::c_int);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let hop_limit = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
        _ => None,
    });
    let from = received.address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip());
    Ok((from, hop_limit.unwrap_or(0), received.bytes))
}

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Less than a session waits for its connection, so that the session can say what is missing.
const PATIENCE: Duration = Duration::from_secs(8);

const RETRY: Duration = Duration::from_secs(1);
