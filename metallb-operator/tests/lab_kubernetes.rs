//! Controller and speakers as processes of their own, under the shipped RBAC, against a real API server; both modes at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a lab prints what the router and the client saw")]

use std::path::Path;
use std::time::Duration;

#[path = "support/claim.rs"]
mod claim;
#[path = "support/frr.rs"]
mod frr;
#[path = "support/kube.rs"]
mod kube;
#[path = "support/netns.rs"]
mod netns;

use claim::claim;
use frr::Frr;
use kube::KubeApi;
use netns::{Lab, Namespace, Process, eventually, missing_part, skip};
use nix::sys::signal::Signal;

/// kube-proxy tries again after half a minute when something of its first round failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// The YAML blocks of the quick-start examples, BGP and L2.
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

/// Name and last byte of the addresses of each node.
const NODES: [(&str, u8); 3] = [("kind-control-plane", 11), ("kind-worker", 21), ("kind-worker2", 31)];

fn node_v6(last: u8) -> String {
    format!("fc00:f853:ccd:e799::{last:x}:{last:x}")
}

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
        namespace.ip(&format!("address add {}/64 dev eth0 nodad", node_v6(last)));
        namespace
    };
    let control = host("control", 250);
    let api = KubeApi::start(&control, "172.16.1.250", assets);
    let client = host("client", 200);
    let router = host("router", 1);
    let nodes = NODES.map(|(name, last)| (name.to_owned(), host(name, last)));
    let crds = std::process::Command::new(env!("CARGO_BIN_EXE_metallb")).arg("crds").output().expect("crds");
    api.apply(include_str!("../../deploy/namespace.yaml"));
    api.apply(include_str!("../../deploy/rbac/controller.yaml"));
    api.apply(include_str!("../../deploy/rbac/speaker.yaml"));
    api.apply(&String::from_utf8(crds.stdout).expect("text"));
    api.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], None).expect("established");
    for (name, last) in NODES {
        api.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}\n"
        ));
        // kube-proxy waits half a minute for them.
        let addresses = format!(
            "{{\"status\":{{\"addresses\":[{{\"type\":\"InternalIP\",\"address\":\"172.16.1.{last}\"}},{{\"type\":\"InternalIP\",\"address\":\"{}\"}}]}}}}",
            node_v6(last)
        );
        api.kubectl(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &addresses], None).unwrap();
    }
    Cluster { api, control, client, nodes: nodes.into(), router, _lab: lab }
}

fn start(directory: &Path, cluster: &Cluster, namespace: &Namespace, role: &str, node: &str, more: &[&str]) -> Process {
    let config = cluster.api.kubeconfig(role);
    let variable = format!("KUBECONFIG={}", config.display());
    let exclude = directory.join("no-exclusions").display().to_string();
    let mut arguments = vec![variable.as_str(), env!("CARGO_BIN_EXE_metallb"), role, "--namespace", "metallb-system"];
    if role == "speaker" {
        arguments.extend(["--node-name", node, "--exclude-interfaces", &exclude]);
    }
    arguments.extend(more);
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

/// A backend and kube-proxy on every node, and an EndpointSlice per family that names them all.
fn serve(directory: &Path, cluster: &Cluster, assets: &Path, service: &str) -> Vec<Process> {
    let script = directory.join("backend.py");
    std::fs::write(&script, include_str!("support/backend.py")).unwrap();
    let mut processes = Vec::new();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for ((name, namespace), (_, last)) in cluster.nodes.iter().zip(NODES) {
        let log = directory.join(format!("backend-{name}.log"));
        processes.push(namespace.spawn(&log, "python3", &[script.to_str().unwrap(), name]));
        processes.push(start_kube_proxy(directory, cluster, assets, namespace, name));
        v4.push(endpoint(&format!("172.16.1.{last}"), name));
        v6.push(endpoint(&node_v6(last), name));
    }
    for (family, endpoints) in [("IPv4", v4), ("IPv6", v6)] {
        cluster.api.apply(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-{}, namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: {family}\nports: [{{port: 8080, protocol: TCP}}]\nendpoints: [{}]\n",
            family.to_lowercase(),
            endpoints.join(", ")
        ));
    }
    processes
}

fn endpoint(address: &str, node: &str) -> String {
    format!("{{addresses: ['{address}'], nodeName: {node}, conditions: {{ready: true}}}}")
}

