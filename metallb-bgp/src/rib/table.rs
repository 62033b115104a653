//! The routes of one family: sorted columns, 13 bytes for a route of IPv4 and 25 for one of IPv6.
//!
//! Prefixes are kept as they stand in a message, so that a run of host routes with the same attributes is one copy.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::attributes::{SetId, Templates};
use super::shared::{Column, Known};
use crate::wire::nlri::Wide;
use crate::wire::template::Filling;

/// The routes of one family, in order.
#[derive(Clone, Debug)]
pub(super) struct Table<const N: usize> {
    prefixes: Column<N>,
    /// What the peer should know of each prefix.
    wanted: Vec<Mark>,
    /// What it knows.
    told: Vec<Mark>,
    /// Rows that are no host routes.
    nets: usize,
    /// All rows where both may differ.
    dirty: Range<usize>,
    plan: Plan,
    told_count: usize,
    wanted_count: usize,
    /// Rows that are neither wanted nor told. They stay until they are many: closing a gap moves all rows behind it.
    dead: usize,
}

/// What is known of a prefix: nothing, or with which attributes. Wherever the two marks of a row differ there is something to say.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Mark(u32);

impl Mark {
    const NOTHING: Self = Self(0);
    /// The peer knows the route, and is to be told again.
    const STALE: Self = Self(u32::MAX);

    /// The set's index is far below [`STALE`](Self::STALE).
    fn with(set: SetId) -> Self {
        Self(set.0 + 1)
    }

    fn set(self) -> Option<SetId> {
        (self != Self::STALE).then(|| self.0.checked_sub(1).map(SetId)).flatten()
    }
}

/// What to say. Any change of the rows makes it void; its memory serves the next one.
#[derive(Clone, Debug, Default)]
struct Plan {
    made: bool,
    /// Withdrawals first, then offers, those with the same attributes together.
    runs: Vec<Run>,
    done: usize,
}

/// Rows in a row that get the same mark.
#[derive(Clone, Debug)]
struct Run {
    mark: Mark,
    // A table has fewer than 2³² rows: they would not fit in memory.
    start: u32,
    end: u32,
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self {
            prefixes: Column::default(),
            wanted: Vec::new(),
            told: Vec::new(),
            nets: 0,
            dirty: 0..0,
            plan: Plan::default(),
            told_count: 0,
            wanted_count: 0,
            dead: 0,
        }
    }
}

impl<const N: usize> Table<N> {
    pub(super) const fn told(&self) -> usize {
        self.told_count
    }

    pub(super) const fn wanted(&self) -> usize {
        self.wanted_count
    }

