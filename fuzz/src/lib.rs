//! What must hold for any input, one module per crate. The targets call these, and so do unit tests over `corpus/`.

pub mod bfd;
pub mod bgp;
pub mod core;
pub mod gossip;
pub mod l2;
#[cfg(feature = "operator")]
pub mod manifests;
