//! Discriminators, which identify sessions on the wire.

use std::fmt;
use std::num::NonZeroU32;

use rand::Rng as _;
use rand::rngs::SmallRng;

/// The identifier of a session on one system, unique there and never zero (RFC 5880 §6.3).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Discriminator(NonZeroU32);

impl Discriminator {
    /// `None` for zero, which means "unknown" on the wire.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// A random discriminator that is not `in_use`, so that it is hard to guess and not repeated after a restart.
    pub(super) fn draw(random: &mut SmallRng, in_use: impl Fn(Self) -> bool) -> Self {
        // Terminates, because a host has far fewer than 2³² sessions.
        loop {
            if let Some(drawn) = Self::new(random.next_u32()).filter(|drawn| !in_use(*drawn)) {
                return drawn;
            }
        }
    }
}

impl fmt::Display for Discriminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
