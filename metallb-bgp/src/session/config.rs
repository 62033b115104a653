//! The configuration of a session, and which changes of it need a new session.

use std::time::Duration;

use crate::types::{Asn, Family};

/// The configuration of a session.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SessionConfig {
    /// Our AS number.
    pub asn: Asn,
    /// The AS number that the peer must have.
    pub remote: RemoteAsn,
    /// The proposed hold time: whole seconds, 0 (none) or at least 3 s.
    pub hold_time: Duration,
    /// The keepalive interval, at most a third of the negotiated hold time; `None` means that third.
    pub keepalive_time: Option<Duration>,
    /// The pause between connection attempts, jittered; `None` means exponential back-off from one second to two
    /// minutes.
    pub connect_time: Option<Duration>,
    /// The address families to advertise.
    pub families: Vec<Family>,
    /// Ask the peer to keep the routes while this speaker restarts (RFC 4724).
    pub graceful_restart: bool,
    /// Which end opens the connection.
    pub mode: Mode,
    /// How long to wait for the peer's OPEN before sending ours (DelayOpenTime); zero sends it immediately.
    pub delay_open: Duration,
    /// Offer messages of up to 65,535 octets (RFC 8654).
    pub extended_messages: bool,
}

/// Which end opens the connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// This end. Connections of the peer are refused.
    #[default]
    Active,
    /// The peer (PassiveTcpEstablishment).
    Passive,
    /// Either end. Of two connections one is closed (RFC 4271 §6.8).
    Both,
}

/// Which AS number a peer must have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteAsn {
    /// This number.
    Number(Asn),
    /// Our own number.
    Internal,
    /// Any number except our own.
    External,
}

/// The effect of a configuration change on an established session.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ConfigChange {
    /// Nothing changed.
    None,
    /// The change takes effect while the session stays established.
    Soft,
    /// The old value was sent to the peer or used for the connection, so the session must be restarted.
    Restart,
}

impl SessionConfig {
    /// A session of AS `asn` with IPv4 unicast, a hold time of 90 seconds, and everything else at its default.
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

    /// The effect of a change from this configuration to `other`.
    #[must_use]
    pub fn change_to(&self, other: &Self) -> ConfigChange {
        // The peer never learns these values.
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
    /// Whether a peer with AS number `theirs` is accepted if ours is `ours`.
    #[must_use]
    pub fn accepts(self, theirs: Asn, ours: Asn) -> bool {
        match self {
            Self::Number(asn) => theirs == asn,
            Self::Internal => theirs == ours,
            Self::External => theirs != ours,
        }
    }
}
