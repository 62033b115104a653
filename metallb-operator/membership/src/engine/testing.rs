//! Shortcuts for tests and simulations.

use std::time::Instant;

use super::Engine;
use crate::wire::identity::Identity;

impl Engine {
    /// Takes these for members without a handshake, as gossip would after a long time: a full join of 5,000 members
    /// takes an hour to simulate.
    pub fn assume_members(&mut self, now: Instant, members: impl IntoIterator<Item = Identity>) {
        self.gossip.add_all(members);
        self.liveness.outdated = true;
        self.recompute_live(now);
    }
}
