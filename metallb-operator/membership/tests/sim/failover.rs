//! Membership, election, handover and responder in virtual time, on a network with faults of every kind.
//!
//! `METALLB_SIM_SEEDS` sets the number of seeds. `METALLB_SIM_SEED` replays a single one and prints its log.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use metallb_membership::engine::Event;
use metallb_membership::handover::REPEAT_ANNOUNCEMENT_AFTER;

use super::segment::{self, Away, MS, SECOND, Weather, World};

/// Longer than all speakers need to agree, and longer than a neighbour keeps an old cache entry (5 s).
const QUIET: u64 = 8 * SECOND;

#[test]
fn sim_faults_of_every_kind_leave_one_owner_in_each_part_of_the_segment() {
    if let Ok(seed) = std::env::var("METALLB_SIM_SEED") {
        let world = run(seed.parse().unwrap());
        world.log.iter().for_each(|line| println!("{line}"));
        assert!(world.violations.is_empty(), "{:#?}", world.violations);
        return;
    }
    let seeds: u64 = std::env::var("METALLB_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let world = run(seed);
            if !world.violations.is_empty() {
                failed.lock().unwrap().push((seed, world.violations));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    if let Some((seed, violations)) = failed.first() {
        let which: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        println!("{} of {seeds} seeds failed: {which:?}; replay the first one with", failed.len());
        let command = "cargo test --profile lab -p metallb-membership --test sim sim_faults -- --nocapture";
        println!("METALLB_SIM_SEED={seed} {command}");
        panic!("seed {seed}: {violations:#?}");
    }
}

/// Runs a segment with random faults.
fn run(seed: u64) -> World {
    run_beside(seed, 0)
}

/// Runs a segment with random faults, whose speakers need up to `busy` for each half of a step.
fn run_beside(seed: u64, busy: u64) -> World {
    let mut world = World::new(seed, 2 + (seed % 4) as usize);
    for index in 0..world.hosts.len() {
        world.start(index);
        let pause = world.random.below(100 * MS);
        world.run(pause);
    }
    world.run(3 * SECOND);
    world.check_quiet("at the start", Away::Reached);
    world.weather.busy = busy;
    for _ in 0..2 + world.random.below(3) {
        break_something(&mut world);
        if world.random.chance(40) {
            break_something(&mut world);
        }
        let pause = 50 * MS + world.random.below(4 * SECOND);
        world.run(pause);
        if world.random.chance(50) {
            heal(&mut world);
        }
    }
    // Faults of hosts stay; faults of the network end.
    world.note("faults of the network end, the partition stays");
    world.weather = Weather { api_away: world.weather.api_away, ..Weather::default() };
    world.hosts.iter_mut().for_each(|host| host.unheard.clear());
    if world.weather.api_away {
        world.api_returns();
    }
    if busy > 0 {
        world.run(4 * busy);
    }
    world.run(QUIET);
    world.check_quiet("with dead hosts and a partition", Away::Excused);
    heal(&mut world);
    world.run(QUIET);
    world.check_quiet("at the end", Away::Excused);
    if world.has_missed() {
        world.run(u64::try_from(REPEAT_ANNOUNCEMENT_AFTER.as_nanos()).unwrap());
        world.check_quiet("after the repeated announcement", Away::Reached);
    }
    world
}

fn break_something(world: &mut World) {
    let index = world.random.below(world.hosts.len() as u64) as usize;
    let what = world.random.below(13);
    world.note(&format!("n{index} {}", FAULTS[what as usize]));
    match what {
        0 | 1 => world.kill(index),
        2 => {
            world.kill(index);
            world.set_link(index, false);
        }
        3 => world.set_link(index, false),
        4 => world.hosts[index].stopped = true,
        5 => {
            for place in 0..world.hosts.len() {
                world.hosts[place].side = world.random.below(2) as u8;
            }
        }
        6 => {
            let other = world.random.below(world.hosts.len() as u64) as usize;
            world.hosts[index].unheard.insert(other);
        }
        7 => world.weather.loss = 1 + world.random.below(40),
        8 => world.weather.delay = world.random.below(300 * MS),
        9 => {
            let excluded = !world.hosts[index].excluded;
            world.set_excluded(index, excluded);
        }
        10 => world.terminate(index),
        11 => {
            let vip = world.vips[world.random.below(world.vips.len() as u64) as usize];
            world.set_own(index, BTreeSet::from([vip]));
        }
        _ => world.weather.api_away = true,
    }
}

/// The faults of [`break_something`], for the log.
const FAULTS: [&str; 13] = [
    "killed",
    "killed",
    "killed, link lost",
    "link lost",
    "stopped by SIGSTOP",
    "and others: partition",
    "does not hear another host",
    "and all: loss",
    "and all: delay",
    "exclude label changed",
    "terminated",
    "its kernel has an address",
    "and all: API servers away",
];

fn heal(world: &mut World) {
    world.note("heals");
    world.weather = Weather { api_away: world.weather.api_away, busy: world.weather.busy, ..Weather::default() };
    if world.weather.api_away {
        world.api_returns();
    }
    for index in 0..world.hosts.len() {
        world.hosts[index].side = 0;
        world.hosts[index].unheard.clear();
        world.set_own(index, BTreeSet::new());
        if !world.hosts[index].link {
            world.set_link(index, true);
        }
        if world.hosts[index].stopped {
            world.resume(index);
        }
        if world.hosts[index].speaker.is_none() {
            world.start(index);
        }
        let pause = world.random.below(50 * MS);
        world.run(pause);
    }
}

#[test]
fn sim_planned_moves_leave_no_gap_and_overlap_for_at_most_20_ms() {
    for seed in 0..50 {
        let mut world = World::new(seed, 3 + (seed % 3) as usize);
        (0..world.hosts.len()).for_each(|index| world.start(index));
        world.run(3 * SECOND);
        for _ in 0..6 {
            let index = world.random.below(world.hosts.len() as u64) as usize;
            match (&world.hosts[index].speaker, world.hosts[index].excluded) {
                (None, _) => world.start(index),
                (Some(_), true) => world.set_excluded(index, false),
                (Some(_), false) if world.random.chance(50) && others_can(&world, index) => {
                    world.set_excluded(index, true);
                }
                (Some(_), false) if others_can(&world, index) => world.terminate(index),
                _ => {}
            }
            let mut overlap = vec![0_u64; world.vips.len()];
            for _ in 0..4000 {
                world.run(MS / 4);
                for (place, vip) in world.vips.clone().into_iter().enumerate() {
                    let answering = world.answerers(vip).len();
                    assert!(answering >= 1, "seed {seed}: no node answers for {vip}");
                    overlap[place] += u64::from(answering > 1);
                }
            }
            // The API servers report the label up to 20 ms apart, which the speakers cannot change.
            let most = overlap.iter().max().unwrap() / 4;
            assert!(most <= 20 + 20, "seed {seed}: two owners for {most} ms");
        }
        assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
    }
}

#[test]
fn sim_old_owner_stops_answering_when_the_new_one_rejects_the_handover() {
    for seed in 0..50 {
        let mut world = World::new(seed, 3 + (seed % 3) as usize);
        (0..world.hosts.len()).for_each(|index| world.start(index));
        world.run(3 * SECOND);
        let vip = world.vips[0];
        let owner = world.answerers(vip)[0];
        (0..world.hosts.len()).filter(|&index| index != owner).for_each(|index| world.set_own(index, [vip].into()));
        match seed % 2 {
            0 => world.set_excluded(owner, true),
            _ => world.terminate(owner),
        }
        let from = world.now;
        while !world.answerers(vip).is_empty() {
            world.run(MS);
        }
        // Labels arrive within 20 ms, and an offer is repeated after 40.
        let took = (world.now - from) / MS;
        assert!(took < 100, "seed {seed}: it answers for another {took} ms");
        world.run(QUIET);
        world.check_quiet("while the kernel of each other node has it", Away::Reached);
        (0..world.hosts.len()).for_each(|index| world.set_own(index, BTreeSet::new()));
        world.run(SECOND);
        world.check_quiet("when no kernel has it", Away::Reached);
        assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
    }
}

#[test]
fn sim_owner_with_a_unidirectional_link_is_replaced_and_misleads_neighbours_for_less_than_500_ms() {
    for seed in 0..4 {
        let mut world = World::new(seed, 3 + (seed % 3) as usize);
        (0..world.hosts.len()).for_each(|index| world.start(index));
        let pause = world.random.below(SECOND);
        world.run(3 * SECOND + pause);
        let owner = world.answerers(world.vips[0])[0];
        world.block_receiving(owner);
        world.run(SECOND);
        let believed =
            |world: &World, vip: &IpAddr| world.caches[0].get(vip).is_some_and(|&at| at == segment::mac(owner));
        let mut misled = vec![0; world.vips.len()];
        for _ in 0..3_000 {
            world.run(5 * MS);
            for (vip, misled) in world.vips.clone().into_iter().zip(&mut misled) {
                let heard = world.answerers(vip).into_iter().any(|index| index != owner);
                assert!(
                    heard,
                    "seed {seed}: at {} ms only n{owner}, which does not receive, answers for {vip}",
                    world.now / MS
                );
                *misled = if believed(&world, &vip) { *misled + 5 } else { 0 };
                assert!(
                    *misled <= 500,
                    "seed {seed}: at {} ms the neighbour has {vip} at n{owner} for too long",
                    world.now / MS
                );
            }
        }
        // Its repeated announcements are corrected, too.
        world.run(60 * SECOND);
        let misled: Vec<_> = world.vips.iter().filter(|vip| believed(&world, vip)).collect();
        assert!(misled.is_empty(), "seed {seed}: the neighbour has {misled:?} at n{owner}, which does not receive");
        world.hosts[owner].unheard.clear();
        world.run(QUIET);
        world.check_quiet("when it receives again", Away::Reached);
        assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
    }
}

#[test]
fn sim_busy_loops_delay_no_takeover() {
    let mut delays = [Vec::new(), Vec::new()];
    for seed in 0..40 {
        for (busy, delays) in [0, 4 * SECOND].into_iter().zip(&mut delays) {
            let mut world = World::new(seed, 3 + (seed % 3) as usize);
            (0..world.hosts.len()).for_each(|index| world.start(index));
            let pause = world.random.below(SECOND);
            world.run(3 * SECOND + pause);
            // From now on each step of a loop takes up to eight seconds. One begins right before the death.
            world.weather.busy = busy;
            (0..world.hosts.len()).for_each(|index| world.replan_soon(index));
            world.run(5 * MS);
            let vip = world.vips[0];
            let owner = world.answerers(vip)[0];
            world.kill(owner);
            let died = world.now;
            while world.answerers(vip).is_empty() {
                world.run(MS);
                assert!(world.now < died + SECOND, "seed {seed}: no node took over");
            }
            delays.push((world.now - died) / MS);
            world.weather.busy = 0;
            world.run(2 * QUIET + 8 * SECOND);
            world.check_quiet("after a busy time", Away::Reached);
            assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
        }
    }
    let [idle, busy] = delays.map(|mut delays| {
        delays.sort_unstable();
        (delays[delays.len() / 2], delays[delays.len() - 1])
    });
    println!("takeover in virtual time, p50 and max: idle loops {idle:?} ms, busy loops {busy:?} ms");
    assert!(busy.0 <= idle.0 + 20 && busy.1 <= idle.1 + 20, "idle {idle:?}, busy {busy:?}");
}

#[test]
fn sim_faults_beside_busy_loops_leave_one_owner_when_the_loops_are_idle() {
    let seeds: u64 = std::env::var("METALLB_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    for seed in 0..seeds {
        let world = run_beside(10_000 + seed, 2 * SECOND);
        assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
    }
}

/// Whether another node can take over.
fn others_can(world: &World, index: usize) -> bool {
    let able = |(place, host): (usize, &segment::Host)| place != index && host.speaker.is_some() && !host.excluded;
    world.hosts.iter().enumerate().filter(|(place, host)| able((*place, host))).count() > 1
}

#[test]
fn sim_dead_owner_is_replaced_within_a_second_and_loss_causes_no_false_death() {
    let mut detection = Vec::new();
    for seed in 0..100 {
        let mut world = World::new(seed, 3 + (seed % 3) as usize);
        (0..world.hosts.len()).for_each(|index| world.start(index));
        let pause = world.random.below(SECOND);
        world.run(3 * SECOND + pause);
        let vip = world.vips[0];
        let owner = world.answerers(vip)[0];
        world.kill(owner);
        let died = world.now;
        while world.answerers(vip).is_empty() {
            world.run(MS);
            assert!(world.now < died + SECOND, "seed {seed}: no node took over");
        }
        detection.push((world.now - died) / MS);
    }
    detection.sort_unstable();
    println!("takeover in virtual time: p50 {} ms, p99 {} ms, max {} ms", detection[50], detection[98], detection[99]);
    for loss in [1, 5] {
        let (mut suspected, mut dead) = (0, 0);
        for seed in 0..10 {
            let mut world = World::new(seed, 5);
            (0..world.hosts.len()).for_each(|index| world.start(index));
            world.run(3 * SECOND);
            world.weather.loss = loss;
            world.run(60 * SECOND);
            suspected += world.count_events(|event| matches!(event, Event::Suspected(_)));
            dead += world.count_events(|event| matches!(event, Event::DeclaredDead { .. }));
        }
        println!("{loss} % loss, 5 nodes, 10 minutes: {suspected} suspicions, {dead} false deaths");
        assert_eq!(dead, 0);
    }
}
