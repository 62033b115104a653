//! Numbers that tell one process from another: they jitter timers and name the claimant of a Lease. Nothing secret depends on them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A number that no other process on this network is likely to have.
pub(crate) fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}
