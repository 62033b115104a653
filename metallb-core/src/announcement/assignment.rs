//! The part that a node has in the announcement of an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Scope;
use crate::model::NodeName;

/// The addresses whose assignment changed, with the new one.
pub type AddressChanges = BTreeMap<IpAddr, Assignment>;

/// The role of a node for one address on L2.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Assignment {
    /// It answers for the address on these interfaces.
    Owner(Scope),
    /// It answers for the address on these interfaces when none of its predecessors is live, and not before.
    Standby(Scope, Predecessors),
    /// It answered for the address earlier. This node owns the address now, and others may have to learn of it.
    GivenUp(NodeName),
    /// Nothing.
    None,
}

/// The nodes that come before a node in the election order of an address, best first: the owner, then those that follow
/// it. There are at most [`SUCCESSORS`](crate::election::SUCCESSORS), and at least one. Addresses with the same
/// predecessors share the list.
pub type Predecessors = Arc<[NodeName]>;

/// The results of ranking all nodes, see [`NodeView::monitor`](super::NodeView::monitor).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ranked {
    /// The nodes to monitor: the predecessors of this node for any address. `None` where they are those of the last
    /// call and nothing asks for them again.
    pub monitor: Option<BTreeSet<NodeName>>,
    /// The assignments that changed. None of them begins or ends with [`Assignment::Owner`].
    pub addresses: AddressChanges,
}
