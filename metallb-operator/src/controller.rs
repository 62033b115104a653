//! Gives addresses to Services of a cluster: follows the API, decides with `metallb-core`, writes status and Events.

mod membership_key;
mod quarantine;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service as KubeService;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use metallb_core::assignment::{Assigner, EventKind, Outcome, StatusWrite, processing_order};
use metallb_core::config::{Config, ConfigStore, Parsed, Problem, Severity};
use metallb_core::model::{ALLOCATED_FROM, PoolName, ServiceKey};
use serde_json::json;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

use self::quarantine::Quarantine;
use crate::admin::Admin;
use crate::api::{IpAddressPool, IpAddressPoolStatus};
use crate::cli::controller::ControllerArgs;
use crate::feed::{Feed, Role, Touched, Update};
use crate::kubernetes::client;
use crate::kubernetes::configuration_state::{Component, ConfigurationReporter};
use crate::kubernetes::events::{self, EventSender, Notice, Severity as NoticeSeverity};
use crate::kubernetes::lease::{Identity, Leadership, LeaseKeeper, LeaseSettings};

/// Why the controller does not run.
#[derive(Debug, Error)]
pub enum ControllerError {
    /// There is no way to reach the API server.
    #[error("no configuration for the Kubernetes API")]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be built.
    #[error("the Kubernetes client can't be built")]
    Client(#[from] kube::Error),
    /// Something of the operating system failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

struct Controller {
    client: Client,
    feed: Feed,
    assigner: Assigner,
    store: ConfigStore,
    config: Config,
    admin: Admin,
    events: EventSender,
    leadership: Leadership,
    /// Writes under way: the same one is not started twice.
    in_flight: BTreeMap<ServiceKey, StatusWrite>,
    done: mpsc::UnboundedSender<Written>,
    permits: Arc<Semaphore>,
    problems: BTreeSet<Problem>,
    reporter: ConfigurationReporter,
    pool_status: BTreeMap<PoolName, IpAddressPoolStatus>,
    /// What is out of circulation; `None` where that is not asked for.
    quarantine: Option<Quarantine>,
    loaded: bool,
    namespace: String,
}

/// The end of a write.
struct Written {
    key: ServiceKey,
    ok: bool,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// What cannot work from the start. An API server that is away later changes nothing.
pub fn run(args: &ControllerArgs) -> Result<(), ControllerError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| ControllerError::Io { what, source }
    };
    let runtime = tokio::runtime::Runtime::new().map_err(io("the runtime can't be started"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(io("SIGTERM can't be handled"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io("SIGINT can't be handled"))?;
        let config = kube::Config::infer().await?;
        let client = client::with_deadlines(config.clone())?;
        let namespace = args.cluster.namespace();
        let admin = Admin::new();
        admin.readiness.expect("caches synced");
        let (stop, stopped) = watch::channel(false);
        for address in args.admin.addresses(ControllerArgs::PROBE_HOST) {
            let listener =
                tokio::net::TcpListener::bind(address).await.map_err(io(&format!("{address} can't be listened on")))?;
            tokio::spawn(admin.clone().serve_on(listener, stopped.clone()));
        }
        let settings = LeaseSettings {
            namespace: namespace.clone(),
            name: "metallb-controller".to_owned(),
            identity: Identity::new(&args.cluster.pod_name, args.lease.pod_uid()),
            timing: args.lease.timing(),
        };
        let (keeper, mut leadership) =
            LeaseKeeper::start(config, settings).map_err(io("the thread that keeps the Lease can't be started"))?;
        let (events, _writer) = events::spawn(client.clone(), "metallb-controller");
        if !args.ml_secret_name.is_empty() {
            tokio::spawn(membership_key::ensure(client.clone(), namespace.clone(), args.ml_secret_name.clone()));
        }
        let reporter =
            ConfigurationReporter::spawn(client.clone(), &namespace, &args.cluster.pod_name, Component::Controller);
        let role = if args.quarantine_conflicts { Role::Quarantine } else { Role::Controller };
        let (feed, mut updates) = Feed::start(&client, &namespace, role);
        let (done, mut written) = mpsc::unbounded_channel();
        let mut controller = Controller {
            client,
            feed,
            assigner: Assigner::new(args.cluster.lb_class()),
            store: ConfigStore::new(),
            config: Config::default(),
            admin,
            events,
            leadership: leadership.clone(),
            in_flight: BTreeMap::new(),
            done,
            permits: Arc::new(Semaphore::new(WRITERS)),
            problems: BTreeSet::new(),
            reporter,
            pool_status: BTreeMap::new(),
            quarantine: args.quarantine_conflicts.then(Quarantine::default),
            loaded: false,
            namespace,
        };
        let mut tick = tokio::time::interval(QUARANTINE_PERIOD);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                count = updates.recv_many(&mut batch, BATCH) => {
                    if count == 0 { break }
                    controller.take(batch.drain(..));
                }
                Some(end) = written.recv() => controller.finish(&end),
                _ = leadership.changed() => controller.everything(),
                _ = tick.tick(), if args.quarantine_conflicts => controller.look_at_conflicts(),
            }
        }
        tracing::info!("stopping");
        stop.send_replace(true);
        // The Lease is given back, so that a successor starts at once.
        keeper.release().await;
        Ok(())
    })
}

