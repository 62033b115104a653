//! The facts of a cluster as plain values, usable without Kubernetes.
//!
//! Text that may be malformed stays text here (`load_balancer_ip`, `cluster_ips`, ingress addresses). The module that
//! decides parses it and handles the error.

mod annotations;
mod identity;
mod labels;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use annotations::{UnknownAnnotation, unknown_annotations};
pub use identity::{
    BfdProfileName, InterfaceName, NamespaceName, NodeName, ObjectRef, ObjectVersion, PeerName, PoolName, ServiceKey,
    Timestamp, Uid,
};
pub use labels::{LabelSelector, Labels, Requirement, Selector, SelectorError, SelectorOperator};
pub use service::{
    ALLOCATED_FROM, AnnotationKey, Ingress, IpFamilyPolicy, Protocol, Service, ServicePort, ServiceType, TrafficPolicy,
    WRITE_SETTLED,
};

/// Address family.
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

/// The properties of a node that elections and routes use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// `metadata.name`
    pub name: NodeName,
    /// `metadata.labels`
    pub labels: Labels,
    /// Whether the condition `NetworkUnavailable` is true.
    pub network_unavailable: bool,
    /// The condition `Ready`; `None` if it is not reported. Elections ignore it
    /// (`docs/upstream-behaviour.md#l2-election`); it replaces liveness where speakers do not gossip.
    pub ready: Option<bool>,
    /// Its own addresses (`InternalIP`). They are not announced for Services.
    pub addresses: BTreeSet<IpAddr>,
    /// Its addresses outside of the cluster's network (`ExternalIP`). Like `addresses`, they are not allocated.
    pub external_addresses: BTreeSet<IpAddr>,
}

impl Node {
    /// A node with this name; everything else is empty.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            labels: Labels::new(),
            network_unavailable: false,
            ready: None,
            addresses: BTreeSet::new(),
            external_addresses: BTreeSet::new(),
        }
    }

    /// Whether it carries the label `node.kubernetes.io/exclude-from-external-load-balancers`, with any value.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.labels.contains_key(EXCLUDE_LABEL)
    }
}

/// Treatment of the node label `node.kubernetes.io/exclude-from-external-load-balancers`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ExcludeLabel {
    /// A node with the label announces nothing.
    #[default]
    Honoured,
    /// The label is ignored (`--ignore-exclude-lb`).
    Ignored,
}

impl ExcludeLabel {
    /// Whether the label excludes a node from announcing.
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
    /// Whether it has an address. BGP requires one, L2 elections do not (`docs/upstream-behaviour.md#l2-election`).
    pub has_address: bool,
    /// The node it runs on.
    pub node: Option<NodeName>,
    /// `conditions.ready`
    pub ready: Option<bool>,
    /// `conditions.serving`
    pub serving: Option<bool>,
}

impl Endpoint {
    /// A ready endpoint with an address on this node.
    #[must_use]
    pub fn ready_on(node: impl Into<NodeName>) -> Self {
        Self { has_address: true, node: Some(node.into()), ready: Some(true), serving: None }
    }

    /// Whether `ready` is true or unset, or `serving` is true (`docs/upstream-behaviour.md#l2-election`).
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.ready.unwrap_or(true) || self.serving.unwrap_or(false)
    }
}

/// The facts about a cluster, without the configuration.
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
    /// Addresses that hosts outside of the cluster use, with their hardware addresses. They are not allocated.
    pub quarantined: BTreeMap<IpAddr, Arc<str>>,
}

/// Label of nodes that announce nothing, see [`ExcludeLabel`].
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
