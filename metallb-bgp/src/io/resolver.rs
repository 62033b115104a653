//! The task that resolves the address of an unnumbered router, and advertises this speaker to it.

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
use crate::error::IoError;
use crate::session::ConnectionError;

/// Resolves the router on an interface until it is dropped. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub(super) struct Resolver {
    neighbor: Neighbor,
    task: JoinHandle<()>,
}

/// The router on an interface.
#[derive(Clone, Debug)]
pub(super) struct Neighbor {
    interface: String,
    resolution: watch::Receiver<Resolution>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Resolution {
    /// The address of the router and the index of the interface.
    router: Option<(Ipv6Addr, u32)>,
    /// Why no advertisement can be received.
    error: Option<IoError>,
}

impl Resolver {
    /// Starts the task. Must be called inside a tokio runtime.
    pub(super) fn start(interface: String) -> Self {
        let (sender, resolution) = watch::channel(Resolution::default());
        let neighbor = Neighbor { interface: interface.clone(), resolution };
        let task = tokio::spawn(async move {
            loop {
                // It ends only by an error: the interface does not exist, or was removed.
                let Err(error) = resolve(&interface, &sender).await;
                let failed = Resolution { router: None, error: Some(IoError::from(&error)) };
                if sender.send_if_modified(|current| std::mem::replace(current, failed.clone()) != failed) {
                    tracing::warn!(
                        interface, %error, event = "routerDiscoveryFailed",
                        "cannot receive router advertisements for an unnumbered BGP peer"
                    );
                }
                sleep(RETRY).await;
            }
        });
        Self { neighbor, task }
    }

    /// The address of the router, as far as it is known.
    pub(super) fn router(&self) -> Option<Ipv6Addr> {
        self.neighbor.resolution.borrow().router.map(|(address, _)| address)
    }

    /// Waits until another router is found. Cancelling it loses nothing.
    pub(super) async fn changed(&mut self) {
        if self.neighbor.resolution.changed().await.is_err() {
            // The task has ended, so there are no further changes.
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn neighbor(&self) -> Neighbor {
        self.neighbor.clone()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Neighbor {
    /// The address of the router, as soon as it is known.
    ///
    /// # Errors
    /// No router was found in time.
    pub(super) async fn resolve(&mut self, port: u16) -> Result<SocketAddr, ConnectionError> {
        let resolved = timeout(TIMEOUT, self.resolution.wait_for(|resolution| resolution.router.is_some())).await;
        let router = resolved.ok().and_then(Result::ok).and_then(|resolution| resolution.router);
        if let Some((address, scope)) = router {
            return Ok(SocketAddrV6::new(address, port, 0, scope).into());
        }
        let interface = self.interface.clone();
        Err(match self.resolution.borrow().error {
            Some(source) => ConnectionError::RouterDiscovery { interface, source },
            None => ConnectionError::NoRouter { interface },
        })
    }
}

async fn resolve(interface: &str, resolution: &watch::Sender<Resolution>) -> io::Result<std::convert::Infallible> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    // The kernel is a member of the all-nodes group in any case, but of the all-routers group only if it forwards.
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
    let socket = sockopt::readable(socket)?;
    let mut discovery = Discovery::new(Instant::now());
    let mut buffer = [0; 1500];
    loop {
        while let Some(transmit) = discovery.poll_transmit() {
            let to = SocketAddr::from(SocketAddrV6::new(transmit.to, 0, 0, index));
            // If the link is down or has no address yet, the next message is tried. Only a removed link is an error.
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
                        // Most received messages are other neighbour discovery, which is discarded.
                        let _ = discovery.handle_message(Instant::now(), from, hop_limit, &buffer[..length]);
                    }
                    Err(_would_block) => {}
                }
            }
            () = sleep_until(discovery.poll_timeout().into()) => discovery.handle_timeout(Instant::now()),
        }
        let now = Resolution { router: discovery.router().map(|router| (router, index)), error: None };
        if resolution.send_if_modified(|current| std::mem::replace(current, now.clone()) != now)
            && let Some((router, _)) = now.router
        {
            tracing::info!(interface, %router, event = "routerFound", "found the router of an unnumbered BGP peer");
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

/// Less than the timeout of a connection attempt, so that the attempt ends with this error.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Pause after an error.
const RETRY: Duration = Duration::from_secs(1);
