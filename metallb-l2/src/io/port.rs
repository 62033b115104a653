//! One interface in use: its socket, and the frames that wait for it.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::raw_socket::{RawSocket, ReceiveBatch};
use super::rx_queue::RxQueue;
use super::{now, sys};
use crate::engine::{Engine, Received};
use crate::wire::Frame;

/// An interface with its socket.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: RawSocket,
    rx_queue: RxQueue,
    tx_queue: VecDeque<Frame>,
}

impl Port {
    /// With memory shared with the kernel, if that is possible.
    pub(super) fn open(interface: u32) -> io::Result<Self> {
        RxQueue::open(interface).map(Self::new)
    }

    /// Without.
    pub(super) fn open_queued(interface: u32) -> io::Result<Self> {
        RxQueue::without_ring(interface).map(Self::new)
    }

    fn new((socket, rx_queue): (RawSocket, RxQueue)) -> Self {
        Self { socket, rx_queue, tx_queue: VecDeque::new() }
    }

    /// Puts a frame in line, and sends whenever a batch is whole: the first frames of a large burst leave while the last ones are
    /// made.
    pub(super) fn queue_and_flush(&mut self, frame: Frame, interface: u32) {
        queue(&mut self.tx_queue, frame);
        if self.tx_queue.len().is_multiple_of(RawSocket::BATCH) {
            self.flush(interface);
        }
    }

    /// Whether a received frame waits, without asking the kernel; `None` where only the kernel knows.
    pub(super) fn has_frame(&self) -> Option<bool> {
        self.rx_queue.has_frame()
    }

    pub(super) fn has_frames_waiting(&self) -> bool {
        !self.tx_queue.is_empty()
    }

    /// Sends what waits, as far as the kernel takes it now. A frame that fails is not tried again: announcements are repeated, and
    /// so are questions.
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
                    tracing::debug!(%error, interface, "frame could not be sent");
                    self.tx_queue.pop_front();
                }
            }
        }
        self.tx_queue.shrink_to(TX_QUEUE_KEPT);
    }

    /// Feeds received frames to the engine and sends the answers, for a few batches: then it is the others' turn. Returns when it
    /// answered last, if it did.
    ///
    /// # Errors
    /// The interface can't be read now.
    pub(super) fn serve(
        &mut self,
        interface: u32,
        engine: &mut Engine,
        batch: &mut ReceiveBatch,
    ) -> io::Result<Option<Instant>> {
        let mut answered = None;
        for _ in 0..BATCHES_PER_TURN {
            // Once for what came in together.
            let now = now();
            let count = self.rx_queue.receive(&self.socket, batch, |bytes, checksum| {
                if let Ok(reply) = engine.handle_frame(now, &Received { interface, bytes, checksum }) {
                    queue(&mut self.tx_queue, reply);
                    answered = Some(now);
                }
            })?;
            self.flush(interface);
            // Where many come, more came in the meantime.
            if count < FEW {
                break;
            }
        }
        Ok(answered)
    }
}

/// Puts a frame in line. When too many wait the interface does not send at all, and the oldest is the least worth.
fn queue(tx_queue: &mut VecDeque<Frame>, frame: Frame) {
    if tx_queue.len() == TX_QUEUE_MAX {
        tx_queue.pop_front();
    }
    tx_queue.push_back(frame);
}

/// Batches of one interface that are handled before the others get their turn.
const BATCHES_PER_TURN: usize = 8;
/// When fewer frames than this came together, nothing is likely to have come while they were answered.
const FEW: usize = 8;
/// Frames that may wait for an interface: a burst for 65,536 IPv6 addresses.
const TX_QUEUE_MAX: usize = 65_536;
/// Room for frames that is kept when none waits.
const TX_QUEUE_KEPT: usize = 1024;
