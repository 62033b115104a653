//! BGP messages as bytes (RFC 4271 §4).

pub mod notification;
pub mod open;
pub mod update;

use self::notification::{Notification, header_error};

/// Bytes of the header.
pub const HEADER: usize = 19;
/// The longest message without RFC 8654.
pub const MESSAGE_MAX: usize = 4096;

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

/// Finds the first message in `bytes`: its type, its body, and how long it is in all. `Ok(None)` means that more bytes are needed.
///
/// # Errors
/// The header is wrong; the error is the NOTIFICATION to send (RFC 4271 §6.1).
pub fn split(bytes: &[u8]) -> Result<Option<(MessageType, &[u8], usize)>, Notification> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    if header[..16] != [0xff; 16] {
        return Err(Notification::new(1, 1, &[]));
    }
    let length = u16::from_be_bytes([header[16], header[17]]);
    let size = usize::from(length);
    let (kind, least) = match header[18] {
        1 => (MessageType::Open, 29),
        2 => (MessageType::Update, 23),
        3 => (MessageType::Notification, 21),
        4 => (MessageType::Keepalive, HEADER),
        5 => (MessageType::RouteRefresh, 23),
        other => return Err(header_error(3, &[other])),
    };
    let fixed = match kind {
        MessageType::Keepalive | MessageType::RouteRefresh => size != least,
        _ => size < least,
    };
    if fixed || size > MESSAGE_MAX {
        return Err(header_error(2, &length.to_be_bytes()));
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
