//! Every state that can be reached, each visited once, and a fair run from each.

use rustc_hash::{FxHashMap, FxHashSet};

use super::digest::{Digest, digest};
use super::steps::Step;
use super::world::{ADDRESSES, Budget, Object, Pool, SERVICES, Wish, World, key};

/// A search in depth.
#[derive(Default)]
pub(super) struct Search {
    /// The budgets with which each state was reached, none of which allows all that another one does.
    visited: FxHashMap<Digest, Vec<Budget>>,
    /// States from which the fair run was seen to end well.
    rested: FxHashSet<Digest>,
    pub(super) transitions: u64,
}

/// What went wrong, and on which way.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) what: String,
    pub(super) trace: Vec<Step>,
}

struct Frame {
    world: World,
    /// The step that led here.
    step: Option<Step>,
    steps: Vec<Step>,
}

impl Search {
    pub(super) fn states(&self) -> usize {
        self.visited.len()
    }

    /// Visits everything that can be reached.
    pub(super) fn run(&mut self, initial: World) -> Result<(), Violation> {
        let mut path: Vec<Frame> = Vec::new();
        self.enter(initial, None, &mut path)?;
        while let Some(frame) = path.last_mut() {
            let Some(step) = frame.steps.pop() else {
                path.pop();
                continue;
            };
            self.transitions += 1;
            match frame.world.after(step) {
                Ok(next) => self.enter(next, Some(step), &mut path)?,
                Err(what) => return Err(violation(what, &path, [step])),
            }
        }
        Ok(())
    }

    fn enter(&mut self, world: World, step: Option<Step>, path: &mut Vec<Frame>) -> Result<(), Violation> {
        let digest = digest(&world);
        let budgets = self.visited.entry(digest).or_default();
        let (is_new, budget) = (budgets.is_empty(), world.budget);
        let covers = |a: &Budget, b: &Budget| a.changes >= b.changes && a.faults >= b.faults;
        if budgets.iter().any(|known| covers(known, &budget)) {
            return Ok(());
        }
        budgets.retain(|known| !covers(&budget, known));
        budgets.push(budget);
        if is_new {
            self.rest(&world).map_err(|(what, fair)| violation(what, path, step.into_iter().chain(fair)))?;
        }
        let mut steps = world.steps();
        // What costs nothing comes first, so that states are reached with the larger budget first.
        steps.reverse();
        steps.sort_by_key(|step| !step.is_costly());
        path.push(Frame { world, step, steps });
        Ok(())
    }

    /// Lets everything that is under way come to its end, fairly and without faults, writes of unknown end excepted, which never
    /// arrive. Where a write hangs, the others are served in spite of it.
    fn rest(&mut self, world: &World) -> Result<(), (String, Vec<Step>)> {
        let mut world = world.clone();
        let mut trace = Vec::new();
        let mut seen = Vec::new();
        loop {
            let digest = digest(&world);
            if self.rested.contains(&digest) {
                break;
            }
            seen.push(digest);
            if trace.len() > 300 {
                return Err(("there is no rest".to_owned(), trace));
            }
            let step = match world.fair_step() {
                Some(step) => step,
                None => {
                    world.check_rest().map_err(|what| (what, trace.clone()))?;
                    match world.expiring() {
                        Some(step) => step,
                        None => break,
                    }
                }
            };
            trace.push(step);
            world = world.after(step).map_err(|what| (what, trace.clone()))?;
        }
        self.rested.extend(seen);
        Ok(())
    }
}

fn violation(what: String, path: &[Frame], rest: impl IntoIterator<Item = Step>) -> Violation {
    Violation { what, trace: path.iter().filter_map(|frame| frame.step).chain(rest).collect() }
}

impl World {
    /// The world after everything has come to rest.
    pub(super) fn rested(mut self) -> Self {
        while let Some(step) = self.fair_step() {
            self = self.after(step).expect("a run without faults");
        }
        self
    }

