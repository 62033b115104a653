//! Two sessions wired back to back under virtual time, over a connection that delays, stalls, breaks and lies.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::*;

/// One direction of the connection.
#[derive(Default)]
struct Pipe {
    /// What is on the way, and when it arrives.
    segments: VecDeque<(Instant, Vec<u8>)>,
    /// All that was sent since the connection was made.
    sent: Vec<u8>,
    /// What the receiver knows from it: the observer's own reading of the bytes.
    table: std::collections::BTreeSet<IpNet>,
    /// How much of `sent` was read, and the types seen.
    read: usize,
    kinds: Vec<MessageType>,
    blocked_until: Option<Instant>,
}

struct World {
    now: Instant,
    random: u64,
    ends: [Session; 2],
    pipes: [Pipe; 2],
    wants: [bool; 2],
    routes: [BTreeMap<IpNet, Arc<Attributes>>; 2],
    connected: bool,
    faults: bool,
    trace: DefaultHasher,
    established: [u32; 2],
}

impl World {
    fn new(seed: u64, now: Instant) -> Self {
        let end = |asn, remote, seed| {
            // Both connect and neither listens: with short pauses their attempts meet.
            let connect_time = Some(Duration::from_secs(5));
            let config = SessionConfig { asn, remote: RemoteAsn::Number(remote), connect_time, ..config() };
            Session::new(config, id(seed as u8), seed, now)
        };
        Self {
            now,
            random: seed | 1,
            ends: [end(Asn(7776), PEER, seed.wrapping_add(1)), end(PEER, Asn(7776), seed.wrapping_add(2))],
            pipes: [Pipe::default(), Pipe::default()],
            wants: [false; 2],
            routes: [BTreeMap::new(), BTreeMap::new()],
            connected: false,
            faults: true,
            trace: DefaultHasher::new(),
            established: [0; 2],
        }
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Lets both ends act until neither has anything to say, then checks what must always hold.
    fn settle(&mut self) {
        for side in 0..2 {
            let bytes = self.ends[side].poll_transmit();
            if !bytes.is_empty() && self.connected {
                (side, &bytes).hash(&mut self.trace);
                let delay = Duration::from_millis(1 + self.chance(200));
                // A stream keeps its order.
                let last = self.pipes[side].segments.back().map_or(self.now, |(at, _)| *at);
                let at = last.max(self.now + delay);
                self.pipes[side].sent.extend_from_slice(&bytes);
                let pieces = 1 + self.chance(3) as usize;
                for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                    self.pipes[side].segments.push_back((at, piece.to_vec()));
                }
                self.observe(side);
            }
            let mut close = false;
            while let Some(action) = self.ends[side].poll_action() {
                match action {
                    Action::Connect => self.wants[side] = true,
                    Action::Close => {
                        self.wants[side] = false;
                        close = true;
                    }
                }
            }
            while let Some(event) = self.ends[side].poll_event() {
                self.established[side] += u32::from(matches!(event, Event::Established { .. }));
            }
            let end = &self.ends[side];
            assert!(
                end.poll_timeout().is_some(),
                "I31: a session that is not stopped always has something to wait for"
            );
            if end.state() == State::Established && self.pipes[side].blocked_until.is_none() {
                assert_eq!(end.rib().told(), end.rib().wanted(), "I26: what is wanted was told");
            }
            if close && self.connected {
                self.cut(1 - side);
            }
        }
    }

    /// The other end reads what was sent before, then sees the end of the connection.
    fn cut(&mut self, other: usize) {
        self.connected = false;
        let rest: Vec<_> = self.pipes[1 - other].segments.drain(..).collect();
        for (_, bytes) in rest {
            self.ends[other].handle_bytes(self.now, &bytes);
        }
        self.ends[other].handle_failed(self.now, "closed");
        self.ends[other].poll_transmit();
        self.pipes = [Pipe::default(), Pipe::default()];
    }

    /// Reads what one end sent: the order of types is legal, and what is offered minus what is withdrawn is what the peer knows.
    fn observe(&mut self, side: usize) {
        let pipe = &mut self.pipes[side];
        while let Some((kind, body, size)) = split(&pipe.sent[pipe.read..]).expect("what we send is well formed") {
            assert_ne!(pipe.kinds.last(), Some(&MessageType::Notification), "I32: nothing follows a NOTIFICATION");
            let may = match kind {
                MessageType::Open => pipe.kinds.is_empty(),
                MessageType::Keepalive => pipe.kinds.first() == Some(&MessageType::Open),
                MessageType::Update | MessageType::RouteRefresh => pipe.kinds.contains(&MessageType::Keepalive),
                MessageType::Notification => true,
            };
            assert!(may, "{kind:?} after {:?}", pipe.kinds);
            if kind == MessageType::Update {
                let (withdrawn, rest) = block(body);
                let (_, offered) = block(rest);
                prefixes(withdrawn)
                    .for_each(|prefix| assert!(pipe.table.remove(&prefix), "only what was offered is withdrawn"));
                pipe.table.extend(prefixes(offered));
            }
            pipe.kinds.push(kind);
            pipe.read += size;
        }
        assert_eq!(pipe.read, pipe.sent.len(), "messages are sent whole");
    }

