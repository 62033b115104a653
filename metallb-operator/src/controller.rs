//! Assigns addresses to Services of a cluster: follows the API, decides with `metallb-core`, writes status and Events.
//!
//! [`Reconciler`] decides and knows which writes are in progress; this module passes changes in and executes its
//! effects. While another process leads, only the picture and the configuration are kept up to date.

mod left_behind;
mod membership_key;
mod obstacles;
mod only_webhooks;
mod quarantine;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use metallb_core::assignment::{
    Effect, EventKind, Pace, Picture, Reconciler, ServiceEvent, UnknownPools, Write, WriteEnd,
};
use metallb_core::config::spec::Resources;
use metallb_core::config::{Config, ConfigStore, POOL_GRACE, Parsed, Problem, Severity};
use metallb_core::model::{ObjectVersion, PoolName, Service, ServiceKey};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use self::quarantine::Quarantine;
use crate::api::IpAddressPoolStatus;
use crate::client;
use crate::index::{Index, Relist, Role, Touched, Update};
use crate::process::admin::Admin;
use crate::process::listen::Listen;
use crate::process::supervision::PULSE;
use crate::process::{Process, ProcessError, Threads, log_problem};
use crate::sink::configuration_state::{Component, ConfigurationReporter};
use crate::sink::events::{self, Event, EventSender, EventType};
use crate::sink::last_good::{self, LastGood};
use crate::sink::lease::{Claim, Identity, LEASE, LeaseKeeper, LeaseSettings, LeaseTiming, Standing, Term};
use crate::sink::pauses::Pauses;
use crate::sink::pool_status::{self, PoolStatuses};
use crate::sink::service_status::{Ended, Failure, Seen, ServiceStatusWriter};
use crate::source::last_good::Recall;
use crate::sys;

/// The duty of a controller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    /// It assigns addresses.
    Assign,
    /// It serves admission webhooks and assigns nothing.
    OnlyWebhooks,
}

/// Settings of a controller.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The duty of the process.
    pub duty: Duty,
    /// Namespace of the configuration objects, and of the Lease.
    pub namespace: String,
    /// Serve only Services of this load balancer class; `None` means Services without a class.
    pub class: Option<String>,
    /// Name of the Pod, the owner of status objects; empty outside of a Pod.
    pub pod: String,
    /// Uid of the Pod, where it is known.
    pub pod_uid: Option<String>,
    /// Duration of the Lease and interval of its renewals.
    pub lease: LeaseTiming,
    /// Addresses of metrics and probes.
    pub listen: Vec<Listen>,
    /// Secret for the membership key, created if missing; `None` disables creation.
    pub membership_secret: Option<String>,
    /// Whether addresses that foreign hosts use are taken out of circulation.
    pub quarantine_conflicts: bool,
}

struct Controller {
    index: Index,
    reconciler: Reconciler,
    store: ConfigStore,
    config: Config,
    admin: Admin,
    events: EventSender,
    standing: Standing,
    /// The leadership that [`Reconciler`] works for, and the round in which everything was listed for it.
    role: LeaderRole,
    writer: ServiceStatusWriter,
    /// Writes whose result was not processed yet.
    under_way: usize,
    pauses: Pauses,
    /// Refusals that were reported, by Service.
    refusals: BTreeMap<ServiceKey, String>,
    /// Services whose status the Role of this process forbids to write, with the answer of the API server.
    denied: BTreeMap<ServiceKey, String>,
    claim: Claim,
    /// Uid of a webhook configuration that blocks changes of the configuration.
    blocking_webhook: Option<String>,
    /// Whether `config` and `problems` match the picture.
    is_reparsed: bool,
    problems: BTreeSet<Problem>,
    /// Problems that were reported in this leadership.
    reported: BTreeSet<Problem>,
    reporter: ConfigurationReporter,
    pool_statuses: watch::Sender<PoolStatuses>,
    /// Addresses out of circulation; `None` if the feature is off.
    quarantine: Option<Quarantine>,
    namespace: String,
    random: SmallRng,
    /// The stored forms of the configuration were not read yet: nothing is decided.
    awaits_recall: bool,
    /// The last valid forms to store.
    last_good: watch::Sender<LastGood>,
    /// End of the grace time in which holders keep addresses of pools that do not exist, after a take-over.
    unknown_pools_until: Option<Instant>,
}