fn start_speakers(directory: &Path, cluster: &Cluster) -> Vec<Process> {
    let speaker = |(name, namespace): &(String, Namespace)| start(directory, cluster, namespace, "speaker", name, &[]);
    cluster.nodes.iter().map(speaker).collect()
}

/// Speakers that gossip under the key of the Secret, and find each other by their pods.
fn start_members(directory: &Path, cluster: &Cluster) -> Vec<Process> {
    let api = &cluster.api;
    let key = eventually("the controller makes the key of the gossip", PATIENCE, || {
        let secret = ["get", "secret", "memberlist", "-n", "metallb-system", "-o", "jsonpath={.data.secretkey}"];
        api.kubectl(&secret, None).and_then(|key| if key.is_empty() { Err("no key".to_owned()) } else { Ok(key) })
    });
    // As kubelet mounts it.
    let mounted = directory.join("ml_secret_key");
    std::fs::create_dir(&mounted).unwrap();
    let decoded = format!("printf %s '{key}' | base64 --decode > {}/secretkey", mounted.display());
    assert!(std::process::Command::new("sh").args(["-c", &decoded]).status().unwrap().success());
    for (name, last) in NODES {
        api.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: speaker-{name}, namespace: metallb-system, labels: {{app: metallb, component: speaker}}}}\nspec: {{nodeName: {name}, hostNetwork: true, containers: [{{name: speaker, image: metallb}}]}}\n"
        ));
        let ip =
            format!("{{\"status\":{{\"podIP\":\"172.16.1.{last}\",\"podIPs\":[{{\"ip\":\"172.16.1.{last}\"}}]}}}}");
        let pod = format!("speaker-{name}");
        let patch = ["patch", "pod", &pod, "-n", "metallb-system", "--subresource=status", "--type=merge", "-p", &ip];
        api.kubectl(&patch, None).unwrap();
    }
    let member = |((name, namespace), (_, last)): (&(String, Namespace), (&str, u8))| {
        let (address, pod) = (format!("172.16.1.{last}"), format!("speaker-{name}"));
        let more = [
            "--pod-name",
            &pod,
            "--ml-bindaddr",
            &address,
            "--ml-labels",
            "app=metallb,component=speaker",
            "--ml-secret-key-path",
            mounted.to_str().unwrap(),
        ];
        start(directory, cluster, namespace, "speaker", name, &more)
    };
    cluster.nodes.iter().zip(NODES).map(member).collect()
}

/// The kube assets and programs of a lab, or the line that says what is missing.
fn parts(test: &str, programs: &[&str]) -> Option<std::path::PathBuf> {
    let Some(assets) = kube::assets() else {
        skip(test, "KUBEBUILDER_ASSETS with kube-apiserver, etcd, kube-proxy, kubectl");
        return None;
    };
    if let Some(part) = missing_part(&[programs, &["nft", "curl", "python3", "openssl"]].concat()) {
        skip(test, &part);
        return None;
    }
    Some(assets)
}

