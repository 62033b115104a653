use metallb_core::config::ConfigStore;

use super::*;
use crate::source::manifests::Manifests;

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

/// An announcer that has no interfaces, and what the manifests say.
fn announcer(manifests: &str) -> (Announcer, Config, Cluster) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), manifests).unwrap();
    let (world, problems) = Manifests::read(&[directory.path().to_owned()]).unwrap().world();
    assert!(problems.is_empty(), "{problems:?}");
    let config = ConfigStore::new().update(&world.resources, &world.cluster).config;
    let identity = Identity { node: "n1".into(), class: None, exclude_label: ExcludeLabel::Honoured, probe: false };
    // Nobody takes events.
    let (events, _) = mpsc::channel(1);
    let mut announcer = Announcer::start(identity, Arc::new(|_: &str| false), Metrics::new(), events, 1).unwrap();
    announcer.apply(&config, &world.cluster, Touched::Everything);
    (announcer, config, world.cluster)
}

#[tokio::test]
async fn service_that_nobody_announces_has_a_reason_in_the_words_of_explain() {
    let (mut announcer, config, mut cluster) = announcer(MANIFESTS);
    assert_eq!(announcer.silent(&config, &cluster), BTreeMap::new());
    let key = ServiceKey::new("default", "web");
    cluster.endpoints.get_mut(&key).unwrap().clear();
    announcer.apply(&config, &cluster, Touched::Everything);
    let reason = |text: &str| BTreeMap::from([("default/web".to_owned(), vec![text.to_owned()])]);
    assert_eq!(
        announcer.silent(&config, &cluster),
        reason("nobody answers: The Service has no usable endpoint."),
        "nothing is said of routes where none are meant"
    );

    let peer = "
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: tor, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: all, namespace: metallb-system}
---
";
    let of_bgp = MANIFESTS.replace("kind: L2Advertisement", "kind: BGPAdvertisement");
    let (announcer, config, cluster) = self::announcer(&of_bgp);
    let no_peer = "nothing from n1: No peer of the node is meant, or none carries the family.";
    assert_eq!(announcer.silent(&config, &cluster), reason(no_peer));
    let (announcer, config, cluster) = self::announcer(&format!("{peer}{MANIFESTS}"));
    assert_eq!(announcer.silent(&config, &cluster), BTreeMap::new(), "both ways");

    let (announcer, config, cluster) = self::announcer(&MANIFESTS.replace("kind: L2Advertisement", "kind: Community"));
    let reasons = &announcer.silent(&config, &cluster)["default/web"];
    assert_eq!(
        reasons[..],
        [
            "nobody answers: No L2Advertisement reaches the pool and the Service.",
            "nothing from n1: No BGPAdvertisement of the pool selects the node."
        ]
    );
}

#[tokio::test]
async fn announced_service_follows_its_endpoints() {
    let (mut announcer, config, mut cluster) = announcer(MANIFESTS);
    let key = ServiceKey::new("default", "web");
    assert!(announcer.announced().l2.contains_key(&key));

    let changed = BTreeSet::from([key.clone()]);
    cluster.endpoints.get_mut(&key).unwrap().pop();
    let changes = announcer.apply(&config, &cluster, Touched::Services(&changed));
    assert_eq!(changes, Changes::default(), "another endpoint is left");
    cluster.endpoints.get_mut(&key).unwrap().clear();
    let changes = announcer.apply(&config, &cluster, Touched::Services(&changed));
    let withdrawn = Transition { service: key.clone(), kind: TransitionKind::Withdrawn(Protocol::Layer2) };
    assert_eq!(changes, Changes { transitions: vec![withdrawn], services: changed });
    assert!(!announcer.announced().l2.contains_key(&key));
}
