//! A large table, and a small one for new prefixes: inserting a route moves few rows, however many routes there are.

use super::attributes::{SetId, Templates};
use super::shared::ColumnPool;
use super::table::Table;
use crate::wire::nlri::Wide;

/// The routes of one family. A prefix has a row in one of the two tables.
#[derive(Clone, Debug)]
pub(super) struct Layers<const N: usize> {
    base: Table<N>,
    recent: Table<N>,
    /// Shares the prefixes of the large table with other peers.
    pool: ColumnPool<N>,
}

impl<const N: usize> Default for Layers<N> {
    fn default() -> Self {
        Self { base: Table::default(), recent: Table::default(), pool: ColumnPool::default() }
    }
}

impl<const N: usize> Layers<N> {
    pub(super) const fn advertised(&self) -> usize {
        self.base.advertised() + self.recent.advertised()
    }

    pub(super) const fn wanted(&self) -> usize {
        self.base.wanted() + self.recent.wanted()
    }

    /// Shares the prefixes with other peers from now on.
    pub(super) fn share(&mut self, pool: &ColumnPool<N>) {
        self.pool = pool.clone();
        self.base.share(pool);
    }

    /// The number of peers that share the prefixes of the large table, this one included.
    #[cfg(test)]
    pub(super) fn sharers(&self) -> usize {
        self.base.sharers()
    }

    /// Every attribute set in use, possibly repeated.
    pub(super) fn sets(&self) -> impl Iterator<Item = SetId> {
        self.base.sets().chain(self.recent.sets())
    }

    /// Replaces the wanted routes and returns whether they changed.
    pub(super) fn replace(&mut self, routes: Vec<(Wide<N>, SetId)>) -> bool {
        self.base.absorb(&mut self.recent);
        let changed = self.base.replace(routes);
        self.base.share(&self.pool);
        changed
    }

    /// Changes the wanted route of one prefix and returns whether it changed.
    pub(super) fn change(&mut self, prefix: Wide<N>, set: Option<SetId>) -> bool {
        if self.base.contains(&prefix) {
            return self.base.change(prefix, set);
        }
        if self.recent.rows() >= RECENT {
            self.base.absorb(&mut self.recent);
            self.base.share(&self.pool);
        }
        self.recent.change(prefix, set)
    }

    /// Marks all routes as not advertised.
    pub(super) fn reset(&mut self) {
        self.base.absorb(&mut self.recent);
        self.base.reset();
        self.base.share(&self.pool);
    }

    /// Marks all advertised routes as to be advertised again.
    pub(super) fn replay(&mut self) {
        self.base.absorb(&mut self.recent);
        self.base.replay();
        self.base.share(&self.pool);
    }

    /// Writes the next message to the start of `out` and returns its length, 0 if nothing is pending.
    pub(super) fn next_message(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        match self.base.next_message(out, templates) {
            0 => self.recent.next_message(out, templates),
            bytes => bytes,
        }
    }

    /// As [`next_message`](Self::next_message), but withdraws all advertised routes, which stay wanted.
    pub(super) fn next_withdrawal(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        match self.base.next_withdrawal(out, templates) {
            0 => self.recent.next_withdrawal(out, templates),
            bytes => bytes,
        }
    }

    /// Whether the prefix is wanted.
    pub(super) fn wants(&self, prefix: &Wide<N>) -> bool {
        self.base.wants(prefix) || self.recent.wants(prefix)
    }
}

/// Number of new prefixes before they are merged into the large table, which copies all rows.
const RECENT: usize = 1024;
