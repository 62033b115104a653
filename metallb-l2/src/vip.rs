//! The table of virtual IP addresses (VIPs) that are or were announced.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::conflict::Conflict;
use crate::foreign::ForeignAddress;
use crate::interface::{Interface, Scope, Stance};
use crate::wire::ndp::{Override, solicited_node};

/// The index of an address in the table. It stays valid for the life of the table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct VipId(u32);

impl VipId {
    /// The index as a `usize`.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Addresses by integer key. A removed address keeps its entry, so that its counters never decrease.
#[derive(Debug, Default)]
pub(crate) struct VipTable {
    v4: FxHashMap<u32, VipId>,
    v6: FxHashMap<u128, VipId>,
    /// The addresses of each solicited-node group.
    by_group: FxHashMap<Ipv6Addr, Vec<VipId>>,
    vips: Vec<Vip>,
}

/// One address.
#[derive(Debug)]
pub(crate) struct Vip {
    pub(crate) ip: IpAddr,
    /// Where it is announced; `None` if it is not wanted now.
    pub(crate) scope: Option<Scope>,
    pub(crate) phase: Phase,
    /// Why it is not announced although it is wanted.
    pub(crate) foreign: Option<ForeignAddress>,
    on: Indices,
    pub(crate) generation: Generation,
    /// The last claim by another speaker that is not settled.
    pub(crate) claimed_by_speaker: Option<Instant>,
    pub(crate) conflict: Conflict,
    pub(crate) counts: VipCounts,
}

/// The state of an address that has a scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Requests are answered, and it is announced.
    Held,
    /// Requests are answered, but it is no longer announced.
    Yielding,
    /// Probes are being sent; requests are not answered yet.
    Probing,
    /// A probe found that another host has it.
    Occupied,
}

/// Distinguishes the current burst of an address from bursts that a later change replaced.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// Cancels the bursts of the present generation and returns the next one.
    pub(crate) const fn advance(&mut self) -> Self {
        self.0 = self.0.wrapping_add(1);
        *self
    }
}

/// Counters of one address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VipCounts {
    pub(crate) requests: u64,
    pub(crate) responses: u64,
    pub(crate) gratuitous: u64,
    pub(crate) conflicts: u64,
}

/// A scope resolved to interface indices, so that no names are compared per frame.
#[derive(Debug)]
enum Indices {
    All,
    Only(Vec<u32>),
}

impl VipTable {
    pub(crate) fn find(&self, ip: IpAddr) -> Option<VipId> {
        match ip {
            IpAddr::V4(v4) => self.v4.get(&Ipv4Addr::to_bits(v4)).copied(),
            IpAddr::V6(v6) => self.v6.get(&Ipv6Addr::to_bits(v6)).copied(),
        }
    }

    /// The entry of an address, created if there is none.
    pub(crate) fn intern(&mut self, ip: IpAddr) -> VipId {
        // 2^32 entries do not fit in memory.
        let next = VipId(self.vips.len() as u32);
        let id = match ip {
            IpAddr::V4(v4) => *self.v4.entry(v4.to_bits()).or_insert(next),
            IpAddr::V6(v6) => *self.v6.entry(v6.to_bits()).or_insert(next),
        };
        if id == next {
            if let IpAddr::V6(v6) = ip {
                self.by_group.entry(solicited_node(v6)).or_default().push(id);
            }
            self.vips.push(Vip {
                ip,
                scope: None,
                phase: Phase::Held,
                foreign: None,
                on: Indices::Only(Vec::new()),
                generation: Generation::default(),
                claimed_by_speaker: None,
                conflict: Conflict::default(),
                counts: VipCounts::default(),
            });
        }
        id
    }

    /// An entry by its index. Indices come from this table only and are in range.
    pub(crate) fn vip(&self, id: VipId) -> &Vip {
        &self.vips[id.0 as usize]
    }

    /// As [`vip`](Self::vip), mutable.
    pub(crate) fn vip_mut(&mut self, id: VipId) -> &mut Vip {
        &mut self.vips[id.0 as usize]
    }

    /// The indices of all entries.
    pub(crate) fn ids(&self) -> impl Iterator<Item = VipId> + use<> {
        (0..self.vips.len() as u32).map(VipId)
    }

    /// The entries whose solicited-node group is this one.
    pub(crate) fn of_group(&self, group: Ipv6Addr) -> impl Iterator<Item = &Vip> {
        self.by_group.get(&group).into_iter().flatten().map(|&id| self.vip(id))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (VipId, &Vip)> {
        self.vips.iter().enumerate().map(|(index, vip)| (VipId(index as u32), vip))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (VipId, &mut Vip)> {
        self.vips.iter_mut().enumerate().map(|(index, vip)| (VipId(index as u32), vip))
    }

    /// Whether a burst that began under `generation` still applies.
    pub(crate) fn is_current(&self, id: VipId, generation: Generation) -> bool {
        let vip = self.vip(id);
        vip.scope.is_some() && vip.generation == generation
    }
}

impl Vip {
    /// Whether requests for it are answered and it is announced.
    pub(crate) fn is_held(&self) -> bool {
        self.scope.is_some() && self.phase == Phase::Held && self.foreign.is_none()
    }

    /// The state after the address is wanted with `stance`.
    pub(crate) fn phase_after(&self, stance: Stance) -> Phase {
        match stance {
            Stance::Hold => Phase::Held,
            Stance::Yield => Phase::Yielding,
            Stance::Claim if self.scope.is_none() => Phase::Probing,
            Stance::Claim if self.phase == Phase::Yielding => Phase::Held,
            Stance::Claim => self.phase,
        }
    }

    /// The Override flag of a reply: clear while another speaker takes the address or has claimed it, because two
    /// owners that override each other would make neighbour caches alternate.
    pub(crate) fn override_flag(&self, now: Instant) -> Override {
        let claimed = self.claimed_by_speaker.is_some_and(|at| now.saturating_duration_since(at) < CLAIM_SETTLED);
        if claimed || self.phase == Phase::Yielding { Override::Keep } else { Override::Replace }
    }

    /// Whether its scope includes an interface.
    pub(crate) fn is_on(&self, interface: u32) -> bool {
        match &self.on {
            Indices::All => true,
            Indices::Only(indices) => indices.contains(&interface),
        }
    }

    /// Resolves the scope to interface indices. Call it when the scope, the interfaces or `foreign` change.
    pub(crate) fn resolve<'a>(&mut self, interfaces: impl IntoIterator<Item = &'a Interface> + Clone) {
        self.on = match self.scope.as_ref().filter(|_| self.foreign.is_none()) {
            None => Indices::Only(Vec::new()),
            Some(Scope::All) if interfaces.clone().into_iter().all(|interface| !interface.only_by_name) => Indices::All,
            Some(scope) => {
                let included = interfaces.into_iter().filter(|interface| scope.includes(interface));
                Indices::Only(included.map(|interface| interface.index).collect())
            }
        };
    }
}

/// How long a claim by another speaker counts as unsettled: longer than the burst of that speaker.
const CLAIM_SETTLED: Duration = Duration::from_secs(6);
