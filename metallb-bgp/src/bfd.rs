//! Bidirectional Forwarding Detection (RFC 5880, 5881, 5882, 5883), sans-IO: asynchronous mode over a single hop and
//! over multiple hops.
//!
//! ```text
//!   datagram ──> packet ──> engine ──> session ──> Transmit, Event
//!                decode     demux      state, timers
//! ```
//!
//! [`Engine`] holds any number of sessions and one timer wheel. After every `handle_*` call the driver drains
//! [`Engine::poll_transmit`] and [`Engine::poll_event`], then waits until [`Engine::poll_timeout`]. The same seed and
//! the same inputs give the same bytes.
//!
//! Not supported: authentication (a packet with an authentication section is dropped, RFC 5880 §6.8.6), demand mode of
//! this side (the D bit is never set; a neighbour that sets it gets no periodic packets, §6.8.7), and unsolicited
//! sessions (RFC 9468).

mod config;
mod discriminator;
mod engine;
mod iana;
mod packet;
mod rate;
mod session;
mod timer;

pub use config::{AddSessionError, Hops, Profile, Role, RoutingDomain, SessionKey};
pub use discriminator::Discriminator;
pub use engine::{Discard, Engine, Event, EventKind, Meta, RemoteTimers, SessionSnapshot, Transmit, TransmitKind};
pub use iana::{Diagnostic, ECHO_PORT, MULTI_HOP_PORT, SINGLE_HOP_PORT, State};
pub use packet::{ControlPacket, DecodeError, Interval};
pub use session::{Cause, Counters, StateChange};

/// The TTL of all sent packets, and of all received single-hop packets (RFC 5881 §5).
pub const TTL: u8 = 255;

#[cfg(test)]
pub(crate) mod tests;
