//! What members send to each other.

pub(crate) mod codec;
pub mod identity;
pub mod message;
pub mod seal;
