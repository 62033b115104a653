//! NOTIFICATION (RFC 4271 §4.5, §6; RFC 4486, RFC 9003, RFC 9384, RFC 9687).

use std::fmt;

use super::message;

/// Why a session ends, as one side tells the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The error subcode.
    pub subcode: u8,
    /// What the error is about.
    pub data: Vec<u8>,
}

impl Notification {
    /// A notification; data beyond what fits in a message is cut.
    #[must_use]
    pub fn new(code: u8, subcode: u8, data: &[u8]) -> Self {
        Self { code, subcode, data: data[..data.len().min(DATA_MAX)].to_vec() }
    }

    /// Cease, Administrative Shutdown, with a text for the peer's operator (RFC 9003).
    #[must_use]
    pub fn shutdown(text: &str) -> Self {
        // Peers of RFC 8203 take no more than 128 octets. The cut is not within a character.
        let text = &text.as_bytes()[..text.floor_char_boundary(SHUTDOWN_MAX)];
        let mut data = vec![text.len() as u8];
        data.extend_from_slice(text);
        Self::new(6, 2, &data)
    }

    /// Hold timer expired.
    #[must_use]
    pub fn hold_timer_expired() -> Self {
        Self::new(4, 0, &[])
    }

    /// The same as a Hard Reset, which carries the reason inside (RFC 8538 §3.1).
    #[must_use]
    pub fn hard_reset(self) -> Self {
        Self::new(CEASE, HARD_RESET, &[&[self.code, self.subcode][..], &self.data].concat())
    }

    /// The reason inside a Hard Reset; `None` where this is none, or tells none.
    #[must_use]
    pub fn inner(&self) -> Option<Self> {
        let hard = (self.code, self.subcode) == (CEASE, HARD_RESET);
        hard.then(|| Self::decode(&self.data)).flatten()
    }

    /// Reads the body of a message, which has at least code and subcode.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let [code, subcode, data @ ..] = body else { return None };
        Some(Self::new(*code, *subcode, data))
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, 3, |out| {
            out.extend_from_slice(&[self.code, self.subcode]);
            out.extend_from_slice(&self.data);
        });
    }
}

impl std::error::Error for Notification {}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.code, self.subcode) {
            (1, 1) => "Message Header Error: Connection Not Synchronized",
            (1, 2) => "Message Header Error: Bad Message Length",
            (1, 3) => "Message Header Error: Bad Message Type",
            (1, _) => "Message Header Error",
            (2, 1) => "OPEN Message Error: Unsupported Version Number",
            (2, 2) => "OPEN Message Error: Bad Peer AS",
            (2, 3) => "OPEN Message Error: Bad BGP Identifier",
            (2, 4) => "OPEN Message Error: Unsupported Optional Parameter",
            (2, 6) => "OPEN Message Error: Unacceptable Hold Time",
            (2, 7) => "OPEN Message Error: Unsupported Capability",
            (2, _) => "OPEN Message Error",
            (3, _) => "UPDATE Message Error",
            (4, _) => "Hold Timer Expired",
            (5, _) => "Finite State Machine Error",
            (6, 1) => "Cease: Maximum Number of Prefixes Reached",
            (6, 2) => "Cease: Administrative Shutdown",
            (6, 3) => "Cease: Peer De-configured",
            (6, 4) => "Cease: Administrative Reset",
            (6, 5) => "Cease: Connection Rejected",
            (6, 6) => "Cease: Other Configuration Change",
            (6, 7) => "Cease: Connection Collision Resolution",
            (6, 8) => "Cease: Out of Resources",
            (6, 9) => "Cease: Hard Reset",
            (6, 10) => "Cease: BFD Down",
            (6, _) => "Cease",
            (7, _) => "ROUTE-REFRESH Message Error",
            (8, _) => "Send Hold Timer Expired",
            _ => "unknown code",
        };
        write!(f, "{name} ({}/{})", self.code, self.subcode)
    }
}

pub(super) fn header_error(subcode: u8, data: &[u8]) -> Notification {
    Notification::new(1, subcode, data)
}

const CEASE: u8 = 6;
const HARD_RESET: u8 = 9;

/// Octets of text in a shutdown communication.
const SHUTDOWN_MAX: usize = 128;

/// What a message of 4096 bytes leaves for data.
const DATA_MAX: usize = 4096 - 21;