/// Phase of this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LeaderRole {
    /// Another process leads, or none: nothing is written.
    Standby,
    /// It leads, and everything is listed again before the first decision.
    Listing(Term),
    /// It decides and writes.
    Leading(Term),
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// A cause that prevents the start. An API server that becomes unreachable later is no error.
pub fn run(settings: &Settings) -> Result<(), ProcessError> {
    if settings.duty == Duty::OnlyWebhooks {
        return only_webhooks::run(settings);
    }
    Process::run(Threads::PerCore, async |mut process| {
        let (config, client) = client::connect().await?;
        let namespace = settings.namespace.clone();
        process.admin.readiness.expect("caches synced");
        process.serve(settings.listen.iter().copied())?;
        let lease = LeaseSettings {
            namespace: namespace.clone(),
            name: LEASE.to_owned(),
            identity: Identity::new(&settings.pod, settings.pod_uid.as_deref()),
            timing: settings.lease,
        };
        let (keeper, mut leadership) = LeaseKeeper::start(config, lease)
            .map_err(ProcessError::io("cannot start the thread that keeps the Lease"))?;
        // The first lists after the Lease was taken are the fresh ones that a new leader needs.
        let first = tokio::time::timeout(FIRST_CLAIM, leadership.changed()).await.unwrap_or_default();
        let (events, _writer) = events::spawn(client.clone(), "metallb-controller");
        if let Some(secret) = &settings.membership_secret {
            tokio::spawn(membership_key::ensure(client.clone(), namespace.clone(), secret.clone()));
        }
        let kinds = Role::Controller { conflicts: settings.quarantine_conflicts };
        let mut recall = Recall::start(&client, &namespace);
        let (index, mut updates) = Index::start(&client, &namespace, kinds);
        let (writer, mut ends) = ServiceStatusWriter::new(client.clone(), leadership.clone());
        let mut controller = Controller {
            index,
            reconciler: Reconciler::new(settings.class.as_deref()),
            store: ConfigStore::new().with_grace(POOL_GRACE),
            config: Config::default(),
            admin: process.admin.clone(),
            events,
            standing: first,
            role: first.term.map_or(LeaderRole::Standby, LeaderRole::Listing),
            writer,
            under_way: 0,
            pauses: Pauses::default(),
            refusals: BTreeMap::new(),
            denied: BTreeMap::new(),
            claim: Claim::default(),
            blocking_webhook: None,
            is_reparsed: false,
            problems: BTreeSet::new(),
            reported: BTreeSet::new(),
            reporter: ConfigurationReporter::spawn(client.clone(), &namespace, &settings.pod, Component::Controller),
            pool_statuses: pool_status::spawn(client.clone(), &namespace, leadership.clone()),
            awaits_recall: true,
            last_good: last_good::spawn(client.clone(), &namespace, leadership.clone()),
            unknown_pools_until: None,
            quarantine: settings.quarantine_conflicts.then(Quarantine::default),
            namespace,
            random: SmallRng::seed_from_u64(sys::seed()),
        };
        controller.follow_claim(first.claim);
        let mut webhooks = left_behind::spawn(client.clone(), settings.namespace.clone());
        let pulse = process.admin.watchdog.watch("controller", Instant::now());
        let mut pulses = tokio::time::interval(PULSE);
        let mut tick = tokio::time::interval(QUARANTINE_PERIOD);
        let mut batch = Vec::new();
        loop {
            pulse.beat(Instant::now());
            let pause_ends = controller.pauses.next();
            let grace_ends = controller.store.next_deadline().into_iter().chain(controller.unknown_pools_until).min();
            let is_complete = controller.index.is_complete();
            if is_complete {
                recall.hurry(Instant::now());
            }
            tokio::select! {
                () = process.stop_requested() => break,
                standing = leadership.changed() => controller.stand(standing),
                count = updates.recv_many(&mut batch, BATCH) => {
                    if count == 0 { break }
                    controller.take(batch.drain(..));
                }
                Some(end) = ends.recv() => controller.finish(end),
                () = sys::sleep_until(pause_ends) => controller.resume(),
                () = sys::sleep_until(grace_ends), if is_complete => controller.end_grace(),
                good = recall.next() => controller.recalled(good),
                Ok(()) = webhooks.changed() => {
                    let found = webhooks.borrow_and_update().clone();
                    controller.follow_webhook(found);
                }
                _ = pulses.tick() => {}
                _ = tick.tick(), if settings.quarantine_conflicts => controller.sweep_conflicts(),
            }
        }
        tracing::info!(event = "shutdown", "shutting down: finishing writes, releasing the Lease");
        controller.stop();
        let finish = async {
            while controller.under_way > 0
                && let Some(_end) = ends.recv().await
            {
                controller.under_way -= 1;
            }
        };
        // A slower write may still be stored; the next leader corrects its effects.
        let _ = tokio::time::timeout(FINISH_LIMIT, finish).await;
        keeper.release().await;
        process.finish();
        Ok(())
    })
}

