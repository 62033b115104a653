//! Every decision of a bare-metal load balancer, and no effect: pure, deterministic, no IO, no clock.
//!
//! ```text
//!   model  <──  config  <──  { assignment (allocator), election, routes }  <──  plan
//!   facts       rules          decisions, each with its reasons                 all of it at once
//! ```
//!
//! An embedder gives facts and gets decisions *and the reasons for them*; Kubernetes is not needed. Equal facts give equal
//! decisions, whatever the order in which they are given, on every machine.
//!
//! | module | question it answers |
//! |---|---|
//! | [`model`] | What is there? Services, nodes, endpoints, labels, as plain values. |
//! | [`address`] | Which addresses does a text mean, and how many are usable? |
//! | [`config`] | Which of the configuration makes sense, and what is wrong with the rest? |
//! | [`allocator`] | Which address is free, or may be shared? |
//! | [`assignment`] | What becomes of one Service: its status and its Events? |
//! | [`election`] | Which node answers for an address on L2? |
//! | [`routes`] | Which routes does a node offer to which peer? |
//! | [`plan`] | All of it at once, and what a change would do. |
//!
//! ```
//! use metallb_core::config::Config;
//! use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources};
//! use metallb_core::model::{Cluster, IpFamily};
//!
//! let pool = |name: &str, addresses: &str| PoolSpec {
//!     meta: ObjectMeta { namespace: "metallb-system".into(), name: name.into(), ..ObjectMeta::default() },
//!     addresses: vec![addresses.into()],
//!     auto_assign: true,
//!     avoid_buggy_ips: true,
//!     service_allocation: None,
//! };
//! let pools = vec![pool("edge", "192.168.10.0/24"), pool("typo", "192.168.11.0/33")];
//! let parsed = Config::parse(&Resources { pools, ..Resources::default() }, &Cluster::default());
//!
//! // What makes sense is in force; what does not is named, with the field to repair.
//! assert_eq!(parsed.config.pools["edge"].capacity(IpFamily::V4), 254);
//! assert_eq!(parsed.problems[0].object.to_string(), "IPAddressPool/metallb-system/typo");
//! assert_eq!(parsed.problems[0].field, "spec.addresses[0]");
//! ```

#![forbid(unsafe_code)]

pub mod address;
pub mod allocator;
pub mod assignment;
pub mod config;
pub mod election;
pub mod model;
pub mod plan;
mod reason;
pub mod routes;
