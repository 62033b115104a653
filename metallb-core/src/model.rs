//! The facts of a cluster as plain values, usable without Kubernetes.
//!
//! Text that may be malformed stays text here (`load_balancer_ip`, `cluster_ips`, ingress addresses): whether it is malformed,
//! and what follows, is a decision and belongs to the module that takes it.

mod identity;
mod labels;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use identity::{
    BfdProfileName, InterfaceName, NamespaceName, NodeName, ObjectRef, ObjectVersion, PeerName, PoolName, ServiceKey,
    Timestamp, TimestampError, Uid,
};
pub use labels::{LabelSelector, Labels, Requirement, Selector, SelectorError, SelectorOperator};
pub use service::{
    ALLOCATED_FROM, AnnotationKey, Ingress, IpFamilyPolicy, Protocol, Service, ServicePort, ServiceType, TrafficPolicy,
    WRITE_SETTLED,
};

/// One of the two stacks.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A node, as far as elections and routes need it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// `metadata.name`
    pub name: NodeName,
    /// `metadata.labels`
    pub labels: Labels,
    /// Whether the condition `NetworkUnavailable` is true.
    pub network_unavailable: bool,
    /// The condition `Ready`; `None` when it is not reported. It plays no part in an election
    /// (`docs/upstream-behaviour.md#l2-election`): it
    /// stands in for liveness where speakers do not gossip.
    pub ready: Option<bool>,
    /// Its own addresses (`InternalIP`): no Service can have them.
    pub addresses: BTreeSet<IpAddr>,
}

impl Node {
    /// A node with this name and nothing else known.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            labels: Labels::new(),
            network_unavailable: false,
            ready: None,
            addresses: BTreeSet::new(),
        }
    }

    /// Whether it carries the label `node.kubernetes.io/exclude-from-external-load-balancers`, with any value.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.labels.contains_key(EXCLUDE_LABEL)
    }
}

/// What the label `node.kubernetes.io/exclude-from-external-load-balancers` of a node means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ExcludeLabel {
    /// The node announces nothing.
    #[default]
    Honoured,
    /// Nothing (`--ignore-exclude-lb`).
    Ignored,
}

impl ExcludeLabel {
    /// Whether it keeps a node from announcing.
    #[must_use]
    pub fn excludes(self, node: &Node) -> bool {
        self == Self::Honoured && node.is_excluded()
    }
}

/// A namespace, for the `namespaceSelectors` of pools.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace {
    /// `metadata.name`
    pub name: NamespaceName,
    /// `metadata.labels`
    pub labels: Labels,
}

/// One endpoint of a Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Endpoint {
    /// Whether it has an address; BGP demands one, L2 does not look (`docs/upstream-behaviour.md#l2-election`).
    pub has_address: bool,
    /// The node it runs on.
    pub node: Option<NodeName>,
    /// `conditions.ready`
    pub ready: Option<bool>,
    /// `conditions.serving`
    pub serving: Option<bool>,
}

impl Endpoint {
    /// Usable means: ready is true or unset, or serving is true (`docs/upstream-behaviour.md#l2-election`).
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.ready.unwrap_or(true) || self.serving.unwrap_or(false)
    }
}

/// Everything about a cluster but its configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cluster {
    /// All Services, also those that are not of type LoadBalancer.
    pub services: BTreeMap<ServiceKey, Service>,
    /// The endpoints of each Service, from all its slices.
    pub endpoints: BTreeMap<ServiceKey, Vec<Endpoint>>,
    /// All nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// All namespaces.
    pub namespaces: BTreeMap<NamespaceName, Namespace>,
    /// Addresses that hosts outside of the cluster use, and the hardware address of each: they are handed out to nobody.
    pub quarantined: BTreeMap<IpAddr, Arc<str>>,
}

/// Nodes that carry it announce nothing unless told to ignore it.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
