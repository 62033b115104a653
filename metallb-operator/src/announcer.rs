//! Carries out what this node announces: turns the decisions of `metallb-core` into calls of the protocol engines and
//! membership.
//!
//! `speaker` and `standalone` feed it. It decides nothing itself.

mod advice;
mod local;
mod obstacles;
mod peers;
mod unanswered;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metallb_bgp::io::{PeerConfig, PeerEvent, Speaker};
use metallb_bgp::session::{Event, Mode};
use metallb_bgp::types::Attributes;
use metallb_core::announcement::export::RouteAttributes;
use metallb_core::announcement::{self, AnnouncementChange, Assignment, Facts, NodeView, Ranked, Touched, Update};
pub use metallb_core::announcement::{Announced, L2Announcement, Protocol, Transition, TransitionKind};
use metallb_core::config::{Community, Config};
use metallb_core::election::LiveSpeakers;
use metallb_core::model::{Cluster, ExcludeLabel, NodeName, ServiceKey};
use metallb_l2::interface::{AddressChange, Announcement, MacAddr, Scope, Stance};
use metallb_l2::io::{Driver, InterfaceFilter, StartError};
use metallb_membership::driver as membership;
use metallb_membership::takeover::{Generation, Plan};
use tokio::sync::mpsc;

use self::obstacles::Obstacles;
pub use self::obstacles::{Obstacle, ObstacleKind};
pub use self::peers::{BfdPeerStatus, BfdTimers, EndedSession, NegotiatedStatus, PeerStatus};
use self::unanswered::{Unanswered, unanswered};
use crate::metrics::{L2Collector, Metrics, PeerCollector};
use crate::sys;

/// What this process is and may do.
#[derive(Clone)]
pub struct Identity {
    /// The node.
    pub node: NodeName,
    /// The load balancer class that is handled.
    pub class: Option<String>,
    /// Whether nodes with the exclude label take part.
    pub exclude_label: ExcludeLabel,
    /// Addresses that the cluster did not have are probed for before they are announced.
    pub probe: bool,
}

/// Announces what the view of this node decides.
pub struct Announcer {
    identity: Identity,
    view: NodeView,
    /// Membership, where speakers gossip. It is dropped before `l2`, which it commands.
    membership: Option<membership::Driver>,
    /// The live members of the last step.
    generation: Generation,
    l2: Driver,
    bgp: Speaker,
    /// Which end opens connections of BGP.
    mode: Mode,
    peer_configs: BTreeMap<Arc<str>, PeerConfig>,
    /// Why each peer that is down is down, as logged last.
    logged_down: BTreeMap<Arc<str>, String>,
    /// Which routes are withheld from each peer, as logged last.
    logged_withheld: BTreeMap<Arc<str>, Vec<String>>,
    /// Each set of attributes of routes once, as the BGP engine takes it.
    attributes: BTreeMap<RouteAttributes, Arc<Attributes>>,
    peer_series: Option<PeerCollector>,
    metrics: Metrics,
    obstacles: Obstacles,
    /// Hosts that use an address, with the time at which that was seen last.
    conflicts: BTreeMap<IpAddr, (String, Instant)>,
    /// Interfaces that were seen on one segment, in words. At most [`SEGMENTS_SHOWN`].
    segments: BTreeSet<String>,
    /// The number of scans for obstacles.
    looks: u32,
    /// Whether there was much to throw away since memory was given back.
    untidy: bool,
}

/// The Services whose announcement changed in a step, and how.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// What began, ended or failed.
    pub transitions: Vec<Transition>,
    /// The Services whose entry in [`Announced`] is another one now, or gone.
    pub services: BTreeSet<ServiceKey>,
}

/// A host outside of the cluster that uses an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// The address.
    pub ip: IpAddr,
    /// The host.
    pub mac: MacAddr,
    /// What was seen, in words.
    pub text: String,
}

