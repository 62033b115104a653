//! An announce-only BGP-4 speaker (RFC 4271), sans-IO.
//!
//! ```text
//!   wire  <──  rib  <──  session  <──  peer  <──  io (feature `io`)
//!   bytes      what to   one TCP       when and   one task per peer
//!              say       connection    with whom
//! ```
//!
//! It offers routes of both families and accepts none: what a peer offers is parsed, counted and dropped.

#![deny(unsafe_code)]

pub mod bfd;
pub mod discovery;
#[cfg(feature = "io")]
pub mod io;
pub mod peer;
pub mod rib;
pub mod session;
pub mod types;
pub mod wire;
