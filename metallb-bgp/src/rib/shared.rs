//! Prefixes that the peers of a speaker have in common, stored once.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::wire::nlri::Wide;

/// Lets the peers of a speaker share the memory of equal prefixes. Each peer reads them at its own pace and gets its
/// own copy when its prefixes change. Clones refer to the same pool.
#[derive(Clone, Debug, Default)]
pub struct SharedPrefixes {
    pub(super) v4: ColumnPool<5>,
    pub(super) v6: ColumnPool<17>,
}

/// Sorted prefixes; changed only by [`Arc::make_mut`], so that a change stays private to its peer.
pub(super) type Column<const N: usize> = Arc<Vec<Wide<N>>>;

/// The columns in use by any peer.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnPool<const N: usize>(Arc<Mutex<Vec<Weak<Vec<Wide<N>>>>>>);

impl<const N: usize> ColumnPool<N> {
    /// Replaces the column by an equal one of another peer, or registers it for others. Short columns are not worth the
    /// search.
    pub(super) fn share(&self, column: &mut Column<N>) {
        // A column with weak references is registered; a change makes a new one without.
        if column.len() < MIN_SHARED || Arc::weak_count(column) > 0 {
            return;
        }
        let mut columns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        columns.retain(|other| other.strong_count() > 0);
        let equal = |other: &Column<N>| other.as_flattened() == column.as_flattened();
        match columns.iter().filter_map(Weak::upgrade).find(equal) {
            Some(other) => *column = other,
            None => columns.push(Arc::downgrade(column)),
        }
    }
}

/// Minimum length of a shared column.
const MIN_SHARED: usize = 64;
