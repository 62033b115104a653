//! The routes of one family in sorted columns: 13 bytes per IPv4 route, 25 per IPv6 route.
//!
//! Prefixes are stored in wide form, so that a run of host routes with equal attributes is written to a message by one
//! copy.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::attributes::{SetId, Templates};
use super::shared::{Column, ColumnPool};
use crate::wire::nlri::Wide;
use crate::wire::template::PartialUpdate;

/// The routes of one family, sorted by prefix.
#[derive(Clone, Debug)]
pub(super) struct Table<const N: usize> {
    prefixes: Column<N>,
    /// The route that the peer should have, for each prefix.
    wanted: Vec<Mark>,
    /// The route that was advertised to the peer, for each prefix.
    advertised: Vec<Mark>,
    /// Number of rows that are not host routes.
    nets: usize,
    /// Contains all rows whose two marks may differ.
    dirty: Range<usize>,
    plan: Plan,
    advertised_count: usize,
    wanted_count: usize,
    /// Number of rows that are neither wanted nor advertised. They are removed in bulk, because removing a row moves
    /// all rows after it.
    dead: usize,
}

/// The state of a route: absent, or present with an attribute set. If the two marks of a row differ, an update is
/// pending.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Mark(u32);

impl Mark {
    const ABSENT: Self = Self(0);
    /// Advertised, and to be advertised again.
    const STALE: Self = Self(u32::MAX);

    /// The index of a set is far below [`STALE`](Self::STALE).
    fn with(set: SetId) -> Self {
        Self(set.0 + 1)
    }

    fn set(self) -> Option<SetId> {
        (self != Self::STALE).then(|| self.0.checked_sub(1).map(SetId)).flatten()
    }
}

/// The pending updates, grouped into runs. Any change of the rows invalidates it; its memory is reused.
#[derive(Clone, Debug, Default)]
struct Plan {
    valid: bool,
    /// Withdrawals first, then announcements, grouped by attribute set.
    runs: Vec<Run>,
    /// Number of runs that were written completely.
    done: usize,
}

/// Consecutive rows that get the same mark.
#[derive(Clone, Debug)]
struct Run {
    mark: Mark,
    // A table has fewer than 2³² rows; more would not fit into memory.
    start: u32,
    end: u32,
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self {
            prefixes: Column::default(),
            wanted: Vec::new(),
            advertised: Vec::new(),
            nets: 0,
            dirty: 0..0,
            plan: Plan::default(),
            advertised_count: 0,
            wanted_count: 0,
            dead: 0,
        }
    }
}

impl<const N: usize> Table<N> {
    pub(super) const fn advertised(&self) -> usize {
        self.advertised_count
    }

    pub(super) const fn wanted(&self) -> usize {
        self.wanted_count
    }

