//! An allocator by linear search: what the real one must equal.

use std::collections::BTreeMap;
use std::net::IpAddr;

use metallb_core::allocator::FamilyDemand;
use metallb_core::model::IpFamily;

pub(crate) const SERVICES: usize = 10;

/// Disjoint blocks that pools are made of, some with addresses that end in `.0` and `.255`.
pub(crate) const BLOCKS: [(&str, &str); 8] = [
    ("10.0.0.0", "10.0.0.3"),
    ("10.0.0.253", "10.0.1.2"),
    ("10.0.2.0", "10.0.2.0"),
    ("10.0.3.7", "10.0.3.8"),
    ("10.255.255.255", "10.255.255.255"),
    ("fd00::", "fd00::3"),
    ("fd00:1::ff", "fd00:1::100"),
    ("fd00:2::7", "fd00:2::7"),
];

/// The pool and the addresses, or what is wrong.
pub(crate) type Verdict = Result<(String, Vec<IpAddr>), &'static str>;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    SetPools(Vec<NaivePool>),
    Allocate(Ask),
    AllocateFrom(Ask, String),
    Assign(Ask, Vec<IpAddr>),
    AddFamily(Ask),
    Release(usize),
    Block(usize, Vec<IpAddr>),
    Stand(usize, Vec<IpAddr>),
    Restart { backwards: bool },
}

#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) service: usize,
    pub(crate) red: bool,
    pub(crate) sharing: &'static str,
    pub(crate) backend: &'static str,
    pub(crate) ports: Vec<u8>,
    pub(crate) demand: FamilyDemand,
}

#[derive(Clone, Debug)]
pub(crate) struct NaivePool {
    pub(crate) name: String,
    pub(crate) blocks: Vec<usize>,
    pub(crate) auto_assign: bool,
    pub(crate) avoid: bool,
    /// Priority, bits of the namespaces (0: any), and whether only for the label team=red.
    pub(crate) pinned: Option<(i64, u8, bool)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) pools: Vec<NaivePool>,
    pub(crate) held: BTreeMap<usize, (Ask, Vec<IpAddr>)>,
    pub(crate) foreign: BTreeMap<usize, Vec<IpAddr>>,
    /// What the API shows on each Service, or may come to show.
    pub(crate) standing: BTreeMap<usize, Vec<IpAddr>>,
    /// Whether the last step made an address free that had stood on a Service.
    pub(crate) freed: bool,
    /// What each holder asked when it got its addresses.
    pub(crate) asks: BTreeMap<usize, Ask>,
    /// What the last step said.
    pub(crate) last: Option<Verdict>,
}

impl Op {
    /// The Service that the step is about.
    pub(crate) fn asker(&self) -> Option<usize> {
        match self {
            Self::Allocate(ask) | Self::AllocateFrom(ask, _) | Self::Assign(ask, _) | Self::AddFamily(ask) => {
                Some(ask.service)
            }
            Self::Release(service) => Some(*service),
            Self::SetPools(_) | Self::Block(..) | Self::Stand(..) | Self::Restart { .. } => None,
        }
    }
}

impl Model {
    pub(crate) fn step(&mut self, op: &Op) {
        let verdict = match op {
            Op::Allocate(ask) => Some((ask, self.allocate(ask))),
            Op::AllocateFrom(ask, pool) => Some((ask, self.allocate_from(ask, pool))),
            Op::Assign(ask, ips) => Some((ask, self.assign(ask, ips))),
            Op::AddFamily(ask) => Some((ask, self.add_family(ask))),
            Op::SetPools(pools) => {
                self.pools.clone_from(pools);
                let held = std::mem::take(&mut self.held);
                let keeps = |ask: &Ask, ips: &[IpAddr]| self.pool_of(ips).is_some_and(|pool| pool.serves(ask));
                self.held = held.into_iter().filter(|(_, (ask, ips))| keeps(ask, ips)).collect();
                None
            }
            Op::Release(service) => {
                self.held.remove(service);
                None
            }
            Op::Block(service, ips) => {
                self.foreign.insert(*service, ips.clone());
                None
            }
            Op::Stand(service, ips) => {
                let before = self.standing.insert(*service, ips.clone()).unwrap_or_default();
                let is_free = |ip: &IpAddr| {
                    let is_held = self.held.values().any(|(_, held)| held.contains(ip));
                    let is_left = is_held && !self.holds(*service, ip) && !self.is_releasing(SERVICES, ip);
                    let is_over = !self.stands(ip) && (is_held || !self.is_foreign(ip));
                    self.pool_of(&[*ip]).is_some() && !ips.contains(ip) && (is_left || is_over)
                };
                self.freed = before.iter().any(is_free);
                None
            }
            Op::Restart { .. } => None,
        };
        if let Some((ask, Ok((_, ips)))) = &verdict {
            self.held.insert(ask.service, ((*ask).clone(), ips.clone()));
            self.asks.insert(ask.service, (*ask).clone());
        }
        self.last = verdict.map(|(_, verdict)| verdict);
    }

