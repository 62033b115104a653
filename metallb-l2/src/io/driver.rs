//! What a program holds of the thread that answers: it starts it, commands it, and hears from it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::command::{Command, Notification, Shared, StartError};
use super::worker::Worker;
use crate::counters::Counters;
use crate::engine::{Config, Event};
use crate::foreign::ForeignAddress;
use crate::interface::{Announcement, Interface, MacAddr};
use crate::links::InterfaceFilter;

/// Owns the thread; dropping it stops the thread and with it all answers.
#[derive(Debug)]
pub struct Driver {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Talks to the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

impl Driver {
    /// Starts the thread on the interfaces that `filter` lets through, now and whenever they change. `seed` jitters the gratuitous
    /// schedule.
    ///
    /// # Errors
    /// The host does not allow it, see [`StartError`].
    pub fn start(filter: InterfaceFilter, seed: u64) -> Result<Self, StartError> {
        Self::start_with(filter, Config::default(), seed)
    }

    /// As [`start`](Self::start), with another configuration than the default.
    ///
    /// # Errors
    /// The host does not allow it, see [`StartError`].
    pub fn start_with(filter: InterfaceFilter, config: Config, seed: u64) -> Result<Self, StartError> {
        let failed = |what| move |source| StartError::Socket { what, source };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| failed("an event descriptor")(error.into()))?;
        let (commands, queue) = mpsc::channel();
        let handle = Handle { commands, wake: Arc::new(wake), shared: Arc::default() };
        let worker = Worker::start(filter, config, seed, queue, Arc::clone(&handle.wake), Arc::clone(&handle.shared))?;
        let thread = std::thread::Builder::new()
            .name("l2".to_owned())
            .spawn(move || worker.run())
            .map_err(failed("a thread"))?;
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
        self.handle.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Replaces the addresses that are answered for. What is new among them is announced at once, in one burst, and
    /// [`Notification::Announced`] tells when it has left.
    pub fn announce<A: Into<Announcement>>(&self, addresses: Vec<A>) {
        self.send(Command::Announce(addresses.into_iter().map(Into::into).collect()));
    }

    /// Announces addresses that are held anew, as the winner does when two speakers held them.
    pub fn announce_again(&self, addresses: Vec<IpAddr>) {
        self.send(Command::AnnounceAgain(addresses));
    }

    /// Has these addresses probed for when they are next announced: [`Stance::Hold`](crate::interface::Stance::Hold) counts as
    /// `Claim` for them until they are announced no more.
    pub fn probe_first(&self, addresses: Vec<IpAddr>) {
        self.send(Command::ProbeFor(addresses));
    }

    /// Replaces the hardware addresses of the other speakers, whose claims are no conflict.
    pub fn set_speaker_macs(&self, speaker_macs: Vec<MacAddr>) {
        self.send(Command::SetSpeakerMacs(speaker_macs));
    }

    /// Replaces the addresses that other members of the cluster have themselves: they are not announced, whoever asks for it.
    pub fn set_node_addresses(&self, addresses: Vec<IpAddr>) {
        self.send(Command::SetNodeAddresses(addresses));
    }

    /// Asks the link once for the hardware addresses of hosts, in the name of an address of this host. The kernel, which asks for a
    /// missing one only once a second, takes the answer as if it had asked, and the kernels of those hosts learn ours. Hosts that are
    /// not on the link of that address are passed over, and all of them where its interface is not in use.
    pub fn solicit(&self, source: IpAddr, hosts: Vec<IpAddr>) {
        self.send(Command::Solicit(source, hosts));
    }

    /// The addresses that are to be announced and are not, and what speaks against it. Follows
    /// [`announce`](Self::announce) with a small delay.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<IpAddr, ForeignAddress> {
        self.lock().refused.clone()
    }

    /// Which of these addresses the kernel of this host answers for by itself, whoever announces them, and on which interfaces: they
    /// are on a device for inner use, and it is not told to keep that to itself (`arp_ignore`). kube-proxy with IPVS and without
    /// `strictARP` is like that. `None` when the thread is gone or late.
    #[must_use]
    pub fn answered_by_kernel(&self, addresses: Vec<IpAddr>) -> Option<BTreeMap<IpAddr, Vec<Arc<str>>>> {
        let (reply, found) = mpsc::sync_channel(1);
        self.send(Command::FindAnsweredByKernel(addresses, reply));
        found.recv_timeout(PATIENCE).ok()
    }

    /// Tells a listener what happens, in order, beginning with the interfaces in use now. It is called on the thread that answers,
    /// so it must not wait: it should hand on and return.
    pub fn listen(&self, listener: impl FnMut(&Notification) + Send + 'static) {
        self.send(Command::Listen(Box::new(listener)));
    }

    /// What happened so far. Waits for the thread to say, which it does between two batches of frames; should it be gone or late,
    /// what it said last.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (reply, counted) = mpsc::sync_channel(1);
        self.send(Command::Count(reply));
        match counted.recv_timeout(PATIENCE) {
            Ok(counters) => {
                self.lock().counted.clone_from(&counters);
                counters
            }
            Err(_) => self.lock().counted.clone(),
        }
    }

    /// The interfaces in use.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        self.lock().interfaces.clone()
    }

    /// Events since the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    fn send(&self, command: Command) {
        // Either fails only when the thread is gone; then there is nothing to command.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an asker waits for the thread.
const PATIENCE: Duration = Duration::from_millis(500);
