//! BGP messages as bytes (RFC 4271 §4): decoded to views that borrow, encoded into the caller's buffer.
//!
//! [`decode`] is the whole way in: it finds the first message of a stream and reads it by what the session has negotiated. An error is the
//! NOTIFICATION to send, whose data is always a part of what was received.

#![forbid(unsafe_code)]

pub mod iana;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod refresh;
pub mod template;
pub mod update;

use self::notification::{Notification, header_error};
use self::open::Open;
use self::refresh::RouteRefresh;
use self::update::Update;
use crate::types::{Asn, Family};

/// Bytes of the header.
pub const HEADER: usize = 19;
/// The longest message without RFC 8654.
pub const MESSAGE_MAX: usize = 4096;
/// The longest message with RFC 8654.
pub const EXTENDED_MESSAGE_MAX: usize = 65_535;

/// The type of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageType {
    /// 1
    Open,
    /// 2
    Update,
    /// 3
    Notification,
    /// 4
    Keepalive,
    /// 5 (RFC 2918)
    RouteRefresh,
}

/// What a session has negotiated, as far as it changes how messages are read. The default is a session before its OPEN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DecodeContext {
    /// Our number.
    pub local_asn: Asn,
    /// The peer's number.
    pub remote_asn: Asn,
    /// Numbers of four octets are in force (RFC 6793).
    pub four_octet_asn: bool,
    /// *We* offered extended messages (RFC 8654 §4).
    pub extended_messages: bool,
    /// Enhanced route refresh is in force (RFC 7313).
    pub enhanced_refresh: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// IPv4 unicast is in force.
    pub ipv4: bool,
    /// IPv6 unicast is in force.
    pub ipv6: bool,
}

impl Default for DecodeContext {
    fn default() -> Self {
        Self {
            local_asn: Asn(0),
            remote_asn: Asn(0),
            four_octet_asn: true,
            extended_messages: false,
            enhanced_refresh: false,
            extended_next_hop: false,
            ipv4: true,
            ipv6: true,
        }
    }
}

impl DecodeContext {
    /// Whether both ends are in one autonomous system.
    #[must_use]
    pub fn internal(&self) -> bool {
        self.local_asn == self.remote_asn
    }

    /// Whether a family is in force.
    #[must_use]
    pub const fn carries(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

/// One message.
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

/// Why a session must end over what was received.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The peer is wrong, and is told.
    #[error("{0}")]
    Notify(#[from] Notification),
    /// A NOTIFICATION that is itself too short: it ends the session, and is never answered with another (RFC 4271 §6.4).
    #[error("NOTIFICATION without code and subcode")]
    BrokenNotification,
}

/// Reads the first message in `bytes`: the message and how many bytes it took. `Ok(None)` means that more bytes are needed. Nothing is
/// allocated for UPDATE, KEEPALIVE and ROUTE-REFRESH.
///
/// # Errors
/// The session must end. What RFC 7606 lets go on is in [`Update::outcome`] instead.
pub fn decode<'a>(bytes: &'a [u8], context: &DecodeContext) -> Result<Option<(Message<'a>, usize)>, DecodeError> {
    let Some((kind, body, size)) = frame(bytes, context)? else { return Ok(None) };
    let message = match kind {
        MessageType::Open => Message::Open(Open::decode(body)?),
        MessageType::Update => Message::Update(Update::decode(body, context)?),
        MessageType::Notification => {
            Message::Notification(Notification::decode(body).ok_or(DecodeError::BrokenNotification)?)
        }
        MessageType::Keepalive => Message::Keepalive,
        MessageType::RouteRefresh => match body.try_into() {
            Ok(body) => Message::RouteRefresh(RouteRefresh::decode(body)),
            // RFC 7313 §5: the data is the whole message.
            Err(_) => return Err(Notification::new(7, 1, &bytes[..size]).into()),
        },
    };
    Ok(Some((message, size)))
}

/// Finds the first message of a session without extensions in `bytes`: its type, its body, and how long it is in all. `Ok(None)` means
/// that more bytes are needed.
///
/// # Errors
/// The header is wrong; the error is the NOTIFICATION to send (RFC 4271 §6.1).
pub fn split(bytes: &[u8]) -> Result<Option<Frame<'_>>, Notification> {
    frame(bytes, &DecodeContext::default()).map_err(|error| match error {
        DecodeError::Notify(notification) => notification,
        DecodeError::BrokenNotification => header_error(2, &bytes[16..18]),
    })
}

/// The type, body and size of the first message.
pub type Frame<'a> = (MessageType, &'a [u8], usize);

fn frame<'a>(bytes: &'a [u8], context: &DecodeContext) -> Result<Option<Frame<'a>>, DecodeError> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    if header[..16] != [0xff; 16] {
        return Err(header_error(1, &[]).into());
    }
    let length = u16::from_be_bytes([header[16], header[17]]);
    let size = usize::from(length);
    let most = if context.extended_messages { EXTENDED_MESSAGE_MAX } else { MESSAGE_MAX };
    let (kind, legal) = match header[18] {
        // RFC 8654 §4: OPEN and KEEPALIVE never grow.
        1 => (MessageType::Open, 29..=MESSAGE_MAX),
        2 => (MessageType::Update, 23..=most),
        3 if (HEADER..21).contains(&size) => return Err(DecodeError::BrokenNotification),
        3 => (MessageType::Notification, 21..=most),
        4 => (MessageType::Keepalive, HEADER..=HEADER),
        // RFC 7313 §5 has its own error for a length that is not 23.
        5 if context.enhanced_refresh => (MessageType::RouteRefresh, HEADER..=most),
        5 => (MessageType::RouteRefresh, 23..=23),
        other => return Err(header_error(3, &[other]).into()),
    };
    if !legal.contains(&size) {
        return Err(header_error(2, &length.to_be_bytes()).into());
    }
    Ok(bytes.get(HEADER..size).map(|body| (kind, body, size)))
}

/// Appends a message whose body `write` appends; the length is filled in afterwards.
pub fn message(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind]);
    write(out);
    // Every writer of this crate keeps within MESSAGE_MAX.
    let length = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub fn keepalive(out: &mut Vec<u8>) {
    message(out, 4, |_| {});
}

/// A reader that never goes beyond its bytes.
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
