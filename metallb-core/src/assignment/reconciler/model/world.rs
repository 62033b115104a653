//! What there is: Services in an API server, two controllers with their pictures, and writes on the network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::flaws::Flaw;
use crate::assignment::{Picture, Reconciler, Write};
use crate::config::Config;
use crate::config::spec::{ObjectMeta, PoolSpec, Resources};
use crate::model::{
    ALLOCATED_FROM, Cluster, Ingress, ObjectVersion, Service, ServiceKey, ServiceType, Timestamp, Uid, WRITE_SETTLED,
};

pub(super) const SERVICES: usize = 3;
pub(super) const ADDRESSES: usize = 2;

/// Everything that decides what can happen next.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// What the API server stores.
    pub(super) api: [Option<Arc<Object>>; SERVICES],
    /// The last `resourceVersion`; also the clock by which objects are created and addresses assigned.
    pub(super) clock: u32,
    /// The changes that some controller has yet to see, after a few that were seen.
    pub(super) history: Vec<Change>,
    /// What was stored before `history`, and the `resourceVersion` of that moment.
    pub(super) origin: ([Option<Arc<Object>>; SERVICES], u32),
    pub(super) controllers: [Controller; 2],
    /// Writes that may still be stored, or whose answer is on its way.
    pub(super) network: Vec<Flight>,
    pub(super) budget: Budget,
    /// Addresses that a late write brought, until the leader has seen it and no address is on two Services.
    pub(super) late: Vec<Late>,
    /// Services whose address was also on another one since they have it.
    pub(super) contested: [bool; SERVICES],
    pub(super) flaw: Option<Flaw>,
    /// The state of the pool.
    pub(super) pool: Pool,
    /// Whether users change the pool too.
    pub(super) pool_changes: bool,
}

/// The state of the only pool. All controllers see a change of it at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pool {
    Valid,
    /// It exists, and no valid form of it is known.
    Invalid,
    /// It was deleted, and the grace time runs.
    Departed,
}

/// How often a user or fate may still interfere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Budget {
    pub(super) changes: u8,
    pub(super) faults: u8,
}

/// One state of one Service.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) version: u32,
    pub(super) wish: Wish,
    pub(super) shown: Option<usize>,
    pub(super) service: Service,
    text: ObjectVersion,
}

/// What a Service asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    Any,
    Only(usize),
    /// It is of another type.
    Nothing,
}

/// An entry of the watch.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) index: usize,
    pub(super) version: u32,
    /// `None`: deleted.
    pub(super) object: Option<Arc<Object>>,
}

#[derive(Clone, Debug)]
pub(super) struct Controller {
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) role: Role,
    /// Changes when the process starts anew, and when another one begins to lead: what was written before may be unknown to a leader.
    pub(super) term: u32,
    pub(super) view: View,
    /// How much of `history` it has seen.
    pub(super) position: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Leading,
    Standby,
}

/// What a controller knows. Versions compare as numbers: nothing that is older than what was seen changes it.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) objects: [Option<Arc<Object>>; SERVICES],
    /// The newest version seen of each Service, of those that are gone too.
    pub(super) newest: [u32; SERVICES],
}

/// A write on the network.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) write: Arc<Write>,
    pub(super) index: usize,
    /// The controller that sent it, and its term then.
    pub(super) sender: (usize, u32),
    /// Whether the sender still waits for the answer.
    pub(super) awaited: bool,
    /// It will not be answered before its deadline.
    pub(super) hangs: bool,
    /// What the API server answered; `None` while it has not received the write.
    pub(super) answer: Option<Answer>,
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Written(Arc<Object>),
    Conflict,
    Gone,
}

/// An address that was brought by a write of which the leader could not know.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Late {
    pub(super) address: usize,
    pub(super) index: usize,
    pub(super) version: u32,
}

// === impl World ===

