//! A used interface: its socket, its receive queue and its transmit queue.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::raw_socket::{RawSocket, ReceiveBatch};
use super::rx_queue::RxQueue;
use super::{now, sys};
use crate::engine::{Engine, Received};
use crate::wire::Frame;

/// An interface with its socket and queues.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: RawSocket,
    rx_queue: RxQueue,
    /// At most [`TX_QUEUE_MAX`] frames; the oldest one is dropped for a new one.
    tx_queue: VecDeque<Frame>,
}

impl Port {
    /// Opens a socket, with a shared ring if the kernel allows it.
    pub(super) fn open(interface: u32) -> io::Result<Self> {
        RxQueue::open(interface).map(Self::new)
    }

    /// Opens a socket without a ring.
    pub(super) fn open_without_ring(interface: u32) -> io::Result<Self> {
        RxQueue::without_ring(interface).map(Self::new)
    }

    fn new((socket, rx_queue): (RawSocket, RxQueue)) -> Self {
        Self { socket, rx_queue, tx_queue: VecDeque::new() }
    }

    /// Queues a frame and sends full batches, so that the first frames of a large burst leave while the last ones are
    /// still being encoded.
    pub(super) fn enqueue(&mut self, frame: Frame, interface: u32) {
        push(&mut self.tx_queue, frame);
        if self.tx_queue.len().is_multiple_of(RawSocket::BATCH) {
            self.flush(interface);
        }
    }

    /// Whether a received frame waits in the ring; `None` without a ring.
    pub(super) fn has_frame(&self) -> Option<bool> {
        self.rx_queue.has_frame()
    }

    /// Whether frames wait to be sent.
    pub(super) fn has_frames_waiting(&self) -> bool {
        !self.tx_queue.is_empty()
    }

    /// Sends queued frames while the kernel accepts them. A frame that fails is dropped, because announcements and
    /// requests are repeated.
    pub(super) fn flush(&mut self, interface: u32) {
        while !self.tx_queue.is_empty() {
            let frames = match self.tx_queue.as_slices() {
                ([], second) => second,
                (first, _) => first,
            };
            match self.socket.send(frames) {
                Ok(sent) => drop(self.tx_queue.drain(..sent)),
                Err(error) if sys::is_transient(&error) => return,
                Err(error) => {
                    tracing::debug!(event = "sendFailed", %error, interface, "cannot send a frame, it is dropped");
                    self.tx_queue.pop_front();
                }
            }
        }
        self.tx_queue.shrink_to(TX_QUEUE_KEPT);
    }

    /// Passes received frames to the engine and sends the replies, for a limited number of batches so that other
    /// interfaces get their turn. Returns the time of the last reply.
    ///
    /// # Errors
    /// The interface cannot be read.
    pub(super) fn serve(
        &mut self,
        interface: u32,
        engine: &mut Engine,
        batch: &mut ReceiveBatch,
    ) -> io::Result<Option<Instant>> {
        let mut replied = None;
        for _ in 0..BATCHES_PER_TURN {
            // One clock read per batch.
            let now = now();
            let count = self.rx_queue.receive(&self.socket, batch, |bytes, checksum| {
                if let Ok(reply) = engine.handle_frame(now, &Received { interface, bytes, checksum }) {
                    push(&mut self.tx_queue, reply);
                    replied = Some(now);
                }
            })?;
            self.flush(interface);
            // After a large batch more frames have likely arrived.
            if count < FEW {
                break;
            }
        }
        Ok(replied)
    }
}

/// Queues a frame. A full queue means that the interface does not send, and then the oldest frame is the least useful.
fn push(tx_queue: &mut VecDeque<Frame>, frame: Frame) {
    if tx_queue.len() == TX_QUEUE_MAX {
        tx_queue.pop_front();
    }
    tx_queue.push_back(frame);
}

/// Batches of one interface before the other interfaces are served.
const BATCHES_PER_TURN: usize = 8;
/// A batch smaller than this was likely the last one.
const FEW: usize = 8;
/// Frames that may wait for an interface: a burst for 65,536 IPv6 addresses.
const TX_QUEUE_MAX: usize = 65_536;
/// The capacity that an empty queue keeps.
const TX_QUEUE_KEPT: usize = 1024;
