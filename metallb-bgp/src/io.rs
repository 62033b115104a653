//! Sockets and the tasks that drive sessions: one task per peer, so that one peer's trouble never delays another.

mod driver;
mod sys;

pub use driver::{Endpoint, PeerConfig, PeerEvent, PeerSnapshot, Speaker};
