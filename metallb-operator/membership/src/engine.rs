//! The membership engine.

mod hardware;
mod join;
mod link;
mod receive;
mod resolve;
mod ring;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification, PeriodicParams, Timer};
use metallb_core::model::NodeName;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use self::hardware::OwnHardware;
use self::join::Greetings;
pub use self::link::Link;
use self::link::Return;
use self::resolve::Seeking;
pub use crate::failure_detector::Timing;
use crate::failure_detector::{Action, Watch};
use crate::hosts::{Early, Peers, Waiting};
use crate::wire::codec::GossipCodec;
use crate::wire::identity::Identity;
use crate::wire::message::{Body, GOSSIP_MAX, Message, Standing};
use crate::wire::seal::Keyring;

/// What an engine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who we are. `life` must be higher than that of any earlier life of this node.
    pub me: Identity,
    /// A number that no other life of any node has: drawn from the system's random source.
    pub session: u64,
    /// Keys of the cluster.
    pub keys: Keyring,
    /// How patient watching is.
    pub timing: Timing,
    /// Gossip for long distances: slower.
    pub wan: bool,
}

/// Finds out who lives.
///
/// `join`, `watch`, `set_standing`, `send`, `handle_datagram` and `handle_timeout` put facts in; `poll_transmit`, `poll_event`
/// and `poll_sought` take results out, to be drained after every input; `poll_timeout` says when to call again.
pub struct Engine {
    config: Config,
    sequence: u64,
    standing: Standing,
    link: Link,
    /// We are about to be able to announce again.
    returning: Option<Return>,
    hardware: OwnHardware,
    foca: Foca<Identity, GossipCodec, SmallRng, NoCustomBroadcast>,
    codec: GossipCodec,
    runtime: AccumulatingRuntime<Identity>,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    timer_serial: u64,
    /// For which size of the cluster gossip is tuned.
    tuned_for: u32,
    peers: Peers,
    waiting: Waiting,
    early: Early,
    watch: Watch,
    inquiries: Vec<Inquiry>,
    greetings: Greetings,
    seeking: Seeking,
    entry: Entry,
    /// Whose addresses we would inherit.
    interests: BTreeSet<NodeName>,
    /// From when on we believe again that we are held for dead.
    undead_at: Instant,
    live: BTreeSet<NodeName>,
    /// Who ended without a word and has not been seen alive since.
    lost: BTreeSet<NodeName>,
    /// Who is not alive and talks.
    talkers: BTreeMap<NodeName, Talker>,
    /// When anybody was heard last.
    heard_at: Instant,
    /// Whether `live` may have changed.
    stale: bool,
    /// When it was made up last.
    settled_at: Instant,
    outgoing: VecDeque<Transmit>,
    /// What was sent since it was asked for last.
    said: Said,
    events: VecDeque<Event>,
    counters: Counters,
}

/// What was sent, as far as it matters for how soon to listen again.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// Pings and answers to pings.
    signs: bool,
    /// Anything else.
    words: bool,
}

/// A datagram to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub datagram: Vec<u8>,
}

/// Something worth telling.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It is known who is there, as far as anybody answered: from now on the picture can be acted on.
    Joined,
    /// The set of live speakers is another one now.
    LiveChanged,
    /// A watched node does not answer; others are asked.
    Suspected(NodeName),
    /// It answered after all.
    Refuted(NodeName),
    /// Another member does not hear it either: it counts as dead.
    Gone {
        /// Which.
        node: NodeName,
        /// When it was heard last.
        heard: Instant,
    },
    /// It was gone and is back.
    Back(NodeName),
    /// A member ended without a word: what it did last is not known. Told again, ever more seldom, while it
    /// talks and hears nobody.
    Lost(NodeName),
    /// A member came, came back, or began a new life, and did not leave before: what it did is not known.
    Met(NodeName),
    /// Two hosts use the same node name; the second one is not believed.
    NameClash {
        /// The name.
        node: NodeName,
        /// The address of the second host.
        address: SocketAddr,
    },
    /// Members answer with other hardware addresses now, see [`Engine::hardware_of_others`].
    HardwareChanged,
    /// Another member gives up addresses for us.
    Yielding {
        /// Which member.
        from: NodeName,
        /// Which addresses.
        ips: Vec<IpAddr>,
        /// It announced none of them after that.
        since: Instant,
    },
    /// Another member announced addresses that we give up.
    Taken(NodeName, Vec<IpAddr>),
    /// Another member does not announce addresses that we give up for it.
    Refused(NodeName, Vec<IpAddr>),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Datagrams handed out.
    pub sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Datagrams that were believed.
    pub received: u64,
    /// Datagrams that were not sealed by a key of ours, or malformed.
    pub refused: Refused,
    /// Datagrams for another life of ours, or of a session that is not known; they are answered by a greeting.
    pub strangers: u64,
    /// Datagrams that came a second time.
    pub repeated: u64,
    /// Suspicions raised.
    pub suspected: u64,
    /// Suspicions that the node refuted.
    pub refuted: u64,
    /// Suspicions that others confirmed.
    pub gone: u64,
}

