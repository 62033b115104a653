//! Who lives among the speakers: gossip (SWIM), direct watching of those whose addresses we would inherit, planned handovers.
//!
//! Everything here is sans-IO: a [`Member`], made of an [`Engine`] and a [`Handover`], is fed datagrams and the time, and drained of
//! datagrams, events and timers. The same seed and inputs give the same bytes. [`crate::conductor`] gives it a socket and a clock.
//!
//! [`Member`]: member::Member
//! [`Engine`]: engine::Engine
//! [`Handover`]: handover::Handover

pub mod engine;
pub mod handover;
pub mod identity;
pub mod member;
pub mod message;
pub mod seal;

mod codec;
mod peers;
mod watch;
