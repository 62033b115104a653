//! Prefixes that the peers of a speaker have in common: in wire form, kept once.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::wire::nlri::Wide;

/// Where the peers of a speaker find prefixes that others have. Each peer reads them at its own pace, and has a copy of its own as soon as
/// they are others; a clone is the same place.
#[derive(Clone, Debug, Default)]
pub struct SharedPrefixes {
    pub(super) v4: Known<5>,
    pub(super) v6: Known<17>,
}

/// Prefixes in order; changed by [`Arc::make_mut`] only, so that nobody sees another's change.
pub(super) type Column<const N: usize> = Arc<Vec<Wide<N>>>;

/// The columns that somebody has.
#[derive(Clone, Debug, Default)]
pub(super) struct Known<const N: usize>(Arc<Mutex<Vec<Weak<Vec<Wide<N>>>>>>);

impl<const N: usize> Known<N> {
    /// Puts an equal column that somebody has in the place of this one, or lets others find this one. Few prefixes are not worth a look.
    pub(super) fn share(&self, column: &mut Column<N>) {
        // A change makes a column that nobody else can find.
        if column.len() < WORTH_A_LOOK || Arc::weak_count(column) > 0 {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.strong_count() > 0);
        let equal = |other: &Column<N>| other.as_flattened() == column.as_flattened();
        match known.iter().filter_map(Weak::upgrade).find(equal) {
            Some(other) => *column = other,
            None => known.push(Arc::downgrade(column)),
        }
    }
}

const WORTH_A_LOOK: usize = 64;
