//! The state of a session.

use std::fmt;

/// The states of RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Pausing before the next attempt, or stopped.
    Idle,
    /// Opening a connection.
    Connect,
    /// Waiting for the peer to open a connection.
    Active,
    /// Our OPEN was sent.
    OpenSent,
    /// The peer's OPEN was accepted.
    OpenConfirm,
    /// The session is up, and routes are exchanged.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
