//! Announces from one node of a cluster: follows the API, decides with `metallb-core`, sends packets, writes statuses
//! and Events.

mod own_problems;
mod pace;
mod seed_nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use metallb_core::announcement::Touched as Announce;
use metallb_core::config::spec::Resources;
use metallb_core::config::{Config, ConfigStore, POOL_GRACE, Parsed, Problem, Severity};
use metallb_core::model::ServiceKey;
use metallb_l2::interface::MacAddr;
use metallb_membership::driver as membership;
use tokio::sync::mpsc;

use self::pace::Pace;
use crate::announcer::{Announcer, Changes, Conflict, Identity, Obstacle, TransitionKind};
use crate::client;
use crate::exclusion;
use crate::index::{Index, Relist, Role, Touched, Update};
use crate::process::admin::Admin;
use crate::process::listen::Listen;
use crate::process::{AnnounceSettings, Process, ProcessError, Threads, log_problem};
use crate::sink::announcement_status::{AddressChecks, StatusWriter};
use crate::sink::configuration_state::{Component, ConfigurationReporter};
use crate::sink::events::{self, Event, EventSender, EventType};
use crate::sink::lease::LEASE;
use crate::source::last_good::Recall;
use crate::source::restore;
use crate::sys;

/// Settings of a speaker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the configuration objects.
    pub namespace: String,
    /// Name of the Pod, the owner of status objects; empty outside of a Pod.
    pub pod: String,
    /// Addresses of metrics and probes.
    pub listen: Vec<Listen>,
    /// Settings of the announcements.
    pub announce: AnnounceSettings,
    /// Label selector of the speaker Pods, for membership.
    pub members: String,
}

struct Speaker {
    node: String,
    index: Index,
    /// Changes that did not take effect yet.
    touched: Touched,
    pace: Pace,
    store: ConfigStore,
    config: Config,
    loaded: bool,
    /// The stored forms of the configuration were not read yet: nothing is announced.
    awaits_recall: bool,
    announcer: Announcer,
    admin: Admin,
    events: EventSender,
    statuses: StatusWriter,
    /// Foreign hosts that use addresses, with the time of the last observation.
    conflicts: BTreeMap<IpAddr, (MacAddr, Instant)>,
    refused: BTreeMap<IpAddr, String>,
    problems: BTreeSet<Problem>,
    reporter: ConfigurationReporter,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// A cause that prevents the start. An API server that becomes unreachable later ends no announcement.
pub fn run(settings: &Settings) -> Result<(), ProcessError> {
    Process::run(Threads::Two, async |mut process| {
        let (_, client) = client::connect().await?;
        let (namespace, announce) = (settings.namespace.clone(), &settings.announce);
        let mut status_requests = process.admin.status.on_request();
        process.admin.readiness.expect("caches synced");
        process.serve(settings.listen.iter().copied())?;
        let admin = process.admin.clone();
        let (peer_queue, mut peer_events) = mpsc::channel(256);
        let node = announce.node.clone();
        let identity = Identity {
            node: node.as_str().into(),
            class: announce.class.clone(),
            exclude_label: announce.exclude_label,
            probe: announce.probe,
        };
        let filter = exclusion::load(&announce.exclude_interfaces)?;
        let mut announcer = Announcer::start(identity, filter, admin.metrics.clone(), peer_queue, sys::seed())?;
        if let Some(address) = announce.bgp_listen {
            announcer.listen(address).map_err(ProcessError::io(format!("cannot listen on {address}")))?;
        }
        let members = match &announce.membership {
            Some(settings) => Some((announcer.gossip(settings)?, settings.bind.port())),
            None => None,
        };
        let (events, _writer) = events::spawn(client.clone(), "metallb-speaker");
        let statuses = StatusWriter::spawn(&client, &namespace, &node, &settings.pod);
        let component = Component::Speaker { node: node.clone() };
        let reporter = ConfigurationReporter::spawn(client.clone(), &namespace, &settings.pod, component);
        let mut recall = Recall::start(&client, &namespace);
        let (index, mut updates) = Index::start(&client, &namespace, Role::Speaker);
        let mut speaker = Speaker {
            node,
            index,
            touched: Touched::default(),
            pace: Pace::new(Instant::now()),
            store: ConfigStore::new().with_grace(POOL_GRACE),
            awaits_recall: true,
            config: Config::default(),
            loaded: false,
            announcer,
            admin,
            events,
            statuses,
            conflicts: BTreeMap::new(),
            refused: BTreeMap::new(),
            problems: BTreeSet::new(),
            reporter,
        };
        let mut restores = restore::spawn(client.clone(), &namespace, LEASE);
        let pulse = process.admin.watchdog.watch("speaker", Instant::now());
        let mut tick = tokio::time::interval(REFRESH);
        let mut batch = Vec::new();
        let mut joining = members.as_ref().map(|(members, port)| {
            seed_nodes::SeedNodes::new(client.clone(), &namespace, &settings.members, members.clone(), *port)
        });
        let members = members.map(|(members, _)| members);
        loop {
            pulse.beat(Instant::now());
            let grace_ends = speaker.store.next_deadline();
            let is_complete = speaker.index.is_complete();
            if is_complete {
                recall.hurry(Instant::now());
            }
            // Join only after the first configuration was applied.
            if speaker.loaded
                && let Some(joining) = joining.take()
            {
                tokio::spawn(joining.run());
            }
            tokio::select! {
                () = process.stop_requested() => break,
                count = updates.recv_many(&mut batch, BATCH) => {
                    if count == 0 { break }
                    speaker.take(batch.drain(..));
                }
                () = sys::sleep_until(speaker.due()) => speaker.proceed(),
                good = recall.next() => speaker.recalled(good),
                () = sys::sleep_until(grace_ends), if is_complete && !speaker.touched.config => speaker.end_grace(),
                () = membership::changed(members.as_ref()) => speaker.follow_members(),
                Ok(()) = restores.changed() => {
                    speaker.index.relist(Relist::Forget);
                }
                Some(event) = peer_events.recv() => speaker.announcer.note_peer_event(&event),
                Some(reply) = status_requests.recv() => drop(reply.send(speaker.status())),
                _ = tick.tick() => speaker.refresh(),
            }
        }
        tracing::info!(event = "shutdown", "shutting down: stopping ARP/NDP replies, closing BGP sessions");
        speaker.announcer.hand_over(&speaker.config, speaker.index.cluster());
        speaker.announcer.drain(announce.drain_time, process.stop_requested()).await;
        speaker.announcer.shutdown(true).await;
        process.finish();
        Ok(())
    })
}

impl Speaker {
    fn take(&mut self, updates: impl Iterator<Item = Update>) {
        let touched = self.index.apply(updates);
        self.touched.merge(touched);
        self.proceed();
    }

