//! All subsystems without Kubernetes: reads manifests from a directory, keeps addresses in a state file, and announces.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use metallb_core::announcement::Touched;
use metallb_core::assignment::{Assigner, AssignmentState, EventKind};
use metallb_core::config::{Config, ConfigStore, POOL_GRACE, Parsed, Problem, Severity};
use metallb_core::model::{ALLOCATED_FROM, Ingress, Service, ServiceKey};
use metallb_core::plan::settle;
use metallb_membership::driver as membership;
use notify::Watcher as _;
use tokio::sync::mpsc;

use self::state::StateFile;
pub use self::state::{ServiceState, State, load_state};
use crate::announcer::{Announcer, Changes, Conflict, Identity, Obstacle};
use crate::exclusion;
use crate::process::admin::Admin;
use crate::process::listen::Listen;
use crate::process::{AnnounceSettings, Process, ProcessError, Threads, log_problem};
use crate::source::manifests::Strictness;
use crate::source::manifests::directory::{Directory, Fingerprint, Reading, Stored};
use crate::source::world::World;

mod state;

/// Settings of standalone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the manifests.
    pub manifests: PathBuf,
    /// The treatment of unknown fields of manifests.
    pub strictness: Strictness,
    /// File that stores the assigned addresses.
    pub state: PathBuf,
    /// Addresses of probes, metrics and status.
    pub listen: Vec<Listen>,
    /// Settings of the announcements.
    pub announce: AnnounceSettings,
    /// Addresses of the other nodes, without a port for the membership port; empty for the addresses of the Nodes.
    pub join: Vec<(IpAddr, Option<u16>)>,
}

