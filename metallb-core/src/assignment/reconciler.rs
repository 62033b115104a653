//! Assignment where decisions become true only when an API server has stored them.
//!
//! An [`Assigner`] decides; its decision is a wish until the status of the Service is written, and the write may be late, refused or
//! of unknown end. [`Reconciler`] keeps both in step, without IO: it is fed facts and the ends of writes, and it is drained of
//! [`Effect`]s. What it promises:
//!
//! - **An address is taken while it stands** in the newest status seen, in a write under way, or in a write of unknown end. A write
//!   names the version that it was decided on, so it is void as soon as the object is seen in another version, with another uid,
//!   or gone.
//! - **One write per object at a time.** Its end, whatever it was, leads to a new decision on the newest facts.
//! - **A standby decides nothing.** [`Reconciler::take_over`] begins with the statuses alone: all valid holders claim, then the
//!   waiting are served. Of earlier decisions only the writes survive whose end is not known.
//! - **Two holders of one address are repaired**: the better claim keeps it ([`processing_order`]), the other gets a new one.
//!
//! ```
//! use metallb_core::assignment::{Effect, Pace, Picture, Reconciler, WriteEnd};
//! use metallb_core::config::Config;
//! use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources};
//! use metallb_core::model::{Cluster, ObjectVersion, Service, ServiceKey};
//!
//! struct Store(Vec<(Service, ObjectVersion)>);
//! impl Picture for Store {
//!     fn service(&self, key: &ServiceKey) -> Option<&Service> {
//!         self.0.iter().map(|(service, _)| service).find(|service| service.key == *key)
//!     }
//!     fn version(&self, key: &ServiceKey) -> Option<ObjectVersion> {
//!         self.0.iter().find(|(service, _)| service.key == *key).map(|(_, version)| version.clone())
//!     }
//!     fn services(&self) -> impl Iterator<Item = &Service> {
//!         self.0.iter().map(|(service, _)| service)
//!     }
//! }
//!
//! let pool = PoolSpec {
//!     meta: ObjectMeta { name: "edge".into(), ..ObjectMeta::default() },
//!     addresses: vec!["192.0.2.0/24".into()],
//!     auto_assign: true,
//!     avoid_buggy_ips: false,
//!     service_allocation: None,
//! };
//! let config = Config::parse(&Resources { pools: vec![pool], ..Resources::default() }, &Cluster::default()).config;
//! let mut store = Store(vec![(Service::load_balancer(ServiceKey::new("default", "web")), "1".into())]);
//!
//! let mut reconciler = Reconciler::new(None);
//! reconciler.take_over(&config, &store);
//! let Some(Effect::Write(write)) = reconciler.poll_effect() else { panic!("the Service needs its status written") };
//! let status = write.status.as_ref().expect("the write brings addresses");
//! assert_eq!(status.ips, ["192.0.2.0".parse::<std::net::IpAddr>().unwrap()]);
//!
//! // The API server stored it: the driver feeds the answer to its picture, then tells the end of the write.
//! store.0[0].0.ingress = vec![metallb_core::model::Ingress { ip: Some("192.0.2.0".into()), hostname: None }];
//! store.0[0].0.annotations.insert(metallb_core::model::ALLOCATED_FROM.into(), "edge".into());
//! store.0[0].1 = "2".into();
//! reconciler.write_ended(&write.key, write.id, WriteEnd::Written, Pace::Now, &store);
//! assert!(reconciler.poll_effect().is_none());
//! ```

#[cfg(test)]
mod model;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{AssignReason, Assigner, EventKind, ServiceEvent, StatusWrite, UnknownPools, processing_order};
use crate::config::Config;
use crate::model::{ObjectVersion, Service, ServiceKey, Uid, WRITE_SETTLED};

/// The newest facts that are known.
pub trait Picture {
    /// A Service.
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    /// `metadata.resourceVersion` of a Service.
    fn version(&self, key: &ServiceKey) -> Option<ObjectVersion>;
    /// All Services.
    fn services(&self) -> impl Iterator<Item = &Service>;
}