/// Datagrams that were not looked at any further.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Refused {
    /// They make no sense, or claim what their sender may not.
    pub malformed: u64,
    /// They are plain text where sealed ones are expected, or the other way round.
    pub sealed_otherwise: u64,
    /// Sealed with a key that we do not have.
    pub unknown_key: u64,
    /// Not sealed with the key that they name, or changed on their way.
    pub forged: u64,
}

/// Somebody wants to know whether we hear a node.
#[derive(Debug)]
struct Inquiry {
    about: NodeName,
    asker: SocketAddr,
    token: u32,
    /// When the second ping goes out.
    again: Option<Instant>,
    until: Instant,
}

/// A member that is not alive and talks.
#[derive(Debug)]
struct Talker {
    since: Instant,
    /// When that is told next, and how long after the time before.
    next: Instant,
    period: Duration,
}

impl Talker {
    /// When it is told next that it may claim what is ours, as long as it does so all the time.
    fn claims_at(&self) -> Option<Instant> {
        (self.next < self.since + CLAIMS).then_some(self.next)
    }

    fn advance(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= CLAIMS {
            self.period = (self.period * 2).min(TALK_PERIOD_MAX);
        }
        self.next = now + self.period;
    }
}

/// How far joining is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Entry {
    /// Nobody asked for it yet.
    Outside,
    /// Somebody may answer until then.
    Entering(Instant),
    Inside,
}

impl Engine {
    /// Alone, and silent until [`join`](Self::join).
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        let codec = GossipCodec::default();
        let foca = Foca::new(config.me.clone(), tuning(FIRST_TUNING, config.wan), rng, codec.clone());
        Self {
            sequence: 0,
            standing: Standing::Able,
            link: Link::Up,
            returning: None,
            hardware: OwnHardware::default(),
            foca,
            codec,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timer_serial: 0,
            tuned_for: FIRST_TUNING,
            peers: Peers::default(),
            waiting: Waiting::default(),
            early: Early::default(),
            watch: Watch::new(config.me.node().clone(), config.timing),
            inquiries: Vec::new(),
            greetings: Greetings::new(now),
            seeking: Seeking::new(now),
            entry: Entry::Outside,
            interests: BTreeSet::new(),
            undead_at: now,
            live: BTreeSet::from([config.me.node().clone()]),
            lost: BTreeSet::new(),
            talkers: BTreeMap::new(),
            heard_at: now,
            stale: false,
            settled_at: now,
            outgoing: VecDeque::new(),
            said: Said::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// Replaces the keys; the first one seals from now on.
    pub fn set_keys(&mut self, keys: Keyring) {
        self.config.keys = keys;
    }

    /// Replaces the nodes whose death we want to know at once: those whose addresses we would inherit. Among few members they are
    /// watched directly; among many everybody watches some, and tells all.
    pub fn watch(&mut self, now: Instant, nodes: impl IntoIterator<Item = NodeName>) {
        let me = self.config.me.node();
        self.interests = nodes.into_iter().filter(|node| node != me).collect();
        self.aim(now);
        self.settle(now);
    }

    /// Changes what we say about ourselves, and tells all members at once. Who leaves is believed on its own word. Who can announce
    /// again says so when it has heard the others, at the latest after 150 ms.
    pub fn set_standing(&mut self, now: Instant, standing: Standing) {
        match (self.standing, standing) {
            (Standing::Unable, Standing::Able) if self.entry == Entry::Inside => {
                if self.returning.is_none() {
                    self.begin_return(now);
                }
            }
            _ => {
                self.returning = None;
                self.take_standing(now, standing);
            }
        }
        self.settle(now);
    }

    fn take_standing(&mut self, now: Instant, standing: Standing) {
        if standing == self.standing {
            return;
        }
        self.standing = standing;
        self.stale = true;
        self.tell_standing(now);
        if standing == Standing::Leaving {
            self.tell_missed(now);
        }
    }

    /// Tells all members our standing once more, in case the first word was lost.
    pub fn tell_standing(&mut self, now: Instant) {
        for address in self.member_addresses() {
            self.send_to(now, address, Message::Standing);
        }
    }

    fn member_addresses(&self) -> Vec<SocketAddr> {
        self.foca.iter_members().map(|member| member.id().address).collect()
    }

    /// Ends our membership, for good.
    pub fn leave(&mut self, now: Instant) {
        let _ = self.foca.leave_cluster(&mut self.runtime);
        self.settle(now);
    }

    /// Sends a message to a member. Whether there is such a member.
    pub fn send(&mut self, now: Instant, to: &NodeName, message: Message) -> bool {
        let Some(address) = self.address_of(to) else { return false };
        self.send_to(now, address, message);
        true
    }

    /// Looks at a datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.hear(now, from, datagram);
        self.settle(now);
    }