/// Logs what began, ended or failed on `node`; `interfaces` are those that advertisements name. Of many changes at once
/// the successful ones are logged at level debug.
fn log_transition(transition: &Transition, node: &str, interfaces: &str, is_summed_up: bool) {
    let service = transition.service.to_string();
    match &transition.kind {
        TransitionKind::Announcing(protocol) if is_summed_up => {
            tracing::debug!(service, node, %protocol, event = "serviceAnnounced", "announcing");
        }
        TransitionKind::Withdrawn(protocol) if is_summed_up => {
            tracing::debug!(service, node, %protocol, event = "serviceWithdrawn", "withdrawn");
        }
        TransitionKind::Announcing(protocol) => {
            tracing::info!(service, node, %protocol, event = "serviceAnnounced", "announcing");
        }
        TransitionKind::Withdrawn(protocol) => {
            tracing::info!(service, node, %protocol, event = "serviceWithdrawn", "withdrawn");
        }
        TransitionKind::Failed(ip) => {
            tracing::warn!(
                service, node, %ip, interfaces, event = "announceFailed",
                "{ip} is not announced: this node can use none of the interfaces {interfaces} that its L2Advertisements name"
            );
        }
    }
}

impl Announcer {
    /// Opens the sockets. BGP events go to `events`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The host does not allow it; packet sockets need `CAP_NET_RAW`.
    pub fn start(
        identity: Identity,
        filter: InterfaceFilter,
        metrics: Metrics,
        events: mpsc::Sender<PeerEvent>,
        seed: u64,
    ) -> Result<Self, StartError> {
        let l2 = Driver::start(filter, seed)?;
        match L2Collector::new(l2.handle()) {
            Ok(series) => metrics.register(series),
            Err(error) => tracing::error!(%error, "the responder has no metrics"),
        }
        let bgp = Speaker::new(events, seed);
        let peer_series = PeerCollector::new(bgp.observer())
            .inspect_err(|error| tracing::error!(%error, "sessions have no metrics"))
            .ok();
        if let Some(series) = &peer_series {
            metrics.register(series.clone());
        }
        let options = announcement::Options { class: identity.class.clone(), exclude_label: identity.exclude_label };
        Ok(Self {
            view: NodeView::new(identity.node.clone(), options),
            identity,
            membership: None,
            generation: Generation::default(),
            l2,
            bgp,
            mode: Mode::Active,
            peer_configs: BTreeMap::new(),
            logged_down: BTreeMap::new(),
            logged_withheld: BTreeMap::new(),
            attributes: BTreeMap::new(),
            peer_series,
            metrics,
            obstacles: Obstacles::default(),
            conflicts: BTreeMap::new(),
            segments: BTreeSet::new(),
            looks: 0,
            untidy: false,
        })
    }