/// Assigner and writes. One per process.
#[derive(Clone, Debug)]
pub struct Reconciler {
    class: Option<String>,
    /// What is decided; only while this process leads.
    assigner: Option<Assigner>,
    quarantined: BTreeMap<IpAddr, Arc<str>>,
    unknown_pools: UnknownPools,
    writes: FxHashMap<ServiceKey, Writes>,
    /// Duplicates that were reported and still stand.
    duplicates: BTreeSet<(ServiceKey, IpAddr)>,
    effects: VecDeque<Effect>,
    next_id: u64,
}

/// What the driver has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Start a write, and tell its end by [`Reconciler::write_ended`].
    Write(Write),
    /// Report an Event that belongs to no write.
    Event {
        /// The Service.
        service: ServiceKey,
        /// The Event.
        event: ServiceEvent,
    },
    /// Two Services show one address and may not share it; one of them gets another address.
    Duplicate {
        /// The address.
        ip: IpAddr,
        /// The Service that keeps it.
        keeper: ServiceKey,
        /// The Service that gets another one.
        loser: ServiceKey,
    },
}

/// A write of one Service. It must fail where the object is no longer in the version, or of the uid, that it names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// Tells this write from others of the same Service.
    pub id: WriteId,
    /// The Service.
    pub key: ServiceKey,
    /// Its uid.
    pub uid: Option<Uid>,
    /// The version that was decided on.
    pub version: Option<ObjectVersion>,
    /// The status; `None` leaves it as it is.
    pub status: Option<StatusWrite>,
    /// What becomes of the annotation [`WRITE_SETTLED`].
    pub settle: Settle,
    /// Why the status is to change.
    pub reason: AssignReason,
    /// Events to report once the write is stored.
    pub events: Vec<ServiceEvent>,
}

/// Names a write.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WriteId(u64);

/// What a write does to the annotation [`WRITE_SETTLED`]. A write whose end is unknown is void once the object has another version;
/// where nothing else is to be written, the annotation makes the version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settle {
    /// Nothing.
    Leave,
    /// Set it.
    Set,
    /// Remove it.
    Remove,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteEnd {
    /// It is stored, and the picture holds the answer.
    Written,
    /// It is surely not stored: a conflict, a refusal, an object that is gone, a request that was not sent.
    Rejected,
    /// It may be stored, or may still be: the deadline passed or the answer was lost.
    Unknown,
}

/// When the Service may be written again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// At once.
    Now,
    /// After [`Reconciler::resume`].
    Later,
}

/// The writes of one Service of which it is not known that they are void.
#[derive(Clone, Debug, Default)]
struct Writes {
    uid: Option<Uid>,
    under_way: Option<Sent>,
    unknown: Vec<Sent>,
    /// No write is started until the driver says so.
    paused: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Sent {
    id: WriteId,
    version: Option<ObjectVersion>,
    ips: Vec<IpAddr>,
    /// To report once it is known that the write was stored.
    events: Vec<ServiceEvent>,
    /// The object has another version: if the write is not stored yet, it never will be.
    is_void: bool,
}

// === impl Reconciler ===

impl Reconciler {
    /// A standby that handles Services of `class`; `None` means Services without a class.
    #[must_use]
    pub fn new(class: Option<&str>) -> Self {
        Self {
            class: class.map(str::to_owned),
            assigner: None,
            quarantined: BTreeMap::new(),
            unknown_pools: UnknownPools::default(),
            writes: FxHashMap::default(),
            duplicates: BTreeSet::new(),
            effects: VecDeque::new(),
            next_id: 0,
        }
    }

    /// What is decided; `None` for a standby.
    #[must_use]
    pub const fn assigner(&self) -> Option<&Assigner> {
        self.assigner.as_ref()
    }

