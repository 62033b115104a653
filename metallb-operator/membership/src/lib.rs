//! Membership of the speakers: which of them are live, and which one hands which address to another.
//!
//! ```text
//!   wire  <──  hosts, failure_detector, handover, takeover  <──  engine  <──  member  <──  driver (feature `io`)
//!   bytes      one question each, no IO                         SWIM, join   all        UDP socket, clock, one thread
//! ```
//!
//! The protocol is SWIM (Das, Gupta, Motivala: *SWIM: Scalable Weakly-consistent Infection-style Process Group
//! Membership Protocol*, 2002) by the crate `foca`, with a failure detector that pings the owners of addresses
//! directly, and with planned handover of addresses. `docs/failover.md` describes what clients see of it.
//!
//! Everything but the driver is sans-IO: a [`Member`](member::Member) is fed datagrams and the time, and hands out
//! datagrams, events and announcements. It never reads a clock or a random source.
//!
//! ```
//! use std::time::Instant;
//!
//! use metallb_membership::engine::{Config, Timing};
//! use metallb_membership::member::{Member, Output};
//! use metallb_membership::wire::identity::Identity;
//! use metallb_membership::wire::seal::Keyring;
//!
//! let addresses = [1, 2].map(|last| std::net::SocketAddr::from(([192, 0, 2, last], 7946)));
//! let now = Instant::now();
//! let mut members = [0, 1].map(|index| {
//!     let me = Identity::new(format!("node-{index}").into(), addresses[index], 1);
//!     let keys = Keyring::new([&b"the cluster's secret"[..]]);
//!     let config = Config { me, session: index as u64, keys, timing: Timing::default(), wan: false };
//!     let mut member = Member::new(config, index as u64, now);
//!     member.join(now, addresses);
//!     member
//! });
//! // A network without delay: deliver datagrams until there are none.
//! for _ in 0..8 {
//!     for from in 0..2 {
//!         while let Some(output) = members[from].poll_output() {
//!             if let Output::Transmit(transmit) = output {
//!                 members[1 - from].handle_datagram(now, addresses[from], &transmit.datagram);
//!             }
//!         }
//!     }
//! }
//! assert!(members.iter().all(|member| member.has_joined() && member.live().len() == 2));
//! ```

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests bring the time"))]

#[cfg(feature = "io")]
pub mod driver;
pub mod engine;
pub mod handover;
pub mod member;
pub mod takeover;
pub mod wire;

mod failure_detector;
mod hosts;
