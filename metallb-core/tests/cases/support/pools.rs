//! Builders of pools and Services.

use std::net::IpAddr;

use metallb_core::config::Config;
use metallb_core::config::spec::{ObjectMeta, PoolSpec, Resources, ServiceAllocationSpec};
use metallb_core::model::{Cluster, LabelSelector, Service, ServiceKey, Timestamp};

/// A pool for all Services.
pub(crate) fn pool(name: &str, addresses: &[&str]) -> PoolSpec {
    PoolSpec {
        meta: ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() },
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        ..PoolSpec::default()
    }
}

/// The same pool, avoiding `.0` and `.255`.
pub(crate) fn avoiding(pool: PoolSpec) -> PoolSpec {
    PoolSpec { avoid_buggy_ips: true, ..pool }
}

/// The same pool with `autoAssign: false`.
pub(crate) fn manual(pool: PoolSpec) -> PoolSpec {
    PoolSpec { auto_assign: false, ..pool }
}

/// The same pool, for some namespaces and for Services with the label team.
pub(crate) fn pinned(pool: PoolSpec, priority: i64, namespaces: &[&str], team: Option<&str>) -> PoolSpec {
    let selector = |team: &str| LabelSelector {
        match_labels: [("team".to_owned(), team.to_owned())].into(),
        ..LabelSelector::default()
    };
    let allocation = ServiceAllocationSpec {
        priority,
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        service_selectors: team.map(selector).into_iter().collect(),
        ..ServiceAllocationSpec::default()
    };
    PoolSpec { service_allocation: Some(allocation), ..pool }
}

/// The configuration of these pools.
pub(crate) fn config(pools: &[PoolSpec]) -> Config {
    let parsed = Config::parse(&Resources { pools: pools.to_vec(), ..Resources::default() }, &Cluster::default());
    assert_eq!(parsed.problems, []);
    parsed.config
}

/// A Service of type LoadBalancer in the namespace `test`, with these cluster addresses.
pub(crate) fn service(name: &str, cluster_ips: &[&str]) -> Service {
    let mut service = Service::load_balancer(ServiceKey::new("test", name));
    service.cluster_ips = cluster_ips.iter().map(|text| (*text).to_owned()).collect();
    service.created = Some(Timestamp::from_unix(0));
    service
}

/// Addresses from text.
pub(crate) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
