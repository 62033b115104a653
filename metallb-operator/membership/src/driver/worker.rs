//! The loop of the membership thread.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metallb_core::model::NodeName;
use metallb_l2::io::Handle as L2;
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::SockaddrStorage;
use nix::sys::time::TimeSpec;

use super::mailbox::{Command, Mailbox};
use super::{Handle, Settings, Shared, keys, now};
use crate::engine::{Config, Event, Link, Transmit, Urgency};
use crate::member::{Member, Output};

pub(super) struct Worker {
    member: Member,
    l2: L2,
    socket: UdpSocket,
    bind: IpAddr,
    /// When to check the link of the socket again, while it is down.
    link_at: Option<Instant>,
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
    key_directory: Option<PathBuf>,
    keys_at: Instant,
    /// Other hosts with the name of a member, and when they were logged last. At most [`CLASHES_MAX`].
    clashes: BTreeMap<(NodeName, SocketAddr), Instant>,
    /// What was sent since the last wait.
    sent: Sent,
    /// Notified when the member has left the cluster.
    left: Option<mpsc::SyncSender<()>>,
}

/// The urgencies of the datagrams sent since the last wait.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    routine: bool,
    prompt: bool,
}

/// What ended a wait, other than the time.
#[derive(Clone, Copy, Debug)]
struct Ready {
    commands: bool,
    datagrams: bool,
}

/// Whether the loop continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Continue,
    Stop,
}

impl Worker {
    pub(super) fn new(
        settings: &Settings,
        config: Config,
        seed: u64,
        socket: UdpSocket,
        l2: L2,
        handle: &Handle,
    ) -> Self {
        let now = now();
        let mut worker = Self {
            member: Member::new(config, seed, now),
            l2,
            socket,
            bind: settings.bind.ip(),
            link_at: None,
            mailbox: Arc::clone(&handle.mailbox),
            shared: Arc::clone(&handle.shared),
            key_directory: settings.keys.clone(),
            keys_at: now + KEYS_INTERVAL,
            clashes: BTreeMap::new(),
            sent: Sent::default(),
            left: None,
        };
        worker.publish();
        worker
    }

    pub(super) fn run(&mut self) {
        let mut batched = false;
        loop {
            self.drain();
            self.publish();
            if self.member.has_left() {
                if let Some(left) = self.left.take() {
                    // The caller of `leave` may have given up.
                    let _ = left.try_send(());
                }
                return;
            }
            // Each ping and each pong would wake the thread. After a round of them it receives for a moment in one
            // batch, and then again one by one.
            let Sent { routine, prompt } = std::mem::take(&mut self.sent);
            let batch_until = (routine && !prompt && !batched).then(|| now() + BATCH_FOR);
            batched = batch_until.is_some();
            let Ready { commands, datagrams } = self.wait(batch_until);
            if commands && self.apply_commands() == Next::Stop {
                return;
            }
            // All received datagrams are processed before a node is suspected.
            if datagrams {
                // `objections` follows a new plan with a small delay. An offer that comes before is repeated.
                self.member.set_refused(self.l2.refused().into_keys().collect());
                self.receive();
            }
            let now = now();
            if self.link_at.is_some_and(|at| at <= now) {
                self.check_link(now);
            }
            self.member.handle_timeout(now);
            if self.keys_at <= now {
                self.keys_at = now + KEYS_INTERVAL;
                self.reload_keys();
            }
        }
    }

