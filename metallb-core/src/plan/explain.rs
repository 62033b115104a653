//! The story of one Service or one address: what was decided, what spoke against the rest, and what is missing.

use std::net::IpAddr;

use serde::Serialize;

use super::{L2Plan, Plan, PlanOptions, RoutePlan, ServicePlan, plan};
use crate::config::spec::Resources;
use crate::config::{Config, Pool, any_matches};
use crate::election::{Elections, Holder, advertisements};
use crate::model::{Cluster, NodeName, PeerName, PoolName, Service, ServiceKey};
use crate::routes::{BgpReason, routes};

/// Everything that was decided about one Service, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What becomes of it, with every node as a candidate however many there are.
    pub service: ServicePlan,
    /// What each node offers to routers, by node.
    pub routing: Vec<NodeRouting>,
    /// What would have to exist, or to be different, for more to happen.
    pub missing: Vec<Missing>,
}

/// What one node offers for a Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeRouting {
    /// The node.
    pub node: NodeName,
    /// Why it offers routes, or none.
    pub reason: BgpReason,
    /// The peers it offers them to.
    pub peers: Vec<PeerName>,
}

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missing {
    /// What, for machines.
    pub code: MissingReason,
    /// What, for people.
    pub message: String,
}

/// What may be missing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum MissingReason {
    /// The Service belongs to another load balancer class.
    OurClass,
    /// No pool exists.
    Pool,
    /// No L2Advertisement reaches the pool.
    L2Advertisement,
    /// L2Advertisements reach the pool, but none is for the Service.
    L2AdvertisementForService,
    /// No BGPAdvertisement reaches the pool.
    BgpAdvertisement,
    /// BGPAdvertisements reach the pool, but none is for the Service.
    BgpAdvertisementForService,
    /// BGPAdvertisements are there, but no BGPPeer.
    Peer,
    /// The Service has no usable endpoint.
    Endpoint,
    /// The cluster has no node.
    Node,
}

impl MissingReason {
    /// All reasons with one sentence each.
    pub const ALL: &[(Self, &str)] = &[
        (Self::OurClass, "The Service belongs to another load balancer class."),
        (Self::Pool, "No pool exists."),
        (Self::L2Advertisement, "No L2Advertisement reaches the pool."),
        (Self::L2AdvertisementForService, "L2Advertisements reach the pool, but none is for the Service."),
        (Self::BgpAdvertisement, "No BGPAdvertisement reaches the pool."),
        (Self::BgpAdvertisementForService, "BGPAdvertisements reach the pool, but none is for the Service."),
        (Self::Peer, "BGPAdvertisements are there, but no BGPPeer."),
        (Self::Endpoint, "The Service has no usable endpoint."),
        (Self::Node, "The cluster has no node."),
    ];

    /// The code, as machines read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OurClass => "OurClass",
            Self::Pool => "Pool",
            Self::L2Advertisement => "L2Advertisement",
            Self::L2AdvertisementForService => "L2AdvertisementForService",
            Self::BgpAdvertisement => "BgpAdvertisement",
            Self::BgpAdvertisementForService => "BgpAdvertisementForService",
            Self::Peer => "Peer",
            Self::Endpoint => "Endpoint",
            Self::Node => "Node",
        }
    }
}

/// Who has an address, who answers for it, which routes carry it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AddressExplanation<'a> {
    /// The address.
    pub ip: IpAddr,
    /// The pools that contain it; a valid configuration has at most one.
    pub pools: Vec<PoolName>,
    /// The Services that hold it, as `namespace/name`.
    pub holders: Vec<String>,
    /// Who answers for it, by holder.
    pub l2: Vec<&'a L2Plan>,
    /// The routes that cover it.
    pub routes: Vec<&'a RoutePlan>,
}

