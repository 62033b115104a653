//! Membership of the speakers: SWIM gossip, direct failure detection, planned handover of addresses.
//!
//! Everything but the driver is sans-IO.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests bring the time"))]

#[cfg(feature = "io")]
pub mod driver;
pub mod engine;
pub mod handover;
pub mod member;
pub mod wire;

mod failure_detector;
mod hosts;
