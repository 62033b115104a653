//! What a session must be, and what a change of that costs.

use std::time::Duration;

use crate::types::{Asn, Family};

/// What a session must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionConfig {
    /// The number we show.
    pub asn: Asn,
    /// The number that we accept.
    pub remote: RemoteAsn,
    /// Proposed hold time, whole seconds, 0 or at least 3.
    pub hold_time: Duration,
    /// Keepalive interval; a third of the hold time where it is not given.
    pub keepalive_time: Option<Duration>,
    /// The pause between attempts; jittered back-off from one second where it is not given.
    pub connect_time: Option<Duration>,
    /// Families to carry.
    pub families: Vec<Family>,
    /// Ask the peer to keep the routes while this speaker restarts.
    pub graceful_restart: bool,
}

/// The autonomous system number that is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteAsn {
    /// Exactly this.
    Number(Asn),
    /// The same as ours.
    Internal,
    /// Any other than ours.
    External,
}

/// What a change of configuration costs a session that is up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ConfigChange {
    /// Nothing changed.
    None,
    /// It takes effect while the session goes on.
    Soft,
    /// The peer was told, or the connection was made with, the old value: the session must end and begin anew.
    Restart,
}

impl SessionConfig {
    /// What it costs to go from this configuration to `other`.
    #[must_use]
    pub fn change_to(&self, other: &Self) -> ConfigChange {
        // Both timers are ours alone: the peer never learns their values.
        let soft = Self { keepalive_time: other.keepalive_time, connect_time: other.connect_time, ..self.clone() };
        if self == other {
            ConfigChange::None
        } else if soft == *other {
            ConfigChange::Soft
        } else {
            ConfigChange::Restart
        }
    }
}

impl RemoteAsn {
    /// Whether a peer with number `theirs` is welcome where ours is `ours`.
    #[must_use]
    pub fn accepts(self, theirs: Asn, ours: Asn) -> bool {
        match self {
            Self::Number(asn) => theirs == asn,
            Self::Internal => theirs == ours,
            Self::External => theirs != ours,
        }
    }
}
