//! Membership in virtual time: many members (`members`), and whole speakers on a network that fails (`failover`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(clippy::print_stdout, reason = "a simulation prints what it measured")]

mod cluster;
mod failover;
mod members;
mod random;
mod segment;
