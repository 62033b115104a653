//! The engine of a peer with its connections, shared between the task of the peer and callers that change routes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use ipnet::IpNet;
use tokio::net::TcpStream;

use super::PeerConfig;
use super::mailbox::Mailbox;
use super::snapshot::PeerSnapshot;
use crate::error::IoError;
use crate::peer::{DirectWrites, Peer};
use crate::session::{Action, Slot};
use crate::types::Attributes;

/// What the task of a peer shares with its users.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) peer: Arc<Mutex<SharedPeer>>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) snapshot: Arc<Mutex<PeerSnapshot>>,
}

/// The engine and the connections. The lock around it is never held across an `await`.
#[derive(Debug)]
pub(super) struct SharedPeer {
    pub(super) engine: Peer,
    streams: [Option<Arc<TcpStream>>; 2],
    unsent: [Vec<u8>; 2],
    direct_writes: DirectWrites,
}

/// The result of an attempt to write a change of routes directly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DirectWrite {
    /// The change is applied and, if there is a session, written.
    Done,
    /// The change is applied; the task must continue from here.
    WakeTask,
    /// Nothing was done; the change is for the task.
    Refused,
}

impl Shared {
    pub(super) fn new(engine: Peer, config: &PeerConfig) -> Self {
        let snapshot = Arc::new(Mutex::new(PeerSnapshot::of(&engine, config)));
        Self { peer: Arc::new(Mutex::new(SharedPeer::new(engine))), mailbox: Arc::default(), snapshot }
    }

    /// Never held across an `await`.
    pub(super) fn lock(&self) -> MutexGuard<'_, SharedPeer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_snapshot(&self) -> MutexGuard<'_, PeerSnapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedPeer {
    fn new(engine: Peer) -> Self {
        Self { engine, streams: [None, None], unsent: [Vec::new(), Vec::new()], direct_writes: DirectWrites::default() }
    }

    /// Sets the connection of a slot.
    pub(super) fn open(&mut self, slot: Slot, stream: Arc<TcpStream>) {
        self.streams[slot as usize] = Some(stream);
        self.unsent[slot as usize].clear();
    }

    /// Releases the connection of a slot and returns its unsent bytes.
    pub(super) fn close(&mut self, slot: Slot) -> Vec<u8> {
        self.streams[slot as usize] = None;
        std::mem::take(&mut self.unsent[slot as usize])
    }

    /// Whether a connection has unsent bytes.
    pub(super) fn has_unsent(&self, slot: Slot) -> bool {
        !self.unsent[slot as usize].is_empty()
    }

    /// Collects the output of the engine and returns its actions.
    pub(super) fn poll_actions(&mut self) -> Vec<Action> {
        self.collect_output();
        std::iter::from_fn(|| self.engine.poll_action()).collect()
    }

    /// Writes unsent bytes to the connections. Returns `true` if the engine may have further output.
    pub(super) fn send(&mut self) -> bool {
        let mut sent = false;
        for slot in Slot::ALL {
            sent |= self.send_on(slot);
        }
        sent
    }

    /// Applies changes of routes and writes them to the peer on the calling thread, which saves the wake-up of the
    /// task. Refused if the task is working on the peer or has earlier commands about routes, if a connection is
    /// blocked, or by [`DirectWrites`].
    pub(super) fn write_directly(
        shared: &Shared,
        now: Instant,
        changes: &[(IpNet, Option<Arc<Attributes>>)],
    ) -> DirectWrite {
        let mut peer = match shared.peer.try_lock() {
            Ok(peer) => peer,
            Err(TryLockError::WouldBlock) => return DirectWrite::Refused,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let blocked = |peer: &Self| Slot::ALL.into_iter().any(|slot| peer.has_unsent(slot));
        // The task takes and applies commands about routes under the lock of the peer, so none is in flight.
        if shared.mailbox.has_routes() || blocked(&peer) || !peer.direct_writes.admit(now, changes.len()) {
            return DirectWrite::Refused;
        }
        let (deadline, state) = (peer.engine.poll_timeout(), peer.engine.state());
        peer.engine.change_routes(now, changes.iter().cloned());
        loop {
            peer.collect_output();
            if !peer.send() {
                break;
            }
        }
        shared.lock_snapshot().update(&peer.engine, false);
        // The task sleeps until the deadline that it knows; a later deadline is no reason to wake it.
        let next = peer.engine.poll_timeout();
        let earlier = next.is_some_and(|next| deadline.is_none_or(|known| next < known));
        match earlier || blocked(&peer) || peer.engine.state() != state {
            true => DirectWrite::WakeTask,
            false => DirectWrite::Done,
        }
    }

    fn collect_output(&mut self) {
        for slot in Slot::ALL {
            self.unsent[slot as usize].extend(self.engine.poll_transmit(slot));
        }
    }

    fn send_on(&mut self, slot: Slot) -> bool {
        let unsent = &mut self.unsent[slot as usize];
        let Some(stream) = self.streams[slot as usize].as_ref().filter(|_| !unsent.is_empty()) else { return false };
        let now = Instant::now();
        match stream.try_write(unsent) {
            Ok(sent) => {
                unsent.drain(..sent);
                self.engine.handle_send(now, slot, !unsent.is_empty());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.engine.handle_send(now, slot, true);
                return false;
            }
            Err(error) => self.engine.handle_failed(now, slot, IoError::from(error).into()),
        }
        true
    }
}