/// Explains one Service of `cluster`; `None` when there is no such Service. Takes what [`plan`] takes.
#[must_use]
pub fn explain(
    resources: &Resources,
    cluster: &Cluster,
    order: &[ServiceKey],
    options: &PlanOptions,
    key: &ServiceKey,
) -> Option<Explanation> {
    let service = cluster.services.get(key)?;
    let planned = plan(resources, cluster, order, options);
    let config = Config::parse(resources, cluster).config;
    let mut told = planned.service(key)?.clone();
    let pool = told.pool.as_ref().and_then(|name| config.pools.get(name)).map(AsRef::as_ref);

    let holders = planned.services.iter().filter_map(|other| {
        let service = cluster.services.get(&ServiceKey::new(&other.namespace, &other.name))?;
        Some(Holder { service, pool: config.pools.get(other.pool.as_ref()?)?, ips: &other.ips })
    });
    let candidates = Elections::new(cluster, &options.rules, holders).candidates(key);
    for l2 in &mut told.l2 {
        l2.candidates = candidates.as_slice().into();
        l2.candidates_omitted = 0;
    }

    let mut routing = Vec::new();
    if let Some(pool) = pool.filter(|pool| !pool.bgp.is_empty()) {
        for node in cluster.nodes.values() {
            let found = routes(service, &told.ips, pool, node, &config, cluster, options.rules.ignore_exclude_label);
            let Some(reason) = found.reason else { continue };
            routing.push(NodeRouting { node: node.name.clone(), reason, peers: found.by_peer.into_keys().collect() });
        }
    }
    let missing = missing(service, pool, &config, cluster, options);
    Some(Explanation { service: told, routing, missing })
}

/// Explains one address from a plan and the configuration it was made with.
#[must_use]
pub fn explain_address<'a>(
    plan: &'a Plan,
    resources: &Resources,
    cluster: &Cluster,
    ip: IpAddr,
) -> AddressExplanation<'a> {
    let config = Config::parse(resources, cluster).config;
    let pools = config.pools.values().filter(|pool| pool.contains(ip)).map(|pool| pool.name.clone()).collect();
    let holders: Vec<&ServicePlan> = plan.services.iter().filter(|service| service.ips.contains(&ip)).collect();
    AddressExplanation {
        ip,
        pools,
        holders: holders.iter().map(|service| format!("{}/{}", service.namespace, service.name)).collect(),
        l2: holders.iter().flat_map(|service| &service.l2).filter(|l2| l2.ip == ip).collect(),
        routes: plan
            .services
            .iter()
            .flat_map(|service| &service.bgp)
            .filter(|route| route.prefix.contains(&ip))
            .collect(),
    }
}

fn missing(
    service: &Service,
    pool: Option<&Pool>,
    config: &Config,
    cluster: &Cluster,
    options: &PlanOptions,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut tell = |code, message: String| missing.push(Missing { code, message });
    if !service.is_of_class(options.class.as_deref()) {
        let name = |class: Option<&str>| class.map_or("no class".to_owned(), |class| format!("class \"{class}\""));
        let message = format!(
            "the Service has {}, and Services of {} are handled here",
            name(service.load_balancer_class.as_deref()),
            name(options.class.as_deref())
        );
        tell(MissingReason::OurClass, message);
        return missing;
    }
    if config.pools.is_empty() {
        tell(MissingReason::Pool, "there is no valid IPAddressPool at all".to_owned());
    }
    if cluster.nodes.is_empty() {
        tell(MissingReason::Node, "no Node is known, so nobody can answer".to_owned());
    }
    let endpoints = cluster.endpoints.get(&service.key).map_or(&[][..], Vec::as_slice);
    if !endpoints.iter().any(crate::model::Endpoint::is_usable) {
        let message = format!("none of its {} endpoints is usable, so nobody announces it", endpoints.len());
        tell(MissingReason::Endpoint, message);
    }
    let Some(pool) = pool else { return missing };
    if pool.l2.is_empty() {
        tell(MissingReason::L2Advertisement, format!("no L2Advertisement reaches pool {}", pool.name));
    } else if advertisements(pool, service).next().is_none() {
        let message = format!("no L2Advertisement of pool {} has serviceSelectors that match the Service", pool.name);
        tell(MissingReason::L2AdvertisementForService, message);
    }
    if pool.bgp.is_empty() {
        tell(MissingReason::BgpAdvertisement, format!("no BGPAdvertisement reaches pool {}", pool.name));
    } else if !pool.bgp.iter().any(|ad| any_matches(&ad.service_selectors, &service.labels)) {
        let message = format!("no BGPAdvertisement of pool {} has serviceSelectors that match the Service", pool.name);
        tell(MissingReason::BgpAdvertisementForService, message);
    } else if config.peers.is_empty() {
        tell(MissingReason::Peer, format!("pool {} is advertised by BGP, but there is no BGPPeer", pool.name));
    }
    missing
}
