//! Attacks on the way from the controller's decisions to the API: a real API server, faults injected by a proxy,
//! processes that are killed and stopped, wrong clocks, a restored etcd. A referee that reads the API server directly
//! says whether two Services ever held one address, and whether an established address ever moved.
//!
//! Counts are asserted. Times are reported as `REPORT …` and bounded at ten times what they should be.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "times are reported; the harness says why it skips")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod support {
    pub(crate) mod api_server;
    pub(crate) mod lease_log;
    pub(crate) mod proxy;
    pub(crate) mod referee;
    pub(crate) mod scene;
}

#[path = "attacks/churn.rs"]
mod churn;
#[path = "attacks/leadership.rs"]
mod leadership;
#[path = "attacks/load.rs"]
mod load;
#[path = "attacks/picture.rs"]
mod picture;
#[path = "attacks/restore.rs"]
mod restore;
#[path = "attacks/stage.rs"]
mod stage;
#[path = "attacks/writes.rs"]
mod writes;
