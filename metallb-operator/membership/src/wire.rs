//! The datagrams that members exchange: messages, the identity of a member, encryption, and the codec of SWIM gossip.

pub(crate) mod codec;
pub mod identity;
pub mod message;
pub mod seal;
