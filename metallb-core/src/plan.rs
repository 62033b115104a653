//! From facts to the whole desired state: addresses, owners and routes, with the reasons.
//!
//! `metallb plan` and `metallb explain` print this state; the controller and the speakers realise it with the same
//! functions.

mod aggregates;
mod diff;
mod explain;
mod router_ids;
mod settle;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::Serialize;

pub use self::diff::{Change, ChangeKind, diff};
pub use self::explain::{
    AddressExplanation, Explanation, Missing, MissingReason, NodeRouting, explain, explain_address,
};
pub use self::settle::settle;
use crate::allocator::PoolVerdict;
use crate::announcement::holder;
use crate::assignment::{AssignReason, Assigner, AssignmentState};
use crate::config::spec::Resources;
use crate::config::{Config, ConfigReason, Parsed, Problem, Severity};
use crate::election::{Candidate, CandidateReason, Election, ElectionRules, Elections, Holder, L2Reason, interfaces};
use crate::model::{Cluster, InterfaceName, NodeName, ObjectRef, PeerName, PoolName, Service, ServiceKey};
use crate::routes::{ExportPolicy, Route, merge, peers_of};

/// The assumptions of a plan.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// `--lb-class`
    pub class: Option<String>,
    /// The live speakers, which may be elected.
    pub rules: ElectionRules,
    /// Number of threads for elections; one if absent. The result does not depend on it.
    pub threads: Option<NonZeroUsize>,
}

/// The whole desired state. Its JSON is stable; other tools read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// One entry per Service, in reading order.
    pub services: Vec<ServicePlan>,
    /// One entry per pool, by name.
    pub pools: Vec<PoolPlan>,
    /// Problems of the configuration, by object.
    pub problems: Vec<Problem>,
}

/// The plan of one Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePlan {
    /// The Service; its JSON are the fields `namespace` and `name`.
    #[serde(flatten, serialize_with = "ServiceKey::serialize_parts")]
    pub key: ServiceKey,
    /// Assigned, pending or ignored.
    pub state: AssignmentState,
    /// The pool of the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The addresses, in the order of the status.
    pub ips: Vec<IpAddr>,
    /// The reason of the state.
    pub reason: ReasonText,
    /// Pools that were refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_pools: Vec<PoolVerdict>,
    /// The L2 owners, one entry per address.
    pub l2: Vec<L2Plan>,
    /// The BGP routes.
    pub bgp: Vec<RoutePlan>,
}

/// A reason as a code and as a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonText {
    /// The stable code.
    pub code: AssignReason,
    /// The text.
    pub message: String,
}

/// The L2 owner of one address.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct L2Plan {
    /// The address.
    pub ip: IpAddr,
    /// The elected node; null if none answers.
    pub node: Option<NodeName>,
    /// The interfaces on which it answers; empty means all.
    pub interfaces: Vec<InterfaceName>,
    /// The reason of the result.
    pub reason: L2Reason,
    /// The nodes that would follow, best first.
    pub successors: Vec<NodeName>,
    /// Every node with the reason why it is a candidate or not; in a cluster of more than [`CANDIDATES_SHOWN`] nodes
    /// only the owner and its successors.
    pub candidates: Arc<[Candidate]>,
    /// The number of nodes that `candidates` leaves out.
    #[serde(skip_serializing_if = "is_zero")]
    pub candidates_omitted: usize,
}

/// One route of one node to one peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePlan {
    /// The next hop.
    pub node: NodeName,
    /// The peer.
    pub peer: PeerName,
    /// The route.
    #[serde(flatten)]
    pub route: Route,
    /// Whether the peer is in another autonomous system. It gets no local preference (RFC 4271 §5.1.5).
    #[serde(skip)]
    pub external: bool,
}

/// The counters of one pool after all assignments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolPlan {
    /// The pool.
    pub name: PoolName,
    /// Distinct IPv4 addresses in use.
    #[serde(rename = "assignedIPv4")]
    pub assigned_v4: i64,
    /// Distinct IPv6 addresses in use.
    #[serde(rename = "assignedIPv6")]
    pub assigned_v6: i64,
    /// Available IPv4 addresses.
    #[serde(rename = "availableIPv4")]
    pub available_v4: i64,
    /// Available IPv6 addresses.
    #[serde(rename = "availableIPv6")]
    pub available_v6: i64,
}

