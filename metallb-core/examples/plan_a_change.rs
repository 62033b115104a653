//! Computes the effect of a change before it is applied: `cargo run -p metallb-core --example plan_a_change`.
#![expect(clippy::print_stdout, reason = "the example prints its results")]

use metallb_core::config::spec::{L2AdvertisementSpec, ObjectMeta, PoolSpec, Resources};
use metallb_core::model::{Cluster, Endpoint, Node, Service, ServiceKey};
use metallb_core::plan::{PlanOptions, diff, plan};

fn main() {
    let meta = |name: &str| ObjectMeta::named("metallb-system", name);
    let pool = PoolSpec { meta: meta("demo"), addresses: vec!["192.168.10.0/30".to_owned()], ..PoolSpec::default() };
    let advertisement = L2AdvertisementSpec { meta: meta("everywhere"), ..Default::default() };
    let resources = Resources { pools: vec![pool], l2_advertisements: vec![advertisement], ..Default::default() };

    let mut cluster = Cluster::default();
    for name in ["node-a", "node-b"] {
        cluster.nodes.insert(name.into(), Node::new(name));
    }
    let key = ServiceKey::new("default", "web");
    let mut web = Service::load_balancer(key.clone());
    web.cluster_ips = vec!["10.96.0.7".to_owned()];
    cluster.services.insert(key.clone(), web);
    cluster.endpoints.insert(key.clone(), vec![Endpoint::ready_on("node-a")]);

    let order = [key];
    let options = PlanOptions::default();
    let before = plan(&resources, &cluster, &order, &options);
    for service in &before.services {
        let owner =
            service.l2.first().and_then(|l2| l2.node.as_ref()).map_or("no node".to_owned(), ToString::to_string);
        println!("{}: {:?}, announced by {owner}", service.key, service.ips);
    }

    cluster.nodes.remove("node-b");
    let after = plan(&resources, &cluster, &order, &options);
    for change in diff(&before, &after) {
        println!(
            "without node-b: {} {:?} from {:?} to {:?}, disruptive: {}",
            change.service, change.kind, change.from, change.to, change.disruptive
        );
    }
}
