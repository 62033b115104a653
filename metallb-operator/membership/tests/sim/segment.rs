//! A network segment in virtual time: speakers made of the real engines, neighbours with caches, and a network that can
//! fail.
//!
//! Membership with its handovers, the decisions about announcements and the responder are those of the product.
//! Sockets, clocks and the API are modelled. The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use metallb_core::announcement::{Facts, NodeView, Options, Touched};
use metallb_core::config::Config as Configuration;
use metallb_core::config::spec::{L2AdvertisementSpec, ObjectMeta, PoolSpec, Resources};
use metallb_core::election::{Electorate, LiveSpeakers};
use metallb_core::model::{Cluster, EXCLUDE_LABEL, Endpoint, Ingress, Node, NodeName, Service, ServiceKey};
use metallb_l2::engine::{Engine as L2, Received};
use metallb_l2::interface::ForeignAddresses;
use metallb_l2::interface::{AddressChange, Interface, MacAddr, Stance};
use metallb_l2::wire::ndp::Checksum;
use metallb_membership::engine::{Config, Event, Link, Timing};
use metallb_membership::member::{Member, Output};
use metallb_membership::takeover::Plan;
use metallb_membership::wire::identity::Identity;
use metallb_membership::wire::seal::Keyring;

use super::random::Random;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// One host of the segment with its speaker.
pub(crate) struct Host {
    pub(crate) speaker: Option<Speaker>,
    /// Stopped by SIGSTOP: it receives what arrives now when it is continued.
    pub(crate) stopped: bool,
    /// When it was last continued.
    woke: Option<u64>,
    backlog: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(crate) link: bool,
    /// The part of a partition that it is in.
    pub(crate) side: u8,
    /// Hosts whose frames and datagrams do not reach it.
    pub(crate) unheard: BTreeSet<usize>,
    pub(crate) excluded: bool,
    /// Addresses that its kernel has. Its speaker announces none of them.
    own: BTreeSet<IpAddr>,
    /// The speed of its clock, in thousandths.
    rate: u64,
    incarnation: u64,
    timer: Option<u64>,
    replanning: bool,
}

/// The engines of one process.
pub(crate) struct Speaker {
    pub(crate) member: Member,
    pub(crate) l2: L2,
    joined: bool,
    leaving: bool,
    /// The cluster as far as its API server has reported it: only exclude labels change.
    cluster: Cluster,
    view: NodeView,
    eligible: BTreeSet<NodeName>,
    /// When its loop has finished the step that it is in.
    busy_until: u64,
    pub(crate) holds: BTreeSet<IpAddr>,
    /// Addresses that are held and not announced yet, and since when.
    unannounced: BTreeMap<IpAddr, u64>,
    /// Addresses that were given up and that the new owner has acknowledged.
    revoked: BTreeSet<IpAddr>,
}

enum Scheduled {
    Timer(usize),
    Datagram(usize, usize, Vec<u8>),
    Frame(usize, Vec<u8>),
    Replan(usize),
    /// A plan that was computed some time ago arrives.
    Plan(usize, u64, Plan),
    Label(usize, usize),
    Ask,
}

/// The current faults of the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) delay: u64,
    /// API servers are away: they report labels when they are back.
    pub(crate) api_away: bool,
    /// How long the loop of a speaker may need for a step: a plan arrives that much later than it was computed.
    pub(crate) busy: u64,
}

/// What is expected of a neighbour that was cut off when an address moved, or that a continued host has misled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Away {
    /// It may have an old cache entry until the announcement is repeated.
    Excused,
    /// It has received the repeated announcement.
    Reached,
}

