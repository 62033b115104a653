//! The thread that serves all interfaces: waits for one input, feeds the engine, drains its outputs, arms one timer.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::arp_ignore::{self, ArpIgnore};
use super::busy_poll::BusyPoll;
use super::command::{AnsweredByKernel, Command, CommandQueue, Listener, Notification, Shared, StartError};
use super::gateways::gateways;
use super::now;
use super::port::Port;
use super::raw_socket::ReceiveBatch;
use super::routing::{self, ReadOutcome, RouteMonitor};
use super::sys;
use crate::engine::{Config, Engine, GroupChange, Membership};
use crate::interface::{AddressChange, Announcement, Interface, MacAddr, Stance};
use crate::links::{Change, InterfaceFilter, Links};
use crate::wire::arp::Arp;
use crate::wire::ndp;

pub(super) struct Worker {
    engine: Engine,
    ports: BTreeMap<u32, Port>,
    links: Links,
    gateways: BTreeSet<IpAddr>,
    /// Addresses of other nodes of the cluster.
    node_addresses: Vec<IpAddr>,
    monitor: RouteMonitor,
    /// The socket that holds the memberships in IPv6 groups.
    group_socket: OwnedFd,
    commands: Arc<CommandQueue>,
    listeners: Vec<Listener>,
    /// Addresses to probe for before they are announced, and whether they have been announced since.
    probe_first: BTreeMap<IpAddr, bool>,
    /// Addresses whose announcements were passed to the ports and may still wait there.
    announced: Vec<IpAddr>,
    /// Interfaces whose socket failed, until the next retry.
    failed: BTreeSet<u32>,
    /// When to retry what failed.
    retry_at: Option<Instant>,
    /// Netlink messages were lost, so all devices have to be listed.
    needs_list: bool,
    failed_at: Option<Instant>,
    /// The delay before the next retry.
    retry_delay: Duration,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

/// Which inputs are ready after a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ready {
    /// Those that the kernel reported, or none after a timeout.
    Polled,
    /// Frames in a shared ring. The kernel was not asked about other inputs.
    RingFrames,
}

impl Worker {
    /// Opens the sockets for the interfaces that exist now.
    pub(super) fn new(
        filter: InterfaceFilter,
        config: Config,
        seed: u64,
        commands: Arc<CommandQueue>,
        wake: Arc<EventFd>,
        shared: Arc<Mutex<Shared>>,
    ) -> Result<Self, StartError> {
        let failed = |what| move |source| StartError::Socket { what, source };
        // Opened before the list is read, so that no change in between is missed.
        let monitor = RouteMonitor::open().map_err(failed("a netlink socket"))?;
        let group_socket = sys::membership_socket().map_err(failed("a UDP socket"))?;
        let mut links = Links::new(filter);
        links.replace(routing::list().map_err(StartError::List)?);
        let mut ports = BTreeMap::new();
        if let Some(first) = links.interfaces().next() {
            // Report a missing capability here and not in the thread.
            ports.insert(first.index, Port::open(first.index).map_err(failed("a packet socket"))?);
        }
        let mut worker = Self {
            engine: Engine::new(config, seed, now()),
            ports,
            links,
            gateways: BTreeSet::new(),
            node_addresses: Vec::new(),
            monitor,
            group_socket,
            commands,
            listeners: Vec::new(),
            probe_first: BTreeMap::new(),
            announced: Vec::new(),
            failed: BTreeSet::new(),
            retry_at: None,
            needs_list: false,
            failed_at: None,
            retry_delay: RETRY_MIN,
            wake,
            shared,
        };
        worker.update_ports();
        worker.refresh_gateways();
        worker.update_foreign_addresses();
        Ok(worker)
    }

    /// Runs until a stop command.
    pub(super) fn run(mut self) {
        let mut batch = ReceiveBatch::new();
        let mut poller = sys::Poller::default();
        let mut busy_poll = BusyPoll::default();
        loop {
            self.drain();
            let ready = self.wait(&mut poller, &mut busy_poll);
            if poller.is_ready(WAKE) {
                // Only resets the counter. An error means that it is 0 already.
                let _ = self.wake.read();
            }
            if poller.is_ready(MONITOR) {
                self.handle_netlink();
            }
            if self.retry_at.is_some_and(|at| at <= now()) {
                self.retry();
            }
            // Last before frames: a command that preceded a request takes effect before the reply.
            if self.apply_commands().is_break() {
                return;
            }
            self.serve(ready, &poller, &mut batch, &mut busy_poll);
            self.engine.handle_timeout(now());
        }
    }

