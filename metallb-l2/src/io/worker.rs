//! The thread that answers: waits for one input, feeds the engine, does what comes out, arms one timer.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::arp_ignore::ArpIgnore;
use super::busy_poll::BusyPoll;
use super::command::{Command, Listener, Notification, Shared, StartError};
use super::gateways::gateways;
use super::now;
use super::port::Port;
use super::raw_socket::ReceiveBatch;
use super::routing::{self, Parsed, RouteMonitor};
use super::sys;
use crate::engine::{Config, Engine};
use crate::group::{GroupChange, Membership};
use crate::interface::{Announcement, Interface, MacAddr, Stance};
use crate::links::{Change, InterfaceFilter, Links};
use crate::wire::arp::Arp;
use crate::wire::ndp;

pub(super) struct Worker {
    engine: Engine,
    ports: BTreeMap<u32, Port>,
    links: Links,
    gateways: BTreeSet<IpAddr>,
    /// Addresses of other members of the cluster.
    nodes: Vec<IpAddr>,
    news: RouteMonitor,
    members: OwnedFd,
    queue: mpsc::Receiver<Command>,
    listeners: Vec<Listener>,
    /// Addresses to be claimed and not just held, and whether they were.
    probe_first: BTreeMap<IpAddr, bool>,
    /// Whose announcements were handed to the ports and may still wait there.
    announced: Vec<IpAddr>,
    /// Interfaces that could not be read, until they are tried again.
    broken: BTreeSet<u32>,
    /// When what failed about the interfaces is to be tried again.
    retry_at: Option<Instant>,
    /// Notification were lost, so everything is to be listed.
    list_is_stale: bool,
    failed_at: Option<Instant>,
    /// How long to wait after the next failure.
    pause: Duration,
    wake: Arc<EventFd>,
    shared: Arc<Mutex<Shared>>,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Continue,
    Stop,
}

/// What ended the wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    /// The kernel said what there is, or the time is over.
    ByKernel,
    /// Frames in memory that is shared with it, and it was not asked for more.
    Frames,
}

impl Worker {
    /// Opens all that it needs on the interfaces that are there.
    pub(super) fn start(
        filter: InterfaceFilter,
        config: Config,
        seed: u64,
        queue: mpsc::Receiver<Command>,
        wake: Arc<EventFd>,
        shared: Arc<Mutex<Shared>>,
    ) -> Result<Self, StartError> {
        let failed = |what| move |source| StartError::Socket { what, source };
        // Before the list: what changes in between is parsed of.
        let news = RouteMonitor::open().map_err(failed("a netlink socket"))?;
        let members = sys::membership_socket().map_err(failed("a UDP socket"))?;
        let mut links = Links::new(filter);
        links.replace(routing::list().map_err(StartError::List)?);
        let mut ports = BTreeMap::new();
        if let Some(first) = links.interfaces().next() {
            // Fail now rather than in the thread when the capability is missing.
            ports.insert(first.index, Port::open(first.index).map_err(failed("a packet socket"))?);
        }
        let mut worker = Self {
            engine: Engine::new(config, seed, now()),
            ports,
            links,
            gateways: BTreeSet::new(),
            nodes: Vec::new(),
            news,
            members,
            queue,
            listeners: Vec::new(),
            probe_first: BTreeMap::new(),
            announced: Vec::new(),
            broken: BTreeSet::new(),
            retry_at: None,
            list_is_stale: false,
            failed_at: None,
            pause: RETRY,
            wake,
            shared,
        };
        worker.update_ports();
        worker.refresh_gateways();
        worker.reserve();
        Ok(worker)
    }

    /// Goes on until it is told to stop.
    pub(super) fn run(mut self) {
        let mut batch = ReceiveBatch::new();
        let mut poller = sys::Poller::default();
        let mut busy_poll = BusyPoll::default();
        loop {
            self.drain();
            let found = self.wait(&mut poller, &mut busy_poll);
            if poller.is_ready(WAKE) {
                // It only counts wake-ups; there is nothing to do when it was read already.
                let _ = self.wake.read();
            }
            if poller.is_ready(NEWS) {
                self.handle_netlink();
            }
            if self.retry_at.is_some_and(|at| at <= now()) {
                self.retry();
            }
            // Last of all: what was commanded before a question came is obeyed before it is answered.
            if self.apply_commands() == Next::Stop {
                return;
            }
            self.serve(found, &poller, &mut batch, &mut busy_poll);
            self.engine.handle_timeout(now());
        }
    }

