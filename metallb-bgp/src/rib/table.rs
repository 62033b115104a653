//! The routes of one family: a sorted array, 16 bytes for a route of IPv4 and 28 for one of IPv6.

use std::cmp::Ordering;

use super::attributes::{SetId, Templates};
use crate::wire::nlri::Nlri;

/// The routes of one family, in order.
#[derive(Clone, Debug)]
pub(super) struct Table<P> {
    rows: Vec<Row<P>>,
    plan: Option<Plan>,
    told: usize,
    wanted: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row<P> {
    prefix: P,
    wanted: Option<SetId>,
    told: Told,
}

/// What the peer knows of a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Nothing,
    /// It knows the route, and is to be told again.
    Stale,
    With(SetId),
}

/// What to say, as indices of rows. Any change of the rows makes it void.
#[derive(Clone, Debug)]
struct Plan {
    /// Withdrawals, then offers, those with the same attributes together.
    rows: Vec<u32>,
    withdrawals: usize,
    done: usize,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self { rows: Vec::new(), plan: None, told: 0, wanted: 0 }
    }
}

impl<P: Nlri> Table<P> {
    pub(super) const fn told(&self) -> usize {
        self.told
    }

    pub(super) const fn wanted(&self) -> usize {
        self.wanted
    }

    /// Every set in use, more than once.
    pub(super) fn sets(&self) -> impl Iterator<Item = SetId> {
        self.rows.iter().flat_map(|row| {
            let told = match row.told {
                Told::With(set) => Some(set),
                Told::Nothing | Told::Stale => None,
            };
            [row.wanted, told].into_iter().flatten()
        })
    }

    /// Replaces what is wanted. True when it changed.
    pub(super) fn replace(&mut self, mut routes: Vec<(P, SetId)>) -> bool {
        if !routes.is_sorted_by(|left, right| left.0 < right.0) {
            // Stable, so that of equal prefixes the last one stays.
            routes.sort_by_key(|route| route.0);
            routes.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    earlier.1 = later.1;
                }
                same
            });
        }
        let same = |(row, route): (&Row<P>, &(P, SetId))| row.prefix == route.0 && row.wanted == Some(route.1);
        if self.wanted == routes.len() && self.rows.iter().filter(|row| row.wanted.is_some()).zip(&routes).all(same) {
            return false;
        }
        self.wanted = routes.len();
        let mut before = std::mem::take(&mut self.rows).into_iter().peekable();
        self.rows.reserve_exact(routes.len());
        for (prefix, set) in routes {
            while let Some(row) = before.next_if(|row| row.prefix < prefix) {
                self.rows.extend(row.unwanted());
            }
            let told =
                before.next_if(|row| row.prefix.cmp(&prefix) == Ordering::Equal).map_or(Told::Nothing, |row| row.told);
            self.rows.push(Row { prefix, wanted: Some(set), told });
        }
        self.rows.extend(before.filter_map(Row::unwanted));
        self.plan = None;
        true
    }

    /// Changes what is wanted of one prefix. True when it changed.
    pub(super) fn change(&mut self, prefix: P, set: Option<SetId>) -> bool {
        let before = match self.rows.binary_search_by(|row| row.prefix.cmp(&prefix)) {
            Ok(index) => std::mem::replace(&mut self.rows[index].wanted, set),
            Err(_) if set.is_none() => return false,
            Err(index) => {
                self.rows.insert(index, Row { prefix, wanted: set, told: Told::Nothing });
                None
            }
        };
        self.wanted = self.wanted + usize::from(set.is_some()) - usize::from(before.is_some());
        if before != set {
            self.plan = None;
        }
        before != set
    }

    /// The peer knows nothing.
    pub(super) fn forget(&mut self) {
        self.rows.retain_mut(|row| {
            row.told = Told::Nothing;
            row.wanted.is_some()
        });
        self.told = 0;
        self.plan = None;
    }

    /// The peer is to be told everything again.
    pub(super) fn replay(&mut self) {
        for row in &mut self.rows {
            if row.told != Told::Nothing {
                row.told = Told::Stale;
            }
        }
        self.plan = None;
    }

    /// Writes the next message to the beginning of `out`; 0 when there is nothing to say.
    pub(super) fn next_message(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        let rows = &mut self.rows;
        let plan = self.plan.get_or_insert_with(|| Plan::new(rows));
        let Some(&first) = plan.rows.get(plan.done) else { return 0 };
        let set = rows[first as usize].wanted;
        let template = match set {
            None => Some(templates.withdraw()),
            Some(set) => templates.announce(set),
        };
        let end = if set.is_none() { plan.withdrawals } else { plan.rows.len() };
        let due = &plan.rows[plan.done..end];
        let together = due.iter().map(|&index| rows[index as usize]).take_while(|row| row.wanted == set);
        let (bytes, count) = template.map_or((0, 0), |template| template.fill(out, together.map(|row| row.prefix)));
        for &index in &due[..count] {
            let row = &mut rows[index as usize];
            self.told = self.told + usize::from(set.is_some()) - usize::from(row.told != Told::Nothing);
            row.told = set.map_or(Told::Nothing, Told::With);
        }
        plan.done += count;
        if plan.done == plan.rows.len() {
            if plan.withdrawals > 0 {
                rows.retain(|row| row.wanted.is_some() || row.told != Told::Nothing);
            }
            // An empty plan takes no memory and says that all is said.
            *plan = Plan { rows: Vec::new(), withdrawals: 0, done: 0 };
        }
        bytes
    }
}

impl<P> Row<P> {
    /// The row once nobody wants it; `None` when the peer does not know it either.
    fn unwanted(self) -> Option<Self> {
        (self.told != Told::Nothing).then_some(Self { wanted: None, ..self })
    }
}

impl Plan {
    fn new<P>(rows: &[Row<P>]) -> Self {
        // A table has fewer than 2³² rows: they would not fit in memory.
        let indices =
            |due: fn(&Row<P>) -> bool| (0_u32..).zip(rows).filter(move |(_, row)| due(row)).map(|(index, _)| index);
        let mut plan: Vec<u32> = indices(|row| row.wanted.is_none() && row.told != Told::Nothing).collect();
        let withdrawals = plan.len();
        plan.extend(indices(|row| row.wanted.is_some_and(|set| row.told != Told::With(set))));
        let set = |index: &u32| rows[*index as usize].wanted;
        let offers = &mut plan[withdrawals..];
        if !offers.is_sorted_by_key(set) {
            offers.sort_by_key(set);
        }
        Self { rows: plan, withdrawals, done: 0 }
    }
}