    /// Does what is due. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((&key, _)) = self.timers.first_key_value()
            && key.0 <= now
            && let Some(timer) = self.timers.remove(&key)
        {
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
            self.drain_foca(now);
        }
        if let Entry::Entering(until) = self.entry
            && until <= now
        {
            self.enter();
        }
        self.run_return(now);
        self.stale |= self.cut_off_at().is_some_and(|at| at <= now);
        self.run_greetings(now);
        self.waiting.take_due(now).into_iter().for_each(|address| self.greet(address));
        self.run_seeking(now);
        self.run_inquiries(now);
        self.run_talkers(now);
        let Self { watch, foca, config, peers, .. } = self;
        let others = |about: &NodeName| -> Vec<NodeName> {
            // Those heard last first: they are the likeliest to know.
            let mut others: Vec<(&NodeName, Instant)> = foca
                .iter_members()
                .map(|member| member.id().node())
                .filter(|node| *node != about && *node != config.me.node())
                .filter_map(|node| Some((node, peers.by_node(node)?.heard)))
                .collect();
            others.sort_by_key(|&(_, heard)| std::cmp::Reverse(heard));
            others.truncate(WITNESSES_CONSIDERED);
            others.into_iter().map(|(node, _)| node.clone()).collect()
        };
        let actions = watch.run_due(now, others);
        actions.into_iter().for_each(|action| self.act(now, action));
        self.settle(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outgoing.pop_front()
    }

