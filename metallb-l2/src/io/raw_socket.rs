//! Packet sockets.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::sys;
use crate::group::Membership;
use crate::interface::MacAddr;
use crate::wire::ndp::Checksum;

/// Sends frames on one interface, and receives the ARP and neighbour discovery frames that are for this host. It never waits.
/// Needs `CAP_NET_RAW` to be opened.
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
    interface: u32,
}

/// Room for frames that are received together; made once, used again and again.
pub struct ReceiveBatch(sys::ReceiveBuffers);

impl RawSocket {
    /// Opens a socket on the interface with this index.
    ///
    /// # Errors
    /// The kernel refuses: no such interface, or no capability.
    pub fn open(interface: u32) -> io::Result<Self> {
        Ok(Self { fd: sys::packet_socket(interface)?, interface })
    }

    /// Opens a socket that receives in memory which it shares with the kernel.
    ///
    /// # Errors
    /// As [`open`](Self::open), and where the kernel or a security module allows no such memory.
    pub(super) fn open_shared(interface: u32) -> io::Result<(Self, sys::RxRing)> {
        let (fd, ring) = sys::packet_socket_with_ring(interface)?;
        Ok((Self { fd, interface }, ring))
    }

    /// Receives what is there, up to [`BATCH`](Self::BATCH) frames; returns how many.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        sys::receive_batch(&self.fd, &mut batch.0, Self::BATCH)
    }

    /// Receives one frame, if there is one.
    pub(super) fn receive_one(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        sys::receive_batch(&self.fd, &mut batch.0, 1)
    }

    /// Sends the first of `frames`, up to [`BATCH`](Self::BATCH) of them; returns how many the kernel took, at least one.
    ///
    /// # Errors
    /// The first frame could not be sent: the interface is down or gone, or its queue is full (`WouldBlock`, `ENOBUFS`).
    pub fn send<F: AsRef<[u8]>>(&self, frames: &[F]) -> io::Result<usize> {
        sys::send_batch(&self.fd, frames)
    }

    /// Makes the interface receive a link-layer group, or no longer.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_group(&self, group: MacAddr, membership: Membership) -> io::Result<()> {
        sys::set_group(&self.fd, self.interface, group, membership == Membership::Join)
    }

    /// Frames that are received or sent together.
    pub const BATCH: usize = sys::BATCH;
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ReceiveBatch {
    /// Room for [`RawSocket::BATCH`] frames.
    #[must_use]
    pub fn new() -> Self {
        Self(sys::ReceiveBuffers::new())
    }

    /// The frames that the last call received. A long one is cut to 2,176 bytes.
    pub fn frames(&self) -> impl Iterator<Item = (&[u8], Checksum)> {
        self.0.frames()
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.frames().map(|(bytes, _)| bytes.len())).finish()
    }
}
