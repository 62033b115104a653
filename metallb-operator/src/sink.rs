//! Where results go: objects that this process writes to the Kubernetes API.

pub(crate) mod pool_status;
pub(crate) mod service_status;
