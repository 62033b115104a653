//! Controller and speakers as processes of their own, under the shipped RBAC, against a real API server; both modes at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a lab prints what the router and the client saw")]

use std::path::Path;
use std::time::Duration;

#[path = "support/frr.rs"]
mod frr;
#[path = "support/kube.rs"]
mod kube;
#[path = "support/netns.rs"]
mod netns;

use frr::Frr;
use kube::KubeApi;
use netns::{Lab, Namespace, Process, eventually, missing_part, skip};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(40);

/// The YAML blocks of the customer's document, as they stand there, BGP beside L2.
const SEED: [&str; 6] = [
    "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: demo-pool
  namespace: metallb-system
  labels:
    ipaddresspool: demo
spec:
  addresses:
  - 192.168.10.0/24
  - 192.168.9.1-192.168.9.5
  - fc00:f853:0ccd:e799::/124
  autoAssign: true
  avoidBuggyIPs: false
",
    "
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata:
  name: demo
  namespace: metallb-system
spec:
  ipAddressPools:
  - demo-pool
  ipAddressPoolSelectors:
  - matchLabels:
      ipaddresspool: demo
  nodeSelectors:
  - matchLabels:
      kubernetes.io/hostname: kind-control-plane
",
    "
apiVersion: v1
kind: Service
metadata:
  name: metallb1-cluster
  labels:
    name: metallb
      #annotations:
      #metallb.universe.tf/address-pool: lan
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  ports:
  - port: 18081
    targetPort: 8080
    protocol: TCP
  selector:
    app: metallb-cluster
",
    "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: bgp-pool
  namespace: metallb-system
  labels:
    ipaddresspool: demo
spec:
  addresses:
  - 192.168.10.0/24
  autoAssign: true
  avoidBuggyIPs: false
",
    "
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata:
  name: local
  namespace: metallb-system
spec:
  ipAddressPools:
  - bgp-pool
  aggregationLength: 32
",
    "
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata:
  name: test
  namespace: metallb-system
spec:
  myASN: 7776
  peerASN: 7675
  peerAddress: 172.16.1.1
  routerID: 172.16.1.11
",
];

struct Cluster {
    api: KubeApi,
    control: Namespace,
    client: Namespace,
    nodes: Vec<(String, Namespace)>,
    router: Namespace,
    _lab: Lab,
}

fn cluster(assets: std::path::PathBuf) -> Cluster {
    let mut lab = Lab::new();
    let switch = lab.namespace("switch");
    switch.ip("link add br0 type bridge");
    switch.ip("link set br0 up");
    let mut host = |name: &str, last: u8| {
        let namespace = lab.namespace(name);
        lab.link(&namespace, "eth0", &switch, &format!("port{last}"));
        switch.ip(&format!("link set port{last} master br0"));
        namespace.ip(&format!("address add 172.16.1.{last}/24 dev eth0"));
        namespace.ip(&format!("address add 192.168.10.{last}/24 dev eth0"));
        namespace.ip(&format!("address add fc00:f853:ccd:e799::{last:x}:{last:x}/64 dev eth0 nodad"));
        namespace
    };
    let control = host("control", 250);
    let api = KubeApi::start(&control, "172.16.1.250", assets);
    let client = host("client", 200);
    let router = host("router", 1);
    let nodes =
        [("kind-control-plane", 11), ("kind-worker", 21)].map(|(name, last)| (name.to_owned(), host(name, last)));
    let crds = std::process::Command::new(env!("CARGO_BIN_EXE_metallb")).arg("crds").output().expect("crds");
    api.apply(include_str!("../../deploy/namespace.yaml"));
    api.apply(include_str!("../../deploy/rbac/controller.yaml"));
    api.apply(include_str!("../../deploy/rbac/speaker.yaml"));
    api.apply(&String::from_utf8(crds.stdout).expect("text"));
    api.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], None).expect("established");
    for (name, _) in &nodes {
        api.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}\n"
        ));
    }
    Cluster { api, control, client, nodes: nodes.into(), router, _lab: lab }
}

