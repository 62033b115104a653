//! A few engines on a network that delays or blocks datagrams. `tests/sim` simulates more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use metallb_l2::interface::MacAddr;
use rand::Rng as _;

use super::*;
use crate::engine::indirect::REQUESTS_MAX;
use crate::wire::seal::DATAGRAM_MAX;

const MS: Duration = Duration::from_millis(1);

/// Engines on a network with a delay of a millisecond.
struct World {
    now: Instant,
    engines: Vec<Option<Engine>>,
    flying: VecDeque<(Instant, SocketAddr, Transmit)>,
    log: Vec<(usize, Event)>,
    /// Whether a datagram may pass from one host to another.
    passes: fn(SocketAddr, SocketAddr) -> bool,
    incarnations: u64,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8], 7946))
}

fn node(index: usize) -> NodeName {
    format!("n{index}").into()
}

fn config(index: usize, incarnation: u64) -> Config {
    Config {
        me: Identity::new(node(index), address(index), incarnation),
        session: incarnation << 8 | index as u64,
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
            incarnations: 1000,
        };
        (0..size).for_each(|index| world.start(index));
        world.run(500 * MS);
        world
    }

    fn start(&mut self, index: usize) {
        self.incarnations += 1000;
        let mut engine = Engine::new(config(index, self.incarnations), self.incarnations, self.now);
        engine.join(self.now, (0..self.engines.len()).map(address));
        engine.monitor(self.now, (0..self.engines.len()).map(node));
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
fn members_that_start_together_know_each_other_within_half_a_second() {
    let mut world = World::new(3);
    for index in 0..3 {
        assert_eq!(world.live(index), ["n0", "n1", "n2"]);
        assert!(world.engine(index).has_joined());
    }
    let suspected = world.log.iter().any(|(_, event)| matches!(event, Event::Suspected(_)));
    assert!(!suspected, "{:?}", world.log);
}

#[test]
fn dead_member_is_removed_within_half_a_second_and_restarted_member_is_added_at_once() {
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
fn member_that_one_other_does_not_hear_stays_live() {
    let mut world = World::new(3);
    world.passes = |from, to| ![(address(0), address(2)), (address(2), address(0))].contains(&(from, to));
    world.run(10_000 * MS);
    assert_eq!(world.live(0), ["n0", "n1", "n2"], "{:?}", world.log);
    assert_eq!(world.live(2), ["n0", "n1", "n2"]);
}

#[test]
fn partitioned_parts_are_separate_and_merge_within_two_seconds_of_healing() {
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
fn draining_member_is_removed_at_once() {
    let mut world = World::new(3);
    let now = world.now;
    world.engine(1).set_readiness(now, Readiness::Draining);
    world.run(3 * MS);
    assert_eq!(world.live(0), ["n0", "n2"]);
    let now = world.now;
    world.engine(1).leave(now);
    world.run(10 * MS);
    world.engines[1] = None;
    world.run(10_000 * MS);
    let suspected = world.log.iter().any(|(_, event)| matches!(event, Event::DeclaredDead { .. }));
    assert!(!suspected, "{:?}", world.log);
}

#[test]
fn node_whose_clock_was_set_back_before_a_restart_joins_again() {
    let mut world = World::new(3);
    world.engines[2] = None;
    world.run(100 * MS);
    world.incarnations = 0;
    world.start(2);
    world.run(1500 * MS);
    for index in 0..3 {
        assert_eq!(world.live(index), ["n0", "n1", "n2"], "{:?}", world.log);
    }
}

#[test]
fn second_host_under_a_live_name_is_ignored_and_reported() {
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
    // Record all datagrams of n1.
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
    assert_eq!(world.live(0), ["n0"], "a replay does not revive a dead member");
    // Nor does it after a restart of the receiver.
    world.start(0);
    for datagram in &record {
        let now = world.now;
        world.engine(0).handle_datagram(now, address(1), datagram);
    }
    world.run(100 * MS);
    assert_eq!(world.live(0), ["n0"]);
    assert!(!record.is_empty());
}

fn junk(rng: &mut SmallRng) -> u64 {
    rng.next_u64()
}

/// A body that a hostile key holder might send: a valid message, a damaged one or noise.
fn hostile_body(state: &mut SmallRng, to: u64, recorded: &[Vec<u8>]) -> Vec<u8> {
    let names = [node(0), node(1), node(2), "x".repeat(253).as_str().into()];
    let name = names[junk(state) as usize % names.len()].clone();
    let identity = Identity::new(name.clone(), address(junk(state) as usize % 5), junk(state));
    let ips = (0..junk(state) % 64).map(|_| IpAddr::from((junk(state) as u32).to_be_bytes())).collect();
    let message = match junk(state) % 10 {
        0 => Message::JoinAck(identity),
        1 => Message::StaleIncarnation(junk(state)),
        2 => Message::Gossip((0..junk(state) % 1200).map(|_| junk(state) as u8).collect()),
        3 => Message::PingReq { target: name, token: junk(state) as u32 },
        4 => Message::PingReqReply {
            target: name,
            token: junk(state) as u32 % 8,
            reachable: junk(state).is_multiple_of(2),
        },
        5 => Message::HandoverOffer { ips, since: junk(state) as u32 },
        6 => Message::HandoverAck(ips),
        7 => Message::HandoverReject(ips),
        _ => match recorded.get(junk(state) as usize % recorded.len().max(1)) {
            Some(bytes) => Message::Gossip(bytes.clone()),
            None => Message::Ping,
        },
    };
    let mut bytes = Body { receiver_session: to, readiness: Readiness::Ready, message }.encode().unwrap_or_default();
    if junk(state).is_multiple_of(3) && !bytes.is_empty() {
        let place = junk(state) as usize % bytes.len();
        bytes[place] ^= 1 << (junk(state) % 8);
    }
    bytes
}

#[test]
fn hostile_key_holder_does_not_crash_block_or_exhaust_a_member() {
    for seed in 1..=5 {
        let mut world = World::new(3);
        let (mut state, keys) = (SmallRng::seed_from_u64(seed), Keyring::new([&b"secret"[..]]));
        let hostile = address(4);
        // It joins as a regular member, so that its datagrams are accepted.
        world.engines.push(None);
        world.engines.push(None);
        world.start(4);
        world.run(200 * MS);
        let session = world.engine(4).config.session;
        let mut sequence = 1 << 20;
        world.engines[4] = None;
        let to = world.engine(0).config.session;
        // It has recorded what n1 sent to n0.
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
            assert!(world.engine(0).ping_requests.len() <= REQUESTS_MAX);
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

/// Two engines that have exchanged no datagram. The first one takes the second one for a member.
fn strangers(now: Instant) -> [Engine; 2] {
    let mut engines = [0, 1].map(|index| {
        let mut engine = Engine::new(config(index, 1000), 1 + index as u64, now);
        engine.join(now, []);
        engine
    });
    engines[0].assume_members(now, [config(1, 1000).me]);
    engines
}

fn sent(engine: &mut Engine) -> Vec<Transmit> {
    std::iter::from_fn(|| engine.poll_transmit()).collect()
}

#[test]
fn datagram_that_overtakes_the_join_ack_of_its_sender_is_processed() {
    let now = Instant::now();
    let [mut ours, mut theirs] = strangers(now);
    let ips: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
    ours.send(now, &node(1), Message::HandoverAck(ips.clone()));
    for _ in 0..4 {
        // In reverse order.
        for Transmit { datagram, .. } in sent(&mut ours).into_iter().rev() {
            theirs.handle_datagram(now, address(0), &datagram);
        }
        for Transmit { datagram, .. } in sent(&mut theirs) {
            ours.handle_datagram(now, address(1), &datagram);
        }
    }
    assert!(
        std::iter::from_fn(|| theirs.poll_event())
            .any(|event| event == Event::HandoverAcknowledged(node(0), ips.clone()))
    );
}

#[test]
fn host_with_a_pending_message_is_sent_join_until_it_answers() {
    let begin = Instant::now();
    for (lost, patience) in [(0, 0), (1, 50), (2, 150), (3, 350), (4, 750)] {
        let [mut ours, mut theirs] = strangers(begin);
        let ips: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        ours.send(begin, &node(1), Message::HandoverAck(ips.clone()));
        let (mut now, mut left, mut heard) = (begin, lost, false);
        while !heard && now <= begin + patience * MS {
            for Transmit { datagram, .. } in sent(&mut ours) {
                let is_lost = left > 0;
                left -= usize::from(is_lost);
                if !is_lost {
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
            heard = std::iter::from_fn(|| theirs.poll_event())
                .any(|event| event == Event::HandoverAcknowledged(node(0), ips.clone()));
            now += MS;
            ours.handle_timeout(now);
        }
        assert!(heard, "{lost} lost");
    }
}

#[test]
fn datagram_without_the_key_is_not_answered() {
    let mut world = World::new(2);
    let mut state = SmallRng::seed_from_u64(7);
    let (before, sent) = (world.engine(0).counters(), world.flying.len());
    for length in 0..2000_usize {
        let datagram: Vec<u8> = (0..length).map(|_| junk(&mut state) as u8).collect();
        let now = world.now;
        world.engine(0).handle_datagram(now, address(9), &datagram);
    }
    let after = world.engine(0).counters();
    let rejected = |Rejected { malformed, sealed_otherwise, unknown_key, forged }: Rejected| {
        malformed + sealed_otherwise + unknown_key + forged
    };
    assert_eq!(rejected(after.rejected) - rejected(before.rejected), 2000);
    assert_eq!((after.received, after.unknown_session), (before.received, before.unknown_session));
    assert_eq!(world.flying.len(), sent);
    assert_eq!(world.engine(0).poll_transmit(), None);
}

#[test]
fn hardware_addresses_reach_all_members_although_a_report_is_lost() {
    let mut world = World::new(3);
    let mac = |index: usize| MacAddr([2, 0, 0, 0, 0, index as u8]);
    let shared = MacAddr([2, 0, 0, 0, 1, 0]);
    // The first report to n1 is lost.
    world.passes = |_, to| to != address(1);
    for index in 0..3 {
        let now = world.now;
        world.engines[index].as_mut().unwrap().set_hardware(now, [mac(index), shared]);
    }
    world.run(20 * MS);
    let others = |world: &World, index: usize| world.engines[index].as_ref().unwrap().hardware_of_others();
    assert!(others(&world, 1).is_empty());
    world.passes = |_, _| true;
    world.run(3000 * MS);
    for index in 0..3 {
        let expected: BTreeSet<_> = (0..3).filter(|&other| other != index).map(mac).chain([shared]).collect();
        assert_eq!(others(&world, index), expected);
    }
    // A restarted member receives them with the handshake, and a change is reported at once.
    world.start(0);
    world.run(500 * MS);
    assert_eq!(others(&world, 0), BTreeSet::from([mac(1), mac(2), shared]));
    let now = world.now;
    world.engines[2].as_mut().unwrap().set_hardware(now, [mac(7)]);
    world.run(5 * MS);
    assert_eq!(others(&world, 0), BTreeSet::from([mac(1), mac(7), shared]));
}

/// The first host is isolated.
fn first_is_isolated(from: SocketAddr, to: SocketAddr) -> bool {
    from != address(0) && to != address(0)
}

#[test]
fn member_without_link_sends_nothing_and_hears_the_others_before_it_is_ready_again() {
    let mut world = World::new(3);
    let now = world.now;
    world.engine(0).set_link(Link::Down);
    world.engine(0).set_readiness(now, Readiness::NotReady);
    world.passes = first_is_isolated;
    for _ in 0..2500 {
        world.run(MS);
        assert!(!world.flying.iter().any(|(_, from, _)| *from == address(0)), "the link is down");
    }
    assert_eq!(world.live(1), ["n1", "n2"]);
    world.passes = |_, _| true;
    let now = world.now;
    world.engine(0).set_link(Link::Up);
    world.engine(0).set_readiness(now, Readiness::Ready);
    for _ in 0..20 {
        let live = world.live(0);
        assert!(!live.contains(&"n0") || live.len() == 3, "ready while only {live:?} are live");
        world.run(MS / 4);
    }
    for index in 0..3 {
        assert_eq!(world.live(index), ["n0", "n1", "n2"], "{:?}", world.log);
    }
}

#[test]
fn member_whose_link_returns_without_answers_is_ready_after_150_ms() {
    let mut world = World::new(3);
    let now = world.now;
    world.passes = first_is_isolated;
    world.engine(0).set_readiness(now, Readiness::NotReady);
    world.run(2500 * MS);
    let now = world.now;
    world.engine(0).set_readiness(now, Readiness::Ready);
    world.run(140 * MS);
    assert_eq!(world.live(0), [""; 0]);
    world.run(20 * MS);
    assert_eq!(world.live(0), ["n0"]);
    // It loses the link again before it is ready.
    let now = world.now;
    world.engine(0).set_readiness(now, Readiness::NotReady);
    world.engine(0).set_readiness(now, Readiness::Ready);
    world.engine(0).set_readiness(now, Readiness::NotReady);
    world.run(500 * MS);
    assert_eq!(world.live(0), [""; 0]);
}

#[test]
fn members_merge_within_25_ms_of_a_short_partition() {
    for pause in [2000, 5000] {
        let mut world = World::new(3);
        world.passes = first_is_isolated;
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
fn isolated_member_of_a_large_cluster_finds_all_others_dead_within_two_seconds() {
    let mut world = World::new(14);
    world.run(2000 * MS);
    world.passes = first_is_isolated;
    world.run(2000 * MS);
    assert_eq!(world.live(0), ["n0"], "{:?}", world.log);
    world.passes = |_, _| true;
    world.run(1500 * MS);
    for index in 0..14 {
        assert_eq!(world.live(index).len(), 14, "{:?}", world.log);
    }
}

#[test]
fn unidirectional_link_is_assumed_only_when_several_members_are_missing() {
    for (size, expected) in [(2, false), (3, true), (5, true)] {
        let mut world = World::new(size);
        world.run(2000 * MS);
        world.passes = |_, to| to != address(0);
        world.run(2000 * MS);
        assert_eq!(world.live(0), ["n0"], "{:?}", world.log);
        assert_eq!(
            (world.engine(0).may_have_unidirectional_link(), world.engine(1).may_have_unidirectional_link()),
            (expected, false),
            "one of {size}"
        );
        world.passes = |_, _| true;
        world.run(1500 * MS);
        assert!(!world.engine(0).may_have_unidirectional_link(), "{:?}", world.log);
    }
}

#[test]
fn failure_of_an_unresponsive_member_is_repeated_at_growing_intervals() {
    let mut world = World::new(3);
    world.run(2000 * MS);
    world.passes = |_, to| to != address(0);
    world.run(1000 * MS);
    let repeated = |world: &mut World, time| {
        world.log.clear();
        world.run(time);
        world.log.iter().filter(|(index, event)| *index == 1 && *event == Event::Failed(node(0))).count()
    };
    let (first, later) = (repeated(&mut world, 5000 * MS), repeated(&mut world, 60_000 * MS));
    assert!(
        (10..=16).contains(&first) && (6..=12).contains(&later),
        "{first} times in five seconds, {later} in the minute after"
    );
}

#[test]
fn idle_member_of_five_sends_about_forty_datagrams_per_second() {
    let mut world = World::new(5);
    world.run(3000 * MS);
    let sent = |world: &World| (0..5).map(|index| world.engines[index].as_ref().unwrap().counters().sent).sum::<u64>();
    let before = sent(&world);
    world.run(10_000 * MS);
    let each = (sent(&world) - before) / 5 / 10;
    assert!((38..=46).contains(&each), "{each} datagrams per second");
}

#[test]
fn member_that_left_and_returns_is_not_reported_as_appeared() {
    let met = |world: &World| world.log.iter().any(|(_, event)| *event == Event::Appeared(node(1)));
    for leaves in [true, false] {
        let mut world = World::new(3);
        world.log.clear();
        if leaves {
            let now = world.now;
            world.engine(1).set_readiness(now, Readiness::Draining);
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

/// The hosts that a member resolved within a second, with the number of requests.
fn resolved(world: &mut World, index: usize) -> BTreeMap<IpAddr, usize> {
    world.engine(index).poll_resolve();
    let mut times = BTreeMap::new();
    for _ in 0..100 {
        world.run(10 * MS);
        let hosts = world.engine(index).poll_resolve().unwrap_or_default();
        hosts.into_iter().for_each(|host| *times.entry(host).or_default() += 1);
    }
    times
}

#[test]
fn unreachable_members_of_a_small_cluster_are_resolved_until_they_return() {
    for (size, expected) in [(3, true), (18, false)] {
        let mut world = World::new(size);
        world.run(2000 * MS);
        assert_eq!(resolved(&mut world, 0), [].into());
        world.engines[2] = None;
        // Dead for the failure detector, then for gossip.
        for pause in [1000, 20_000] {
            world.run(pause * MS);
            let found = resolved(&mut world, 0);
            assert_eq!(found, if expected { [(address(2).ip(), 5)].into() } else { [].into() }, "of {size}");
        }
        world.start(2);
        world.run(500 * MS);
        assert_eq!(resolved(&mut world, 0), [].into());
    }
}

#[test]
fn member_whose_link_returns_resolves_the_hosts_that_do_not_answer() {
    let mut world = World::new(3);
    world.run(2000 * MS);
    let now = world.now;
    world.engine(0).set_link(Link::Down);
    world.engine(0).set_readiness(now, Readiness::NotReady);
    world.run(5000 * MS);
    assert_eq!(resolved(&mut world, 0), [].into(), "the link is down");
    world.passes = first_is_isolated;
    let now = world.now;
    world.engine(0).set_link(Link::Up);
    world.engine(0).set_readiness(now, Readiness::Ready);
    let both = [1, 2].map(|index| address(index).ip());
    for _ in 0..3 {
        assert_eq!(world.engine(0).poll_resolve(), Some(both.to_vec()));
        world.run(20 * MS);
    }
}
