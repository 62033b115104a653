//! From the configuration objects as written to one configuration that makes sense.
//!
//! [`Config::parse`] looks at everything once and returns *all* problems. An object with an error is left out and the rest
//! stays in force; [`ConfigStore`] keeps the last good form of an object that was edited into an error.

pub mod community;
pub mod duration;
pub mod legacy;
pub mod problem;
pub mod spec;

mod advertisements;
mod peers;
mod pools;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub(crate) use self::advertisements::local_preferences_clash;
pub use self::community::Community;
pub use self::problem::{ConfigReason, Problem, Severity};
pub use self::store::ConfigStore;
use crate::address::{self, AddressBlock};
use crate::config::spec::{Password, Resources, Spec};
use crate::model::{
    BfdProfileName, Cluster, InterfaceName, IpFamily, Labels, NamespaceName, Node, NodeName, ObjectRef, PeerName,
    PoolName, Selector,
};

/// A configuration in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// Pools by name.
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// Peers by name.
    pub peers: BTreeMap<PeerName, Arc<Peer>>,
    /// BFD profiles by name.
    pub bfd_profiles: BTreeMap<BfdProfileName, BfdProfile>,
}

/// What [`Config::parse`] found.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// All that makes sense.
    pub config: Config,
    /// All that does not, in object order.
    pub problems: Vec<Problem>,
}

impl Config {
    /// Checks everything. The result does not depend on the order of the objects: where two contradict each other the one
    /// created first stays, then the one whose name sorts first.
    #[must_use]
    pub fn parse(resources: &Resources, cluster: &Cluster) -> Parsed {
        Self::parse_after(&Incumbents::new(), resources, cluster)
    }

    /// The same, but `incumbents` outrank age.
    fn parse_after(incumbents: &Incumbents, resources: &Resources, cluster: &Cluster) -> Parsed {
        let mut problems = Vec::new();
        let bfd_profiles =
            peers::parse_bfd_profiles(unique(&resources.bfd_profiles, incumbents, &mut problems), &mut problems);
        let peer_specs = unique(&resources.peers, incumbents, &mut problems);
        let mut peers = peers::parse_peers(&peer_specs, &resources.secrets, &bfd_profiles, cluster, &mut problems);
        let pool_specs = unique(&resources.pools, incumbents, &mut problems);
        let pools = pools::parse_pools(&pool_specs, cluster, &mut problems);
        let aliases =
            advertisements::parse_communities(unique(&resources.communities, incumbents, &mut problems), &mut problems);
        let pools = advertisements::attach(resources, incumbents, pools, &aliases, cluster, &mut problems);
        peers::check_echo(&pools, &mut peers, &peer_specs, &bfd_profiles, &mut problems);
        problems.sort();
        problems.dedup();
        let config = Config {
            pools: pools.into_iter().map(|(name, pool)| (name, Arc::new(pool))).collect(),
            peers: peers.into_iter().map(|(name, peer)| (name, Arc::new(peer))).collect(),
            bfd_profiles,
        };
        Parsed { config, problems }
    }

    /// The first pool, by name, that contains all of `ips`. Buggy addresses are not looked at
    /// (`docs/upstream-behaviour.md#configuration-lookup`).
    #[must_use]
    pub fn pool_of(&self, ips: &[IpAddr]) -> Option<&Arc<Pool>> {
        self.pools.values().find(|pool| !ips.is_empty() && ips.iter().all(|&ip| pool.contains(ip)))
    }
}

/// An `IPAddressPool` that makes sense, with the advertisements that reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Its labels.
    pub labels: Labels,
    /// `spec.addresses` in written order; never empty.
    pub blocks: Vec<AddressBlock>,
    /// Whether it serves Services that do not ask for it.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in `.0` or `.255` are left alone.
    pub avoid_buggy_ips: bool,
    /// Whom it serves; `None` serves everybody.
    pub allocation: Option<ServiceAllocation>,
    /// L2 advertisements that reach it, by name.
    pub l2: Vec<Arc<L2Advertisement>>,
    /// BGP advertisements that reach it, by name.
    pub bgp: Vec<Arc<BgpAdvertisement>>,
}

impl Pool {
    /// All prefixes in the order in which addresses are handed out.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.blocks.iter().flat_map(AddressBlock::prefixes)
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.prefixes().any(|prefix| prefix.contains(&ip))
    }

    /// Whether it has addresses of a family.
    #[must_use]
    pub fn has_family(&self, family: IpFamily) -> bool {
        self.blocks.iter().any(|block| block.family() == family)
    }

    /// Usable addresses of a family; saturates at `i64::MAX`.
    #[must_use]
    pub fn capacity(&self, family: IpFamily) -> i64 {
        self.prefixes().filter(|prefix| IpFamily::of(prefix.addr()) == family).fold(0, |sum, prefix| {
            let avoided = if self.avoid_buggy_ips { address::buggy_count(prefix) } else { 0 };
            sum.saturating_add(address::capacity(prefix) - avoided)
        })
    }
}

