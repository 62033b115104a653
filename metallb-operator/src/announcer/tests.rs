use metallb_core::config::ConfigStore;

use super::*;
use crate::manifests::Manifests;

const MANIFESTS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [192.168.12.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80, protocol: TCP}]}
status: {loadBalancer: {ingress: [{ip: 192.168.12.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], nodeName: n1, conditions: {ready: true}}
- {addresses: [10.0.0.2], nodeName: n1, conditions: {ready: true}}
";

#[tokio::test]
async fn endpoints_that_come_and_go_cost_no_look_at_all_services() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), MANIFESTS).unwrap();
    let (mut world, problems) = Manifests::read(&[directory.path().to_owned()]).unwrap().world();
    assert!(problems.is_empty(), "{problems:?}");
    let config = ConfigStore::new().update(&world.resources, &world.cluster).config;
    let identity = Identity { node: "n1".into(), class: None, exclude_label: ExcludeLabel::Honoured, probe: false };
    let (events, _kept) = mpsc::channel(1);
    let mut announcer = Announcer::start(identity, Arc::new(|_: &str| false), Metrics::new(), events, 1).unwrap();
    announcer.apply(&config, &world.cluster);
    let key = ServiceKey::new("default", "web");
    assert!(announcer.announced().l2.contains_key(&key));

    let changed = BTreeSet::from([key.clone()]);
    assert!(!announcer.decides_on_l2(&config, &world.cluster, &changed));
    world.cluster.endpoints.get_mut(&key).unwrap().pop();
    assert!(!announcer.decides_on_l2(&config, &world.cluster, &changed), "another endpoint is left");
    world.cluster.endpoints.get_mut(&key).unwrap().clear();
    assert!(announcer.decides_on_l2(&config, &world.cluster, &changed), "nobody is to answer any more");
    announcer.apply_services(&config, &world.cluster, &changed);
    assert!(!announcer.announced().l2.contains_key(&key));
    assert!(!announcer.decides_on_l2(&config, &world.cluster, &changed), "that is known now");
    world.cluster.services.remove(&key);
    assert!(announcer.decides_on_l2(&config, &world.cluster, &changed), "it holds nothing any more");
}