    /// Waits for frames, routing news, commands or the time.
    fn wait(&self, poller: &mut sys::Poller, busy_poll: &mut BusyPoll) -> Found {
        poller.clear();
        poller.push(self.wake.as_fd(), false);
        poller.push(self.news.as_fd(), false);
        for port in self.ports.values() {
            poller.push(port.socket.as_fd(), port.has_frames_waiting());
        }
        // Who asks once often asks again at once. To look is cheaper than to ask the kernel, but only the kernel knows of the rest.
        let mut at = now();
        let only_kernel_knows = self.ports.values().any(|port| port.has_frame().is_none());
        while busy_poll.is_active(at) {
            if busy_poll.asks(at) || only_kernel_knows {
                if poller.wait(Some(Duration::ZERO)).is_ok_and(|ready| ready > 0) {
                    return Found::ByKernel;
                }
            } else if self.ports.values().any(|port| port.has_frame() == Some(true)) {
                return Found::Frames;
            }
            std::hint::spin_loop();
            at = now();
        }
        let next = self.engine.poll_timeout().into_iter().chain(self.retry_at).min();
        if let Err(error) = poller.wait(next.map(|at| at.saturating_duration_since(now())))
            && !sys::is_transient(&error)
        {
            tracing::warn!(%error, "can't wait for frames");
            #[allow(clippy::disallowed_methods, reason = "the driver waits; there is nothing else left to wait with")]
            std::thread::sleep(RETRY);
        }
        Found::ByKernel
    }

    fn apply_commands(&mut self) -> Next {
        loop {
            match self.queue.try_recv() {
                Ok(Command::Announce(addresses)) => self.announce(addresses),
                Ok(Command::ProbeFor(addresses)) => {
                    self.probe_first.extend(addresses.into_iter().map(|ip| (ip, false)));
                }
                Ok(Command::AnnounceAgain(addresses)) => self.engine.announce_again(now(), addresses),
                Ok(Command::SetSpeakerMacs(speaker_macs)) => self.engine.set_speaker_macs(speaker_macs),
                Ok(Command::SetNodeAddresses(addresses)) => {
                    self.nodes = addresses;
                    self.reserve();
                }
                Ok(Command::Solicit(source, hosts)) => self.solicit(source, hosts),
                Ok(Command::Listen(mut listener)) => {
                    let interfaces = self.lock().interfaces.clone();
                    listener(&Notification::Interfaces(interfaces));
                    self.listeners.push(listener);
                }
                Ok(Command::FindAnsweredByKernel(addresses, reply)) => {
                    drop(reply.try_send(self.find_answered_by_kernel(addresses)));
                }
                // The asker may have lost its patience.
                Ok(Command::Count(reply)) => drop(reply.try_send(self.engine.counters())),
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return Next::Stop,
                Err(mpsc::TryRecvError::Empty) => return Next::Continue,
            }
            // An engine is drained after every input.
            self.drain();
        }
    }

    fn serve(&mut self, found: Found, poller: &sys::Poller, batch: &mut ReceiveBatch, busy_poll: &mut BusyPoll) {
        let mut any_broken = false;
        for (place, (&index, port)) in self.ports.iter_mut().enumerate() {
            // Ports that came since the wait are not meant by the answer, but reading them is harmless.
            let has_something = match found {
                Found::Frames => port.has_frame() == Some(true),
                Found::ByKernel => poller.is_ready(FIRST_PORT + place),
            };
            if !has_something {
                continue;
            }
            port.flush(index);
            match port.serve(index, &mut self.engine, batch) {
                Ok(answered) => answered.into_iter().for_each(|at| busy_poll.answered(at)),
                Err(error) => {
                    tracing::debug!(%error, interface = index, "interface can't be read");
                    self.broken.insert(index);
                    any_broken = true;
                }
            }
        }
        if any_broken {
            // Notification of its end are likely on their way. Should none come, it gets a new socket after a while.
            self.update_ports();
            self.schedule_retry();
        }
    }

