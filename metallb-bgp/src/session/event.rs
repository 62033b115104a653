//! What a session asks of its driver, and what it reports.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

use super::State;
use crate::error::IoError;
use crate::types::Asn;
use crate::wire::notification::{Notification, ShutdownCommunication};

/// What the driver must do. It is exhaustive, because a driver must not ignore an action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Open a connection, then call `handle_connected` or `handle_failed`. A later `Close` abandons the attempt.
    Connect(Slot),
    /// Send the remaining bytes, then close the connection.
    Close(Slot),
}

/// Identifies one of the two connections that a peer can have while a collision is resolved.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Slot {
    /// The first connection.
    One,
    /// The second connection.
    Two,
}

/// Which end opened a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// This end.
    Active,
    /// The peer.
    Passive,
}

impl Slot {
    /// Both slots.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The other slot.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

/// A change of a session, for the layer above.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The session is established.
    Established {
        /// The peer's AS number.
        asn: Asn,
        /// The negotiated hold time; zero means none.
        hold_time: Duration,
    },
    /// One of two connections ended; the other one continues.
    Dropped {
        /// Which end had opened the connection.
        role: Role,
        /// Why it ended.
        reason: DownReason,
    },
    /// The session, or the attempt to establish it, ended.
    Down {
        /// The state before.
        from: State,
        /// Why it ended.
        reason: DownReason,
    },
}

/// Why a session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DownReason {
    /// The connection could not be opened.
    ConnectFailed(ConnectionError),
    /// The connection ended without a NOTIFICATION.
    ConnectionLost(ConnectionError),
    /// The peer sent a NOTIFICATION.
    Received(Notification),
    /// We sent a NOTIFICATION.
    Sent(Notification),
    /// We closed a connection before we had sent an OPEN (DelayOpen), so the NOTIFICATION was not sent.
    NotSent(Notification),
    /// The session was stopped without a NOTIFICATION.
    Stopped,
}

/// Why a connection could not be opened, or ended without a NOTIFICATION.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The operating system reported an error.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The peer closed the connection.
    #[error("closed by the peer")]
    ClosedByPeer,
    /// The connection was not established in time.
    #[error("timed out")]
    TimedOut,
    /// BFD reported the path as down while the connection was being opened.
    #[error("BFD is down")]
    BfdDown,
    /// The local address of the connection was removed from this host.
    #[error("the local address {0} was removed from this host")]
    SourceRemoved(IpAddr),
    /// The peer opened a new connection after a graceful restart (RFC 4724 §5).
    #[error("the peer has restarted")]
    PeerRestarted,
    /// The peer sent a NOTIFICATION without code and subcode.
    #[error("NOTIFICATION without code and subcode")]
    TruncatedNotification,
    /// The peer is unnumbered, and no router advertisement was received on its interface.
    #[error("no router advertisement was received on {interface}")]
    NoRouter {
        /// The interface.
        interface: String,
    },
    /// The peer is unnumbered, and router advertisements cannot be received on its interface.
    #[error("cannot receive router advertisements on {interface}: {source}")]
    RouterDiscovery {
        /// The interface.
        interface: String,
        /// Why not.
        source: IoError,
    },
}

/// How a session is ended for good.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stop {
    /// This speaker restarts. A peer with graceful restart keeps the routes and gets no NOTIFICATION; other peers get
    /// Administrative Shutdown with the text.
    Restart(ShutdownCommunication),
    /// Administrative Shutdown with a text for the peer's operator (RFC 9003).
    Shutdown(ShutdownCommunication),
    /// The peer was removed from the configuration.
    Deconfigured,
    /// The configuration of the peer changed, and a new session follows.
    Reconfigured,
}

/// The state of the path to the peer as reported by BFD (RFC 5882 §3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BfdState {
    /// The path works.
    Up,
    /// The path has failed.
    Down,
    /// BFD is administratively down, which says nothing about the path.
    AdminDown,
}

