//! Addresses that stand on a Service in the API, or may come to stand there, whether the Service holds them here or not.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use crate::model::ServiceKey;

/// One relation in two directions: Service to addresses, address to Services.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    by_service: FxHashMap<ServiceKey, Vec<IpAddr>>,
    by_address: FxHashMap<IpAddr, Vec<ServiceKey>>,
}

impl Standing {
    /// Replaces the addresses of a Service; returns those on which nobody stood before, and those on which nobody stands any
    /// longer.
    pub(super) fn replace(&mut self, service: &ServiceKey, ips: &[IpAddr]) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let known = self.by_service.get(service).map_or(&[][..], Vec::as_slice);
        if known == ips {
            return (Vec::new(), Vec::new());
        }
        let before = match ips {
            [] => self.by_service.remove(service),
            _ => self.by_service.insert(service.clone(), ips.to_vec()),
        }
        .unwrap_or_default();
        let mut first = Vec::new();
        for &ip in ips {
            let services = self.by_address.entry(ip).or_default();
            if services.is_empty() {
                first.push(ip);
            }
            if !services.contains(service) {
                services.push(service.clone());
            }
        }
        let mut last = Vec::new();
        for ip in before.into_iter().filter(|ip| !ips.contains(ip)) {
            let Some(services) = self.by_address.get_mut(&ip) else { continue };
            services.retain(|other| other != service);
            if services.is_empty() {
                self.by_address.remove(&ip);
                last.push(ip);
            }
        }
        (first, last)
    }

    /// The Services on which an address stands.
    pub(super) fn services_at(&self, ip: IpAddr) -> &[ServiceKey] {
        if self.by_address.is_empty() {
            return &[];
        }
        self.by_address.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// The addresses that stand on a Service.
    pub(super) fn of(&self, service: &ServiceKey) -> &[IpAddr] {
        if self.by_service.is_empty() {
            return &[];
        }
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }

    /// All addresses that stand on some Service.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }
}
