//! Simulation of two peers in virtual time, over connections that are refused, delayed, blocked, broken and corrupted.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    /// Bytes in flight, with their arrival times.
    segments: VecDeque<(Instant, Vec<u8>)>,
    /// All bytes sent since the connection was opened.
    sent: Vec<u8>,
    /// All bytes that arrived, including injected garbage.
    arrived: Vec<u8>,
    /// The receiver's routing table, as decoded by the observer.
    table: BTreeSet<IpNet>,
    /// The number of bytes of `sent` that were observed, and the message types seen.
    read: usize,
    kinds: Vec<MessageType>,
    ends_of_rib: usize,
    blocked_until: Option<Instant>,
}

/// A connection: its slot at each end, and the bytes that each end sent.
struct Wire {
    slots: [Slot; 2],
    pipes: [Pipe; 2],
    /// Whether each end still has it open; a closed end receives nothing.
    open: [bool; 2],
}

/// The configuration of both ends.
#[derive(Clone, Copy, Debug)]
struct Setting {
    modes: [Mode; 2],
    delay_open: Duration,
    graceful: bool,
    /// Both ends have the same identifier (RFC 6286 §2.3).
    same_id: bool,
}

struct World {
    now: Instant,
    random: SmallRng,
    setting: Setting,
    ends: [Peer; 2],
    wires: Vec<Wire>,
    /// Connection attempts, with the time at which they complete.
    attempts: Vec<(Instant, usize, Slot)>,
    routes: [BTreeMap<IpNet, Arc<Attributes>>; 2],
    faults: bool,
    /// The end that is being stopped and withdraws its routes.
    leaving: Option<usize>,
    trace: DefaultHasher,
    established: [u32; 2],
    /// Number of stops that withdrew routes.
    withdrawals: u32,
    /// Collisions counted by ends that were replaced.
    collisions: u64,
}

impl Setting {
    fn end(&self, side: usize, seed: u64, now: Instant) -> Peer {
        let mut numbers = [Asn(7776), PEER];
        numbers.rotate_left(side);
        let config = SessionConfig {
            connect_time: Some(Duration::from_secs(5)),
            mode: self.modes[side],
            delay_open: self.delay_open,
            graceful_restart: self.graceful,
            ..SessionConfig::new(numbers[0], RemoteAsn::Number(numbers[1]))
        };
        Peer::new(config, seed, now)
    }
}

impl World {
    fn new(seed: u64, setting: Setting, now: Instant) -> Self {
        let mut world = Self {
            now,
            random: SmallRng::seed_from_u64(seed),
            setting,
            ends: [0, 1].map(|side| setting.end(side, seed.wrapping_add(side as u64), now)),
            wires: Vec::new(),
            attempts: Vec::new(),
            routes: [BTreeMap::new(), BTreeMap::new()],
            faults: true,
            leaving: None,
            trace: DefaultHasher::new(),
            established: [0; 2],
            withdrawals: 0,
            collisions: 0,
        };
        for side in 0..2 {
            world.ends[side].set_routes(now, BTreeMap::new());
        }
        world
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.random.random_range(0..below)
    }

    fn router_id(&self, side: usize) -> RouterId {
        id(if self.setting.same_id { 7 } else { side as u8 + 1 })
    }

