//! A peer's engine and the connections it speaks by. They are its task's, but whoever has a word for the peer may say it at once.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::net::TcpStream;

use super::snapshot::PeerSnapshot;
use crate::peer::Peer;
use crate::session::{Action, Slot};
use crate::types::Attributes;

/// What the task and others share. Nobody holds it while waiting for anything.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) engine: Peer,
    lines: [Option<Arc<TcpStream>>; 2],
    unsent: [Vec<u8>; 2],
    /// When somebody other than the task has spoken last.
    spoken: Option<Instant>,
}

/// What became of a change that was to be made at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AtOnce {
    /// It is done, and said to the peer if there is a session.
    Done,
    /// It is done; the task has to go on from there.
    Continue,
    /// Nothing is done: it is the task's.
    NotNow,
}

impl Exchange {
    pub(super) const fn new(engine: Peer) -> Self {
        Self { engine, lines: [None, None], unsent: [Vec::new(), Vec::new()], spoken: None }
    }

    /// A connection is there.
    pub(super) fn open(&mut self, slot: Slot, line: Arc<TcpStream>) {
        self.lines[slot as usize] = Some(line);
        self.unsent[slot as usize].clear();
    }

    /// Lets go of a connection; returns what was left to say on it.
    pub(super) fn close(&mut self, slot: Slot) -> Vec<u8> {
        self.lines[slot as usize] = None;
        std::mem::take(&mut self.unsent[slot as usize])
    }

    /// Whether a connection has not taken all that was said.
    pub(super) fn is_behind(&self, slot: Slot) -> bool {
        !self.unsent[slot as usize].is_empty()
    }

    /// What the engine wants done, after taking what it says.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        self.listen();
        std::iter::from_fn(|| self.engine.poll_action()).collect()
    }

    /// Hands what is unsent to the connections. True when the engine has heard of it and may have more to say.
    pub(super) fn send(&mut self) -> bool {
        let mut sent = false;
        for slot in Slot::ALL {
            sent |= self.send_on(slot);
        }
        sent
    }

    /// Changes routes and tells the peer from the caller's own thread, which spares the wake-up of the task. Not where the task is busy with
    /// the peer or has `queued` changes to make first, and not when much is changed or something has just been: the task packs what comes
    /// together into few messages.
    pub(super) fn change_at_once(
        shared: &Mutex<Self>,
        queued: &AtomicUsize,
        snapshot: &Mutex<PeerSnapshot>,
        changes: &[(IpNet, Option<Arc<Attributes>>)],
    ) -> AtOnce {
        let mut exchange = match shared.try_lock() {
            Ok(exchange) => exchange,
            Err(TryLockError::WouldBlock) => return AtOnce::NotNow,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let now = Instant::now();
        let again = exchange.spoken.is_some_and(|at| now.saturating_duration_since(at) < PAUSE);
        // The task makes a change and counts it down under the same lock.
        let first = queued.load(Ordering::Acquire) > 0;
        let behind = |exchange: &Self| Slot::ALL.into_iter().any(|slot| exchange.is_behind(slot));
        if first || again || changes.len() > FEW || behind(&exchange) {
            return AtOnce::NotNow;
        }
        exchange.spoken = Some(now);
        let (deadline, state) = (exchange.engine.poll_timeout(), exchange.engine.state());
        exchange.engine.change_routes(now, changes.iter().cloned());
        loop {
            exchange.listen();
            if !exchange.send() {
                break;
            }
        }
        snapshot.lock().unwrap_or_else(PoisonError::into_inner).follow(&exchange.engine, false);
        // The task sleeps until the deadline that it knows; a later one is no reason to wake it.
        let next = exchange.engine.poll_timeout();
        let earlier = next.is_some_and(|next| deadline.is_none_or(|known| next < known));
        if earlier || behind(&exchange) || exchange.engine.state() != state { AtOnce::Continue } else { AtOnce::Done }
    }

    fn listen(&mut self) {
        for slot in Slot::ALL {
            self.unsent[slot as usize].extend(self.engine.poll_transmit(slot));
        }
    }

    fn send_on(&mut self, slot: Slot) -> bool {
        let unsent = &mut self.unsent[slot as usize];
        let Some(line) = self.lines[slot as usize].as_ref().filter(|_| !unsent.is_empty()) else { return false };
        let now = Instant::now();
        match line.try_write(unsent) {
            Ok(sent) => {
                unsent.drain(..sent);
                self.engine.handle_send(now, slot, !unsent.is_empty());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.engine.handle_send(now, slot, true);
                return false;
            }
            Err(error) => self.engine.handle_failed(now, slot, &error.to_string()),
        }
        true
    }
}

/// So many routes are few.
const FEW: usize = 16;

/// Changes that follow each other faster are packed together by the task.
const PAUSE: Duration = Duration::from_micros(500);
