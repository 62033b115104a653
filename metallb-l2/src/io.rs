//! Sockets and the thread that drives an [`Engine`](crate::engine::Engine).
//!
//! One thread serves all interfaces: it waits for frames, netlink news, commands and the engine's timer, feeds the engine, and
//! sends what comes out. `CAP_NET_RAW` is all it needs.

mod command;
mod driver;
mod gateways;
mod inbox;
mod linger;
mod port;
mod raw_socket;
mod routing;
mod sys;
mod worker;

pub use command::{News, StartError};
pub use driver::{Driver, Handle};
pub use inbox::Inbox;
pub use raw_socket::{RawSocket, ReceiveBatch};

pub use crate::links::InterfaceFilter;

/// The one place where the time comes from.
#[allow(clippy::disallowed_methods, reason = "drivers tell the engine the time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