/// Plans `order`, which names the Services of `cluster` in reading order.
#[must_use]
pub fn plan(resources: &Resources, cluster: &Cluster, order: &[ServiceKey], options: &PlanOptions) -> Plan {
    decide(resources, cluster, order, options).plan
}

/// A plan with its inputs.
struct Decided {
    plan: Plan,
    config: Config,
    elections: Elections,
}

fn decide(resources: &Resources, cluster: &Cluster, order: &[ServiceKey], options: &PlanOptions) -> Decided {
    let Parsed { config, mut problems } = Config::parse(resources, cluster);
    let mut assigner = Assigner::new(options.class.as_deref());
    assigner.set_config(&config);
    assigner.set_quarantined(&cluster.quarantined);

    let read: Vec<&Service> = order.iter().filter_map(|key| cluster.services.get(key)).collect();
    let outcomes = settle(&mut assigner, &read);

    let class = options.class.as_deref();
    let holders = read.iter().filter_map(|&service| holder(&config, class, service, &outcomes.get(&service.key)?.ips));
    let elections = Elections::of(cluster, &options.rules, holders, options.threads.unwrap_or(NonZeroUsize::MIN));
    let next_hops = cluster.nodes.values().filter(|node| peers_of(&config, node).next().is_some());
    let next_hops: Vec<(&NodeName, ExportPolicy)> =
        next_hops.map(|node| (&node.name, ExportPolicy::of(&config, node, options.rules.exclude_label))).collect();
    let mut services = Vec::with_capacity(read.len());
    let mut offered: BTreeMap<(NodeName, PeerName), BTreeMap<ipnet::IpNet, Route>> = BTreeMap::new();
    for service in read {
        let Some(outcome) = outcomes.get(&service.key) else { continue };
        let mut planned = ServicePlan {
            key: service.key.clone(),
            state: outcome.state,
            pool: outcome.pool.clone(),
            ips: outcome.ips.clone(),
            reason: ReasonText { code: outcome.reason, message: outcome.message.clone() },
            refused_pools: outcome.verdicts.clone(),
            l2: Vec::new(),
            bgp: Vec::new(),
        };
        if let Some(holder) = holder(&config, class, service, &outcome.ips) {
            if let Some(election) = elections.election(&service.key) {
                planned.l2 = l2_plans(holder, cluster, &elections, &election);
            }
            for (node, policy) in next_hops.iter().filter(|_| !holder.pool.bgp.is_empty()) {
                let found = policy.routes(holder, cluster);
                for (peer, prefix) in &found.not_carried {
                    problems.push(not_carried(resources, peer, *prefix));
                }
                for (peer, by_prefix) in found.by_peer {
                    let external = config.peers.get(&peer).is_some_and(|peer| !peer.is_internal());
                    let of_peer = offered.entry(((*node).clone(), peer.clone())).or_default();
                    for (prefix, route) in by_prefix {
                        let route = RoutePlan { node: (*node).clone(), peer: peer.clone(), route, external };
                        if merge(of_peer, route.route.clone()) {
                            problems.push(preference_clash(service, &peer, prefix));
                        }
                        planned.bgp.push(route);
                    }
                }
            }
        }
        services.push(planned);
    }
    problems.extend(aggregates::problems(&services, cluster));
    problems.extend(router_ids::problems(&config, resources, cluster));
    problems.sort();
    problems.dedup();
    let pools = config.pools.keys().filter_map(|name| PoolPlan::new(&assigner, name)).collect();
    Decided { plan: Plan { services, pools, problems }, config, elections }
}

impl RoutePlan {
    /// The attributes of the route, in parentheses; empty if it has none.
    #[must_use]
    pub fn attributes(&self) -> String {
        let preference = (!self.external).then(|| format!("local preference {}", self.route.effective_local_pref()));
        let communities = self.route.communities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let communities = (!communities.is_empty()).then(|| format!("communities {communities}"));
        let all: Vec<String> = preference.into_iter().chain(communities).collect();
        if all.is_empty() { String::new() } else { format!("({})", all.join(", ")) }
    }
}

