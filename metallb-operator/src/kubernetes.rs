//! The edge to the Kubernetes API: watches in, Events and status writes out. No decision is taken here.

pub mod client;
pub mod configuration_state;
pub mod events;
pub mod lease;
pub mod restore;
pub mod snapshot;
pub mod versions;
pub mod watches;