    /// Waits for frames, netlink messages, commands or a timeout.
    fn wait(&self, poller: &mut sys::Poller, busy_poll: &mut BusyPoll) -> Ready {
        poller.clear();
        poller.push(self.wake.as_fd(), false);
        poller.push(self.monitor.as_fd(), false);
        for port in self.ports.values() {
            poller.push(port.socket.as_fd(), port.has_frames_waiting());
        }
        // Requests often come in bursts. Reading the rings is cheaper than a system call, but shows only those frames.
        let mut at = now();
        let kernel_only = self.ports.values().any(|port| port.has_frame().is_none());
        while busy_poll.is_active(at) {
            if busy_poll.kernel_poll_due(at) || kernel_only {
                if poller.wait(Some(Duration::ZERO)).is_ok_and(|ready| ready > 0) {
                    return Ready::Polled;
                }
            } else if self.ports.values().any(|port| port.has_frame() == Some(true)) {
                return Ready::RingFrames;
            }
            std::hint::spin_loop();
            at = now();
        }
        let next = self.engine.poll_timeout().into_iter().chain(self.retry_at).min();
        if let Err(error) = poller.wait(next.map(|at| at.saturating_duration_since(now())))
            && !sys::is_transient(&error)
        {
            tracing::warn!(event = "pollFailed", %error, "cannot wait for frames, retrying");
            #[allow(clippy::disallowed_methods, reason = "the call that would wait is the one that failed")]
            std::thread::sleep(RETRY_MIN);
        }
        Ready::Polled
    }

    fn apply_commands(&mut self) -> ControlFlow<()> {
        while let Some(command) = self.commands.pop() {
            match command {
                Command::Announce(addresses) => self.announce(addresses),
                Command::Change(changes) => self.change(changes),
                Command::ProbeFirst(addresses) => {
                    self.probe_first.extend(addresses.into_iter().map(|ip| (ip, false)));
                }
                Command::AnnounceAgain(addresses) => self.engine.announce_again(now(), addresses),
                Command::SetSpeakerMacs(macs) => self.engine.set_speaker_macs(macs),
                Command::SetNodeAddresses(addresses) => {
                    self.node_addresses = addresses;
                    self.update_foreign_addresses();
                }
                Command::Solicit(source, hosts) => self.solicit(source, hosts),
                Command::Listen(mut listener) => {
                    let interfaces = self.lock().interfaces.clone();
                    listener(&Notification::Interfaces(interfaces));
                    self.listeners.push(listener);
                }
                // A reply fails if the caller has stopped waiting.
                Command::FindAnsweredByKernel(addresses, reply) => {
                    drop(reply.try_send(self.find_answered_by_kernel(addresses)));
                }
                Command::ReadCounters(reply) => drop(reply.try_send(self.engine.counters())),
                Command::Stop => return ControlFlow::Break(()),
            }
            // An engine is drained after every input.
            self.drain();
        }
        ControlFlow::Continue(())
    }

    fn serve(&mut self, ready: Ready, poller: &sys::Poller, batch: &mut ReceiveBatch, busy_poll: &mut BusyPoll) {
        let mut any_failed = false;
        for (position, (&index, port)) in self.ports.iter_mut().enumerate() {
            // The poller may not know ports that were added after the wait. Reading one without frames is harmless.
            let is_ready = match ready {
                Ready::RingFrames => port.has_frame() == Some(true),
                Ready::Polled => poller.is_ready(FIRST_PORT + position),
            };
            if !is_ready {
                continue;
            }
            port.flush(index);
            match port.serve(index, &mut self.engine, batch) {
                Ok(replied) => replied.into_iter().for_each(|at| busy_poll.record_reply(at)),
                Err(error) => {
                    tracing::debug!(event = "receiveFailed", %error, interface = index, "cannot receive on interface");
                    self.failed.insert(index);
                    any_failed = true;
                }
            }
        }
        if any_failed {
            // A netlink message about the end of the interface usually follows. Otherwise the retry opens a new socket.
            self.update_ports();
            self.schedule_retry();
        }
    }

    /// Schedules a retry. The delay doubles with each failure, up to [`RETRY_MAX`].
    fn schedule_retry(&mut self) {
        let now = now();
        if self.failed_at.is_none_or(|at| now.saturating_duration_since(at) > RETRY_MAX * 2) {
            self.retry_delay = RETRY_MIN;
        }
        self.failed_at = Some(now);
        self.retry_at = Some(now + self.retry_delay);
        self.retry_delay = (self.retry_delay * 2).min(RETRY_MAX);
    }

