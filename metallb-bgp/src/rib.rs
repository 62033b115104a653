//! What a peer should know, and what it has been told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::types::{Attributes, Family};
use crate::wire::update::{self, Encoding};

/// The routes for one peer. Withdrawals and offers come out of the difference to what was said last, whatever happened between.
#[derive(Clone, Debug, Default)]
pub struct AdjRibOut {
    wanted: BTreeMap<IpNet, Arc<Attributes>>,
    told: BTreeMap<IpNet, Arc<Attributes>>,
}

/// Where traffic should be sent, by family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NextHops {
    /// For IPv4 prefixes; `None` keeps them back.
    pub v4: Option<IpAddr>,
    /// For IPv6 prefixes; `None` keeps them back.
    pub v6: Option<IpAddr>,
}

impl NextHops {
    fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.v4,
            Family::Ipv6 => self.v6,
        }
    }
}

impl AdjRibOut {
    /// Replaces what the peer should know. True when it changed.
    pub fn set(&mut self, routes: BTreeMap<IpNet, Arc<Attributes>>) -> bool {
        let changed = self.wanted != routes;
        self.wanted = routes;
        changed
    }

    /// The session is new: the peer knows nothing.
    pub fn reset(&mut self) {
        self.told.clear();
    }

    /// How many routes the peer has been told.
    #[must_use]
    pub fn told(&self) -> usize {
        self.told.len()
    }

    /// How many routes the peer should know.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// Appends the updates that bring the peer from what it was told to what it should know. Returns how many messages.
    pub fn update(&mut self, out: &mut Vec<u8>, encoding: &Encoding, next_hops: &NextHops) -> u64 {
        let mut messages = 0;
        let start = out.len();
        let carried = |prefix: &IpNet| next_hops.of(Family::of(prefix.addr())).is_some();
        for family in [Family::Ipv4, Family::Ipv6] {
            let gone: Vec<IpNet> = self
                .told
                .keys()
                .filter(|prefix| Family::of(prefix.addr()) == family && !self.wanted.contains_key(*prefix))
                .copied()
                .collect();
            update::withdraw(out, family, &mut gone.iter().copied());
        }
        // Routes with the same attributes share messages.
        let mut fresh: BTreeMap<(Family, &Attributes), Vec<IpNet>> = BTreeMap::new();
        for (prefix, attributes) in self.wanted.iter().filter(|(prefix, _)| carried(prefix)) {
            if self.told.get(prefix) != Some(attributes) {
                fresh.entry((Family::of(prefix.addr()), attributes)).or_default().push(*prefix);
            }
        }
        for ((family, attributes), prefixes) in fresh {
            if let Some(next_hop) = next_hops.of(family) {
                update::advertise(out, encoding, attributes, next_hop, &mut prefixes.into_iter());
            }
        }
        let mut rest = &out[start..];
        while let Ok(Some((_, _, size))) = crate::wire::split(rest) {
            messages += 1;
            rest = &rest[size..];
        }
        self.told = self.wanted.iter().filter(|(prefix, _)| carried(prefix)).map(|(p, a)| (*p, Arc::clone(a))).collect();
        messages
    }
}
