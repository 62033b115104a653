//! Explains one Service or one address: the decisions, the reasons against the alternatives, and missing objects.

use std::net::IpAddr;

use serde::Serialize;

use super::{Decided, L2Plan, Plan, PlanOptions, RoutePlan, ServicePlan, candidate_text, decide};
use crate::allocator::PoolRefusal;
use crate::assignment::AssignmentState;
use crate::config::spec::Resources;
use crate::config::{Config, Pool, any_matches};
use crate::election::{Holder, L2Reason, advertisements};
use crate::model::{Cluster, NamespaceName, NodeName, PeerName, PoolName, Service, ServiceKey};
use crate::reason::reasons;
use crate::routes::{BgpReason, ExportPolicy};

/// All decisions about one Service, with the reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Its plan, with all nodes as candidates.
    pub service: ServicePlan,
    /// The routes that each node offers, by node.
    pub routing: Vec<NodeRouting>,
    /// Objects or properties that are missing for an address or an announcement.
    pub missing: Vec<Missing>,
}

/// The routes of one node for a Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeRouting {
    /// The node.
    pub node: NodeName,
    /// The reason why it offers routes or not.
    pub reason: BgpReason,
    /// The peers to which it offers them.
    pub peers: Vec<PeerName>,
}

/// A missing object or property.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missing {
    /// The code.
    pub code: MissingReason,
    /// The text.
    pub message: String,
}

reasons! {
    /// What may be missing.
    pub enum MissingReason {
        /// The Service belongs to another load balancer class.
        OurClass,
        /// No pool exists.
        Pool,
        /// Pools exist, but none gives the Service an address.
        PoolForService,
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
        /// BGPPeers are there, but none that the advertisements mean on a node that may announce, or none that carries
        /// the family.
        PeerForService,
        /// Nodes are there, but none may announce the Service.
        Candidate,
        /// The Service has no usable endpoint.
        Endpoint,
        /// The cluster has no node.
        Node,
    }
}

/// The holders, owners and routes of an address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AddressExplanation<'a> {
    /// The address.
    pub ip: IpAddr,
    /// The pools that contain it; a valid configuration has at most one.
    pub pools: Vec<PoolName>,
    /// The Services that hold it.
    pub holders: Vec<ServiceKey>,
    /// Services whose status has it although this plan does not grant it: of another class, or about to lose it.
    pub claimants: Vec<ServiceKey>,
    /// The L2 owner, by holder.
    pub l2: Vec<&'a L2Plan>,
    /// The routes that cover it.
    pub routes: Vec<&'a RoutePlan>,
}

/// Explains one Service of `cluster`; `None` when there is no such Service. Takes what [`plan`](super::plan) takes.
#[must_use]
pub fn explain(
    resources: &Resources,
    cluster: &Cluster,
    order: &[ServiceKey],
    options: &PlanOptions,
    key: &ServiceKey,
) -> Option<Explanation> {
    let service = cluster.services.get(key)?;
    let Decided { plan: planned, config, elections } = decide(resources, cluster, order, options);
    let mut told = planned.service(key)?.clone();
    let pool = told.pool.as_ref().and_then(|name| config.pools.get(name)).map(AsRef::as_ref);

    let candidates = elections.candidates(key, &cluster.nodes);
    for l2 in &mut told.l2 {
        l2.candidates = candidates.as_slice().into();
        l2.candidates_omitted = 0;
    }

    let mut routing = Vec::new();
    if let Some(pool) = pool.filter(|pool| !pool.bgp.is_empty()) {
        let holder = Holder { service, pool, ips: &told.ips };
        for node in cluster.nodes.values() {
            let found = ExportPolicy::of(&config, node, options.rules.exclude_label).routes(holder, cluster);
            let Some(reason) = found.reason else { continue };
            routing.push(NodeRouting { node: node.name.clone(), reason, peers: found.by_peer.into_keys().collect() });
        }
    }
    let facts = Facts { service, told: &told, pool, config: &config, cluster, options };
    let missing = facts.missing(resources, &routing);
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
    let holds = |key: &ServiceKey| holders.iter().any(|service| service.key == *key);
    let claims = |service: &&Service| service.ingress_ips().flatten().any(|claimed| claimed == ip);
    AddressExplanation {
        ip,
        pools,
        holders: holders.iter().map(|service| service.key.clone()).collect(),
        claimants: cluster
            .services
            .values()
            .filter(claims)
            .filter(|service| !holds(&service.key))
            .map(|service| service.key.clone())
            .collect(),
        l2: holders.iter().flat_map(|service| &service.l2).filter(|l2| l2.ip == ip).collect(),
        routes: plan
            .services
            .iter()
            .flat_map(|service| &service.bgp)
            .filter(|offered| offered.route.prefix.contains(&ip))
            .collect(),
    }
}