pub(crate) struct World {
    pub(crate) now: u64,
    base: Instant,
    queue: BTreeMap<(u64, u64), Scheduled>,
    serial: u64,
    pub(crate) random: Random,
    pub(crate) hosts: Vec<Host>,
    pub(crate) vips: Vec<IpAddr>,
    /// One pool that is announced on one interface.
    config: Configuration,
    pub(crate) weather: Weather,
    /// Draws how long loops are busy, so that all else is the same as where they are not.
    busy: Random,
    /// The cache of a neighbour on each side.
    pub(crate) caches: [BTreeMap<IpAddr, MacAddr>; 2],
    /// The addresses whose announcement each neighbour missed while it was cut off, or that a continued host announced.
    missed: [BTreeSet<IpAddr>; 2],
    pub(crate) violations: Vec<String>,
    waiting_labels: Vec<(usize, usize)>,
    /// The log of the run, printed when one seed is replayed.
    pub(crate) log: Vec<String>,
    events: Vec<Event>,
}

pub(crate) fn node(index: usize) -> NodeName {
    format!("n{index}").into()
}

fn index_of(node: &NodeName) -> Option<usize> {
    node.as_str().strip_prefix('n')?.parse().ok()
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 7946))
}

pub(crate) fn mac(index: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, (index >> 8) as u8, index as u8])
}

/// Neighbours are numbered from here.
const NEIGHBOUR: usize = 60_000;

impl Speaker {
    fn set_interfaces(&mut self, now: Instant, index: usize, up: bool) {
        let interfaces: Vec<Interface> = up.then(|| interfaces(index)).into_iter().flatten().collect();
        self.member.set_link(if up { Link::Up } else { Link::Down });
        self.member.set_usable(now, interfaces.iter().map(|interface| interface.mac));
        self.l2.set_interfaces(now, interfaces);
    }

    fn set_foreign_addresses(&mut self, now: Instant, own: &BTreeSet<IpAddr>) {
        self.l2.set_foreign_addresses(now, reserved(own));
        self.member.set_refused(self.l2.refused().into_keys().collect());
    }
}