    fn announce(&mut self, mut addresses: Vec<Announcement>) {
        if !self.probe_first.is_empty() {
            let wanted: BTreeSet<IpAddr> = addresses.iter().map(|announcement| announcement.ip).collect();
            // An address that was announced and is no longer wanted needs no further probe.
            self.probe_first.retain(|ip, announced| wanted.contains(ip) || !*announced);
            addresses.iter_mut().for_each(|announcement| self.claim_if_probed(announcement));
        }
        self.engine.set_addresses(now(), addresses);
        self.lock().refused = self.engine.refused();
    }

    fn change(&mut self, mut changes: Vec<AddressChange>) {
        for change in &mut changes {
            match change {
                AddressChange::Announce(announcement) => self.claim_if_probed(announcement),
                AddressChange::Withdraw(ip) => {
                    if self.probe_first.get(ip) == Some(&true) {
                        self.probe_first.remove(ip);
                    }
                }
            }
        }
        let ips: Vec<IpAddr> = changes.iter().map(AddressChange::ip).collect();
        self.engine.change_addresses(now(), changes);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for ip in ips {
            match self.engine.refusal(ip) {
                Some(reason) => drop(shared.refused.insert(ip, reason.clone())),
                None => drop(shared.refused.remove(&ip)),
            }
        }
    }

    /// An address to probe for is claimed instead of held.
    fn claim_if_probed(&mut self, announcement: &mut Announcement) {
        if let Some(announced) = self.probe_first.get_mut(&announcement.ip) {
            *announced = true;
            if announcement.stance == Stance::Hold {
                announcement.stance = Stance::Claim;
            }
        }
    }

    /// Passes the addresses that hosts, routers and networks use to the engine.
    fn update_foreign_addresses(&mut self) {
        let mut foreign = self.links.foreign_addresses();
        foreign.add_gateways(&self.gateways);
        foreign.add_nodes(&self.node_addresses);
        self.engine.set_foreign_addresses(now(), foreign);
        self.lock().refused = self.engine.refused();
        self.drain();
    }

    fn refresh_gateways(&mut self) {
        match gateways() {
            Ok(found) => self.gateways = found,
            // The next change of a route or an interface leads to another attempt.
            Err(error) => tracing::warn!(event = "listRoutesFailed", %error, "cannot list default routes"),
        }
    }

    fn find_answered_by_kernel(&self, addresses: Vec<IpAddr>) -> AnsweredByKernel {
        let on_internal_device = |ip: &IpAddr| ip.is_ipv4() && self.links.internal_device(*ip).is_some();
        let internal: Vec<IpAddr> = addresses.into_iter().filter(on_internal_device).collect();
        if internal.is_empty() {
            return BTreeMap::new();
        }
        let interfaces: Vec<Arc<str>> = self.lock().interfaces.iter().map(|it| Arc::clone(&it.name)).collect();
        let all = arp_ignore::read("all");
        let answers = |name: &Arc<str>| ArpIgnore::combine(all, arp_ignore::read(name)) == ArpIgnore::Nothing;
        let answering: Vec<Arc<str>> = interfaces.into_iter().filter(answers).collect();
        let found = internal.into_iter().filter(|_| !answering.is_empty());
        found.map(|ip| (ip, answering.clone())).collect()
    }

    fn solicit(&mut self, source: IpAddr, hosts: Vec<IpAddr>) {
        for host in hosts {
            let Some(Interface { index, mac, .. }) = self.links.interface_to(source, host) else { continue };
            let request = match (source, host) {
                (IpAddr::V4(source), IpAddr::V4(host)) => Arp::request(mac, source, host),
                (IpAddr::V6(source), IpAddr::V6(host)) => ndp::solicitation(mac, source, host),
                _ => continue,
            };
            if let Some(port) = self.ports.get_mut(&index) {
                port.enqueue(request, index);
            }
        }
    }

    /// Applies changes of devices one by one: a carrier that was lost and returned leads to a new announcement, and a
    /// new device with a reused index gets a new socket.
    fn handle_netlink(&mut self) {
        let mut changes = Vec::new();
        match self.monitor.read(|change| changes.push(change)) {
            Ok(ReadOutcome::Complete) => {}
            Ok(ReadOutcome::Overrun) => {
                tracing::info!(event = "netlinkOverrun", "netlink messages were lost, listing all interfaces");
                self.needs_list = true;
            }
            Err(error) => {
                tracing::warn!(event = "netlinkFailed", %error, "cannot read netlink messages, listing all interfaces");
                self.needs_list = true;
            }
        }
        let (any, mut routes_changed) = (!changes.is_empty(), false);
        for change in changes {
            // The kernel does not report the routes that it drops when a device goes down.
            routes_changed |= change == Change::DefaultRoutes;
            if self.links.apply(change) {
                routes_changed = true;
                self.update_ports();
            }
        }
        if routes_changed {
            self.refresh_gateways();
        }
        if self.needs_list {
            self.retry();
        } else if any {
            self.update_foreign_addresses();
        }
    }