/// The facts and decisions about one Service.
struct Facts<'a> {
    service: &'a Service,
    told: &'a ServicePlan,
    pool: Option<&'a Pool>,
    config: &'a Config,
    cluster: &'a Cluster,
    options: &'a PlanOptions,
}

impl Facts<'_> {
    fn missing(&self, resources: &Resources, routing: &[NodeRouting]) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut tell = |code, message: String| missing.push(Missing { code, message });
        if !self.service.is_of_class(self.options.class.as_deref()) {
            let name = |class: Option<&str>| class.map_or("no class".to_owned(), |class| format!("class \"{class}\""));
            let message = format!(
                "the Service has {}, and Services of {} are handled here",
                name(self.service.load_balancer_class.as_deref()),
                name(self.options.class.as_deref())
            );
            tell(MissingReason::OurClass, message);
            return missing;
        }
        if self.told.state == AssignmentState::Ignored {
            return missing;
        }
        if self.config.pools.is_empty() {
            let message = match resources.pools.len() {
                0 => "there is no IPAddressPool".to_owned(),
                count => {
                    format!("none of the {count} IPAddressPools is valid (metallb plan lists what is wrong with them)")
                }
            };
            tell(MissingReason::Pool, message);
        } else if !self.told.refused_pools.is_empty() && self.pool.is_none() {
            let refusals: Vec<String> =
                self.told.refused_pools.iter().map(|verdict| self.refusal(&verdict.pool, verdict.refusal)).collect();
            tell(MissingReason::PoolForService, format!("no pool gives it an address: {}", refusals.join("; ")));
        }
        if self.cluster.nodes.is_empty() {
            tell(MissingReason::Node, "no Node is known, so nobody can answer".to_owned());
        }
        let endpoints = self.cluster.endpoints.get(&self.service.key).map_or(&[][..], Vec::as_slice);
        if !endpoints.iter().any(crate::model::Endpoint::is_usable) {
            let message = match endpoints.len() {
                0 => "it has no endpoint: no ready pod is behind it, so nobody announces it".to_owned(),
                count => format!("none of its {count} endpoints is ready or serving, so nobody announces it"),
            };
            tell(MissingReason::Endpoint, message);
        }
        if let Some(pool) = self.pool {
            self.missing_l2(pool, resources, &mut tell);
            self.missing_bgp(pool, resources, routing, &mut tell);
        }
        missing
    }

    fn missing_l2(&self, pool: &Pool, resources: &Resources, tell: &mut impl FnMut(MissingReason, String)) {
        if pool.l2.is_empty() {
            let others = resources.l2_advertisements.iter().map(|ad| ad.meta.name.as_str());
            tell(MissingReason::L2Advertisement, unreached("L2Advertisement", pool, others));
        } else if advertisements(pool, self.service).next().is_none() {
            let message =
                format!("no L2Advertisement of pool {} has serviceSelectors that match the Service", pool.name);
            tell(MissingReason::L2AdvertisementForService, message);
        } else if let Some(l2) = self.told.l2.first().filter(|l2| l2.reason == L2Reason::NoCandidate)
            && !self.cluster.nodes.is_empty()
        {
            let against = grouped(l2.candidates.iter().map(|candidate| (candidate.reason, candidate.node.as_str())));
            let reasons: Vec<String> =
                against.iter().map(|(reason, nodes)| format!("{nodes}: {}", candidate_text(*reason))).collect();
            tell(MissingReason::Candidate, format!("no node may answer for it: {}", reasons.join("; ")));
        }
    }

    fn missing_bgp(
        &self,
        pool: &Pool,
        resources: &Resources,
        routing: &[NodeRouting],
        tell: &mut impl FnMut(MissingReason, String),
    ) {
        if pool.bgp.is_empty() {
            let others = resources.bgp_advertisements.iter().map(|ad| ad.meta.name.as_str());
            return tell(MissingReason::BgpAdvertisement, unreached("BGPAdvertisement", pool, others));
        }
        let ours: Vec<_> =
            pool.bgp.iter().filter(|ad| any_matches(&ad.service_selectors, &self.service.labels)).collect();
        if ours.is_empty() {
            let message =
                format!("no BGPAdvertisement of pool {} has serviceSelectors that match the Service", pool.name);
            return tell(MissingReason::BgpAdvertisementForService, message);
        }
        if self.config.peers.is_empty() {
            let message = match resources.peers.len() {
                0 => format!("pool {} is advertised by BGP, but there is no BGPPeer", pool.name),
                count => format!("pool {} is advertised by BGP, but none of the {count} BGPPeers is valid", pool.name),
            };
            return tell(MissingReason::Peer, message);
        }
        if !self.told.bgp.is_empty() || !routing.iter().any(|node| node.reason == BgpReason::NoPeer) {
            return;
        }
        let able: Vec<_> = routing.iter().filter(|node| node.reason == BgpReason::NoPeer).collect();
        let reasons: Vec<String> = self
            .config
            .peers
            .values()
            .map(|peer| {
                let meant = ours.iter().any(|ad| ad.peers.as_ref().is_none_or(|names| names.contains(&peer.name)));
                let here = able
                    .iter()
                    .filter_map(|node| self.cluster.nodes.get(&node.node))
                    .any(|node| peer.nodes.selects(node));
                let why = match (meant, here) {
                    (false, _) => "is not among spec.peers of the advertisement",
                    (true, false) => "selects none of the nodes that may announce",
                    (true, true) => "does not carry the address family (see dualStackAddressFamily)",
                };
                format!("peer {} {why}", peer.name)
            })
            .collect();
        tell(MissingReason::PeerForService, format!("no peer takes its routes: {}", reasons.join("; ")));
    }

    /// A refusal with the names of the objects.
    fn refusal(&self, name: &PoolName, refusal: PoolRefusal) -> String {
        let pool = self.config.pools.get(name);
        let detail = match (refusal, pool.and_then(|pool| pool.allocation.as_ref())) {
            (PoolRefusal::Namespace, Some(allocation)) => {
                let names = allocation.namespaces.iter().flatten().map(NamespaceName::as_str).collect::<Vec<_>>();
                if names.is_empty() {
                    " (none matches its selectors)".to_owned()
                } else {
                    format!(" ({})", some(&names))
                }
            }
            _ => String::new(),
        };
        format!("pool {name} {}{detail}", refusal.explanation())
    }
}