struct Standalone {
    settings: Settings,
    directory: Directory,
    /// When to read the manifests although nothing changed.
    look_again: Option<Instant>,
    assigner: Assigner,
    store: ConfigStore,
    config: Config,
    announcer: Announcer,
    admin: Admin,
    state: State,
    state_file: StateFile,
    /// Whether the state file contains `state`.
    is_stored: bool,
    last_world: Option<World>,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// A cause that prevents the start. Later errors, such as a broken manifest, are logged.
pub fn run(settings: Settings) -> Result<(), ProcessError> {
    Process::run(Threads::Two, async |mut process| {
        let mut status_requests = process.admin.status.on_request();
        process.admin.readiness.expect("manifests read");
        process.serve(settings.listen.iter().copied())?;
        let (state_file, stored) = StateFile::open(&settings.state)?;
        let _only_one = claim_node(&settings)?;

        let (changed, mut changes) = mpsc::channel::<()>(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !is_change(event.kind)) {
                return;
            }
            // A full queue means that the manifests are about to be read anyway.
            let _ = changed.try_send(());
        })?;
        let mut watch = Watch { path: settings.manifests.clone(), watcher, seen: Fingerprint::default() };
        watch.look();

        let (events, mut peer_events) = mpsc::channel(256);
        let announce = &settings.announce;
        let identity = Identity {
            node: announce.node.as_str().into(),
            class: announce.class.clone(),
            exclude_label: announce.exclude_label,
            probe: announce.probe,
        };
        let filter = exclusion::load(&announce.exclude_interfaces)?;
        let mut announcer =
            Announcer::start(identity, filter, process.admin.metrics.clone(), events, crate::sys::seed())?;
        if let Some(address) = announce.bgp_listen {
            announcer.listen(address).map_err(ProcessError::io(format!("cannot listen on {address}")))?;
        }
        let membership = match &announce.membership {
            Some(settings) => Some((announcer.gossip(settings)?, settings.bind)),
            None => None,
        };
        let state = State { node: announce.node.clone(), ..stored };
        let directory = Directory::new(&settings.manifests, settings.strictness, &state.manifests);
        let assigner = Assigner::new(announce.class.as_deref());
        let mut standalone = Standalone {
            settings,
            directory,
            look_again: None,
            assigner,
            store: ConfigStore::new().with_grace(POOL_GRACE),
            config: Config::default(),
            announcer,
            admin: process.admin.clone(),
            state,
            state_file,
            is_stored: false,
            last_world: None,
        };
        standalone.recall();
        standalone.reload()?;
        standalone.admin.readiness.set("manifests read", true);
        // Join only after the first configuration was applied.
        let mut seed_nodes = None;
        if let Some((members, bind)) = &membership {
            standalone.join(members, *bind, &mut seed_nodes);
        }
        let pulse = process.admin.watchdog.watch("standalone", Instant::now());
        let mut tick = tokio::time::interval(REFRESH);
        let mut look = tokio::time::interval(LOOK);
        let mut hangup = process.hangup();
        loop {
            pulse.beat(Instant::now());
            // A reload follows an event of the kernel, a difference that a look finds, a signal, or a grace time.
            let is_due = tokio::select! {
                () = process.stop_requested() => break,
                Some(()) = changes.recv() => {
                    // Editors write in several steps: wait until they have finished.
                    tokio::time::sleep(SETTLE).await;
                    while changes.try_recv().is_ok() {}
                    watch.look();
                    true
                }
                _ = look.tick() => watch.look() || standalone.look_again.is_some_and(|at| at <= Instant::now()),
                Ok(()) = hangup.changed() => {
                    tracing::info!(event = "reload", "SIGHUP: reading all manifests again");
                    true
                }
                () = membership::changed(membership.as_ref().map(|(members, _)| members)) => {
                    standalone.follow_members();
                    false
                }
                // These events change nothing that is stored.
                Some(event) = peer_events.recv() => {
                    standalone.announcer.note_peer_event(&event);
                    false
                }
                Some(reply) = status_requests.recv() => {
                    drop(reply.send(standalone.status()));
                    false
                }
                _ = tick.tick() => {
                    standalone.refresh();
                    standalone.end_grace();
                    false
                }
            };
            if !is_due {
                continue;
            }
            if let Err(error) = standalone.reload() {
                tracing::error!(
                    cause = std::error::Error::source(&error).map(tracing::field::display),
                    %error, event = "manifestsUnreadable", "cannot read the manifests, the last ones stay in force"
                );
            }
            if let Some((members, bind)) = &membership {
                standalone.join(members, *bind, &mut seed_nodes);
            }
        }
        tracing::info!(event = "shutdown", "shutting down: stopping ARP/NDP replies, closing BGP sessions");
        standalone.hand_over();
        standalone.announcer.drain(standalone.settings.announce.drain_time, process.stop_requested()).await;
        standalone.announcer.shutdown(true).await;
        process.finish();
        Ok(())
    })
}

impl Standalone {
    /// Puts the last good forms of the configuration into force that an earlier process stored. Secrets are not stored,
    /// so the present ones count.
    fn recall(&mut self) {
        let mut world = self.directory.last_good();
        if world.resources.peers.iter().any(|peer| !peer.password_secret.is_empty()) {
            let mut present = Directory::new(&self.settings.manifests, self.settings.strictness, &Stored::default());
            let reading = present.read(Instant::now());
            world.resources.secrets = reading.map(|reading| reading.world.resources.secrets).unwrap_or_default();
        }
        self.store.update(&world.resources, &world.cluster);
    }

    /// Reads all manifests and updates assignments and announcements.
    fn reload(&mut self) -> Result<(), ProcessError> {
        let Reading { mut world, mut problems, look_again } = self.directory.read(Instant::now())?;
        self.look_again = look_again;
        self.restore(&mut world);
        let now = Instant::now();
        let Parsed { config, problems: found } = self.store.update_at(&world.resources, &world.cluster, now);
        self.directory.accept(&found);
        self.state.manifests = self.directory.stored();
        problems.extend(found);
        self.report(&problems);
        self.assign(&config, &mut world);
        self.config = config;
        let missing = self.announcer.missing_node(&world.cluster);
        if let Some(text) = missing.as_ref().filter(|text| !self.state.problems.contains(text)) {
            tracing::warn!(event = "nodeMissing", "{text}");
        }
        self.last_world = Some(world);
        self.state.problems = problems.iter().map(ToString::to_string).chain(missing).collect();
        if let Some(world) = &self.last_world {
            let changes = self.announcer.apply(&self.config, &world.cluster, Touched::Everything);
            self.announced(changes);
        }
        Ok(())
    }

