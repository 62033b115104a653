//! Validation of the configuration objects.
//!
//! [`Config::parse`] checks all objects and returns *all* problems. An object with an error is left out; the others
//! stay in force. [`ConfigStore`] keeps the last valid form of an object that was edited into an error.

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
#[non_exhaustive]
pub struct Config {
    /// Pools by name.
    pub pools: BTreeMap<PoolName, Arc<Pool>>,
    /// Peers by name.
    pub peers: BTreeMap<PeerName, Arc<Peer>>,
    /// BFD profiles by name.
    pub bfd_profiles: BTreeMap<BfdProfileName, BfdProfile>,
    /// Pools that exist but are invalid or cannot be read, with no valid form to fall back on, and those of their
    /// address blocks that can be parsed. A Service that holds an address of such a pool keeps it.
    pub withheld: BTreeMap<PoolName, Vec<AddressBlock>>,
    /// Pools that were deleted within the grace time of the [`ConfigStore`], as they were. No address is allocated from
    /// them; a Service that holds one keeps it, and it is still announced.
    pub departed: BTreeMap<PoolName, Arc<Pool>>,
    /// Addresses of nodes inside of pools. They are not allocated, unless the pool has the annotation
    /// [`ALLOW_NODE_ADDRESSES`].
    pub node_addresses: BTreeMap<IpAddr, NodeName>,
}

/// How long Services keep the addresses of a deleted pool in a cluster, see [`ConfigStore::with_grace`].
pub const POOL_GRACE: Duration = Duration::from_secs(30);

/// Annotation of an `IPAddressPool`: with the value `true`, addresses of nodes inside of the pool are allocated.
pub const ALLOW_NODE_ADDRESSES: &str = "metallb.io/allow-node-addresses";

/// Result of [`Config::parse`].
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The valid objects.
    pub config: Config,
    /// Errors and warnings, in the order of their objects.
    pub problems: Vec<Problem>,
}

impl Config {
    /// Checks all objects. The result does not depend on their order: of two conflicting objects the older one stays in
    /// force, then the one whose name sorts first.
    #[must_use]
    pub fn parse(resources: &Resources, cluster: &Cluster) -> Parsed {
        let mut parsed = Self::parse_after(&Incumbents::new(), resources, cluster);
        parsed.problems.extend(unreadable(resources));
        parsed.problems.sort();
        parsed
    }

    /// Like [`Config::parse`], but `incumbents` precede older objects.
    fn parse_after(incumbents: &Incumbents, resources: &Resources, cluster: &Cluster) -> Parsed {
        let mut problems = Vec::new();
        let bfd_profiles =
            peers::parse_bfd_profiles(unique(&resources.bfd_profiles, incumbents, &mut problems), &mut problems);
        let peer_specs = unique(&resources.peers, incumbents, &mut problems);
        let mut peers = peers::parse_peers(&peer_specs, &resources.secrets, &bfd_profiles, cluster, &mut problems);
        let pool_specs = unique(&resources.pools, incumbents, &mut problems);
        let pools = pools::parse_pools(&pool_specs, cluster, &mut problems);
        let node_addresses = pools::node_addresses(&pool_specs, &pools, cluster, &mut problems);
        let withheld = pools::withheld(&resources.pools, &resources.unreadable, &pools);
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
            withheld,
            departed: BTreeMap::new(),
            node_addresses,
        };
        Parsed { config, problems }
    }

    /// The first pool, by name, that contains all of `ips`; departed pools come last. `avoidBuggyIPs` is ignored
    /// (`docs/upstream-behaviour.md#configuration-lookup`).
    #[must_use]
    pub fn pool_of(&self, ips: &[IpAddr]) -> Option<&Arc<Pool>> {
        self.announced_pools().find(|pool| !ips.is_empty() && ips.iter().all(|&ip| pool.contains(ip)))
    }

    /// Whether both configurations lead to the same assignments.
    #[must_use]
    pub fn assigns_like(&self, other: &Self) -> bool {
        self.pools == other.pools
            && self.withheld == other.withheld
            && self.departed == other.departed
            && self.node_addresses == other.node_addresses
    }

    /// The pools whose addresses are announced: those in force, then the departed ones.
    pub fn announced_pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values().chain(self.departed.values())
    }
}

