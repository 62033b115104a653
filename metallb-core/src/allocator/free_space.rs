//! The free addresses of one prefix as an ordered set of intervals: the lowest one is always the first, however large
//! or full the prefix is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Free addresses of one prefix. Intervals of free places, first to last, are disjoint and never adjacent.
#[derive(Clone, Debug)]
pub(super) struct FreeSpace {
    /// The lowest interval, stored separately: allocation takes from its lower end, without a search.
    lowest: Option<(u128, u128)>,
    /// The others, first place to last.
    others: BTreeMap<u128, u128>,
    numbering: Numbering,
}

/// Numbering of the addresses.
#[derive(Clone, Copy, Debug)]
enum Numbering {
    V4,
    V6,
    /// Only the 254 addresses of each /24 that are not buggy have a place, so that skipping the others costs nothing.
    V4WithoutBuggy,
}

impl FreeSpace {
    /// Everything usable in `prefix` is free.
    pub(super) fn new(prefix: &IpNet, avoid_buggy: bool) -> Self {
        let numbering = match prefix {
            IpNet::V6(_) => Numbering::V6,
            IpNet::V4(_) if avoid_buggy => Numbering::V4WithoutBuggy,
            IpNet::V4(_) => Numbering::V4,
        };
        let (first, last) = (bits(prefix.network()), bits(prefix.broadcast()));
        let (first, last) = match numbering {
            Numbering::V4 | Numbering::V6 => (first, last),
            // Moves inwards to the next address that has a place.
            Numbering::V4WithoutBuggy => {
                let first = if first & 0xff == 0 { first + 1 } else { first };
                let first = if first & 0xff == 0xff { first + 2 } else { first };
                let last = if last & 0xff == 0xff { last - 1 } else { last };
                let last = if last & 0xff == 0 { last.saturating_sub(2) } else { last };
                if first > last {
                    return Self { lowest: None, others: BTreeMap::new(), numbering };
                }
                (dense(first), dense(last))
            }
        };
        Self { lowest: Some((first, last)), others: BTreeMap::new(), numbering }
    }

    /// The lowest free address.
    pub(super) fn lowest(&self) -> Option<IpAddr> {
        self.lowest.map(|(place, _)| self.address(place))
    }

    /// Whether nothing is free.
    pub(super) const fn is_empty(&self) -> bool {
        self.lowest.is_none()
    }

    /// Takes an address; false if it was not free.
    pub(super) fn take(&mut self, ip: IpAddr) -> bool {
        let (Some(place), Some((first, last))) = (self.place(ip), self.lowest) else { return false };
        if place < first {
            return false;
        }
        if place > last {
            return self.take_from_others(place);
        }
        self.lowest = match (first < place, place < last) {
            (true, true) => {
                self.others.insert(place + 1, last);
                Some((first, place - 1))
            }
            (true, false) => Some((first, place - 1)),
            (false, true) => Some((place + 1, last)),
            (false, false) => self.others.pop_first(),
        };
        true
    }

    /// Returns an address. An address that is free already, or has no place here, changes nothing.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        let Some(place) = self.place(ip) else { return };
        let Some((first, last)) = self.lowest else {
            self.lowest = Some((place, place));
            return;
        };
        if place < first {
            if place + 1 == first {
                self.lowest = Some((place, last));
            } else {
                self.others.insert(first, last);
                self.lowest = Some((place, place));
            }
        } else if place > last {
            if last + 1 == place {
                let after = place.checked_add(1).and_then(|next| self.others.remove(&next));
                self.lowest = Some((first, after.unwrap_or(place)));
            } else {
                self.give_back_to_others(place);
            }
        }
    }

    fn take_from_others(&mut self, place: u128) -> bool {
        let Some((&first, &last)) = self.others.range(..=place).next_back() else { return false };
        if last < place {
            return false;
        }
        if first == place {
            self.others.remove(&first);
        } else {
            self.others.insert(first, place - 1);
        }
        if place < last {
            self.others.insert(place + 1, last);
        }
        true
    }

    fn give_back_to_others(&mut self, place: u128) {
        let before = self.others.range(..=place).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| last >= place) {
            return;
        }
        let first = match before {
            Some((first, last)) if last + 1 == place => first,
            _ => place,
        };
        let after = place.checked_add(1).and_then(|next| self.others.remove(&next));
        self.others.insert(first, after.unwrap_or(place));
    }

    fn place(&self, ip: IpAddr) -> Option<u128> {
        match self.numbering {
            Numbering::V4 | Numbering::V6 => Some(bits(ip)),
            Numbering::V4WithoutBuggy if crate::address::is_buggy(ip) => None,
            Numbering::V4WithoutBuggy => Some(dense(bits(ip))),
        }
    }

    fn address(&self, place: u128) -> IpAddr {
        match self.numbering {
            Numbering::V6 => IpAddr::V6(place.into()),
            // IPv4 places are below 2^32 by construction.
            Numbering::V4 => IpAddr::V4((place as u32).into()),
            Numbering::V4WithoutBuggy => IpAddr::V4((((place / 254) << 8 | (place % 254 + 1)) as u32).into()),
        }
    }
}