    /// Drains both ends until neither has output, then checks the invariants.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for side in 0..2 {
                quiet &= !self.transmit(side);
                while let Some(action) = self.ends[side].poll_action() {
                    quiet = false;
                    match action {
                        Action::Connect(slot) => {
                            let at = self.now + Duration::from_millis(1 + self.chance(300));
                            self.attempts.push((at, side, slot));
                        }
                        Action::Close(slot) => self.close(side, slot),
                    }
                }
                while let Some(event) = self.ends[side].poll_event() {
                    self.established[side] += u32::from(matches!(event, Event::Established { .. }));
                }
            }
            if quiet {
                break;
            }
        }
        self.check();
    }

    /// The invariants after every step, numbered as in `docs/testing.md`.
    fn check(&self) {
        for (side, end) in self.ends.iter().enumerate() {
            let expects = end.attempt == Attempt::Waiting;
            assert!(end.poll_timeout().is_some() || expects, "I31: a timer is running, or a connection is expected");
            let up = end.sessions.iter().flatten().filter(|one| one.state() == State::Established).count();
            assert!(up <= 1, "I30: two sessions with one peer");
            assert_eq!(end.rib().wanted(), self.routes[side].len(), "I38: received routes are not stored");
            for slot in Slot::ALL {
                let Some(session) = &end.sessions[slot as usize] else { continue };
                let pipe = self.wire(side, slot).map(|wire| &self.wires[wire].pipes[side]);
                let pipe = pipe.expect("I30: a session without a connection");
                let blocked = pipe.blocked_until.is_some();
                let (state, armed) = (session.state(), |timer| session.timers().at(timer).is_some());
                let agreed = state >= State::OpenConfirm;
                assert_eq!(armed(Timer::Hold), state >= State::OpenSent, "I31: {state}");
                assert_eq!(armed(Timer::DelayOpen), state < State::OpenSent, "I31: {state}");
                assert_eq!(armed(Timer::Keepalive), agreed, "I31: {state}");
                assert_eq!(armed(Timer::SendHold), agreed && blocked, "I31: {state}");
                if state == State::Established && !blocked {
                    assert_eq!(end.rib().advertised(), end.rib().wanted(), "I26: all wanted routes were advertised");
                    assert!(pipe.table.iter().eq(self.routes[side].keys()), "I26: and no others");
                    assert_eq!(pipe.ends_of_rib, 1, "I35: End-of-RIB is sent once");
                }
            }
        }
    }

    /// Moves the output of an end to its connections. Returns whether there was any.
    fn transmit(&mut self, side: usize) -> bool {
        let mut sent = false;
        for slot in Slot::ALL {
            let bytes = self.ends[side].poll_transmit(slot);
            let Some(at) = self.wire(side, slot).filter(|_| !bytes.is_empty()) else { continue };
            sent = true;
            (side, slot, &bytes).hash(&mut self.trace);
            let delay = Duration::from_millis(1 + self.chance(200));
            let pieces = 1 + self.chance(3) as usize;
            let pipe = &mut self.wires[at].pipes[side];
            // A stream keeps its order.
            let last = pipe.segments.back().map_or(self.now, |(at, _)| *at);
            let arrival = last.max(self.now + delay);
            pipe.sent.extend_from_slice(&bytes);
            for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                pipe.segments.push_back((arrival, piece.to_vec()));
            }
            let received = self.wires[at].pipes[1 - side].arrived.clone();
            observe(&mut self.wires[at].pipes[side], &received, &self.routes[side]);
        }
        sent
    }

    fn wire(&self, side: usize, slot: Slot) -> Option<usize> {
        self.wires.iter().position(|wire| wire.open[side] && wire.slots[side] == slot)
    }

    /// An end closes a connection or abandons an attempt. The other end receives the bytes in flight, then the end of
    /// the stream.
    fn close(&mut self, side: usize, slot: Slot) {
        self.attempts.retain(|(_, whose, which)| (*whose, *which) != (side, slot));
        let Some(at) = self.wire(side, slot) else { return };
        self.transmit(side);
        let mut wire = self.wires.remove(at);
        let pipe = &wire.pipes[side];
        if self.leaving == Some(side) && !pipe.kinds.is_empty() && pipe.blocked_until.is_none() {
            assert!(pipe.table.is_empty(), "I34: withdrawn before the end");
            assert_eq!(pipe.kinds.last(), Some(&MessageType::Notification));
            self.withdrawals += u32::from(pipe.kinds.contains(&MessageType::Update));
        }
        let other = 1 - side;
        if !wire.open[other] {
            return;
        }
        for (_, bytes) in wire.pipes[side].segments.drain(..) {
            self.ends[other].handle_bytes(self.now, wire.slots[other], &bytes);
        }
        self.ends[other].handle_failed(self.now, wire.slots[other], ConnectionError::ClosedByPeer);
        // The last bytes are discarded.
        self.ends[other].poll_transmit(wire.slots[other]);
    }

    /// Stops an end in one of several ways and replaces it by a new one.
    fn restart(&mut self, side: usize) {
        let up = self.ends[side].sessions.iter().flatten().any(Session::peer_keeps_routes);
        let stop = match self.chance(3) {
            0 => Stop::Restart("restart".into()),
            1 => Stop::Shutdown("maintenance".into()),
            _ => Stop::Deconfigured,
        };
        let keeps = up && matches!(stop, Stop::Restart(_));
        self.leaving = (!keeps).then_some(side);
        if !keeps {
            self.routes[side].clear();
        }
        self.ends[side].stop(self.now, stop);
        while self.transmit(side) {}
        while let Some(action) = self.ends[side].poll_action() {
            let Action::Close(slot) = action else { panic!("{action:?} after the end") };
            self.close(side, slot);
        }
        assert_eq!(self.ends[side].poll_timeout(), None, "I31: no timer runs after a stop");
        self.leaving = None;
        self.collisions += self.ends[side].counters().collisions;
        let seed = self.chance(u64::MAX);
        self.ends[side] = self.setting.end(side, seed, self.now);
        self.ends[side].set_routes(self.now, self.routes[side].clone());
    }

    /// Completes a connection attempt, successfully or not.
    fn attempt(&mut self, side: usize, slot: Slot) {
        let other = 1 - side;
        let (mine, theirs) = (self.router_id(side), self.router_id(other));
        if self.faults && self.chance(10) == 0 {
            return self.ends[side].handle_failed(self.now, slot, refused());
        }
        match self.ends[other].handle_accepted(self.now, theirs, next_hops()) {
            None => self.ends[side].handle_failed(self.now, slot, refused()),
            Some(accepted) => {
                let mut slots = [slot; 2];
                slots[other] = accepted;
                self.wires.push(Wire { slots, pipes: [Pipe::default(), Pipe::default()], open: [true; 2] });
                self.ends[side].handle_connected(self.now, mine, next_hops());
            }
        }
    }

    /// Advances to the next event and applies it.
    fn step(&mut self) {
        let pipes = || self.wires.iter().flat_map(|wire| &wire.pipes);
        let arrivals = pipes().filter(|pipe| pipe.blocked_until.is_none()).filter_map(|pipe| pipe.segments.front());
        let unblock = pipes().filter_map(|pipe| pipe.blocked_until);
        let timers = self.ends.iter().filter_map(Peer::poll_timeout);
        let attempts = self.attempts.iter().map(|(at, ..)| *at);
        let next = arrivals.map(|(at, _)| *at).chain(unblock).chain(timers).chain(attempts).min();
        self.now = self.now.max(next.expect("something is due"));
        if let Some(due) = self.attempts.iter().position(|(at, ..)| *at <= self.now) {
            let (_, side, slot) = self.attempts.remove(due);
            self.attempt(side, slot);
            self.settle();
        }
        while let Some((side, slot)) = self.unblock() {
            self.ends[side].handle_send(self.now, slot, false);
            self.settle();
        }
        while let Some((side, slot, bytes)) = self.arrive() {
            self.ends[side].handle_bytes(self.now, slot, &bytes);
            self.settle();
        }
        for side in 0..2 {
            self.ends[side].handle_timeout(self.now);
            self.settle();
        }
        if self.faults {
            self.fault();
            self.settle();
        }
    }

    fn collisions(&self) -> u64 {
        self.collisions + self.ends.iter().map(|end| end.counters().collisions).sum::<u64>()
    }

    fn unblock(&mut self) -> Option<(usize, Slot)> {
        let now = self.now;
        self.wires.iter_mut().find_map(|wire| {
            let side = wire.pipes.iter().position(|pipe| pipe.blocked_until.is_some_and(|at| at <= now))?;
            wire.pipes[side].blocked_until = None;
            Some((side, wire.slots[side]))
        })
    }

    fn arrive(&mut self) -> Option<(usize, Slot, Vec<u8>)> {
        let now = self.now;
        self.wires.iter_mut().find_map(|wire| {
            let due =
                |pipe: &Pipe| pipe.blocked_until.is_none() && pipe.segments.front().is_some_and(|(at, _)| *at <= now);
            let side = wire.pipes.iter().position(due)?;
            let (_, bytes) = wire.pipes[side].segments.pop_front()?;
            wire.pipes[side].arrived.extend_from_slice(&bytes);
            Some((1 - side, wire.slots[1 - side], bytes))
        })
    }

    fn fault(&mut self) {
        let side = self.chance(2) as usize;
        let wire = self.chance(2) as usize;
        match (self.chance(100), wire < self.wires.len()) {
            // The connection is reset at both ends.
            (0..3, true) => {
                let slots = self.wires.remove(wire).slots;
                for (end, slot) in self.ends.iter_mut().zip(slots) {
                    end.handle_failed(self.now, slot, reset());
                    end.poll_transmit(slot);
                }
            }
            (3..5, true) => {
                let garbage: Vec<u8> = (0..self.chance(64)).map(|_| self.chance(256) as u8).collect();
                let Wire { slots, pipes, .. } = &mut self.wires[wire];
                pipes[1 - side].arrived.extend_from_slice(&garbage);
                let slot = slots[side];
                self.ends[side].handle_bytes(self.now, slot, &garbage);
            }
            (5..10, true) if self.wires[wire].pipes[side].blocked_until.is_none() => {
                let pause = Duration::from_secs(self.chance(600));
                self.wires[wire].pipes[side].blocked_until = Some(self.now + pause);
                let slot = self.wires[wire].slots[side];
                self.ends[side].handle_send(self.now, slot, true);
            }
            (10..40, _) => {
                let count = self.chance(20) as u8;
                let wanted: Vec<String> = (0..count).map(|_| format!("10.{side}.0.{}/32", self.chance(64))).collect();
                let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                self.routes[side] = routes(&wanted);
                self.ends[side].set_routes(self.now, self.routes[side].clone());
            }
            (40..45, _) => {
                let prefix: IpNet = format!("10.{side}.0.{}/32", self.chance(64)).parse().unwrap();
                let route = (self.chance(2) == 0).then(Arc::default);
                match &route {
                    Some(route) => self.routes[side].insert(prefix, Arc::clone(route)),
                    None => self.routes[side].remove(&prefix),
                };
                self.ends[side].change_routes(self.now, [(prefix, route)]);
            }
            (45..50, true) => {
                let slot = self.wires[wire].slots[side];
                self.wires[wire].pipes[1 - side].arrived.extend(refresh_bytes());
                self.ends[side].handle_bytes(self.now, slot, &refresh_bytes());
            }
            (50..53, _) => self.ends[side].set_draining(self.now, wire == 0),
            (53, _) => self.restart(side),
            _ => {}
        }
    }
}

