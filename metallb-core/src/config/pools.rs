//! `IPAddressPool` objects (`docs/upstream-behaviour.md#configuration-pools`).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::spec::{PoolSpec, ServiceAllocationSpec, Spec as _};
use super::{ConfigReason, Pool, Problem, ServiceAllocation, check_unique, parse_selectors};
use crate::address::AddressBlock;
use crate::model::{Cluster, NamespaceName, ObjectRef, PoolName, Selector};

pub(super) fn parse_pools(
    specs: &[&PoolSpec],
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) -> BTreeMap<PoolName, Pool> {
    let mut pools = BTreeMap::new();
    let mut taken = Taken::default();
    for spec in specs {
        let before = problems.len();
        let Some(pool) = parse_pool(spec, cluster, problems) else { continue };
        let mut own = Taken::default();
        for (index, block) in pool.blocks.iter().enumerate() {
            let clash = block.prefixes().iter().find_map(|prefix| {
                let (other, owner) = taken.overlapping(prefix).or_else(|| own.overlapping(prefix))?;
                Some(format!(
                    "CIDR \"{prefix}\" in pool \"{}\" overlaps with already defined CIDR \"{other}\" \
                     of pool \"{owner}\"",
                    pool.name
                ))
            });
            match clash {
                Some(message) => {
                    let field = format!("spec.addresses[{index}]");
                    problems.push(Problem::error(spec.reference(), field, ConfigReason::OverlappingAddresses, message));
                }
                None => own.0.extend(block.prefixes().iter().map(|prefix| (*prefix, pool.name.clone()))),
            }
        }
        if problems.len() == before {
            taken.0.append(&mut own.0);
            pools.insert(pool.name.clone(), pool);
        }
    }
    pools
}

/// Prefixes of accepted pools in address order. They do not overlap.
#[derive(Default)]
struct Taken(BTreeMap<IpNet, PoolName>);

impl Taken {
    /// Two prefixes are nested or disjoint. As the stored ones are disjoint, only the two neighbours of `prefix` can
    /// overlap with it.
    fn overlapping(&self, prefix: &IpNet) -> Option<(&IpNet, &PoolName)> {
        let before = self.0.range(..=*prefix).next_back();
        let after = self.0.range(*prefix..).next();
        before.into_iter().chain(after).find(|(net, _)| net.contains(prefix) || prefix.contains(*net))
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
