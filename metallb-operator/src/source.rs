//! Where facts come from: the Kubernetes API, followed by lists and watches, and directories of manifests.
//!
//! Nothing here decides anything. What is read is translated into the plain values of `metallb-core`.

pub mod changes;
pub mod manifests;
pub(crate) mod restore;
pub mod snapshot;
pub mod translate;
pub mod versions;
pub mod watches;
