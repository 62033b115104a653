//! Connection collision: which of two connections with a peer is kept (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5).

use std::time::Instant;

use super::Peer;
use crate::session::{ConnectionError, DownReason, Role, Slot, State};
use crate::types::{Asn, RouterId};
use crate::wire::iana::CeaseSubcode;
use crate::wire::notification::Notification;

/// What decides between two connections: the BGP identifier, then the AS number.
type Rank = (RouterId, Asn);

impl Peer {
    /// The peer's OPEN was accepted on the connection in `slot`. If there is another connection, one of the two is
    /// closed.
    pub(super) fn resolve_collision(&mut self, now: Instant, slot: Slot) {
        let other = slot.other();
        let (Some(new), Some(old)) = (self.session(slot), self.session(other)) else { return };
        match old.state() {
            // A peer that still had the old connection would not open a new one, so it has restarted.
            State::Established if old.peer_may_restart() => {
                self.end(now, other, DownReason::ConnectionLost(ConnectionError::PeerRestarted));
            }
            State::Established => self.close_collision(now, slot),
            State::OpenConfirm => {
                let Some(theirs) = new.negotiated() else { return };
                let ours = (new.router_id(), self.shared.config.asn);
                let keep = opened_by(ours, (theirs.remote_router_id, theirs.remote_asn));
                // If the same end opened both, its later one is the one that it still uses.
                let loser = if new.role() == keep { other } else { slot };
                self.close_collision(now, loser);
            }
            // The other connection is compared when its OPEN arrives (RFC 4271 §6.8).
            _ => {}
        }
    }

    /// Closes a connection because the other one is kept.
    pub(super) fn close_collision(&mut self, now: Instant, slot: Slot) {
        self.shared.counters.collisions += 1;
        if let Some(session) = &mut self.sessions[slot as usize] {
            let reason = session.close(Notification::new(CeaseSubcode::ConnectionCollision, &[]), &mut self.shared);
            self.end(now, slot, reason);
        }
    }
}

/// Which end opened the connection to keep: the one with the higher BGP identifier, or of equal ones the higher AS
/// number.
fn opened_by(ours: Rank, theirs: Rank) -> Role {
    if ours > theirs { Role::Active } else { Role::Passive }
}
