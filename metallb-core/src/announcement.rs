//! What one node announces: which addresses it answers for on L2 and where, which routes it offers to which peer, which
//! nodes take its addresses over and whose addresses it takes over, which addresses it probes first, and why a Service
//! is not announced.
//!
//! A [`NodeView`] keeps all of it in step with the facts, and costs what changes. It has no effects: whoever owns it
//! turns each [`Update`] into calls of the protocol engines. `plan` and `explain` use the same parts for all nodes:
//! [`holder`], [`Elections`] and [`ExportPolicy`].

pub mod export;

mod answers;
mod assignment;
mod change;
mod monitor;
mod not_announced;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use self::answers::{Answering, Scopes, Step};
pub use self::assignment::{AddressChanges, Assignment, Predecessors, Ranked};
pub use self::change::{AnnouncementChange, Protocol, Transition, TransitionKind};
use self::export::{Exports, RouteChanges, RouteTable};
use self::monitor::Monitoring;
pub use self::not_announced::NotAnnounced;
use crate::config::{Config, L2Advertisement, Pool};
use crate::election::{ElectionRules, Elections, Holder, L2Reason, LiveSpeakers, Work, interfaces};
use crate::model::{Cluster, ExcludeLabel, InterfaceName, Node, NodeName, PeerName, Service, ServiceKey, ServiceType};
use crate::routes::ExportPolicy;

/// How a speaker is configured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The load balancer class that is handled (`--lb-class`).
    pub class: Option<String>,
    /// Whether nodes with the exclude label take part.
    pub exclude_label: ExcludeLabel,
}

/// The facts that a node decides from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// Services, endpoints and nodes.
    pub cluster: &'a Cluster,
    /// The nodes with a live speaker; `None` where they are those of the last step.
    pub live: Option<&'a LiveSpeakers>,
    /// The interfaces of this node that can be announced on, by name.
    pub interfaces: &'a BTreeSet<Arc<str>>,
}

/// The facts that may be different since the last step. Interfaces are compared in each step.
#[derive(Clone, Copy, Debug)]
pub enum Touched<'a> {
    /// Anything.
    Everything,
    /// The configuration, nodes and live speakers, and of the Services these and their endpoints.
    Configuration(&'a BTreeSet<ServiceKey>),
    /// Only these Services and their endpoints.
    Services(&'a BTreeSet<ServiceKey>),
    /// Only the live speakers.
    Live,
}

/// The effects of a step. Facts that are known already change nothing.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// The addresses on L2 whose assignment changed. Where this node is on standby, the order of its predecessors may
    /// be that of an earlier step until [`NodeView::monitor`] is called.
    pub addresses: AddressChanges,
    /// Addresses of this node that no Service had before: worth a probe before they are announced.
    pub probe: BTreeSet<IpAddr>,
    /// The addresses of the other nodes, if they changed: this node must not answer for them.
    pub node_addresses: Option<BTreeSet<IpAddr>>,
    /// Routes to offer or to withdraw, by peer.
    pub routes: RouteChanges,
    /// The Services whose entry in [`Announced`] changed.
    pub changes: Vec<AnnouncementChange>,
    /// Announcements that began, ended or failed.
    pub transitions: Vec<Transition>,
}

/// The interfaces on which an address is announced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All of them.
    All,
    /// Only those with these names.
    Only(BTreeSet<InterfaceName>),
}

/// The announcements of a node, by Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Announced {
    /// On L2.
    pub l2: BTreeMap<ServiceKey, L2Announcement>,
    /// By BGP: the addresses and the peers that they are offered to.
    pub bgp: BTreeMap<ServiceKey, (Vec<IpAddr>, Arc<BTreeSet<PeerName>>)>,
}

/// One Service on L2.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct L2Announcement {
    /// The addresses.
    pub ips: Vec<IpAddr>,
    /// The interfaces; empty means all of them.
    pub interfaces: Vec<InterfaceName>,
    /// Whether none of the interfaces exists.
    pub failed: bool,
}

/// The announcements of one node.
#[derive(Debug)]
pub struct NodeView {
    node: NodeName,
    options: Options,
    /// The pools of the last step.
    pools: Vec<Arc<Pool>>,
    /// This node as of the last step.
    me: Option<Node>,
    /// The addresses of the other nodes.
    node_addresses: BTreeSet<IpAddr>,
    elections: Elections,
    answering: Answering,
    monitoring: Monitoring,
    /// The inputs of its routes; `None` while the node does not exist.
    policy: Option<ExportPolicy>,
    exports: Exports,
    announced: Announced,
}

impl NodeView {
    /// Nothing is announced yet.
    #[must_use]
    pub fn new(node: NodeName, options: Options) -> Self {
        let rules = ElectionRules { live: LiveSpeakers::Only(BTreeSet::new()), exclude_label: options.exclude_label };
        Self {
            node,
            options,
            pools: Vec::new(),
            me: None,
            node_addresses: BTreeSet::new(),
            elections: Elections::new(rules),
            answering: Answering::default(),
            monitoring: Monitoring::default(),
            policy: None,
            exports: Exports::default(),
            announced: Announced::default(),
        }
    }

