//! A large cluster in virtual time: the real membership engine for each member, on a network with delay and loss, on
//! hosts that need time for each datagram and whose sockets can overflow.
//!
//! One election is computed for all members, since all compute the same one. The monitored nodes follow from it as in
//! the product.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use metallb_core::election::{Electorate, SUCCESSORS};
use metallb_core::model::NodeName;
use metallb_membership::engine::{Config, Engine, Event, Timing};
use metallb_membership::wire::identity::Identity;
use metallb_membership::wire::message::{Body, Message};
use metallb_membership::wire::seal::Keyring;

use super::random::Random;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// The time in nanoseconds that a host needs for one datagram, received or sent.
const WORK: u64 = 8_000;

/// The number of small datagrams that fit into a socket: Linux' default is 208 KiB.
const SOCKET: u64 = 256;

/// The bytes that sealing would add. The simulated members send plain text.
const TAG: u64 = 16;

/// One member.
pub(crate) struct Host {
    pub(crate) engine: Option<Engine>,
    /// When it has processed all datagrams received so far.
    busy: u64,
    timer: Option<u64>,
    pub(crate) sent: Traffic,
    pub(crate) events: Tally,
}

/// The datagrams sent, by purpose; bytes are those of the UDP payload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) gossip: Load,
    pub(crate) detection: Load,
    pub(crate) join: Load,
    pub(crate) longest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
}

/// The events of a member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) suspected: u64,
    pub(crate) refuted: u64,
    pub(crate) declared_dead: u64,
    pub(crate) failed: u64,
}

enum Scheduled {
    Timer(usize),
    /// A datagram arrives at the host.
    Arrival(usize, usize, Vec<u8>),
    /// The host processes a datagram.
    Read(usize, usize, Vec<u8>),
}

pub(crate) struct Cluster {
    pub(crate) now: u64,
    base: Instant,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// The entries that the queue refers to.
    slots: Vec<Option<Scheduled>>,
    free: Vec<usize>,
    serial: u64,
    random: Random,
    pub(crate) hosts: Vec<Host>,
    names: Vec<NodeName>,
    /// Of 1,000 datagrams, how many are lost.
    pub(crate) loss: u64,
    /// Datagrams lost because a socket was full.
    pub(crate) overflows: u64,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from((((10 << 24) + u32::try_from(index).unwrap()).to_be_bytes(), 7946))
}

fn index_of(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) - (10 << 24)) as usize,
        IpAddr::V6(_) => unreachable!("the cluster is IPv4"),
    }
}

