//! Packet sockets, routing netlink, and the thread that drives an [`Engine`](crate::engine::Engine).
//!
//! [`Driver`] owns and joins the thread, a private worker runs it, and [`Handle`] commands it. One thread serves all
//! interfaces: it waits for frames, netlink messages, commands and the timer of the engine, feeds the engine, and
//! executes its outputs. It needs `CAP_NET_RAW` and no other capability.

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

/// The only place where the crate reads the clock.
#[allow(clippy::disallowed_methods, reason = "a driver passes the time to its engine")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
