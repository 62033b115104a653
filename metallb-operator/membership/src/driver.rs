//! The I/O thread of membership: it owns the UDP socket and drives a [`Member`](crate::member::Member).
//!
//! [`Driver`] starts, owns and joins the thread, [`Handle`] commands it, and `Worker` runs it. The thread is separate
//! from the speaker's runtime, so that a large configuration or a slow API server does not delay the detection of a
//! dead owner, nor the takeover of its addresses. It publishes what it knows in a [`Snapshot`] and notifies the speaker
//! of changes; the speaker answers with [`Handle::plan`].

mod keys;
mod mailbox;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metallb_core::model::NodeName;
use metallb_l2::io::{Handle as L2, Notification};
use thiserror::Error;
use tokio::sync::Notify;

use self::mailbox::{Command, Mailbox};
use self::worker::Worker;
use crate::engine::{Config, Counters, Timing};
use crate::handover::Tally;
use crate::member::LEAVE_TIMEOUT;
use crate::takeover::{Generation, Plan};
use crate::wire::identity::Identity;
use crate::wire::seal::Keyring;

/// The settings of a driver.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node that the speaker runs on.
    pub node: NodeName,
    /// The address to receive on and to send from: a specific one that other speakers can reach.
    pub bind: SocketAddr,
    /// The directory with the file `secretkey`. Without it datagrams are sent in plain text.
    pub keys: Option<PathBuf>,
    /// Slower gossip, for nodes that are far apart.
    pub wan: bool,
}

/// Why the driver does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Other speakers cannot reach such an address.
    #[error("{0} is not an address that other speakers can reach")]
    Unspecified(SocketAddr),
    /// A configured key cannot be read.
    #[error("cannot read the membership key {}", path.display())]
    Key {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("cannot bind {address} for membership")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be made non-blocking.
    #[error("cannot set up the membership socket")]
    Socket(#[source] io::Error),
    /// The system's random source does not answer.
    #[error("cannot read random numbers")]
    Random(#[source] getrandom::Error),
    /// The descriptor that wakes the thread cannot be opened.
    #[error("cannot open an event descriptor")]
    EventDescriptor(#[source] io::Error),
    /// The thread cannot be started.
    #[error("cannot start the membership thread")]
    Thread(#[source] io::Error),
}

/// Owns the thread. Dropping it stops the thread without leaving the cluster; see [`Handle::leave`].
#[derive(Debug)]
pub struct Driver {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Commands the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
}

/// What the thread publishes.
#[derive(Debug, Default)]
struct Shared {
    snapshot: Mutex<Snapshot>,
    changed: Notify,
}

/// The state of membership at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whether the live members are known: before that, decisions must not be based on them.
    pub joined: bool,
    /// The nodes whose speakers are live and ready.
    pub live: BTreeSet<NodeName>,
    /// The number of this set of live members, for [`Plan::generation`].
    pub generation: Generation,
    /// The number of members, this one included.
    pub members: usize,
    /// The counters of the engine.
    pub counters: Counters,
    /// The results of handovers.
    pub handovers: Tally,
    /// The duration of each takeover from a dead node, from its last datagram to this node's announcement. Bounded:
    /// beyond 1,024 new ones are dropped until [`Handle::take_takeovers`] is called.
    pub takeovers: Vec<Duration>,
    /// Other hosts with the node name of a member, seen within the last minute.
    pub clashes: Vec<(NodeName, SocketAddr)>,
}

impl Driver {
    /// Opens the socket and starts the thread. It is silent until [`Handle::join`]. `l2` announces the addresses of
    /// this node.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings, l2: L2) -> Result<Self, StartError> {
        if settings.bind.ip().is_unspecified() || settings.bind.port() == 0 {
            return Err(StartError::Unspecified(settings.bind));
        }
        let keys = match &settings.keys {
            Some(directory) => keys::read(directory)?,
            None => Keyring::default(),
        };
        if keys.is_plain() {
            tracing::warn!(
                event = "membershipPlain",
                "no membership key is configured: datagrams are plain text and any host can send them"
            );
        }
        let socket =
            UdpSocket::bind(settings.bind).map_err(|source| StartError::Bind { address: settings.bind, source })?;
        socket.set_nonblocking(true).map_err(StartError::Socket)?;
        let session = getrandom::u64().map_err(StartError::Random)?;
        let seed = getrandom::u64().map_err(StartError::Random)?;
        let me = Identity::new(settings.node.clone(), settings.bind, worker::incarnation());
        let config = Config { me, session, keys, timing: Timing::default(), wan: settings.wan };
        let mailbox = Mailbox::new().map_err(StartError::EventDescriptor)?;
        let handle = Handle { mailbox: Arc::new(mailbox), shared: Arc::default() };
        let listener = Arc::clone(&handle.mailbox);
        l2.listen(move |news| match news {
            Notification::Interfaces(interfaces) => {
                listener.send(Command::Usable(interfaces.iter().map(|interface| interface.mac).collect()));
            }
            Notification::Announced(ips) => listener.send(Command::Announced(ips.iter().copied().collect())),
            _ => {}
        });
        let mut worker = Worker::new(settings, config, seed, socket, l2, &handle);
        let thread = std::thread::Builder::new()
            .name("membership".to_owned())
            .spawn(move || worker.run())
            .map_err(StartError::Thread)?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A handle to the thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.handle.mailbox.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Sets the addresses where other members may be. The first call enters the cluster.
    pub fn join(&self, contacts: Vec<SocketAddr>) {
        self.mailbox.send(Command::Join(contacts));
    }

    /// Changes the assignments of this node and the nodes that it monitors. Plans that the thread has not applied yet
    /// are merged, address by address.
    pub fn plan(&self, plan: Plan) {
        self.mailbox.send(Command::Plan(plan));
    }

    /// Hands all addresses over, then leaves the cluster. Blocks until that is done, at most half a second.
    pub fn leave(&self, successors: BTreeMap<IpAddr, NodeName>) {
        let (done, left) = mpsc::sync_channel(1);
        self.mailbox.send(Command::Leave(successors, done));
        // Without an answer the thread has ended, and there is nothing to wait for.
        let _ = left.recv_timeout(LEAVE_TIMEOUT * 2);
    }

    /// Waits until the live members of the snapshot may have changed.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// The current state.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().clone()
    }

    /// Removes and returns the durations of takeovers since the last call.
    #[must_use]
    pub fn take_takeovers(&self) -> Vec<Duration> {
        std::mem::take(&mut self.shared.lock().takeovers)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the live members may have changed. Without membership it never returns.
pub async fn changed(members: Option<&Handle>) {
    match members {
        Some(members) => members.changed().await,
        None => std::future::pending().await,
    }
}

/// The one place where the time comes from.
#[allow(clippy::disallowed_methods, reason = "the driver tells the member the time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Both ends may be used by several threads.
const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Driver>();
    assert_send_sync::<Handle>();
};