fn start(directory: &Path, cluster: &Cluster, namespace: &Namespace, role: &str, node: &str) -> Process {
    let config = cluster.api.kubeconfig(role);
    let variable = format!("KUBECONFIG={}", config.display());
    let exclude = directory.join("no-exclusions").display().to_string();
    let mut arguments = vec![variable.as_str(), env!("CARGO_BIN_EXE_metallb"), role, "--namespace", "metallb-system"];
    if role == "speaker" {
        arguments.extend(["--node-name", node, "--exclude-interfaces", &exclude]);
    }
    let log = directory.join(format!("{role}-{node}.log"));
    namespace.spawn(&log, "env", &arguments)
}

/// kube-proxy, the data path of a real node; it writes nftables rules in its namespace.
fn start_kube_proxy(directory: &Path, cluster: &Cluster, assets: &Path, namespace: &Namespace, node: &str) -> Process {
    namespace.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let config = cluster.api.kubeconfig("admin");
    namespace.spawn(
        &directory.join(format!("kube-proxy-{node}.log")),
        assets.join("kube-proxy"),
        &[
            "--kubeconfig",
            config.to_str().unwrap(),
            "--hostname-override",
            node,
            "--proxy-mode=nftables",
            "--cluster-cidr=10.244.0.0/16",
            "--conntrack-max-per-core=0",
            "--healthz-bind-address=127.0.0.1:10256",
        ],
    )
}

