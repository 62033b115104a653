//! Sinks of results: the objects that this process writes to the Kubernetes API.

pub(crate) mod announcement_status;
pub mod configuration_state;
pub mod events;
pub(crate) mod last_good;
pub mod lease;
pub(crate) mod pauses;
pub(crate) mod pool_status;
pub(crate) mod service_status;
mod status_verb;
