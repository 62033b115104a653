//! Sockets and the thread that drives an [`Engine`](crate::engine::Engine).
//!
//! One thread serves all interfaces: it waits for frames, netlink news, commands and the engine's timer, feeds the engine, and
//! sends what comes out. `CAP_NET_RAW` is all it needs.

mod arp_ignore;
mod busy_poll;
mod command;
mod driver;
mod gateways;
mod port;
mod raw_socket;
mod routing;
mod rx_queue;
mod sys;
mod worker;

pub use command::{Notification, StartError};
pub use driver::{Driver, Handle};
pub use raw_socket::{RawSocket, ReceiveBatch};
pub use rx_queue::RxQueue;

pub use crate::links::InterfaceFilter;

/// The one place where the time comes from.
#[allow(clippy::disallowed_methods, reason = "drivers tell the engine the time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