    /// Begins to lead, with the statuses of `picture` alone: it must have been listed whole after the leadership began.
    pub fn take_over(&mut self, config: &Config, picture: &impl Picture) {
        let mut assigner = Assigner::new(self.class.as_deref());
        assigner.set_quarantined(&self.quarantined);
        assigner.set_unknown_pools(self.unknown_pools);
        self.assigner = Some(assigner);
        self.duplicates.clear();
        self.effects.clear();
        self.set_config(config, picture);
    }

    /// Ceases to lead: nothing is decided or written until the next [`take_over`](Self::take_over).
    pub fn step_down(&mut self) {
        self.assigner = None;
        // A write that was not started yet is surely not stored.
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Write(write) = effect
                && let Some(writes) = self.writes.get_mut(&write.key)
            {
                writes.under_way.take_if(|sent| sent.id == write.id);
            }
        }
    }

    /// Replaces the pools: all valid holders claim, then everybody is decided on.
    pub fn set_config(&mut self, config: &Config, picture: &impl Picture) {
        let Some(assigner) = &mut self.assigner else { return };
        assigner.set_config(config);
        self.decide_all(picture);
    }

    /// Replaces the addresses that hosts outside of the cluster use, with the hardware address of each.
    pub fn set_quarantined(&mut self, quarantined: BTreeMap<IpAddr, Arc<str>>, picture: &impl Picture) {
        self.quarantined = quarantined;
        let Some(assigner) = &mut self.assigner else { return };
        assigner.set_quarantined(&self.quarantined);
        self.decide_all(picture);
    }

    /// Sets what becomes of holders whose recorded pool does not exist. A controller that takes over keeps them for the grace
    /// time, because it cannot know when the pool was deleted.
    pub fn set_unknown_pools(&mut self, unknown: UnknownPools, picture: &impl Picture) {
        self.unknown_pools = unknown;
        let Some(assigner) = &mut self.assigner else { return };
        if assigner.set_unknown_pools(unknown) {
            self.decide_all(picture);
        }
    }

    /// Decides on Services whose facts or versions changed, or that are gone.
    pub fn update(&mut self, keys: impl IntoIterator<Item = ServiceKey>, picture: &impl Picture) {
        let keys: Vec<ServiceKey> = keys.into_iter().collect();
        if self.assigner.is_none() {
            for key in &keys {
                self.drop_void(key, picture);
                if self.writes.get(key).is_some_and(Writes::have_ended) {
                    self.writes.remove(key);
                }
            }
            return;
        }
        self.decide(keys, picture);
    }

    /// A write ended. What the API server answered must be in the picture already; after a conflict or an unknown end that is the
    /// object as read anew, where it could be read.
    pub fn write_ended(&mut self, key: &ServiceKey, id: WriteId, end: WriteEnd, pace: Pace, picture: &impl Picture) {
        if let Some(writes) = self.writes.get_mut(key)
            && let Some(sent) = writes.under_way.take_if(|sent| sent.id == id)
        {
            writes.paused = pace == Pace::Later;
            match end {
                WriteEnd::Written => {}
                // One before it, of unknown end, may have stored the same: then its Events are still to be reported.
                WriteEnd::Rejected => writes.unknown.push(Sent { is_void: true, ..sent }),
                WriteEnd::Unknown => {
                    writes.unknown.retain(|known| known.version != sent.version || known.ips != sent.ips);
                    writes.unknown.push(sent);
                }
            }
        }
        self.update([key.clone()], picture);
    }