    /// Processes the changes that may take effect now.
    fn proceed(&mut self) {
        if !self.index.is_complete() || self.awaits_recall {
            return;
        }
        let touched = if self.loaded {
            self.pace.admit(&mut self.touched, Instant::now())
        } else {
            std::mem::take(&mut self.touched)
        };
        self.admin.readiness.set("caches synced", true);
        if touched.config || !self.loaded {
            let (resources, cluster) = (self.index.resources(), self.index.cluster());
            let Parsed { config, problems } = self.store.update_at(resources, cluster, Instant::now());
            self.report(problems);
            self.config = config;
            self.loaded = true;
            let services = Announce::Configuration(&touched.services);
            let changes = self.announcer.apply(&self.config, self.index.cluster(), services);
            self.announced(changes);
        } else if touched.services.is_empty() {
            // A change of a node is one of the configuration.
            return;
        } else {
            let cluster = self.index.cluster();
            let changes = self.announcer.apply(&self.config, cluster, Announce::Services(&touched.services));
            self.announced(changes);
        }
        self.admin.metrics.client.updates.inc();
    }

    /// When a change that waits may take effect.
    fn due(&self) -> Option<Instant> {
        // An incomplete picture becomes complete by an update, which is processed anyway.
        self.pace.next_due(&self.touched).filter(|_| self.index.is_complete() && !self.awaits_recall)
    }

    /// Takes the stored forms of the configuration, if there are any, and begins to announce.
    fn recalled(&mut self, good: Option<Resources>) {
        if let Some(good) = good {
            self.store.recall(good);
        }
        self.awaits_recall = false;
        self.take(std::iter::empty());
    }

    /// The grace time of a deleted pool is over.
    fn end_grace(&mut self) {
        self.touched.config = true;
        self.take(std::iter::empty());
    }

    fn follow_members(&mut self) {
        if self.loaded {
            let changes = self.announcer.apply(&self.config, self.index.cluster(), Announce::Live);
            self.announced(changes);
        }
    }

    fn announced(&mut self, changes: Changes) {
        self.announcer.log_transitions(&changes.transitions);
        let node = self.node.as_str();
        for transition in changes.transitions {
            match transition.kind {
                TransitionKind::Announcing(protocol) => {
                    let message = format!("announcing from node \"{node}\" with protocol \"{protocol}\"");
                    self.send_event(&transition.service, EventType::Normal, "nodeAssigned", message);
                }
                TransitionKind::Withdrawn(_) => {}
                TransitionKind::Failed(ip) => {
                    let interfaces = self.announcer.named_interfaces(&transition.service);
                    let message = format!(
                        "the interfaces specified by LB IP \"{ip}\" doesn't exist in assigned node \"{node}\" \
                         with protocol \"layer2\": its L2Advertisements name {interfaces}"
                    );
                    self.send_event(&transition.service, EventType::Warning, "announceFailed", message);
                }
            }
        }
        self.statuses.update(self.announcer.announced(), &changes.services);
    }