    /// Waits until something is due or arrives. Datagrams are left in the socket until `batch_until`.
    fn wait(&self, batch_until: Option<Instant>) -> Ready {
        let due = self.member.poll_timeout().into_iter().chain([self.keys_at]).chain(self.link_at).chain(batch_until);
        let timeout = due.min().map(|at| TimeSpec::from(at.saturating_duration_since(now())));
        let mut descriptors = [self.mailbox.as_fd(), self.socket.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let polled = if batch_until.is_some() { 1 } else { descriptors.len() };
        // A signal only shortens the wait.
        let _ = ppoll(&mut descriptors[..polled], timeout, None);
        let [commands, datagrams] = descriptors.map(|descriptor| descriptor.any().unwrap_or(true));
        Ready { commands, datagrams: datagrams || batch_until.is_some() }
    }

    /// Checks whether the interface with this node's address can send. Called when interfaces change, and regularly
    /// while it cannot.
    fn check_link(&mut self, now: Instant) {
        let link = link_of(self.bind);
        self.member.set_link(link);
        self.link_at = (link == Link::Down).then_some(now + LINK_INTERVAL);
    }

    fn apply_commands(&mut self) -> Next {
        self.mailbox.clear_wake();
        while let Some(command) = self.mailbox.take() {
            let now = now();
            match command {
                Command::Join(contacts) => self.member.join(now, contacts),
                Command::Plan(plan) => self.member.plan(now, plan),
                Command::Announced(ips) => self.handle_announced(now, &ips.into_iter().collect::<Vec<_>>()),
                Command::Usable(hardware) => {
                    self.check_link(now);
                    self.member.set_usable(now, hardware);
                }
                Command::Leave(successors, done) => {
                    self.left = Some(done);
                    self.member.leave(now, &successors);
                }
                Command::Stop => return Next::Stop,
            }
            self.drain();
        }
        Next::Continue
    }

    fn handle_announced(&mut self, now: Instant, ips: &[IpAddr]) {
        let Some(took) = self.member.handle_announced(now, ips) else { return };
        tracing::info!(event = "takeover", addresses = ips.len(), ?took, "took over addresses of a failed node");
        let mut snapshot = self.shared.lock();
        if snapshot.takeovers.len() < TAKEOVERS_MAX {
            snapshot.takeovers.push(took);
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        // Limited, so that a flood of datagrams does not delay timers.
        for _ in 0..RECEIVED_AT_ONCE {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    self.member.handle_datagram(now(), from, datagram);
                    self.drain();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The kernel reports that no process received an earlier datagram.
                Err(_) => {}
            }
        }
    }

    /// Carries out all outputs of the member.
    fn drain(&mut self) {
        while let Some(output) = self.member.poll_output() {
            match output {
                Output::Event(event) => self.handle_event(event),
                Output::Announce(changes) => self.l2.change(changes),
                Output::AnnounceAgain(ips) => self.l2.announce_again(ips),
                Output::Resolve(hosts) => self.l2.solicit(self.bind, hosts),
                Output::Transmit(transmit) => self.transmit(&transmit),
            }
        }
    }

    fn transmit(&mut self, transmit: &Transmit) {
        match transmit.urgency {
            Urgency::Routine => self.sent.routine = true,
            Urgency::Prompt => self.sent.prompt = true,
        }
        if let Err(error) = self.socket.send_to(&transmit.datagram, transmit.to) {
            tracing::debug!(event = "datagramNotSent", to = %transmit.to, %error, "cannot send a membership datagram");
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Joined | Event::LiveChanged => {
                let live: Vec<&str> = self.member.live().iter().map(NodeName::as_str).collect();
                let members = live.get(..MEMBERS_LOGGED).unwrap_or(&live);
                tracing::info!(event = "membersChanged", live = live.len(), ?members, "live members changed");
                self.publish();
                self.shared.changed.notify_one();
            }
            Event::Suspected(node) => {
                let node = node.as_str();
                tracing::info!(event = "memberSuspected", node, "member suspected, sending indirect probes");
            }
            Event::Refuted(node) => {
                tracing::info!(event = "memberRefuted", node = node.as_str(), "suspicion refuted");
            }
            Event::DeclaredDead { node, last_heard } => {
                let silent = now().saturating_duration_since(last_heard);
                tracing::warn!(event = "memberGone", node = node.as_str(), ?silent, "member declared dead");
            }
            Event::Recovered(node) => {
                tracing::info!(event = "memberBack", node = node.as_str(), "member recovered");
            }
            Event::HardwareChanged => self.l2.set_speaker_macs(self.member.hardware_of_others().into_iter().collect()),
            Event::NameClash { node, address } => {
                let clash = (node, address);
                if !self.clashes.contains_key(&clash) && self.clashes.len() < CLASHES_MAX {
                    let node = clash.0.as_str();
                    tracing::error!(
                        event = "nameClash", node, %address,
                        "ignoring a second host with this node name: both may answer for the same addresses; give each \
                         host its own --node-name"
                    );
                    self.clashes.insert(clash, now());
                }
            }
            // The member handles these itself.
            Event::Failed(_)
            | Event::Appeared(_)
            | Event::HandoverOffered { .. }
            | Event::HandoverAcknowledged(..)
            | Event::HandoverRejected(..) => {}
        }
    }

    fn publish(&mut self) {
        if !self.clashes.is_empty() {
            let now = now();
            self.clashes.retain(|_, logged| now.saturating_duration_since(*logged) < CLASH_INTERVAL);
        }
        let mut snapshot = self.shared.lock();
        snapshot.joined = self.member.has_joined();
        if snapshot.live != *self.member.live() {
            snapshot.live.clone_from(self.member.live());
        }
        snapshot.generation = self.member.generation();
        snapshot.members = self.member.members() + 1;
        snapshot.counters = self.member.counters();
        snapshot.handovers = self.member.tally();
        if !snapshot.clashes.iter().eq(self.clashes.keys()) {
            snapshot.clashes = self.clashes.keys().cloned().collect();
        }
    }

    fn reload_keys(&mut self) {
        let Some(directory) = &self.key_directory else { return };
        match keys::read(directory) {
            Ok(keys) if !keys.is_plain() => self.member.set_keys(keys),
            // A member that seals does not fall back to plain text.
            Ok(_) => {}
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(event = "membershipKeyUnreadable", %error, cause, "keeping the old membership keys");
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// The incarnation of a member that starts now: microseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the driver tells the member the time")]
pub(super) fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// Whether the interface with this address has a carrier. If that cannot be found out, the link counts as up.
fn link_of(address: IpAddr) -> Link {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Link::Up };
    let has = |storage: &SockaddrStorage| match address {
        IpAddr::V4(ip) => storage.as_sockaddr_in().is_some_and(|known| known.ip() == ip),
        IpAddr::V6(ip) => storage.as_sockaddr_in6().is_some_and(|known| known.ip() == ip),
    };
    let mut ours = interfaces.filter(|interface| interface.address.as_ref().is_some_and(has)).peekable();
    let running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    if ours.peek().is_none() || ours.any(|interface| interface.flags.contains(running)) { Link::Up } else { Link::Down }
}

/// The interval at which a link that is down is checked, should no notification arrive.
const LINK_INTERVAL: Duration = Duration::from_millis(500);

/// How long pings and pongs are left in the socket after a round of pings, so that all of them wake the thread once.
const BATCH_FOR: Duration = Duration::from_millis(1);

/// Interval of log lines about a name that two hosts have, and how long one is reported after it was seen.
const CLASH_INTERVAL: Duration = Duration::from_secs(60);

/// Limit for the names that are reported at a time; others wait until one is old.
const CLASHES_MAX: usize = 16;

/// The interval at which the keys are read again.
const KEYS_INTERVAL: Duration = Duration::from_secs(5);

/// The most datagrams that are received before timers run.
const RECEIVED_AT_ONCE: usize = 256;

/// The most takeovers that wait to be counted.
const TAKEOVERS_MAX: usize = 1024;

/// The most members that are named in a log line.
const MEMBERS_LOGGED: usize = 20;
