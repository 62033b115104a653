//! Integration tests of the public API: the decoder, the speaker over real connections, and allocations.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]

mod allocations;
mod connections;
mod decoder;
mod speaker;
mod table;
