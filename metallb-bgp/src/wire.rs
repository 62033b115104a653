//! BGP messages on the wire (RFC 4271 §4): decoded to views that borrow, encoded into the caller's buffer.
//!
//! [`decode`] is the only entry point for received bytes: it finds the first message of a stream and decodes it as the
//! session has negotiated. Its error is the NOTIFICATION to send, whose data is always a part of the received bytes.

#![forbid(unsafe_code)]

pub mod iana;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod refresh;
pub mod template;
pub mod update;

pub use self::iana::MessageType;
use self::iana::{HeaderSubcode, RefreshSubcode};
use self::notification::Notification;
use self::open::Open;
use self::refresh::RouteRefresh;
use self::update::Update;
use crate::types::{Asn, Family};

/// Length of the message header, in octets.
pub const HEADER: usize = 19;
/// Maximum length of a message without RFC 8654, in octets.
pub const MESSAGE_MAX: usize = 4096;
/// Maximum length of a message with RFC 8654, in octets.
pub const EXTENDED_MESSAGE_MAX: usize = 65_535;

/// What a session has negotiated, as far as it changes how messages are decoded. The default is a session before its
/// OPEN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DecodeContext {
    /// Our AS number.
    pub local_asn: Asn,
    /// The peer's AS number.
    pub remote_asn: Asn,
    /// Whether AS numbers have four octets (RFC 6793).
    pub four_octet_asn: bool,
    /// Whether *we* offered extended messages (RFC 8654 §4).
    pub extended_messages: bool,
    /// Whether enhanced route refresh is in use (RFC 7313).
    pub enhanced_refresh: bool,
    /// Whether IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether IPv4 unicast is in use.
    pub ipv4: bool,
    /// Whether IPv6 unicast is in use.
    pub ipv6: bool,
}

impl Default for DecodeContext {
    fn default() -> Self {
        Self::new(Asn(0), Asn(0))
    }
}

impl DecodeContext {
    /// A session between two AS numbers that uses four-octet AS numbers and both families, and no extension.
    #[must_use]
    pub const fn new(local_asn: Asn, remote_asn: Asn) -> Self {
        Self {
            local_asn,
            remote_asn,
            four_octet_asn: true,
            extended_messages: false,
            enhanced_refresh: false,
            extended_next_hop: false,
            ipv4: true,
            ipv6: true,
        }
    }

    /// Whether both ends are in the same autonomous system.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.local_asn == self.remote_asn
    }

    /// Whether a family is in use.
    #[must_use]
    pub const fn carries(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

/// A decoded message.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update<'a>),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

impl Message<'_> {
    /// The type of the message.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::Open(_) => MessageType::Open,
            Self::Update(_) => MessageType::Update,
            Self::Notification(_) => MessageType::Notification,
            Self::Keepalive => MessageType::Keepalive,
            Self::RouteRefresh(_) => MessageType::RouteRefresh,
        }
    }
}

/// Why a received message ends the session.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The message is malformed; the NOTIFICATION is to be sent.
    #[error(transparent)]
    Notify(#[from] Notification),
    /// A NOTIFICATION that is itself too short. It ends the session, but it is not answered by another NOTIFICATION
    /// (RFC 4271 §6.4).
    #[error("NOTIFICATION without code and subcode")]
    TruncatedNotification,
}

/// Decodes the first message in `bytes`, and returns it with its length in octets. `Ok(None)` means that more bytes are
/// needed. UPDATE, KEEPALIVE and ROUTE-REFRESH are decoded without an allocation.
///
/// # Errors
/// The session must end. Errors that RFC 7606 tolerates are in [`Update::outcome`] instead.
pub fn decode<'a>(bytes: &'a [u8], context: &DecodeContext) -> Result<Option<(Message<'a>, usize)>, DecodeError> {
    let Some((kind, body, size)) = split(bytes, context)? else { return Ok(None) };
    let message = match kind {
        MessageType::Open => Message::Open(Open::decode(body)?),
        MessageType::Update => Message::Update(Update::decode(body, context)?),
        MessageType::Notification => {
            Message::Notification(Notification::decode(body).ok_or(DecodeError::TruncatedNotification)?)
        }
        MessageType::Keepalive => Message::Keepalive,
        MessageType::RouteRefresh => match body.try_into() {
            Ok(body) => Message::RouteRefresh(RouteRefresh::decode(body)),
            // RFC 7313 §5: the data is the whole message.
            Err(_) => return Err(Notification::new(RefreshSubcode::InvalidMessageLength, &bytes[..size]).into()),
        },
    };
    Ok(Some((message, size)))
}

/// Finds the first message in `bytes`: its type, its body and its length in octets. `Ok(None)` means that more bytes
/// are needed.
pub(crate) fn split<'a>(
    bytes: &'a [u8],
    context: &DecodeContext,
) -> Result<Option<(MessageType, &'a [u8], usize)>, DecodeError> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    if header[..16] != MARKER {
        return Err(Notification::new(HeaderSubcode::ConnectionNotSynchronized, &[]).into());
    }
    let length = u16::from_be_bytes([header[16], header[17]]);
    let size = usize::from(length);
    let max = if context.extended_messages { EXTENDED_MESSAGE_MAX } else { MESSAGE_MAX };
    let Some(kind) = MessageType::from_code(header[18]) else {
        return Err(Notification::new(HeaderSubcode::BadMessageType, &[header[18]]).into());
    };
    let legal = match kind {
        // RFC 8654 §4 does not extend OPEN and KEEPALIVE.
        MessageType::Open => OPEN_MIN..=MESSAGE_MAX,
        MessageType::Update => UPDATE_MIN..=max,
        MessageType::Notification if (HEADER..NOTIFICATION_MIN).contains(&size) => {
            return Err(DecodeError::TruncatedNotification);
        }
        MessageType::Notification => NOTIFICATION_MIN..=max,
        MessageType::Keepalive => HEADER..=HEADER,
        // RFC 7313 §5 defines an error of its own for a length other than 23.
        MessageType::RouteRefresh if context.enhanced_refresh => HEADER..=max,
        MessageType::RouteRefresh => ROUTE_REFRESH..=ROUTE_REFRESH,
    };
    if !legal.contains(&size) {
        return Err(Notification::new(HeaderSubcode::BadMessageLength, &length.to_be_bytes()).into());
    }
    Ok(bytes.get(HEADER..size).map(|body| (kind, body, size)))
}

/// Appends a message whose body is appended by `write`, and fills in the length afterwards. `kind` is a
/// [`MessageType`], or any other number in a test.
pub fn message(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0, 0, kind]);
    write(out);
    // Every writer of this crate stays within MESSAGE_MAX.
    let length = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub fn keepalive(out: &mut Vec<u8>) {
    message(out, MessageType::Keepalive.code(), |_| {});
}

/// A reader of big-endian fields that never reads past its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// The marker at the start of each message (RFC 4271 §4.1).
pub(crate) const MARKER: [u8; 16] = [0xff; 16];

/// Minimum lengths, in octets (RFC 4271 §4.2, §4.3, §4.5).
const OPEN_MIN: usize = 29;
const UPDATE_MIN: usize = 23;
const NOTIFICATION_MIN: usize = 21;
/// The length of ROUTE-REFRESH (RFC 2918 §3).
const ROUTE_REFRESH: usize = 23;