#[test]
fn lab_kubernetes_both_modes_serve_one_service_under_the_shipped_roles() {
    const TEST: &str = "lab_kubernetes_both_modes_serve_one_service_under_the_shipped_roles";
    let Some(assets) = kube::assets() else {
        return skip(TEST, "KUBEBUILDER_ASSETS with kube-apiserver, etcd, kube-proxy, kubectl");
    };
    if let Some(part) = missing_part(&[&frr::PROGRAMS[..], &["nft", "curl", "python3", "openssl"]].concat()) {
        return skip(TEST, &part);
    }
    let directory = tempfile::tempdir().unwrap();
    let cluster = cluster(assets.clone());
    let api = &cluster.api;
    // Every block of the document is accepted, alone.
    for block in SEED {
        api.apply(block);
    }
    // The document's two pools are the same addresses, for two clusters: here the BGP pool gives way to one of both modes.
    api.kubectl(&["delete", "ipaddresspool", "bgp-pool", "-n", "metallb-system"], None).unwrap();
    api.apply(&SEED[4].replace("bgp-pool", "demo-pool"));
    // One identifier per node: the document's peer is that of node 1.
    api.apply(&SEED[5].replace("  routerID: 172.16.1.11\n", ""));
    let mut backends = Vec::new();
    let script = directory.path().join("backend.py");
    std::fs::write(&script, include_str!("support/backend.py")).unwrap();
    for ((name, namespace), last) in cluster.nodes.iter().zip([11, 21]) {
        backends.push(namespace.spawn(
            &directory.path().join("backend.log"),
            "python3",
            &[script.to_str().unwrap(), name],
        ));
        backends.push(start_kube_proxy(directory.path(), &cluster, &assets, namespace, name));
        api.apply(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: metallb1-cluster-{last}, namespace: default, labels: {{kubernetes.io/service-name: metallb1-cluster}}}}\naddressType: IPv4\nports: [{{port: 8080, protocol: TCP}}]\nendpoints: [{{addresses: [172.16.1.{last}], nodeName: {name}, conditions: {{ready: true}}}}]\n"
        ));
    }
    let frr = Frr::start(
        &cluster.router,
        "router bgp 7675\n bgp router-id 172.16.1.1\n no bgp ebgp-requires-policy\n neighbor 172.16.1.11 remote-as 7776\n neighbor 172.16.1.21 remote-as 7776\n",
        &[],
    );
    let mut controller = start(directory.path(), &cluster, &cluster.control, "controller", "first");
    let mut speakers: Vec<Process> = cluster
        .nodes
        .iter()
        .map(|(name, namespace)| start(directory.path(), &cluster, namespace, "speaker", name))
        .collect();

    let ip = |name: &str| {
        api.kubectl(&["get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"], None)
    };
    eventually("the Service gets the first address", PATIENCE, || match ip("metallb1-cluster") {
        Ok(ip) if ip == "192.168.10.0" => Ok(()),
        other => Err(format!("{other:?}\n{}", controller.output())),
    });
    let pool = "jsonpath={.metadata.annotations.metallb\\.io/ip-allocated-from-pool}";
    assert_eq!(api.kubectl(&["get", "service", "metallb1-cluster", "-o", pool], None).unwrap(), "demo-pool");
    println!("$ kubectl get svc\n{}", api.kubectl(&["get", "service"], None).unwrap());

    // L2: the client finds the address at the only node that the advertisement selects, and kube-proxy serves it.
    let mac = cluster.nodes[0].1.mac("eth0");
    let answer = eventually("the client is answered", PATIENCE, || {
        let output = cluster.client.shell("curl --silent --show-error --max-time 2 http://192.168.10.0:18081/");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let logs: String = speakers.iter().chain(&backends).map(Process::output).collect();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{}\n{logs}", String::from_utf8_lossy(&output.stderr)))
        }
    });
    println!("client$ curl 192.168.10.0:18081\n{answer}");
    let neighbour = cluster.client.ip("neighbour show 192.168.10.0 dev eth0");
    assert!(neighbour.contains(&mac), "{neighbour}");

    // BGP: the same address by both nodes.
    eventually("the router has both next hops", PATIENCE, || match frr.next_hops("192.168.10.0/32") {
        hops if hops == ["172.16.1.11", "172.16.1.21"] => Ok(()),
        hops => Err(format!("{hops:?}\n{}\n{}", frr.show("show bgp summary"), speakers[1].output())),
    });
    println!("{}", frr.show("show ip route 192.168.10.0/32"));

    // What the cluster says about it.
    eventually("statuses and Events are there", PATIENCE, || {
        let l2 = api.kubectl(
            &["get", "servicel2statuses", "-n", "metallb-system", "-o", "jsonpath={.items[*].status.node}"],
            None,
        )?;
        let bgp = api.kubectl(
            &["get", "servicebgpstatuses", "-n", "metallb-system", "-o", "jsonpath={.items[*].status.node}"],
            None,
        )?;
        let pool = api.kubectl(
            &["get", "ipaddresspool", "demo-pool", "-n", "metallb-system", "-o", "jsonpath={.status.assignedIPv4}"],
            None,
        )?;
        let events = api
            .kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}"], None)?;
        let said = |text: &str| events.lines().any(|line| line.contains(text));
        let complete = l2 == "kind-control-plane"
            && bgp.split(' ').count() == 2
            && pool == "1"
            && said("IPAllocated Assigned IP [\"192.168.10.0\"]")
            && said("nodeAssigned announcing from node \"kind-control-plane\" with protocol \"layer2\"")
            && said("nodeAssigned announcing from node \"kind-worker\" with protocol \"bgp\"");
        if complete {
            Ok(())
        } else {
            Err(format!("l2 {l2}, bgp {bgp}, pool {pool}\n{events}\n{}", speakers[0].output()))
        }
    });

    // An address outside all pools stays pending with the reason on the object; nobody loses anything.
    api.apply("apiVersion: v1\nkind: Service\nmetadata: {name: outside}\nspec: {type: LoadBalancer, loadBalancerIP: 9.9.9.9, ports: [{port: 80}]}\n");
    eventually("the refusal is told", PATIENCE, || {
        let events = api.kubectl(&["get", "events", "--field-selector", "involvedObject.name=outside"], None)?;
        if events.contains("is not allowed in config") { Ok(()) } else { Err(events) }
    });

    // A restart changes nothing.
    controller.signal(Signal::SIGTERM);
    assert!(controller.wait(PATIENCE).is_some_and(|status| status.success()), "{}", controller.output());
    controller = start(directory.path(), &cluster, &cluster.control, "controller", "second");
    api.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: late}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n",
    );
    eventually("a new Service gets the next address", PATIENCE, || match ip("late") {
        Ok(ip) if ip == "192.168.10.1" => Ok(()),
        other => Err(format!("{other:?}\n{}", controller.output())),
    });
    assert_eq!(ip("metallb1-cluster").unwrap(), "192.168.10.0");

    // A speaker that stops withdraws.
    speakers[1].signal(Signal::SIGTERM);
    assert!(speakers[1].wait(PATIENCE).is_some_and(|status| status.success()), "{}", speakers[1].output());
    eventually("one next hop is left", PATIENCE, || match frr.next_hops("192.168.10.0/32") {
        hops if hops == ["172.16.1.11"] => Ok(()),
        hops => Err(format!("{hops:?}")),
    });
}