    /// A Service that was to be written later may be written now.
    pub fn resume(&mut self, key: &ServiceKey, picture: &impl Picture) {
        if let Some(writes) = self.writes.get_mut(key) {
            writes.paused = false;
        }
        self.update([key.clone()], picture);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn decide_all(&mut self, picture: &impl Picture) {
        self.writes.retain(|key, _| picture.service(key).is_some());
        let mut queue: Vec<&Service> = picture.services().collect();
        queue.sort_by(|a, b| processing_order(a, b));
        for service in &queue {
            self.drop_void(&service.key, picture);
            let pending = self.pending(&service.key);
            let Some(assigner) = &mut self.assigner else { return };
            // Everybody is decided on below, so nobody needs another try.
            let _ = assigner.note_standing(service, &pending);
        }
        for service in &queue {
            let Some(assigner) = &mut self.assigner else { return };
            assigner.claim(service);
        }
        let keys: Vec<ServiceKey> = queue.into_iter().map(|service| service.key.clone()).collect();
        self.decide(keys, picture);
    }

    fn decide(&mut self, keys: Vec<ServiceKey>, picture: &impl Picture) {
        let mut queue = VecDeque::from(keys);
        let mut rounds = BTreeSet::new();
        loop {
            let mut offered = BTreeSet::new();
            while let Some(key) = queue.pop_front() {
                let retry = self.decide_one(&key, picture, &mut queue);
                queue.extend(retry.into_iter().filter(|key| offered.insert(key.clone())));
            }
            let Some(assigner) = self.assigner.as_ref().filter(|_| !offered.is_empty()) else { return };
            // Who was offered something may want something else by now; then it is another one's turn.
            queue.extend(assigner.next_in_line().into_iter().filter(|key| rounds.insert(key.clone())));
            if queue.is_empty() {
                return;
            }
        }
    }

    /// Decides on one Service; returns the next one that can be served now.
    fn decide_one(
        &mut self,
        key: &ServiceKey,
        picture: &impl Picture,
        queue: &mut VecDeque<ServiceKey>,
    ) -> Vec<ServiceKey> {
        self.drop_void(key, picture);
        let pending = self.pending(key);
        let is_under_way = self.writes.get(key).is_some_and(|writes| writes.under_way.is_some());
        let Some(assigner) = &mut self.assigner else { return Vec::new() };
        let Some(service) = picture.service(key) else {
            self.duplicates.retain(|(loser, _)| loser != key);
            return assigner.forget(key);
        };
        let mut retry = assigner.note_standing(service, &pending);
        if is_under_way {
            // The end of the write brings the Service back here.
            retry.extend(assigner.put_off(key));
            return retry;
        }
        let displaced = self.contest(service, picture);
        let Some(assigner) = &mut self.assigner else { return retry };
        let outcome = assigner.converge(service);
        // The others leave only now that the better claim is entered.
        queue.extend(displaced);
        retry.extend(outcome.retry.iter().cloned());
        let settle = self.settle(service, outcome.write.is_some());
        if outcome.write.is_none() && settle == Settle::Leave {
            self.report(key, outcome.events);
            if self.writes.get(key).is_some_and(Writes::have_ended) {
                self.writes.remove(key);
            }
            return retry;
        }
        let writes = self.writes.entry(key.clone()).or_default();
        writes.uid.clone_from(&service.uid);
        if writes.paused {
            return retry;
        }
        self.next_id += 1;
        let write = Write {
            id: WriteId(self.next_id),
            key: key.clone(),
            uid: service.uid.clone(),
            version: picture.version(key),
            status: outcome.write,
            settle,
            reason: outcome.reason,
            events: outcome.events,
        };
        let sent = Sent::new(&write);
        // Whichever of the two is stored, its Events are reported once.
        writes.unknown.iter_mut().filter(|known| known.ips == sent.ips).for_each(|known| known.events.clear());
        writes.under_way = Some(sent);
        let pending = writes.pending();
        self.effects.push_back(Effect::Write(write));
        if let Some(assigner) = &mut self.assigner {
            retry.extend(assigner.note_standing(service, &pending));
        }
        retry
    }

    fn report(&mut self, service: &ServiceKey, events: Vec<ServiceEvent>) {
        self.effects.extend(events.into_iter().map(|event| Effect::Event { service: service.clone(), event }));
    }

    /// What a write has to do to the annotation, given whether it brings a new status.
    fn settle(&self, service: &Service, has_status: bool) -> Settle {
        let is_set = service.annotations.contains_key(WRITE_SETTLED) && service.is_of_class(self.class.as_deref());
        let is_unknown = self.writes.get(&service.key).is_some_and(|writes| !writes.unknown.is_empty());
        match (is_set, has_status || !is_unknown) {
            (true, _) => Settle::Remove,
            (false, true) => Settle::Leave,
            (false, false) => Settle::Set,
        }
    }

    /// Where others hold what the status of a Service shows, and it has the better claim: they lose it. Returns them.
    fn contest(&mut self, service: &Service, picture: &impl Picture) -> Vec<ServiceKey> {
        let Some(assigner) = &mut self.assigner else { return Vec::new() };
        let rivals = assigner.rivals(service);
        if rivals.is_empty() {
            self.duplicates.retain(|(loser, _)| *loser != service.key);
            return Vec::new();
        }
        let shows = |rival: &Service, ip: IpAddr| rival.ingress_ips().any(|shown| shown == Some(ip));
        let has_better_claim = rivals.iter().all(|(ip, rival)| {
            picture.service(rival).is_none_or(|rival| !shows(rival, *ip) || processing_order(service, rival).is_lt())
        });
        for (ip, rival) in &rivals {
            // An address that stands on one Service only is no duplicate.
            if !picture.service(rival).is_some_and(|rival| shows(rival, *ip)) {
                continue;
            }
            let (keeper, loser) = if has_better_claim { (&service.key, rival) } else { (rival, &service.key) };
            if self.duplicates.insert((loser.clone(), *ip)) {
                let message =
                    format!("\"{ip}\" is also assigned to {keeper}, which has the older claim; assigning another IP");
                let event = ServiceEvent { kind: EventKind::Warning, reason: "duplicateAddress", message };
                self.effects.push_back(Effect::Event { service: loser.clone(), event });
                self.effects.push_back(Effect::Duplicate { ip: *ip, keeper: keeper.clone(), loser: loser.clone() });
            }
        }
        if !has_better_claim {
            return Vec::new();
        }
        let losers: BTreeSet<ServiceKey> = rivals.into_iter().map(|(_, rival)| rival).collect();
        for loser in &losers {
            assigner.displace(loser);
        }
        losers.into_iter().collect()
    }

    /// Drops the writes of a Service that can no longer be stored: it is gone, or another object, or of another version. Where the
    /// Service shows what a write of unknown end brought, the Events of that write are reported.
    fn drop_void(&mut self, key: &ServiceKey, picture: &impl Picture) {
        let Some(writes) = self.writes.get_mut(key) else { return };
        let Some(service) = picture.service(key).filter(|service| service.uid == writes.uid) else {
            self.writes.remove(key);
            return;
        };
        let version = picture.version(key);
        if let Some(sent) = &mut writes.under_way {
            // It still has to end before the next one starts.
            sent.is_void |= sent.version != version;
        }
        let is_old = |sent: &Sent| sent.version != version;
        let is_stored = |sent: &Sent| is_old(sent) && service.ingress_ips().eq(sent.ips.iter().copied().map(Some));
        let is_void = |sent: &mut Sent| sent.is_void || is_old(sent);
        let stored: Vec<Sent> = writes.unknown.extract_if(.., is_void).filter(is_stored).collect();
        if self.assigner.is_some() {
            stored.into_iter().for_each(|sent| self.report(key, sent.events));
        }
    }

    /// The addresses that writes may still bring to a Service.
    fn pending(&self, key: &ServiceKey) -> Vec<IpAddr> {
        self.writes.get(key).map(Writes::pending).unwrap_or_default()
    }
}

impl Writes {
    fn have_ended(&self) -> bool {
        self.under_way.is_none() && self.unknown.is_empty()
    }

    fn pending(&self) -> Vec<IpAddr> {
        let sent = self.under_way.iter().chain(&self.unknown);
        sent.filter(|sent| !sent.is_void).flat_map(|sent| sent.ips.iter().copied()).collect()
    }
}

impl Sent {
    fn new(write: &Write) -> Self {
        let ips = write.status.as_ref().map(|status| status.ips.clone()).unwrap_or_default();
        Self { id: write.id, version: write.version.clone(), ips, events: write.events.clone(), is_void: false }
    }
}
