//! Who holds which address, on which ports.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::{AllocateError, Allocation, Request};
use crate::model::{ServiceKey, ServicePort};

/// The two directions of one relation: Service to addresses, address to Services.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    holdings: FxHashMap<ServiceKey, Allocation>,
    /// By [`number`]: an integer hashes in two steps, octets with their length in more.
    occupants: FxHashMap<u128, Occupants>,
}

/// Nearly every address has one holder; only a shared one pays for sets.
#[derive(Clone, Debug)]
enum Occupants {
    One(ServiceKey),
    Many(Box<Crowd>),
}

#[derive(Clone, Debug, Default)]
struct Crowd {
    services: BTreeSet<ServiceKey>,
    ports: BTreeMap<ServicePort, ServiceKey>,
}

/// What keeps a Service from an address.
enum Conflict<'a> {
    Key,
    Port(ServicePort, &'a ServiceKey),
}

impl Ledger {
    pub(super) fn holding(&self, service: &ServiceKey) -> Option<&Allocation> {
        self.holdings.get(service)
    }

    /// All holdings, in no particular order.
    pub(super) fn into_holdings(self) -> impl Iterator<Item = (ServiceKey, Allocation)> {
        self.holdings.into_iter()
    }

    pub(super) fn is_occupied(&self, ip: IpAddr) -> bool {
        self.occupants.contains_key(&number(ip))
    }

    /// Who holds an address, in key order.
    pub(super) fn holders_of(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        let (one, many) = match self.occupants.get(&number(ip)) {
            None => (None, None),
            Some(Occupants::One(service)) => (Some(service), None),
            Some(Occupants::Many(crowd)) => (None, Some(&crowd.services)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Writes down what a Service holds from now on; it must hold nothing before.
    pub(super) fn enter(&mut self, service: &ServiceKey, allocation: Allocation) -> &Allocation {
        for &ip in &allocation.ips {
            self.occupy(ip, service, &allocation.ports);
        }
        self.holdings.entry(service.clone()).insert_entry(allocation).into_mut()
    }

    /// Strikes out what a Service holds.
    pub(super) fn strike(&mut self, service: &ServiceKey) -> Option<Allocation> {
        let allocation = self.holdings.remove(service)?;
        for &ip in &allocation.ips {
            let emptied = match self.occupants.get_mut(&number(ip)) {
                None => false,
                Some(Occupants::One(holder)) => holder == service,
                Some(Occupants::Many(crowd)) => {
                    crowd.services.remove(service);
                    crowd.ports.retain(|_, holder| holder != service);
                    crowd.services.is_empty()
                }
            };
            if emptied {
                self.occupants.remove(&number(ip));
            }
        }
        Some(allocation)
    }

    /// Whether a Service may hold an address together with those that hold it already.
    pub(super) fn admits(&self, request: &Request, ip: IpAddr) -> bool {
        self.conflict(request, ip).is_none()
    }

    /// The same, with the reason as an error.
    pub(super) fn check(&self, request: &Request, ip: IpAddr) -> Result<(), AllocateError> {
        match self.conflict(request, ip) {
            None => Ok(()),
            Some(Conflict::Port(port, holder)) => Err(AllocateError::PortInUse { ip, port, holder: holder.clone() }),
            Some(Conflict::Key) => {
                let holders = self.holders_of(ip).filter(|&holder| *holder != request.service).cloned().collect();
                Err(AllocateError::InUse { service: request.service.clone(), ip, holders })
            }
        }
    }

    fn conflict(&self, request: &Request, ip: IpAddr) -> Option<Conflict<'_>> {
        // All holders of one address have one key, so any of them speaks for all.
        let other = self.holders_of(ip).find(|&holder| *holder != request.service)?;
        let held = self.holdings.get(other)?;
        if !held.key.admits(&request.key) {
            return Some(Conflict::Key);
        }
        match self.occupants.get(&number(ip))? {
            Occupants::One(holder) => {
                let port = request.ports.iter().find(|port| held.ports.contains(port))?;
                Some(Conflict::Port(*port, holder))
            }
            Occupants::Many(crowd) => request.ports.iter().find_map(|port| {
                let holder = crowd.ports.get(port).filter(|&holder| *holder != request.service)?;
                Some(Conflict::Port(*port, holder))
            }),
        }
    }

    fn occupy(&mut self, ip: IpAddr, service: &ServiceKey, ports: &[ServicePort]) {
        match self.occupants.entry(number(ip)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Occupants::One(service.clone()));
            }
            Entry::Occupied(mut occupied) => {
                let occupants = occupied.get_mut();
                if let Occupants::One(first) = occupants {
                    let mut crowd = Crowd::default();
                    crowd.add(first, self.holdings.get(first).map_or(&[], |held| &held.ports));
                    *occupants = Occupants::Many(Box::new(crowd));
                }
                if let Occupants::Many(crowd) = occupants {
                    crowd.add(service, ports);
                }
            }
        }
    }
}

impl Crowd {
    fn add(&mut self, service: &ServiceKey, ports: &[ServicePort]) {
        self.services.insert(service.clone());
        self.ports.extend(ports.iter().map(|&port| (port, service.clone())));
    }
}

/// An address as an integer. No IPv6 address that is in use maps an IPv4 one, so none collides.
const fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