/// The number of a usable address among the usable addresses.
fn dense(bits: u128) -> u128 {
    (bits >> 8) * 254 + (bits & 0xff) - 1
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lowest_skips_buggy_addresses_at_every_edge() {
        for (prefix, all) in [
            ("1.2.3.0/31", vec!["1.2.3.1"]),
            ("1.2.3.254/31", vec!["1.2.3.254"]),
            ("1.2.3.0/32", vec![]),
            ("1.2.3.255/32", vec![]),
            ("1.2.3.252/30", vec!["1.2.3.252", "1.2.3.253", "1.2.3.254"]),
        ] {
            let mut free = FreeSpace::new(&prefix.parse().unwrap(), true);
            let mut found = Vec::new();
            while let Some(ip) = free.lowest() {
                assert!(free.take(ip));
                found.push(ip.to_string());
            }
            assert_eq!(found, all, "{prefix}");
        }
    }

    #[test]
    fn address_given_back_twice_is_free_once() {
        let mut free = FreeSpace::new(&"10.0.0.0/30".parse().unwrap(), false);
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        (0..4).for_each(|last| free.give_back(ip(last)));
        assert!(free.take(ip(1)), "two pieces now");
        [0, 2, 3].into_iter().for_each(|last| free.give_back(ip(last)));
        let mut left = Vec::new();
        while let Some(lowest) = free.lowest() {
            assert!(free.take(lowest));
            left.push(lowest);
        }
        assert_eq!(left, [ip(0), ip(2), ip(3)]);
    }

    proptest! {
        #[test]
        fn free_space_agrees_with_a_plain_set(
            avoid in any::<bool>(),
            operations in proptest::collection::vec((any::<bool>(), 0_u32..1024), 1..400),
        ) {
            let prefix: IpNet = "10.0.4.0/22".parse().unwrap();
            let usable = |ip: &IpAddr| !(avoid && crate::address::is_buggy(*ip));
            let mut model: BTreeSet<IpAddr> = prefix_addresses().filter(usable).collect();
            let mut free = FreeSpace::new(&prefix, avoid);
            for (take, offset) in operations {
                let ip = IpAddr::V4((0x0a00_0400 + offset).into());
                if take {
                    prop_assert_eq!(free.take(ip), model.remove(&ip));
                } else if usable(&ip) {
                    free.give_back(ip);
                    model.insert(ip);
                }
                prop_assert_eq!(free.lowest(), model.first().copied());
                prop_assert_eq!(free.is_empty(), model.is_empty());
                let intervals: Vec<(u128, u128)> =
                    free.lowest.into_iter().chain(free.others.iter().map(|(&first, &last)| (first, last))).collect();
                prop_assert!(intervals.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "neighbours: {:?}", intervals);
                let places: u128 = intervals.iter().map(|(first, last)| last - first + 1).sum();
                prop_assert_eq!(places, model.len() as u128);
            }
            prefix_addresses().for_each(|ip| free.give_back(ip));
            let fresh = FreeSpace::new(&prefix, avoid);
            prop_assert_eq!((free.lowest, free.others), (fresh.lowest, fresh.others), "one piece again");
        }
    }

    fn prefix_addresses() -> impl Iterator<Item = IpAddr> {
        (0..1024_u32).map(|offset| IpAddr::V4((0x0a00_0400 + offset).into()))
    }
}