    /// Number of rows, including those that wait to be removed.
    pub(super) fn rows(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is a row for the prefix.
    pub(super) fn contains(&self, prefix: &Wide<N>) -> bool {
        self.prefixes.binary_search_by(|row| compare(row, prefix)).is_ok()
    }

    /// Whether the prefix is wanted.
    pub(super) fn wants(&self, prefix: &Wide<N>) -> bool {
        let at = self.prefixes.binary_search_by(|row| compare(row, prefix));
        at.is_ok_and(|at| self.wanted[at] != Mark::ABSENT)
    }

    /// Shares the prefixes with peers that have the same ones.
    pub(super) fn share(&mut self, pool: &ColumnPool<N>) {
        pool.share(&mut self.prefixes);
    }

    /// The number of peers that share the prefixes, this one included.
    #[cfg(test)]
    pub(super) fn sharers(&self) -> usize {
        Arc::strong_count(&self.prefixes)
    }

    /// Moves all rows of another table into this one. The tables have no prefix in common.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        if other.prefixes.is_empty() {
            return;
        }
        let (ours, theirs) = (std::mem::take(self), std::mem::take(other));
        let clean = ours.dirty.is_empty() && theirs.dirty.is_empty();
        self.wanted_count = ours.wanted_count + theirs.wanted_count;
        self.advertised_count = ours.advertised_count + theirs.advertised_count;
        let mut rows = Rows::with_capacity(ours.prefixes.len() + theirs.prefixes.len());
        let mut theirs = theirs.into_rows().peekable();
        for (prefix, wanted, advertised) in ours.into_rows() {
            while let Some((earlier, wanted, advertised)) = theirs.next_if(|row| compare(&row.0, &prefix).is_lt()) {
                rows.push(earlier, wanted, advertised);
            }
            rows.push(prefix, wanted, advertised);
        }
        theirs.for_each(|(prefix, wanted, advertised)| rows.push(prefix, wanted, advertised));
        self.fill_with(rows);
        self.dirty = if clean { 0..0 } else { 0..self.prefixes.len() };
    }

    /// Every attribute set in use, possibly repeated.
    pub(super) fn sets(&self) -> impl Iterator<Item = SetId> {
        self.wanted.iter().chain(&self.advertised).filter_map(|mark| mark.set())
    }

    /// Replaces the wanted routes and returns whether they changed.
    pub(super) fn replace(&mut self, mut routes: Vec<(Wide<N>, SetId)>) -> bool {
        let order = |left: &(Wide<N>, SetId), right: &(Wide<N>, SetId)| compare(&left.0, &right.0);
        if !routes.is_sorted_by(|left, right| order(left, right).is_lt()) {
            // The sort is stable, so that the last of equal prefixes is kept.
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
        self.advertised_count = before.advertised_count;
        let mut rows = Rows::with_capacity(routes.len());
        let mut before = before.into_rows().peekable();
        for (prefix, set) in routes {
            while let Some((earlier, _, advertised)) = before.next_if(|row| compare(&row.0, &prefix).is_lt()) {
                rows.push_unwanted(earlier, advertised);
            }
            let advertised = before.next_if(|row| row.0 == prefix).map_or(Mark::ABSENT, |row| row.2);
            rows.push(prefix, Mark::with(set), advertised);
        }
        before.for_each(|(prefix, _, advertised)| rows.push_unwanted(prefix, advertised));
        self.fill_with(rows);
        self.dirty = 0..self.prefixes.len();
        true
    }

    /// Removes all wanted routes without moving a row.
    fn want_nothing(&mut self) {
        if self.advertised_count == 0 {
            *self = Self::default();
            return;
        }
        self.wanted.fill(Mark::ABSENT);
        self.wanted_count = 0;
        self.dead = self.prefixes.len() - self.advertised_count;
        self.touch(0..self.prefixes.len());
    }

    /// Changes the wanted route of one prefix and returns whether it changed.
    pub(super) fn change(&mut self, prefix: Wide<N>, set: Option<SetId>) -> bool {
        let mark = set.map_or(Mark::ABSENT, Mark::with);
        let (at, before) = match self.prefixes.binary_search_by(|row| compare(row, &prefix)) {
            Ok(at) => (at, std::mem::replace(&mut self.wanted[at], mark)),
            Err(_) if set.is_none() => return false,
            Err(at) => {
                // Not yet counted as wanted.
                self.insert(at, prefix, mark);
                self.dead += 1;
                (at, Mark::ABSENT)
            }
        };
        self.wanted_count = self.wanted_count + usize::from(mark != Mark::ABSENT) - usize::from(before != Mark::ABSENT);
        if before != mark {
            self.touch(at..at + 1);
            if self.advertised[at] == Mark::ABSENT {
                // The row becomes wanted, or is removed before it was advertised.
                self.dead = self.dead + usize::from(mark == Mark::ABSENT) - usize::from(before == Mark::ABSENT);
            }
        }
        before != mark
    }

    /// Marks all routes as not advertised.
    pub(super) fn reset(&mut self) {
        self.advertised.fill(Mark::ABSENT);
        self.compact();
        self.advertised_count = 0;
        self.dirty = 0..self.prefixes.len();
        self.plan.valid = false;
    }

    /// Marks all advertised routes as to be advertised again.
    pub(super) fn replay(&mut self) {
        for mark in self.advertised.iter_mut().filter(|mark| **mark != Mark::ABSENT) {
            *mark = Mark::STALE;
        }
        self.touch(0..self.prefixes.len());
    }

    /// Writes the next message to the start of `out` and returns its length, 0 if nothing is pending.
    pub(super) fn next_message(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        if self.dirty.is_empty() {
            return 0;
        }
        // A single row needs no plan.
        if self.dirty.len() == 1 {
            return self.single_message(out, templates);
        }
        let mut plan = std::mem::take(&mut self.plan);
        if !plan.valid {
            self.build_plan(&mut plan);
        }
        let bytes = self.fill(&mut plan, out, templates);
        plan.valid = plan.done < plan.runs.len();
        if !plan.valid {
            plan.runs.clear();
            plan.runs.shrink_to(RUNS_KEPT);
        }
        self.plan = plan;
        if !self.plan.valid {
            self.finish();
        }
        bytes
    }

    /// Writes a message that withdraws advertised routes, wanted or not, to the start of `out`, and returns its length, 0
    /// if nothing is advertised. [`next_message`](Self::next_message) advertises the wanted ones again.
    pub(super) fn next_withdrawal(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        if self.advertised_count == 0 {
            return 0;
        }
        let Some(first) = self.advertised.iter().position(|mark| *mark != Mark::ABSENT) else { return 0 };
        let Some(mut update) = begin(Mark::ABSENT, out, templates) else { return 0 };
        let mut end = first;
        while end < self.advertised.len() {
            if self.advertised[end] != Mark::ABSENT {
                if !update.push(&self.prefixes[end]) {
                    break;
                }
                self.advertised[end] = Mark::ABSENT;
                self.advertised_count -= 1;
                self.dead += usize::from(self.wanted[end] == Mark::ABSENT);
            }
            end += 1;
        }
        let bytes = update.finish();
        self.touch(first..end);
        bytes
    }

    /// Writes the message for the only row that may have changed.
    fn single_message(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        let at = self.dirty.start;
        let mark = self.wanted[at];
        let mut bytes = 0;
        if self.advertised[at] != mark {
            let Some(mut update) = begin(mark, out, templates) else { return 0 };
            update.push(&self.prefixes[at]);
            bytes = update.finish();
            self.record(at..at + 1, mark);
        }
        self.finish();
        bytes
    }

    /// Called when nothing is pending. Rows are removed only now, because runs refer to them by position.
    fn finish(&mut self) {
        self.dirty = 0..0;
        if self.dead > DEAD_MIN && self.dead > self.prefixes.len() / DEAD_SHARE {
            self.compact();
        }
    }

    /// Records that these rows were advertised, or withdrawn, as `mark` says.
    fn record(&mut self, rows: Range<usize>, mark: Mark) {
        let advertised = &mut self.advertised[rows];
        // A message has fewer than 2¹⁶ prefixes.
        let known: u32 = advertised.iter().map(|mark| u32::from(*mark != Mark::ABSENT)).sum();
        let withdrawn = mark == Mark::ABSENT;
        self.advertised_count = self.advertised_count - known as usize + if withdrawn { 0 } else { advertised.len() };
        self.dead += if withdrawn { advertised.len() } else { 0 };
        advertised.fill(mark);
    }

    /// Writes one message: the rest of a run and the following runs with the same mark, as far as there is room.
    fn fill(&mut self, plan: &mut Plan, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        let Some(&Run { mark, .. }) = plan.runs.get(plan.done) else { return 0 };
        let Some(mut update) = begin(mark, out, templates) else { return 0 };
        while let Some(run) = plan.runs.get_mut(plan.done).filter(|run| run.mark == mark) {
            let rows = run.start as usize..run.end as usize;
            let prefixes = &self.prefixes[rows.clone()];
            let taken = match self.nets {
                0 => update.push_hosts(prefixes),
                _ => prefixes.iter().take_while(|prefix| update.push(prefix)).count(),
            };
            self.record(rows.start..rows.start + taken, mark);
            run.start += taken as u32;
            if run.start < run.end {
                break;
            }
            plan.done += 1;
        }
        update.finish()
    }

    fn build_plan(&self, plan: &mut Plan) {
        let runs = &mut plan.runs;
        runs.clear();
        let Range { mut start, end } = self.dirty.clone();
        while start < end {
            let (wanted, advertised) = (&self.wanted[start..end], &self.advertised[start..end]);
            let mark = wanted[0];
            let length = match mark == advertised[0] {
                true => leading(wanted, advertised, |wanted, advertised| wanted == advertised),
                false => leading(wanted, advertised, |wanted, advertised| wanted == mark && advertised != mark),
            };
            if mark != advertised[0] {
                runs.push(Run { mark, start: start as u32, end: (start + length) as u32 });
            }
            start += length;
        }
        // Within an attribute set the prefixes stay sorted.
        runs.sort_unstable_by_key(|run| (run.mark, run.start));
        (plan.done, plan.valid) = (0, true);
    }

    fn wants_exactly(&self, routes: &[(Wide<N>, SetId)]) -> bool {
        let wanted = self.prefixes.iter().zip(&self.wanted).filter(|(_, mark)| **mark != Mark::ABSENT);
        let same = |((prefix, mark), route): ((&Wide<N>, &Mark), &(Wide<N>, SetId))| {
            *prefix == route.0 && *mark == Mark::with(route.1)
        };
        self.wanted_count == routes.len() && wanted.zip(routes).all(same)
    }

    /// Prefix, wanted mark and advertised mark of each row, without the rows that wait to be removed.
    fn into_rows(self) -> impl Iterator<Item = (Wide<N>, Mark, Mark)> {
        let marks = self.wanted.into_iter().zip(self.advertised).enumerate();
        // There are as many prefixes as marks.
        marks
            .map(move |(row, (wanted, advertised))| (self.prefixes[row], wanted, advertised))
            .filter(|(_, wanted, advertised)| (*wanted, *advertised) != (Mark::ABSENT, Mark::ABSENT))
    }

    fn fill_with(&mut self, rows: Rows<N>) {
        (self.prefixes, self.wanted, self.advertised) = (Arc::new(rows.prefixes), rows.wanted, rows.advertised);
        self.nets = rows.nets;
    }

    fn insert(&mut self, at: usize, prefix: Wide<N>, wanted: Mark) {
        self.nets += usize::from(is_net(&prefix));
        Arc::make_mut(&mut self.prefixes).insert(at, prefix);
        self.wanted.insert(at, wanted);
        self.advertised.insert(at, Mark::ABSENT);
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
        self.plan.valid = false;
    }

    /// Removes the rows that are neither wanted nor advertised.
    fn compact(&mut self) {
        let alive = |(wanted, advertised): &(&Mark, &Mark)| (**wanted, **advertised) != (Mark::ABSENT, Mark::ABSENT);
        let left = self.wanted.iter().zip(&self.advertised).filter(alive).count();
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
            if self.wanted[index] == Mark::ABSENT && self.advertised[index] == Mark::ABSENT {
                self.nets -= usize::from(is_net(&prefixes[index]));
                continue;
            }
            prefixes[kept] = prefixes[index];
            self.wanted[kept] = self.wanted[index];
            self.advertised[kept] = self.advertised[index];
            kept += 1;
        }
        prefixes.truncate(kept);
        self.wanted.truncate(kept);
        self.advertised.truncate(kept);
        self.dead = 0;
    }
}

