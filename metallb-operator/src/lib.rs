//! Wires the decisions of `metallb-core` and the protocol engines of `metallb-l2` and `metallb-bgp` to the world: the
//! Kubernetes API, a directory of manifests, network interfaces, routers.
//!
//! ```text
//!   kube watches ─┐                       ┌─> Service status, Events          (controller)
//!                 ├─> World ─> metallb-core ─┤
//!   manifests ────┘                       └─> ARP/NDP, BGP, statuses, Events  (speaker)
//! ```
//!
//! Nothing here decides who gets an address or who announces it: that is `metallb-core`, called by every subcommand alike.

pub mod admin;
pub mod announcer;
pub mod api;
pub mod cli;
pub mod controller;
pub mod exclusion;
pub mod feed;
pub mod kubernetes;
pub mod manifests;
pub mod metrics;
mod process;
mod seed;
mod sink;
pub mod speaker;
pub mod standalone;
mod sys;
pub mod telemetry;
pub mod translate;
pub mod world;