    /// Soon at first, then less and less often.
    fn schedule_retry(&mut self) {
        let now = now();
        if self.failed_at.is_none_or(|at| now.saturating_duration_since(at) > RETRY_MAX * 2) {
            self.pause = RETRY;
        }
        self.failed_at = Some(now);
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }

    fn announce(&mut self, mut addresses: Vec<Announcement>) {
        if !self.probe_first.is_empty() {
            let wanted: BTreeSet<IpAddr> = addresses.iter().map(|announcement| announcement.ip).collect();
            // What was announced and is gone has been settled.
            self.probe_first.retain(|ip, announced| wanted.contains(ip) || !*announced);
            for Announcement { ip, stance, .. } in &mut addresses {
                if let Some(announced) = self.probe_first.get_mut(ip) {
                    *announced = true;
                    if *stance == Stance::Hold {
                        *stance = Stance::Claim;
                    }
                }
            }
        }
        self.engine.set_addresses(now(), addresses);
        self.lock().refused = self.engine.refused();
    }

    /// Leaves alone what hosts, routers and networks have for themselves.
    fn reserve(&mut self) {
        let mut foreign = self.links.foreign();
        foreign.add_gateways(&self.gateways);
        foreign.add_nodes(&self.nodes);
        self.engine.set_foreign_addresses(now(), foreign);
        self.lock().refused = self.engine.refused();
        self.drain();
    }

    fn refresh_gateways(&mut self) {
        match gateways() {
            Ok(found) => self.gateways = found,
            // It is looked again with the next news of routes or interfaces.
            Err(error) => tracing::warn!(%error, "default routes can't be listed"),
        }
    }

    fn find_answered_by_kernel(&self, addresses: Vec<IpAddr>) -> BTreeMap<IpAddr, Vec<Arc<str>>> {
        let mut inner = addresses.into_iter().filter(|ip| ip.is_ipv4() && self.links.internal_device(*ip).is_some());
        let Some(first) = inner.next() else { return BTreeMap::new() };
        let all = arp_ignore("all");
        let interfaces: Vec<Arc<str>> = self.lock().interfaces.iter().map(|it| Arc::clone(&it.name)).collect();
        let tells = |name: &Arc<str>| ArpIgnore::of(all, arp_ignore(name)) == ArpIgnore::Nothing;
        let telling: Vec<Arc<str>> = interfaces.into_iter().filter(tells).collect();
        let found = [first].into_iter().chain(inner).filter(|_| !telling.is_empty());
        found.map(|ip| (ip, telling.clone())).collect()
    }

    fn solicit(&mut self, source: IpAddr, hosts: Vec<IpAddr>) {
        for host in hosts {
            let Some(Interface { index, mac, .. }) = self.links.interface_to(source, host) else { continue };
            let question = match (source, host) {
                (IpAddr::V4(source), IpAddr::V4(host)) => Arp::request(mac, source, host),
                (IpAddr::V6(source), IpAddr::V6(host)) => ndp::solicitation(mac, source, host),
                _ => continue,
            };
            if let Some(port) = self.ports.get_mut(&index) {
                port.queue_and_flush(question, index);
            }
        }
    }

    /// Takes in what the kernel tells of devices, one change after the other: a link that is lost and comes back between two looks
    /// is announced on anew, and a device that took the number of another gets a socket of its own.
    fn handle_netlink(&mut self) {
        let mut news = Vec::new();
        match self.news.read(|change| news.push(change)) {
            Ok(Parsed::All) => {}
            Ok(Parsed::Overrun) => {
                tracing::info!("news of interfaces were lost, all are listed");
                self.list_is_stale = true;
            }
            Err(error) => {
                tracing::warn!(%error, "news of interfaces can't be read");
                self.list_is_stale = true;
            }
        }
        let (any, mut routes_changed) = (!news.is_empty(), false);
        for change in news {
            // The kernel tells no end of the routes of a device that goes down.
            routes_changed |= change == Change::DefaultRoutes;
            if self.links.apply(change) {
                routes_changed = true;
                self.update_ports();
            }
        }
        if routes_changed {
            self.refresh_gateways();
        }
        if self.list_is_stale {
            self.retry();
        } else if any {
            self.reserve();
        }
    }

