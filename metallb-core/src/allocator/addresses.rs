//! The addresses that one Service holds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;

use crate::model::IpFamily;

/// One address, or one of each family, in the order of the status. A copy costs no allocation.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Addresses {
    /// The second one is unspecified if there is only one.
    ips: [IpAddr; 2],
    len: u8,
}

// === impl Addresses ===

impl Addresses {
    /// A single address.
    #[must_use]
    pub const fn one(ip: IpAddr) -> Self {
        Self { ips: [ip, NONE], len: 1 }
    }

    /// Two addresses, which must be of different families.
    pub(super) const fn pair(first: IpAddr, second: IpAddr) -> Self {
        Self { ips: [first, second], len: 2 }
    }

    /// One address, or one of each family; `None` for any other number or mix.
    #[must_use]
    pub fn new(ips: &[IpAddr]) -> Option<Self> {
        match *ips {
            [ip] => Some(Self::one(ip)),
            [a, b] if IpFamily::of(a) != IpFamily::of(b) => Some(Self::pair(a, b)),
            _ => None,
        }
    }

    /// As a slice, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        match self.len {
            1 => &self.ips[..1],
            _ => &self.ips,
        }
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        self.as_slice()
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

impl<T: AsRef<[IpAddr]>> PartialEq<T> for Addresses {
    fn eq(&self, other: &T) -> bool {
        self.as_slice() == other.as_ref()
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

const NONE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_one_or_one_of_each_family() {
        let (v4, v6) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([0xfd; 16]));
        for (ips, valid) in [
            (vec![], false),
            (vec![v4], true),
            (vec![v6], true),
            (vec![v6, v4], true),
            (vec![v4, v4], false),
            (vec![v6, v6], false),
            (vec![v4, v6, v4], false),
        ] {
            assert_eq!(Addresses::new(&ips).map(|addresses| addresses.to_vec()), valid.then_some(ips));
        }
        assert_ne!(Addresses::one(v4), Addresses::one(v6));
        let pair = Addresses::pair(v4, v6);
        assert!(pair == [v4, v6] && pair != [v6, v4] && pair != [v4] && Addresses::one(v4) == vec![v4]);
        assert_eq!(format!("{:?}", Addresses::one(v4)), "[10.0.0.1]");
    }
}
