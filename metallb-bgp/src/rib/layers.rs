//! A table, and a small one beside it for prefixes that are new: a route that comes moves few rows, however many others there are.

use super::attributes::{SetId, Templates};
use super::shared::Known;
use super::table::Table;
use crate::wire::nlri::Wide;

/// The routes of one family. A prefix has a row in one of both tables.
#[derive(Clone, Debug)]
pub(super) struct Layers<const N: usize> {
    base: Table<N>,
    recent: Table<N>,
    /// Where the large table's prefixes are shared.
    known: Known<N>,
}

impl<const N: usize> Default for Layers<N> {
    fn default() -> Self {
        Self { base: Table::default(), recent: Table::default(), known: Known::default() }
    }
}

impl<const N: usize> Layers<N> {
    pub(super) const fn told(&self) -> usize {
        self.base.told() + self.recent.told()
    }

    pub(super) const fn wanted(&self) -> usize {
        self.base.wanted() + self.recent.wanted()
    }

    /// From now on prefixes are kept together with those of others.
    pub(super) fn share(&mut self, known: &Known<N>) {
        self.known = known.clone();
        self.base.share(known);
    }

    /// Who has the prefixes of the large table, this one included.
    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        self.base.holders()
    }

    /// Every set in use, more than once.
    pub(super) fn sets(&self) -> impl Iterator<Item = SetId> {
        self.base.sets().chain(self.recent.sets())
    }

    /// Replaces what is wanted. True when it changed.
    pub(super) fn replace(&mut self, routes: Vec<(Wide<N>, SetId)>) -> bool {
        self.base.absorb(&mut self.recent);
        let changed = self.base.replace(routes);
        self.base.share(&self.known);
        changed
    }

    /// Changes what is wanted of one prefix. True when it changed.
    pub(super) fn change(&mut self, prefix: Wide<N>, set: Option<SetId>) -> bool {
        if self.base.has(&prefix) {
            return self.base.change(prefix, set);
        }
        if self.recent.rows() >= RECENT {
            self.base.absorb(&mut self.recent);
            self.base.share(&self.known);
        }
        self.recent.change(prefix, set)
    }

    /// The peer knows nothing.
    pub(super) fn forget(&mut self) {
        self.base.absorb(&mut self.recent);
        self.base.forget();
        self.base.share(&self.known);
    }

    /// The peer is to be told everything again.
    pub(super) fn replay(&mut self) {
        self.base.absorb(&mut self.recent);
        self.base.replay();
        self.base.share(&self.known);
    }

    /// Writes the next message to the beginning of `out`; 0 when there is nothing to say.
    pub(super) fn next_message(&mut self, out: &mut [u8], templates: &mut Templates<'_>) -> usize {
        match self.base.next_message(out, templates) {
            0 => self.recent.next_message(out, templates),
            bytes => bytes,
        }
    }
}

/// So many prefixes before they join the others, which costs a copy of all.
const RECENT: usize = 1024;
