//! Where a session stands.

use std::fmt;

/// The states of RFC 4271 §8.2.2. `Active` is not among them: it waits for the peer to connect, and this speaker does not listen.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Waiting before the next attempt, or stopped.
    Idle,
    /// Connecting.
    Connect,
    /// OPEN sent.
    OpenSent,
    /// OPEN accepted.
    OpenConfirm,
    /// Exchanging routes.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
