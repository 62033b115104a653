//! `IPAddressPool` objects (`docs/upstream-behaviour.md#configuration-pools`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::spec::{PoolSpec, ServiceAllocationSpec, Spec as _, Unreadable};
use super::{ALLOW_NODE_ADDRESSES, ConfigReason, Pool, Problem, ServiceAllocation, check_unique, parse_selectors};
use crate::address::AddressBlock;
use crate::model::{Cluster, NamespaceName, NodeName, ObjectRef, PoolName, Selector};
use crate::spelling::quoted;

pub(super) fn parse_pools(
    specs: &[&PoolSpec],
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) -> BTreeMap<PoolName, Pool> {
    let mut pools = BTreeMap::new();
    let mut taken = Taken::<(Arc<str>, PoolName)>::default();
    for spec in specs {
        let before = problems.len();
        let Some(pool) = parse_pool(spec, cluster, problems) else { continue };
        let mut own = Taken::default();
        for (index, block) in pool.blocks.iter().enumerate() {
            let clash = block.prefixes().iter().find_map(|prefix| {
                let (other, owner) = taken.overlapping(prefix).or_else(|| own.overlapping(prefix))?;
                Some(format!(
                    "CIDR \"{block}\" in pool \"{}\" overlaps with already defined CIDR \"{other}\" \
                     of pool \"{owner}\"",
                    pool.name
                ))
            });
            match clash {
                Some(message) => {
                    let field = format!("spec.addresses[{index}]");
                    problems.push(Problem::error(spec.reference(), field, ConfigReason::OverlappingAddresses, message));
                }
                None => {
                    let text: Arc<str> = block.as_str().into();
                    let place = || (Arc::clone(&text), pool.name.clone());
                    own.0.extend(block.prefixes().iter().map(|prefix| (*prefix, place())));
                }
            }
        }
        if problems.len() == before {
            taken.0.append(&mut own.0);
            warn_unusual(spec, &pool, problems);
            pools.insert(pool.name.clone(), pool);
        }
    }
    pools
}

/// The pools among `specs` that are not in force, and those that cannot be read. Blocks without a valid form are left
/// out.
pub(super) fn withheld(specs: &[PoolSpec], unreadable: &Unreadables, pools: &BTreeMap<PoolName, Pool>) -> Withholding {
    let mut withheld = Withholding::new();
    for spec in specs.iter().filter(|spec| !pools.contains_key(spec.meta.name.as_str())) {
        let blocks = spec.addresses.iter().filter_map(|text| text.parse().ok());
        withheld.entry(spec.meta.name.as_str().into()).or_default().extend(blocks);
    }
    for object in unreadable.keys().filter(|object| object.kind == PoolSpec::KIND) {
        if !pools.contains_key(&*object.name) {
            withheld.entry((&*object.name).into()).or_default();
        }
    }
    withheld
}

/// The addresses of nodes that lie in pools which do not allow them. Every pool with such an address gets a warning.
pub(super) fn node_addresses(
    specs: &[&PoolSpec],
    pools: &BTreeMap<PoolName, Pool>,
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) -> BTreeMap<IpAddr, NodeName> {
    let mut by_prefix = Taken::default();
    for pool in pools.values() {
        by_prefix.0.extend(pool.prefixes().map(|prefix| (*prefix, &pool.name)));
    }
    let mut found: BTreeMap<&PoolName, BTreeMap<IpAddr, NodeName>> = BTreeMap::new();
    for node in cluster.nodes.values() {
        for &ip in node.addresses.iter().chain(&node.external_addresses) {
            if let Some(&pool) = by_prefix.overlapping(&IpNet::from(ip)) {
                found.entry(pool).or_default().entry(ip).or_insert_with(|| node.name.clone());
            }
        }
    }
    let mut withheld = BTreeMap::new();
    for (pool, addresses) in found {
        let Some(spec) = specs.iter().find(|spec| spec.meta.name == pool.as_str()) else { continue };
        let are_allowed = spec.meta.annotations.get(ALLOW_NODE_ADDRESSES).is_some_and(|value| value == "true");
        let shown: Vec<String> =
            addresses.iter().take(ADDRESSES_SHOWN).map(|(ip, node)| format!("{ip} ({node})")).collect();
        let more = addresses.len() - shown.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let (shown, verb) = (shown.join(", "), if are_allowed { "are" } else { "are not" });
        let reason = if are_allowed { "as the annotation demands" } else { "remove them from the pool, or set" };
        let setting = if are_allowed { "" } else { ": \"true\" to assign them all the same" };
        let message = format!(
            "pool \"{pool}\" contains addresses of nodes, which {verb} assigned to Services: {shown}{more}; \
             {reason} {ALLOW_NODE_ADDRESSES}{setting}"
        );
        problems.push(Problem::warning(spec.reference(), "spec.addresses", ConfigReason::NodeAddressInPool, message));
        if !are_allowed {
            withheld.extend(addresses);
        }
    }
    withheld
}

