//! A rack controller without Kubernetes. It turns its own inventory into addresses, owners and routes, and computes the
//! effect of losing a machine.
//!
//! It uses only the public API of `metallb-core` and checks the results. Run it with `cargo run` in this directory.

use metallb_core::config::Severity;
use metallb_core::config::spec::{
    BgpAdvertisementSpec, L2AdvertisementSpec, ObjectMeta, PeerSpec, PoolSpec, Resources,
};
use metallb_core::model::{Cluster, Endpoint, Node, NodeName, Service, ServiceKey};
use metallb_core::plan::{ChangeKind, PlanOptions, diff, explain, plan};

/// The inventory: machines, and the applications that run on them.
const MACHINES: [&str; 3] = ["rack1-a", "rack1-b", "rack2-a"];
const APPLICATIONS: [(&str, &[&str]); 3] = [("mail", &["rack1-a"]), ("shop", &["rack1-b", "rack2-a"]), ("idle", &[])];

fn main() {
    let resources = configuration();
    let (cluster, order) = inventory(&MACHINES);
    let now = plan(&resources, &cluster, &order, &PlanOptions::default());
    let errors = now.problems.iter().filter(|problem| problem.severity == Severity::Error);
    assert_eq!(errors.count(), 0, "{:?}", now.problems);
    for service in &now.services {
        let owner = service.l2.first().and_then(|l2| l2.node.as_ref()).map_or("no node", NodeName::as_str);
        println!("{}: {:?}, announced by {owner}, {} routes", service.key, service.ips, service.bgp.len());
        assert_eq!(service.ips.len(), 1, "every application gets an address");
    }

    // Which applications are disrupted if the owner of the first one is switched off?
    let owner = now.services[0].l2[0].node.clone().expect("mail has an endpoint, so it has an owner");
    let left: Vec<&str> = MACHINES.into_iter().filter(|name| *name != owner.as_str()).collect();
    let (smaller, order) = inventory(&left);
    let changes = diff(&now, &plan(&resources, &smaller, &order, &PlanOptions::default()));
    for change in changes.iter().filter(|change| change.disruptive) {
        println!("without {owner}: {} {:?} {:?} -> {:?}", change.service, change.kind, change.from, change.to);
    }
    assert!(changes.iter().any(|change| change.kind == ChangeKind::OwnerMoved));

    // Why does no machine announce the idle application?
    let key = ServiceKey::new("rack", "idle");
    let (cluster, order) = inventory(&MACHINES);
    let explanation =
        explain(&resources, &cluster, &order, &PlanOptions::default(), &key).expect("it is in the inventory");
    for missing in &explanation.missing {
        println!("{key}: {}", missing.message);
    }
    assert!(!explanation.missing.is_empty());
}

fn configuration() -> Resources {
    let meta = |name: &str| ObjectMeta::named("rack", name);
    let pool = PoolSpec {
        meta: meta("edge"),
        addresses: vec!["198.51.100.0/28".into()],
        avoid_buggy_ips: true,
        ..PoolSpec::default()
    };
    let router = PeerSpec {
        meta: meta("router"),
        my_asn: 64512,
        peer_asn: 64513,
        address: "192.0.2.1".into(),
        ..PeerSpec::default()
    };
    let routed = BgpAdvertisementSpec { meta: meta("routed"), ..BgpAdvertisementSpec::default() };
    Resources {
        pools: vec![pool],
        peers: vec![router],
        l2_advertisements: vec![L2AdvertisementSpec { meta: meta("local"), ..L2AdvertisementSpec::default() }],
        bgp_advertisements: vec![routed],
        ..Resources::default()
    }
}

fn inventory(machines: &[&str]) -> (Cluster, Vec<ServiceKey>) {
    let mut cluster = Cluster::default();
    for name in machines {
        let node = Node::new(name);
        cluster.nodes.insert(node.name.clone(), node);
    }
    let mut order = Vec::new();
    for (name, runs_on) in APPLICATIONS {
        let service = Service::load_balancer(ServiceKey::new("rack", name));
        let endpoint = |node: &&str| Endpoint::ready_on(*node);
        cluster.endpoints.insert(service.key.clone(), runs_on.iter().map(endpoint).collect());
        order.push(service.key.clone());
        cluster.services.insert(service.key.clone(), service);
    }
    (cluster, order)
}
