//! Addresses that the API shows on a Service, or may come to show, whether or not the allocator grants them to it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustc_hash::FxHashMap;

use crate::model::ServiceKey;

/// The standing addresses of each Service. While no address is being released, the checks of an allocation cost
/// nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    by_service: FxHashMap<ServiceKey, Vec<IpAddr>>,
    /// The number of Services on which each address stands.
    counts: FxHashMap<IpAddr, u32>,
    /// For each address, the Services on which it stands without an allocation: they release it.
    leavers: FxHashMap<IpAddr, BTreeSet<ServiceKey>>,
}

/// The effects of a change.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    /// Addresses that stood nowhere before.
    pub(super) first: Vec<IpAddr>,
    /// Addresses that no longer stand on any Service.
    pub(super) last: Vec<IpAddr>,
    /// Addresses that no Service releases any longer; they stand only on holders.
    pub(super) settled: Vec<IpAddr>,
}

impl Standing {
    /// Replaces the addresses of a Service, given which of them it holds.
    pub(super) fn replace(&mut self, service: &ServiceKey, ips: &[IpAddr], holds: impl Fn(IpAddr) -> bool) -> Replaced {
        let mut ips = ips.to_vec();
        ips.sort_unstable();
        ips.dedup();
        if self.of(service) == ips {
            return Replaced::default();
        }
        let before = self.by_service.remove(service).unwrap_or_default();
        let mut replaced = Replaced::default();
        for &ip in ips.iter().filter(|ip| !before.contains(ip)) {
            let count = self.counts.entry(ip).or_default();
            *count += 1;
            replaced.first.extend((*count == 1).then_some(ip));
            if !holds(ip) {
                self.leavers.entry(ip).or_default().insert(service.clone());
            }
        }
        for ip in before.into_iter().filter(|ip| !ips.contains(ip)) {
            let is_settled = self.stop_leaving(service, ip);
            let Some(count) = self.counts.get_mut(&ip) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&ip);
                replaced.last.push(ip);
            } else if is_settled {
                replaced.settled.push(ip);
            }
        }
        if !ips.is_empty() {
            self.by_service.insert(service.clone(), ips);
        }
        replaced
    }

    /// A Service holds an address from now on.
    pub(super) fn note_held(&mut self, service: &ServiceKey, ip: IpAddr) {
        self.stop_leaving(service, ip);
    }

    /// A Service no longer holds an address.
    pub(super) fn note_given_up(&mut self, service: &ServiceKey, ip: IpAddr) {
        if self.of(service).contains(&ip) {
            self.leavers.entry(ip).or_default().insert(service.clone());
        }
    }

    /// Whether an address stands on some Service.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        !self.counts.is_empty() && self.counts.contains_key(&ip)
    }

    /// The first Service, by key, other than the requesting one that is releasing an address.
    pub(super) fn leaver(&self, ip: IpAddr, asker: &ServiceKey) -> Option<&ServiceKey> {
        if self.leavers.is_empty() {
            return None;
        }
        self.leavers.get(&ip)?.iter().find(|&service| service != asker)
    }

    /// The addresses that stand on a Service, in their order.
    pub(super) fn of(&self, service: &ServiceKey) -> &[IpAddr] {
        if self.by_service.is_empty() {
            return &[];
        }
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }

    /// All addresses that stand on some Service.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.counts.keys().copied()
    }

    /// True if no other Service is releasing the address.
    fn stop_leaving(&mut self, service: &ServiceKey, ip: IpAddr) -> bool {
        if self.leavers.is_empty() {
            return false;
        }
        let Some(services) = self.leavers.get_mut(&ip) else { return false };
        let was_leaving = services.remove(service);
        if services.is_empty() {
            self.leavers.remove(&ip);
            return was_leaving;
        }
        false
    }
}