    fn send_event(&self, key: &ServiceKey, event_type: EventType, reason: &str, message: String) {
        let uid = self.index.identity(key).map(|identity| identity.uid.to_string());
        self.events.send(Event::about_service(key, uid, event_type, reason, message));
    }

    fn report(&mut self, problems: Vec<Problem>) {
        let problems: BTreeSet<Problem> = match self.index.cluster().nodes.get(self.node.as_str()) {
            Some(node) => own_problems::concerning(problems, self.index.resources(), &node.labels),
            None => problems.into_iter().collect(),
        };
        let client = &self.admin.metrics.client;
        client.config_loaded.set(1);
        client.config_stale.set(problems.iter().any(|problem| problem.severity == Severity::Error).into());
        for problem in problems.difference(&self.problems) {
            log_problem(problem);
            // The controller reports the other kinds, which it follows too.
            if matches!(problem.object.kind, "BGPPeer" | "BFDProfile") {
                self.events.send(Event::about_problem(problem, self.index.uid(&problem.object)));
            }
        }
        self.reporter.report(&problems, &[]);
        self.problems = problems;
    }

    fn refresh(&mut self) {
        self.announcer.refresh_metrics();
        self.announcer.tidy();
        let now = Instant::now();
        self.pace.tidy(now);
        let ended: Vec<IpAddr> = self
            .conflicts
            .extract_if(.., |_, (_, seen)| now.saturating_duration_since(*seen) >= CONFLICT_SHOWN)
            .map(|(ip, _)| ip)
            .collect();
        let mut news: BTreeSet<IpAddr> = ended.into_iter().collect();
        for Conflict { ip, mac, text } in self.announcer.take_conflicts() {
            let before = self.conflicts.insert(ip, (mac, now));
            if before.is_none_or(|(known, _)| known != mac) {
                news.insert(ip);
            }
            self.warn_holders(ip, "addressConflict", &text);
        }
        for Obstacle { ip, kind, text } in self.announcer.take_obstacles() {
            self.warn_holders(ip, kind.reason(), &text);
        }
        let refused = self.announcer.refused();
        if refused != self.refused {
            let before = std::mem::replace(&mut self.refused, refused);
            let differs = |ip: &&IpAddr| before.get(*ip) != self.refused.get(*ip);
            news.extend(before.keys().chain(self.refused.keys()).filter(differs));
        }
        if !news.is_empty() {
            let conflicts = self.conflicts.iter().map(|(ip, (mac, _))| (*ip, mac.to_string())).collect();
            let checks = AddressChecks { conflicts, refused: self.refused.clone() };
            self.statuses.update_checks(checks, |ips| ips.iter().any(|ip| news.contains(ip)));
        }
    }

    /// Reports a problem of an address to the Services that have it.
    fn warn_holders(&self, ip: IpAddr, reason: &'static str, text: &str) {
        tracing::warn!(%ip, event = reason, "{text}");
        let services = self.index.cluster().services.values();
        for service in services.filter(|service| service.ingress_ips().any(|held| held == Some(ip))) {
            self.send_event(&service.key, EventType::Warning, reason, text.to_owned());
        }
    }

    /// Builds the `/status` document.
    fn status(&self) -> serde_json::Value {
        let missing = self.announcer.missing_node(self.index.cluster()).filter(|_| self.loaded);
        let problems: Vec<String> =
            self.problems.iter().map(ToString::to_string).chain(missing).chain(self.announcer.surroundings()).collect();
        let announced = self.announcer.announced();
        let l2: Vec<String> =
            announced.l2.keys().filter(|key| self.announcer.answers_any(key)).map(ToString::to_string).collect();
        let bgp: Vec<String> = announced.bgp.keys().map(ToString::to_string).collect();
        serde_json::json!({
            "node": self.node, "l2": l2, "bgp": bgp, "peers": self.announcer.peers(), "problems": problems,
            "refused": self.refused, "rivals": self.announcer.rivals(),
            "silent": self.announcer.silent(&self.config, self.index.cluster()),
        })
    }
}

/// Interval of updating counters and conflicts.
const REFRESH: Duration = Duration::from_secs(1);

/// How long a conflict is shown after the last report; a lasting conflict is reported every thirty seconds.
const CONFLICT_SHOWN: Duration = Duration::from_secs(90);

/// Number of updates that are processed before the next decision.
const BATCH: usize = 1024;