/// The three steps of the document: one node answers for the address, by ARP and by NDP, kube-proxy serves what arrives there, and
/// when the node dies the next one answers, because the speakers noticed; and again when there is no API server any more.
#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_kubernetes_l2_address_of_both_families_is_served_by_the_elected_node_and_moves() {
    const TEST: &str = "lab_kubernetes_l2_address_of_both_families_is_served_by_the_elected_node_and_moves";
    let Some(assets) = parts(TEST, &[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let cluster = cluster(assets.clone());
    let api = &cluster.api;
    api.apply(SEED[0]);
    // Any node may answer.
    api.apply(SEED[1].split("  nodeSelectors:").next().unwrap());
    let dual = "spec:\n  ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv4, IPv6]";
    api.apply(&SEED[2].replace("spec:", dual));
    let serving = serve(directory.path(), &cluster, &assets, "metallb1-cluster");
    let secret = ["--ml-secret-name", "memberlist"];
    let controller = start(directory.path(), &cluster, &cluster.control, "controller", "first", &secret);
    let speakers = start_members(directory.path(), &cluster);

    let vips = ["192.168.10.0", "fc00:f853:ccd:e799::"];
    eventually("the Service gets an address of each family", PATIENCE, || {
        let ips = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        match api.kubectl(&["get", "service", "metallb1-cluster", "-o", ips], None) {
            Ok(ips) if ips == vips.join(" ") => Ok(()),
            other => Err(format!("{other:?}\n{}", controller.output())),
        }
    });
    let answered_by = |expected: &str| {
        let (_, node) = cluster.nodes.iter().find(|(name, _)| name == expected).unwrap();
        let mac = node.mac("eth0");
        for (vip, url) in vips.into_iter().zip(["http://192.168.10.0:18081/", "http://[fc00:f853:ccd:e799::]:18081/"]) {
            eventually(&format!("{url} is served by way of {expected}"), PATIENCE, || {
                let output = cluster.client.shell(&format!("curl --silent --show-error --max-time 2 '{url}'"));
                let neighbour = cluster.client.ip(&format!("neighbour show {vip} dev eth0"));
                let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                if output.status.success() && neighbour.contains(&mac) {
                    println!("client$ curl {url}\n{answer}\nclient$ ip neighbour\n{}", neighbour.trim());
                    return Ok(());
                }
                let logs: String = serving.iter().map(Process::output).collect();
                Err(format!("{neighbour}{answer}{}\n{logs}", String::from_utf8_lossy(&output.stderr)))
            });
        }
    };
    let order = election_order("192.168.10.0");
    answered_by(&order[0]);

    let dead = cluster.nodes.iter().position(|(name, _)| *name == order[0]).unwrap();
    speakers[dead].signal(Signal::SIGKILL);
    cluster.nodes[dead].1.ip("link set eth0 down");
    // The API still calls the node ready: the others know better. Only kube-proxy must be told that its pods are gone.
    for family in ["ipv4", "ipv6"] {
        let slice = format!("metallb1-cluster-{family}");
        let patch = format!("[{{\"op\":\"remove\",\"path\":\"/endpoints/{dead}\"}}]");
        api.kubectl(&["patch", "endpointslice", &slice, "--type=json", "-p", &patch], None).unwrap();
    }
    answered_by(&order[1]);

    // Without the API server the last speaker takes over all the same.
    api.stop();
    let next = cluster.nodes.iter().position(|(name, _)| *name == order[1]).unwrap();
    speakers[next].signal(Signal::SIGKILL);
    answered_by(&order[2]);
}

/// The nodes by sha256(`node#ip`), as `sha256sum` says.
fn election_order(ip: &str) -> Vec<String> {
    let mut ranked: Vec<(String, String)> = NODES
        .iter()
        .map(|(name, _)| {
            let line = format!("printf %s '{name}#{ip}' | sha256sum");
            let output = std::process::Command::new("sh").args(["-c", &line]).output().expect("sha256sum");
            (String::from_utf8(output.stdout).expect("text"), (*name).to_owned())
        })
        .collect();
    ranked.sort();
    ranked.into_iter().map(|(_, name)| name).collect()
}

/// An edited or deleted ServiceBGPStatus is written again: one for each node, with the names of its peers.
fn statuses_are_mended(api: &KubeApi) {
    let selector = "metallb.io/node=kind-worker,metallb.io/service-name=metallb1-cluster";
    let listed = |path: &str| {
        let path = format!("jsonpath={{.items[*]{path}}}");
        api.kubectl(&["get", "servicebgpstatuses", "-n", "metallb-system", "-l", selector, "-o", &path], None)
    };
    let is = |path: &str, expected: &str| match listed(path) {
        Ok(found) if found == expected => Ok(()),
        other => Err(format!("{path} is {other:?}")),
    };
    is(".status.peers", "[\"test\"]").unwrap();
    is(".status.serviceNamespace", "default").unwrap();
    let name = listed(".metadata.name").unwrap();
    assert!(name.starts_with("bgp-"), "{name}");
    let wrong = "{\"status\":{\"peers\":[\"someone\"]}}";
    let on = ["servicebgpstatus", &name, "-n", "metallb-system"];
    api.kubectl(&[&["patch"], &on[..], &["--subresource=status", "--type=merge", "-p", wrong]].concat(), None).unwrap();
    eventually("an edit is undone", Duration::from_secs(20), || is(".status.peers", "[\"test\"]"));
    let uid = listed(".metadata.uid").unwrap();
    api.kubectl(&[&["delete"], &on[..]].concat(), None).unwrap();
    eventually("a deleted status is written again", Duration::from_secs(20), || is(".status.peers", "[\"test\"]"));
    assert_ne!(listed(".metadata.uid").unwrap(), uid);
}

/// What the elected node has itself it does not announce, and its ServiceL2Status says so for as long as it has it.
fn addresses_of_the_node_itself_are_refused(cluster: &Cluster) {
    let (api, (name, node)) = (&cluster.api, &cluster.nodes[0]);
    let own = ["192.168.10.11", "fc00:f853:ccd:e799::f"];
    node.ip(&format!("address add {}/64 dev eth0 nodad", own[1]));
    api.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: own, annotations: {{metallb.io/loadBalancerIPs: '{}'}}}}\nspec: {{type: LoadBalancer, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], ports: [{{port: 80}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: own-1, namespace: default, labels: {{kubernetes.io/service-name: own}}}}\naddressType: IPv4\nports: [{{port: 8080, protocol: TCP}}]\nendpoints: [{}]\n",
        own.join(","),
        endpoint("172.16.1.11", name)
    ));
    let refuses = |ips: &[&str]| {
        let expected: String = ips.iter().map(|ip| format!("{ip} this node has it on eth0\n")).collect();
        let line = "jsonpath={range .items[*].status}{.node}\n{range .refused[*]}{.ip} {.reason}\n{end}{end}";
        let service = ["-l", "metallb.io/service-name=own"];
        let get = ["get", "servicel2statuses", "-n", "metallb-system", "-o", line];
        eventually(&format!("the status refuses {ips:?}"), PATIENCE, || {
            match api.kubectl(&[&get[..], &service].concat(), None) {
                Ok(text) if text == format!("{name}\n{expected}") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    };
    refuses(&own);
    let about = ["get", "events", "--field-selector", "involvedObject.name=own,reason=announceFailed"];
    let events = api.kubectl(&[&about[..], &["-o", "jsonpath={.items[*].message}"]].concat(), None).unwrap();
    for ip in own {
        assert!(events.contains(&format!("{ip} is not announced: this node has it on eth0")), "{events}");
    }
    node.ip(&format!("address del {}/64 dev eth0", own[1]));
    refuses(&own[..1]);
    node.ip(&format!("address del {}/24 dev eth0", own[0]));
    refuses(&[]);
    eventually("it is announced then", PATIENCE, || {
        let output = cluster.client.shell(&format!("arping -c 1 -w 1 -I eth0 {}", own[0]));
        let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
        if text.contains(&node.mac("eth0")) { Ok(()) } else { Err(text) }
    });
    node.ip(&format!("address add {}/24 dev eth0", own[0]));
    refuses(&own[..1]);
    api.kubectl(&["delete", "service", "own"], None).unwrap();
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_kubernetes_both_modes_serve_one_service_under_the_shipped_roles() {
    const TEST: &str = "lab_kubernetes_both_modes_serve_one_service_under_the_shipped_roles";
    let Some(assets) = parts(TEST, &frr::PROGRAMS) else { return };
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
    let backends = serve(directory.path(), &cluster, &assets, "metallb1-cluster");
    let frr = Frr::start(
        &cluster.router,
        "router bgp 7675\n bgp router-id 172.16.1.1\n no bgp ebgp-requires-policy\n neighbor 172.16.1.11 remote-as 7776\n neighbor 172.16.1.21 remote-as 7776\n",
        &[],
    );
    let mut controller = start(directory.path(), &cluster, &cluster.control, "controller", "first", &[]);
    let mut speakers = start_speakers(directory.path(), &cluster);

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
            && bgp.split(' ').count() == 3
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

    statuses_are_mended(api);
    addresses_of_the_node_itself_are_refused(&cluster);

    // An address outside all pools stays pending with the reason on the object; nobody loses anything.
    api.apply("apiVersion: v1\nkind: Service\nmetadata: {name: outside}\nspec: {type: LoadBalancer, loadBalancerIP: 9.9.9.9, ports: [{port: 80}]}\n");
    eventually("the refusal is told", PATIENCE, || {
        let events = api.kubectl(&["get", "events", "--field-selector", "involvedObject.name=outside"], None)?;
        if events.contains("is not allowed in config") { Ok(()) } else { Err(events) }
    });

    // A restart changes nothing.
    controller.signal(Signal::SIGTERM);
    assert!(controller.wait(PATIENCE).is_some_and(|status| status.success()), "{}", controller.output());
    controller = start(directory.path(), &cluster, &cluster.control, "controller", "second", &[]);
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

/// A host that has nothing to do with the cluster says that it has the address of a Service.
#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_kubernetes_service_leaves_the_address_that_a_foreign_host_uses() {
    const TEST: &str = "lab_kubernetes_service_leaves_the_address_that_a_foreign_host_uses";
    let Some(assets) = parts(TEST, &["python3"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let cluster = cluster(assets);
    let api = &cluster.api;
    api.apply(SEED[0]);
    api.apply(SEED[1].split("  nodeSelectors:").next().unwrap());
    api.apply(SEED[2]);
    let endpoints: Vec<String> = NODES.iter().map(|(name, last)| endpoint(&format!("172.16.1.{last}"), name)).collect();
    api.apply(&format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: metallb1-cluster}}}}\naddressType: IPv4\nports: [{{port: 8080, protocol: TCP}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    ));
    let quarantine = ["--quarantine-conflicts"];
    let controller = start(directory.path(), &cluster, &cluster.control, "controller", "first", &quarantine);
    let speakers = start_speakers(directory.path(), &cluster);
    let address = || {
        let ip = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        api.kubectl(&["get", "service", "metallb1-cluster", "-o", ip], None).unwrap_or_default()
    };
    let answers = |ip: &str| cluster.client.shell(&format!("arping -c 1 -w 1 -I eth0 {ip}")).status.success();
    let logs = || speakers.iter().chain([&controller]).map(Process::output).collect::<String>();
    eventually("a node answers for the address of the Service", PATIENCE, || {
        if address() == "192.168.10.0" && answers("192.168.10.0") { Ok(()) } else { Err(logs()) }
    });
    let foreign = cluster.router.mac("eth0");
    let moved = eventually("the Service has another address, and a node answers for it", PATIENCE, || {
        claim(&cluster.router, "192.168.10.0");
        let ip = address();
        if !ip.is_empty() && ip != "192.168.10.0" && answers(&ip) { Ok(ip) } else { Err(format!("{ip}\n{}", logs())) }
    });
    assert!(!answers("192.168.10.0"), "the address is the other host's\n{}", logs());
    let told = [
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=metallb1-cluster",
        "-o",
        "jsonpath={.items[*].message}",
    ];
    let events = api.kubectl(&told, None).unwrap();
    assert!(events.contains("can not be kept") && events.contains(&foreign), "{events}");
    let pool = ["get", "ipaddresspools", "-A", "-o", "jsonpath={.items[*].status.quarantined}"];
    let listed = eventually("the pool shows what is out of circulation", PATIENCE, || {
        let listed = api.kubectl(&pool, None)?;
        if listed.contains("192.168.10.0") && listed.contains(&foreign) { Ok(listed) } else { Err(listed) }
    });
    println!("{foreign} took 192.168.10.0: the Service has {moved}\n{listed}");

    // Edited and deleted status objects are written again.
    let name = "jsonpath={.items[*].metadata.name}";
    let names = || api.kubectl(&["get", "servicel2statuses", "-n", "metallb-system", "-o", name], None);
    let first = eventually("there is a status", PATIENCE, || {
        names().and_then(|name| if name.is_empty() { Err(logs()) } else { Ok(name) })
    });
    let lie = "{\"status\":{\"interfaces\":[{\"name\":\"made-up\"}]}}";
    let patch = [
        "patch",
        "servicel2statuses",
        &first,
        "-n",
        "metallb-system",
        "--subresource=status",
        "--type=merge",
        "-p",
        lie,
    ];
    api.kubectl(&patch, None).unwrap();
    // Sooner than everything is looked at for other reasons.
    let soon = Duration::from_secs(30);
    eventually("a changed status is mended", soon, || {
        let status = api.kubectl(
            &["get", "servicel2statuses", "-n", "metallb-system", "-o", "jsonpath={.items[*].status}"],
            None,
        )?;
        if !status.is_empty() && !status.contains("made-up") { Ok(()) } else { Err(status) }
    });
    let uid = "jsonpath={.items[*].metadata.uid}";
    let uids = || api.kubectl(&["get", "servicel2statuses", "-n", "metallb-system", "-o", uid], None);
    let first = uids().unwrap();
    api.kubectl(&["delete", "servicel2statuses", "--all", "-n", "metallb-system"], None).unwrap();
    eventually("a deleted status is written again", soon, || {
        let second = uids()?;
        if !second.is_empty() && second != first { Ok(()) } else { Err(second) }
    });
}
