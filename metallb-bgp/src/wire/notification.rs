//! NOTIFICATION (RFC 4271 §4.5 and §6; RFC 4486, RFC 9003, RFC 9384, RFC 9687).

use std::fmt;

use super::iana::{
    CeaseSubcode, ErrorCode, FsmSubcode, HeaderSubcode, MessageType, OpenSubcode, RefreshSubcode, UpdateSubcode,
};
use super::{HEADER, MESSAGE_MAX, message};

/// The message that reports an error and ends the session.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Notification {
    /// The error code. A peer may send one that is not in [`ErrorCode`].
    pub code: u8,
    /// The error subcode. A peer may send one that is not registered for the code.
    pub subcode: u8,
    /// Details, in a form that depends on code and subcode.
    pub data: Vec<u8>,
}

/// An error code with its subcode, as far as registered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum NotificationCode {
    /// Message Header Error.
    MessageHeader(HeaderSubcode),
    /// OPEN Message Error.
    OpenMessage(OpenSubcode),
    /// UPDATE Message Error.
    UpdateMessage(UpdateSubcode),
    /// Hold Timer Expired, which has no subcodes.
    HoldTimerExpired,
    /// Finite State Machine Error.
    FiniteStateMachine(FsmSubcode),
    /// Cease.
    Cease(CeaseSubcode),
    /// ROUTE-REFRESH Message Error.
    RouteRefreshMessage(RefreshSubcode),
    /// Send Hold Timer Expired, which has no subcodes.
    SendHoldTimerExpired,
}

/// Text that goes to the peer's operator with an administrative shutdown (RFC 9003), at most 128 octets.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ShutdownCommunication(String);

impl Notification {
    /// A notification. Data that does not fit into a message of 4096 octets is truncated.
    #[must_use]
    pub fn new(code: impl Into<NotificationCode>, data: &[u8]) -> Self {
        let code = code.into();
        Self::from_raw(code.code().code(), code.subcode(), data)
    }

    /// Cease, Administrative Shutdown, with a text for the peer's operator (RFC 9003).
    #[must_use]
    pub fn shutdown(text: &ShutdownCommunication) -> Self {
        // The text has at most 128 octets.
        let mut data = vec![text.0.len() as u8];
        data.extend_from_slice(text.0.as_bytes());
        Self::new(CeaseSubcode::AdministrativeShutdown, &data)
    }

    /// Wraps the notification into a Hard Reset, which carries the original code, subcode and data (RFC 8538 §3.1).
    #[must_use]
    pub fn hard_reset(self) -> Self {
        Self::new(CeaseSubcode::HardReset, &[&[self.code, self.subcode][..], &self.data].concat())
    }

    /// The notification inside a Hard Reset; `None` if this is no Hard Reset, or an empty one.
    #[must_use]
    pub fn inner(&self) -> Option<Self> {
        let is_hard_reset = self.known() == Some(CeaseSubcode::HardReset.into());
        is_hard_reset.then(|| Self::decode(&self.data)).flatten()
    }

    /// The text of an administrative shutdown or reset (RFC 9003 §2). `None` if there is none, or if it is malformed.
    /// The peer chose the text: escape it before showing it.
    #[must_use]
    pub fn shutdown_communication(&self) -> Option<&str> {
        let Some(NotificationCode::Cease(CeaseSubcode::AdministrativeShutdown | CeaseSubcode::AdministrativeReset)) =
            self.known()
        else {
            return None;
        };
        let [length, text @ ..] = self.data.as_slice() else { return None };
        let text = text.get(..usize::from(*length))?;
        std::str::from_utf8(text).ok().filter(|text| !text.is_empty())
    }

    /// Code and subcode, if both are registered.
    #[must_use]
    pub const fn known(&self) -> Option<NotificationCode> {
        NotificationCode::from_codes(self.code, self.subcode)
    }

    /// Decodes the body of a message. `None` if it is too short for a code and a subcode.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let [code, subcode, data @ ..] = body else { return None };
        Some(Self::from_raw(*code, *subcode, data))
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        message(out, MessageType::Notification.code(), |out| {
            out.extend_from_slice(&[self.code, self.subcode]);
            out.extend_from_slice(&self.data);
        });
    }

    fn from_raw(code: u8, subcode: u8, data: &[u8]) -> Self {
        Self { code, subcode, data: data[..data.len().min(DATA_MAX)].to_vec() }
    }
}