impl World {
    /// A cluster in which the first controller leads and nothing exists.
    pub(super) fn new(budget: Budget, flaw: Option<Flaw>) -> Self {
        let config = config(Pool::Valid, flaw);
        let mut first = Controller::new(Reconciler::new(None));
        Arc::make_mut(&mut first.reconciler).take_over(&config, &first.view);
        first.role = Role::Leading;
        let mut second = Controller::new(Reconciler::new(None));
        if flaw == Some(Flaw::StandbyDecides) {
            Arc::make_mut(&mut second.reconciler).take_over(&config, &second.view);
        }
        Self {
            api: Default::default(),
            clock: 0,
            history: Vec::new(),
            origin: Default::default(),
            controllers: [first, second],
            network: Vec::new(),
            budget,
            late: Vec::new(),
            contested: [false; SERVICES],
            flaw,
            pool: Pool::Valid,
            pool_changes: false,
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.controllers.iter().position(|controller| controller.role == Role::Leading)
    }

    /// The Services that show an address.
    pub(super) fn showing(&self, address: usize) -> impl Iterator<Item = usize> {
        (0..SERVICES).filter(move |&index| self.api[index].as_ref().and_then(|object| object.shown) == Some(address))
    }

    pub(super) fn is_double(&self, address: usize) -> bool {
        self.showing(address).count() > 1
    }

    /// Whether the sender of a write leads, and nobody else has led since it sent it.
    pub(super) fn is_of_leader(&self, flight: &Flight) -> bool {
        let controller = &self.controllers[flight.sender.0];
        controller.role == Role::Leading && controller.term == flight.sender.1
    }

    /// Whether a write would be stored if the API server received it now.
    pub(super) fn is_valid(&self, flight: &Flight) -> bool {
        flight.answer.is_none() && self.api[flight.index].as_ref().is_some_and(|object| object.is_meant(&flight.write))
    }

    /// Stores an object, or that it is gone.
    pub(super) fn store(&mut self, index: usize, object: Option<Object>) -> Option<Arc<Object>> {
        let object = object.map(Arc::new);
        if object.as_ref().and_then(|object| object.shown) != self.api[index].as_ref().and_then(|before| before.shown) {
            self.contested[index] = false;
        }
        self.api[index].clone_from(&object);
        self.history.push(Change { index, version: self.clock, object: object.clone() });
        object
    }

    pub(super) fn tick(&mut self) -> u32 {
        self.clock += 1;
        self.clock
    }

    /// Whether a controller follows the watch. What a standby sees makes no difference, as it lists everything when it takes over.
    pub(super) fn follows(&self, controller: usize) -> bool {
        self.controllers[controller].role == Role::Leading || self.flaw == Some(Flaw::StandbyDecides)
    }

    /// Forgets what can no longer make a difference.
    pub(super) fn tidy(&mut self) {
        let followers: Vec<usize> = (0..2).filter(|&controller| self.follows(controller)).collect();
        let end = self.history.len();
        for controller in 0..2 {
            let it = &mut self.controllers[controller];
            if !followers.contains(&controller) {
                it.position = end;
                if it.reconciler.writes.is_empty() {
                    it.view = View::default();
                }
            }
            while self.history.get(it.position).is_some_and(|change| change.version <= it.view.newest[change.index]) {
                it.position += 1;
            }
        }
        let seen = self.controllers.iter().map(|it| it.position).min().unwrap_or(end).saturating_sub(OLD_LISTS);
        for change in self.history.drain(..seen) {
            self.origin.0[change.index].clone_from(&change.object);
            self.origin.1 = change.version;
        }
        for controller in &mut self.controllers {
            controller.position -= seen;
        }
        let network = std::mem::take(&mut self.network);
        self.network = network.into_iter().filter(|flight| flight.awaited || self.is_valid(flight)).collect();
        for address in 0..ADDRESSES {
            if self.is_double(address) {
                let showing: Vec<usize> = self.showing(address).collect();
                showing.into_iter().for_each(|index| self.contested[index] = true);
            }
        }
        let late = std::mem::take(&mut self.late);
        self.late = late.into_iter().filter(|late| self.is_excused(late)).collect();
    }

    /// Whether a late write still excuses an address on two Services.
    fn is_excused(&self, late: &Late) -> bool {
        if self.is_double(late.address) {
            return true;
        }
        if !self.showing(late.address).any(|index| index == late.index) {
            return false;
        }
        let is_seen =
            self.leader().is_some_and(|leader| self.controllers[leader].view.newest[late.index] >= late.version);
        let brings = |flight: &Flight| {
            flight.index != late.index && flight.address() == Some(late.address) && self.is_valid(flight)
        };
        !is_seen || self.network.iter().any(brings)
    }
}

impl Controller {
    pub(super) fn new(reconciler: Reconciler) -> Self {
        Self { reconciler: Arc::new(reconciler), role: Role::Standby, term: 0, view: View::default(), position: 0 }
    }
}

impl View {
    /// Takes note of a state of a Service, unless it is old. True when it was news.
    pub(super) fn observe(&mut self, index: usize, version: u32, object: Option<&Arc<Object>>) -> bool {
        if version <= self.newest[index] {
            return false;
        }
        self.newest[index] = version;
        self.objects[index] = object.cloned();
        true
    }

    /// Takes note of the answer that an object of this uid does not exist.
    pub(super) fn observe_gone(&mut self, index: usize, uid: Option<&Uid>) {
        self.objects[index].take_if(|object| object.service.uid.as_ref() == uid);
    }

