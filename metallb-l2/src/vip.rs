//! The addresses that are or were answered for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap;

use crate::conflict::Conflict;
use crate::foreign::ForeignAddress;
use crate::interface::{Interface, Scope, Stance};

/// The place of an address in the table, for as long as the table lives.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct VipId(u32);

impl VipId {
    /// The same as a place in a list.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Addresses by integer keys. One that is given up keeps its place and its counts, so that counters never fall.
#[derive(Debug, Default)]
pub(crate) struct VipTable {
    v4: FxHashMap<u32, VipId>,
    v6: FxHashMap<u128, VipId>,
    vips: Vec<Vip>,
}

/// One address.
#[derive(Debug)]
pub(crate) struct Vip {
    pub(crate) ip: IpAddr,
    /// Where it is answered for; `None` when it is not ours now.
    pub(crate) scope: Option<Scope>,
    pub(crate) phase: Phase,
    /// Why it is not answered for nevertheless.
    pub(crate) foreign: Option<ForeignAddress>,
    on: Indices,
    pub(crate) generation: Generation,
    pub(crate) conflict: Conflict,
    pub(crate) counts: VipCounts,
}

/// Where an address with a scope stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Answered for and announced.
    Held,
    /// Answered for.
    Yielding,
    /// Probed for.
    Probing,
    /// Another host has it.
    Occupied,
}

/// Tells the current burst of an address from one that a later change replaced.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// Ends what goes on under the present generation.
    pub(crate) const fn advance(&mut self) -> Self {
        self.0 = self.0.wrapping_add(1);
        *self
    }
}

/// What happened about one address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VipCounts {
    pub(crate) requests: u64,
    pub(crate) responses: u64,
    pub(crate) gratuitous: u64,
    pub(crate) conflicts: u64,
}

/// A scope in numbers of interfaces that exist, so that a frame costs no comparison of names.
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

    /// The place of an address, made if it has none yet.
    pub(crate) fn place(&mut self, ip: IpAddr) -> VipId {
        // Four thousand million addresses do not fit in memory.
        let next = VipId(self.vips.len() as u32);
        let id = match ip {
            IpAddr::V4(v4) => *self.v4.entry(v4.to_bits()).or_insert(next),
            IpAddr::V6(v6) => *self.v6.entry(v6.to_bits()).or_insert(next),
        };
        if id == next {
            self.vips.push(Vip {
                ip,
                scope: None,
                phase: Phase::Held,
                foreign: None,
                on: Indices::Only(Vec::new()),
                generation: Generation::default(),
                conflict: Conflict::default(),
                counts: VipCounts::default(),
            });
        }
        id
    }

    /// An address by its place, which only this table hands out.
    pub(crate) fn vip(&self, id: VipId) -> &Vip {
        &self.vips[id.0 as usize]
    }

    /// As [`vip`](Self::vip), to change it.
    pub(crate) fn vip_mut(&mut self, id: VipId) -> &mut Vip {
        &mut self.vips[id.0 as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (VipId, &Vip)> {
        self.vips.iter().enumerate().map(|(place, vip)| (VipId(place as u32), vip))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (VipId, &mut Vip)> {
        self.vips.iter_mut().enumerate().map(|(place, vip)| (VipId(place as u32), vip))
    }

    /// Whether what began under `generation` still goes on.
    pub(crate) fn is_current(&self, id: VipId, generation: Generation) -> bool {
        let vip = self.vip(id);
        vip.scope.is_some() && vip.generation == generation
    }
}

impl Vip {
    /// Whether it is ours and nobody else's.
    pub(crate) fn is_held(&self) -> bool {
        self.scope.is_some() && self.phase == Phase::Held && self.foreign.is_none()
    }

    /// Where it stands once it is to be treated so.
    pub(crate) fn phase_after(&self, stance: Stance) -> Phase {
        match stance {
            Stance::Hold => Phase::Held,
            Stance::Yield => Phase::Yielding,
            Stance::Claim if self.scope.is_none() => Phase::Probing,
            Stance::Claim if self.phase == Phase::Yielding => Phase::Held,
            Stance::Claim => self.phase,
        }
    }

    /// Whether it is ours on an interface.
    pub(crate) fn is_on(&self, interface: u32) -> bool {
        match &self.on {
            Indices::All => true,
            Indices::Only(indices) => indices.contains(&interface),
        }
    }

    /// Translates the scope for the interfaces that exist now; to be called when either changes, or the foreign.
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