/// A valid `IPAddressPool` with the advertisements that reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Its labels.
    pub labels: Labels,
    /// `spec.addresses` in written order; never empty.
    pub blocks: Vec<AddressBlock>,
    /// Whether Services that do not request it may get addresses from it.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in `.0` or `.255` are not allocated.
    pub avoid_buggy_ips: bool,
    /// Restriction to some Services; `None` means all Services.
    pub allocation: Option<ServiceAllocation>,
    /// L2 advertisements that reach it, by name.
    pub l2: Vec<Arc<L2Advertisement>>,
    /// BGP advertisements that reach it, by name.
    pub bgp: Vec<Arc<BgpAdvertisement>>,
}

impl Pool {
    /// All prefixes in the order of allocation.
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

/// `spec.serviceAllocation`: restricts a pool to some Services.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServiceAllocation {
    /// Lower numbers are preferred; `None` (written as 0) comes last.
    pub priority: Option<i64>,
    /// Union of the namespaces that are listed and those that are selected. `None` means any namespace, the empty set
    /// none (`docs/upstream-behaviour.md#configuration-pools`).
    pub namespaces: Option<BTreeSet<NamespaceName>>,
    /// One of these must match the labels of the Service; an empty list matches every Service.
    pub service_selectors: Vec<Selector>,
}

/// Nodes of an advertisement or a peer.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum NodeSelection {
    /// Every node.
    All,
    /// Nodes that at least one of the selectors matches.
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

    /// The names of the selected nodes.
    pub fn names<'a>(&'a self, nodes: &'a BTreeMap<NodeName, Node>) -> impl Iterator<Item = &'a NodeName> {
        nodes.values().filter(|node| self.selects(node)).map(|node| &node.name)
    }
}

/// A valid `L2Advertisement`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct L2Advertisement {
    /// Its name.
    pub name: Arc<str>,
    /// Nodes that may announce.
    pub nodes: NodeSelection,
    /// Interfaces on which addresses are announced; empty means all.
    pub interfaces: BTreeSet<InterfaceName>,
    /// One of these must match the labels of the Service; an empty list matches every Service.
    pub service_selectors: Vec<Selector>,
    /// Weights of preferred nodes. They count only for nodes that `nodes` selects.
    pub preferences: Vec<(u32, Selector)>,
}

impl L2Advertisement {
    /// The sum of the matching weights; 0 for a node that is not selected
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

/// A valid `BGPAdvertisement`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BgpAdvertisement {
    /// Its name.
    pub name: Arc<str>,
    /// Prefix length of IPv4 routes, 0..=32.
    pub aggregation_length: u8,
    /// Prefix length of IPv6 routes, 0..=128.
    pub aggregation_length_v6: u8,
    /// `None` if not set; routes then carry the default, 100.
    pub local_pref: Option<u32>,
    /// Communities, with aliases resolved.
    pub communities: BTreeSet<Community>,
    /// Nodes that advertise the routes.
    pub nodes: NodeSelection,
    /// Names of peers; `None` means all.
    pub peers: Option<BTreeSet<PeerName>>,
    /// One of these must match the labels of the Service; an empty list matches every Service.
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
        // The lengths are valid by construction; a host route is the safe fallback.
        IpNet::new(ip, length).map_or_else(|_| IpNet::from(ip), |net| net.trunc())
    }
}

/// Whether the list is empty or one of `selectors` matches these labels.
#[must_use]
pub fn any_matches(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
}