impl Controller {
    fn take(&mut self, updates: impl Iterator<Item = Update>) {
        let mut touched = Touched::default();
        for update in updates {
            self.feed.apply(update, &mut touched);
        }
        if !self.feed.is_complete() {
            return;
        }
        self.admin.readiness.set("caches synced", true);
        if !self.loaded
            && let Some(quarantine) = &mut self.quarantine
        {
            quarantine.adopt(self.feed.quarantined());
            self.assigner.set_quarantined(&quarantine.addresses());
        }
        if touched.config || !self.loaded {
            self.reload();
        } else {
            self.converge(touched.services);
        }
        if touched.conflicts {
            self.look_at_conflicts();
        }
    }

    /// Takes out of circulation what speakers say that other hosts use, and puts back what nobody said so of for long.
    fn look_at_conflicts(&mut self) {
        let (true, Some(quarantine)) = (self.loaded, &mut self.quarantine) else { return };
        let now = Timestamp::now();
        let mut changed = quarantine.expire(now);
        for conflict in self.feed.conflicts.values().flatten() {
            let Ok(ip) = conflict.ip.parse() else { continue };
            if self.assigner.allocator().pool_of(&[ip]).is_some() && quarantine.report(now, ip, &conflict.mac_address) {
                tracing::warn!(%ip, mac = conflict.mac_address, event = "addressQuarantined", "another host uses this address");
                changed = true;
            }
        }
        if changed {
            self.assigner.set_quarantined(&quarantine.addresses());
            self.everything();
        }
    }

    /// The configuration changed: all valid holders claim, then everybody is looked at.
    fn reload(&mut self) {
        let world = &self.feed.world;
        let Parsed { config, problems } = self.store.update(&world.resources, &world.cluster);
        self.report(problems);
        if self.loaded && config.pools == self.config.pools {
            self.config = config;
            return;
        }
        self.loaded = true;
        self.config = config;
        self.everything();
    }

    fn everything(&mut self) {
        if !self.loaded {
            return;
        }
        self.assigner.set_config(&self.config);
        let mut queue: Vec<_> = self.feed.world.cluster.services.values().collect();
        queue.sort_by(|a, b| processing_order(a, b));
        for service in &queue {
            self.assigner.claim(service);
        }
        let keys: Vec<ServiceKey> = queue.into_iter().map(|service| service.key.clone()).collect();
        self.converge(keys);
    }

    fn converge(&mut self, keys: impl IntoIterator<Item = ServiceKey>) {
        let mut queue: std::collections::VecDeque<ServiceKey> = keys.into_iter().collect();
        let mut retried = BTreeSet::new();
        while let Some(key) = queue.pop_front() {
            self.admin.metrics.client.updates.inc();
            let retry = match self.feed.world.cluster.services.get(&key) {
                None => self.assigner.forget(&key),
                Some(service) => {
                    let outcome = self.assigner.converge(service);
                    self.carry_out(&key, &outcome);
                    outcome.retry
                }
            };
            // Each pending Service gets one more chance per round, however many addresses became free.
            queue.extend(retry.into_iter().filter(|key| retried.insert(key.clone())));
        }
        self.show_pools();
    }