/// Decodes what one end sent and checks that the order of message types is legal, that only `wanted` routes are
/// announced and only announced ones withdrawn, and that the data of errors is a part of `received`.
fn observe(pipe: &mut Pipe, received: &[u8], wanted: &BTreeMap<IpNet, Arc<Attributes>>) {
    while let Some((kind, body, size)) =
        split(&pipe.sent[pipe.read..], &DecodeContext::default()).expect("what we send is well formed")
    {
        assert_ne!(pipe.kinds.last(), Some(&MessageType::Notification), "I32: nothing follows a NOTIFICATION");
        let may = match kind {
            MessageType::Open => pipe.kinds.is_empty(),
            MessageType::Keepalive => pipe.kinds.first() == Some(&MessageType::Open),
            MessageType::Update | MessageType::RouteRefresh => pipe.kinds.contains(&MessageType::Keepalive),
            MessageType::Notification => !pipe.kinds.is_empty(),
        };
        assert!(may, "{kind:?} after {:?}", pipe.kinds);
        if kind == MessageType::Update {
            let (withdrawn, rest) = block(body);
            let (attributes, announced) = block(rest);
            prefixes(withdrawn)
                .for_each(|prefix| assert!(pipe.table.remove(&prefix), "only announced routes are withdrawn"));
            prefixes(announced).for_each(|prefix| assert!(wanted.contains_key(&prefix), "I27, I28: {prefix}"));
            pipe.table.extend(prefixes(announced));
            pipe.ends_of_rib += usize::from(body == [0; 4]);
            assert!(announced.is_empty() || !attributes.windows(3).any(|head| head == [0x40, 5, 4]), "I29");
        }
        if let (MessageType::Notification, [1..=5 | 7, _, data @ ..]) = (kind, body) {
            let ours = body[..2] == [2, 1] || data.is_empty();
            assert!(ours || received.windows(data.len()).any(|window| window == data), "I33: {body:02x?}");
        }
        pipe.kinds.push(kind);
        pipe.read += size;
    }
    assert_eq!(pipe.read, pipe.sent.len(), "messages are sent whole");
}

