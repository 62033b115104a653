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

pub mod announcer;
pub mod api;
pub mod cli;
pub mod client;
pub mod controller;
pub mod exclusion;
pub mod feed;
pub mod metrics;
pub mod process;
pub mod sink;
pub mod source;
pub mod speaker;
pub mod standalone;
mod sys;
pub mod telemetry;
pub mod world;
