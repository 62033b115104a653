//! Where received frames are looked at: where the kernel put them, if possible.

use std::io;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::SocketError};

use super::raw_socket::{RawSocket, ReceiveBatch};
use super::sys;
use crate::wire::ndp::Checksum;

/// The received frames of one socket, in their order.
#[derive(Debug)]
pub struct RxQueue(Option<sys::RxRing>);

impl RxQueue {
    /// Opens a socket which shares memory with the kernel, 128 KiB: frames are looked at there, 819 can wait. Where that is refused,
    /// the socket has a queue.
    ///
    /// # Errors
    /// As [`RawSocket::open`].
    pub fn open(interface: u32) -> io::Result<(RawSocket, Self)> {
        Self::with_ring(interface).or_else(|error| {
            let opened = Self::without_ring(interface)?;
            tracing::info!(%error, interface, "no memory can be shared with the kernel, frames are copied");
            Ok(opened)
        })
    }

    /// The same, and nothing else.
    ///
    /// # Errors
    /// As [`RawSocket::open`], and where a security module forbids such memory.
    pub fn with_ring(interface: u32) -> io::Result<(RawSocket, Self)> {
        let (socket, ring) = RawSocket::open_shared(interface)?;
        Ok((socket, Self(Some(ring))))
    }

    /// Opens a socket with a queue in the kernel, from which frames are copied.
    ///
    /// # Errors
    /// As [`RawSocket::open`].
    pub fn without_ring(interface: u32) -> io::Result<(RawSocket, Self)> {
        Ok((RawSocket::open(interface)?, Self(None)))
    }

    /// Shows the frames that wait, up to [`RawSocket::BATCH`] of them, and returns how many there were. `socket` is the one that was
    /// opened with this rx_queue; `batch` is room for what has to be copied. A long frame is cut to 2,176 bytes.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn receive(
        &mut self,
        socket: &RawSocket,
        batch: &mut ReceiveBatch,
        mut look: impl FnMut(&[u8], Checksum),
    ) -> io::Result<usize> {
        let Some(ring) = &mut self.0 else {
            let count = socket.receive(batch)?;
            batch.frames().for_each(|(bytes, checksum)| look(bytes, checksum));
            return Ok(count);
        };
        let (mut count, mut failed) = (0, None);
        while count < RawSocket::BATCH
            && let Some(place) = ring.next()
        {
            // Where the queue had no room for a frame that is too long, what there is of it has to do.
            let mut long = 0;
            if place.is_queued() {
                long = socket.receive_one(batch).or_else(|error| {
                    // It is told before what waits, and the frame must not wait for the next one's turn.
                    failed = Some(error);
                    socket.receive_one(batch)
                })?;
            }
            match batch.frames().next().filter(|_| long > 0) {
                Some((bytes, _)) => look(bytes, place.checksum()),
                None => look(place.bytes(), place.checksum()),
            }
            count += 1;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // Who makes no system call is not told what is wrong.
        match if count == 0 { getsockopt(&socket.as_fd(), SocketError)? } else { 0 } {
            0 => Ok(count),
            error => Err(Errno::from_raw(error).into()),
        }
    }

    /// Whether a frame waits, without asking the kernel; `None` where only the kernel knows.
    #[must_use]
    pub fn has_frame(&self) -> Option<bool> {
        self.0.as_ref().map(sys::RxRing::has_frame)
    }
}