/// Splits off a block with its length in two octets, and returns it with the rest.
fn block(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<2>().expect("a length");
    rest.split_at(u16::from_be_bytes(*length).into())
}

/// IPv4 host routes.
fn prefixes(bytes: &[u8]) -> impl Iterator<Item = IpNet> {
    bytes.chunks(5).map(|chunk| {
        let [32, a, b, c, d] = *chunk else { panic!("not a host route: {chunk:?}") };
        IpNet::from(std::net::IpAddr::from([a, b, c, d]))
    })
}

fn run(seed: u64, setting: Setting, start: Instant) -> (u64, World) {
    let mut world = World::new(seed, setting, start);
    world.settle();
    for _ in 0..2000 {
        world.step();
    }
    // Without further faults the session must be established again from any state.
    world.faults = false;
    let quiet = world.now + Duration::from_secs(1800);
    while world.now < quiet {
        world.step();
    }
    for side in 0..2 {
        assert_eq!(world.ends[side].state(), State::Established, "{setting:?} {seed} does not recover");
        let [wire] = &world.wires[..] else { panic!("{setting:?} {seed}: {} connections", world.wires.len()) };
        assert!(wire.pipes[side].table.iter().eq(world.routes[side].keys()), "I26: {setting:?} {seed}");
    }
    (world.trace.finish(), world)
}

