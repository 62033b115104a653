//! From decisions to packets: what this node announces, kept in step with configuration and facts.
//!
//! `speaker` and `standalone` feed it; it calls the same functions of `metallb-core` as `plan`.

mod assigned;
mod obstacles;
mod offers;
mod peers;
mod silence;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metallb_bgp::io::{PeerEvent, Speaker};
use metallb_bgp::session::Mode;
use metallb_core::config::Config;
use metallb_core::election::{ElectionRules, Elections, Holder, LiveSpeakers, Stake, interfaces};
use metallb_core::model::{Cluster, ExcludeLabel, Node, NodeName, PeerName, Service, ServiceKey, ServiceType};
use metallb_core::routes::routes;
use metallb_l2::interface::{MacAddr, Scope};
use metallb_l2::io::{Driver, InterfaceFilter, StartError};
use metallb_membership::driver as membership;
use tokio::sync::mpsc;

use self::assigned::Assigned;
use self::obstacles::Obstacles;
pub use self::obstacles::{Obstacle, ObstacleKind};
use self::offers::Offers;
pub use self::peers::{BfdPeerStatus, BfdTimers, EndedSession, NegotiatedStatus, PeerStatus};
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

/// Announces.
pub struct Announcer {
    identity: Identity,
    /// Membership, where speakers gossip. It is dropped before `l2`, which it commands.
    membership: Option<membership::Driver>,
    l2: Driver,
    bgp: Speaker,
    /// Which end opens connections of BGP.
    mode: Mode,
    peer_series: Option<PeerCollector>,
    metrics: Metrics,
    announced: Announced,
    offers: Offers,
    /// The Services that take part in elections, with what they bring in.
    stakes: BTreeMap<ServiceKey, Stake>,
    /// The interfaces when it was looked at them.
    interfaces: BTreeSet<Arc<str>>,
    /// What this node answers for on L2.
    addresses: BTreeMap<IpAddr, Scope>,
    assigned: Assigned,
    /// What it answered for earlier: whoever has that now may have to hear of it.
    given_up: BTreeSet<IpAddr>,
    /// The addresses of Services on L2, whichever node answers for them.
    on_l2: Vec<IpAddr>,
    /// The addresses that other nodes have themselves.
    of_nodes: BTreeSet<IpAddr>,
    obstacles: Obstacles,
    /// How often it was looked for obstacles.
    looks: u32,
    /// Whether there was much to throw away since memory was given back.
    untidy: bool,
}

/// What is announced, by Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Announced {
    /// On L2.
    pub l2: BTreeMap<ServiceKey, L2Announcement>,
    /// By BGP: the addresses and the peers they are offered to.
    pub bgp: BTreeMap<ServiceKey, (Vec<IpAddr>, Arc<BTreeSet<PeerName>>)>,
}

/// What is different after a step.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// What began, ended or failed.
    pub transitions: Vec<Transition>,
    /// The Services whose entry in [`Announced`] is another one now, or gone.
    pub services: BTreeSet<ServiceKey>,
}

/// One Service on L2.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct L2Announcement {
    /// The addresses.
    pub ips: Vec<IpAddr>,
    /// Where; empty means on all interfaces.
    pub interfaces: Vec<String>,
    /// Whether none of the interfaces exists.
    pub failed: bool,
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

/// Something that began, ended or failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transition {
    /// Which Service.
    pub service: ServiceKey,
    /// What.
    pub kind: TransitionKind,
}