    fn retry(&mut self) {
        self.retry_at = None;
        self.broken.clear();
        if self.list_is_stale {
            match routing::list() {
                Ok(changes) => {
                    self.links.replace(changes);
                    self.list_is_stale = false;
                    self.refresh_gateways();
                    self.reserve();
                }
                Err(error) => {
                    tracing::warn!(%error, "interfaces could not be listed");
                    self.schedule_retry();
                }
            }
        }
        self.update_ports();
    }

    /// Opens sockets for interfaces that appeared, closes those of interfaces that are gone.
    fn update_ports(&mut self) {
        let mut usable = Vec::new();
        let found: Vec<Interface> =
            self.links.interfaces().filter(|interface| !self.broken.contains(&interface.index)).collect();
        for interface in found {
            let shared = self.ports.values().filter(|port| port.has_frame().is_some()).count();
            if let Entry::Vacant(vacant) = self.ports.entry(interface.index) {
                let open = if shared < SHARED_MAX { Port::open } else { Port::open_queued };
                match open(interface.index) {
                    Ok(port) => {
                        vacant.insert(port);
                    }
                    Err(error) => {
                        tracing::warn!(%error, interface = &*interface.name, "interface can't be used");
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
            tracing::info!(interfaces = ?names, "interfaces changed");
            self.tell(&Notification::Interfaces(usable.clone()));
        }
        self.engine.set_interfaces(now(), usable);
        self.drain();
    }

    fn tell(&mut self, news: &Notification) {
        self.listeners.iter_mut().for_each(|listener| listener(news));
    }

    /// Does what the engine wants done.
    fn drain(&mut self) {
        while let Some(change) = self.engine.poll_group() {
            self.change_group(change);
        }
        while let Some(transmit) = self.engine.poll_transmit() {
            if let Some(port) = self.ports.get_mut(&transmit.interface) {
                port.queue_and_flush(transmit.frame, transmit.interface);
            }
        }
        for (&index, port) in &mut self.ports {
            port.flush(index);
        }
        let mut events = std::iter::from_fn(|| self.engine.poll_event()).peekable();
        if events.peek().is_some() {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.events.extend(events);
            // Nobody may be listening.
            let excess = shared.events.len().saturating_sub(EVENTS_KEPT);
            shared.events.drain(..excess);
        }
        self.acknowledge();
    }

    /// Tells what was announced, once nothing waits to be sent.
    fn acknowledge(&mut self) {
        self.announced.extend(std::iter::from_fn(|| self.engine.poll_announced()));
        if !self.announced.is_empty() && !self.ports.values().any(Port::has_frames_waiting) {
            let announced = std::mem::take(&mut self.announced);
            self.tell(&Notification::Announced(announced));
        }
    }

    /// Twice: the packet socket makes the card receive the group, the UDP socket makes the kernel report it to switches. A card
    /// that is gone forgot its groups already, and one that filters nothing needs none, so failures are no more than a hint.
    fn change_group(&self, change: GroupChange) {
        let GroupChange { interface, group, membership } = change;
        let on_card =
            self.ports.get(&interface).map(|port| port.socket.set_group(MacAddr::of_multicast(group), membership));
        let reported = sys::set_membership(&self.members, interface, group, membership == Membership::Join);
        for error in on_card.into_iter().chain([reported]).filter_map(Result::err) {
            tracing::debug!(%error, %group, interface, ?membership, "group membership unchanged");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A setting of an interface, or of all of them. What can't be read is taken for what the kernel does unless it is told otherwise.
fn arp_ignore(interface: &str) -> u8 {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Places in the poller.
const WAKE: usize = 0;
const NEWS: usize = 1;
const FIRST_PORT: usize = 2;

/// Interfaces that share memory with the kernel: 128 KiB each, and some 15 ms until the kernel has made it. Where nothing is excluded a
/// node has an interface for each of its pods.
const SHARED_MAX: usize = 4;

/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How long what fails again and again waits at most.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Events that wait for somebody to take them; older ones are dropped.
const EVENTS_KEPT: usize = 1024;
