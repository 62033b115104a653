//! BGP identifiers that several nodes would have.

use crate::config::spec::Resources;
use crate::config::{Config, ConfigReason, Problem};
use crate::model::{Cluster, ObjectRef};
use crate::routes::peers_of;

/// One problem for each peer with a `routerID` that more than one node would use (RFC 6286 §2.1).
pub(super) fn problems(config: &Config, resources: &Resources, cluster: &Cluster) -> Vec<Problem> {
    let problem = |peer: &crate::config::Peer| {
        let id = peer.router_id?;
        let has_peer = |node: &&crate::model::Node| peers_of(config, node).any(|of_node| of_node.name == peer.name);
        let nodes: Vec<&str> = cluster.nodes.values().filter(has_peer).map(|node| node.name.as_str()).collect();
        if nodes.len() < 2 {
            return None;
        }
        let shown = nodes.iter().take(NODES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        let more = if nodes.len() > NODES_SHOWN { ", …" } else { "" };
        let message = format!(
            "the nodes {shown}{more} would all have the BGP identifier {id}, and a router may accept only one of them: \
             remove routerID, or make a BGPPeer with nodeSelectors for each node"
        );
        let spec = resources.peers.iter().find(|spec| spec.meta.name == peer.name.as_str());
        let namespace = spec.map_or("", |spec| spec.meta.namespace.as_str());
        let object = ObjectRef::new("BGPPeer", namespace, peer.name.as_str());
        Some(Problem::warning(object, "spec.routerID", ConfigReason::SharedRouterId, message))
    };
    config.peers.values().filter_map(|peer| problem(peer)).collect()
}

const NODES_SHOWN: usize = 5;