    /// Something happens.
    fn step(&mut self) {
        if self.wants == [true; 2] && !self.connected {
            self.connected = true;
            self.wants = [false; 2];
            self.pipes = [Pipe::default(), Pipe::default()];
            for side in 0..2 {
                self.ends[side].handle_connected(self.now, id(side as u8 + 1), next_hops());
            }
            return self.settle();
        }
        let arrivals =
            self.pipes.iter().filter(|pipe| pipe.blocked_until.is_none()).filter_map(|pipe| pipe.segments.front());
        let unblock = self.pipes.iter().filter_map(|pipe| pipe.blocked_until);
        let timers = self.ends.iter().filter_map(Session::poll_timeout);
        let next = arrivals.map(|(at, _)| *at).chain(unblock).chain(timers).min().expect("timers are armed");
        self.now = self.now.max(next);
        for side in 0..2 {
            if self.pipes[side].blocked_until.is_some_and(|at| at <= self.now) {
                self.pipes[side].blocked_until = None;
                self.ends[side].handle_send(self.now, false);
            }
            let due = |pipe: &Pipe, now| {
                pipe.blocked_until.is_none() && pipe.segments.front().is_some_and(|(at, _)| *at <= now)
            };
            while due(&self.pipes[side], self.now) {
                let (_, bytes) = self.pipes[side].segments.pop_front().expect("one is due");
                self.ends[1 - side].handle_bytes(self.now, &bytes);
                self.settle();
            }
            self.ends[side].handle_timeout(self.now);
        }
        self.settle();
        if self.faults {
            self.fault();
            self.settle();
        }
    }

    fn fault(&mut self) {
        let side = self.chance(2) as usize;
        match self.chance(100) {
            0..3 if self.connected => {
                self.cut(side);
                self.ends[1 - side].handle_failed(self.now, "reset");
                self.ends[1 - side].poll_transmit();
            }
            3..5 if self.connected => {
                let garbage: Vec<u8> = (0..self.chance(64)).map(|_| self.chance(256) as u8).collect();
                self.ends[side].handle_bytes(self.now, &garbage);
            }
            5..10 if self.connected && self.pipes[side].blocked_until.is_none() => {
                let pause = Duration::from_secs(self.chance(600));
                self.pipes[side].blocked_until = Some(self.now + pause);
                self.ends[side].handle_send(self.now, true);
            }
            10..40 => {
                let count = self.chance(20) as u8;
                let wanted: Vec<String> = (0..count).map(|_| format!("10.{side}.0.{}/32", self.chance(64))).collect();
                let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                self.routes[side] = routes(&wanted);
                self.ends[side].set_routes(self.now, self.routes[side].clone());
            }
            40..45 => self.ends[side].handle_bytes(self.now, &refresh_bytes()),
            _ => {}
        }
    }
}

/// A block of bytes after its length in two octets, and what follows.
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

fn run(seed: u64, start: Instant) -> (u64, [u32; 2]) {
    let mut world = World::new(seed, start);
    world.settle();
    for _ in 0..2000 {
        world.step();
    }
    // The faults end: whatever state it is in, it must find its way back.
    world.faults = false;
    let quiet = world.now + Duration::from_secs(1800);
    while world.now < quiet {
        world.step();
    }
    for side in 0..2 {
        assert_eq!(world.ends[side].state(), State::Established, "seed {seed} does not find its way back");
        assert!(world.pipes[side].table.iter().eq(world.routes[side].keys()), "I26: seed {seed}");
    }
    (world.trace.finish(), world.established)
}

#[test]
fn two_sessions_survive_faults_and_end_in_agreement() {
    let start = Instant::now();
    let mut ups = 0;
    for seed in 1..=12 {
        let (trace, established) = run(seed, start);
        assert_eq!(run(seed, start).0, trace, "seed {seed}: the same seed gives the same bytes");
        ups += established[0];
    }
    assert!(ups > 30, "the sessions came up only {ups} times: the faults leave nothing to see");
}