    /// Whether all that was sent since the last call were pings and answers to pings. Then answers and pings of others are about to come,
    /// and nothing of them is urgent: they may as well be heard together.
    pub fn take_lull(&mut self) -> bool {
        let Said { signs, words } = std::mem::take(&mut self.said);
        signs && !words
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let entering = match self.entry {
            Entry::Outside => return None,
            Entry::Entering(until) => Some(until),
            Entry::Inside => None,
        };
        let inquiries = self.inquiries.iter().map(|inquiry| inquiry.again.unwrap_or(inquiry.until));
        // Gossip has time: it goes along when something else is due, and so needs hardly a wake-up of its own.
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at + GOSSIP_SLACK);
        let rest = self.stale.then(|| self.settled_at + self.rest());
        let watch = self.watch.next();
        let returning = self.returning.as_ref().map(Return::next);
        inquiries
            .chain(timer)
            .chain(entering)
            .chain(watch)
            .chain(rest)
            .chain(returning)
            .chain(self.cut_off_at())
            .chain(self.talkers.values().filter_map(Talker::claims_at))
            .chain(self.waiting.next())
            .chain(self.seeking_at())
            .chain([self.greetings.next()])
            .min()
    }

    /// The nodes whose speakers live and can announce, ourselves included.
    #[must_use]
    pub const fn live(&self) -> &BTreeSet<NodeName> {
        &self.live
    }

    /// Whether we hear none of several members that ended without a word: it is likelier that we are deaf than that all of them died.
    #[must_use]
    pub fn may_be_deaf(&self) -> bool {
        self.lost.len() > 1 && self.live.iter().all(|node| node == self.config.me.node())
    }

    /// Members that gossip knows, ourselves not counted.
    #[must_use]
    pub fn members(&self) -> usize {
        self.foca.num_members()
    }

    /// Whether it is known who is there.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.entry == Entry::Inside
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn act(&mut self, now: Instant, action: Action) {
        match action {
            Action::Ping(node) => self.ping(now, &node, Message::Ping),
            Action::Call(node) => self.ping(now, &node, Message::Call),
            Action::Ask { witness, about, token } => {
                if let Some(address) = self.address_of(&witness) {
                    self.send_to(now, address, Message::Ask { about, token });
                }
            }
            Action::Suspected(node) => {
                self.counters.suspected += 1;
                self.events.push_back(Event::Suspected(node));
            }
            Action::Refuted(node) => {
                self.counters.refuted += 1;
                self.events.push_back(Event::Refuted(node));
            }
            Action::Gone(node, heard) => {
                self.stale = true;
                self.counters.gone += 1;
                self.lose(&node);
                self.tell_missing(now, &node, heard);
                self.events.push_back(Event::Gone { node, heard });
            }
            Action::Back(node) => {
                self.stale = true;
                self.events.push_back(Event::Back(node));
            }
        }
    }

    fn ping(&mut self, now: Instant, node: &NodeName, ping: Message) {
        if let Some(address) = self.address_of(node) {
            match self.peers.get(address) {
                Some(_) => self.send_to(now, address, ping),
                None => self.greet(address),
            }
        }
    }

    /// Where a node is: as it said itself, or as others say.
    fn address_of(&self, node: &NodeName) -> Option<SocketAddr> {
        self.peers.by_node(node).map(|peer| peer.identity.address).or_else(|| {
            self.foca.iter_members().find(|member| member.id().node() == node).map(|member| member.id().address)
        })
    }

    fn send_to(&mut self, now: Instant, address: SocketAddr, message: Message) {
        match self.peers.get(address).map(|peer| peer.session) {
            Some(session) => self.transmit(address, session, message),
            None => {
                if self.waiting.push(now, address, message) {
                    self.greet(address);
                }
            }
        }
    }

    fn greet(&mut self, address: SocketAddr) {
        self.transmit(address, 0, Message::Hello);
    }

    fn transmit(&mut self, address: SocketAddr, session: u64, message: Message) {
        if self.link == Link::Down {
            return;
        }
        match message {
            Message::Ping | Message::Pong => self.said.signs = true,
            _ => self.said.words = true,
        }
        let Some(body) = (Body { to: session, standing: self.standing, message }).encode() else { return };
        self.sequence += 1;
        let datagram = self.config.keys.seal(self.config.session, self.sequence, &body);
        self.counters.sent += 1;
        self.counters.bytes_sent += datagram.len() as u64;
        self.outgoing.push_back(Transmit { to: address, datagram });
    }

    /// Carries out what gossip wants done, and looks whether the picture changed.
    fn settle(&mut self, now: Instant) {
        self.drain_foca(now);
        if !self.stale || now < self.settled_at + self.rest() {
            return;
        }
        self.stale = false;
        self.settled_at = now;
        let size = u32::try_from(self.foca.num_members() + 1).unwrap_or(u32::MAX);
        if size > self.tuned_for || size < self.tuned_for / 4 {
            let target = size.next_power_of_two().max(FIRST_TUNING);
            if self.foca.set_config(tuning(target, self.config.wan)).is_ok() {
                self.tuned_for = target;
            }
        }
        let cut_off = self.is_cut_off(now);
        let able = |member: &Identity| {
            !cut_off
                && !self.watch.is_gone(member.node())
                && self.peers.get(member.address).is_none_or(|peer| peer.standing == Standing::Able)
        };
        let others = self.foca.iter_members().map(foca::Member::id).filter(|member| able(member));
        let me = (self.standing == Standing::Able).then_some(self.config.me.node());
        let live = others.map(Identity::node).chain(me);
        let live: BTreeSet<NodeName> = live.cloned().collect();
        if live != self.live {
            // Who was alone on its side of a partition believed itself the heir of everything.
            let (lost, events) = (&mut self.lost, &mut self.events);
            let back = live.iter().filter(|node| lost.remove(*node)).map(|node| Event::Met(node.clone()));
            events.extend(back);
            self.talkers.retain(|node, _| !live.contains(node));
            self.live = live;
            self.events.push_back(Event::LiveChanged);
        }
        self.aim(now);
    }

    /// How long who lives is not made up anew: members that come by the hundred are taken in together.
    fn rest(&self) -> Duration {
        match u32::try_from(self.foca.num_members()).unwrap_or(u32::MAX) {
            0..SMALL => Duration::ZERO,
            size => REST_PER_MEMBER * size,
        }
    }

    /// Tells that a member ended, unless it said so itself.
    fn lose(&mut self, node: &NodeName) {
        if self.peers.by_node(node).is_none_or(|peer| peer.standing != Standing::Leaving) {
            self.lost.insert(node.clone());
            self.events.push_back(Event::Lost(node.clone()));
        }
    }

    /// Who talks and is not alive may hear nobody, take itself for the heir of everything, and say so to the neighbours. A record of its
    /// words makes us announce what is ours once a minute.
    fn hear_talk(&mut self, now: Instant, node: &NodeName, standing: Standing) {
        if standing != Standing::Able || self.entry != Entry::Inside || self.live.contains(node) {
            return;
        }
        let new = Talker { since: now, next: now + TALK_PERIOD, period: TALK_PERIOD };
        let talker = self.talkers.entry(node.clone()).or_insert(new);
        if talker.next <= now {
            talker.advance(now);
            self.events.push_back(Event::Lost(node.clone()));
        }
    }

    /// Who talked may go on to announce what it takes from us, though it talks to us no longer.
    fn run_talkers(&mut self, now: Instant) {
        for (node, talker) in &mut self.talkers {
            if talker.claims_at().is_some_and(|at| at <= now) {
                talker.advance(now);
                self.events.push_back(Event::Lost(node.clone()));
            }
        }
    }

    fn drain_foca(&mut self, now: Instant) {
        while self.runtime.backlog() > 0 {
            while let Some((to, bytes)) = self.runtime.to_send() {
                self.send_to(now, to.address, Message::Gossip(bytes.to_vec()));
            }
            while let Some((after, timer)) = self.runtime.to_schedule() {
                self.timer_serial += 1;
                self.timers.insert((now + after, self.timer_serial), timer);
            }
            while let Some(note) = self.runtime.to_notify() {
                self.stale |= match &note {
                    OwnedNotification::MemberUp(member) => !self.live.contains(member.node()),
                    _ => true,
                };
                match note {
                    OwnedNotification::MemberDown(member) => {
                        self.watch.dismiss(member.node());
                        self.lose(member.node());
                    }
                    OwnedNotification::Rejoin(identity) => {
                        // Declared dead, and alive: all that we hear must learn of the new identity at once.
                        self.config.me.life = identity.life;
                        let heard: Vec<SocketAddr> = self
                            .peers
                            .iter()
                            .filter(|peer| now.saturating_duration_since(peer.heard) < MEMBER_SILENCE)
                            .map(|peer| peer.identity.address)
                            .take(REJOIN_TOLD)
                            .collect();
                        heard.into_iter().for_each(|address| self.announce_to(address));
                    }
                    _ => {}
                }
            }
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("me", &self.config.me).field("live", &self.live).finish_non_exhaustive()
    }
}