impl World {
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let mut random = Random(seed);
        let vips = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00::1", "fd00::2"].map(|ip| ip.parse().unwrap()).to_vec();
        let skewed = random.chance(20);
        let mut hosts = Vec::new();
        for _ in 0..size {
            hosts.push(Host {
                speaker: None,
                stopped: false,
                woke: None,
                backlog: VecDeque::new(),
                link: true,
                side: 0,
                unheard: BTreeSet::new(),
                excluded: false,
                own: BTreeSet::new(),
                rate: if skewed { 950 + random.below(100) } else { 1000 },
                // Wall clocks differ by up to an hour. Each process runs for more than a second.
                incarnation: 10_000_000_000 + random.below(3_600_000_000),
                timer: None,
                replanning: false,
            });
        }
        let mut world = Self {
            now: 0,
            base: Instant::now(),
            queue: BTreeMap::new(),
            serial: 0,
            random,
            hosts,
            config: configuration(),
            vips,
            weather: Weather::default(),
            busy: Random(seed ^ 0x6275_7379),
            caches: Default::default(),
            missed: Default::default(),
            violations: Vec::new(),
            waiting_labels: Vec::new(),
            log: Vec::new(),
            events: Vec::new(),
        };
        world.schedule(SECOND, Scheduled::Ask);
        world
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.log.push(format!("{:>10.3} ms  {text}", self.now as f64 / MS as f64));
    }

    /// The number of events for which `wanted` holds.
    pub(crate) fn count_events(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    fn schedule(&mut self, after: u64, what: Scheduled) {
        self.serial += 1;
        self.queue.insert((self.now + after, self.serial), what);
    }

    /// The time on a host's own clock.
    fn clock(&self, index: usize) -> Instant {
        self.base + Duration::from_nanos(self.now / 1000 * self.hosts[index].rate)
    }

    /// Starts a speaker with a new incarnation.
    pub(crate) fn start(&mut self, index: usize) {
        let session = self.random.next();
        let seed = self.random.next();
        let now = self.clock(index);
        let size = self.hosts.len();
        let nodes = self.hosts.iter().enumerate().map(|(place, host)| labelled(place, host.excluded));
        let cluster = cluster(nodes, &self.vips);
        let host = &mut self.hosts[index];
        host.incarnation += 1_000_000;
        host.stopped = false;
        host.backlog.clear();
        let me = Identity::new(node(index), address(index), host.incarnation);
        let config = Config { me, session, keys: Keyring::default(), timing: Timing::default(), wan: false };
        let mut member = Member::new(config, seed, now);
        member.join(now, (0..size).map(address));
        let mut speaker = Speaker {
            member,
            l2: L2::new(metallb_l2::engine::Config::default(), seed, now),
            joined: false,
            leaving: false,
            cluster,
            view: NodeView::new(node(index), Options::default()),
            eligible: BTreeSet::new(),
            busy_until: 0,
            holds: BTreeSet::new(),
            unannounced: BTreeMap::new(),
            revoked: BTreeSet::new(),
        };
        speaker.set_interfaces(now, index, host.link);
        speaker.set_foreign_addresses(now, &host.own);
        host.speaker = Some(speaker);
        self.drain(index);
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.hosts[index].speaker = None;
    }

    pub(crate) fn set_link(&mut self, index: usize, up: bool) {
        let now = self.clock(index);
        let host = &mut self.hosts[index];
        host.link = up;
        if let Some(speaker) = &mut host.speaker {
            speaker.set_interfaces(now, index, up);
            self.drain(index);
        }
    }

    /// Makes its link unidirectional: it sends and does not receive.
    pub(crate) fn block_receiving(&mut self, index: usize) {
        self.hosts[index].unheard = (0..self.hosts.len()).chain([NEIGHBOUR, NEIGHBOUR + 1]).collect();
    }

    /// Replaces the addresses of Services that its kernel has.
    pub(crate) fn set_own(&mut self, index: usize, own: BTreeSet<IpAddr>) {
        let now = self.clock(index);
        let host = &mut self.hosts[index];
        host.own = own;
        if let Some(speaker) = &mut host.speaker {
            speaker.set_foreign_addresses(now, &host.own);
            self.drain(index);
        }
    }

    pub(crate) fn resume(&mut self, index: usize) {
        self.hosts[index].stopped = false;
        self.hosts[index].woke = Some(self.now);
        let backlog = std::mem::take(&mut self.hosts[index].backlog);
        let now = self.clock(index);
        if let Some(speaker) = &mut self.hosts[index].speaker {
            for (from, datagram) in backlog {
                speaker.member.handle_datagram(now, from, &datagram);
            }
            self.drain(index);
        }
    }

    /// Sets or removes the exclude label of a node. Each speaker's API server reports it with a delay of its own.
    pub(crate) fn set_excluded(&mut self, index: usize, excluded: bool) {
        self.hosts[index].excluded = excluded;
        for to in 0..self.hosts.len() {
            if self.weather.api_away {
                self.waiting_labels.push((to, index));
            } else {
                let after = self.random.below(20 * MS);
                self.schedule(after, Scheduled::Label(to, index));
            }
        }
    }

    pub(crate) fn api_returns(&mut self) {
        self.weather.api_away = false;
        for (to, index) in std::mem::take(&mut self.waiting_labels) {
            let after = self.random.below(100 * MS);
            self.schedule(after, Scheduled::Label(to, index));
        }
    }

    /// SIGTERM: the speaker hands its addresses over, then ends.
    pub(crate) fn terminate(&mut self, index: usize) {
        let now = self.clock(index);
        let Some(speaker) = self.hosts[index].speaker.as_mut().filter(|speaker| !speaker.leaving) else { return };
        speaker.leaving = true;
        let successors = speaker.view.hand_over(&speaker.cluster.nodes);
        speaker.member.leave(now, &successors);
        speaker.holds.clear();
        self.drain(index);
    }

    pub(crate) fn run(&mut self, time: u64) {
        let end = self.now + time;
        while let Some((&key, _)) = self.queue.first_key_value()
            && key.0 <= end
            && let Some(what) = self.queue.remove(&key)
        {
            self.now = key.0;
            self.process(what);
        }
        self.now = end;
    }

    fn process(&mut self, what: Scheduled) {
        match what {
            Scheduled::Timer(index) => {
                self.hosts[index].timer = None;
                let now = self.clock(index);
                let host = &mut self.hosts[index];
                if let Some(speaker) = host.speaker.as_mut().filter(|_| !host.stopped) {
                    speaker.member.handle_timeout(now);
                    speaker.l2.handle_timeout(now);
                    self.drain(index);
                }
            }
            Scheduled::Datagram(from, to, datagram) => {
                let now = self.clock(to);
                let host = &mut self.hosts[to];
                if host.stopped {
                    // The capacity of a socket.
                    if host.backlog.len() < 200 {
                        host.backlog.push_back((address(from), datagram));
                    }
                } else if let Some(speaker) = &mut host.speaker {
                    speaker.member.handle_datagram(now, address(from), &datagram);
                    self.drain(to);
                }
            }
            Scheduled::Frame(from, frame) => self.frame(from, &frame),
            Scheduled::Replan(index) => {
                self.hosts[index].replanning = false;
                self.replan(index);
            }
            Scheduled::Plan(index, incarnation, plan) => {
                if self.hosts[index].incarnation == incarnation {
                    self.plan(index, plan);
                }
            }
            Scheduled::Label(to, index) => {
                // A watch may skip states, but not the last one.
                let excluded = self.hosts[index].excluded;
                if let Some(speaker) = &mut self.hosts[to].speaker {
                    speaker.cluster.nodes.insert(node(index), labelled(index, excluded));
                    self.replan_soon(to);
                }
            }
            Scheduled::Ask => {
                // A neighbour repeats its request until it is answered.
                for side in 0..2_usize {
                    let source = mac(NEIGHBOUR + side);
                    for vip in self.vips.clone() {
                        if !self.caches[side].contains_key(&vip) {
                            let frame = request(source, vip);
                            self.schedule(MS / 10, Scheduled::Frame(NEIGHBOUR + side, frame));
                        }
                    }
                }
                self.schedule(SECOND / 2, Scheduled::Ask);
            }
        }
    }

    /// Has a speaker take the next step soon.
    pub(crate) fn replan_soon(&mut self, index: usize) {
        if !std::mem::replace(&mut self.hosts[index].replanning, true) {
            let after = self.random.below(3 * MS);
            self.schedule(after, Scheduled::Replan(index));
        }
    }

    /// Brings a speaker in step with its members and its API server, as the announcer does.
    fn replan(&mut self, index: usize) {
        let time = self.now;
        let Some(speaker) = self.hosts[index].speaker.as_mut().filter(|speaker| !speaker.leaving && speaker.joined)
        else {
            return;
        };
        if speaker.busy_until > time {
            // The loop takes the next step when it has finished this one.
            let after = speaker.busy_until - time;
            self.hosts[index].replanning = true;
            return self.schedule(after, Scheduled::Replan(index));
        }
        let live = LiveSpeakers::Only(speaker.member.live().clone());
        let generation = speaker.member.generation();
        let interfaces = BTreeSet::from(["eth0".into(), "eth1".into()]);
        let facts =
            Facts { config: &self.config, cluster: &speaker.cluster, live: Some(&live), interfaces: &interfaces };
        let addresses = speaker.view.apply(facts, Touched::Everything).addresses;
        let labels = &speaker.cluster.nodes;
        let allowed = |name: &&NodeName| labels.get(*name).is_some_and(|node| !node.is_excluded());
        let eligible: BTreeSet<NodeName> = speaker.member.live().iter().filter(allowed).cloned().collect();
        let (before, after) = (electorate(&speaker.eligible), electorate(&eligible));
        for &vip in &self.vips {
            // I24: an address moves only away from a node that left or to a node that joined.
            if let (Some(old), Some(new)) = (before.owner(vip), after.owner(vip))
                && old != new
                && eligible.contains(old)
                && speaker.eligible.contains(new)
            {
                self.violations.push(format!("I24: {vip} moved from {old} to {new} although neither left nor joined"));
            }
        }
        speaker.eligible = eligible;
        let first = Plan { addresses, generation, ..Plan::default() };
        let ranked = speaker.view.monitor();
        let (addresses, monitor) = (ranked.addresses, ranked.monitor);
        let second = Plan { addresses, generation, monitor, ranked: Some(generation) };
        if self.weather.busy == 0 {
            self.plan(index, first);
            return self.plan(index, second);
        }
        let (until_first, until_second) = (self.busy.below(self.weather.busy), self.busy.below(self.weather.busy));
        speaker.busy_until = time + until_first + until_second;
        let incarnation = self.hosts[index].incarnation;
        self.schedule(until_first, Scheduled::Plan(index, incarnation, first));
        self.schedule(until_first + until_second, Scheduled::Plan(index, incarnation, second));
    }

    fn plan(&mut self, index: usize, plan: Plan) {
        let now = self.clock(index);
        if let Some(speaker) = self.hosts[index].speaker.as_mut().filter(|speaker| !speaker.leaving) {
            speaker.member.plan(now, plan);
            self.drain(index);
        }
    }

    /// Carries out the outputs of a speaker's engines and sets its timer.
    fn drain(&mut self, index: usize) {
        let now = self.clock(index);
        let Some(mut speaker) = self.hosts[index].speaker.take() else { return };
        loop {
            let mut quiet = true;
            // Frames are sent before datagrams: the ack of a handover follows the announcement.
            let mut transmits = Vec::new();
            while let Some(output) = speaker.member.poll_output() {
                quiet = false;
                match output {
                    Output::Event(event) => self.handle_event(index, &mut speaker, event),
                    Output::Announce(changes) => self.announce(index, &mut speaker, changes),
                    Output::AnnounceAgain(ips) => speaker.l2.announce_again(now, ips),
                    Output::Transmit(transmit) => transmits.push(transmit),
                    // In this model hosts know each other's hardware addresses.
                    Output::Resolve(_) => {}
                    other => unreachable!("{other:?}"),
                }
            }
            while speaker.l2.poll_group().is_some() {}
            while let Some(transmit) = speaker.l2.poll_transmit() {
                quiet = false;
                self.send_frame(index, &mut speaker, transmit.interface, transmit.frame.as_bytes());
            }
            let announced: Vec<IpAddr> = std::iter::from_fn(|| speaker.l2.poll_announced()).collect();
            if !announced.is_empty() {
                quiet = false;
                speaker.member.handle_announced(now, &announced);
            }
            for transmit in transmits {
                self.send_datagram(index, transmit.to, transmit.datagram);
            }
            if quiet {
                break;
            }
        }
        if self.hosts[index].link
            && let Some((vip, since)) = speaker
                .unannounced
                .iter()
                .find(|(vip, since)| self.now > **since + 20 * MS && !self.hosts[index].own.contains(vip))
        {
            self.violations.push(format!("I21: n{index} holds {vip} since {since} and has not announced it"));
        }
        if speaker.member.has_left() {
            return;
        }
        let due = [speaker.member.poll_timeout(), speaker.l2.poll_timeout()];
        if let Some(due) = due.into_iter().flatten().min() {
            let nanos = u64::try_from(due.saturating_duration_since(self.base).as_nanos()).unwrap();
            let at = (nanos.div_ceil(self.hosts[index].rate) * 1000).max(self.now);
            // An earlier timer does nothing and sets this one.
            if self.hosts[index].timer.is_none_or(|timer| timer > at) {
                self.hosts[index].timer = Some(at);
                self.schedule(at - self.now, Scheduled::Timer(index));
            }
        }
        self.hosts[index].speaker = Some(speaker);
    }

    fn handle_event(&mut self, index: usize, speaker: &mut Speaker, event: Event) {
        match &event {
            Event::Joined => {
                speaker.joined = true;
                self.replan_soon(index);
            }
            Event::LiveChanged => self.replan_soon(index),
            Event::HandoverAcknowledged(_, ips) => {
                speaker.revoked.extend(ips.iter().filter(|ip| !speaker.holds.contains(ip)));
            }
            Event::HardwareChanged => speaker.l2.set_speaker_macs(speaker.member.hardware_of_others()),
            _ => {}
        }
        self.note(&format!("n{index} {event:?}"));
        self.events.push(event);
    }

    fn announce(&mut self, index: usize, speaker: &mut Speaker, changes: Vec<AddressChange>) {
        let present = speaker.eligible.intersection(speaker.member.live()).cloned().collect();
        for change in &changes {
            let ip = change.ip();
            if matches!(change, AddressChange::Announce(announcement) if announcement.stance == Stance::Hold) {
                // Of the nodes that were live at the last step and still are, it is the first one.
                if electorate(&present).owner(ip) != Some(&node(index)) && speaker.busy_until == 0 {
                    self.violations.push(format!("n{index} announces {ip}, which is not its own"));
                }
                if speaker.holds.insert(ip) {
                    speaker.unannounced.insert(ip, self.now);
                }
            } else {
                speaker.holds.remove(&ip);
                speaker.unannounced.remove(&ip);
            }
            if matches!(change, AddressChange::Announce(_)) {
                speaker.revoked.remove(&ip);
            }
        }
        speaker.l2.change_addresses(self.clock(index), changes);
        speaker.member.set_refused(speaker.l2.refused().into_keys().collect());
    }

    fn send_datagram(&mut self, from: usize, to: SocketAddr, datagram: Vec<u8>) {
        let Some(to) = (0..self.hosts.len()).find(|&index| address(index) == to) else { return };
        if self.reaches(from, to) && !self.random.chance(self.weather.loss) {
            let after = self.latency();
            self.schedule(after, Scheduled::Datagram(from, to, datagram));
        }
    }

    fn latency(&mut self) -> u64 {
        MS / 10 + self.random.below(MS / 2) + self.random.below(self.weather.delay.max(1))
    }

    /// Whether frames and datagrams of one host reach another one or a neighbour.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        let side = |index: usize| match self.hosts.get(index) {
            Some(host) => host.link.then_some(host.side),
            None => Some((index - NEIGHBOUR) as u8),
        };
        let unheard = self.hosts.get(to).is_some_and(|host| host.unheard.contains(&from));
        side(from).is_some() && side(from) == side(to) && !unheard
    }

    fn send_frame(&mut self, index: usize, speaker: &mut Speaker, interface: u32, bytes: &[u8]) {
        if interface != 1 {
            self.violations.push(format!("I20: n{index} sent on an interface that no advertisement names"));
        }
        if let Some(ip) = subject(bytes) {
            speaker.unannounced.remove(&ip);
            if speaker.revoked.contains(&ip) {
                self.violations.push(format!("I19: n{index} sent for {ip} after the new owner acknowledged it"));
            }
        }
        if !self.random.chance(self.weather.loss) {
            let after = MS / 20 + self.random.below(MS / 10);
            self.schedule(after, Scheduled::Frame(index, bytes.to_vec()));
        }
    }

    /// Delivers a frame to all hosts and neighbours that it reaches.
    fn frame(&mut self, from: usize, bytes: &[u8]) {
        let destination = MacAddr(bytes[..6].try_into().unwrap());
        for side in 0..2_usize {
            let neighbour = NEIGHBOUR + side;
            if let Some((ip, at)) = claim(bytes).filter(|_| destination.is_multicast())
                && !self.reaches(from, neighbour)
                && self.caches[side].get(&ip).is_some_and(|&known| known != at)
            {
                self.missed[side].insert(ip);
            }
            if from != neighbour
                && self.reaches(from, neighbour)
                && (destination.is_multicast() || destination == mac(neighbour))
                && let Some((ip, at)) = claim(bytes)
                // A gratuitous frame updates an entry, a reply creates one.
                && (destination == mac(neighbour) || self.caches[side].contains_key(&ip))
            {
                self.caches[side].insert(ip, at);
                self.missed[side].remove(&ip);
                // A continued host may announce before it receives anything, and then die.
                let woke = self.hosts.get(from).and_then(|host| host.woke);
                if woke.is_some_and(|at| self.now < at + 100 * MS) {
                    self.missed[side].insert(ip);
                }
            }
        }
        for to in 0..self.hosts.len() {
            if from == to || !self.reaches(from, to) || !(destination.is_multicast() || destination == mac(to)) {
                continue;
            }
            let now = self.clock(to);
            let host = &mut self.hosts[to];
            let Some(mut speaker) = host.speaker.take_if(|_| !host.stopped) else { continue };
            let received = Received { interface: 1, bytes, checksum: Checksum::Present };
            let answer = speaker.l2.handle_frame(now, &received);
            if let Ok(answer) = answer {
                if claim(bytes).is_some() && from < NEIGHBOUR {
                    self.violations.push(format!("S44: n{to} answered a speaker's announcement"));
                }
                self.send_frame(to, &mut speaker, 1, answer.as_bytes());
            }
            self.hosts[to].speaker = Some(speaker);
        }
    }

    /// The hosts that answer for an address.
    pub(crate) fn answerers(&self, vip: IpAddr) -> Vec<usize> {
        let answers = |host: &Host| {
            host.link && !host.stopped && host.speaker.as_ref().is_some_and(|speaker| speaker.l2.announces(vip))
        };
        (0..self.hosts.len()).filter(|&index| answers(&self.hosts[index])).collect()
    }

    /// Whether a neighbour missed an announcement and may have an old cache entry.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed.iter().any(|missed| !missed.is_empty())
    }

    /// Checks what must hold after a while without faults.
    pub(crate) fn check_quiet(&mut self, when: &str, away: Away) {
        for side in 0..2_u8 {
            let here: Vec<usize> = (0..self.hosts.len())
                .filter(|&index| {
                    let host = &self.hosts[index];
                    host.link && host.side == side && !host.stopped && host.speaker.is_some()
                })
                .collect();
            let eligible: Vec<usize> = here.iter().copied().filter(|&index| !self.hosts[index].excluded).collect();
            let expected = Electorate::new(eligible.iter().map(|&index| (node(index), 0)));
            for vip in self.vips.clone() {
                let answering: Vec<usize> =
                    self.answerers(vip).into_iter().filter(|index| here.contains(index)).collect();
                // If the elected node has the address itself, no other node answers.
                let owner =
                    expected.owner(vip).and_then(index_of).filter(|&index| !self.hosts[index].own.contains(&vip));
                // Exactly the elected node answers.
                if answering != owner.into_iter().collect::<Vec<_>>() {
                    self.violations.push(format!(
                        "I16 to I18, I23 {when}: {answering:?} answer for {vip} on side {side}, not {owner:?} of {here:?}"
                    ));
                }
                // I22: the neighbours' caches agree.
                let missed = self.missed[usize::from(side)].contains(&vip) && away == Away::Excused;
                if let (Some(owner), Some(&at)) = (owner, self.caches[usize::from(side)].get(&vip))
                    && at != mac(owner)
                    && !missed
                {
                    self.violations
                        .push(format!("I22 {when}: the neighbour on side {side} has {vip} at {at}, not at n{owner}"));
                }
            }
        }
    }
}