impl NotificationCode {
    /// The error code.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::MessageHeader(_) => ErrorCode::MessageHeader,
            Self::OpenMessage(_) => ErrorCode::OpenMessage,
            Self::UpdateMessage(_) => ErrorCode::UpdateMessage,
            Self::HoldTimerExpired => ErrorCode::HoldTimerExpired,
            Self::FiniteStateMachine(_) => ErrorCode::FiniteStateMachine,
            Self::Cease(_) => ErrorCode::Cease,
            Self::RouteRefreshMessage(_) => ErrorCode::RouteRefreshMessage,
            Self::SendHoldTimerExpired => ErrorCode::SendHoldTimerExpired,
        }
    }

    /// The subcode on the wire; 0 where the code has none.
    #[must_use]
    pub const fn subcode(self) -> u8 {
        match self {
            Self::MessageHeader(subcode) => subcode.code(),
            Self::OpenMessage(subcode) => subcode.code(),
            Self::UpdateMessage(subcode) => subcode.code(),
            Self::FiniteStateMachine(subcode) => subcode.code(),
            Self::Cease(subcode) => subcode.code(),
            Self::RouteRefreshMessage(subcode) => subcode.code(),
            Self::HoldTimerExpired | Self::SendHoldTimerExpired => 0,
        }
    }

    /// From code and subcode on the wire; `None` unless both are registered.
    #[must_use]
    pub const fn from_codes(code: u8, subcode: u8) -> Option<Self> {
        macro_rules! known {
            ($subcodes:ident, $variant:ident) => {
                match $subcodes::from_code(subcode) {
                    Some(subcode) => Some(Self::$variant(subcode)),
                    None => None,
                }
            };
        }
        match ErrorCode::from_code(code) {
            Some(ErrorCode::MessageHeader) => known!(HeaderSubcode, MessageHeader),
            Some(ErrorCode::OpenMessage) => known!(OpenSubcode, OpenMessage),
            Some(ErrorCode::UpdateMessage) => known!(UpdateSubcode, UpdateMessage),
            Some(ErrorCode::HoldTimerExpired) if subcode == 0 => Some(Self::HoldTimerExpired),
            Some(ErrorCode::FiniteStateMachine) => known!(FsmSubcode, FiniteStateMachine),
            Some(ErrorCode::Cease) => known!(CeaseSubcode, Cease),
            Some(ErrorCode::RouteRefreshMessage) => known!(RefreshSubcode, RouteRefreshMessage),
            Some(ErrorCode::SendHoldTimerExpired) if subcode == 0 => Some(Self::SendHoldTimerExpired),
            Some(ErrorCode::HoldTimerExpired | ErrorCode::SendHoldTimerExpired) | None => None,
        }
    }

    const fn subcode_name(self) -> &'static str {
        match self {
            Self::MessageHeader(subcode) => subcode.name(),
            Self::OpenMessage(subcode) => subcode.name(),
            Self::UpdateMessage(subcode) => subcode.name(),
            Self::FiniteStateMachine(subcode) => subcode.name(),
            Self::Cease(subcode) => subcode.name(),
            Self::RouteRefreshMessage(subcode) => subcode.name(),
            Self::HoldTimerExpired | Self::SendHoldTimerExpired => "",
        }
    }
}

impl ShutdownCommunication {
    /// The text, truncated to 128 octets at a character boundary: peers that follow RFC 8203 reject longer ones.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(SHUTDOWN_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ShutdownCommunication {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<HeaderSubcode> for NotificationCode {
    fn from(subcode: HeaderSubcode) -> Self {
        Self::MessageHeader(subcode)
    }
}

impl From<OpenSubcode> for NotificationCode {
    fn from(subcode: OpenSubcode) -> Self {
        Self::OpenMessage(subcode)
    }
}

impl From<UpdateSubcode> for NotificationCode {
    fn from(subcode: UpdateSubcode) -> Self {
        Self::UpdateMessage(subcode)
    }
}

impl From<FsmSubcode> for NotificationCode {
    fn from(subcode: FsmSubcode) -> Self {
        Self::FiniteStateMachine(subcode)
    }
}

impl From<CeaseSubcode> for NotificationCode {
    fn from(subcode: CeaseSubcode) -> Self {
        Self::Cease(subcode)
    }
}

impl From<RefreshSubcode> for NotificationCode {
    fn from(subcode: RefreshSubcode) -> Self {
        Self::RouteRefreshMessage(subcode)
    }
}

impl std::error::Error for Notification {}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ErrorCode::from_code(self.code) {
            Some(code) => f.write_str(code.name())?,
            None => f.write_str("unknown code")?,
        }
        // Subcode 0 says nothing more than the code.
        if let Some(known) = self.known().filter(|_| self.subcode != 0) {
            write!(f, ": {}", known.subcode_name())?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)
    }
}

/// Maximum length of the text in a shutdown communication, in octets (RFC 8203 §2).
const SHUTDOWN_MAX: usize = 128;

/// Maximum length of the data, in octets: a message of 4096 octets less header, code and subcode.
const DATA_MAX: usize = MESSAGE_MAX - HEADER - 2;
