//! The state machine (RFC 5880 §6.2 and §6.8.6), as a table.

use super::{Cause, State};

/// The state after a packet with state `received`, and the cause. `None` if the state does not change.
pub(super) fn next(local: State, received: State) -> Option<(State, Cause)> {
    use State::{AdminDown, Down, Init, Up};
    Some(match (local, received) {
        (Init | Up, AdminDown) => (Down, Cause::NeighborAdminDown),
        (Down, Down) => (Init, Cause::Handshake),
        (Down, Init) | (Init, Init | Up) => (Up, Cause::Handshake),
        (Up, Down) => (Down, Cause::NeighborDown),
        (AdminDown, _) | (Down, AdminDown | Up) | (Init, Down) | (Up, Init | Up) => return None,
    })
}