/// Gossip for a cluster of this size.
fn tuning(size: u32, wan: bool) -> foca::Config {
    let size = NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN);
    let mut config = if wan { foca::Config::new_wan(size) } else { foca::Config::new_lan(size) };
    config.max_packet_size = NonZeroUsize::new(GOSSIP_MAX).unwrap_or(NonZeroUsize::MIN);
    config.remove_down_after = Some(REMEMBER_DEAD);
    // We greet the dead ourselves, and sooner.
    config.periodic_announce_to_down_members = None;
    config.periodic_announce =
        Some(PeriodicParams { frequency: Duration::from_secs(10), num_members: NonZeroUsize::MIN });
    config
}

/// How much later than it asked for gossip may have its turn.
const GOSSIP_SLACK: Duration = Duration::from_millis(100);

/// The size that gossip is tuned for at first.
const FIRST_TUNING: u32 = 8;

/// Within this time of its last datagram a peer can be talked to.
const MEMBER_SILENCE: Duration = Duration::from_secs(3);

/// How long after it was found dead, and how often, it is told that a member talks on: often while it announces what it took, which begins
/// after [`Timing::isolated`] and takes five seconds, then ever more seldom.
const TALK_PERIOD: Duration = Duration::from_millis(400);
const TALK_PERIOD_MAX: Duration = Duration::from_secs(64);
const CLAIMS: Duration = Duration::from_secs(7);

/// How many we tell at once that we are not dead.
const REJOIN_TOLD: usize = 32;

/// Fewer members than this are looked over at every change; for more, a change waits in proportion.
const SMALL: u32 = 64;
const REST_PER_MEMBER: Duration = Duration::from_micros(10);

/// How long gossip remembers who was declared dead.
const REMEMBER_DEAD: Duration = Duration::from_secs(60);

/// Inquiries that are worked on at once, whatever is asked.
const INQUIRIES_MAX: usize = 256;

/// How many members are offered as witnesses.
const WITNESSES_CONSIDERED: usize = 8;

#[cfg(test)]
mod tests;