    /// Takes note of a LIST of some version; returns the Services of which it was news.
    pub(super) fn observe_list(&mut self, listed: &[Option<Arc<Object>>; SERVICES], version: u32) -> Vec<usize> {
        let mut news = Vec::new();
        for (index, object) in listed.iter().enumerate() {
            let is_news = match object {
                Some(object) => self.observe(index, object.version, Some(object)),
                None if self.newest[index] <= version => {
                    self.newest[index] = version;
                    self.objects[index].take().is_some()
                }
                None => false,
            };
            news.extend(is_news.then_some(index));
        }
        news
    }
}

impl Picture for View {
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.objects[index_of(key)].as_ref().map(|object| &object.service)
    }

    fn version(&self, key: &ServiceKey) -> Option<ObjectVersion> {
        self.objects[index_of(key)].as_ref().map(|object| object.text.clone())
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.objects.iter().flatten().map(|object| &object.service)
    }
}

impl Flight {
    /// The address that it brings.
    pub(super) fn address(&self) -> Option<usize> {
        self.write.status.as_ref().and_then(|status| address_of(status.ips.first()?))
    }
}

impl Object {
    pub(super) fn created(index: usize, version: u32) -> Self {
        let mut service = Service::load_balancer(key(index));
        service.uid = Some(version.to_string().into());
        service.created = Some(Timestamp::from_unix(version.into()));
        Self { version, wish: Wish::Any, shown: None, service, text: version.to_string().into() }
    }

    /// The same object with another wish.
    pub(super) fn wishing(&self, wish: Wish, version: u32) -> Self {
        let mut service = self.service.clone();
        service.service_type = if wish == Wish::Nothing { ServiceType::Other } else { ServiceType::LoadBalancer };
        service.load_balancer_ip = match wish {
            Wish::Only(address) => Some(ip_of(address).to_string()),
            Wish::Any | Wish::Nothing => None,
        };
        Self { version, wish, service, text: version.to_string().into(), ..*self }
    }

    /// The same object after a write of a controller.
    pub(super) fn written(&self, write: &Write, version: u32) -> Self {
        let mut next = self.clone();
        (next.version, next.text) = (version, version.to_string().into());
        let service = &mut next.service;
        // Any write of ours touches our entry of managedFields.
        service.assigned = Some(Timestamp::from_unix(version.into()));
        if let Some(status) = &write.status {
            service.ingress = status.ips.iter().copied().map(Ingress::from).collect();
            set(&mut service.annotations, ALLOCATED_FROM, status.pool.as_ref().map(ToString::to_string));
            next.shown = status.ips.first().and_then(address_of);
        }
        match write.settle {
            super::super::Settle::Leave => {}
            super::super::Settle::Set => set(&mut service.annotations, WRITE_SETTLED, Some(String::new())),
            super::super::Settle::Remove => set(&mut service.annotations, WRITE_SETTLED, None),
        }
        next
    }

    /// Whether a write was decided on this state.
    pub(super) fn is_meant(&self, write: &Write) -> bool {
        write.uid == self.service.uid && write.version.as_ref() == Some(&self.text)
    }

    /// The address that it shows and may keep.
    pub(super) fn established(&self) -> Option<usize> {
        self.shown.filter(|&address| self.admits(address))
    }

    pub(super) fn admits(&self, address: usize) -> bool {
        match self.wish {
            Wish::Any => true,
            Wish::Only(only) => only == address,
            Wish::Nothing => false,
        }
    }
}

pub(super) fn key(index: usize) -> ServiceKey {
    ServiceKey::new("test", &index.to_string())
}

pub(super) fn index_of(key: &ServiceKey) -> usize {
    key.name.parse().expect("a Service of the model")
}

pub(super) fn address_of(ip: &IpAddr) -> Option<usize> {
    (0..ADDRESSES).find(|&address| ip_of(address) == *ip)
}

fn ip_of(address: usize) -> IpAddr {
    // There are few addresses.
    [192, 0, 2, 1 + address as u8].into()
}

fn set(annotations: &mut BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
}

/// The configuration with the pool in some state.
pub(super) fn config(state: Pool, flaw: Option<Flaw>) -> Config {
    let pool = PoolSpec {
        meta: ObjectMeta { name: "pool".to_owned(), ..ObjectMeta::default() },
        addresses: vec![format!("{}-{}", ip_of(0), ip_of(ADDRESSES - 1))],
        auto_assign: true,
        avoid_buggy_ips: false,
        service_allocation: None,
    };
    let parse = |pools| Config::parse(&Resources { pools, ..Resources::default() }, &Cluster::default()).config;
    let valid = parse(vec![pool.clone()]);
    match state {
        Pool::Valid => valid,
        _ if flaw == Some(Flaw::ForgetsPools) => parse(Vec::new()),
        Pool::Invalid => parse(vec![PoolSpec { addresses: vec!["192.0.2.1/33".to_owned()], ..pool }]),
        Pool::Departed => {
            let mut config = parse(Vec::new());
            config.departed = valid.pools;
            config
        }
    }
}

/// How many changes a LIST may lag behind what was seen.
pub(super) const OLD_LISTS: usize = 2;