/// Number of node addresses that a warning lists.
const ADDRESSES_SHOWN: usize = 5;

type Unreadables = BTreeMap<ObjectRef, Unreadable>;
type Withholding = BTreeMap<PoolName, Vec<AddressBlock>>;

/// Warns about addresses that no Service can use, and about a prefix that begins before the address that is written.
fn warn_unusual(spec: &PoolSpec, pool: &Pool, problems: &mut Vec<Problem>) {
    for (index, block) in pool.blocks.iter().enumerate() {
        let mut warn = |message: String| {
            let field = format!("spec.addresses[{index}]");
            problems.push(Problem::warning(spec.reference(), field, ConfigReason::UnusualAddress, message));
        };
        let text = quoted(block.as_str());
        if let Some(first) = block.ignored_host_bits() {
            warn(format!("{text} has host bits, which are ignored: it begins at {first}"));
        }
        if let Some(what) = block.unusual() {
            warn(format!("{text} contains {what} addresses, which clients cannot use"));
        }
    }
}

/// Prefixes of accepted pools in address order, each with a value. They do not overlap.
struct Taken<T>(BTreeMap<IpNet, T>);

impl<T> Default for Taken<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Taken<T> {
    /// Two prefixes are nested or disjoint. As the stored ones are disjoint, only the two neighbours of `prefix` can
    /// overlap with it.
    fn overlapping(&self, prefix: &IpNet) -> Option<&T> {
        let before = self.0.range(..=*prefix).next_back();
        let after = self.0.range(*prefix..).next();
        let overlaps = |(net, _): &(&IpNet, _)| net.contains(prefix) || prefix.contains(*net);
        before.into_iter().chain(after).find(overlaps).map(|(_, value)| value)
    }
}

fn parse_pool(spec: &PoolSpec, cluster: &Cluster, problems: &mut Vec<Problem>) -> Option<Pool> {
    let object = spec.reference();
    let before = problems.len();
    let mut blocks = Vec::with_capacity(spec.addresses.len());
    for (index, text) in spec.addresses.iter().enumerate() {
        match text.parse::<AddressBlock>() {
            Ok(block) => blocks.push(block),
            Err(error) => {
                let message = format!("invalid CIDR \"{text}\" in pool \"{}\": {error}", spec.meta.name);
                let field = format!("spec.addresses[{index}]");
                problems.push(Problem::error(object.clone(), field, ConfigReason::InvalidAddress, message));
            }
        }
    }
    if spec.addresses.is_empty() {
        let message = "pool has no prefixes defined";
        problems.push(Problem::error(object.clone(), "spec.addresses", ConfigReason::NoAddresses, message));
    }
    let allocation = match &spec.service_allocation {
        Some(allocation) => parse_allocation(allocation, &object, cluster, problems).map(Some),
        None => Some(None),
    };
    if problems.len() > before {
        return None;
    }
    Some(Pool {
        name: spec.meta.name.as_str().into(),
        labels: spec.meta.labels.clone(),
        blocks,
        auto_assign: spec.auto_assign,
        avoid_buggy_ips: spec.avoid_buggy_ips,
        allocation: allocation.flatten(),
        l2: Vec::new(),
        bgp: Vec::new(),
    })
}

fn parse_allocation(
    spec: &ServiceAllocationSpec,
    object: &ObjectRef,
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) -> Option<ServiceAllocation> {
    let field = |name: &str| format!("spec.serviceAllocation.{name}");
    let names_ok = check_unique(&spec.namespaces, "namespace", object, &field("namespaces"), problems);
    let by_label = parse_selectors(&spec.namespace_selectors, object, &field("namespaceSelectors"), problems);
    let service_selectors = parse_selectors(&spec.service_selectors, object, &field("serviceSelectors"), problems);
    let (by_label, service_selectors) = (by_label?, service_selectors?);
    let namespaces = (!spec.namespaces.is_empty() || !by_label.is_empty()).then(|| {
        let selected = |selectors: &[Selector]| -> BTreeSet<NamespaceName> {
            let matching =
                |namespace: &&crate::model::Namespace| selectors.iter().any(|s| s.matches(&namespace.labels));
            cluster.namespaces.values().filter(matching).map(|namespace| namespace.name.clone()).collect()
        };
        let mut namespaces = selected(&by_label);
        namespaces.extend(spec.namespaces.iter().map(|name| name.as_str().into()));
        namespaces
    });
    names_ok.then_some(ServiceAllocation {
        priority: (spec.priority != 0).then_some(spec.priority),
        namespaces,
        service_selectors,
    })
}
