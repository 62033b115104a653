//! Bidirectional Forwarding Detection (RFC 5880, 5881, 5882, 5883), sans-IO: asynchronous mode over one hop and over many.
//!
//! ```text
//!   datagram ──> packet ──> engine ──> session ──> Transmit, Event
//!                decode     whose?     state, timers
//! ```
//!
//! [`Engine`] holds any number of sessions behind one wheel of deadlines. After every `handle_*` call the driver drains
//! [`Engine::poll_transmit`] and [`Engine::poll_event`], then waits until [`Engine::poll_timeout`]. The same seed and the same
//! inputs give the same bytes.
//!
//! What is left out, on purpose: authentication (no `BFDProfile` field asks for it; a packet that carries it is dropped, RFC 5880
//! §6.8.6), demand mode of our own (the D bit is never set; a neighbour that sets it is not sent periodic packets, §6.8.7), and
//! sessions with neighbours nobody configured (RFC 9468).

mod config;
mod discriminator;
mod engine;
mod packet;
mod rate;
mod session;
mod timer;

pub use config::{AddSessionError, Hops, Profile, Role, RoutingDomain, SessionKey};
pub use discriminator::Discriminator;
pub use engine::{Discard, Engine, Event, EventKind, Meta, RemoteTimers, SessionSnapshot, Transmit, TransmitKind};
pub use packet::{ControlPacket, DecodeError, Diagnostic, Interval, State};
pub use session::{Cause, Counters, StateChange};

/// UDP port of control packets between direct neighbours (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of echo packets (RFC 5881 §4).
pub const ECHO_PORT: u16 = 3785;
/// UDP port of control packets across routers (RFC 5883 §5).
pub const MULTI_HOP_PORT: u16 = 4784;
/// The TTL that every packet is sent with, and that a packet of a direct neighbour must arrive with (RFC 5881 §5).
pub const TTL: u8 = 255;

#[cfg(test)]
pub(crate) mod tests;