/// What changed about a Service on this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TransitionKind {
    /// This node announces now; the protocol is `bgp` or `layer2`.
    Announcing(&'static str),
    /// This node announces no more.
    Withdrawn(&'static str),
    /// None of the interfaces exists on this node.
    Failed(IpAddr),
}

impl Transition {
    /// Writes it to the log.
    pub fn log(&self, node: &str) {
        let service = self.service.to_string();
        match &self.kind {
            TransitionKind::Announcing(protocol) => {
                tracing::info!(service, node, protocol, event = "serviceAnnounced", "announcing");
            }
            TransitionKind::Withdrawn(protocol) => {
                tracing::info!(service, node, protocol, event = "serviceWithdrawn", "withdrawn");
            }
            TransitionKind::Failed(ip) => {
                tracing::warn!(service, node, %ip, event = "announceFailed", "none of the interfaces exists on this node");
            }
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
        let (announced, addresses, assigned) = (Announced::default(), BTreeMap::new(), Assigned::default());
        let (offers, stakes, given_up) = (Offers::default(), BTreeMap::new(), BTreeSet::new());
        let membership = None;
        Ok(Self {
            identity,
            membership,
            l2,
            bgp,
            mode: Mode::Active,
            peer_series,
            metrics,
            announced,
            offers,
            stakes,
            interfaces: BTreeSet::new(),
            addresses,
            assigned,
            given_up,
            on_l2: Vec::new(),
            of_nodes: BTreeSet::new(),
            obstacles: Obstacles::default(),
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

    /// Brings the announcements in step with everything. Repeating what is known changes nothing and sends nothing.
    pub fn apply(&mut self, config: &Config, cluster: &Cluster) -> Changes {
        let mut changes = Changes::default();
        self.untidy = true;
        let me = cluster.nodes.get(&self.identity.node);
        let peers = me.map(|me| peers::configs(config, me, self.mode)).unwrap_or_default();
        if let Some(series) = &self.peer_series {
            series.set_peers(config.peers.values().filter(|peer| peers.contains_key(peer.name.as_str())));
        }
        let started = self.bgp.set_peers(peers);
        let known: Vec<ServiceKey> = self.offers.services().cloned().collect();
        let gone = known.iter().filter(|key| !cluster.services.contains_key(*key));
        self.advertise(config, cluster, cluster.services.keys().chain(gone), &started, &mut changes);
        self.offers.sweep();
        self.answer(config, cluster, me, &mut changes);
        changes
    }

    /// The same where nothing but these Services and their endpoints is different. It costs what changed, unless that may decide where
    /// addresses on L2 are answered for: then it costs a look at all Services that have any, as they decide about each other.
    pub fn apply_services(&mut self, config: &Config, cluster: &Cluster, services: &BTreeSet<ServiceKey>) -> Changes {
        let mut changes = Changes::default();
        self.advertise(config, cluster, services.iter(), &BTreeSet::new(), &mut changes);
        if self.decides_on_l2(config, cluster, services) {
            self.answer(config, cluster, cluster.nodes.get(&self.identity.node), &mut changes);
        }
        changes
    }

    /// Whether what is answered for on L2 may be different after these Services changed.
    fn decides_on_l2(&self, config: &Config, cluster: &Cluster, services: &BTreeSet<ServiceKey>) -> bool {
        let stake = |key: &ServiceKey| stake(config, cluster, &self.holder(cluster, key)?);
        services.iter().any(|key| stake(key) != self.stakes.get(key).copied()) || self.interfaces != names(&self.l2)
    }

    /// The same where nothing but who lives is different, which routes do not depend on.
    pub fn apply_members(&mut self, config: &Config, cluster: &Cluster) -> Changes {
        let mut changes = Changes::default();
        self.untidy = true;
        self.answer(config, cluster, cluster.nodes.get(&self.identity.node), &mut changes);
        changes
    }

    /// Brings what is offered by BGP for these Services in step. Peers that have `started` are told everything.
    fn advertise<'a>(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        services: impl Iterator<Item = &'a ServiceKey>,
        started: &BTreeSet<Arc<str>>,
        changes: &mut Changes,
    ) {
        let me = cluster.nodes.get(&self.identity.node);
        let mut routes_changed = offers::Changes::new();
        for key in services {
            let found = me.and_then(|me| {
                let (service, ips) = self.holder(cluster, key)?;
                let pool = config.pool_of(&ips)?;
                let holder = Holder { service, pool, ips: &ips };
                let found = routes(holder, me, config, cluster, self.identity.exclude_label);
                (!found.by_peer.is_empty()).then_some((ips, found.by_peer))
            });
            let (ips, by_peer) = found.unwrap_or_default();
            self.offers.set(key, by_peer, &mut routes_changed);
            self.note_advertised(key, ips, changes);
        }
        for (peers, routes) in self.offers.of_each(started.iter().map(AsRef::as_ref)) {
            self.bgp.set_routes_of(peers, routes);
        }
        for (peer, routes) in routes_changed {
            if !started.contains(peer.as_str()) {
                self.bgp.change_routes(peer.as_str(), routes.into_iter().collect());
            }
        }
    }

    fn note_advertised(&mut self, key: &ServiceKey, ips: Vec<IpAddr>, changes: &mut Changes) {
        let peers = self.offers.peers_of(key);
        let now = (!peers.is_empty()).then_some((ips, peers));
        let before = self.announced.bgp.get(key);
        if before == now.as_ref() {
            return;
        }
        changes.services.insert(key.clone());
        let had = before.map(|(ips, _)| ips.clone());
        let has = now.as_ref().map(|(ips, _)| ips.clone());
        if had != has {
            let kind = if has.is_some() { TransitionKind::Announcing("bgp") } else { TransitionKind::Withdrawn("bgp") };
            changes.transitions.push(Transition { service: key.clone(), kind });
            self.mark(key, "bgp", &had.unwrap_or_default(), &has.unwrap_or_default());
        }
        match now {
            Some(now) => drop(self.announced.bgp.insert(key.clone(), now)),
            None => drop(self.announced.bgp.remove(key)),
        }
    }

    /// Brings what is answered for on L2 in step.
    fn answer(&mut self, config: &Config, cluster: &Cluster, me: Option<&Node>, changes: &mut Changes) {
        let live = self.live(cluster);
        let rules = ElectionRules { live, exclude_label: self.identity.exclude_label };
        let holders = self.holders(config, cluster);
        let stakes = holders.iter().filter_map(|(key, found)| Some(((*key).clone(), stake(config, cluster, found)?)));
        self.stakes = stakes.collect();
        self.interfaces = names(&self.l2);
        self.on_l2 = holders.values().flat_map(|(_, ips)| ips.iter().copied()).collect();
        self.leave_to_nodes(cluster);
        let elections = elections(config, cluster, &rules, &holders);
        let Some(me) = me else {
            self.answer_for(BTreeMap::new(), &elections, &holders);
            return self.note_answered(BTreeMap::new(), changes);
        };
        let mut announced = BTreeMap::new();
        let mut addresses: BTreeMap<IpAddr, Scope> = BTreeMap::new();
        for key in elections.owned_by(&self.identity.node) {
            let Some((service, ips)) = holders.get(key) else { continue };
            let Some(pool) = config.pool_of(ips) else { continue };
            let on: Vec<String> = interfaces(service, pool, me).iter().map(ToString::to_string).collect();
            let scope = match on.is_empty() {
                true => Scope::All,
                false => Scope::Only(on.iter().map(|name| name.as_str().into()).collect()),
            };
            let failed = !on.is_empty() && !on.iter().any(|name| self.interfaces.contains(name.as_str()));
            for &ip in ips {
                let scope = scope.clone();
                let merged = match addresses.remove(&ip) {
                    Some(other) => other.union(scope),
                    None => scope,
                };
                addresses.insert(ip, merged);
            }
            announced.insert(key.clone(), L2Announcement { ips: ips.clone(), interfaces: on, failed });
        }
        let fresh = self.assigned.see(holders.values().flat_map(|(_, ips)| ips.iter().copied()));
        if self.identity.probe {
            let mine = fresh.into_iter().filter(|ip| addresses.contains_key(ip));
            self.l2.handle().probe_first(mine.collect());
        }
        self.answer_for(addresses, &elections, &holders);
        self.monitor(&elections, &holders);
        self.note_answered(announced, changes);
    }

    /// Leaves the addresses of the other nodes alone; our own are on our interfaces.
    fn leave_to_nodes(&mut self, cluster: &Cluster) {
        let others = cluster.nodes.values().filter(|node| node.name != self.identity.node);
        let addresses: BTreeSet<IpAddr> = others.flat_map(|node| node.addresses.iter().copied()).collect();
        if addresses != self.of_nodes {
            self.l2.handle().set_node_addresses(addresses.iter().copied().collect());
            self.of_nodes = addresses;
        }
    }

    fn note_answered(&mut self, announced: BTreeMap<ServiceKey, L2Announcement>, changes: &mut Changes) {
        let before = std::mem::replace(&mut self.announced.l2, announced);
        changes.transitions.extend(transitions(&before, &self.announced.l2));
        let keys: BTreeSet<&ServiceKey> = before.keys().chain(self.announced.l2.keys()).collect();
        for key in keys {
            let (had, has) = (before.get(key), self.announced.l2.get(key));
            if had != has {
                let ips = |entry: Option<&L2Announcement>| entry.map(|entry| entry.ips.clone()).unwrap_or_default();
                self.mark(key, "layer2", &ips(had), &ips(has));
                changes.services.insert(key.clone());
            }
        }
    }

    /// Brings the series of one Service in step.
    fn mark(&self, key: &ServiceKey, protocol: &str, had: &[IpAddr], has: &[IpAddr]) {
        let series = &self.metrics.speaker.announced;
        let node = self.identity.node.as_str();
        let labels = |ip: &IpAddr| [key.to_string(), protocol.to_owned(), node.to_owned(), ip.to_string()];
        for ip in had.iter().filter(|ip| !has.contains(ip)) {
            // Fails only for a series that is not there.
            let _ = series.remove_label_values(&labels(ip));
        }
        for ip in has {
            series.with_label_values(&labels(ip)).set(1);
        }
    }

    /// Who takes part in elections: members, where speakers gossip, and else nodes that are not known to be unready.
    fn live(&self, cluster: &Cluster) -> LiveSpeakers {
        match self.membership.as_ref().map(|driver| driver.handle().snapshot()) {
            None => live_by_readiness(cluster),
            Some(known) if known.joined => LiveSpeakers::Only(known.live),
            // Others may be there: claiming nothing is the only safe guess.
            Some(_) => LiveSpeakers::Only(BTreeSet::new()),
        }
    }

    /// A Service that holds addresses, with these.
    fn holder<'a>(&self, cluster: &'a Cluster, key: &ServiceKey) -> Option<(&'a Service, Vec<IpAddr>)> {
        let service = cluster.services.get(key)?;
        let ours =
            service.service_type == ServiceType::LoadBalancer && service.is_of_class(self.identity.class.as_deref());
        if ours { Some((service, ips_of(service)?)) } else { None }
    }

    /// The Services that hold addresses which are answered for on L2. Others take no part in elections: Services that share an address
    /// have it from one pool.
    fn holders<'a>(&self, config: &Config, cluster: &'a Cluster) -> Holders<'a> {
        if config.pools.values().all(|pool| pool.l2.is_empty()) {
            return Holders::new();
        }
        let on_l2 = |ips: &[IpAddr]| config.pool_of(ips).is_some_and(|pool| !pool.l2.is_empty());
        let holder = |key| self.holder(cluster, key).filter(|(_, ips)| on_l2(ips));
        cluster.services.keys().filter_map(|key| Some((key, holder(key)?))).collect()
    }

    /// Answers for these addresses on L2, and hands over what is among them no more.
    fn answer_for(&mut self, addresses: BTreeMap<IpAddr, Scope>, elections: &Elections<'_>, holders: &Holders<'_>) {
        match &self.membership {
            None => self.l2.handle().announce(addresses.clone().into_iter().collect::<Vec<_>>()),
            Some(driver) => {
                self.given_up.extend(self.addresses.keys().filter(|ip| !addresses.contains_key(*ip)));
                let known: BTreeSet<&IpAddr> = holders.values().flat_map(|(_, ips)| ips).collect();
                self.given_up.retain(|ip| !addresses.contains_key(ip) && known.contains(ip));
                let successors = successors(elections, holders, |ip| self.given_up.contains(ip));
                driver.handle().plan(addresses.clone(), successors);
            }
        }
        self.addresses = addresses;
    }

    /// Has membership monitor the nodes before this one in an election: it takes over their addresses when they die.
    fn monitor(&self, elections: &Elections<'_>, holders: &Holders<'_>) {
        let Some(driver) = &self.membership else { return };
        let mut before: BTreeSet<NodeName> = BTreeSet::new();
        for election in holders.keys().filter_map(|key| elections.elect(key)) {
            let order: Vec<NodeName> = election.owner.into_iter().chain(election.successors).collect();
            if let Some(place) = order.iter().position(|node| *node == self.identity.node) {
                before.extend(order.into_iter().take(place));
            }
        }
        driver.handle().monitor(before);
    }

    /// Hands everything on L2 over to the speakers that come next, and leaves them. Returns when they have it, or after a fraction
    /// of a second. Does nothing where speakers do not gossip.
    pub fn hand_over(&mut self, config: &Config, cluster: &Cluster) {
        let Some(driver) = &self.membership else { return };
        let mut live = driver.handle().snapshot().live;
        live.remove(&self.identity.node);
        let rules = ElectionRules { live: LiveSpeakers::Only(live), exclude_label: self.identity.exclude_label };
        let holders = self.holders(config, cluster);
        let elections = elections(config, cluster, &rules, &holders);
        let successors = successors(&elections, &holders, |ip| self.addresses.contains_key(ip));
        driver.handle().leave(successors);
    }

    /// What is announced now.
    #[must_use]
    pub const fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Where the peers stand.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let bfd = self.bgp.observer().bfd();
        self.bgp.snapshot().into_iter().map(|(name, peer)| PeerStatus::new(&name, peer, &bfd)).collect()
    }

    /// To be called now and then: after a step for everything it gives back the memory that deciding took, and reading before it.
    pub fn tidy(&mut self) {
        if std::mem::take(&mut self.untidy) {
            sys::give_back_memory();
        }
    }

    /// Copies what membership counted into the metrics.
    pub fn refresh_metrics(&self) {
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
    pub fn take_conflicts(&self) -> Vec<Conflict> {
        let text = |event| match event {
            metallb_l2::engine::Event::Conflict { ip, mac, interface } => {
                Some(Conflict { ip, mac, text: format!("another host, {mac}, uses {ip} on {interface}") })
            }
            metallb_l2::engine::Event::Occupied { ip, mac, interface } => {
                let text = format!("another host, {mac}, has {ip} on {interface}: it is not announced");
                Some(Conflict { ip, mac, text })
            }
            _ => None,
        };
        self.l2.handle().take_events().into_iter().filter_map(text).collect()
    }

    /// What came to speak against announcing addresses on this node since the last call, and which addresses its kernel was found to
    /// answer for.
    pub fn take_obstacles(&mut self) -> Vec<Obstacle> {
        let handle = self.l2.handle();
        let mut news = self.obstacles.see_refused(handle.refused());
        // The kernel tells nobody when the setting that it depends on is another one.
        if self.looks.is_multiple_of(LOOKS_PER_QUESTION)
            && let Some(found) = handle.answered_by_kernel(self.on_l2.clone())
        {
            news.extend(self.obstacles.see_answered_by_kernel(found));
        }
        self.looks = self.looks.wrapping_add(1);
        let count = |length| i64::try_from(length).unwrap_or(i64::MAX);
        self.metrics.speaker.l2_refused.set(count(self.obstacles.refused.len()));
        self.metrics.speaker.l2_answered_by_kernel.set(count(self.obstacles.answered_by_kernel()));
        news
    }

    /// The addresses that this node is to answer for and does not, with the reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<IpAddr, String> {
        self.obstacles.refused.iter().map(|(&ip, objection)| (ip, objection.to_string())).collect()
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

/// What a Service that holds addresses brings to elections, if they are answered for on L2.
fn stake(config: &Config, cluster: &Cluster, (service, ips): &(&Service, Vec<IpAddr>)) -> Option<Stake> {
    let pool = config.pool_of(ips).filter(|pool| !pool.l2.is_empty())?;
    Some(Stake::new(Holder { service, pool, ips }, cluster))
}

/// The interfaces in use, by name.
fn names(l2: &Driver) -> BTreeSet<Arc<str>> {
    l2.handle().interfaces().into_iter().map(|interface| interface.name).collect()
}

/// Services that hold addresses, with these.
type Holders<'a> = BTreeMap<&'a ServiceKey, (&'a Service, Vec<IpAddr>)>;

fn elections<'a>(
    config: &'a Config,
    cluster: &'a Cluster,
    rules: &'a ElectionRules,
    holders: &'a Holders<'a>,
) -> Elections<'a> {
    let of = |(service, ips): &'a (&'a Service, Vec<IpAddr>)| Some(Holder { service, pool: config.pool_of(ips)?, ips });
    Elections::new(cluster, rules, holders.values().filter_map(of))
}