    /// Lets BGP peers connect to this address from now on, beside connecting to them. Comes before the first step.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn listen(&mut self, address: SocketAddr) -> std::io::Result<()> {
        let address = self.bgp.listen(address)?;
        self.mode = Mode::Both;
        tracing::info!(%address, event = "bgpListening", "BGP peers may connect");
        Ok(())
    }

    /// Starts membership: from now on the live speakers are those that gossip knows. Nothing is announced on L2 until
    /// [`membership::Handle::join`] has found the other speakers.
    ///
    /// # Errors
    /// The socket cannot be opened, or the key cannot be read.
    pub fn gossip(&mut self, settings: &membership::Settings) -> Result<membership::Handle, membership::StartError> {
        let driver = membership::Driver::start(settings, self.l2.handle())?;
        let handle = driver.handle();
        self.membership = Some(driver);
        Ok(handle)
    }

    /// Brings the announcements in step with the facts, of which `touched` names those that may be different. Facts
    /// that are known already change nothing and send nothing.
    pub fn apply(&mut self, config: &Config, cluster: &Cluster, touched: Touched<'_>) -> Changes {
        let started = match touched {
            Touched::Everything | Touched::Configuration(_) => self.set_peers(config, cluster),
            Touched::Services(_) | Touched::Live => BTreeSet::new(),
        };
        self.untidy |= !matches!(touched, Touched::Services(_));
        let update = self.decide(config, cluster, touched);
        self.carry_out(update, &started)
    }

    /// Replaces the sessions of this node. Returns the peers that start from nothing.
    fn set_peers(&mut self, config: &Config, cluster: &Cluster) -> BTreeSet<Arc<str>> {
        let me = cluster.nodes.get(&self.identity.node);
        let peers = me.map(|me| peers::configs(config, me, self.mode)).unwrap_or_default();
        if let Some(series) = &self.peer_series {
            series.set_peers(config.peers.values().filter(|peer| peers.contains_key(peer.name.as_str())));
        }
        self.peer_configs.clone_from(&peers);
        self.logged_down.retain(|peer, _| peers.contains_key(peer));
        self.logged_withheld.retain(|peer, _| peers.contains_key(peer));
        self.bgp.set_peers(peers)
    }

    fn decide(&mut self, config: &Config, cluster: &Cluster, touched: Touched<'_>) -> Update {
        let live = (!matches!(touched, Touched::Services(_))).then(|| self.take_live(cluster));
        let interfaces = names(&self.l2);
        self.view.apply(Facts { config, cluster, live: live.as_ref(), interfaces: &interfaces }, touched)
    }

    fn carry_out(&mut self, update: Update, started: &BTreeSet<Arc<str>>) -> Changes {
        let Update { addresses, probe, node_addresses, routes, changes, transitions } = update;
        if let Some(addresses) = node_addresses {
            self.l2.handle().set_node_addresses(addresses.into_iter().collect());
        }
        if self.identity.probe && !probe.is_empty() {
            self.l2.handle().probe_first(probe.into_iter().collect());
        }
        match &self.membership {
            None => {
                let changes: Vec<AddressChange> = addresses.into_iter().map(address_change).collect();
                if !changes.is_empty() {
                    self.l2.handle().change(changes);
                }
            }
            Some(driver) if !addresses.is_empty() => {
                driver.handle().plan(Plan { addresses, generation: self.generation, ..Plan::default() });
            }
            Some(_) => {}
        }
        self.offer(routes, started);
        // Nothing that is announced waits for this.
        if let Some(driver) = &self.membership {
            let (Ranked { addresses, monitor }, generation) = (self.view.monitor(), self.generation);
            // Each step for other live members asks for the nodes to monitor.
            if monitor.is_some() || !addresses.is_empty() {
                driver.handle().plan(Plan { addresses, generation, monitor, ranked: Some(generation) });
            }
        }
        changes.iter().for_each(|change| self.mark(change));
        Changes { transitions, services: changes.into_iter().map(|change| change.service).collect() }
    }

    /// Offers and withdraws routes. Peers that start from nothing get all routes instead.
    fn offer(&mut self, changes: announcement::export::RouteChanges, started: &BTreeSet<Arc<str>>) {
        for (peers, routes) in self.view.routes_of(started.iter().map(AsRef::as_ref)) {
            let routes = routes.into_iter().map(|(prefix, wanted)| (prefix, shared(&mut self.attributes, wanted)));
            self.bgp.set_routes_of(peers, routes.collect());
        }
        for (peer, routes) in changes.into_iter().filter(|(peer, _)| !started.contains(peer.as_str())) {
            let route =
                |(prefix, wanted): (_, Option<_>)| (prefix, wanted.map(|wanted| shared(&mut self.attributes, wanted)));
            self.bgp.change_routes(peer.as_str(), routes.into_iter().map(route).collect());
        }
    }

    /// Brings the series of one Service in step.
    fn mark(&self, change: &AnnouncementChange) {
        let series = &self.metrics.speaker.announced;
        let (node, protocol) = (self.identity.node.as_str(), change.protocol.as_str());
        let labels = |ip: &IpAddr| [change.service.to_string(), protocol.to_owned(), node.to_owned(), ip.to_string()];
        let (before, after) = (change.before.iter().flatten(), change.after.as_deref().unwrap_or_default());
        let is_answered = |ip: &&IpAddr| change.protocol == Protocol::Bgp || self.answers(&change.service, **ip);
        let after: Vec<&IpAddr> = after.iter().filter(is_answered).collect();
        for ip in before.filter(|ip| !after.contains(ip)) {
            // Fails only for a series that does not exist.
            let _ = series.remove_label_values(&labels(ip));
        }
        for ip in after {
            series.with_label_values(&labels(ip)).set(1);
        }
    }

    /// Whether this node answers requests for an address of a Service.
    fn answers(&self, service: &ServiceKey, ip: IpAddr) -> bool {
        let announcement = self.view.announced().l2.get(service);
        announcement.is_some_and(|announcement| !announcement.failed) && !self.obstacles.refused.contains_key(&ip)
    }

    /// Whether this node answers requests for an address of the Service, or for all that is known will.
    #[must_use]
    pub fn answers_any(&self, service: &ServiceKey) -> bool {
        let announcement = self.view.announced().l2.get(service);
        announcement.is_some_and(|announcement| announcement.ips.iter().any(|ip| self.answers(service, *ip)))
    }

    /// The interfaces that the L2Advertisements of a Service name.
    #[must_use]
    pub fn named_interfaces(&self, service: &ServiceKey) -> String {
        let announcement = self.view.announced().l2.get(service);
        let names = announcement.map(|announcement| announcement.interfaces.as_slice()).unwrap_or_default();
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Logs why a session ended or does not come up, once for each reason.
    pub fn note_peer_event(&mut self, PeerEvent { peer, event, .. }: &PeerEvent) {
        match event {
            Event::Established { .. } => drop(self.logged_down.remove(peer)),
            Event::Down { reason, .. } => {
                let open = self.bgp.snapshot().get(peer).and_then(|snapshot| snapshot.last_open);
                let config = self.peer_configs.get(peer);
                let advice = config.and_then(|config| advice::advice(peer, reason, config, open));
                let text = advice.map_or_else(|| reason.to_string(), |advice| format!("{reason}: {advice}"));
                if self.logged_down.get(peer) != Some(&text) {
                    tracing::warn!(peer = &**peer, event = "bgpNotUp", "BGP session is not up: {text}");
                    self.logged_down.insert(Arc::clone(peer), text);
                }
            }
            _ => {}
        }
    }

    /// Logs which routes are withheld from peers, once for each reason.
    fn note_withheld(&mut self) {
        for status in self.peers() {
            let name: Arc<str> = status.name.as_str().into();
            if status.withheld.is_empty() {
                if status.state == "Established" {
                    self.logged_withheld.remove(&name);
                }
                continue;
            }
            let known = self.logged_withheld.insert(Arc::clone(&name), status.withheld.clone()).unwrap_or_default();
            for text in status.withheld.iter().filter(|text| !known.contains(text)) {
                tracing::warn!(peer = &*name, event = "routesWithheld", "{text}");
            }
        }
    }

    /// The nodes with a live speaker: members, where speakers gossip, and else nodes that are not known to be unready.
    fn take_live(&mut self, cluster: &Cluster) -> LiveSpeakers {
        let Some(driver) = &self.membership else { return announcement::live_by_readiness(&cluster.nodes) };
        let known = driver.handle().snapshot();
        self.generation = known.generation;
        // Until the other members are known, claiming nothing is the only safe guess.
        LiveSpeakers::Only(if known.joined { known.live } else { BTreeSet::new() })
    }

    /// Hands everything on L2 over to the nodes that come next, and leaves them. Returns when they have it, or after a
    /// fraction of a second. Does nothing where speakers do not gossip.
    pub fn hand_over(&mut self, config: &Config, cluster: &Cluster) {
        if self.membership.is_none() {
            return;
        }
        // The latest members count; what else would follow from them is not carried out any longer.
        self.decide(config, cluster, Touched::Live);
        let successors = self.view.hand_over(&cluster.nodes);
        if let Some(driver) = &self.membership {
            driver.handle().leave(successors);
        }
    }

    /// Logs what began, ended or failed: of many Services at once only their number at level info.
    pub fn log_transitions(&self, transitions: &[Transition]) {
        let node = self.identity.node.as_str();
        let mut counts: BTreeMap<(&str, Protocol), usize> = BTreeMap::new();
        for transition in transitions {
            match transition.kind {
                TransitionKind::Announcing(protocol) => *counts.entry(("announced", protocol)).or_default() += 1,
                TransitionKind::Withdrawn(protocol) => *counts.entry(("withdrawn", protocol)).or_default() += 1,
                TransitionKind::Failed(_) => {}
            }
        }
        let is_summed_up = transitions.len() > LOGGED_SINGLY;
        for ((what, protocol), services) in counts.into_iter().filter(|_| is_summed_up) {
            tracing::info!(services, node, %protocol, event = "servicesChanged", "{services} Services are {what}");
        }
        for transition in transitions {
            log_transition(transition, node, &self.named_interfaces(&transition.service), is_summed_up);
        }
    }

    /// What is announced now.
    #[must_use]
    pub const fn announced(&self) -> &Announced {
        self.view.announced()
    }

    /// The Services that have an address and are not announced, and why, in the words of `metallb explain`.
    #[must_use]
    pub fn silent(&self, config: &Config, cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
        let silent = self.view.not_announced(config, cluster).into_iter();
        silent.map(|(service, why)| (service.to_string(), why.sentences(&self.identity.node))).collect()
    }

    /// Where the peers stand.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let bfd = self.bgp.observer().bfd();
        let status = |(name, peer): (Arc<str>, _)| {
            let routes = || {
                let of_peer = self.view.routes_of([&*name]).into_iter();
                of_peer.flat_map(|(_, routes)| routes.into_keys()).collect()
            };
            PeerStatus::new(&name, peer, &bfd, self.peer_configs.get(&name), routes)
        };
        self.bgp.snapshot().into_iter().map(status).collect()
    }

    /// To be called now and then: after a step for everything it gives back the memory that deciding took, and reading
    /// before it.
    pub fn tidy(&mut self) {
        if std::mem::take(&mut self.untidy) {
            self.attributes.retain(|_, attributes| Arc::strong_count(attributes) > 1);
            sys::give_back_memory();
        }
    }

    /// Copies what membership counted into the metrics, and logs which routes are withheld.
    pub fn refresh_metrics(&mut self) {
        self.note_withheld();
        if let Some(driver) = &self.membership {
            let handle = driver.handle();
            let known = handle.snapshot();
            let membership = &self.metrics.membership;
            membership.members.set(i64::try_from(known.members).unwrap_or(i64::MAX));
            membership.live.set(i64::try_from(known.live.len()).unwrap_or(i64::MAX));
            for (label, value) in [
                ("raised", known.counters.suspected),
                ("refuted", known.counters.refuted),
                ("confirmed", known.counters.declared_dead),
            ] {
                raise(&membership.suspicions.with_label_values(&[label]), value);
            }
            for (label, value) in [
                ("malformed", known.counters.rejected.malformed),
                ("sealed_otherwise", known.counters.rejected.sealed_otherwise),
                ("unknown_key", known.counters.rejected.unknown_key),
                ("forged", known.counters.rejected.forged),
                ("stranger", known.counters.unknown_session),
                ("repeated", known.counters.replayed),
            ] {
                raise(&membership.dropped.with_label_values(&[label]), value);
            }
            raise(&membership.sent, known.counters.sent);
            raise(&membership.bytes_sent, known.counters.bytes_sent);
            raise(&membership.handovers.with_label_values(&["acknowledged"]), known.handovers.acknowledged);
            raise(&membership.handovers.with_label_values(&["refused"]), known.handovers.rejected);
            raise(&membership.handovers.with_label_values(&["timed_out"]), known.handovers.timed_out);
            for took in handle.take_takeovers() {
                membership.takeover.observe(took.as_secs_f64());
            }
        }
    }

    /// Conflicts that were seen since the last call.
    #[must_use]
    pub fn take_conflicts(&mut self) -> Vec<Conflict> {
        let mut segments = Vec::new();
        let mut text = |event| match event {
            metallb_l2::engine::Event::Conflict { ip, mac, interface } => {
                Some(Conflict { ip, mac, text: format!("another host, {mac}, uses {ip} on {interface}") })
            }
            metallb_l2::engine::Event::Occupied { ip, mac, interface } => {
                let text = format!("another host, {mac}, has {ip} on {interface}: it is not announced");
                Some(Conflict { ip, mac, text })
            }
            metallb_l2::engine::Event::SharedSegment { mut interfaces } => {
                interfaces.sort();
                let [one, other] = interfaces;
                segments.push(format!(
                    "{one} and {other} of this node are on one segment, so hosts get two hardware addresses for each \
                     address: name one of them in `interfaces` of the L2Advertisement, or exclude the other"
                ));
                None
            }
            _ => None,
        };
        let seen: Vec<Conflict> = self.l2.handle().take_events().into_iter().filter_map(&mut text).collect();
        for text in segments {
            if self.segments.len() < SEGMENTS_SHOWN && self.segments.insert(text.clone()) {
                tracing::warn!(event = "sharedSegment", "{text}");
            }
        }
        let now = Instant::now();
        self.conflicts.retain(|_, (_, at)| now.saturating_duration_since(*at) < CONFLICT_SHOWN);
        self.conflicts.extend(seen.iter().map(|conflict| (conflict.ip, (conflict.text.clone(), now))));
        seen
    }

    /// What came to speak against announcing addresses on this node since the last call, and which addresses its kernel was found to
    /// answer for.
    pub fn take_obstacles(&mut self) -> Vec<Obstacle> {
        let handle = self.l2.handle();
        let now = unanswered(&self.view.announced().l2, &handle.interfaces(), handle.refused());
        let before = self.obstacles.refused.clone();
        let mut news = self.obstacles.see_refused(now);
        if before != self.obstacles.refused {
            self.mark_unanswered(&before);
        }
        // The kernel tells nobody when the setting that it depends on is another one.
        if self.looks.is_multiple_of(LOOKS_PER_QUESTION)
            && let Some(found) = handle.answered_by_kernel(self.view.l2_addresses().collect())
        {
            news.extend(self.obstacles.see_answered_by_kernel(found));
        }
        if self.looks.is_multiple_of(LOOKS_PER_LIST) {
            let own = local::own_addresses();
            let found = local::findings(&self.view.announced().l2, self.view.l2_addresses(), &own);
            news.extend(self.obstacles.see_local(found));
        }
        self.looks = self.looks.wrapping_add(1);
        let count = |length| i64::try_from(length).unwrap_or(i64::MAX);
        self.metrics.speaker.l2_refused.set(count(self.obstacles.refused.len()));
        for code in Unanswered::CODES {
            let of_code = self.obstacles.refused.values().filter(|reason| reason.code() == code);
            self.metrics.speaker.l2_unanswered.with_label_values(&[code]).set(count(of_code.count()));
        }
        self.metrics.speaker.l2_answered_by_kernel.set(count(self.obstacles.answered_by_kernel()));
        news
    }

    /// Brings the series of the addresses in step that are answered, or not answered, since the last look.
    fn mark_unanswered(&self, before: &BTreeMap<IpAddr, Unanswered>) {
        let series = &self.metrics.speaker.announced;
        for (service, announcement) in &self.view.announced().l2 {
            let is_other = |ip: &&IpAddr| before.contains_key(*ip) != self.obstacles.refused.contains_key(*ip);
            for ip in announcement.ips.iter().filter(is_other) {
                let node = self.identity.node.to_string();
                let labels = [service.to_string(), Protocol::Layer2.as_str().to_owned(), node, ip.to_string()];
                if self.answers(service, *ip) {
                    series.with_label_values(&labels).set(1);
                } else {
                    // Fails only for a series that does not exist.
                    let _ = series.remove_label_values(&labels);
                }
            }
        }
    }

    /// Other hosts, and the kernel of this node, that answer for an address too, and announced addresses in no subnet of
    /// this node, in words.
    #[must_use]
    pub fn rivals(&self) -> BTreeMap<IpAddr, Vec<String>> {
        let mut all: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        let conflicts = self.conflicts.iter().map(|(ip, (text, _))| (*ip, text.clone()));
        for (ip, text) in conflicts.chain(self.obstacles.kernel_answers()).chain(self.obstacles.local()) {
            all.entry(ip).or_default().push(text);
        }
        all
    }

    /// Hosts that run a speaker with the node name of another one, and interfaces of this node on one segment, in words.
    #[must_use]
    pub fn surroundings(&self) -> Vec<String> {
        let clashes = self.membership.as_ref().map(|driver| driver.handle().snapshot().clashes).unwrap_or_default();
        let text = |(node, address)| {
            format!("another host, {address}, runs a speaker with the node name {node}: give each its own --node-name")
        };
        clashes.into_iter().map(text).chain(self.segments.iter().cloned()).collect()
    }

    /// That no Node has the name of this one, in words.
    #[must_use]
    pub fn missing_node(&self, cluster: &Cluster) -> Option<String> {
        if cluster.nodes.contains_key(&self.identity.node) {
            return None;
        }
        let mut known: Vec<String> = cluster.nodes.keys().take(5).map(ToString::to_string).collect();
        if cluster.nodes.len() > known.len() {
            known.push("…".to_owned());
        }
        let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
        Some(format!(
            "no Node has the name {} of this speaker, so it announces nothing: set --node-name to the name of its Node \
             ({known})",
            self.identity.node
        ))
    }

    /// The addresses that this node is to answer for and does not, with the reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<IpAddr, String> {
        self.obstacles.refused.iter().map(|(&ip, reason)| (ip, reason.to_string())).collect()
    }

    /// Before [`shutdown`](Self::shutdown): asks BGP peers that will drop the routes to move traffic away, and gives them `time` for it.
    /// Returns at once where there is nobody to ask; `cut_short` ends the wait.
    pub async fn drain(&self, time: Duration, cut_short: impl Future<Output = ()>) {
        if time.is_zero() {
            return;
        }
        let wait = async {
            if self.bgp.drain(true).await {
                tracing::info!(?time, event = "bgpDraining", "peers are asked to move traffic away");
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(time, wait) => {}
            () = cut_short => {}
        }
    }

    /// Ends everything: peers are told, unless they are to keep the routes until a restart is over.
    pub async fn shutdown(self, keep_routes: bool) {
        let Self { membership, l2, bgp, .. } = self;
        drop(membership);
        bgp.shutdown(keep_routes, SHUTDOWN).await;
        drop(l2);
    }
}

