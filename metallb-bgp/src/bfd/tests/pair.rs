//! Two engines on one virtual link.

use std::collections::BTreeMap;

use super::invariants::Monitor;
use super::*;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

pub(super) struct Pair {
    start: Instant,
    pub(super) now: Instant,
    pub(super) ends: [Engine; 2],
    pub(super) keys: [SessionKey; 2],
    /// Check the invariants after every step.
    monitors: [Monitor; 2],
    /// Datagrams in flight, by arrival time and number.
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    random: SmallRng,
    pub(super) delay: Duration,
    /// Lost datagrams per 1,000, by sender.
    pub(super) loss: [u64; 2],
    /// Maximum number of consecutive losses per direction.
    max_burst: u64,
    lost: [u64; 2],
    pub(super) changes: Vec<(Instant, usize, StateChange)>,
    pub(super) packets: Vec<(Instant, usize, ControlPacket)>,
}

impl Pair {
    fn new(profiles: [Profile; 2]) -> Self {
        let start = Instant::now();
        let keys = [SessionKey::new(PEER, Hops::Single), SessionKey::new(LOCAL, Hops::Single)];
        let mut ends = [Engine::new(1), Engine::new(2)];
        for ((engine, key), profile) in ends.iter_mut().zip(keys).zip(profiles) {
            engine.add_session(start, key, profile).unwrap();
        }
        Self {
            start,
            now: start,
            ends,
            keys,
            monitors: Default::default(),
            wire: BTreeMap::new(),
            sent: 0,
            random: SmallRng::seed_from_u64(9),
            delay: Duration::from_micros(200),
            loss: [0, 0],
            max_burst: u64::MAX,
            lost: [0, 0],
            changes: Vec::new(),
            packets: Vec::new(),
        }
    }

    pub(super) fn both(profile: Profile) -> Self {
        Self::new([profile, profile])
    }

    /// Delivers a forged datagram to an end, with the address of the other end.
    pub(super) fn forge(&mut self, to: usize, payload: Vec<u8>) {
        self.sent += 1;
        self.wire.insert((self.now, self.sent), (to, payload));
    }

    /// Replaces an end by a new process.
    pub(super) fn reboot(&mut self, end: usize, seed: u64, profile: Profile) {
        self.ends[end] = Engine::new(seed);
        self.ends[end].add_session(self.now, self.keys[end], profile).unwrap();
        self.monitors[end] = Monitor::default();
    }

    pub(super) fn run(&mut self, length: Duration) {
        let until = self.now + length;
        self.collect();
        loop {
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timers = self.ends.iter().filter_map(Engine::poll_timeout);
            let Some(next) = timers.chain(arrival).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, payload) = entry.remove();
                let (remote, local) = (self.keys[to].remote, self.keys[1 - to].remote);
                let meta = Meta { remote, local, ..meta(Hops::Single) };
                // A session that is administratively down drops packets.
                if self.ends[to].handle_packet(self.now, &meta, &payload).is_ok() {
                    self.monitors[to].received(self.now);
                }
            }
            for engine in &mut self.ends {
                engine.handle_timeout(self.now);
            }
            self.collect();
        }
        self.now = until;
    }

    fn collect(&mut self) {
        for (from, engine) in self.ends.iter_mut().enumerate() {
            self.monitors[from].observe(engine.session(&self.keys[from]).as_ref());
            while let Some(transmit) = engine.poll_transmit() {
                let packet = ControlPacket::decode(transmit.payload()).unwrap();
                self.monitors[from].sent(self.now, packet);
                self.packets.push((self.now, from, packet));
                let lose = self.random.random_range(0..1_000_u64) < self.loss[from] && self.lost[from] < self.max_burst;
                self.lost[from] = if lose { self.lost[from] + 1 } else { 0 };
                if !lose {
                    self.sent += 1;
                    self.wire.insert((self.now + self.delay, self.sent), (1 - from, transmit.payload().to_vec()));
                }
            }
            while let Some(event) = engine.poll_event() {
                if let EventKind::StateChanged(change) = event.kind {
                    self.monitors[from].changed(self.now, &change);
                    self.changes.push((self.now, from, change));
                }
            }
            self.monitors[from].check(self.now, engine.session(&self.keys[from]).as_ref());
        }
    }

    pub(super) fn states(&self) -> [Option<State>; 2] {
        [0, 1].map(|end| self.ends[end].session(&self.keys[end]).map(|session| session.state))
    }

    fn downs(&self) -> usize {
        self.changes.iter().filter(|(_, _, change)| change.from == State::Up).count()
    }
}

pub(super) const UP: [Option<State>; 2] = [Some(State::Up); 2];

pub(super) fn fast(multiplier: u8) -> Profile {
    Profile {
        transmit_interval: Interval(50_000),
        receive_interval: Interval(50_000),
        detect_multiplier: std::num::NonZeroU8::new(multiplier).unwrap(),
        ..Profile::default()
    }
}

