//! Connects the decisions of `metallb-core` and the engines of `metallb-l2`, `metallb-bgp` and `metallb-membership` to
//! the Kubernetes API, a directory of manifests, network interfaces and routers.
//!
//! ```text
//!   kube watches ─┐                       ┌─> Service status, Events          (controller)
//!                 ├─> Index ─> metallb-core ─┤
//!   manifests ────┘                       └─> ARP/NDP, BGP, statuses, Events  (speaker)
//! ```
//!
//! Assignment and election are decided in `metallb-core`, which all subcommands call.

pub mod announcer;
pub mod api;
pub mod cli;
pub mod client;
pub mod controller;
pub mod exclusion;
pub mod index;
pub mod metrics;
pub mod process;
pub mod sink;
pub mod source;
pub mod speaker;
pub mod standalone;
mod sys;
pub mod telemetry;
