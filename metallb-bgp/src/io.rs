//! Sockets and the tasks that drive sessions: one task per peer, so that one peer's trouble never delays another.
#![expect(clippy::disallowed_methods, reason = "this is where the engines get their time from")]

pub mod bfd_udp;
mod config;
mod connector;
mod driver;
mod sockopt;
mod speaker;

pub use config::{Endpoint, PeerConfig};
pub use driver::{PeerEvent, PeerSnapshot};
pub use speaker::Speaker;