    /// Rows, also those that only wait to be dropped.
    pub(super) fn rows(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is a row for the prefix.
    pub(super) fn has(&self, prefix: &Wide<N>) -> bool {
        self.prefixes.binary_search_by(|row| compare(row, prefix)).is_ok()
    }

    /// Keeps the prefixes together with those who have the same.
    pub(super) fn share(&mut self, known: &Known<N>) {
        known.share(&mut self.prefixes);
    }

    /// Who has the prefixes, this one included.
    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.prefixes)
    }

    /// Takes over all rows of another table, which has none in common with this one.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        if other.prefixes.is_empty() {
            return;
        }
        let (ours, theirs) = (std::mem::take(self), std::mem::take(other));
        let clean = ours.dirty.is_empty() && theirs.dirty.is_empty();
        self.wanted_count = ours.wanted_count + theirs.wanted_count;
        self.told_count = ours.told_count + theirs.told_count;
        let mut rows = Rows::with_capacity(ours.prefixes.len() + theirs.prefixes.len());
        let mut theirs = theirs.into_rows().peekable();
        for (prefix, wanted, told) in ours.into_rows() {
            while let Some((earlier, wanted, told)) = theirs.next_if(|row| compare(&row.0, &prefix).is_lt()) {
                rows.push(earlier, wanted, told);
            }
            rows.push(prefix, wanted, told);
        }
        theirs.for_each(|(prefix, wanted, told)| rows.push(prefix, wanted, told));
        self.fill_with(rows);
        self.dirty = if clean { 0..0 } else { 0..self.prefixes.len() };
    }

    /// Every set in use, more than once.
    pub(super) fn sets(&self) -> impl Iterator<Item = SetId> {
        self.wanted.iter().chain(&self.told).filter_map(|mark| mark.set())
    }

    /// Replaces what is wanted. True when it changed.
    pub(super) fn replace(&mut self, mut routes: Vec<(Wide<N>, SetId)>) -> bool {
        let order = |left: &(Wide<N>, SetId), right: &(Wide<N>, SetId)| compare(&left.0, &right.0);
        if !routes.is_sorted_by(|left, right| order(left, right).is_lt()) {
            // Stable, so that of equal prefixes the last one stays.
            routes.sort_by(order);
            routes.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    earlier.1 = later.1;
                }
                same
            });
        }
        if self.wants_exactly(&routes) {
            return false;
        }
        if routes.is_empty() {
            self.want_nothing();
            return true;
        }
        let before = std::mem::take(self);
        self.wanted_count = routes.len();
        self.told_count = before.told_count;
        let mut rows = Rows::with_capacity(routes.len());
        let mut before = before.into_rows().peekable();
        for (prefix, set) in routes {
            while let Some((earlier, _, told)) = before.next_if(|row| compare(&row.0, &prefix).is_lt()) {
                rows.push_unwanted(earlier, told);
            }
            let told = before.next_if(|row| row.0 == prefix).map_or(Mark::NOTHING, |row| row.2);
            rows.push(prefix, Mark::with(set), told);
        }
        before.for_each(|(prefix, _, told)| rows.push_unwanted(prefix, told));
        self.fill_with(rows);
        self.dirty = 0..self.prefixes.len();
        true
    }

    /// What the peer knows is where it was: no row has to move.
    fn want_nothing(&mut self) {
        if self.told_count == 0 {
            *self = Self::default();
            return;
        }
        self.wanted.fill(Mark::NOTHING);
        self.wanted_count = 0;
        self.dead = self.prefixes.len() - self.told_count;
        self.touch(0..self.prefixes.len());
    }

    /// Changes what is wanted of one prefix. True when it changed.
    pub(super) fn change(&mut self, prefix: Wide<N>, set: Option<SetId>) -> bool {
        let mark = set.map_or(Mark::NOTHING, Mark::with);
        let (at, before) = match self.prefixes.binary_search_by(|row| compare(row, &prefix)) {
            Ok(at) => (at, std::mem::replace(&mut self.wanted[at], mark)),
            Err(_) if set.is_none() => return false,
            Err(at) => {
                // It is born dead.
                self.insert(at, prefix, mark);
                self.dead += 1;
                (at, Mark::NOTHING)
            }
        };
        self.wanted_count =
            self.wanted_count + usize::from(mark != Mark::NOTHING) - usize::from(before != Mark::NOTHING);
        if before != mark {
            self.touch(at..at + 1);
            if self.told[at] == Mark::NOTHING {
                // A row that comes to life, or that came and went before the peer heard of it.
                self.dead = self.dead + usize::from(mark == Mark::NOTHING) - usize::from(before == Mark::NOTHING);
            }
        }
        before != mark
    }

    /// The peer knows nothing.
    pub(super) fn forget(&mut self) {
        self.told.fill(Mark::NOTHING);
        self.compact();
        self.told_count = 0;
        self.dirty = 0..self.prefixes.len();
        self.plan.made = false;
    }

    /// The peer is to be told everything again.
    pub(super) fn replay(&mut self) {
        for mark in self.told.iter_mut().filter(|mark| **mark != Mark::NOTHING) {
            *mark = Mark::STALE;
        }
        self.touch(0..self.prefixes.len());
    }

    /// Writes the next message to the beginning of `out`; 0 when there is nothing to say.
    pub(super) fn next_message(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        if self.dirty.is_empty() {
            return 0;
        }
        // What one row needs is no plan.
        if self.dirty.len() == 1 {
            return self.single_message(out, templates);
        }
        let mut plan = std::mem::take(&mut self.plan);
        if !plan.made {
            self.make(&mut plan);
        }
        let bytes = self.fill(&mut plan, out, templates);
        plan.made = plan.done < plan.runs.len();
        if !plan.made {
            plan.runs.clear();
            plan.runs.shrink_to(RUNS_KEPT);
        }
        self.plan = plan;
        if !self.plan.made {
            self.rest();
        }
        bytes
    }

    /// The message about the only row that may have changed.
    fn single_message(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        let at = self.dirty.start;
        let mark = self.wanted[at];
        let mut bytes = 0;
        if self.told[at] != mark {
            let Some(mut filling) = begin(mark, out, templates) else { return 0 };
            filling.push(&self.prefixes[at]);
            bytes = filling.finish();
            self.tell(at..at + 1, mark);
        }
        self.rest();
        bytes
    }

    /// All is said; only now is it safe to drop rows, as runs count them.
    fn rest(&mut self) {
        self.dirty = 0..0;
        if self.dead > DEAD_MIN && self.dead > self.prefixes.len() / DEAD_SHARE {
            self.compact();
        }
    }

    /// The peer is told that these rows are as `mark` says.
    fn tell(&mut self, rows: Range<usize>, mark: Mark) {
        let told = &mut self.told[rows];
        // A message has fewer than 2¹⁶ prefixes.
        let known: u32 = told.iter().map(|mark| u32::from(*mark != Mark::NOTHING)).sum();
        let gone = mark == Mark::NOTHING;
        self.told_count = self.told_count - known as usize + if gone { 0 } else { told.len() };
        self.dead += if gone { told.len() } else { 0 };
        told.fill(mark);
    }

    /// One message: the rest of one run, and of those behind it that get the same mark, as long as there is room.
    fn fill(&mut self, plan: &mut Plan, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        let Some(&Run { mark, .. }) = plan.runs.get(plan.done) else { return 0 };
        let Some(mut filling) = begin(mark, out, templates) else { return 0 };
        while let Some(run) = plan.runs.get_mut(plan.done).filter(|run| run.mark == mark) {
            let rows = run.start as usize..run.end as usize;
            let prefixes = &self.prefixes[rows.clone()];
            let taken = match self.nets {
                0 => filling.push_hosts(prefixes),
                _ => prefixes.iter().take_while(|prefix| filling.push(prefix)).count(),
            };
            self.tell(rows.start..rows.start + taken, mark);
            run.start += taken as u32;
            if run.start < run.end {
                break;
            }
            plan.done += 1;
        }
        filling.finish()
    }

    fn make(&self, plan: &mut Plan) {
        let runs = &mut plan.runs;
        runs.clear();
        let Range { mut start, end } = self.dirty.clone();
        while start < end {
            let (wanted, told) = (&self.wanted[start..end], &self.told[start..end]);
            let mark = wanted[0];
            let length = match mark == told[0] {
                true => leading(wanted, told, |wanted, told| wanted == told),
                false => leading(wanted, told, |wanted, told| wanted == mark && told != mark),
            };
            if mark != told[0] {
                runs.push(Run { mark, start: start as u32, end: (start + length) as u32 });
            }
            start += length;
        }
        // Within a set the prefixes stay in order.
        runs.sort_unstable_by_key(|run| (run.mark, run.start));
        (plan.done, plan.made) = (0, true);
    }

    fn wants_exactly(&self, routes: &[(Wide<N>, SetId)]) -> bool {
        let wanted = self.prefixes.iter().zip(&self.wanted).filter(|(_, mark)| **mark != Mark::NOTHING);
        let same = |((prefix, mark), route): ((&Wide<N>, &Mark), &(Wide<N>, SetId))| {
            *prefix == route.0 && *mark == Mark::with(route.1)
        };
        self.wanted_count == routes.len() && wanted.zip(routes).all(same)
    }

    /// Prefixes, what the peer should know of them, and what it knows; without rows that wait to be dropped.
    fn into_rows(self) -> impl Iterator<Item = (Wide<N>, Mark, Mark)> {
        let marks = self.wanted.into_iter().zip(self.told).enumerate();
        // There are as many prefixes as marks.
        marks
            .map(move |(row, (wanted, told))| (self.prefixes[row], wanted, told))
            .filter(|(_, wanted, told)| (*wanted, *told) != (Mark::NOTHING, Mark::NOTHING))
    }

    fn fill_with(&mut self, rows: Rows<N>) {
        (self.prefixes, self.wanted, self.told) = (Arc::new(rows.prefixes), rows.wanted, rows.told);
        self.nets = rows.nets;
    }

    fn insert(&mut self, at: usize, prefix: Wide<N>, wanted: Mark) {
        self.nets += usize::from(is_net(&prefix));
        Arc::make_mut(&mut self.prefixes).insert(at, prefix);
        self.wanted.insert(at, wanted);
        self.told.insert(at, Mark::NOTHING);
        if at < self.dirty.end {
            self.dirty.end += 1;
        }
    }

    /// The rows in `range` have changed.
    fn touch(&mut self, range: Range<usize>) {
        self.dirty = match self.dirty.is_empty() {
            true => range,
            false => self.dirty.start.min(range.start)..self.dirty.end.max(range.end),
        };
        self.plan.made = false;
    }

    /// Drops the rows that are neither wanted nor told.
    fn compact(&mut self) {
        let alive = |(wanted, told): &(&Mark, &Mark)| (**wanted, **told) != (Mark::NOTHING, Mark::NOTHING);
        let left = self.wanted.iter().zip(&self.told).filter(alive).count();
        if left == self.prefixes.len() {
            return;
        }
        if left == 0 {
            *self = Self::default();
            return;
        }
        let prefixes = Arc::make_mut(&mut self.prefixes);
        let mut kept = 0;
        for index in 0..prefixes.len() {
            if self.wanted[index] == Mark::NOTHING && self.told[index] == Mark::NOTHING {
                self.nets -= usize::from(is_net(&prefixes[index]));
                continue;
            }
            prefixes[kept] = prefixes[index];
            self.wanted[kept] = self.wanted[index];
            self.told[kept] = self.told[index];
            kept += 1;
        }
        prefixes.truncate(kept);
        self.wanted.truncate(kept);
        self.told.truncate(kept);
        self.dead = 0;
    }
}