/// The interfaces in use, by name.
fn names(l2: &Driver) -> BTreeSet<Arc<str>> {
    l2.handle().interfaces().into_iter().map(|interface| interface.name).collect()
}

/// The change of an address where speakers do not gossip: nothing is handed over.
fn address_change((ip, assignment): (IpAddr, Assignment)) -> AddressChange {
    let scope = match assignment {
        Assignment::Owner(announcement::Scope::All) => Scope::All,
        Assignment::Owner(announcement::Scope::Only(names)) => {
            Scope::Only(names.iter().map(|name| name.as_str().into()).collect())
        }
        Assignment::Standby(..) | Assignment::GivenUp(_) | Assignment::None => return AddressChange::Withdraw(ip),
    };
    AddressChange::Announce(Announcement { ip, scope, stance: Stance::Hold })
}

/// Attributes as the BGP engine takes them.
fn shared(known: &mut BTreeMap<RouteAttributes, Arc<Attributes>>, wanted: RouteAttributes) -> Arc<Attributes> {
    if let Some(attributes) = known.get(&wanted) {
        return Arc::clone(attributes);
    }
    let mut attributes = Attributes::default();
    attributes.local_pref = wanted.local_pref;
    for community in &wanted.communities {
        match *community {
            Community::Standard(value) => attributes.communities.insert(value),
            Community::Large(x, y, z) => attributes.large_communities.insert((x, y, z)),
        };
    }
    let attributes = Arc::new(attributes);
    known.insert(wanted, Arc::clone(&attributes));
    attributes
}

/// Counters of the engines only grow.
fn raise(counter: &prometheus::IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

/// Number of changes in one step up to which each is logged at level info.
const LOGGED_SINGLY: usize = 20;

/// How many times obstacles are looked for until the addresses of this node are listed once more.
const LOOKS_PER_LIST: u32 = 2;

/// How many times obstacles are looked for until the kernel is asked once more.
const LOOKS_PER_QUESTION: u32 = 8;

/// Limit for the pairs of interfaces that are shown and logged; further ones are not.
const SEGMENTS_SHOWN: usize = 16;

/// How long a conflict is shown after the last report; a lasting conflict is reported every thirty seconds.
const CONFLICT_SHOWN: Duration = Duration::from_secs(90);

/// How long peers may take to be told.
const SHUTDOWN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