impl Picture for Index {
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.cluster().services.get(key)
    }

    fn version(&self, key: &ServiceKey) -> Option<ObjectVersion> {
        self.identity(key).map(|identity| identity.version.to_string().into())
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.cluster().services.values()
    }
}

impl Controller {
    /// Processes a change of leadership.
    fn stand(&mut self, standing: Standing) {
        let restored = standing.restores > self.standing.restores;
        self.standing = standing;
        if restored {
            self.admin.metrics.client.restores.inc();
            self.events.send(Event::about_lease(&self.namespace, LEASE, "restoreDetected", RESTORED));
        }
        let before = self.role;
        self.role = match (standing.term, before) {
            (Some(term), LeaderRole::Leading(known) | LeaderRole::Listing(known)) if known == term && !restored => {
                before
            }
            (Some(term), _) => {
                self.index.relist(if restored { Relist::Forget } else { Relist::Again });
                LeaderRole::Listing(term)
            }
            (None, _) => {
                if restored {
                    self.index.relist(Relist::Forget);
                }
                LeaderRole::Standby
            }
        };
        if self.role != before {
            self.step_down();
        }
        self.follow_claim(standing.claim);
        self.proceed(Touched::default());
    }

    /// Reports whether the Role allows the Lease.
    fn follow_claim(&mut self, claim: Claim) {
        if std::mem::replace(&mut self.claim, claim) == claim {
            return;
        }
        self.admin.readiness.set("Lease allowed by the Role", claim != Claim::Refused);
        if let Some((reason, text)) = obstacles::about_claim(claim) {
            self.events.send(Event::about_lease(&self.namespace, LEASE, reason, text));
        }
        if self.standing.term.is_none() && claim != Claim::Refused {
            self.reporter.stand_by();
        }
        self.report_state();
    }

    /// Reports a webhook configuration that blocks changes of the configuration, or its end.
    fn follow_webhook(&mut self, uid: Option<String>) {
        if let Some(uid) = &uid {
            tracing::error!(event = "webhookLeftBehind", name = left_behind::NAME, "{}", obstacles::WEBHOOK);
            self.events.send(Event::about_webhooks(left_behind::NAME, uid.clone(), obstacles::WEBHOOK));
        }
        self.blocking_webhook = uid;
        self.report_state();
    }

    /// Reports the problems of the configuration and the obstacles of this process, if nobody else leads.
    fn report_state(&self) {
        if self.standing.term.is_some() || self.claim == Claim::Refused {
            self.reporter
                .report(&self.problems, &obstacles::texts(self.claim, &self.denied, self.blocking_webhook.is_some()));
        }
    }

    fn step_down(&mut self) {
        self.reconciler.step_down();
        self.unknown_pools_until = None;
        self.last_good.send_replace(LastGood::default());
        self.reporter.stand_by();
        if self.claim == Claim::Refused {
            self.report_state();
        }
        self.pool_statuses.send_replace(PoolStatuses::default());
        crate::metrics::clear_pools(&self.admin.metrics.allocator);
    }

    /// Stops deciding and writing.
    fn stop(&mut self) {
        self.role = LeaderRole::Standby;
        self.step_down();
    }