/// Rows of a table that is being made.
struct Rows<const N: usize> {
    prefixes: Vec<Wide<N>>,
    wanted: Vec<Mark>,
    told: Vec<Mark>,
    nets: usize,
}

impl<const N: usize> Rows<N> {
    fn with_capacity(rows: usize) -> Self {
        let marks = || Vec::with_capacity(rows);
        Self { prefixes: Vec::with_capacity(rows), wanted: marks(), told: marks(), nets: 0 }
    }

    fn push(&mut self, prefix: Wide<N>, wanted: Mark, told: Mark) {
        self.nets += usize::from(is_net(&prefix));
        self.prefixes.push(prefix);
        self.wanted.push(wanted);
        self.told.push(told);
    }

    /// A row that nobody wants any more stays until the peer knows.
    fn push_unwanted(&mut self, prefix: Wide<N>, told: Mark) {
        if told != Mark::NOTHING {
            self.push(prefix, Mark::NOTHING, told);
        }
    }
}

/// The beginning of a message that tells what `mark` says; `None` when there is no room for it.
fn begin<'a>(mark: Mark, out: &'a mut [u8], templates: &'a mut Templates<'_>) -> Option<Filling<'a>> {
    let template = match mark.set() {
        None => templates.withdraw(),
        Some(set) => templates.announce(set)?,
    };
    template.begin(out)
}

