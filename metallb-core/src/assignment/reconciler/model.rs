//! An exhaustive search through everything that can happen between two controllers and one API server.
//!
//! The real [`Reconciler`](super::Reconciler) is driven in every interleaving of: changes by users, changes seen one by one, many at
//! once or from a server that lags, writes that arrive at any later time or never, answers that are lost, refusals, processes that
//! are killed, stopped and handed the Lease over. In each state it is asserted that no address is on two Services, unless a write
//! arrived of which the leader could not know and which it has not seen yet; that nobody loses an address that it may keep, but for
//! one who shows the same address and has the better claim; that a standby writes nothing; and that one write per object is under
//! way. From each state a fair run without faults serves everybody for whom there is an address, also those beside a write that
//! hangs.
//!
//! Each [`Flaw`] brings an error of earlier controllers back; the search finds all of them. The output of a failed search holds the
//! steps that lead to the error.

mod digest;
mod flaws;
mod search;
mod steps;
mod world;

use self::flaws::Flaw;
use self::search::{Search, Violation};
use self::steps::Step;
use self::world::{Budget, Wish, World};

#[test]
fn every_interleaving_keeps_the_rules_and_serves_everybody() {
    let mut search = Search::default();
    // Without optimisation the whole search takes minutes.
    let many = if cfg!(debug_assertions) { 1 } else { 2 };
    let budgets = [(FULL, many, 1), (FULL, 1, 2), (EMPTY, many, 1), (CONTENDED, 1, 2)];
    for (scene, changes, faults) in budgets {
        explore(&mut search, scene, &[], Budget { changes, faults }, None).expect("the rules hold");
    }
    assert!(search.states() > if cfg!(debug_assertions) { 1_000 } else { 100_000 }, "{} states", search.states());
}

#[test]
#[ignore = "takes minutes"]
fn every_interleaving_of_two_changes_and_two_faults_keeps_the_rules() {
    let mut search = Search::default();
    for scene in [FULL, CONTENDED, EMPTY] {
        explore(&mut search, scene, &[], Budget { changes: 2, faults: 2 }, None).expect("the rules hold");
    }
}

#[test]
fn pool_that_is_spoiled_or_deleted_and_returns_renumbers_no_service() {
    let mut search = Search::default();
    // Without optimisation the whole search takes minutes.
    let budgets: &[_] =
        if cfg!(debug_assertions) { &[(FULL, 1, 0)] } else { &[(FULL, 2, 0), (FULL, 1, 1), (CONTENDED, 2, 0)] };
    for &(scene, changes, faults) in budgets {
        let budget = Budget { changes, faults };
        explore_pools(&mut search, scene, budget, None).expect("the rules hold");
    }
}

#[test]
fn pool_that_is_forgotten_is_found() {
    let budget = Budget { changes: 1, faults: 0 };
    let found = explore_pools(&mut Search::default(), FULL, budget, Some(Flaw::ForgetsPools)).err();
    let found = found.expect("the search finds it");
    assert!(found.what.contains("loses the address") || found.what.contains("to lose the address"), "{}", found.what);
}

#[test]
fn change_that_is_forgotten_during_a_write_is_found() {
    assert_found(Flaw::ForgetsChanges, FULL, &[], (2, 0), "keeps the address");
}

#[test]
fn address_that_is_free_before_its_release_is_stored_is_found() {
    assert_found(Flaw::FreesAtOnce, FULL, &[], (1, 0), "on two Services");
}

#[test]
fn namesake_that_is_skipped_is_found() {
    assert_found(Flaw::SkipsNamesakes, EMPTY, &[], (3, 0), "waits");
}

#[test]
fn standby_that_decides_is_found() {
    // The leader sees two Services one after the other, the standby both at once.
    let seen = &[Step::Create(0), Step::Create(1), Step::Watch(0), Step::Watch(0), Step::List(1)];
    assert_found(Flaw::StandbyDecides, EMPTY, seen, (0, 1), "loses the address");
}

#[test]
fn old_list_that_is_believed_is_found() {
    assert_found(Flaw::BelievesOldLists, FULL, &[], (1, 1), "loses the address");
}

#[test]
fn unknown_end_that_counts_as_rejected_is_found() {
    let seen_together = &[Step::Delete(0), Step::Create(0), Step::List(0)];
    assert_found(Flaw::TakesUnknownForRejected, CONTENDED, seen_together, (0, 2), "on two Services");
}

#[test]
fn missing_repair_is_found() {
    assert_found(Flaw::NeverRepairs, FULL, &[], (2, 1), "stays on two Services");
}

fn assert_found(flaw: Flaw, scene: &[Step], begin: &[Step], (changes, faults): (u8, u8), expected: &str) {
    let found = explore(&mut Search::default(), scene, begin, Budget { changes, faults }, Some(flaw)).err();
    let found = found.unwrap_or_else(|| panic!("{flaw:?} is not found"));
    assert!(found.what.contains(expected), "{flaw:?}: {}", found.what);
}

/// Searches everything that can come after the steps of a scene, each of which came to rest, and some that did not.
fn explore(
    search: &mut Search,
    scene: &[Step],
    begin: &[Step],
    budget: Budget,
    flaw: Option<Flaw>,
) -> Result<(), Violation> {
    let mut world = World::new(Budget { changes: 10, faults: 0 }, flaw);
    for &step in scene {
        world = world.after(step).expect("a run without faults").rested();
    }
    for &step in begin {
        world = world.after(step).expect("a run without faults");
    }
    world.budget = budget;
    run(search, world, &format!("{scene:?}, {budget:?}, {flaw:?}"))
}

/// The same where users change the pool too.
fn explore_pools(search: &mut Search, scene: &[Step], budget: Budget, flaw: Option<Flaw>) -> Result<(), Violation> {
    let mut world = World::new(Budget { changes: 10, faults: 0 }, flaw);
    for &step in scene {
        world = world.after(step).expect("a run without faults").rested();
    }
    (world.budget, world.pool_changes) = (budget, true);
    run(search, world, &format!("{scene:?} and the pool, {budget:?}, {flaw:?}"))
}

fn run(search: &mut Search, world: World, title: &str) -> Result<(), Violation> {
    let result = search.run(world);
    println!("{title}: {} states, {} transitions", search.states(), search.transitions);
    if let Err(Violation { what, trace }) = &result {
        println!("{what}: {trace:?}");
    }
    result
}

const EMPTY: &[Step] = &[];
/// Two Services have the two addresses, and a third one waits.
const FULL: &[Step] = &[Step::Create(0), Step::Create(1), Step::Create(2)];
/// One Service has an address for which another one waits.
const CONTENDED: &[Step] = &[Step::Create(0), Step::Create(1), Step::Wish(1, Wish::Only(0))];