    fn take(&mut self, updates: impl Iterator<Item = Update>) {
        let touched = self.index.apply(updates);
        self.proceed(touched);
    }

    /// Decides on the changes, if this process leads.
    fn proceed(&mut self, touched: Touched) {
        self.is_reparsed &= !touched.config;
        if !self.index.is_complete() || self.awaits_recall {
            // The first decision after the lists covers all Services.
            return;
        }
        self.admin.readiness.set("caches synced", true);
        match self.role {
            LeaderRole::Standby => {
                self.parse();
                self.reconciler.update(touched.versions, &self.index);
            }
            LeaderRole::Listing(term) => {
                self.role = LeaderRole::Leading(term);
                self.take_over();
            }
            LeaderRole::Leading(_) => {
                let pools_changed = self.parse();
                self.report();
                if pools_changed {
                    self.reconciler.set_config(&self.config, &self.index);
                }
                for service in &touched.services {
                    self.pauses.changed(service);
                    if self.index.service(service).is_none() {
                        self.note_denial(service, None);
                    }
                }
                self.admin.metrics.client.updates.inc_by(touched.services.len() as u64);
                let changed: BTreeSet<ServiceKey> = touched.versions.into_iter().chain(touched.services).collect();
                self.reconciler.update(changed, &self.index);
                if touched.conflicts {
                    self.sweep_conflicts();
                }
            }
        }
        self.carry_out();
    }

    /// Takes the stored forms of the configuration, if there are any, and begins to decide.
    fn recalled(&mut self, good: Option<Resources>) {
        if let Some(good) = good {
            self.store.recall(good);
        }
        self.awaits_recall = false;
        self.proceed(Touched::default());
    }

    /// The grace time of a deleted pool, or that of this leader, may be over.
    fn end_grace(&mut self) {
        let now = Instant::now();
        if self.unknown_pools_until.take_if(|until| *until <= now).is_some() {
            self.reconciler.set_unknown_pools(UnknownPools::Release, &self.index);
        }
        self.is_reparsed &= self.store.next_deadline().is_none_or(|deadline| now < deadline);
        self.proceed(Touched::default());
    }

    /// Everything was listed since this process leads: starts deciding.
    fn take_over(&mut self) {
        self.parse();
        if let Some(quarantine) = &mut self.quarantine {
            *quarantine = Quarantine::default();
            quarantine.adopt(self.index.quarantined());
            self.reconciler.set_quarantined(quarantine.addresses(), &self.index);
        }
        self.pauses.retain(|service| self.index.cluster().services.contains_key(service));
        self.refusals.clear();
        if !std::mem::take(&mut self.denied).is_empty() {
            self.admin.readiness.set("statuses allowed by the Role", true);
        }
        self.reported.clear();
        self.report();
        self.unknown_pools_until = Some(Instant::now() + POOL_GRACE);
        self.reconciler.set_unknown_pools(UnknownPools::Keep, &self.index);
        self.reconciler.take_over(&self.config, &self.index);
        self.sweep_conflicts();
        tracing::info!(
            event = "leading",
            services = self.index.cluster().services.len(),
            "leading: all objects are listed, assigning addresses"
        );
    }

    /// Quarantines addresses that speakers report as used by foreign hosts, and releases those without recent reports.
    fn sweep_conflicts(&mut self) {
        let (Some(assigner), Some(quarantine)) = (self.reconciler.assigner(), &mut self.quarantine) else { return };
        let now = Timestamp::now();
        let mut changed = quarantine.expire(now);
        for conflict in self.index.conflicts() {
            let Ok(ip) = conflict.ip.parse() else { continue };
            if assigner.allocator().pool_of(&[ip]).is_some() && quarantine.report(now, ip, &conflict.mac_address) {
                tracing::warn!(
                    %ip, mac = conflict.mac_address, event = "addressQuarantined",
                    "a foreign host uses an address; the address is quarantined"
                );
                changed = true;
            }
        }
        if changed {
            self.reconciler.set_quarantined(quarantine.addresses(), &self.index);
        }
    }