#[test]
fn handshake_completes_in_every_order() {
    // BFD-23: several delays, and losses of the first packets in every combination.
    for lost in 0..64_u32 {
        for delay in [0, 1, 300, 900] {
            let mut pair = Pair::both(Profile::default());
            pair.delay = Duration::from_millis(delay);
            for step in 0..6 {
                pair.loss = if lost >> step & 1 == 1 { [1_000, 0] } else { [0, 1_000] };
                pair.run(Duration::from_millis(400));
            }
            pair.loss = [0, 0];
            pair.run(Duration::from_secs(10));
            assert_eq!(pair.states(), UP, "losses {lost:b}, delay {delay} ms");
        }
    }
}

#[test]
fn losses_below_the_multiplier_keep_the_session_up() {
    let mut pair = Pair::both(fast(3));
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), UP);
    (pair.loss, pair.max_burst) = ([600, 600], 2);
    pair.run(Duration::from_secs(100));
    assert_eq!((pair.states(), pair.downs()), (UP, 0));
    pair.max_burst = 4;
    pair.run(Duration::from_secs(100));
    assert!(pair.downs() > 0, "four lost packets are more than three intervals");
}

#[test]
fn partition_takes_both_ends_down_within_the_detection_time() {
    let mut pair = Pair::both(fast(3));
    pair.run(Duration::from_secs(5));
    pair.loss = [1_000, 1_000];
    let cut = pair.now;
    pair.run(Duration::from_millis(151));
    assert_eq!(pair.states(), [Some(State::Down); 2]);
    for (at, _, change) in pair.changes.iter().filter(|(at, ..)| *at > cut) {
        assert_eq!(change.cause, Cause::DetectionTimeExpired);
        assert!(*at - cut >= Duration::from_millis(100) - pair.delay, "I41: never early");
    }
    pair.loss = [0, 0];
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.states(), UP);
}

#[test]
fn unidirectional_link_takes_both_ends_down() {
    let mut pair = Pair::both(fast(3));
    pair.run(Duration::from_secs(5));
    pair.loss = [1_000, 0];
    pair.run(Duration::from_millis(300));
    assert!(pair.states().iter().all(|state| *state != Some(State::Up)));
    let causes: BTreeSet<_> =
        pair.changes.iter().filter(|(_, _, c)| c.from == State::Up).map(|(_, _, c)| c.cause).collect();
    assert_eq!(causes, BTreeSet::from([Cause::DetectionTimeExpired, Cause::NeighborDown]));
}

#[test]
fn slower_side_determines_the_timers() {
    let slow = Profile { receive_interval: Interval(400_000), transmit_interval: Interval(100_000), ..fast(5) };
    let mut pair = Pair::new([fast(3), slow]);
    pair.run(Duration::from_secs(10));
    let sessions = [0, 1].map(|end| pair.ends[end].session(&pair.keys[end]).unwrap());
    assert_eq!(sessions[0].transmit_interval, Some(Duration::from_millis(400)));
    assert_eq!(sessions[1].transmit_interval, Some(Duration::from_millis(100)));
    assert_eq!(sessions[0].detection_time, Duration::from_millis(500));
    assert_eq!(sessions[1].detection_time, Duration::from_millis(1_200));
    // I40: periodic packets stay within the bounds of jitter.
    let settled = pair.start + Duration::from_secs(8);
    let times: Vec<_> =
        pair.packets.iter().filter(|(at, end, _)| *end == 1 && *at > settled).map(|(at, ..)| *at).collect();
    for gap in times.windows(2).map(|pair| pair[1] - pair[0]) {
        assert!((75..=100).contains(&gap.as_millis()), "{gap:?}");
    }
}

#[test]
fn multiplier_of_one_without_loss_keeps_the_session_up() {
    let mut pair = Pair::both(fast(1));
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), UP);
    let before = pair.packets.len();
    pair.run(Duration::from_secs(1_000));
    assert!(pair.packets.len() - before > 40_000);
    assert_eq!(pair.downs(), 0, "BFD-25");
}

#[test]
fn random_loss_takes_the_session_down_at_the_predicted_rate() {
    // BFD-26, one direction lossy. With jitter of 75 to 100 % the third packet after a received one is always within
    // three intervals and the fourth never reliably, so a drop follows each run of three losses, or four with short
    // gaps: the rate per packet lies between p^4 and p^3.
    let mut pair = Pair::both(Profile::default());
    pair.run(Duration::from_secs(5));
    pair.loss = [300, 0];
    let mut intervals = 0.0;
    let mut drops = 0;
    while intervals < 10_000.0 {
        let from = (pair.now, pair.downs());
        while pair.downs() == from.1 && pair.now - from.0 < Duration::from_secs(600) {
            pair.run(Duration::from_millis(100));
        }
        intervals += (pair.now - from.0).as_secs_f64() / 0.2625;
        if pair.downs() > from.1 {
            drops += 1;
            pair.loss = [0, 0];
            pair.run(Duration::from_secs(10));
            pair.loss = [300, 0];
        }
        pair.packets.clear();
        assert_eq!(pair.changes.iter().filter(|(_, end, c)| *end == 0 && c.cause == Cause::EchoFailed).count(), 0);
    }
    let rate = f64::from(drops) / intervals;
    assert!((0.3_f64.powi(4) * 0.7..=0.3_f64.powi(3) * 1.1).contains(&rate), "{rate}");
}