    /// Takes the facts in. Facts that `touched` leaves out must be as in the last step.
    pub fn apply(&mut self, facts: Facts<'_>, touched: Touched<'_>) -> Update {
        let mut update = Update::default();
        let scopes = match touched {
            Touched::Everything | Touched::Configuration(_) => self.take_nodes(facts, &mut update),
            Touched::Services(_) | Touched::Live => Scopes::Same,
        };
        let elects_anew = !matches!(touched, Touched::Services(_));
        if elects_anew {
            let live = facts.live.unwrap_or(&self.elections.rules().live).clone();
            self.elections.set_nodes(&facts.cluster.nodes, live);
        }
        match touched {
            Touched::Everything => {
                self.take_configuration(facts);
                self.look_at_all(facts, &mut update);
            }
            Touched::Configuration(services) => match self.take_configuration(facts) {
                Reach::Same => services.iter().for_each(|service| self.look_at(service, facts, &mut update)),
                Reach::Changed => self.look_at_all(facts, &mut update),
            },
            Touched::Services(services) => {
                services.iter().for_each(|service| self.look_at(service, facts, &mut update));
            }
            Touched::Live => {}
        }
        let step = Step { node: &self.node, me: self.me.as_ref(), interfaces: facts.interfaces, scopes };
        let ips = self.answering.step(step, &mut self.elections, &mut self.announced.l2, &mut update);
        self.monitoring.open(ips);
        if elects_anew {
            self.monitoring.ask_again();
        }
        if scopes == Scopes::Changed {
            self.monitoring.open_all();
        }
        update
    }

    /// Ranks the other nodes: which of them to monitor, and for which addresses this node is on standby. It monitors
    /// exactly those nodes whose addresses it would take over. Ranking takes longer than [`apply`](Self::apply), and
    /// nothing that is announced waits for it.
    pub fn monitor(&mut self) -> Ranked {
        let changed = self.elections.settle(NonZeroUsize::MIN);
        self.monitoring.open(changed.ips.into_keys());
        self.monitoring.follow(&self.node, self.me.as_ref(), &mut self.elections, &mut self.answering)
    }

    /// The nodes that take over when this one leaves, for every address that it answers for or gave up.
    #[must_use]
    pub fn hand_over(&self, nodes: &BTreeMap<NodeName, Node>) -> BTreeMap<IpAddr, NodeName> {
        let mut live: BTreeSet<NodeName> = match &self.elections.rules().live {
            LiveSpeakers::EveryNode => nodes.keys().cloned().collect(),
            LiveSpeakers::Only(names) => names.clone(),
        };
        live.remove(&self.node);
        let mut others = self.elections.clone();
        others.set_nodes(nodes, LiveSpeakers::Only(live));
        others.settle_for(&self.node);
        self.answering.handed_over().filter_map(|ip| Some((ip, others.find_owner(ip)?))).collect()
    }

    /// The announcements as of the last step.
    #[must_use]
    pub const fn announced(&self) -> &Announced {
        &self.announced
    }