/// Counters of a session since its creation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// OPEN messages sent.
    pub opens_sent: u64,
    /// OPEN messages received.
    pub opens_received: u64,
    /// UPDATE messages sent.
    pub updates_sent: u64,
    /// UPDATE messages received.
    pub updates_received: u64,
    /// UPDATE messages received with an error that RFC 7606 tolerates.
    pub updates_malformed: u64,
    /// KEEPALIVE messages sent.
    pub keepalives_sent: u64,
    /// KEEPALIVE messages received.
    pub keepalives_received: u64,
    /// NOTIFICATION messages sent.
    pub notifications_sent: u64,
    /// NOTIFICATION messages received.
    pub notifications_received: u64,
    /// ROUTE-REFRESH messages received.
    pub route_refreshes_received: u64,
    /// Connections closed by collision resolution.
    pub collisions: u64,
    /// Prefixes that the peer announced and that were dropped.
    pub prefixes_dropped: u64,
    /// Transitions to Established.
    pub established: u64,
}

impl DownReason {
    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ConnectFailed(_) => "connect-failed",
            Self::ConnectionLost(_) => "connection-lost",
            Self::Received(_) => "notification-received",
            Self::Sent(_) => "notification-sent",
            Self::NotSent(_) => "closed-unsaid",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailed(error) => write!(f, "connect failed: {error}"),
            Self::ConnectionLost(error) => write!(f, "connection lost: {error}"),
            Self::Received(notification) => {
                write!(f, "received {notification}")?;
                // RFC 8538 §3.1: a Hard Reset contains the reason. Only one level is unwrapped.
                let inner = notification.inner();
                inner.as_ref().map_or(Ok(()), |inner| write!(f, ": {inner}"))?;
                let text = inner.as_ref().unwrap_or(notification).shutdown_communication();
                text.map_or(Ok(()), |text| write!(f, ": \"{}\"", text.escape_debug()))
            }
            Self::Sent(notification) => {
                write!(f, "sent {notification}")?;
                notification.inner().map_or(Ok(()), |inner| write!(f, ": {inner}"))
            }
            Self::NotSent(notification) => write!(f, "closed before OPEN: {notification}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::iana::CeaseSubcode;

    #[test]
    fn hard_reset_shows_the_reason_inside_it_one_level_deep() {
        let text = |notification: Notification| DownReason::Received(notification).to_string();
        assert_eq!(text(Notification::new(CeaseSubcode::HardReset, &[])), "received Cease: Hard Reset (6/9)");
        let shutdown = Notification::shutdown(&"bye".into());
        let once = shutdown.clone().hard_reset();
        let expected = "received Cease: Hard Reset (6/9): Cease: Administrative Shutdown (6/2): \"bye\"";
        assert_eq!(text(once.clone()), expected);
        let sent = DownReason::Sent(Notification::new(CeaseSubcode::BfdDown, &[]).hard_reset()).to_string();
        assert_eq!(sent, "sent Cease: Hard Reset (6/9): Cease: BFD Down (6/10)");
        assert_eq!(text(once.hard_reset()), "received Cease: Hard Reset (6/9): Cease: Hard Reset (6/9)");
    }

    #[test]
    fn shutdown_communication_is_escaped_and_a_malformed_one_is_ignored() {
        let text = |data: &[u8]| {
            let shutdown = Notification::new(CeaseSubcode::AdministrativeShutdown, data);
            DownReason::Received(shutdown).to_string()
        };
        let plain = "received Cease: Administrative Shutdown (6/2)";
        let long = [&[255][..], &[b'a'; 255]].concat();
        assert_eq!(text(&long), format!("{plain}: \"{}\"", "a".repeat(255)), "the longest text");
        assert_eq!(text(&[200, b'a', b'b']), plain, "shorter than its length octet");
        assert_eq!(text(&[2, 0xc3, 0x28]), plain, "not UTF-8");
        assert_eq!(text(b"\x06\n\x1b[2J\0"), format!("{plain}: \"\\n\\u{{1b}}[2J\\0\""), "control characters");
        assert_eq!(text(&[]), plain);
        assert_eq!(
            DownReason::Received(Notification::new(CeaseSubcode::PeerDeconfigured, b"\x02hi")).to_string(),
            "received Cease: Peer De-configured (6/3)"
        );
    }
}
