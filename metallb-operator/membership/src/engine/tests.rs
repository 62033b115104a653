//! A few engines on a perfect or broken network; the simulators in `tests/` have the rest.

use super::*;
use crate::wire::seal::DATAGRAM_MAX;

const MS: Duration = Duration::from_millis(1);

/// Engines that hear each other after a millisecond.
struct World {
    now: Instant,
    engines: Vec<Option<Engine>>,
    flying: VecDeque<(Instant, SocketAddr, Transmit)>,
    log: Vec<(usize, Event)>,
    /// Whether a datagram may pass from one host to another.
    passes: fn(SocketAddr, SocketAddr) -> bool,
    lives: u64,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8], 7946))
}

fn node(index: usize) -> NodeName {
    format!("n{index}").into()
}

fn config(index: usize, life: u64) -> Config {
    Config {
        me: Identity::new(node(index), address(index), life),
        session: life << 8 | index as u64,
        keys: Keyring::new([&b"secret"[..]]),
        timing: Timing::default(),
        wan: false,
    }
}

impl World {
    fn new(size: usize) -> Self {
        let now = Instant::now();
        let mut world = Self {
            now,
            engines: (0..size).map(|_| None).collect(),
            flying: VecDeque::new(),
            log: Vec::new(),
            passes: |_, _| true,
            lives: 1000,
        };
        (0..size).for_each(|index| world.start(index));
        world.run(500 * MS);
        world
    }