/// `spec.serviceAllocation`: whom a pool serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceAllocation {
    /// `None` is the lowest preference (written as 0); otherwise lower is preferred.
    pub priority: Option<i64>,
    /// Namespaces, by name and by selector together; `None` is any namespace, the empty set is none
    /// (`docs/upstream-behaviour.md#configuration-pools`).
    pub namespaces: Option<BTreeSet<NamespaceName>>,
    /// One of these must match the Service's labels; none at all matches every Service.
    pub service_selectors: Vec<Selector>,
}

/// Which nodes an advertisement or a peer is for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum NodeSelection {
    /// Every node.
    All,
    /// Nodes that one of the selectors matches.
    Selected(Vec<Selector>),
}

impl NodeSelection {
    /// Whether a node is selected.
    #[must_use]
    pub fn selects(&self, node: &Node) -> bool {
        match self {
            Self::All => true,
            Self::Selected(selectors) => selectors.iter().any(|selector| selector.matches(&node.labels)),
        }
    }

    /// The names of the nodes that are selected.
    pub fn names<'a>(&'a self, nodes: &'a BTreeMap<NodeName, Node>) -> impl Iterator<Item = &'a NodeName> {
        nodes.values().filter(|node| self.selects(node)).map(|node| &node.name)
    }
}

/// An `L2Advertisement` that makes sense.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct L2Advertisement {
    /// Its name.
    pub name: Arc<str>,
    /// Nodes that may answer.
    pub nodes: NodeSelection,
    /// Interfaces to answer on; empty means all.
    pub interfaces: BTreeSet<InterfaceName>,
    /// One must match the Service's labels; none at all matches every Service.
    pub service_selectors: Vec<Selector>,
    /// Weights of preferred nodes; only nodes that `nodes` selects can score.
    pub preferences: Vec<(u32, Selector)>,
}

impl L2Advertisement {
    /// The sum of the weights that match a node, 0 for a node that is not selected
    /// (`docs/upstream-behaviour.md#l2-preferences`).
    #[must_use]
    pub fn score(&self, node: &Node) -> u64 {
        if self.preferences.is_empty() || !self.nodes.selects(node) {
            return 0;
        }
        self.preferences
            .iter()
            .filter(|(_, selector)| selector.matches(&node.labels))
            .map(|(weight, _)| u64::from(*weight))
            .sum()
    }
}

/// A `BGPAdvertisement` that makes sense.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BgpAdvertisement {
    /// Its name.
    pub name: Arc<str>,
    /// Prefix length of IPv4 routes, 0..=32.
    pub aggregation_length: u8,
    /// Prefix length of IPv6 routes, 0..=128.
    pub aggregation_length_v6: u8,
    /// `None` when not set: the default, 100.
    pub local_pref: Option<u32>,
    /// Communities to attach, aliases resolved.
    pub communities: BTreeSet<Community>,
    /// Nodes that are next hops.
    pub nodes: NodeSelection,
    /// Names of peers; `None` is all.
    pub peers: Option<BTreeSet<PeerName>>,
    /// One must match the Service's labels; none at all matches every Service.
    pub service_selectors: Vec<Selector>,
}

impl BgpAdvertisement {
    /// The prefix that is advertised for an address.
    #[must_use]
    pub fn prefix_of(&self, ip: IpAddr) -> IpNet {
        let length = match ip {
            IpAddr::V4(_) => self.aggregation_length,
            IpAddr::V6(_) => self.aggregation_length_v6,
        };
        // The lengths are within their family's bounds by construction; a host route would be the harmless answer.
        IpNet::new(ip, length).map_or_else(|_| IpNet::from(ip), |net| net.trunc())
    }
}

/// Whether one of `selectors`, or their absence, lets an object with these labels through.
#[must_use]
pub fn any_matches(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
}

/// A `BGPPeer` that makes sense.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// `metadata.name`
    pub name: PeerName,
    /// Where the router is.
    pub endpoint: PeerEndpoint,
    /// TCP port.
    pub port: u16,
    /// `myASN`
    pub my_asn: u32,
    /// What the router's number must be.
    pub remote_asn: RemoteAsn,
    /// `localASN`: the number shown to this router instead of `myASN`.
    pub local_asn: Option<u32>,
    /// `sourceAddress`
    pub source_address: Option<IpAddr>,
    /// `routerID`
    pub router_id: Option<Ipv4Addr>,
    /// Hold time, whole seconds, 0 or at least 3; `None` leaves the default.
    pub hold_time: Option<Duration>,
    /// Keepalive interval; `None` leaves the default.
    pub keepalive_time: Option<Duration>,
    /// `connectTime`: the pause between attempts.
    pub connect_time: Option<Duration>,
    /// TCP MD5 password.
    pub password: Option<Password>,
    /// Nodes that hold the session.
    pub nodes: NodeSelection,
    /// BFD profile to watch the router with.
    pub bfd_profile: Option<BfdProfileName>,
    /// Graceful restart: the router keeps the routes while a speaker restarts.
    pub graceful_restart: bool,
    /// The router is more than one hop away.
    pub ebgp_multihop: bool,
    /// VRF device.
    pub vrf: Option<InterfaceName>,
    /// Both families over one session.
    pub dual_stack: bool,
}

