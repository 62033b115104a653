//! The decisions of a bare-metal load balancer as pure functions: deterministic, without I/O and without a clock.
//!
//! ```text
//!   model  <──  config  <──  { assignment (allocator), election, routes }  <──  plan
//!   facts       rules          decisions, each with its reason                  all decisions at once
//! ```
//!
//! A program passes facts as plain values and receives decisions and the reason for each. Kubernetes is not needed.
//! Equal facts give equal decisions on every machine, in whatever order the facts are passed.
//!
//! | module | purpose |
//! |---|---|
//! | [`model`] | Services, nodes, endpoints and labels as plain values |
//! | [`address`] | address blocks of pools: parsing, prefixes, number of usable addresses |
//! | [`config`] | validation of the configuration: the valid part of it, and a problem for each error |
//! | [`allocator`] | free and shared addresses |
//! | [`assignment`] | the status and the Events of one Service |
//! | [`election`] | the node that announces an address on L2 |
//! | [`routes`] | the routes that a node advertises to each BGP peer |
//! | [`plan`] | all decisions for a cluster, and the effect of a change |
//!
//! ```
//! use metallb_core::config::Config;
//! use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources};
//! use metallb_core::model::{Cluster, IpFamily};
//!
//! let pool = |name: &str, addresses: &str| PoolSpec {
//!     meta: ObjectMeta::named("metallb-system", name),
//!     addresses: vec![addresses.into()],
//!     avoid_buggy_ips: true,
//!     ..PoolSpec::default()
//! };
//! let pools = vec![pool("edge", "192.168.10.0/24"), pool("typo", "192.168.11.0/33")];
//! let parsed = Config::parse(&Resources { pools, ..Resources::default() }, &Cluster::default());
//!
//! // Valid objects are in force. Each invalid object has a problem that names the field to repair.
//! assert_eq!(parsed.config.pools["edge"].capacity(IpFamily::V4), 254);
//! assert_eq!(parsed.problems[0].object.to_string(), "IPAddressPool/metallb-system/typo");
//! assert_eq!(parsed.problems[0].field, "spec.addresses[0]");
//! ```
//!
//! # Compatibility
//!
//! Structs that callers fill in have public fields and either `Default` or a constructor (`Service::load_balancer`,
//! `Node::new`). A new optional field in such a struct is a minor release: write `..PoolSpec::default()`, or set fields
//! after the constructor. The structs of a parsed configuration, and enums of errors and reasons, are
//! `#[non_exhaustive]`. Prefixes are values of [`ipnet`], which is re-exported; a new major version of it is a major
//! release.

#![forbid(unsafe_code)]

pub mod address;
pub mod allocator;
pub mod announcement;
pub mod assignment;
pub mod config;
pub mod election;
pub mod model;
pub mod plan;
mod reason;
pub mod routes;
pub mod spelling;

/// Prefixes in the public API are values of this crate.
pub use ipnet;

// All state and all decisions may move between threads.
const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<model::Cluster>();
    assert_send_sync::<config::Parsed>();
    assert_send_sync::<config::ConfigStore>();
    assert_send_sync::<allocator::Allocator>();
    assert_send_sync::<assignment::Assigner>();
    assert_send_sync::<assignment::Outcome>();
    assert_send_sync::<election::Electorate>();
    assert_send_sync::<plan::Plan>();
};