/// The rows of a table under construction.
struct Rows<const N: usize> {
    prefixes: Vec<Wide<N>>,
    wanted: Vec<Mark>,
    advertised: Vec<Mark>,
    nets: usize,
}

impl<const N: usize> Rows<N> {
    fn with_capacity(rows: usize) -> Self {
        let marks = || Vec::with_capacity(rows);
        Self { prefixes: Vec::with_capacity(rows), wanted: marks(), advertised: marks(), nets: 0 }
    }

    fn push(&mut self, prefix: Wide<N>, wanted: Mark, advertised: Mark) {
        self.nets += usize::from(is_net(&prefix));
        self.prefixes.push(prefix);
        self.wanted.push(wanted);
        self.advertised.push(advertised);
    }

    /// A row that is no longer wanted stays until it was withdrawn.
    fn push_unwanted(&mut self, prefix: Wide<N>, advertised: Mark) {
        if advertised != Mark::ABSENT {
            self.push(prefix, Mark::ABSENT, advertised);
        }
    }
}

/// Begins a message that announces or withdraws as `mark` says. `None` if there is no room for it.
fn begin<'a>(mark: Mark, out: &'a mut [u8], templates: &'a mut Templates<'_>) -> Option<PartialUpdate<'a>> {
    let template = match mark.set() {
        None => templates.withdraw(),
        Some(set) => templates.announce(set)?,
    };
    template.begin(out)
}

