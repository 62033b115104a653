//! BFD over UDP, on a thread of its own: a speaker busy with anything else still sends and hears in time.
//!
//! The thread sleeps until a datagram, a command or the next deadline. It needs no privilege: TTL, packet info and the binding to a
//! device are open to every process.

#![expect(clippy::disallowed_methods, reason = "a driver is where time enters")]

mod socket;
mod thread;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use thiserror::Error;
use tokio::sync::watch;

use self::thread::{Command, Driver};
use crate::bfd::{AddSessionError, Cause, Diagnostic, Discard, Hops, Profile, SessionSnapshot, State};

/// A path to watch, by names that survive interfaces coming and going.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BfdPath {
    /// The neighbour.
    pub remote: IpAddr,
    /// How far it is.
    pub hops: Hops,
    /// The address to send from and to be reached at; left to the kernel where it is not given.
    pub local: Option<IpAddr>,
    /// The only interface to use; a link-local neighbour needs one.
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

/// Where a session stands, for the client that reacts to it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdStatus {
    /// The state.
    pub state: State,
    /// What changed it last; `None` before the first change.
    pub cause: Option<Cause>,
    /// What we give as the reason.
    pub diagnostic: Diagnostic,
    /// How often the path failed while Up. A client that missed a short failure sees it here.
    pub failures: u64,
    /// The neighbour's BFD survives a restart of its control plane (RFC 5882 §4.3).
    pub control_plane_independent: bool,
    /// Why the session cannot run at the moment: a missing interface, a taken port, a bad path. It is tried again every second.
    pub problem: Option<Arc<str>>,
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

/// A session as metrics and status show it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdSnapshot {
    /// The path.
    pub path: BfdPath,
    /// What its client was told.
    pub status: BfdStatus,
    /// State and counters; `None` while there is a problem that keeps the session from running.
    pub session: Option<SessionSnapshot>,
    /// Packets that the kernel refused to send.
    pub send_errors: u64,
}

/// All that the thread knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdReport {
    /// The sessions, by path.
    pub sessions: Vec<BfdSnapshot>,
    /// Datagrams dropped, by reason.
    pub discards: Vec<(Discard, u64)>,
}

impl BfdReport {
    /// The session of a path, while it runs.
    #[must_use]
    pub fn session(&self, path: &BfdPath) -> Option<&SessionSnapshot> {
        self.sessions.iter().find(|snapshot| snapshot.path == *path)?.session.as_ref()
    }
}

/// Why a command had no effect.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BfdError {
    /// The path makes no sense. The caller's fault.
    #[error(transparent)]
    Path(#[from] AddSessionError),
    /// The thread has ended.
    #[error("the BFD thread has ended")]
    Stopped,
}

/// The thread. Dropping it ends all sessions with one AdminDown; see [`shutdown`](Self::shutdown) for the careful way.
#[derive(Debug)]
pub struct BfdThread {
    handle: BfdHandle,
    thread: Option<JoinHandle<()>>,
}

impl BfdThread {
    /// Starts the thread. It opens sockets when the first session needs them.
    ///
    /// # Errors
    /// The system is out of threads or descriptors.
    pub fn spawn() -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (commands, inbox) = mpsc::channel();
        // The standard library's hasher keys are the operating system's randomness.
        let seed = RandomState::new().build_hasher().finish();
        let driver = Driver::new(inbox, Arc::clone(&wake), seed);
        let thread = std::thread::Builder::new().name("bfd".into()).spawn(move || driver.run())?;
        Ok(Self { handle: BfdHandle { commands, wake }, thread: Some(thread) })
    }

    /// A way to talk to the thread, for any number of clients.
    #[must_use]
    pub fn handle(&self) -> BfdHandle {
        self.handle.clone()
    }

    /// Tells all neighbours AdminDown for their detection times, `at_most` for so long, then ends the thread. Blocks.
    pub fn shutdown(mut self, at_most: Duration) {
        self.stop(at_most);
    }

    fn stop(&mut self, at_most: Duration) {
        if let Some(thread) = self.thread.take() {
            let told = self.handle.send(Command::Shutdown { until: Instant::now() + at_most });
            if told.is_ok() && thread.join().is_err() {
                tracing::error!(reason = "bfd_thread_panicked", "the BFD thread ended by a panic");
            }
        }
    }
}

impl Drop for BfdThread {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// A cloneable way to talk to the BFD thread.
#[derive(Clone, Debug)]
pub struct BfdHandle {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

impl BfdHandle {
    /// Watches a path, or changes how it is watched; the same again changes nothing, and no change takes down a session that is
    /// Up. The receiver follows the session, whoever else asks for it.
    ///
    /// # Errors
    /// The path makes no sense, or the thread has ended.
    pub fn add_session(&self, path: BfdPath, profile: Profile) -> Result<watch::Receiver<BfdStatus>, BfdError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Add { path, profile, reply })?;
        answer.recv().map_err(|_| BfdError::Stopped)?
    }

    /// Stops watching a path; the neighbour is told AdminDown for its detection time and does not take it for a failure.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn remove_session(&self, path: &BfdPath) -> Result<(), BfdError> {
        self.send(Command::Remove { path: path.clone() })
    }

    /// Holds a session administratively down, or lets it come up again.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn set_admin(&self, path: &BfdPath, up: bool) -> Result<(), BfdError> {
        self.send(Command::SetAdmin { path: path.clone(), up })
    }

    /// Where everything stands; waits for the thread, usually some microseconds.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn report(&self) -> Result<BfdReport, BfdError> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Report { reply })?;
        answer.recv().map_err(|_| BfdError::Stopped)
    }

    fn send(&self, command: Command) -> Result<(), BfdError> {
        self.commands.send(command).map_err(|_| BfdError::Stopped)?;
        // Fails only when the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
