//! The owner of the thread that serves all interfaces, and the handle that commands it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::command::{Command, CommandQueue, Notification, Shared, StartError};
use super::worker::Worker;
use crate::engine::{Config, Counters, Event};
use crate::interface::{AddressChange, Announcement, ForeignAddress, Interface, MacAddr};
use crate::links::InterfaceFilter;

/// Owns the thread. Dropping it stops and joins the thread, which ends all replies.
#[derive(Debug)]
pub struct Driver {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Commands the thread of a [`Driver`]. Clones are cheap. No method blocks, except for
/// [`counters`](Self::counters) and [`answered_by_kernel`](Self::answered_by_kernel), which wait up to 500 ms.
///
/// Commands wait in a queue of 1,024, in order. When it overflows, only the last command of each kind that replaces a
/// whole state stays, changes are merged by address, lists of addresses are joined, and queries and solicitations are
/// dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: Arc<CommandQueue>,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

// Handles are used from any thread.
const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Driver>();
    assert_send_sync::<Handle>();
};

impl Driver {
    /// Starts the thread with the default [`Config`]. It serves the interfaces that `filter` accepts and follows their
    /// changes. `seed` is that of [`Engine::new`](crate::engine::Engine::new).
    ///
    /// # Errors
    /// See [`StartError`]. The usual cause is a missing `CAP_NET_RAW`.
    pub fn start(filter: InterfaceFilter, seed: u64) -> Result<Self, StartError> {
        Self::start_with(filter, Config::default(), seed)
    }

    /// Like [`start`](Self::start), with another configuration.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_with(filter: InterfaceFilter, config: Config, seed: u64) -> Result<Self, StartError> {
        let failed = |what| move |source| StartError::Socket { what, source };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| failed("an event descriptor")(error.into()))?;
        let handle = Handle { commands: Arc::default(), wake: Arc::new(wake), shared: Arc::default() };
        let worker = Worker::new(
            filter,
            config,
            seed,
            Arc::clone(&handle.commands),
            Arc::clone(&handle.wake),
            Arc::clone(&handle.shared),
        )?;
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
            // The panic hook has reported a panic already.
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Replaces the announced addresses. New ones are announced at once in one burst;
    /// [`Notification::Announced`] follows when the burst has left.
    pub fn announce<A: Into<Announcement>>(&self, addresses: Vec<A>) {
        self.send(Command::Announce(addresses.into_iter().map(Into::into).collect()));
    }

    /// Changes single announced addresses and leaves all others as they are; otherwise like
    /// [`announce`](Self::announce). Costs what changes.
    pub fn change(&self, changes: Vec<AddressChange>) {
        self.send(Command::Change(changes));
    }

    /// Starts a new burst for addresses that are announced already. The winner calls this after two speakers announced
    /// the same address.
    pub fn announce_again(&self, addresses: Vec<IpAddr>) {
        self.send(Command::AnnounceAgain(addresses));
    }

    /// Probes for these addresses before they are announced: [`Stance::Hold`](crate::interface::Stance::Hold) counts as
    /// `Claim` for them until they are no longer announced.
    pub fn probe_first(&self, addresses: Vec<IpAddr>) {
        self.send(Command::ProbeFirst(addresses));
    }

    /// Replaces the hardware addresses of the other speakers, whose claims are no conflict.
    pub fn set_speaker_macs(&self, macs: Vec<MacAddr>) {
        self.send(Command::SetSpeakerMacs(macs));
    }

    /// Replaces the addresses of the other nodes of the cluster, which are never announced.
    pub fn set_node_addresses(&self, addresses: Vec<IpAddr>) {
        self.send(Command::SetNodeAddresses(addresses));
    }

    /// Sends one ARP request or neighbour solicitation for each host, with the host address `source` as sender. The
    /// kernel retries an unresolved neighbour only once per second; it accepts the reply to this request, and the
    /// kernels of those hosts learn our hardware address from it. Hosts outside the network of `source` are ignored, as
    /// is a `source` that no used interface has.
    pub fn solicit(&self, source: IpAddr, hosts: Vec<IpAddr>) {
        self.send(Command::Solicit(source, hosts));
    }

    /// The wanted addresses that are not announced because they are foreign, with the reason. Follows
    /// [`announce`](Self::announce) with a small delay.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<IpAddr, ForeignAddress> {
        self.lock().refused.clone()
    }

    /// Which of these addresses the kernel of this host answers ARP requests for, and on which interfaces: they are
    /// configured on a device without ARP, and `arp_ignore` does not restrict replies to the receiving interface. This
    /// is the case with kube-proxy in IPVS mode without `strictARP`. `None` if the thread does not reply within 500 ms.
    #[must_use]
    pub fn answered_by_kernel(&self, addresses: Vec<IpAddr>) -> Option<BTreeMap<IpAddr, Vec<Arc<str>>>> {
        let (reply, found) = mpsc::sync_channel(1);
        self.send(Command::FindAnsweredByKernel(addresses, reply));
        found.recv_timeout(REPLY_TIMEOUT).ok()
    }

    /// Registers a listener. It is called with all notifications in order, beginning with the interfaces in use. The
    /// call happens on the thread that answers, so it must not block.
    pub fn listen(&self, listener: impl FnMut(&Notification) + Send + 'static) {
        self.send(Command::Listen(Box::new(listener)));
    }

    /// The counters. Returns the last known ones if the thread does not reply within 500 ms.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (reply, counters) = mpsc::sync_channel(1);
        self.send(Command::ReadCounters(reply));
        match counters.recv_timeout(REPLY_TIMEOUT) {
            Ok(counters) => {
                self.lock().counters.clone_from(&counters);
                counters
            }
            Err(_) => self.lock().counters.clone(),
        }
    }

    /// The interfaces in use.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        self.lock().interfaces.clone()
    }

    /// Removes and returns the events since the last call, at most the last 1,024.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    fn send(&self, command: Command) {
        self.commands.push(command);
        // This fails only if the counter overflows, and then the thread is awake.
        let _ = self.wake.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a query waits for the thread.
const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