    /// Updates the configuration; true if its pools changed.
    fn parse(&mut self) -> bool {
        if std::mem::replace(&mut self.is_reparsed, true) {
            return false;
        }
        let (resources, cluster) = (self.index.resources(), self.index.cluster());
        let Parsed { config, problems } = self.store.update_at(resources, cluster, Instant::now());
        for pool in config.departed.keys().filter(|pool| !self.config.departed.contains_key(*pool)) {
            tracing::warn!(
                event = "poolDeleted", %pool, seconds = POOL_GRACE.as_secs(),
                "a pool was deleted, Services keep its addresses for the grace time"
            );
        }
        let pools_changed = !config.assigns_like(&self.config);
        self.config = config;
        self.problems = problems.into_iter().collect();
        let client = &self.admin.metrics.client;
        client.config_loaded.set(1);
        client.config_stale.set(self.problems.iter().any(|problem| problem.severity == Severity::Error).into());
        pools_changed
    }

    /// Reports the problems of the configuration, each once per leadership.
    fn report(&mut self) {
        for problem in self.problems.difference(&self.reported) {
            log_problem(problem);
            self.events.send(Event::about_problem(problem, self.index.uid(&problem.object)));
        }
        self.report_state();
        self.reported.clone_from(&self.problems);
        if let LeaderRole::Leading(term) = self.role {
            self.last_good.send_if_modified(|known| {
                let changed = known.term != Some(term) || known.good != *self.store.good();
                if changed {
                    *known = LastGood { term: Some(term), good: self.store.good().clone() };
                }
                changed
            });
        }
    }

    /// Executes the effects of a decision.
    fn carry_out(&mut self) {
        let LeaderRole::Leading(term) = self.role else { return };
        while let Some(effect) = self.reconciler.poll_effect() {
            match effect {
                Effect::Write(write) => self.start(term, write),
                Effect::Event { service, event } => self.send_event(&service, &event),
                Effect::Duplicate { ip, keeper, loser } => {
                    self.admin.metrics.allocator.duplicates.inc();
                    tracing::warn!(
                        event = "duplicateAddress", %ip, %keeper, %loser,
                        "two Services have one address; the Service with the newer assignment gets another address"
                    );
                }
            }
        }
        self.show_pools(term);
    }

    fn start(&mut self, term: Term, write: Write) {
        if let Some(status) = &write.status {
            tracing::info!(
                event = "statusWrite",
                service = %write.key,
                ips = ?status.ips,
                pool = status.pool.as_ref().map(PoolName::as_str),
                reason = write.reason.as_str(),
                "writing the status of a Service"
            );
        }
        self.under_way += 1;
        self.writer.start(term, write, self.index.round());
    }

    /// Processes the result of a write.
    fn finish(&mut self, ended: Ended) {
        self.under_way -= 1;
        let Ended { write, asked, end, seen, failure } = ended;
        let (was_read, touched) = match seen {
            Seen::Object(object) => (true, self.index.observe(*object, asked)),
            Seen::Gone(Some(uid)) => (true, self.index.deleted(&write.key, &uid.as_str().into(), asked)),
            Seen::Gone(None) => (true, Touched::default()),
            Seen::Nothing => (false, Touched::default()),
        };
        let pace = self.judge(&write, failure.as_ref(), was_read);
        if end == WriteEnd::Written && self.reconciler.assigner().is_some() {
            for event in &write.events {
                self.send_event(&write.key, event);
            }
        }
        self.reconciler.write_ended(&write.key, write.id, end, pace, &self.index);
        self.proceed(touched);
    }