/// A valid `BGPPeer`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Peer {
    /// `metadata.name`
    pub name: PeerName,
    /// Address or interface of the router.
    pub endpoint: PeerEndpoint,
    /// TCP port.
    pub port: u16,
    /// `myASN`
    pub my_asn: u32,
    /// The AS number that the router must have.
    pub remote_asn: RemoteAsn,
    /// `localASN`: the AS number that this router sees instead of `myASN`.
    pub local_asn: Option<u32>,
    /// `sourceAddress`
    pub source_address: Option<IpAddr>,
    /// `routerID`
    pub router_id: Option<Ipv4Addr>,
    /// Hold time in whole seconds, 0 or at least 3; `None` means the default.
    pub hold_time: Option<Duration>,
    /// Keepalive interval; `None` means the default.
    pub keepalive_time: Option<Duration>,
    /// `connectTime`: interval between connection attempts.
    pub connect_time: Option<Duration>,
    /// TCP MD5 password.
    pub password: Option<Password>,
    /// Nodes that open a session.
    pub nodes: NodeSelection,
    /// BFD profile of the session.
    pub bfd_profile: Option<BfdProfileName>,
    /// Whether the router keeps the routes while a speaker restarts (RFC 4724).
    pub graceful_restart: bool,
    /// Whether the router may be more than one hop away.
    pub ebgp_multihop: bool,
    /// VRF device.
    pub vrf: Option<InterfaceName>,
    /// Whether the session carries both families.
    pub dual_stack: bool,
}

impl Peer {
    /// Whether the session carries a family: that of the peer address, or both if `dualStackAddressFamily` is set or
    /// the peer is unnumbered.
    #[must_use]
    pub fn carries(&self, family: IpFamily) -> bool {
        match &self.endpoint {
            PeerEndpoint::Address(address) => self.dual_stack || IpFamily::of(*address) == family,
            PeerEndpoint::Interface(_) => true,
        }
    }

    /// Whether the router is in the autonomous system of the session.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        match self.remote_asn {
            RemoteAsn::Number(number) => number == self.local_asn.unwrap_or(self.my_asn),
            RemoteAsn::Internal => true,
            RemoteAsn::External => false,
        }
    }

    /// `address:port`, the value of the label `peer` of its metrics.
    #[must_use]
    pub fn metric_label(&self) -> String {
        match &self.endpoint {
            PeerEndpoint::Address(address) => std::net::SocketAddr::new(*address, self.port).to_string(),
            PeerEndpoint::Interface(interface) => format!("{interface}:{}", self.port),
        }
    }
}

/// Address or interface of a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerEndpoint {
    /// The router has this address.
    Address(IpAddr),
    /// The router is the neighbour on this interface (unnumbered).
    Interface(InterfaceName),
}

/// The AS number that is accepted from a router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteAsn {
    /// Exactly this number.
    Number(u32),
    /// `dynamicASN: internal`: equal to `myASN`.
    Internal,
    /// `dynamicASN: external`: different from `myASN`.
    External,
}

/// A valid `BFDProfile`; unset fields have their defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdProfile {
    /// Required minimum receive interval.
    pub receive_interval: Duration,
    /// Desired minimum transmit interval.
    pub transmit_interval: Duration,
    /// Detection multiplier.
    pub detect_multiplier: u8,
    /// Echo interval.
    pub echo_interval: Duration,
    /// Whether the echo function is used.
    pub echo_mode: bool,
    /// Whether sending starts only after a packet from the router.
    pub passive_mode: bool,
    /// Minimum TTL of packets on multihop sessions.
    pub minimum_ttl: u8,
}

/// The problems of objects that cannot be read.
fn unreadable(resources: &Resources) -> impl Iterator<Item = Problem> {
    resources.unreadable.iter().filter_map(|(object, unreadable)| {
        let error = unreadable.error.as_deref()?;
        let message = format!("the object cannot be read: {error}");
        Some(Problem::error(object.clone(), "", ConfigReason::Malformed, message))
    })
}

/// Objects that are in force and did not change.
type Incumbents = BTreeSet<ObjectRef>;

/// Orders objects: incumbents first, then by age, then by name. Of two conflicting objects the first one stays in
/// force. The content orders objects of one name, so that the order of the input has no effect.
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

/// Drops and reports all but the first object of a name. Manifest files may contain duplicates, a cluster does not.
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

/// Parses a list of selectors; equal entries are an error.
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

/// Reports duplicate entries.
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