    /// Distinct addresses of a pool in use, by family.
    pub(crate) fn assigned(&self, pool: &NaivePool) -> (i64, i64) {
        let is_held = |ip: &IpAddr| self.held.values().any(|(_, ips)| ips.contains(ip));
        count(pool.addresses().filter(|ip| is_held(ip) || (self.stands(ip) && !pool.avoids(ip))))
    }

    /// Addresses that a pool may hand out, by family.
    pub(crate) fn usable(&self, pool: &NaivePool) -> (i64, i64) {
        count(pool.addresses().filter(|ip| !pool.avoids(ip)))
    }

    fn allocate(&self, ask: &Ask) -> Verdict {
        let mut pools: Vec<&NaivePool> =
            self.pools.iter().filter(|pool| pool.auto_assign && pool.serves(ask)).collect();
        pools.sort_by_key(|pool| {
            (pool.pinned.is_none(), pool.pinned.map_or((true, 0), |pin| (pin.0 == 0, pin.0)), &pool.name)
        });
        let (pinned, open): (Vec<_>, Vec<_>) = pools.into_iter().partition(|pool| pool.pinned.is_some());
        self.choose(&pinned, ask).or_else(|| self.choose(&open, ask)).ok_or("exhausted")
    }

    fn allocate_from(&self, ask: &Ask, name: &str) -> Verdict {
        let pool = self.pools.iter().find(|pool| pool.name == name).ok_or("unknown pool")?;
        if !pool.serves(ask) {
            return Err("not compatible");
        }
        self.choose(&[pool], ask).ok_or("exhausted")
    }

    fn assign(&self, ask: &Ask, ips: &[IpAddr]) -> Verdict {
        if ips.iter().any(|ip| self.is_foreign(ip)) {
            return Err("blocked");
        }
        if ips.iter().any(|ip| self.is_releasing(ask.service, ip)) {
            return Err("releasing");
        }
        let pool = self.pool_of(ips).ok_or("not allowed")?;
        if !pool.serves(ask) {
            return Err("not compatible");
        }
        if ips.len() > 2 || (ips.len() == 2 && ips[0].is_ipv4() == ips[1].is_ipv4()) {
            return Err("bad set");
        }
        ips.iter().try_for_each(|ip| self.may_join(ask, ip))?;
        Ok((pool.name.clone(), ips.to_vec()))
    }

    fn add_family(&self, ask: &Ask) -> Verdict {
        let Some((_, ips)) = self.held.get(&ask.service).filter(|(_, ips)| ips.len() == 1) else {
            return Err("bad set");
        };
        let pool = self.pool_of(ips).ok_or("not allowed")?;
        if !pool.serves(ask) {
            return Err("not compatible");
        }
        self.may_join(ask, &ips[0])?;
        let other = self.lowest(pool, !ips[0].is_ipv4(), ask).ok_or("exhausted")?;
        Ok((pool.name.clone(), vec![ips[0], other]))
    }