/// The number of leading pairs of marks that satisfy `alike`. Sixteen pairs are compared at once, without a branch for
/// each.
fn leading(wanted: &[Mark], advertised: &[Mark], alike: impl Fn(Mark, Mark) -> bool) -> usize {
    let pairs = || wanted.iter().zip(advertised);
    let (wide_wanted, wide_told) = (wanted.as_chunks::<16>().0, advertised.as_chunks::<16>().0);
    let all = |(wanted, advertised): &(&[Mark; 16], &[Mark; 16])| {
        wanted.iter().zip(*advertised).fold(true, |all, (wanted, advertised)| all & alike(*wanted, *advertised))
    };
    let skipped = 16 * wide_wanted.iter().zip(wide_told).take_while(all).count();
    skipped + pairs().skip(skipped).take_while(|(wanted, advertised)| alike(**wanted, **advertised)).count()
}

/// Orders by address, then by length.
fn compare<const N: usize>(left: &Wide<N>, right: &Wide<N>) -> Ordering {
    left[1..].cmp(&right[1..]).then(left[0].cmp(&right[0]))
}

/// Whether a prefix is shorter than an address.
fn is_net<const N: usize>(prefix: &Wide<N>) -> bool {
    usize::from(prefix[0]) < (N - 1) * 8
}

/// Limits for rows that wait to be removed: an absolute number, and the reciprocal of their share.
const DEAD_MIN: usize = 64;
const DEAD_SHARE: usize = 8;

/// Number of runs that a plan keeps memory for: a few changed routes make few runs.
const RUNS_KEPT: usize = 64;