impl Cluster {
    /// A cluster of members that are not started.
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let host = |_| Host { engine: None, busy: 0, timer: None, sent: Traffic::default(), events: Tally::default() };
        Self {
            now: 0,
            base: Instant::now(),
            queue: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            serial: 0,
            random: Random(seed),
            hosts: (0..size).map(host).collect(),
            names: (0..size).map(|index| format!("worker-{index:05}.rack-{:02}", index % 40).into()).collect(),
            loss: 0,
            overflows: 0,
        }
    }

    /// Starts a member with the addresses of all others.
    pub(crate) fn start(&mut self, index: usize) {
        let mut engine = self.engine(index);
        engine.join(self.clock(), (0..self.hosts.len()).map(address));
        self.hosts[index].engine = Some(engine);
        self.drain(index);
    }

    /// Starts all members. Each takes all others for members, as it would long after joining.
    pub(crate) fn start_acquainted(&mut self) {
        let identities: Vec<Identity> = (0..self.hosts.len()).map(|index| self.identity(index)).collect();
        for index in 0..self.hosts.len() {
            let mut engine = self.engine(index);
            engine.join(self.clock(), []);
            let others = identities.iter().enumerate().filter(|&(other, _)| other != index);
            engine.assume_members(self.clock(), others.map(|(_, identity)| identity.clone()));
            self.hosts[index].engine = Some(engine);
            self.drain(index);
        }
    }

    fn identity(&self, index: usize) -> Identity {
        Identity::new(self.names[index].clone(), address(index), 1_000_000 + self.now / 1000)
    }

    fn engine(&mut self, index: usize) -> Engine {
        let me = self.identity(index);
        let session = self.random.next();
        let config = Config { me, session, keys: Keyring::default(), timing: Timing::default(), wan: false };
        Engine::new(config, self.random.next(), self.clock())
    }

    /// Elects owners of this many addresses, and lets each member monitor the nodes before it in an election. Returns
    /// for each address the owner and the next one in order.
    pub(crate) fn elect(&mut self, addresses: u32) -> Vec<(usize, usize)> {
        let alive = (0..self.hosts.len()).filter(|&index| self.hosts[index].engine.is_some());
        let electorate = Electorate::new(alive.map(|index| (self.names[index].clone(), 0)));
        let places: BTreeMap<NodeName, usize> = self.names.iter().cloned().zip(0..).collect();
        let mut monitored: Vec<BTreeSet<NodeName>> = vec![BTreeSet::new(); self.hosts.len()];
        let mut owners = Vec::new();
        for number in 0..addresses {
            let vip = IpAddr::from(((192 << 24) + number).to_be_bytes());
            let order = electorate.ranking(vip, 1 + SUCCESSORS);
            if let [owner, heir, ..] = order.as_slice() {
                owners.push((places[owner], places[heir]));
            }
            for (place, name) in order.iter().enumerate() {
                monitored[places[name]].extend(order.iter().take(place).cloned());
            }
        }
        let now = self.clock();
        for (index, monitored) in monitored.into_iter().enumerate() {
            if let Some(engine) = &mut self.hosts[index].engine {
                engine.monitor(now, monitored);
                self.drain(index);
            }
        }
        owners
    }

    /// The number of live members that a member knows, itself included.
    pub(crate) fn seen_by(&self, index: usize) -> usize {
        self.hosts[index].engine.as_ref().map_or(0, |engine| engine.live().len())
    }

    /// Whether a running member takes another one for live.
    pub(crate) fn believes(&self, index: usize, other: usize) -> bool {
        self.hosts[index].engine.as_ref().is_some_and(|engine| engine.live().contains(&self.names[other]))
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.hosts[index].engine = None;
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Resets all counters.
    pub(crate) fn reset(&mut self) {
        self.overflows = 0;
        for host in &mut self.hosts {
            host.sent = Traffic::default();
            host.events = Tally::default();
        }
    }

    pub(crate) fn run(&mut self, time: u64) {
        let end = self.now + time;
        while let Some(&Reverse((at, _, slot))) = self.queue.peek().filter(|next| next.0.0 <= end) {
            self.queue.pop();
            self.now = at;
            if let Some(what) = self.slots[slot].take() {
                self.free.push(slot);
                self.process(what);
            }
        }
        self.now = end;
    }

    fn process(&mut self, what: Scheduled) {
        match what {
            Scheduled::Timer(index) => {
                let host = &mut self.hosts[index];
                if host.timer.is_some_and(|at| at <= self.now) {
                    host.timer = None;
                }
                let now = self.base + Duration::from_nanos(self.now);
                if let Some(engine) = &mut host.engine {
                    engine.handle_timeout(now);
                    self.drain(index);
                }
            }
            Scheduled::Arrival(from, to, datagram) => {
                let host = &mut self.hosts[to];
                if host.busy > self.now + SOCKET * WORK {
                    self.overflows += 1;
                } else if host.engine.is_some() {
                    host.busy = host.busy.max(self.now) + WORK;
                    let after = host.busy - self.now;
                    self.schedule(after, Scheduled::Read(from, to, datagram));
                }
            }
            Scheduled::Read(from, to, datagram) => {
                let now = self.clock();
                if let Some(engine) = &mut self.hosts[to].engine {
                    engine.handle_datagram(now, address(from), &datagram);
                    self.drain(to);
                }
            }
        }
    }

    fn drain(&mut self, index: usize) {
        let base = self.base;
        let Some(mut engine) = self.hosts[index].engine.take() else { return };
        while let Some(event) = engine.poll_event() {
            let tally = &mut self.hosts[index].events;
            match event {
                Event::Suspected(_) => tally.suspected += 1,
                Event::Refuted(_) => tally.refuted += 1,
                Event::DeclaredDead { .. } => tally.declared_dead += 1,
                Event::Failed(_) => tally.failed += 1,
                _ => {}
            }
        }
        while let Some(transmit) = engine.poll_transmit() {
            let host = &mut self.hosts[index];
            host.busy = host.busy.max(self.now) + WORK;
            host.sent.count(&transmit.datagram);
            let departure = host.busy - self.now;
            if self.random.below(1000) >= self.loss {
                let after = departure + MS / 20 + self.random.below(MS / 4);
                self.schedule(after, Scheduled::Arrival(index, index_of(transmit.to), transmit.datagram));
            }
        }
        if let Some(due) = engine.poll_timeout() {
            let at = u64::try_from(due.saturating_duration_since(base).as_nanos()).unwrap().max(self.now);
            if self.hosts[index].timer.is_none_or(|timer| timer > at) {
                self.hosts[index].timer = Some(at);
                self.schedule(at - self.now, Scheduled::Timer(index));
            }
        }
        self.hosts[index].engine = Some(engine);
    }

    fn schedule(&mut self, after: u64, what: Scheduled) {
        self.serial += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(what);
        self.queue.push(Reverse((self.now + after, self.serial, slot)));
    }

    fn clock(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }
}

impl Traffic {
    fn count(&mut self, datagram: &[u8]) {
        let bytes = datagram.len() as u64 + TAG;
        self.longest = self.longest.max(bytes);
        let body = Keyring::default().open(datagram).ok().and_then(|opened| Body::decode(&opened.body)).unwrap();
        let load = match body.message {
            Message::Join | Message::JoinAck(_) | Message::StaleIncarnation(_) => &mut self.join,
            Message::Gossip(_) => &mut self.gossip,
            _ => &mut self.detection,
        };
        load.datagrams += 1;
        load.bytes += bytes;
    }
}