    fn choose(&self, pools: &[&NaivePool], ask: &Ask) -> Option<(String, Vec<IpAddr>)> {
        let v4 = |pool: &NaivePool| self.lowest(pool, true, ask);
        let v6 = |pool: &NaivePool| self.lowest(pool, false, ask);
        let single = |find: &dyn Fn(&NaivePool) -> Option<IpAddr>| {
            pools.iter().find_map(|pool| Some((pool.name.clone(), vec![find(pool)?])))
        };
        let both = || pools.iter().find_map(|pool| Some((pool.name.clone(), vec![v4(pool)?, v6(pool)?])));
        match ask.demand {
            FamilyDemand::V4 => single(&v4),
            FamilyDemand::V6 => single(&v6),
            FamilyDemand::Both => both(),
            FamilyDemand::PreferBoth { first: IpFamily::V4 } => both().or_else(|| single(&v4)).or_else(|| single(&v6)),
            FamilyDemand::PreferBoth { first: IpFamily::V6 } => both().or_else(|| single(&v6)).or_else(|| single(&v4)),
        }
    }

    fn lowest(&self, pool: &NaivePool, v4: bool, ask: &Ask) -> Option<IpAddr> {
        let is_withheld = |ip: &IpAddr| pool.avoids(ip) || self.is_foreign(ip) || self.is_releasing(ask.service, ip);
        pool.addresses().find(|ip| ip.is_ipv4() == v4 && !is_withheld(ip) && self.may_join(ask, ip).is_ok())
    }

    fn may_join(&self, ask: &Ask, ip: &IpAddr) -> Result<(), &'static str> {
        let others = || self.held.values().filter(|(other, ips)| other.service != ask.service && ips.contains(ip));
        if others()
            .any(|(other, _)| ask.sharing.is_empty() || other.sharing != ask.sharing || other.backend != ask.backend)
        {
            return Err("in use");
        }
        if others().any(|(other, _)| other.ports.iter().any(|port| ask.ports.contains(port))) {
            return Err("port in use");
        }
        Ok(())
    }

    fn pool_of(&self, ips: &[IpAddr]) -> Option<&NaivePool> {
        self.pools
            .iter()
            .find(|pool| ips.iter().all(|ip| pool.addresses().any(|address| address == *ip) && !pool.avoids(ip)))
    }

    fn stands(&self, ip: &IpAddr) -> bool {
        self.standing.values().any(|ips| ips.contains(ip))
    }

    /// Whether an address stands on a Service other than the asker that does not hold it.
    fn is_releasing(&self, asker: usize, ip: &IpAddr) -> bool {
        let mut standing = self.standing.iter().filter(|(_, ips)| ips.contains(ip));
        standing.any(|(&service, _)| service != asker && !self.holds(service, ip))
    }

    fn holds(&self, service: usize, ip: &IpAddr) -> bool {
        self.held.get(&service).is_some_and(|(_, ips)| ips.contains(ip))
    }

    fn is_foreign(&self, ip: &IpAddr) -> bool {
        self.foreign.values().any(|ips| ips.contains(ip))
    }
}

impl NaivePool {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.blocks.iter().flat_map(|&block| addresses(block))
    }

    fn avoids(&self, ip: &IpAddr) -> bool {
        self.avoid && ip.is_ipv4() && (ip.to_string().ends_with(".0") || ip.to_string().ends_with(".255"))
    }

    fn serves(&self, ask: &Ask) -> bool {
        self.pinned.is_none_or(|(_, namespaces, red)| {
            (namespaces == 0 || namespaces & (1 << (ask.service % 2)) != 0) && (!red || ask.red)
        })
    }
}

/// Addresses worth asking for: all of the blocks, and one that is in none.
pub(crate) fn some_addresses() -> impl Iterator<Item = IpAddr> {
    (0..BLOCKS.len()).flat_map(addresses).chain(["192.0.2.1".parse().unwrap()])
}

fn addresses(block: usize) -> impl Iterator<Item = IpAddr> {
    let (first, last): (IpAddr, IpAddr) = (BLOCKS[block].0.parse().unwrap(), BLOCKS[block].1.parse().unwrap());
    let next = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
    };
    std::iter::successors(Some(first), move |ip| (*ip != last).then(|| next(ip)))
}

fn count(ips: impl Iterator<Item = IpAddr>) -> (i64, i64) {
    ips.fold((0, 0), |(v4, v6), ip| if ip.is_ipv4() { (v4 + 1, v6) } else { (v4, v6 + 1) })
}