    fn retry(&mut self) {
        self.retry_at = None;
        self.failed.clear();
        if self.needs_list {
            match routing::list() {
                Ok(changes) => {
                    self.links.replace(changes);
                    self.needs_list = false;
                    self.refresh_gateways();
                    self.update_foreign_addresses();
                }
                Err(error) => {
                    tracing::warn!(event = "listInterfacesFailed", %error, "cannot list interfaces, retrying");
                    self.schedule_retry();
                }
            }
        }
        self.update_ports();
    }

    /// Opens sockets for new interfaces and closes those of interfaces that are gone.
    fn update_ports(&mut self) {
        let mut usable = Vec::new();
        let found: Vec<Interface> =
            self.links.interfaces().filter(|interface| !self.failed.contains(&interface.index)).collect();
        for interface in found {
            let rings = self.ports.values().filter(|port| port.has_frame().is_some()).count();
            if let Entry::Vacant(vacant) = self.ports.entry(interface.index) {
                let open = if rings < RINGS_MAX { Port::open } else { Port::open_without_ring };
                match open(interface.index) {
                    Ok(port) => {
                        vacant.insert(port);
                    }
                    Err(error) => {
                        let name = &*interface.name;
                        tracing::warn!(event = "openFailed", %error, interface = name, "cannot open socket, retrying");
                        self.schedule_retry();
                        continue;
                    }
                }
            }
            usable.push(interface);
        }
        self.ports.retain(|index, _| usable.iter().any(|interface| interface.index == *index));
        let known = std::mem::replace(&mut self.lock().interfaces, usable.clone());
        if known != usable {
            let names: Vec<&str> = usable.iter().map(|interface| &*interface.name).collect();
            tracing::info!(event = "interfacesChanged", interfaces = ?names, "the interfaces in use changed");
            self.notify(&Notification::Interfaces(usable.clone()));
        }
        self.engine.set_interfaces(now(), usable);
        self.drain();
    }

    fn notify(&mut self, notification: &Notification) {
        self.listeners.iter_mut().for_each(|listener| listener(notification));
    }

    /// Executes all outputs of the engine.
    fn drain(&mut self) {
        while let Some(change) = self.engine.poll_group() {
            self.change_group(change);
        }
        while let Some(transmit) = self.engine.poll_transmit() {
            if let Some(port) = self.ports.get_mut(&transmit.interface) {
                port.enqueue(transmit.frame, transmit.interface);
            }
        }
        for (&index, port) in &mut self.ports {
            port.flush(index);
        }
        let mut events = std::iter::from_fn(|| self.engine.poll_event()).peekable();
        if events.peek().is_some() {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.events.extend(events);
            let excess = shared.events.len().saturating_sub(EVENTS_MAX);
            shared.events.drain(..excess);
        }
        self.notify_announced();
    }

    /// Reports announced addresses once all queued frames have been sent.
    fn notify_announced(&mut self) {
        self.announced.extend(std::iter::from_fn(|| self.engine.poll_announced()));
        if !self.announced.is_empty() && !self.ports.values().any(Port::has_frames_waiting) {
            let announced = std::mem::take(&mut self.announced);
            self.notify(&Notification::Announced(announced));
        }
    }

    /// Joins or leaves a group twice: the packet socket makes the interface receive the group, and the UDP socket makes
    /// the kernel report the membership to switches. Failures are only logged: the groups of a removed interface are
    /// gone already, and an interface that does not filter multicast needs none.
    fn change_group(&self, change: GroupChange) {
        let GroupChange { interface, group, membership } = change;
        let received =
            self.ports.get(&interface).map(|port| port.socket.set_group(MacAddr::of_multicast(group), membership));
        let reported = sys::set_membership(&self.group_socket, interface, group, membership == Membership::Join);
        for error in received.into_iter().chain([reported]).filter_map(Result::err) {
            tracing::debug!(event = "groupFailed", %error, %group, interface, ?membership, "cannot change membership");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands.close();
    }
}

/// Positions in the poller.
const WAKE: usize = 0;
const MONITOR: usize = 1;
const FIRST_PORT: usize = 2;

/// The number of interfaces with a shared ring. Each ring takes 128 KiB and about 15 ms to set up, and a node without
/// an exclusion list has one interface per pod.
const RINGS_MAX: usize = 4;

/// The delay before the first retry.
const RETRY_MIN: Duration = Duration::from_millis(200);

/// The longest delay between retries.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The limit of events that wait for [`take_events`](super::Handle::take_events); the oldest ones are dropped.
const EVENTS_MAX: usize = 1024;