    fn fair_step(&self) -> Option<Step> {
        let steps = self.steps();
        let find = |is_it: &dyn Fn(&Step) -> bool| steps.iter().copied().find(|step| is_it(step));
        find(&|step| matches!(step, Step::TakeOver(_)))
            .or_else(|| find(&|step| matches!(step, Step::Answer(_))))
            .or_else(|| {
                find(&|step| {
                    matches!(step, Step::Deliver(place) if self.network[*place].awaited && !self.network[*place].hangs)
                })
            })
            .or_else(|| find(&|step| matches!(step, Step::Watch(_))))
            .or_else(|| find(&|step| matches!(step, Step::Resume(..))))
    }

    /// The deadline of a write that hangs.
    fn expiring(&self) -> Option<Step> {
        self.steps().into_iter().find(|step| matches!(step, Step::Expire(_, false)))
    }

    /// Nothing is left to do but for writes that hang: whoever can be served is.
    fn check_rest(&self) -> Result<(), String> {
        let leader = self.leader().ok_or("nobody leads")?;
        let hanging: Vec<_> = self.network.iter().filter(|flight| flight.awaited).collect();
        let is_taken = |address: usize| {
            self.showing(address).next().is_some() || hanging.iter().any(|flight| flight.address() == Some(address))
        };
        for index in (0..SERVICES).filter(|index| hanging.iter().all(|flight| flight.index != *index)) {
            let Some(object) = self.api[index].as_deref() else { continue };
            self.check_served(index, object, is_taken)?;
        }
        if !hanging.is_empty() {
            return Ok(());
        }
        if let Some(address) = (0..ADDRESSES).find(|&address| self.is_double(address)) {
            return Err(format!("address {address} stays on two Services"));
        }
        if self.flaw.is_some() {
            // Such a controller is caught by what it does.
            return Ok(());
        }
        let controller = &self.controllers[leader];
        let reconciler = &controller.reconciler;
        if !reconciler.writes.is_empty() {
            return Err("writes are remembered that ended".to_owned());
        }
        if self.pool != Pool::Valid {
            // Nobody holds anything of a pool that is not in force.
            return Ok(());
        }
        let assigner = reconciler.assigner.as_ref().ok_or("the leader has no assigner")?;
        for index in 0..SERVICES {
            let held = assigner.allocator.holding(&key(index)).and_then(|held| held.ips.first());
            let held = held.and_then(super::world::address_of);
            if held != self.api[index].as_ref().and_then(|object| object.shown) {
                return Err(format!("Service {index} holds {held:?} in memory only"));
            }
        }
        let counters = assigner.allocator.counters(&"pool".into()).ok_or("there is no pool")?;
        let used = (0..ADDRESSES).filter(|&address| self.showing(address).next().is_some()).count() as i64;
        if counters.assigned_v4 != used || counters.available_v4 != ADDRESSES as i64 - used {
            return Err(format!("{used} addresses are used, and counted as {counters:?}"));
        }
        Ok(())
    }

    fn check_served(&self, index: usize, object: &Object, is_taken: impl Fn(usize) -> bool) -> Result<(), String> {
        use crate::model::WRITE_SETTLED;
        if object.service.annotations.contains_key(WRITE_SETTLED) {
            return Err(format!("Service {index} keeps the annotation of a settling write"));
        }
        if object.service.recorded_pool() != object.shown.map(|_| "pool") {
            return Err(format!("Service {index} has the wrong record of its pool"));
        }
        match object.shown {
            Some(address) if !object.admits(address) => Err(format!("Service {index} keeps the address {address}")),
            Some(_) => Ok(()),
            None if object.wish == Wish::Nothing || self.pool != Pool::Valid => Ok(()),
            None => match (0..ADDRESSES).find(|&address| object.admits(address) && !is_taken(address)) {
                Some(address) => Err(format!("Service {index} waits, and address {address} is free")),
                None => Ok(()),
            },
        }
    }
}
