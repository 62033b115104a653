//! The receive queue of a packet socket: a ring shared with the kernel if possible, otherwise the socket buffer.

use std::io;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::SocketError};

use super::raw_socket::{RawSocket, ReceiveBatch};
use super::sys;
use crate::wire::ndp::Checksum;

/// The received frames of one socket, in order.
#[derive(Debug)]
pub struct RxQueue(Option<sys::RxRing>);

impl RxQueue {
    /// Opens a socket with a shared ring of 128 KiB, which holds 819 frames. If the ring is refused, the socket uses
    /// its buffer instead. Frames that find no room are dropped by the kernel.
    ///
    /// # Errors
    /// As [`RawSocket::open`].
    pub fn open(interface: u32) -> io::Result<(RawSocket, Self)> {
        Self::with_ring(interface).or_else(|error| {
            let opened = Self::without_ring(interface)?;
            tracing::info!(event = "ringRefused", %error, interface, "cannot map a receive ring, copying frames");
            Ok(opened)
        })
    }

    /// Opens a socket with a shared ring.
    ///
    /// # Errors
    /// As [`RawSocket::open`], and if the kernel or a security module refuses the ring.
    pub fn with_ring(interface: u32) -> io::Result<(RawSocket, Self)> {
        let (socket, ring) = RawSocket::open_with_ring(interface)?;
        Ok((socket, Self(Some(ring))))
    }

    /// Opens a socket without a ring. Frames are copied from its buffer.
    ///
    /// # Errors
    /// As [`RawSocket::open`].
    pub fn without_ring(interface: u32) -> io::Result<(RawSocket, Self)> {
        Ok((RawSocket::open(interface)?, Self(None)))
    }

    /// Passes up to [`RawSocket::BATCH`] waiting frames to `handle` and returns their number. `socket` must be the one
    /// that was opened with this queue. `batch` takes frames that have to be copied. A frame longer than 2,176 bytes is
    /// cut.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn receive(
        &mut self,
        socket: &RawSocket,
        batch: &mut ReceiveBatch,
        mut handle: impl FnMut(&[u8], Checksum),
    ) -> io::Result<usize> {
        let Some(ring) = &mut self.0 else {
            let count = socket.receive(batch)?;
            batch.frames().for_each(|(bytes, checksum)| handle(bytes, checksum));
            return Ok(count);
        };
        let (mut count, mut failed) = (0, None);
        while count < RawSocket::BATCH
            && let Some(slot) = ring.next()
        {
            // A frame too long for its slot is also in the socket buffer, unless that was full. Then the part in the
            // slot is used.
            let mut long = 0;
            if slot.is_queued() {
                long = socket.receive_one(batch).or_else(|error| {
                    // A pending socket error is returned before the frame. Read again, so that the frame does not
                    // stay behind and get mixed up with the next long one.
                    failed = Some(error);
                    socket.receive_one(batch)
                })?;
            }
            match batch.frames().next().filter(|_| long > 0) {
                Some((bytes, _)) => handle(bytes, slot.checksum()),
                None => handle(slot.bytes(), slot.checksum()),
            }
            count += 1;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // Without a system call the kernel cannot report an error of the socket, so it is read explicitly.
        match if count == 0 { getsockopt(&socket.as_fd(), SocketError)? } else { 0 } {
            0 => Ok(count),
            error => Err(Errno::from_raw(error).into()),
        }
    }

    /// Whether a frame waits in the ring, without a system call; `None` without a ring.
    #[must_use]
    pub fn has_frame(&self) -> Option<bool> {
        self.0.as_ref().map(sys::RxRing::has_frame)
    }
}
