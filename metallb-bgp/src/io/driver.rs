//! The driver of a peer: it owns the task and hands out handles that command it.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::PeerConfig;
use super::addresses::Addresses;
use super::bfd_client::BfdSessions;
use super::incoming_report::PendingConnection;
use super::mailbox::{Changes, Drain, Routes};
use super::shared_peer::{DirectWrite, Shared, SharedPeer};
use super::snapshot::PeerEvent;
use super::worker::Worker;
use crate::peer::Peer;
use crate::session::Stop;

/// Owns the task of a peer. If it is dropped, the task ends the session without a NOTIFICATION.
#[derive(Debug)]
pub(super) struct Driver {
    handle: Handle,
    /// `None` after [`stop`](Self::stop).
    task: Option<JoinHandle<()>>,
}

/// Commands the task of a peer. Commands to a task that has ended have no effect.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    shared: Shared,
}

impl Driver {
    /// Starts the task. It begins when `predecessor` has ended, so that the router never sees two sessions.
    pub(super) fn start(
        name: &Arc<str>,
        config: PeerConfig,
        engine: Peer,
        events: mpsc::Sender<PeerEvent>,
        bfd: Arc<BfdSessions>,
        host: watch::Receiver<Arc<Addresses>>,
        predecessor: Option<JoinHandle<()>>,
    ) -> Self {
        let shared = Shared::new(engine, &config);
        let handle = Handle { shared: shared.clone() };
        let worker = Worker::new(Arc::clone(name), config, shared, events, bfd, host);
        let task = tokio::spawn(async move {
            if let Some(predecessor) = predecessor {
                // Even if it panicked, its connection is closed.
                let _ = predecessor.await;
            }
            worker.run().await;
        });
        Self { handle, task: Some(task) }
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the session. The returned task ends when the peer was informed.
    pub(super) fn stop(mut self, stop: Stop) -> Option<JoinHandle<()>> {
        self.handle.shared.mailbox.stop(stop);
        self.task.take()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.handle.shared.mailbox.close();
    }
}

impl Handle {
    /// What users of the peer share with its task.
    pub(super) const fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Replaces the routes.
    pub(super) fn set_routes(&self, routes: Routes) {
        self.shared.mailbox.set_routes(routes);
    }

    /// Changes single routes, by a direct write if possible.
    pub(super) fn change_routes(&self, changes: Changes) {
        match SharedPeer::write_directly(&self.shared, Instant::now(), &changes) {
            DirectWrite::Done => {}
            DirectWrite::WakeTask => self.shared.mailbox.wake(),
            DirectWrite::Refused => self.shared.mailbox.change_routes(changes),
        }
    }

    /// Changes the configuration by a change that needs no new session.
    pub(super) fn configure(&self, config: PeerConfig) {
        self.shared.mailbox.configure(config);
    }

    /// Hands over a connection that the peer has opened. Returns `false` and closes it if there is no room.
    pub(super) fn accept(&self, stream: TcpStream, pending: Option<PendingConnection>) -> bool {
        self.shared.mailbox.accept(stream, pending).is_ok()
    }

    /// Requests a graceful shutdown. The reply says whether it was started.
    pub(super) fn drain(&self, keep_routes: bool) -> oneshot::Receiver<bool> {
        let (reply, receiver) = oneshot::channel();
        self.shared.mailbox.drain(Drain { keep_routes, reply });
        receiver
    }
}
