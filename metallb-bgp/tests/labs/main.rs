//! Labs: the speaker with real routers in network namespaces. What is asserted is the state of the router.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "labs report missing parts and measured values")]

mod frr_lab;
mod routers_lab;
mod support;