/// The reason why no advertisement of a kind reaches a pool.
fn unreached<'a>(kind: &str, pool: &Pool, others: impl Iterator<Item = &'a str>) -> String {
    let others: Vec<&str> = others.collect();
    match others.len() {
        0 => format!("no {kind} reaches pool {}: there is none at all", pool.name),
        _ => format!("no {kind} reaches pool {}: {} selects other pools or is invalid", pool.name, some(&others)),
    }
}

/// Groups nodes by a common value, in the order of first occurrence.
fn grouped<'a, R: PartialEq + Copy>(nodes: impl Iterator<Item = (R, &'a str)>) -> Vec<(R, String)> {
    let mut groups: Vec<(R, Vec<&str>)> = Vec::new();
    for (reason, node) in nodes {
        match groups.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, names)) => names.push(node),
            None => groups.push((reason, vec![node])),
        }
    }
    groups.into_iter().map(|(reason, names)| (reason, some(&names))).collect()
}

/// The first few names, and the number of the others.
fn some(names: &[&str]) -> String {
    match names.len() {
        0..=NAMES_SHOWN => names.join(", "),
        many => format!("{} and {} more", names[..NAMES_SHOWN].join(", "), many - NAMES_SHOWN),
    }
}

/// Number of names that are listed; further ones are only counted.
const NAMES_SHOWN: usize = 5;