    /// Decides again when the grace time of a deleted pool is over.
    fn end_grace(&mut self) {
        let is_over = self.store.next_deadline().is_some_and(|deadline| deadline <= Instant::now());
        // Manifests that cannot be read are reported when they change; until then the grace time goes on.
        if is_over && let Err(error) = self.reload() {
            tracing::debug!(%error, event = "manifestsUnreadable", "cannot read the manifests, trying again");
        }
    }

    /// Passes the addresses of possible members to the membership driver if they changed.
    fn join(&self, members: &membership::Handle, bind: SocketAddr, known: &mut Option<Vec<SocketAddr>>) {
        let nodes = self.last_world.iter().flat_map(|world| world.cluster.nodes.values());
        let addresses = nodes.flat_map(|node| node.addresses.iter().copied());
        let seed_nodes = seed_nodes(&self.settings.join, bind, addresses);
        if known.as_ref() != Some(&seed_nodes) {
            members.join(seed_nodes.clone());
            *known = Some(seed_nodes);
        }
    }

    fn follow_members(&mut self) {
        if let Some(world) = &self.last_world {
            let changes = self.announcer.apply(&self.config, &world.cluster, Touched::Live);
            self.announced(changes);
        }
    }

    /// Reports announcements that began, ended or failed, and stores the present ones.
    fn announced(&mut self, changes: Changes) {
        self.announcer.log_transitions(&changes.transitions);
        self.note_announced();
        self.is_stored = false;
        self.store();
    }

    /// Copies what this node announces into the state.
    fn note_announced(&mut self) {
        let announced = self.announcer.announced();
        for service in &mut self.state.services {
            let key = ServiceKey::new(&service.namespace, &service.name);
            service.l2 = self.announcer.answers_any(&key);
            let peers = announced.bgp.get(&key).map(|(_, peers)| peers);
            service.bgp = peers.into_iter().flat_map(|peers| peers.iter()).map(ToString::to_string).collect();
        }
    }

    /// Hands all addresses of this node over to other speakers.
    fn hand_over(&mut self) {
        if let Some(world) = &self.last_world {
            self.announcer.hand_over(&self.config, &world.cluster);
        }
    }

    /// Adds the assigned addresses from the state file, because manifests have no status.
    fn restore(&self, world: &mut World) {
        for held in &self.state.services {
            let key = ServiceKey::new(&held.namespace, &held.name);
            if let Some(service) = world.cluster.services.get_mut(&key).filter(|service| service.ingress.is_empty()) {
                service.ingress = held.ips.iter().copied().map(Ingress::from).collect();
                let pool = held.pool.iter().map(|pool| (ALLOCATED_FROM.to_owned(), pool.clone()));
                service.annotations.extend(pool);
            }
        }
    }

