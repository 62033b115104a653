//! Tests of the decisions by their public interface.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values, and rows read better without `&`")]

mod allocator;
mod allocator_model;
mod assignment;
mod assignment_outcomes;
mod config;
mod config_limits;
mod config_properties;
mod config_store;
mod explain;
mod kept_addresses;
mod memory;
mod plan;
mod quarantine;
mod reasons;
mod reconciler;
mod selectors;

/// Builders that tests share.
mod support {
    pub(crate) mod desk;
    pub(crate) mod manifest;
    pub(crate) mod naive;
    pub(crate) mod objects;
    pub(crate) mod pools;
    pub(crate) mod scene;
}