/// Who owns each address for which `wanted` holds.
fn successors(
    elections: &Elections<'_>,
    holders: &Holders<'_>,
    wanted: impl Fn(&IpAddr) -> bool,
) -> BTreeMap<IpAddr, NodeName> {
    let mut successors = BTreeMap::new();
    for (key, (_, ips)) in holders {
        let mut wanted = ips.iter().filter(|ip| wanted(ip)).peekable();
        if wanted.peek().is_some()
            && let Some(owner) = elections.elect(key).and_then(|election| election.owner)
        {
            successors.extend(wanted.map(|&ip| (ip, owner.clone())));
        }
    }
    successors
}

fn transitions(
    old: &BTreeMap<ServiceKey, L2Announcement>,
    new: &BTreeMap<ServiceKey, L2Announcement>,
) -> Vec<Transition> {
    let mut transitions = Vec::new();
    let mut push = |service: &ServiceKey, kind| transitions.push(Transition { service: service.clone(), kind });
    for (key, announcement) in new {
        let before = old.get(key);
        if before.is_none_or(|before| before.ips != announcement.ips) {
            push(key, TransitionKind::Announcing("layer2"));
        }
        if announcement.failed && before.is_none_or(|before| !before.failed) {
            announcement.ips.iter().for_each(|&ip| push(key, TransitionKind::Failed(ip)));
        }
    }
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    gone.for_each(|key| push(key, TransitionKind::Withdrawn("layer2")));
    transitions
}

/// The addresses of a Service's status, if each entry is one.
fn ips_of(service: &Service) -> Option<Vec<IpAddr>> {
    if service.ingress.is_empty() || service.ingress.iter().any(|ingress| ingress.ip.is_none()) {
        return None;
    }
    service.ingress_ips().collect()
}

/// Counters of the engines only grow.
fn raise(counter: &prometheus::IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

/// Who is alive when speakers do not gossip: nodes that are not known to be unready.
#[must_use]
pub fn live_by_readiness(cluster: &Cluster) -> LiveSpeakers {
    LiveSpeakers::Only(
        cluster.nodes.values().filter(|node| node.ready != Some(false)).map(|node| node.name.clone()).collect(),
    )
}

/// How many times obstacles are looked for until the kernel is asked once more.
const LOOKS_PER_QUESTION: u32 = 8;

/// How long peers may take to be told.
const SHUTDOWN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
