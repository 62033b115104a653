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
    /// Which end opens the connection.
    pub mode: Mode,
    /// How long to wait for the peer's OPEN before ours is sent (DelayOpenTime); zero sends it at once.
    pub delay_open: Duration,
    /// Offer messages of up to 65,535 octets (RFC 8654).
    pub extended_messages: bool,
}

/// Which end opens the connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// This one, and nothing of ours listens.
    #[default]
    Active,
    /// The peer (PassiveTcpEstablishment).
    Passive,
    /// Either: of two connections one is closed (RFC 4271 §6.8).
    Both,
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
    /// What a speaker of `asn` needs to know of a peer at least: IPv4, a hold time of 90 seconds, and everything else left alone.
    #[must_use]
    pub fn new(asn: Asn, remote: RemoteAsn) -> Self {
        Self {
            asn,
            remote,
            hold_time: Duration::from_secs(90),
            keepalive_time: None,
            connect_time: None,
            families: vec![Family::Ipv4],
            graceful_restart: false,
            mode: Mode::Active,
            delay_open: Duration::ZERO,
            extended_messages: false,
        }
    }

    /// What it costs to go from this configuration to `other`.
    #[must_use]
    pub fn change_to(&self, other: &Self) -> ConfigChange {
        // These are ours alone: the peer never learns their values.
        let soft = Self {
            keepalive_time: other.keepalive_time,
            connect_time: other.connect_time,
            delay_open: other.delay_open,
            ..self.clone()
        };
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
