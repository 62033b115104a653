//! Sockets and the tasks that drive sessions: one task per peer, so that one peer's trouble never delays another.
//! A single route is told by whoever decides it, without waking the task.
#![expect(clippy::disallowed_methods, reason = "this is where the engines get their time from")]

mod addresses;
pub mod bfd_udp;
mod command;
mod config;
mod connector;
mod discovery;
mod driver;
mod exchange;
mod incoming;
mod path_watch;
mod snapshot;
mod sockopt;
mod speaker;
mod ticket;

pub use config::{BfdConfig, Distance, Endpoint, PeerConfig, Router};
pub use snapshot::{PeerEvent, PeerSnapshot};
pub use speaker::{Observer, Speaker};
pub use ticket::{IncomingReport, Refusal};
