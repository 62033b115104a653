//! The occupant of each address, in runs of neighbours: Services get neighbouring addresses, so that the next lookup
//! finds the same run in the cache.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

/// The holders of one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Occupant {
    /// No holder.
    Nobody,
    /// One holder, in this slot.
    One(u32),
    /// Several holders.
    Many,
}

/// The occupants of all addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Occupancy {
    /// By the address without its last bits. No IPv6 address that is in use maps an IPv4 one, so both families fit into
    /// one map.
    runs: FxHashMap<u128, Run>,
}

/// Neighbouring addresses, each as [`Occupant::code`].
type Run = [u32; RUN];

// === impl Occupancy ===

impl Occupancy {
    pub(super) fn of(&self, ip: IpAddr) -> Occupant {
        let (run, index) = split(ip);
        self.runs.get(&run).map_or(Occupant::Nobody, |run| Occupant::from_code(run[index]))
    }

    /// Sets the occupant of an address; returns the one before.
    pub(super) fn set(&mut self, ip: IpAddr, occupant: Occupant) -> Occupant {
        let (run, index) = split(ip);
        let place = &mut self.runs.entry(run).or_default()[index];
        Occupant::from_code(std::mem::replace(place, occupant.code()))
    }

    /// Removes the occupant of an address.
    pub(super) fn clear(&mut self, ip: IpAddr) {
        let (number, index) = split(ip);
        let Some(run) = self.runs.get_mut(&number) else { return };
        run[index] = Occupant::Nobody.code();
        if *run == [Occupant::Nobody.code(); RUN] {
            self.runs.remove(&number);
        }
    }
}

impl Occupant {
    /// In four bytes. There are never 2^32 - 2 Services.
    const fn code(self) -> u32 {
        match self {
            Self::Nobody => 0,
            Self::Many => 1,
            Self::One(slot) => slot + 2,
        }
    }

    const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Nobody,
            1 => Self::Many,
            slot => Self::One(slot - 2),
        }
    }
}

/// The run of an address, and its index there, which is always below [`RUN`].
const fn split(ip: IpAddr) -> (u128, usize) {
    let number = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    (number / RUN as u128, (number % RUN as u128) as usize)
}

/// Neighbours in a run: one cache line of codes.
const RUN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occupants_of_neighbours_do_not_mix_and_empty_runs_go() {
        let ips: Vec<IpAddr> = ["10.0.0.15", "10.0.0.16", "::a00:f", "fd00::ffff", "fd00::1:0", "255.255.255.255"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let mut occupancy = Occupancy::default();
        for (slot, &ip) in ips.iter().enumerate() {
            assert_eq!(occupancy.of(ip), Occupant::Nobody);
            assert_eq!(occupancy.set(ip, Occupant::One(slot as u32)), Occupant::Nobody);
        }
        for (slot, &ip) in ips.iter().enumerate() {
            assert_eq!(occupancy.of(ip), Occupant::One(slot as u32), "{ip}");
        }
        assert_eq!(occupancy.set(ips[0], Occupant::Many), Occupant::One(0));
        assert_eq!(occupancy.of(ips[0]), Occupant::Many);
        occupancy.set("10.0.0.14".parse().unwrap(), Occupant::One(9));
        for &ip in &ips {
            occupancy.clear(ip);
            assert_eq!(occupancy.of(ip), Occupant::Nobody);
        }
        assert_eq!(occupancy.of("10.0.0.14".parse().unwrap()), Occupant::One(9));
        assert_eq!(occupancy.runs.len(), 1, "a run without occupants is not kept");
    }
}