    fn assign(&mut self, config: &Config, world: &mut World) {
        self.assigner.set_config(config);
        self.assigner.set_quarantined(&world.cluster.quarantined);
        let known: Vec<ServiceKey> =
            self.last_world.iter().flat_map(|world| world.cluster.services.keys().cloned()).collect();
        for key in known.iter().filter(|key| !world.cluster.services.contains_key(*key)) {
            self.assigner.forget(key);
        }
        let read: Vec<&Service> = world.order.iter().filter_map(|key| world.cluster.services.get(key)).collect();
        let outcomes = settle(&mut self.assigner, &read);
        let mut states = BTreeMap::new();
        for (key, outcome) in outcomes {
            if outcome.state == AssignmentState::Ignored {
                continue;
            }
            for event in &outcome.events {
                let service = key.to_string();
                match event.kind {
                    EventKind::Warning => tracing::warn!(service, event = event.reason, "{}", event.message),
                    EventKind::Normal => tracing::info!(service, event = event.reason, "{}", event.message),
                }
            }
            if let Some(stored) = world.cluster.services.get_mut(&key) {
                stored.ingress = outcome.ips.iter().copied().map(Ingress::from).collect();
            }
            let state = ServiceState {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                state: if outcome.state == AssignmentState::Assigned { "assigned" } else { "pending" }.to_owned(),
                pool: outcome.pool.map(|pool| pool.to_string()),
                ips: outcome.ips,
                reason: outcome.message,
                ..ServiceState::default()
            };
            states.insert(key, state);
        }
        self.state.services = states.into_values().collect();
        let metrics = &self.admin.metrics.allocator;
        for name in config.pools.keys() {
            let Some(counters) = self.assigner.allocator().counters(name) else { continue };
            crate::metrics::set_pool(metrics, name.as_str(), &counters);
        }
    }

    /// Reports each problem once, when it appears.
    fn report(&mut self, problems: &[Problem]) {
        let errors = problems.iter().any(|problem| problem.severity == Severity::Error);
        let client = &self.admin.metrics.client;
        client.config_loaded.set(1);
        client.config_stale.set(errors.into());
        for problem in problems.iter().filter(|problem| !self.state.problems.contains(&problem.to_string())) {
            log_problem(problem);
        }
    }

    fn refresh(&mut self) {
        self.announcer.refresh_metrics();
        self.announcer.tidy();
        for Conflict { ip, text, .. } in self.announcer.take_conflicts() {
            tracing::warn!(%ip, event = "addressConflict", "{text}");
        }
        for Obstacle { ip, kind, text } in self.announcer.take_obstacles() {
            tracing::warn!(%ip, event = kind.reason(), "{text}");
        }
        let answered: Vec<bool> = self.state.services.iter().map(|service| service.l2).collect();
        self.note_announced();
        self.is_stored &= self.state.services.iter().map(|service| service.l2).eq(answered);
        self.store();
    }

    /// Writes the state file if the state changed.
    fn store(&mut self) {
        if self.is_stored {
            return;
        }
        self.is_stored = self.state_file.save(&self.state).is_ok();
    }

    /// Builds the `/status` document.
    fn status(&self) -> serde_json::Value {
        let State { node, services, problems, .. } = &self.state;
        let clashes = self.announcer.surroundings();
        let unstored = self.state_file.problem();
        let problems: Vec<&String> = problems.iter().chain(&clashes).chain(&unstored).collect();
        let silent = self.last_world.as_ref().map(|world| self.announcer.silent(&self.config, &world.cluster));
        serde_json::json!({
            "node": node, "services": services, "peers": self.announcer.peers(), "problems": problems,
            "refused": self.announcer.refused(), "rivals": self.announcer.rivals(), "silent": silent,
        })
    }
}