impl Peer {
    /// Whether the session carries a family: that of its address, both with `dualStackAddressFamily` or unnumbered.
    #[must_use]
    pub fn carries(&self, family: IpFamily) -> bool {
        match &self.endpoint {
            PeerEndpoint::Address(address) => self.dual_stack || IpFamily::of(*address) == family,
            PeerEndpoint::Interface(_) => true,
        }
    }

    /// `address:port`, the label of its metrics.
    #[must_use]
    pub fn metric_label(&self) -> String {
        match &self.endpoint {
            PeerEndpoint::Address(address) => std::net::SocketAddr::new(*address, self.port).to_string(),
            PeerEndpoint::Interface(interface) => format!("{interface}:{}", self.port),
        }
    }
}

/// Where a peer's router is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerEndpoint {
    /// At an address.
    Address(IpAddr),
    /// On the other end of an interface (unnumbered).
    Interface(InterfaceName),
}

/// The autonomous system number that is accepted from a router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteAsn {
    /// Exactly this one.
    Number(u32),
    /// `dynamicASN: internal`: the same as ours.
    Internal,
    /// `dynamicASN: external`: any other than ours.
    External,
}

/// A `BFDProfile` that makes sense; unset fields have their defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BfdProfile {
    /// Required minimum receive interval.
    pub receive_interval: Duration,
    /// Desired minimum transmit interval.
    pub transmit_interval: Duration,
    /// Detection multiplier.
    pub detect_multiplier: u8,
    /// Echo interval.
    pub echo_interval: Duration,
    /// Echo function wanted.
    pub echo_mode: bool,
    /// Wait for the router's packets before sending.
    pub passive_mode: bool,
    /// Lowest TTL accepted on multihop sessions.
    pub minimum_ttl: u8,
}

/// Objects that were in force before and have not changed since.
type Incumbents = BTreeSet<ObjectRef>;

/// Orders objects: incumbents first, then by age, then by name. Where two contradict each other the first in this order stays.
/// The content decides between two objects of one name, so that the order of reading never does.
fn by_precedence<'a, S: Spec>(specs: &'a [S], incumbents: &Incumbents) -> Vec<&'a S> {
    let mut ordered: Vec<&S> = specs.iter().collect();
    let rank = |spec: &S| {
        let meta = spec.meta();
        (!incumbents.contains(&spec.reference()), meta.created.is_none(), meta.created)
    };
    ordered
        .sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.meta().name.cmp(&b.meta().name)).then_with(|| a.cmp(b)));
    ordered
}

/// Drops later objects of one name, reporting each: in a cluster names differ, in a directory of manifests they may not.
fn unique<'a, S: Spec>(specs: &'a [S], incumbents: &Incumbents, problems: &mut Vec<Problem>) -> Vec<&'a S> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::with_capacity(specs.len());
    for spec in by_precedence(specs, incumbents) {
        if seen.insert((&spec.meta().namespace, &spec.meta().name)) {
            kept.push(spec);
        } else {
            let message = format!("duplicate definition of {} \"{}\"", S::KIND, spec.meta().name);
            problems.push(Problem::error(spec.reference(), "metadata.name", ConfigReason::DuplicateObject, message));
        }
    }
    kept
}

/// Parses a list of selectors whose entries must differ.
fn parse_selectors(
    raw: &[crate::model::LabelSelector],
    object: &ObjectRef,
    field: &str,
    problems: &mut Vec<Problem>,
) -> Option<Vec<Selector>> {
    let before = problems.len();
    let (mut written, mut parsed) = (BTreeSet::new(), BTreeSet::new());
    for (index, raw) in raw.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match raw.check_unique().and_then(|()| Selector::parse(raw)) {
            Ok(selector) => {
                if !written.insert(raw.with_sorted_values()) {
                    let message = format!("duplicate definition of selector \"{selector}\"");
                    problems.push(Problem::error(object.clone(), field, ConfigReason::DuplicateValue, message));
                }
                parsed.insert(selector);
            }
            Err(error) => {
                problems.push(Problem::error(object.clone(), field, ConfigReason::InvalidSelector, error.to_string()));
            }
        }
    }
    (problems.len() == before).then(|| parsed.into_iter().collect())
}

/// Reports entries that are given twice.
fn check_unique(values: &[String], what: &str, object: &ObjectRef, field: &str, problems: &mut Vec<Problem>) -> bool {
    let mut seen = BTreeSet::new();
    let mut ok = true;
    for (index, value) in values.iter().enumerate() {
        if !seen.insert(value) {
            let message = format!("duplicate definition of {what} \"{value}\"");
            let field = format!("{field}[{index}]");
            problems.push(Problem::error(object.clone(), field, ConfigReason::DuplicateValue, message));
            ok = false;
        }
    }
    ok
}

fn node_selection(selectors: Vec<Selector>) -> NodeSelection {
    if selectors.is_empty() { NodeSelection::All } else { NodeSelection::Selected(selectors) }
}
