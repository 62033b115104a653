//! What does a whole plan cost: 10,000 Services on 5,000 nodes, with all reasons, and the difference to the plan without one node?
//!
//! Run: `cargo bench -p metallb-benches --bench plan`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark that can't be set up must stop")]

use criterion::{Criterion, criterion_group, criterion_main};
use metallb_core::config::spec::{L2AdvertisementSpec, ObjectMeta, PoolSpec, Resources};
use metallb_core::model::{Cluster, Endpoint, Node, NodeName, Service, ServiceKey};
use metallb_core::plan::{PlanOptions, diff, plan};

fn plans(criterion: &mut Criterion) {
    let meta = |name: &str| ObjectMeta {
        namespace: "metallb-system".to_owned(),
        name: name.to_owned(),
        ..ObjectMeta::default()
    };
    let pool = PoolSpec {
        meta: meta("wide"),
        addresses: vec!["10.0.0.0/16".to_owned()],
        auto_assign: true,
        avoid_buggy_ips: false,
        service_allocation: None,
    };
    let advertisement = L2AdvertisementSpec { meta: meta("all"), ..L2AdvertisementSpec::default() };
    let resources = Resources { pools: vec![pool], l2_advertisements: vec![advertisement], ..Resources::default() };
    let mut cluster = Cluster::default();
    for index in 0..NODES {
        let node = Node::new(&format!("worker-{index:04}"));
        cluster.nodes.insert(node.name.clone(), node);
    }
    let mut order = Vec::new();
    for index in 0..SERVICES {
        let mut service = Service::load_balancer(ServiceKey::new("default", &format!("service-{index:05}")));
        service.cluster_ips = vec!["10.96.0.1".to_owned()];
        let endpoint =
            Endpoint { has_address: true, node: Some("worker-0000".into()), ready: Some(true), serving: None };
        cluster.endpoints.insert(service.key.clone(), vec![endpoint]);
        order.push(service.key.clone());
        cluster.services.insert(service.key.clone(), service);
    }
    let mut smaller = cluster.clone();
    smaller.nodes.remove(&NodeName::from("worker-0007"));
    let options = PlanOptions { threads: std::thread::available_parallelism().ok(), ..PlanOptions::default() };

    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    group.bench_function("10,000 Services on 5,000 nodes", |bencher| {
        bencher.iter(|| plan(&resources, &cluster, &order, &options));
    });
    let (before, after) = (plan(&resources, &cluster, &order, &options), plan(&resources, &smaller, &order, &options));
    group.bench_function("difference of two such plans", |bencher| bencher.iter(|| diff(&before, &after)));
    group.finish();
}

const NODES: u32 = 5_000;
const SERVICES: u32 = 10_000;

criterion_group!(benches, plans);
criterion_main!(benches);
