//! Sockets and the thread that drives an [`Engine`](crate::engine::Engine).
//!
//! One thread serves all interfaces: it waits for frames, netlink news, commands and the engine's timer, feeds the engine, and
//! sends what comes out. `CAP_NET_RAW` is all it needs.

mod driver;
mod inventory;
mod port;
mod raw_socket;
mod sys;

pub use driver::{Driver, Handle, News, StartError};
pub use inventory::{InterfaceFilter, list};
pub use raw_socket::{RawSocket, ReceiveBatch};
