//! Who lives among the speakers: gossip (SWIM), direct watching of those whose addresses we would inherit, planned handovers.
//!
//! Everything here is sans-IO: [`Engine`] and [`Handover`] are fed datagrams and the time, and drained of datagrams, events and
//! timers. The same seed and inputs give the same bytes. [`crate::conductor`] gives them a socket and a clock.
//!
//! [`Engine`]: engine::Engine
//! [`Handover`]: handover::Handover

pub mod engine;
pub mod handover;
pub mod identity;
pub mod message;
pub mod seal;

mod codec;
mod peers;
mod watch;
