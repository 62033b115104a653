//! Packet sockets.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::sys;
use crate::group::Membership;
use crate::interface::MacAddr;
use crate::wire::ndp::Checksum;

/// Sends frames on one interface and receives the ARP and neighbour discovery frames for this host. It never blocks.
/// Opening it needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
    interface: u32,
}

/// Reusable buffers for frames that are received with one system call.
pub struct ReceiveBatch(sys::ReceiveBuffers);

impl RawSocket {
    /// Opens a socket on the interface with this index.
    ///
    /// # Errors
    /// There is no such interface, or the capability is missing.
    pub fn open(interface: u32) -> io::Result<Self> {
        Ok(Self { fd: sys::packet_socket(interface)?, interface })
    }

    /// Opens a socket that receives into a ring shared with the kernel.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the kernel or a security module refuses the ring.
    pub(super) fn open_with_ring(interface: u32) -> io::Result<(Self, sys::RxRing)> {
        let (fd, ring) = sys::packet_socket_with_ring(interface)?;
        Ok((Self { fd, interface }, ring))
    }

    /// Receives up to [`BATCH`](Self::BATCH) waiting frames; returns their number.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        sys::receive_batch(&self.fd, &mut batch.0, Self::BATCH)
    }

    /// Receives at most one waiting frame; returns the number.
    pub(super) fn receive_one(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        sys::receive_batch(&self.fd, &mut batch.0, 1)
    }

    /// Sends the first of `frames`, up to [`BATCH`](Self::BATCH); returns how many the kernel accepted, at least one.
    ///
    /// # Errors
    /// The first frame was not sent: the interface is down or gone, or its queue is full (`WouldBlock`, `ENOBUFS`).
    pub fn send<F: AsRef<[u8]>>(&self, frames: &[F]) -> io::Result<usize> {
        sys::send_batch(&self.fd, frames)
    }

    /// Starts or stops reception of a link-layer multicast group.
    ///
    /// # Errors
    /// The kernel refuses the change.
    pub fn set_group(&self, group: MacAddr, membership: Membership) -> io::Result<()> {
        sys::set_group(&self.fd, self.interface, group, membership == Membership::Join)
    }

    /// The largest number of frames per system call.
    pub const BATCH: usize = sys::BATCH;
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ReceiveBatch {
    /// Allocates buffers for [`RawSocket::BATCH`] frames.
    #[must_use]
    pub fn new() -> Self {
        Self(sys::ReceiveBuffers::new())
    }

    /// The frames of the last call. A frame longer than 2,176 bytes is cut.
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