    fn start(&mut self, index: usize) {
        self.lives += 1000;
        let mut engine = Engine::new(config(index, self.lives), self.lives, self.now);
        engine.join(self.now, (0..self.engines.len()).map(address));
        engine.watch(self.now, (0..self.engines.len()).map(node));
        self.engines[index] = Some(engine);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for (index, engine) in self.engines.iter_mut().enumerate() {
                let Some(engine) = engine else { continue };
                while let Some(transmit) = engine.poll_transmit() {
                    assert!(transmit.datagram.len() <= DATAGRAM_MAX);
                    self.flying.push_back((self.now + MS, address(index), transmit));
                }
                self.log.extend(std::iter::from_fn(|| engine.poll_event()).map(|event| (index, event)));
            }
            let due = self.engines.iter().flatten().filter_map(Engine::poll_timeout);
            let Some(next) = due.chain(self.flying.front().map(|(at, ..)| *at)).min().filter(|next| *next <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            while let Some((_, from, transmit)) = self.flying.pop_front_if(|(at, ..)| *at <= self.now) {
                let index = (0..self.engines.len()).find(|&index| address(index) == transmit.to);
                if let Some(engine) = index.and_then(|index| self.engines[index].as_mut())
                    && (self.passes)(from, transmit.to)
                {
                    engine.handle_datagram(self.now, from, &transmit.datagram);
                }
            }
            for engine in self.engines.iter_mut().flatten() {
                engine.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn engine(&mut self, index: usize) -> &mut Engine {
        self.engines[index].as_mut().unwrap()
    }

    fn live(&self, index: usize) -> Vec<&str> {
        self.engines[index].as_ref().unwrap().live().iter().map(NodeName::as_str).collect()
    }
}

#[test]
fn members_find_each_other_within_milliseconds() {
    let mut world = World::new(3);
    for index in 0..3 {
        assert_eq!(world.live(index), ["n0", "n1", "n2"]);
        assert!(world.engine(index).has_joined());
    }
    let suspected = world.log.iter().any(|(_, event)| matches!(event, Event::Suspected(_)));
    assert!(!suspected, "{:?}", world.log);
}

#[test]
fn a_dead_member_is_gone_within_half_a_second_and_a_restarted_one_is_back_at_once() {
    let mut world = World::new(3);
    world.run(3000 * MS);
    world.engines[2] = None;
    world.run(450 * MS);
    for index in 0..2 {
        assert_eq!(world.live(index), ["n0", "n1"], "{:?}", world.log);
    }
    world.run(10_000 * MS);
    assert_eq!(world.live(0), ["n0", "n1"], "gossip agrees");
    world.start(2);
    world.run(20 * MS);
    for index in 0..3 {
        assert_eq!(world.live(index), ["n0", "n1", "n2"]);
    }
}

#[test]
fn a_member_that_one_other_does_not_hear_is_not_gone() {
    let mut world = World::new(3);
    world.passes = |from, to| ![(address(0), address(2)), (address(2), address(0))].contains(&(from, to));
    world.run(10_000 * MS);
    assert_eq!(world.live(0), ["n0", "n1", "n2"], "{:?}", world.log);
    assert_eq!(world.live(2), ["n0", "n1", "n2"]);
}

#[test]
fn parts_go_on_alone_and_are_one_again_soon_after_the_partition_heals() {
    for seconds in [1, 30, 200] {
        let mut world = World::new(5);
        world.passes = |from, to| (from.ip() < address(2).ip()) == (to.ip() < address(2).ip());
        world.run(seconds * 1000 * MS + 500 * MS);
        assert_eq!(world.live(0), ["n0", "n1"]);
        assert_eq!(world.live(4), ["n2", "n3", "n4"]);
        world.passes = |_, _| true;
        world.run(2000 * MS);
        for index in 0..5 {
            assert_eq!(world.live(index), ["n0", "n1", "n2", "n3", "n4"], "after {seconds} s, node {index}");
        }
    }
}

#[test]
fn who_leaves_is_believed_at_once() {
    let mut world = World::new(3);
    let now = world.now;
    world.engine(1).set_standing(now, Standing::Leaving);
    world.run(3 * MS);
    assert_eq!(world.live(0), ["n0", "n2"]);
    let now = world.now;
    world.engine(1).leave(now);
    world.run(10 * MS);
    world.engines[1] = None;
    world.run(10_000 * MS);
    let suspected = world.log.iter().any(|(_, event)| matches!(event, Event::Gone { .. }));
    assert!(!suspected, "{:?}", world.log);
}

#[test]
fn a_clock_set_back_between_two_lives_does_not_keep_a_node_out() {
    let mut world = World::new(3);
    world.engines[2] = None;
    world.run(100 * MS);
    world.lives = 0;
    world.start(2);
    world.run(1500 * MS);
    for index in 0..3 {
        assert_eq!(world.live(index), ["n0", "n1", "n2"], "{:?}", world.log);
    }
}

#[test]
fn a_second_host_under_a_name_that_lives_is_not_believed() {
    let mut world = World::new(3);
    let mut impostor = config(1, 1_000_000);
    impostor.me.address = address(3);
    let mut impostor = Engine::new(impostor, 1, world.now);
    impostor.join(world.now, [address(0)]);
    world.engines.push(Some(impostor));
    world.run(5000 * MS);
    assert!(world.log.iter().any(|(index, event)| *index == 0 && matches!(event, Event::NameClash { .. })));
    assert_eq!(world.engine(0).address_of(&node(1)), Some(address(1)));
    assert_eq!(world.live(0), ["n0", "n1", "n2"]);
    assert_eq!(world.live(2), ["n0", "n1", "n2"]);
}

#[test]
fn replayed_datagrams_change_nothing() {
    let mut world = World::new(2);
    // Everything n1 sends is recorded.
    let mut record = Vec::new();
    for _ in 0..200 {
        world.run(MS);
        let flying = world.flying.iter();
        record.extend(
            flying.filter(|(_, from, _)| *from == address(1)).map(|(_, _, transmit)| transmit.datagram.clone()),
        );
    }
    world.engines[1] = None;
    world.run(30_000 * MS);
    assert_eq!(world.live(0), ["n0"]);
    for datagram in &record {
        let now = world.now;
        world.engine(0).handle_datagram(now, address(1), datagram);
    }
    world.run(100 * MS);
    assert_eq!(world.live(0), ["n0"], "the dead do not come back to life from a record");
    // Neither do they for a later life of ours.
    world.start(0);
    for datagram in &record {
        let now = world.now;
        world.engine(0).handle_datagram(now, address(1), datagram);
    }
    world.run(100 * MS);
    assert_eq!(world.live(0), ["n0"]);
    assert!(!record.is_empty());
}

/// A small generator for junk (xorshift64).
fn junk(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Bytes that a member, or nobody, might have written: whole messages, changed ones, noise.
fn hostile_body(state: &mut u64, to: u64, recorded: &[Vec<u8>]) -> Vec<u8> {
    let names = [node(0), node(1), node(2), "x".repeat(253).as_str().into()];
    let name = names[junk(state) as usize % names.len()].clone();
    let identity = Identity::new(name.clone(), address(junk(state) as usize % 5), junk(state));
    let ips = (0..junk(state) % 64).map(|_| IpAddr::from((junk(state) as u32).to_be_bytes())).collect();
    let message = match junk(state) % 10 {
        0 => Message::Welcome(identity),
        1 => Message::Outlived(junk(state)),
        2 => Message::Gossip((0..junk(state) % 1200).map(|_| junk(state) as u8).collect()),
        3 => Message::Ask { about: name, token: junk(state) as u32 },
        4 => Message::Verdict { about: name, token: junk(state) as u32 % 8, heard: junk(state).is_multiple_of(2) },
        5 => Message::Yielding { ips, since: junk(state) as u32 },
        6 => Message::Taken(ips),
        7 => Message::Refused(ips),
        _ => match recorded.get(junk(state) as usize % recorded.len().max(1)) {
            Some(bytes) => Message::Gossip(bytes.clone()),
            None => Message::Ping,
        },
    };
    let mut bytes = Body { to, standing: Standing::Able, message }.encode().unwrap_or_default();
    if junk(state).is_multiple_of(3) && !bytes.is_empty() {
        let place = junk(state) as usize % bytes.len();
        bytes[place] ^= 1 << (junk(state) % 8);
    }
    bytes
}

#[test]
fn a_hostile_key_holder_neither_crashes_nor_wedges_nor_grows_a_member() {
    for seed in 1..=5 {
        let mut world = World::new(3);
        let (mut state, keys) = (seed, Keyring::new([&b"secret"[..]]));
        let hostile = address(4);
        // It was a proper member, so that it is listened to.
        world.engines.push(None);
        world.engines.push(None);
        world.start(4);
        world.run(200 * MS);
        let session = world.engine(4).config.session;
        let mut sequence = 1 << 20;
        world.engines[4] = None;
        let to = world.engine(0).config.session;
        // What n1 tells n0 is known to it as well.
        let recorded: Vec<Vec<u8>> = world
            .flying
            .iter()
            .filter_map(|(_, _, transmit)| keys.open(&transmit.datagram).ok())
            .filter_map(|opened| match Body::decode(&opened.body)?.message {
                Message::Gossip(bytes) => Some(bytes),
                _ => None,
            })
            .collect();
        for _ in 0..2000 {
            sequence += 1;
            let body = hostile_body(&mut state, to, &recorded);
            let datagram = keys.seal(session, sequence, &body);
            let now = world.now;
            world.engine(0).handle_datagram(now, hostile, &datagram);
            world.run(MS / 4);
            assert!(world.engine(0).inquiries.len() <= INQUIRIES_MAX);
            assert!(world.engine(0).events.is_empty() && world.engine(0).outgoing.len() < 1000);
        }
        world.run(20_000 * MS);
        for index in 0..3 {
            let live = world.live(index);
            for member in ["n0", "n1", "n2"] {
                assert!(live.contains(&member), "seed {seed}: n{index} sees {live:?}");
            }
        }
    }
}

/// Two that never talked to each other; the first one takes the second one for a member.
fn strangers(now: Instant) -> [Engine; 2] {
    let mut engines = [0, 1].map(|index| {
        let mut engine = Engine::new(config(index, 1000), 1 + index as u64, now);
        engine.join(now, []);
        engine
    });
    engines[0].introduce(now, [config(1, 1000).me]);
    engines
}

fn sent(engine: &mut Engine) -> Vec<Transmit> {
    std::iter::from_fn(|| engine.poll_transmit()).collect()
}

#[test]
fn what_overtakes_the_greeting_of_its_sender_is_heard() {
    let now = Instant::now();
    let [mut ours, mut theirs] = strangers(now);
    let ips: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
    ours.send(now, &node(1), Message::Taken(ips.clone()));
    for _ in 0..4 {
        // The last one first.
        for Transmit { datagram, .. } in sent(&mut ours).into_iter().rev() {
            theirs.handle_datagram(now, address(0), &datagram);
        }
        for Transmit { datagram, .. } in sent(&mut theirs) {
            ours.handle_datagram(now, address(1), &datagram);
        }
    }
    assert!(std::iter::from_fn(|| theirs.poll_event()).any(|event| event == Event::Taken(node(0), ips.clone())));
}

#[test]
fn who_is_to_be_told_something_is_greeted_until_it_answers() {
    let begin = Instant::now();
    for (lost, patience) in [(0, 0), (1, 50), (2, 150), (3, 350), (4, 750)] {
        let [mut ours, mut theirs] = strangers(begin);
        let ips: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        ours.send(begin, &node(1), Message::Taken(ips.clone()));
        let (mut now, mut left, mut heard) = (begin, lost, false);
        while !heard && now <= begin + patience * MS {
            for Transmit { datagram, .. } in sent(&mut ours) {
                let greets = left > 0;
                left -= usize::from(greets);
                if !greets {
                    theirs.handle_datagram(now, address(0), &datagram);
                }
            }
            for _ in 0..3 {
                for Transmit { datagram, .. } in sent(&mut theirs) {
                    ours.handle_datagram(now, address(1), &datagram);
                }
                for Transmit { datagram, .. } in sent(&mut ours) {
                    theirs.handle_datagram(now, address(0), &datagram);
                }
            }
            heard = std::iter::from_fn(|| theirs.poll_event()).any(|event| event == Event::Taken(node(0), ips.clone()));
            now += MS;
            ours.handle_timeout(now);
        }
        assert!(heard, "{lost} greetings were lost");
    }
}

#[test]
fn who_has_no_key_is_not_answered() {
    let mut world = World::new(2);
    let mut state = 7;
    let (before, sent) = (world.engine(0).counters(), world.flying.len());
    for length in 0..2000_usize {
        let datagram: Vec<u8> = (0..length).map(|_| junk(&mut state) as u8).collect();
        let now = world.now;
        world.engine(0).handle_datagram(now, address(9), &datagram);
    }
    let after = world.engine(0).counters();
    let refused = |Refused { malformed, sealed_otherwise, unknown_key, forged }: Refused| {
        malformed + sealed_otherwise + unknown_key + forged
    };
    assert_eq!(refused(after.refused) - refused(before.refused), 2000);
    assert_eq!((after.received, after.strangers), (before.received, before.strangers));
    assert_eq!(world.flying.len(), sent);
    assert_eq!(world.engine(0).poll_transmit(), None);
}

#[test]
fn members_know_the_hardware_of_each_other_though_a_word_is_lost() {
    let mut world = World::new(3);
    let mac = |index: usize| [2, 0, 0, 0, 0, index as u8];
    // The first word reaches nobody.
    world.passes = |_, to| to != address(1);
    for index in 0..3 {
        let now = world.now;
        world.engines[index].as_mut().unwrap().set_hardware(now, [mac(index), [2, 0, 0, 0, 1, 0]]);
    }
    world.run(20 * MS);
    let others = |world: &World, index: usize| world.engines[index].as_ref().unwrap().hardware_of_others();
    assert!(others(&world, 1).is_empty());
    world.passes = |_, _| true;
    world.run(3000 * MS);
    for index in 0..3 {
        let expected: BTreeSet<_> =
            (0..3).filter(|&other| other != index).map(mac).chain([[2, 0, 0, 0, 1, 0]]).collect();
        assert_eq!(others(&world, index), expected);
    }
    // Who comes later learns of them from those who greet it, and a change is told at once.
    world.start(0);
    world.run(500 * MS);
    assert_eq!(others(&world, 0), BTreeSet::from([mac(1), mac(2), [2, 0, 0, 0, 1, 0]]));
    let now = world.now;
    world.engines[2].as_mut().unwrap().set_hardware(now, [mac(7)]);
    world.run(5 * MS);
    assert_eq!(others(&world, 0), BTreeSet::from([mac(1), mac(7), [2, 0, 0, 0, 1, 0]]));
}

/// Nothing passes to or from the first host.
fn first_is_apart(from: SocketAddr, to: SocketAddr) -> bool {
    from != address(0) && to != address(0)
}

#[test]
fn who_lost_its_link_is_silent_and_hears_the_others_before_it_stands_for_election_again() {
    let mut world = World::new(3);
    let now = world.now;
    world.engine(0).set_link(Link::Down);
    world.engine(0).set_standing(now, Standing::Unable);
    world.passes = first_is_apart;
    for _ in 0..2500 {
        world.run(MS);
        assert!(!world.flying.iter().any(|(_, from, _)| *from == address(0)), "a kernel would ask for neighbours");
    }
    assert_eq!(world.live(1), ["n1", "n2"]);
    world.passes = |_, _| true;
    let now = world.now;
    world.engine(0).set_link(Link::Up);
    world.engine(0).set_standing(now, Standing::Able);
    for _ in 0..20 {
        let live = world.live(0);
        assert!(!live.contains(&"n0") || live.len() == 3, "it stands for election, and sees {live:?}");
        world.run(MS / 4);
    }
    for index in 0..3 {
        assert_eq!(world.live(index), ["n0", "n1", "n2"], "{:?}", world.log);
    }
}

#[test]
fn whose_link_returns_and_whom_nobody_answers_stands_for_election_soon() {
    let mut world = World::new(3);
    let now = world.now;
    world.passes = first_is_apart;
    world.engine(0).set_standing(now, Standing::Unable);
    world.run(2500 * MS);
    let now = world.now;
    world.engine(0).set_standing(now, Standing::Able);
    world.run(140 * MS);
    assert_eq!(world.live(0), [""; 0]);
    world.run(20 * MS);
    assert_eq!(world.live(0), ["n0"]);
    // Who cannot announce after all does not.
    let now = world.now;
    world.engine(0).set_standing(now, Standing::Unable);
    world.engine(0).set_standing(now, Standing::Able);
    world.engine(0).set_standing(now, Standing::Unable);
    world.run(500 * MS);
    assert_eq!(world.live(0), [""; 0]);
}

#[test]
fn after_a_short_partition_all_hear_each_other_at_once() {
    for pause in [2000, 5000] {
        let mut world = World::new(3);
        world.passes = first_is_apart;
        world.run(pause * MS);
        assert_eq!((world.live(0), world.live(1)), (vec!["n0"], vec!["n1", "n2"]));
        world.passes = |_, _| true;
        world.run(25 * MS);
        for index in 0..3 {
            assert_eq!(world.live(index), ["n0", "n1", "n2"], "{:?}", world.log);
        }
    }
}

#[test]
fn who_is_cut_off_from_many_knows_it_within_two_seconds() {
    let mut world = World::new(14);
    world.run(2000 * MS);
    world.passes = first_is_apart;
    world.run(2000 * MS);
    assert_eq!(world.live(0), ["n0"], "{:?}", world.log);
    world.passes = |_, _| true;
    world.run(1500 * MS);
    for index in 0..14 {
        assert_eq!(world.live(index).len(), 14, "{:?}", world.log);
    }
}

#[test]
fn who_hears_none_of_several_may_be_deaf_and_who_misses_the_only_other_one_may_not() {
    for (size, deaf) in [(2, false), (3, true), (5, true)] {
        let mut world = World::new(size);
        world.run(2000 * MS);
        world.passes = |_, to| to != address(0);
        world.run(2000 * MS);
        assert_eq!(world.live(0), ["n0"], "{:?}", world.log);
        assert_eq!((world.engine(0).may_be_deaf(), world.engine(1).may_be_deaf()), (deaf, false), "one of {size}");
        world.passes = |_, _| true;
        world.run(1500 * MS);
        assert!(!world.engine(0).may_be_deaf(), "{:?}", world.log);
    }
}

#[test]
fn that_a_dead_member_talks_is_told_often_at_first_and_then_ever_more_seldom() {
    let mut world = World::new(3);
    world.run(2000 * MS);
    world.passes = |_, to| to != address(0);
    world.run(1000 * MS);
    let told = |world: &mut World, time| {
        world.log.clear();
        world.run(time);
        world.log.iter().filter(|(index, event)| *index == 1 && *event == Event::Lost(node(0))).count()
    };
    let (first, later) = (told(&mut world, 5000 * MS), told(&mut world, 60_000 * MS));
    assert!(
        (10..=16).contains(&first) && (6..=12).contains(&later),
        "{first} times in five seconds, {later} in the minute after"
    );
}

#[test]
fn an_idle_member_of_five_sends_forty_datagrams_a_second_beside_gossip() {
    let mut world = World::new(5);
    world.run(3000 * MS);
    let sent = |world: &World| (0..5).map(|index| world.engines[index].as_ref().unwrap().counters().sent).sum::<u64>();
    let before = sent(&world);
    world.run(10_000 * MS);
    let each = (sent(&world) - before) / 5 / 10;
    assert!((38..=46).contains(&each), "{each} datagrams a second");
}

#[test]
fn who_left_properly_and_returns_gives_nobody_reason_to_announce_anew() {
    let met = |world: &World| world.log.iter().any(|(_, event)| *event == Event::Met(node(1)));
    for leaves in [true, false] {
        let mut world = World::new(3);
        world.log.clear();
        if leaves {
            let now = world.now;
            world.engine(1).set_standing(now, Standing::Leaving);
            world.run(5 * MS);
            let now = world.now;
            world.engine(1).leave(now);
            world.run(5 * MS);
        }
        world.engines[1] = None;
        world.run(1000 * MS);
        world.start(1);
        world.run(100 * MS);
        assert_eq!(world.live(0), ["n0", "n1", "n2"]);
        assert_eq!(met(&world), !leaves, "{:?}", world.log);
    }
}

/// For whose hardware address a member asked within a second, and how often.
fn sought(world: &mut World, index: usize) -> BTreeMap<IpAddr, usize> {
    world.engine(index).poll_sought();
    let mut times = BTreeMap::new();
    for _ in 0..100 {
        world.run(10 * MS);
        let hosts = world.engine(index).poll_sought().unwrap_or_default();
        hosts.into_iter().for_each(|host| *times.entry(host).or_default() += 1);
    }
    times
}

#[test]
fn missing_members_are_asked_for_among_few_until_they_are_back() {
    for (size, expected) in [(3, true), (18, false)] {
        let mut world = World::new(size);
        world.run(2000 * MS);
        assert_eq!(sought(&mut world, 0), [].into());
        world.engines[2] = None;
        // When watching has found it dead, and when gossip has.
        for pause in [1000, 20_000] {
            world.run(pause * MS);
            let found = sought(&mut world, 0);
            assert_eq!(found, if expected { [(address(2).ip(), 5)].into() } else { [].into() }, "of {size}");
        }
        world.start(2);
        world.run(500 * MS);
        assert_eq!(sought(&mut world, 0), [].into());
    }
}

#[test]
fn whose_link_returns_asks_for_those_that_do_not_answer_it() {
    let mut world = World::new(3);
    world.run(2000 * MS);
    let now = world.now;
    world.engine(0).set_link(Link::Down);
    world.engine(0).set_standing(now, Standing::Unable);
    world.run(5000 * MS);
    assert_eq!(sought(&mut world, 0), [].into(), "it could not ask");
    world.passes = first_is_apart;
    let now = world.now;
    world.engine(0).set_link(Link::Up);
    world.engine(0).set_standing(now, Standing::Able);
    let both = [1, 2].map(|index| address(index).ip());
    for _ in 0..3 {
        assert_eq!(world.engine(0).poll_sought(), Some(both.to_vec()));
        world.run(20 * MS);
    }
}