#[test]
fn two_peers_converge_after_faults() {
    let start = Instant::now();
    let (mut ups, mut collisions, mut withdrawals) = (0, 0, 0);
    let both = [Mode::Both; 2];
    for (seed, modes) in (1..).zip([both, [Mode::Active, Mode::Passive], both, [Mode::Passive, Mode::Both]].repeat(4)) {
        let setting = Setting {
            modes,
            delay_open: Duration::from_secs(if seed % 3 == 0 { 2 } else { 0 }),
            graceful: seed % 2 == 0,
            same_id: seed % 5 == 0,
        };
        let (trace, world) = run(seed, setting, start);
        assert_eq!(run(seed, setting, start).0, trace, "{setting:?} {seed}: the same seed gives the same bytes");
        ups += world.established[0];
        collisions += world.collisions();
        withdrawals += world.withdrawals;
    }
    assert!(ups > 60, "the sessions were established only {ups} times: too many faults");
    assert!(collisions > 20, "only {collisions} collisions");
    assert!(withdrawals > 20, "only {withdrawals} stops with withdrawals");
}

/// Both ends connect at the same time, with fifty different delays.
#[test]
fn collision_keeps_the_same_connection_at_both_ends() {
    let start = Instant::now();
    let mut collisions = 0;
    for seed in 1..=50 {
        for same_id in [false, true] {
            let modes = [Mode::Both; 2];
            let setting = Setting { modes, delay_open: Duration::ZERO, graceful: false, same_id };
            let mut world = World::new(seed, setting, start);
            world.faults = false;
            world.settle();
            while world.now < start + Duration::from_secs(60) {
                world.step();
            }
            let up = world.ends.iter().all(|end| end.state() == State::Established);
            assert!(up && world.wires.len() == 1, "seed {seed}, {} connections", world.wires.len());
            collisions += world.collisions();
        }
    }
    assert!(collisions >= 50, "only {collisions} collisions");
}
