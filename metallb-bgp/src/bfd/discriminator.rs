//! Names of sessions on the wire.

use std::fmt;
use std::num::NonZeroU32;

use super::rate::Random;

/// One side's name of a session, unique on that system (RFC 5880 §6.3). Never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Discriminator(NonZeroU32);

impl Discriminator {
    /// `None` for zero, which stands for "not known".
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

    /// A random one for which `in_use` does not hold: an outsider cannot guess it, a restarted speaker does not repeat it.
    pub(super) fn draw(random: &mut Random, in_use: impl Fn(Self) -> bool) -> Self {
        // Ends: a host has far fewer sessions than there are values.
        loop {
            if let Some(drawn) = Self::new(random.next() as u32).filter(|drawn| !in_use(*drawn)) {
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