    /// Decides when the Service may be written again, and reports the failure.
    fn judge(&mut self, write: &Write, failure: Option<&Failure>, was_read: bool) -> Pace {
        let key = &write.key;
        let Some(failure) = failure else {
            self.pauses.succeeded(key);
            self.refusals.remove(key);
            self.note_denial(key, None);
            return Pace::Now;
        };
        if *failure == Failure::Gone {
            self.note_denial(key, None);
        }
        if !matches!(failure, Failure::NotSent | Failure::Gone) {
            self.admin.metrics.client.update_errors.inc();
        }
        if let Failure::Refused(text) = failure {
            self.note_denial(key, obstacles::is_denial(text).then_some(text));
        }
        match failure {
            Failure::Refused(text) if self.refusals.get(key) != Some(text) => {
                tracing::error!(
                    event = "statusRefused", service = %key, error = text,
                    "the API server refuses the status of a Service, retrying"
                );
                let message = format!("the API server refuses the status of the Service, trying again: {text}");
                let event = ServiceEvent { kind: EventKind::Warning, reason: "statusRefused", message };
                self.send_event(key, &event);
                self.refusals.insert(key.clone(), text.clone());
            }
            Failure::Unknown(text) => {
                tracing::warn!(
                    event = "statusUnknown", service = %key, error = text,
                    "the result of writing the status of a Service is unknown, reading the Service"
                );
            }
            _ => {
                tracing::debug!(
                    event = "statusNotWritten", service = %key, ?failure,
                    "the status of a Service was not written, retrying"
                );
            }
        }
        match self.pauses.failed(key, failure, was_read, Instant::now(), self.random.random()) {
            Some(_) => Pace::Later,
            None => Pace::Now,
        }
    }

    /// Notes whether the Role forbids the status of a Service, and reports a change.
    fn note_denial(&mut self, key: &ServiceKey, denial: Option<&String>) {
        let before = match denial {
            Some(text) => self.denied.insert(key.clone(), text.clone()),
            None => self.denied.remove(key),
        };
        if before.as_ref() != denial {
            self.admin.readiness.set("statuses allowed by the Role", self.denied.is_empty());
            self.report_state();
        }
    }

    /// Allows writes of Services whose pause is over.
    fn resume(&mut self) {
        for service in self.pauses.due(Instant::now()) {
            self.reconciler.resume(&service, &self.index);
        }
        self.carry_out();
    }

    fn send_event(&self, key: &ServiceKey, event: &ServiceEvent) {
        let severity = match event.kind {
            EventKind::Warning => EventType::Warning,
            EventKind::Normal => EventType::Normal,
        };
        let uid = self.index.service(key).and_then(|service| service.uid.as_ref()).map(ToString::to_string);
        self.events.send(Event::about_service(key, uid, severity, event.reason, event.message.clone()));
    }

    /// Sets the counters of the pools in the metrics and in their status.
    fn show_pools(&mut self, term: Term) {
        let Some(assigner) = self.reconciler.assigner() else { return };
        let allocator = assigner.allocator();
        let mut pools = BTreeMap::new();
        for name in self.config.pools.keys() {
            let Some(counters) = allocator.counters(name) else { continue };
            crate::metrics::set_pool(&self.admin.metrics.allocator, name.as_str(), &counters);
            let is_inside = |ip| allocator.pool_of(&[ip]).is_some_and(|pool| pool.name == *name);
            let quarantined = self.quarantine.as_ref().map_or_else(Vec::new, |quarantine| quarantine.listed(is_inside));
            pools.insert(
                name.clone(),
                IpAddressPoolStatus {
                    assigned_ipv4: counters.assigned_v4,
                    assigned_ipv6: counters.assigned_v6,
                    available_ipv4: counters.available_v4,
                    available_ipv6: counters.available_v6,
                    quarantined,
                },
            );
        }
        self.pool_statuses.send_if_modified(|known| {
            for gone in known.pools.keys().filter(|name| !pools.contains_key(*name)) {
                crate::metrics::remove_pool(&self.admin.metrics.allocator, gone.as_str());
            }
            let changed = known.term != Some(term) || known.pools != pools;
            *known = PoolStatuses { term: Some(term), pools };
            changed
        });
    }
}

/// Message of the Event on the Lease after a restore.
const RESTORED: &str =
    "etcd was restored from a snapshot: all objects are listed again, addresses that Services hold stay";

/// Time limit on the start for the first answer about the Lease.
const FIRST_CLAIM: Duration = Duration::from_millis(150);

/// Time limit on shutdown for writes in progress.
const FINISH_LIMIT: Duration = Duration::from_millis(400);

/// Interval of the quarantine sweep.
const QUARANTINE_PERIOD: Duration = Duration::from_secs(10);

/// Number of updates that are processed before the next decision.
const BATCH: usize = 1024;
