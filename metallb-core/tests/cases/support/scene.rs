//! A small cluster: an assigner, Services, and an API server that stores each write.

use std::collections::BTreeMap;

use metallb_core::assignment::{Assigner, Outcome, StatusWrite, processing_order};
use metallb_core::config::spec::PoolSpec;
use metallb_core::model::{ALLOCATED_FROM, Ingress, IpFamilyPolicy, Service, ServiceKey};

use crate::support::pools::config;

/// The same Service with a policy.
pub(crate) fn with_policy(mut service: Service, policy: IpFamilyPolicy) -> Service {
    service.ip_family_policy = Some(policy);
    service
}

/// The same Service with an annotation under `metallb.io/`.
pub(crate) fn annotated(mut service: Service, key: &str, value: &str) -> Service {
    service.annotations.insert(format!("metallb.io/{key}"), value.to_owned());
    service
}

/// The same Service with these addresses in its status.
pub(crate) fn holding(mut service: Service, ips: &[&str]) -> Service {
    service.ingress = ips.iter().map(|ip| Ingress { ip: Some((*ip).to_owned()), hostname: None }).collect();
    service
}

/// A controller and the API server it writes to.
pub(crate) struct Scene {
    pub(crate) assigner: Assigner,
    pub(crate) services: BTreeMap<ServiceKey, Service>,
    /// Writes so far.
    pub(crate) writes: usize,
}

impl Scene {
    pub(crate) fn new(pools: &[PoolSpec]) -> Self {
        let mut scene = Self { assigner: Assigner::new(None), services: BTreeMap::new(), writes: 0 };
        scene.assigner.set_config(&config(pools));
        scene
    }

    /// Creates or changes a Service and processes all retries. Returns its first outcome.
    pub(crate) fn put(&mut self, service: Service) -> Outcome {
        let key = service.key.clone();
        self.services.insert(key.clone(), service);
        let outcome = self.converge(&key);
        self.settle(outcome.retry.clone());
        outcome
    }

    /// Deletes a Service and processes all retries. Returns the first Services to retry.
    pub(crate) fn delete(&mut self, name: &str) -> Vec<ServiceKey> {
        let key = ServiceKey::new("test", name);
        self.services.remove(&key);
        let woken = self.assigner.forget(&key);
        self.settle(woken.clone());
        woken
    }

    /// Replaces the pools.
    pub(crate) fn set_pools(&mut self, pools: &[PoolSpec]) {
        self.assigner.set_config(&config(pools));
        self.process_all();
    }

    /// A new process with the same pools.
    pub(crate) fn restart(&mut self, pools: &[PoolSpec]) {
        self.assigner = Assigner::new(None);
        self.set_pools(pools);
    }

    /// The addresses in the status of a Service.
    pub(crate) fn status(&self, name: &str) -> Vec<String> {
        let service = &self.services[&ServiceKey::new("test", name)];
        service.ingress.iter().map(|ingress| ingress.ip.clone().unwrap_or_default()).collect()
    }

    fn process_all(&mut self) {
        let mut order: Vec<Service> = self.services.values().cloned().collect();
        order.sort_by(processing_order);
        for service in &order {
            self.assigner.claim(service);
        }
        self.settle(order.into_iter().map(|service| service.key).collect());
    }

    fn settle(&mut self, mut queue: Vec<ServiceKey>) {
        while !queue.is_empty() {
            let key = queue.remove(0);
            let outcome = self.converge(&key);
            queue.extend(outcome.retry);
        }
    }

    fn converge(&mut self, key: &ServiceKey) -> Outcome {
        let outcome = self.assigner.converge(&self.services[key]);
        if let Some(write) = &outcome.write {
            self.writes += 1;
            self.write(key, write);
            // After the write nothing is left to do.
            let again = self.assigner.converge(&self.services[key]);
            assert_eq!(again.write, None, "{key} flaps: {outcome:?}, then {again:?}");
        }
        outcome
    }

    fn write(&mut self, key: &ServiceKey, write: &StatusWrite) {
        let service = self.services.get_mut(key).unwrap();
        service.ingress = write.ips.iter().map(|ip| Ingress { ip: Some(ip.to_string()), hostname: None }).collect();
        match &write.pool {
            Some(pool) => service.annotations.insert(ALLOCATED_FROM.to_owned(), pool.to_string()),
            None => service.annotations.remove(ALLOCATED_FROM),
        };
    }
}
