//! BFD over UDP on a thread of its own, so that other work of the process does not delay packets.
//!
//! The thread sleeps until a datagram, a command or the next deadline. It needs no privileges: TTL, packet info and
//! binding to a device are available to every process.

#![expect(clippy::disallowed_methods, reason = "a driver is where time enters")]

mod socket;
mod worker;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;
use tokio::sync::watch;

use self::worker::{Command, Worker};
use crate::bfd::{AddSessionError, Cause, Diagnostic, Discard, Hops, Profile, SessionSnapshot, State};
use crate::error::IoError;

/// The path of a session, by interface names instead of indices, which change when an interface is recreated.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct BfdPath {
    /// The neighbour.
    pub remote: IpAddr,
    /// The distance of the neighbour.
    pub hops: Hops,
    /// The local address; `None` lets the kernel select one.
    pub local: Option<IpAddr>,
    /// The interface to use; a link-local neighbour needs one.
    pub interface: Option<String>,
    /// The VRF device.
    pub vrf: Option<String>,
}

impl BfdPath {
    /// A path in the default VRF, on any interface and local address.
    #[must_use]
    pub fn new(remote: IpAddr, hops: Hops) -> Self {
        Self { remote, hops, local: None, interface: None, vrf: None }
    }
}

/// The status of a session, for its clients.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdStatus {
    /// The state.
    pub state: State,
    /// The cause of the last state change; `None` before the first one.
    pub cause: Option<Cause>,
    /// The diagnostic in our packets.
    pub diagnostic: Diagnostic,
    /// The number of failures while Up. It shows a client a failure that was over before the client looked.
    pub failures: u64,
    /// Whether the BFD implementation of the neighbour survives a restart of its control plane (RFC 5882 §4.3).
    pub control_plane_independent: bool,
    /// Why the session cannot run at the moment, for example because its interface does not exist. It is tried again
    /// every second.
    pub problem: Option<BfdProblem>,
}

impl Default for BfdStatus {
    fn default() -> Self {
        Self {
            state: State::Down,
            cause: None,
            diagnostic: Diagnostic::NONE,
            failures: 0,
            control_plane_independent: false,
            problem: None,
        }
    }
}

/// A session, for metrics and status.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdSnapshot {
    /// The path.
    pub path: BfdPath,
    /// The status, as its clients see it.
    pub status: BfdStatus,
    /// State and counters; `None` while a problem keeps the session from running.
    pub session: Option<SessionSnapshot>,
    /// The number of packets that the kernel refused to send.
    pub send_errors: u64,
}

/// The status of all sessions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdReport {
    /// The sessions, sorted by path.
    pub sessions: Vec<BfdSnapshot>,
    /// The number of dropped datagrams, by reason.
    pub discards: Vec<(Discard, u64)>,
}

impl BfdReport {
    /// The session of a path, if it is running.
    #[must_use]
    pub fn session(&self, path: &BfdPath) -> Option<&SessionSnapshot> {
        self.sessions.iter().find(|snapshot| snapshot.path == *path)?.session.as_ref()
    }
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BfdError {
    /// The path is invalid.
    #[error(transparent)]
    Path(#[from] AddSessionError),
    /// The thread has ended.
    #[error("the BFD thread has ended")]
    Stopped,
}

/// Why a session cannot run at the moment.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BfdProblem {
    /// The path is invalid.
    #[error(transparent)]
    Path(#[from] AddSessionError),
    /// The operating system reported an error: the interface does not exist, or the port is in use.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Owns the thread of all sessions. If it is dropped, each session ends with a single AdminDown;
/// [`shutdown`](Self::shutdown) is more careful.
#[derive(Debug)]
pub struct Driver {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts the thread, which opens sockets when the first session needs them. `seed` determines discriminators and
    /// jitter and must be hard to guess.
    ///
    /// # Errors
    /// The operating system has no resources for a thread or a file descriptor.
    pub fn start(seed: u64) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        // If the queue is full, the caller waits until the thread, which never waits for a caller, has taken the
        // commands.
        let (commands, queue) = mpsc::sync_channel(COMMANDS_MAX);
        let worker = Worker::new(queue, Arc::clone(&wake), seed);
        let thread = std::thread::Builder::new().name("bfd".into()).spawn(move || worker.run())?;
        Ok(Self { handle: Handle { commands, wake }, thread: Some(thread) })
    }

    /// A handle to the thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sends AdminDown to all neighbours for their detection times, at most for `timeout`, then ends the thread.
    /// Blocks.
    pub fn shutdown(mut self, timeout: Duration) {
        self.stop(timeout);
    }

    fn stop(&mut self, timeout: Duration) {
        if let Some(thread) = self.thread.take() {
            let sent = self.handle.send(Command::Shutdown { until: Instant::now() + timeout });
            if sent.is_ok() && thread.join().is_err() {
                tracing::error!(event = "bfdThreadPanicked", "the BFD thread ended by a panic");
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Commands the BFD thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::SyncSender<Command>,
    wake: Arc<EventFd>,
}

impl Handle {
    /// Adds a session, or changes the profile of an existing one. No change takes down a session that is Up. The
    /// receiver gets the status of the session, also if there are other clients.
    ///
    /// # Errors
    /// The path is invalid, or the thread has ended.
    pub fn add_session(&self, path: BfdPath, profile: Profile) -> Result<watch::Receiver<BfdStatus>, BfdError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Command::Add { path, profile, reply })?;
        answer.recv().map_err(|_| BfdError::Stopped)?
    }

    /// Removes a session. AdminDown is sent for the detection time of the neighbour, so that it does not assume a
    /// failure.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn remove_session(&self, path: &BfdPath) -> Result<(), BfdError> {
        self.send(Command::Remove { path: path.clone() })
    }

    /// Takes a session administratively down, or enables it again.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn set_admin(&self, path: &BfdPath, up: bool) -> Result<(), BfdError> {
        self.send(Command::SetAdmin { path: path.clone(), up })
    }

    /// The status of all sessions. Waits for the thread, usually for some microseconds.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn report(&self) -> Result<BfdReport, BfdError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Command::Report { reply })?;
        answer.recv().map_err(|_| BfdError::Stopped)
    }

    fn send(&self, command: Command) -> Result<(), BfdError> {
        self.commands.send(command).map_err(|_| BfdError::Stopped)?;
        // It fails only if the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
        Ok(())
    }
}

/// Limit of queued commands.
const COMMANDS_MAX: usize = 64;

const _: () = crate::assert_send_sync::<Driver>();
const _: () = crate::assert_send_sync::<Handle>();

#[cfg(test)]
mod tests;
