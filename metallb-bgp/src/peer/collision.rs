//! Which of two connections with one peer stays (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5).

use std::time::Instant;

use super::Peer;
use crate::session::{DownReason, Role, Slot, State};
use crate::types::{Asn, RouterId};
use crate::wire::notification::Notification;

/// What decides between two connections: the identifier, and between equal ones the number.
type Rank = (RouterId, Asn);

impl Peer {
    /// The peer's OPEN has come on the connection in `slot`. Where there is another one, one of the two ends.
    pub(super) fn resolve(&mut self, now: Instant, slot: Slot) {
        let other = slot.other();
        let (Some(new), Some(old)) = (self.session(slot), self.session(other)) else { return };
        match old.state() {
            // The peer would not come back on another connection if it still knew this one: it has restarted.
            State::Established if old.peer_may_restart() => {
                self.end(now, other, DownReason::ConnectionLost("the peer has restarted".to_owned()));
            }
            State::Established => self.collide(now, slot),
            State::OpenConfirm => {
                let Some(theirs) = new.negotiated() else { return };
                let ours = (new.router_id(), self.shared.config.asn);
                let stays = survivor(ours, (theirs.remote_router_id, theirs.remote_asn));
                // Two connections that the same end opened: the later one is the one that its opener still knows.
                let loser = if new.role() == stays { other } else { slot };
                self.collide(now, loser);
            }
            // Of a connection without an OPEN nobody knows whose it is (RFC 4271 §6.8); it is judged when the OPEN comes.
            _ => {}
        }
    }

    /// Ends a connection because another one stays.
    pub(super) fn collide(&mut self, now: Instant, slot: Slot) {
        self.shared.counters.collisions += 1;
        if let Some(session) = &mut self.sessions[slot as usize] {
            let reason = session.refuse(Notification::new(6, 7, &[]), &mut self.shared);
            self.end(now, slot, reason);
        }
    }
}

/// Who must have opened the connection that stays: the end with the higher identifier, or of equal ones with the higher number.
fn survivor(ours: Rank, theirs: Rank) -> Role {
    if ours > theirs { Role::Active } else { Role::Passive }
}