    /// All routes that these peers are offered, once for those that are offered the same.
    #[must_use]
    pub fn routes_of<'a>(&self, peers: impl IntoIterator<Item = &'a str>) -> Vec<(Vec<&'a str>, RouteTable)> {
        self.exports.of_each(peers)
    }

    /// The addresses of Services on L2, whichever node answers for them; in no promised order.
    pub fn l2_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.elections.ips()
    }

    /// The Services that no node answers for on L2, or that this node offers no routes for, and why. Of the two ways
    /// only those count that the pool is meant for; both, if for none. It looks at all Services and hashes nothing.
    #[must_use]
    pub fn not_announced(&self, config: &Config, cluster: &Cluster) -> BTreeMap<ServiceKey, NotAnnounced> {
        let reasons = |(key, service): (&ServiceKey, &Service)| {
            let ips = service.status_ips()?;
            let holder = holder(config, self.options.class.as_deref(), service, &ips)?;
            let (has_l2, has_bgp) = (!holder.pool.l2.is_empty(), !holder.pool.bgp.is_empty());
            let l2 = match has_l2 {
                true => self.elections.refusal(key),
                false => (!has_bgp).then_some(L2Reason::NoMatchingAdvertisement),
            };
            let is_offered = self.announced.bgp.contains_key(key) || !has_bgp && has_l2;
            let policy = self.policy.as_ref().filter(|_| !is_offered);
            let bgp = policy.and_then(|policy| policy.routes(holder, cluster).reason);
            (l2.is_some() || bgp.is_some()).then(|| (key.clone(), NotAnnounced { l2, bgp }))
        };
        cluster.services.iter().filter_map(reasons).collect()
    }

    /// The work done so far.
    #[must_use]
    pub const fn work(&self) -> Work {
        let addresses_read = self.answering.looked_at() + self.monitoring.looked_at();
        Work { addresses_read, ..self.elections.work() }
    }

    /// Takes this node and the addresses of the others in. Whether its interfaces for some Services may be others.
    fn take_nodes(&mut self, facts: Facts<'_>, update: &mut Update) -> Scopes {
        let nodes = &facts.cluster.nodes;
        let others = nodes.values().filter(|node| node.name != self.node);
        let addresses: BTreeSet<IpAddr> = others.flat_map(|node| node.addresses.iter().copied()).collect();
        if addresses != self.node_addresses {
            update.node_addresses = Some(addresses.clone());
            self.node_addresses = addresses;
        }
        let me = nodes.get(&self.node);
        if me == self.me.as_ref() {
            return Scopes::Same;
        }
        let before = std::mem::replace(&mut self.me, me.cloned());
        let scope = |ads: &[Arc<L2Advertisement>], me: Option<&Node>| me.map(|me| interfaces(ads, me));
        let differs = |ads: &[Arc<L2Advertisement>]| scope(ads, me) != scope(ads, before.as_ref());
        if self.elections.advertisement_sets().any(differs) { Scopes::Changed } else { Scopes::Same }
    }

    /// Takes the configuration in. Whether Services other than the touched ones may be announced otherwise than before.
    fn take_configuration(&mut self, facts: Facts<'_>) -> Reach {
        let policy = self.me.as_ref().map(|me| ExportPolicy::of(facts.config, me, self.options.exclude_label));
        let pools: Vec<Arc<Pool>> = facts.config.announced_pools().cloned().collect();
        let same_pools =
            pools.len() == self.pools.len() && pools.iter().zip(&self.pools).all(|(a, b)| same_reach(a, b));
        let reach = if same_pools && policy == self.policy { Reach::Same } else { Reach::Changed };
        (self.policy, self.pools) = (policy, pools);
        reach
    }

    fn look_at_all(&mut self, facts: Facts<'_>, update: &mut Update) {
        let known = self.elections.services().chain(self.exports.services());
        let gone: BTreeSet<ServiceKey> =
            known.filter(|service| !facts.cluster.services.contains_key(*service)).cloned().collect();
        for service in facts.cluster.services.keys().chain(&gone) {
            self.look_at(service, facts, update);
        }
        self.exports.sweep();
    }

    /// Reads one Service, which may be gone.
    fn look_at(&mut self, key: &ServiceKey, facts: Facts<'_>, update: &mut Update) {
        let service = facts.cluster.services.get(key);
        let ips = service.and_then(Service::status_ips).unwrap_or_default();
        let holder = service.and_then(|service| holder(facts.config, self.options.class.as_deref(), service, &ips));
        match holder.filter(|holder| !holder.pool.l2.is_empty()) {
            Some(holder) => self.elections.set(holder, facts.cluster),
            None => self.elections.remove(key),
        }
        let routes =
            holder.zip(self.policy.as_ref()).map(|(holder, policy)| policy.routes(holder, facts.cluster).by_peer);
        self.exports.set(key, routes.unwrap_or_default(), &mut update.routes);
        let peers = self.exports.peers_of(key);
        let now = (!peers.is_empty()).then_some((ips, peers));
        let before = self.announced.bgp.get(key);
        if before == now.as_ref() {
            return;
        }
        let change = AnnouncementChange {
            service: key.clone(),
            protocol: Protocol::Bgp,
            before: before.map(|(ips, _)| ips.clone()),
            after: now.as_ref().map(|(ips, _)| ips.clone()),
        };
        update.transitions.extend(change.transition());
        update.changes.push(change);
        match now {
            Some(now) => drop(self.announced.bgp.insert(key.clone(), now)),
            None => drop(self.announced.bgp.remove(key)),
        }
    }
}

/// A Service as the holder of `ips`, if it is one that is announced: of the right type and class, with addresses of one
/// pool.
#[must_use]
pub fn holder<'a>(
    config: &'a Config,
    class: Option<&str>,
    service: &'a Service,
    ips: &'a [IpAddr],
) -> Option<Holder<'a>> {
    let is_ours = service.service_type == ServiceType::LoadBalancer && service.is_of_class(class);
    let pool = config.pool_of(ips).filter(|_| is_ours)?;
    Some(Holder { service, pool, ips })
}

/// The live speakers where speakers do not gossip: those of nodes that are not known to be unready.
#[must_use]
pub fn live_by_readiness(nodes: &BTreeMap<NodeName, Node>) -> LiveSpeakers {
    let ready = nodes.values().filter(|node| node.ready != Some(false));
    LiveSpeakers::Only(ready.map(|node| node.name.clone()).collect())
}

/// Whether Services of both pools take part in the same elections. What routes read of a pool is part of the
/// [`ExportPolicy`].
fn same_reach(a: &Pool, b: &Pool) -> bool {
    // A new field must be put on either side: which Services a pool has and which elections they take part in, or not.
    let Pool { name, blocks, l2, labels: _, auto_assign: _, avoid_buggy_ips: _, allocation: _, bgp: _ } = a;
    (name, blocks, l2) == (&b.name, &b.blocks, &b.l2)
}

/// Whether the configuration reaches Services in another way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reach {
    Same,
    Changed,
}

#[cfg(test)]
mod tests;