    fn carry_out(&mut self, key: &ServiceKey, outcome: &Outcome) {
        if !self.leadership.standing().term.is_some() {
            return;
        }
        let repeated = outcome.write.is_some() && self.in_flight.get(key) == outcome.write.as_ref();
        if !repeated {
            let uid = self.feed.identity(key).map(|identity| identity.uid.to_string());
            for event in &outcome.events {
                let severity = match event.kind {
                    EventKind::Warning => NoticeSeverity::Warning,
                    EventKind::Normal => NoticeSeverity::Normal,
                };
                self.events.send(Notice::about_service(
                    key,
                    uid.clone(),
                    severity,
                    event.reason,
                    event.message.clone(),
                ));
            }
        }
        let Some(write) = &outcome.write else { return };
        if self.in_flight.contains_key(key) {
            // The end of the write under way brings the Service back here.
            return;
        }
        tracing::info!(service = %key, ips = ?write.ips, pool = write.pool.as_ref().map(PoolName::as_str), reason = outcome.reason.as_str(), "status changes");
        self.in_flight.insert(key.clone(), write.clone());
        let services: Api<KubeService> = Api::namespaced(self.client.clone(), key.namespace.as_str());
        let version = self.feed.identity(key).map(|identity| identity.version.to_string());
        let (key, write, done, permits) = (key.clone(), write.clone(), self.done.clone(), Arc::clone(&self.permits));
        tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            let ok = match write_status(&services, &key, &write, version).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(service = %key, %error, "status could not be written, retrying");
                    tokio::time::sleep(RETRY).await;
                    false
                }
            };
            // The receiver is gone only when the process ends.
            let _ = done.send(Written { key, ok });
        });
    }

    fn finish(&mut self, end: &Written) {
        self.in_flight.remove(&end.key);
        if !end.ok {
            self.admin.metrics.client.update_errors.inc();
            self.converge([end.key.clone()]);
        }
    }

    fn report(&mut self, problems: Vec<Problem>) {
        let problems: BTreeSet<Problem> = problems.into_iter().collect();
        let client = &self.admin.metrics.client;
        client.config_loaded.set(1);
        client.config_stale.set(problems.iter().any(|problem| problem.severity == Severity::Error).into());
        for problem in problems.difference(&self.problems) {
            tracing::error!(object = %problem.object, field = problem.field, code = problem.code.as_str(), "{}", problem.message);
            if self.leadership.standing().term.is_some() {
                self.events.send(Notice::about_problem(problem));
            }
        }
        self.reporter.report(&problems);
        self.problems = problems;
    }

    /// Counters of the pools, to the metrics and to their status.
    fn show_pools(&mut self) {
        for name in self.config.pools.keys() {
            let Some(counters) = self.assigner.allocator().counters(name) else { continue };
            crate::metrics::set_pool(&self.admin.metrics.allocator, name.as_str(), &counters);
            let status = IpAddressPoolStatus {
                assigned_ipv4: counters.assigned_v4,
                assigned_ipv6: counters.assigned_v6,
                available_ipv4: counters.available_v4,
                available_ipv6: counters.available_v6,
                quarantined: self.quarantine.as_ref().map_or_else(Vec::new, |quarantine| {
                    let is_inside =
                        |ip| self.assigner.allocator().pool_of(&[ip]).is_some_and(|pool| pool.name == *name);
                    quarantine.listed(is_inside)
                }),
            };
            if !self.leadership.standing().term.is_some() || self.pool_status.get(name) == Some(&status) {
                continue;
            }
            self.pool_status.insert(name.clone(), status.clone());
            let pools: Api<IpAddressPool> = Api::namespaced(self.client.clone(), &self.namespace);
            let (name, permits) = (name.to_string(), Arc::clone(&self.permits));
            tokio::spawn(async move {
                let _permit = permits.acquire_owned().await;
                let mut patch = json!({ "status": status });
                if status.quarantined.is_empty() {
                    // What an earlier controller left there goes.
                    patch["status"]["quarantined"] = serde_json::Value::Null;
                }
                let patch = Patch::Merge(patch);
                if let Err(error) = pools.patch_status(&name, &PatchParams::default(), &patch).await {
                    tracing::debug!(pool = name, %error, "pool status could not be written");
                }
            });
        }
    }
}

/// One patch writes status and annotation; the version makes it fail when somebody was quicker.
async fn write_status(
    services: &Api<KubeService>,
    key: &ServiceKey,
    write: &StatusWrite,
    version: Option<String>,
) -> Result<(), kube::Error> {
    let ingress: Vec<_> = write.ips.iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
    let ingress = if ingress.is_empty() { json!(null) } else { json!(ingress) };
    let patch = json!({
        "metadata": {
            "resourceVersion": version,
            "annotations": { ALLOCATED_FROM: write.pool.as_ref().map(PoolName::as_str) },
        },
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    match services.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile: the watch says so too.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// How often it is looked whether an address can be handed out again.
const QUARANTINE_PERIOD: Duration = Duration::from_secs(10);

/// Writes to the API server at the same time.
const WRITERS: usize = 16;

/// The pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Updates that are taken in before anything is decided.
const BATCH: usize = 1024;
