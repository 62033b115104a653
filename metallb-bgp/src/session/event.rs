//! What a session asks for and tells.

use std::fmt;
use std::time::Duration;

use super::State;
use crate::types::Asn;
use crate::wire::notification::Notification;

/// What the driver must do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Open a connection, then call `handle_connected` or `handle_failed`. A `Close` that comes first gives the attempt up.
    Connect(Slot),
    /// Send what is left, then close the connection.
    Close(Slot),
}

/// Tells connections of one peer apart: there are never more than two, and in the end only one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Slot {
    /// The first.
    One,
    /// The other.
    Two,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// This end.
    Active,
    /// The peer.
    Passive,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The one that this is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

/// Something worth telling.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The session is up.
    Established {
        /// The peer's number.
        asn: Asn,
        /// The hold time in force; zero means none.
        hold_time: Duration,
    },
    /// One of two connections ended; the other goes on.
    Dropped {
        /// Who had opened it.
        role: Role,
        /// Why.
        reason: DownReason,
    },
    /// The session, or the attempt at one, ended.
    Down {
        /// The state it was in.
        from: State,
        /// Why.
        reason: DownReason,
    },
}

/// Why a session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DownReason {
    /// No connection came about.
    ConnectFailed(String),
    /// The connection broke.
    ConnectionLost(String),
    /// The peer said so.
    Received(Notification),
    /// We said so.
    Sent(Notification),
    /// We closed a connection on which we had not yet said anything (DelayOpen), so that the reason stayed unsaid.
    Unsaid(Notification),
    /// It was stopped without a word to the peer.
    Stopped,
}

/// How a session is ended for good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stop {
    /// This speaker restarts. A peer that agreed to graceful restart keeps the routes, so it is told nothing; another one gets
    /// the text with Administrative Shutdown.
    Restart(String),
    /// Administrative Shutdown with a text for the peer's operator (RFC 9003).
    Shutdown(String),
    /// The peer is no longer configured.
    Deconfigured,
    /// The peer is configured otherwise, so that a new session follows.
    Reconfigured,
}

/// What BFD says of the path to the peer (RFC 5882 §3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BfdState {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// BFD was switched off on purpose, which says nothing about the path.
    AdminDown,
}

/// What passed so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// OPEN sent.
    pub opens_sent: u64,
    /// OPEN received.
    pub opens_received: u64,
    /// UPDATE sent.
    pub updates_sent: u64,
    /// UPDATE received.
    pub updates_received: u64,
    /// UPDATE received with a fault that RFC 7606 lets pass.
    pub updates_malformed: u64,
    /// KEEPALIVE sent.
    pub keepalives_sent: u64,
    /// KEEPALIVE received.
    pub keepalives_received: u64,
    /// NOTIFICATION sent.
    pub notifications_sent: u64,
    /// NOTIFICATION received.
    pub notifications_received: u64,
    /// ROUTE-REFRESH received.
    pub route_refreshes_received: u64,
    /// Connections that were closed because another one stays.
    pub collisions: u64,
    /// Prefixes that the peer offered and that were dropped.
    pub prefixes_dropped: u64,
    /// Times the session came up.
    pub established: u64,
}

impl DownReason {
    /// A short name that never changes, for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ConnectFailed(_) => "connect-failed",
            Self::ConnectionLost(_) => "connection-lost",
            Self::Received(_) => "notification-received",
            Self::Sent(_) => "notification-sent",
            Self::Unsaid(_) => "closed-unsaid",
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
                // RFC 8538 §3.1: a Hard Reset carries the reason. One level only: what is in there is shown as it is.
                let inner = notification.inner();
                inner.as_ref().map_or(Ok(()), |inner| write!(f, ": {inner}"))?;
                let text = communication(inner.as_ref().unwrap_or(notification));
                text.map_or(Ok(()), |text| write!(f, ": \"{}\"", text.escape_debug()))
            }
            Self::Sent(notification) => {
                write!(f, "sent {notification}")?;
                notification.inner().map_or(Ok(()), |inner| write!(f, ": {inner}"))
            }
            Self::Unsaid(notification) => write!(f, "closed without saying {notification}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// The text that comes with an administrative shutdown or reset (RFC 9003 §2); `None` where there is none, or it is not what it
/// should be. It is the peer's: escape it wherever it is shown.
fn communication(notification: &Notification) -> Option<&str> {
    let (6, 2 | 4, [length, text @ ..]) = (notification.code, notification.subcode, notification.data.as_slice())
    else {
        return None;
    };
    let text = text.get(..usize::from(*length))?;
    std::str::from_utf8(text).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_reset_of_cases_n07_and_n08_tells_the_reason_inside_one_level_deep() {
        let text = |notification: Notification| DownReason::Received(notification).to_string();
        assert_eq!(text(Notification::new(6, 9, &[])), "received Cease: Hard Reset (6/9)");
        let shutdown = Notification::shutdown("bye");
        let once = shutdown.clone().hard_reset();
        let expected = "received Cease: Hard Reset (6/9): Cease: Administrative Shutdown (6/2): \"bye\"";
        assert_eq!(text(once.clone()), expected);
        let sent = DownReason::Sent(Notification::new(6, 10, &[]).hard_reset()).to_string();
        assert_eq!(sent, "sent Cease: Hard Reset (6/9): Cease: BFD Down (6/10)");
        assert_eq!(text(once.hard_reset()), "received Cease: Hard Reset (6/9): Cease: Hard Reset (6/9)");
    }

    #[test]
    fn shutdown_communication_of_cases_n03_to_n06_is_read_escaped_or_left_alone() {
        let text = |data: &[u8]| DownReason::Received(Notification::new(6, 2, data)).to_string();
        let plain = "received Cease: Administrative Shutdown (6/2)";
        let long = [&[255][..], &[b'a'; 255]].concat();
        assert_eq!(text(&long), format!("{plain}: \"{}\"", "a".repeat(255)), "N03");
        assert_eq!(text(&[200, b'a', b'b']), plain, "N04: shorter than it says");
        assert_eq!(text(&[2, 0xc3, 0x28]), plain, "N05: not UTF-8");
        assert_eq!(text(b"\x06\n\x1b[2J\0"), format!("{plain}: \"\\n\\u{{1b}}[2J\\0\""), "N06");
        assert_eq!(text(&[]), plain);
        assert_eq!(
            DownReason::Received(Notification::new(6, 3, b"\x02hi")).to_string(),
            "received Cease: Peer De-configured (6/3)"
        );
    }
}
