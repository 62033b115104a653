//! Sources of facts: the Kubernetes API, followed by lists and watches, and manifests.
//!
//! Objects are translated to plain values of `metallb-core`, the facts; no decision is made here.

pub mod changes;
pub(crate) mod last_good;
pub mod manifests;
pub(crate) mod restore;
pub mod snapshot;
pub mod translate;
pub mod versions;
pub mod watches;
pub mod world;
