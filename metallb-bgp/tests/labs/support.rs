//! Network namespaces and routers.

pub(crate) mod frr;
pub(crate) mod lab;
pub(crate) mod router;