/// One pool with all addresses, announced on `eth0` only.
fn configuration() -> Configuration {
    let meta = |name: &str| ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() };
    let pool = PoolSpec {
        meta: meta("all"),
        addresses: vec!["10.1.0.0/24".to_owned(), "fd00::/64".to_owned()],
        auto_assign: true,
        avoid_buggy_ips: false,
        service_allocation: None,
    };
    let interfaces = vec!["eth0".to_owned()];
    let advertisement = L2AdvertisementSpec { meta: meta("all"), interfaces, ..L2AdvertisementSpec::default() };
    let resources = Resources { pools: vec![pool], l2_advertisements: vec![advertisement], ..Resources::default() };
    Configuration::parse(&resources, &Cluster::default()).config
}

/// These nodes, and a Service with an endpoint for each address.
fn cluster(nodes: impl Iterator<Item = Node>, vips: &[IpAddr]) -> Cluster {
    let mut cluster = Cluster { nodes: nodes.map(|node| (node.name.clone(), node)).collect(), ..Cluster::default() };
    for vip in vips {
        let mut service = Service::load_balancer(ServiceKey::new("default", &vip.to_string()));
        service.ingress = vec![Ingress { ip: Some(vip.to_string()), hostname: None }];
        cluster.endpoints.insert(service.key.clone(), vec![Endpoint::default()]);
        cluster.services.insert(service.key.clone(), service);
    }
    cluster
}

