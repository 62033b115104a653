//! Positions of addresses in a pool, and values per family.

use std::net::IpAddr;

use crate::model::IpFamily;

/// One value for each family.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PerFamily<T> {
    pub(super) v4: T,
    pub(super) v6: T,
}

impl<T> PerFamily<T> {
    pub(super) const fn of(&self, family: IpFamily) -> &T {
        match family {
            IpFamily::V4 => &self.v4,
            IpFamily::V6 => &self.v6,
        }
    }

    pub(super) const fn of_mut(&mut self, family: IpFamily) -> &mut T {
        match family {
            IpFamily::V4 => &mut self.v4,
            IpFamily::V6 => &mut self.v6,
        }
    }
}

/// An address of a pool. Places compare in the order of allocation.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    /// Index of the prefix in the pool, in written order.
    pub(super) index: u32,
    pub(super) ip: IpAddr,
}

impl Place {
    pub(super) const fn new(index: u32, ip: IpAddr) -> Self {
        Self { index, ip }
    }
}
