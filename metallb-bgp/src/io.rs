//! Sockets, and the tasks that drive the engines.
//!
//! ```text
//!   Speaker ── owns one Driver per peer      bfd_udp::Driver ── owns the thread of all BFD sessions
//!                 │ Handle: commands            │ Handle: commands
//!                 ▼                             ▼
//!              Worker: a tokio task          Worker: a thread
//! ```
//!
//! There is one task per peer, so that a slow peer delays no other. Small route changes are written by the calling
//! thread, which saves the wake-up of the task.
#![expect(clippy::disallowed_methods, reason = "this is where the engines get their time from")]

mod addresses;
mod bfd_client;
pub mod bfd_udp;
mod config;
mod connector;
mod driver;
mod host;
mod incoming_report;
mod listener;
mod mailbox;
mod netlink;
mod resolver;
mod shared_peer;
mod snapshot;
mod sockopt;
mod speaker;
mod worker;

pub use config::{BfdConfig, Distance, Endpoint, PeerConfig, Router};
pub use incoming_report::{IncomingReport, Refusal};
pub use snapshot::{EndedSession, PeerEvent, PeerSnapshot, Withheld, WithheldReason};
pub use speaker::{Observer, Speaker};