impl Plan {
    /// Whether an object has an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The plan of one Service.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&ServicePlan> {
        self.services.iter().find(|service| service.key == *key)
    }
}

impl PoolPlan {
    fn new(assigner: &Assigner, name: &PoolName) -> Option<Self> {
        let counters = assigner.allocator().counters(name)?;
        Some(Self {
            name: name.clone(),
            assigned_v4: counters.assigned_v4,
            assigned_v6: counters.assigned_v6,
            available_v4: counters.available_v4,
            available_v6: counters.available_v6,
        })
    }
}

/// The election of a Service, as one entry per address.
fn l2_plans(
    Holder { service, ips, .. }: Holder<'_>,
    cluster: &Cluster,
    elections: &Elections,
    election: &Election,
) -> Vec<L2Plan> {
    let owner = election.owner.as_ref().and_then(|name| cluster.nodes.get(name));
    let ads = elections.advertisements_of(&service.key).unwrap_or_default();
    let on: Vec<InterfaceName> = owner.map(|node| interfaces(ads, node)).into_iter().flatten().collect();
    let candidates: Arc<[Candidate]> = if cluster.nodes.len() <= CANDIDATES_SHOWN {
        elections.candidates(&service.key, &cluster.nodes).into()
    } else {
        let best = election.owner.iter().chain(&election.successors);
        best.map(|node| Candidate { node: node.clone(), eligible: true, reason: CandidateReason::Eligible }).collect()
    };
    let candidates_omitted = if candidates.is_empty() { 0 } else { cluster.nodes.len() - candidates.len() };
    ips.iter()
        .map(|&ip| L2Plan {
            ip,
            node: election.owner.clone(),
            interfaces: on.clone(),
            reason: election.reason,
            successors: election.successors.clone(),
            candidates: Arc::clone(&candidates),
            candidates_omitted,
        })
        .collect()
}

/// The meaning of a candidate's reason, for one node or several.
#[must_use]
pub const fn candidate_text(reason: CandidateReason) -> &'static str {
    match reason {
        CandidateReason::Eligible => "may answer",
        CandidateReason::NoSpeaker => "no live speaker",
        CandidateReason::NetworkUnavailable => "condition NetworkUnavailable",
        CandidateReason::ExcludedByLabel => {
            "excluded by the label node.kubernetes.io/exclude-from-external-load-balancers"
        }
        CandidateReason::NotSelected => "selected by no L2Advertisement for this Service",
        CandidateReason::NoLocalEndpoint => "no usable endpoint there, which externalTrafficPolicy: Local demands",
        CandidateReason::NotForSharedIp => "not able to serve another Service that shares the address",
    }
}

fn not_carried(resources: &Resources, peer: &PeerName, prefix: ipnet::IpNet) -> Problem {
    let namespace = resources
        .peers
        .iter()
        .find(|spec| spec.meta.name == peer.as_str())
        .map_or("", |spec| spec.meta.namespace.as_str());
    let message = format!(
        "the session of peer {peer} does not carry {prefix}: it carries the family of its address, both with \
         dualStackAddressFamily"
    );
    let object = ObjectRef::new("BGPPeer", namespace, peer.as_str());
    Problem::warning(object, "spec.dualStackAddressFamily", ConfigReason::FamilyNotCarried, message)
}

fn preference_clash(service: &Service, peer: &PeerName, prefix: ipnet::IpNet) -> Problem {
    let message = format!("{prefix} is offered to peer {peer} with different local preferences: the highest is used");
    let object = ObjectRef::new("Service", service.key.namespace.as_str(), &service.key.name);
    Problem::warning(object, "status.loadBalancer.ingress", ConfigReason::LocalPreferenceClash, message)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Number of nodes up to which a plan lists all of them as candidates; a longer list per address would hide the rest.
pub const CANDIDATES_SHOWN: usize = 256;