/// Addresses of possible members for a node at `bind`: from the command line, or else from the Nodes.
fn seed_nodes(
    join: &[(IpAddr, Option<u16>)],
    bind: SocketAddr,
    nodes: impl Iterator<Item = IpAddr>,
) -> Vec<SocketAddr> {
    let port = bind.port();
    if !join.is_empty() {
        return join.iter().map(|&(ip, own)| SocketAddr::new(ip, own.unwrap_or(port))).collect();
    }
    nodes.filter(|ip| ip.is_ipv4() == bind.is_ipv4()).map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Whether an event may have changed a manifest. Opening and reading do not count: our own reads would loop.
const fn is_change(kind: notify::EventKind) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    !matches!(kind, EventKind::Access(_)) || matches!(kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

/// Follows a directory: events of the kernel for speed, and a look every [`LOOK`] for certainty. The kernel watches an
/// inode, so a watch on a directory that was replaced is set again.
struct Watch {
    path: PathBuf,
    watcher: notify::RecommendedWatcher,
    seen: Fingerprint,
}

impl Watch {
    /// Whether something changed since the last look.
    fn look(&mut self) -> bool {
        let now = Fingerprint::of(&self.path);
        if now == self.seen {
            return false;
        }
        if now.identity() != self.seen.identity() {
            // Errors are harmless: the looks go on.
            let _ = self.watcher.unwatch(&self.path);
            let _ = self.watcher.watch(&self.path, notify::RecursiveMode::NonRecursive);
        }
        self.seen = now;
        true
    }
}

/// Claims the node name together with the directory, in this network namespace: two processes of one node would both
/// answer for its addresses. The kernel frees the name when the process ends.
fn claim_node(settings: &Settings) -> Result<UnixListener, ProcessError> {
    let directory = std::fs::canonicalize(&settings.manifests).unwrap_or_else(|_| settings.manifests.clone());
    let node = &settings.announce.node;
    let mut name = DefaultHasher::new();
    (&directory, node).hash(&mut name);
    let what = || format!("the node name {node} with the manifests in {}", directory.display());
    std::os::unix::net::SocketAddr::from_abstract_name(format!("metallb-standalone-{:016x}", name.finish()))
        .and_then(|address| UnixListener::bind_addr(&address))
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => ProcessError::InUse { what: what() },
            _ => ProcessError::Io { what: format!("cannot claim {}", what()), source: error },
        })
}

/// Interval of updating counters and peers.
const REFRESH: Duration = Duration::from_secs(1);

/// Interval of looking for changes of which the kernel reports nothing.
const LOOK: Duration = Duration::from_millis(500);

/// Longest wait for the end of a change of the manifests.
const SETTLE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::source::manifests::Manifests;

    #[test]
    fn reading_the_manifests_is_no_change_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        let (seen, changes) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_change(event.kind)) {
                let _ = seen.send(());
            }
        })
        .unwrap();
        watcher.watch(directory.path(), notify::RecursiveMode::NonRecursive).unwrap();
        std::fs::read(&file).unwrap();
        assert!(changes.recv_timeout(Duration::from_millis(300)).is_err());
        std::fs::write(&file, "b").unwrap();
        assert!(changes.recv_timeout(Duration::from_secs(10)).is_ok());
    }

    #[test]
    fn other_speakers_are_looked_for_where_nodes_are_unless_the_command_line_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let addresses = "[{type: InternalIP, address: 10.0.0.1}, {type: InternalIP, address: 'fd00::1'}, \
                         {type: ExternalIP, address: 192.0.2.1}, {type: Hostname, address: n1}]";
        let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: n1}}\nstatus: {{addresses: {addresses}}}\n");
        std::fs::write(directory.path().join("node.yaml"), node).unwrap();
        let (world, _) = Manifests::read(&[directory.path().to_owned()]).unwrap().world();
        let seed_nodes = |bind: &str, join: &[(&str, Option<u16>)]| {
            let join: Vec<_> = join.iter().map(|(ip, port)| (ip.parse().unwrap(), *port)).collect();
            let addresses = world.cluster.nodes.values().flat_map(|node| node.addresses.iter().copied());
            let seed_nodes = seed_nodes(&join, bind.parse().unwrap(), addresses);
            seed_nodes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(seed_nodes("10.0.0.9:7946", &[]), ["10.0.0.1:7946"]);
        assert_eq!(seed_nodes("[fd00::9]:7000", &[]), ["[fd00::1]:7000"]);
        assert_eq!(
            seed_nodes("10.0.0.9:7946", &[("10.0.0.2", None), ("10.0.0.3", Some(80))]),
            ["10.0.0.2:7946", "10.0.0.3:80"]
        );
    }
}
