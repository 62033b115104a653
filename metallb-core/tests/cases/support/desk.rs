//! A controller that leads, the picture it has, and writes that end as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use metallb_core::assignment::{Effect, Pace, Picture, Reconciler, Settle, Write, WriteEnd};
use metallb_core::config::Config;
use metallb_core::config::spec::PoolSpec;
use metallb_core::model::{ALLOCATED_FROM, Ingress, ObjectVersion, Service, ServiceKey, WRITE_SETTLED};

use crate::support::pools::config;

/// A controller and its picture.
pub(crate) struct Desk {
    pub(crate) reconciler: Reconciler,
    pub(crate) picture: Objects,
    config: Config,
    /// The Events that were reported, as Service, reason and text.
    pub(crate) events: Vec<(String, &'static str, String)>,
    /// Repairs: the Service that keeps its address, and the one that loses it.
    pub(crate) repairs: Vec<(String, String)>,
    writes: Vec<Write>,
}

#[derive(Clone, Default)]
pub(crate) struct Objects {
    objects: BTreeMap<ServiceKey, (Service, ObjectVersion)>,
    clock: u32,
}

impl Picture for Objects {
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.objects.get(key).map(|(service, _)| service)
    }

    fn version(&self, key: &ServiceKey) -> Option<ObjectVersion> {
        self.objects.get(key).map(|(_, version)| version.clone())
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.objects.values().map(|(service, _)| service)
    }
}

impl Objects {
    pub(crate) fn put(&mut self, service: Service) {
        self.clock += 1;
        let version = self.clock.to_string().into();
        self.objects.insert(service.key.clone(), (service, version));
    }
}

impl Desk {
    /// A leader of a cluster with these pools and Services.
    pub(crate) fn new(pools: &[PoolSpec], services: impl IntoIterator<Item = Service>) -> Self {
        let mut desk = Self::standby(pools, services);
        desk.take_over();
        desk
    }

    pub(crate) fn standby(pools: &[PoolSpec], services: impl IntoIterator<Item = Service>) -> Self {
        let mut picture = Objects::default();
        services.into_iter().for_each(|service| picture.put(service));
        Self {
            reconciler: Reconciler::new(None),
            picture,
            config: config(pools),
            events: Vec::new(),
            repairs: Vec::new(),
            writes: Vec::new(),
        }
    }

    pub(crate) fn take_over(&mut self) {
        self.reconciler.take_over(&self.config, &self.picture);
    }

    pub(crate) fn set_pools(&mut self, pools: &[PoolSpec]) {
        self.config = config(pools);
        self.reconciler.set_config(&self.config, &self.picture);
    }

    /// A Service is created or changed, and the controller sees it.
    pub(crate) fn put(&mut self, service: Service) {
        self.put_all([service]);
    }

    /// Several Services are, and it sees them at once.
    pub(crate) fn put_all(&mut self, services: impl IntoIterator<Item = Service>) {
        let mut keys = BTreeSet::new();
        for service in services {
            keys.insert(service.key.clone());
            self.picture.put(service);
        }
        self.reconciler.update(keys, &self.picture);
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.picture.objects.remove(&key(name));
        self.reconciler.update([key(name)], &self.picture);
    }

    /// The same object with a change, as a user makes it.
    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut service = self.service(name).clone();
        change(&mut service);
        self.put(service);
    }

    pub(crate) fn service(&self, name: &str) -> &Service {
        self.picture.service(&key(name)).unwrap()
    }

    /// The next write of a Service, which must be there.
    pub(crate) fn write_of(&mut self, name: &str) -> Write {
        self.collect();
        let place = self.writes.iter().position(|write| write.key == key(name));
        self.writes.remove(place.unwrap_or_else(|| panic!("{name} is not written, only {:?}", self.writes)))
    }

    /// Nothing is to be written.
    pub(crate) fn expect_quiet(&mut self) {
        self.collect();
        assert_eq!(self.writes, []);
    }

    /// Nothing is to be written but for these Services.
    pub(crate) fn expect_quiet_but(&mut self, names: &[&str]) {
        self.collect();
        self.writes.retain(|write| !names.contains(&&*write.key.name));
        self.expect_quiet();
    }

    /// A write is stored, and the controller sees the object before it hears of the end.
    pub(crate) fn store(&mut self, write: &Write) {
        let mut service = self.picture.service(&write.key).unwrap().clone();
        assert_eq!((&write.uid, &write.version), (&service.uid, &self.picture.version(&write.key)));
        if let Some(status) = &write.status {
            service.ingress =
                status.ips.iter().map(|ip| Ingress { ip: Some(ip.to_string()), hostname: None }).collect();
            match &status.pool {
                Some(pool) => service.annotations.insert(ALLOCATED_FROM.to_owned(), pool.to_string()),
                None => service.annotations.remove(ALLOCATED_FROM),
            };
        }
        match write.settle {
            Settle::Leave => {}
            Settle::Set => _ = service.annotations.insert(WRITE_SETTLED.to_owned(), String::new()),
            Settle::Remove => _ = service.annotations.remove(WRITE_SETTLED),
        }
        self.picture.put(service);
    }

    /// A write ends.
    pub(crate) fn end(&mut self, write: &Write, end: WriteEnd, pace: Pace) {
        self.reconciler.write_ended(&write.key, write.id, end, pace, &self.picture);
    }

    /// A write is stored and answered, and its Events are reported.
    pub(crate) fn complete(&mut self, write: &Write) {
        self.store(write);
        self.end(write, WriteEnd::Written, Pace::Now);
        self.report(&write.key, write.events.clone());
    }

    /// Completes all writes, those that follow from them too.
    pub(crate) fn run(&mut self) {
        for _ in 0..100 {
            self.collect();
            if self.writes.is_empty() {
                return;
            }
            let write = self.writes.remove(0);
            self.complete(&write);
        }
        panic!("the controller does not come to rest");
    }

    /// The addresses that the status of a Service shows.
    pub(crate) fn shown(&self, name: &str) -> Vec<IpAddr> {
        self.service(name).ingress_ips().flatten().collect()
    }

    /// How often an Event was reported for a Service.
    pub(crate) fn count(&mut self, name: &str, reason: &str) -> usize {
        self.collect();
        let key = key(name).to_string();
        self.events.iter().filter(|(service, known, _)| *service == key && *known == reason).count()
    }

    fn collect(&mut self) {
        while let Some(effect) = self.reconciler.poll_effect() {
            match effect {
                Effect::Write(write) => self.writes.push(write),
                Effect::Event { service, event } => self.report(&service, vec![event]),
                Effect::Duplicate { keeper, loser, .. } => self.repairs.push((keeper.to_string(), loser.to_string())),
            }
        }
    }

    fn report(&mut self, service: &ServiceKey, events: Vec<metallb_core::assignment::ServiceEvent>) {
        self.events.extend(events.into_iter().map(|event| (service.to_string(), event.reason, event.message)));
    }
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("test", name)
}