/// How many pairs of marks from the first on are alike; they are looked at by the dozen, without a branch for each.
fn leading(wanted: &[Mark], told: &[Mark], alike: impl Fn(Mark, Mark) -> bool) -> usize {
    let pairs = || wanted.iter().zip(told);
    let (wide_wanted, wide_told) = (wanted.as_chunks::<16>().0, told.as_chunks::<16>().0);
    let all = |(wanted, told): &(&[Mark; 16], &[Mark; 16])| {
        wanted.iter().zip(*told).fold(true, |all, (wanted, told)| all & alike(*wanted, *told))
    };
    let skipped = 16 * wide_wanted.iter().zip(wide_told).take_while(all).count();
    skipped + pairs().skip(skipped).take_while(|(wanted, told)| alike(**wanted, **told)).count()
}

/// By address, then by length.
fn compare<const N: usize>(left: &Wide<N>, right: &Wide<N>) -> Ordering {
    left[1..].cmp(&right[1..]).then(left[0].cmp(&right[0]))
}

/// Whether a prefix is shorter than an address.
fn is_net<const N: usize>(prefix: &Wide<N>) -> bool {
    usize::from(prefix[0]) < (N - 1) * 8
}

/// Rows that may wait to be dropped: so many, or one of so many.
const DEAD_MIN: usize = 64;
const DEAD_SHARE: usize = 8;

/// Runs that a plan keeps room for: one of changed routes has few.
const RUNS_KEPT: usize = 64;