#[test]
fn rebooted_neighbor_takes_the_session_down_and_up() {
    let mut pair = Pair::both(Profile::default());
    pair.run(Duration::from_secs(5));
    let old = pair.ends[1].session(&pair.keys[1]).unwrap().discriminator;
    pair.reboot(1, 77, Profile::default());
    let new = pair.ends[1].session(&pair.keys[1]).unwrap().discriminator;
    assert_ne!(old, new, "BFD-24");
    pair.run(Duration::from_secs(5));
    assert_eq!((pair.states(), pair.downs()), (UP, 1));
    assert_eq!(pair.ends[0].session(&pair.keys[0]).unwrap().remote_discriminator, Some(new));
}

#[test]
fn killed_neighbor_is_detected_and_returns_with_another_discriminator() {
    let mut pair = Pair::both(Profile::default());
    pair.run(Duration::from_secs(5));
    let old = pair.ends[1].session(&pair.keys[1]).unwrap().discriminator;
    pair.ends[1] = Engine::new(78);
    pair.run(Duration::from_millis(901));
    assert_eq!(pair.states()[0], Some(State::Down), "BFD-41");
    let new = pair.ends[1].add_session(pair.now, pair.keys[1], Profile::default()).unwrap();
    pair.run(Duration::from_secs(5));
    assert_ne!(old, new);
    assert_eq!(pair.states(), UP);
}

#[test]
fn changed_profile_is_negotiated_while_up() {
    let mut pair = Pair::both(Profile::default());
    pair.run(Duration::from_secs(5));
    for (profile, interval) in [(fast(3), 300), (Profile::default(), 300), (fast(5), 300)] {
        pair.ends[0].update_session(pair.now, &pair.keys[0], profile);
        pair.run(Duration::from_secs(3));
        let session = pair.ends[0].session(&pair.keys[0]).unwrap();
        assert_eq!(session.transmit_interval, Some(Duration::from_millis(interval)));
    }
    pair.ends[1].update_session(pair.now, &pair.keys[1], fast(3));
    pair.run(Duration::from_secs(3));
    let session = pair.ends[0].session(&pair.keys[0]).unwrap();
    assert_eq!(session.transmit_interval, Some(Duration::from_millis(50)));
    assert_eq!((pair.states(), pair.downs()), (UP, 0), "BFD-39");
}

#[test]
fn removed_session_sends_admin_down_for_the_detection_time() {
    let mut pair = Pair::both(Profile::default());
    pair.run(Duration::from_secs(5));
    assert!(pair.ends[0].remove_session(pair.now, &pair.keys[0]));
    let from = pair.now;
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.states()[0], None);
    let sent: Vec<_> = pair.packets.iter().filter(|(at, end, _)| *end == 0 && *at >= from).collect();
    assert!(sent.iter().all(|(_, _, packet)| packet.state == State::AdminDown), "BFD-40");
    assert!(sent.last().unwrap().0 - from >= Duration::from_millis(900));
    let change = pair.changes.iter().find(|(at, end, _)| *end == 1 && *at > from).unwrap().2;
    assert_eq!(change.cause, Cause::NeighborAdminDown);
}

#[test]
fn session_added_during_its_removal_comes_up() {
    let mut pair = Pair::both(Profile::default());
    pair.run(Duration::from_secs(5));
    pair.ends[0].remove_session(pair.now, &pair.keys[0]);
    pair.run(Duration::from_millis(100));
    pair.ends[0].add_session(pair.now, pair.keys[0], Profile::default()).unwrap();
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), UP);
}

#[test]
fn thousand_sessions_transmit_on_time() {
    let start = Instant::now();
    let mut engine = Engine::new(3);
    for number in 0..1_000_u32 {
        let remote = std::net::IpAddr::from((0x0a00_0001 + number).to_be_bytes());
        engine.add_session(start, SessionKey::new(remote, Hops::Single), fast(3)).unwrap();
    }
    let until = start + Duration::from_secs(20);
    let mut sent = 0;
    while let Some(now) = engine.poll_timeout().filter(|at| *at <= until) {
        engine.handle_timeout(now);
        while engine.poll_transmit().is_some() {
            sent += 1;
        }
    }
    // Slow start with a mean interval of 875 ms: about 23 packets per session.
    assert!((21_000..=25_000).contains(&sent), "{sent}");
    assert!(engine.sessions().iter().all(|session| session.counters.transmissions_late == 0));
}
