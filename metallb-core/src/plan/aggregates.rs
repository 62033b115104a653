//! Routes for several addresses that bring traffic to a node which drops it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::ServicePlan;
use crate::config::{ConfigReason, Problem};
use crate::model::{Cluster, NodeName, ObjectRef, PeerName, TrafficPolicy};

/// One problem for each Service with `externalTrafficPolicy: Local` whose address is covered by a route of a node that
/// announces the route for another Service and has no endpoint of this one.
pub(super) fn problems(services: &[ServicePlan], cluster: &Cluster) -> BTreeSet<Problem> {
    let mut nodes: BTreeMap<(&PeerName, IpNet), BTreeSet<&NodeName>> = BTreeMap::new();
    let is_aggregate = |prefix: IpNet| prefix.prefix_len() < prefix.max_prefix_len();
    for plan in services.iter().flat_map(|service| &service.bgp).filter(|plan| is_aggregate(plan.route.prefix)) {
        nodes.entry((&plan.peer, plan.route.prefix)).or_default().insert(&plan.node);
    }
    let mut found = BTreeSet::new();
    for service in services {
        let policy = cluster.services.get(&service.key).map(|service| &service.traffic_policy);
        if policy != Some(&TrafficPolicy::Local) {
            continue;
        }
        let mut own: BTreeMap<(&PeerName, IpNet), BTreeSet<&NodeName>> = BTreeMap::new();
        for plan in service.bgp.iter().filter(|plan| is_aggregate(plan.route.prefix)) {
            own.entry((&plan.peer, plan.route.prefix)).or_default().insert(&plan.node);
        }
        for (route, with_endpoint) in own {
            let Some(all) = nodes.get(&route) else { continue };
            let without: Vec<&str> = all.difference(&with_endpoint).map(|node| node.as_str()).collect();
            if without.is_empty() {
                continue;
            }
            let shown = without.iter().take(NODES_SHOWN).copied().collect::<Vec<_>>().join(", ");
            let more = if without.len() > NODES_SHOWN { ", …" } else { "" };
            let message = format!(
                "traffic that the route {} brings to {shown}{more} is dropped: these nodes announce it for other \
                 Services and have no endpoint of this one, which externalTrafficPolicy: Local demands; announce the \
                 addresses of such Services with aggregationLength 32 (IPv6: 128), or set externalTrafficPolicy: \
                 Cluster",
                route.1
            );
            let object = ObjectRef::new("Service", service.key.namespace.as_str(), &service.key.name);
            let code = ConfigReason::AggregateDropsTraffic;
            found.insert(Problem::warning(object, "spec.externalTrafficPolicy", code, message));
        }
    }
    found
}

const NODES_SHOWN: usize = 5;