fn labelled(index: usize, excluded: bool) -> Node {
    let mut labelled = Node::new(node(index).as_str());
    if excluded {
        labelled.labels.insert(EXCLUDE_LABEL.to_owned(), String::new());
    }
    labelled
}

fn electorate(nodes: &BTreeSet<NodeName>) -> Electorate {
    Electorate::new(nodes.iter().map(|name| (name.clone(), 0)))
}

/// One interface that advertisements name, and one that they do not.
fn interfaces(index: usize) -> [Interface; 2] {
    let interface = |number: u32, name: &str| {
        Interface::new(number, name, mac(index), Some(format!("fe80::{:x}", index + 1).parse().unwrap()))
    };
    [interface(1, "eth0"), interface(2, "eth1")]
}

/// The addresses of a kernel are on the interface that advertisements name.
fn reserved(own: &BTreeSet<IpAddr>) -> ForeignAddresses {
    let mut reserved = ForeignAddresses::new();
    own.iter().for_each(|&ip| reserved.add_interface_address(&"eth0".into(), ip, 32));
    reserved
}

/// An ARP request or neighbour solicitation.
fn request(source: MacAddr, vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V6(vip) => {
            metallb_l2::wire::ndp::solicitation(source, "fe80::ffff".parse().unwrap(), vip).as_bytes().to_vec()
        }
        IpAddr::V4(vip) => {
            let mut frame = [MacAddr::BROADCAST.0, source.0].concat();
            frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
            frame.extend(source.0);
            frame.extend([10, 1, 0, 200, 0, 0, 0, 0, 0, 0]);
            frame.extend(vip.octets());
            frame.resize(60, 0);
            frame
        }
    }
}

/// The address that a frame claims.
fn subject(bytes: &[u8]) -> Option<IpAddr> {
    claim(bytes).map(|(ip, _)| ip)
}

/// The address that a frame claims, and the hardware address that it gives.
fn claim(bytes: &[u8]) -> Option<(IpAddr, MacAddr)> {
    match bytes.get(12..14)? {
        [0x08, 0x06] => {
            let (mac, ip): ([u8; 6], [u8; 4]) =
                (bytes.get(22..28)?.try_into().ok()?, bytes.get(28..32)?.try_into().ok()?);
            // Requests of the neighbours claim nothing.
            (ip[3] != 200).then_some((IpAddr::from(ip), MacAddr(mac)))
        }
        [0x86, 0xdd] if bytes.get(54) == Some(&136) => {
            let (ip, mac): ([u8; 16], [u8; 6]) =
                (bytes.get(62..78)?.try_into().ok()?, bytes.get(80..86)?.try_into().ok()?);
            Some((IpAddr::from(ip), MacAddr(mac)))
        }
        _ => None,
    }
}
