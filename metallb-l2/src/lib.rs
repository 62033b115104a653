//! Answers ARP (RFC 826, RFC 5227) and NDP (RFC 4861) for addresses that the host does not have, and announces them.
//!
//! ```text
//!   wire  <──  responder, announce, outgoing, conflict, limit, group, links, foreign  <──  engine  <──  io (feature `io`)
//!   bytes      one question each, no IO                                           decisions    AF_PACKET, netlink, one thread
//! ```
//!
//! The [`engine::Engine`] is sans-IO: frames and time go in, frames come out. It needs no more than `CAP_NET_RAW` when it is
//! driven by `io::Driver`.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests bring the time"))]

mod announce;
mod conflict;
mod counters;
pub mod engine;
mod foreign;
mod group;
pub mod interface;
#[cfg(feature = "io")]
pub mod io;
mod limit;
#[cfg(feature = "io")]
mod links;
mod outgoing;
mod responder;
mod vip;
pub mod wire;
