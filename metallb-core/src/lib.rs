//! Every decision of a bare-metal load balancer, and no effect: pure, deterministic, no IO, no clock.
//!
//! ```text
//!   model  <──  config  <──  { assignment (allocator), election, routes }  <──  plan
//!   facts       rules          decisions, each with its reasons                 all of it at once
//! ```
//!
//! An embedder gives facts and gets decisions *and the reasons for them*; Kubernetes is not needed.

#![forbid(unsafe_code)]

pub mod address;
pub mod allocator;
pub mod assignment;
pub mod config;
pub mod election;
pub mod model;
pub mod plan;
pub mod routes;
