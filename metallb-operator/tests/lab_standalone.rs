//! The quick-start examples without Kubernetes: network namespaces, the kernel, FRR.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a lab prints what the router and the client saw")]

use std::path::Path;
use std::time::Duration;

#[path = "support/frr.rs"]
mod frr;
#[path = "support/netns.rs"]
mod netns;
#[path = "lab_standalone/status.rs"]
mod status;

use frr::Frr;
use netns::{Lab, Namespace, Process, eventually, missing_part, skip};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(30);

const L2_CONFIG: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: demo-pool, namespace: metallb-system, labels: {ipaddresspool: demo}}
spec:
  addresses: [192.168.10.0/24, 192.168.9.1-192.168.9.5, 'fc00:f853:0ccd:e799::/124']
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: demo, namespace: metallb-system}
spec: {ipAddressPools: [demo-pool]}
---
apiVersion: v1
kind: Service
metadata: {name: metallb1-cluster, namespace: default}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{port: 18081, targetPort: 8080, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metallb1-cluster-1, namespace: default, labels: {kubernetes.io/service-name: metallb1-cluster}}
addressType: IPv4
endpoints: [{addresses: [172.20.166.20], nodeName: node-1, conditions: {ready: true}}]
";

/// One node: its namespace and, while it runs, its standalone process.
struct Host {
    name: String,
    namespace: Namespace,
    process: Option<Process>,
    _backend: Process,
}

fn node_object(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}\n")
}

fn start(directory: &Path, namespace: &Namespace, name: &str) -> Process {
    let manifests = directory.join("manifests");
    let state = directory.join(format!("{name}.json"));
    let log = directory.join(format!("{name}.log"));
    let (manifests, state) = (manifests.to_str().unwrap(), state.to_str().unwrap());
    let arguments =
        ["standalone", "--manifests", manifests, "--state", state, "--node-name", name, "--log-format", "text"];
    namespace.spawn(&log, env!("CARGO_BIN_EXE_metallb"), &arguments)
}

/// An HTTP server that names its host, and the redirection that kube-proxy would make.
fn backend(directory: &Path, namespace: &Namespace, name: &str, vips: &[&str]) -> Process {
    let script = directory.join("backend.py");
    std::fs::write(&script, include_str!("support/backend.py")).unwrap();
    let log = directory.join(format!("{name}.backend.log"));
    let process = namespace.spawn(&log, "python3", &[script.to_str().unwrap(), name]);
    let mut rules = String::from("table inet lab {\n chain prerouting {\n type nat hook prerouting priority dstnat;\n");
    for vip in vips {
        let family = if vip.contains(':') { "ip6" } else { "ip" };
        rules += &format!("{family} daddr {vip} tcp dport 18081 redirect to :8080\n");
    }
    let file = directory.join(format!("{name}.nft"));
    std::fs::write(&file, rules + "}\n}\n").unwrap();
    namespace.must(&format!("nft -f {}", file.display()));
    eventually("the backend listens", PATIENCE, || {
        let answer = namespace.shell("curl --silent --max-time 1 http://127.0.0.1:8080/");
        if answer.status.success() { Ok(()) } else { Err("no answer".to_owned()) }
    });
    process
}

fn get(client: &Namespace, url: &str) -> Result<String, String> {
    let output = client.shell(&format!("curl --silent --show-error --max-time 2 '{url}'"));
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_l2_vip_resolves_to_the_elected_node_answers_and_moves_when_its_owner_dies() {
    const TEST: &str = "lab_l2_vip_resolves_to_the_elected_node_answers_and_moves_when_its_owner_dies";
    if let Some(part) = missing_part(&["nft", "curl", "python3"]) {
        return skip(TEST, &part);
    }
    let directory = tempfile::tempdir().unwrap();
    let manifests = directory.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    std::fs::write(manifests.join("config.yaml"), L2_CONFIG).unwrap();
    let mut lab = Lab::new();
    let switch = lab.namespace("switch");
    switch.ip("link add br0 type bridge");
    switch.ip("link set br0 up");
    let mut host = |name: &str, number: u8| {
        let namespace = lab.namespace(name);
        lab.link(&namespace, "eth0", &switch, &format!("port{number}"));
        switch.ip(&format!("link set port{number} master br0"));
        namespace.ip(&format!("address add 192.168.10.{}/24 dev eth0", 200 + u16::from(number)));
        namespace.ip(&format!("address add fc00:f853:ccd:e799::{:x}/64 dev eth0 nodad", 0x200 + u16::from(number)));
        namespace
    };
    let client = host("client", 0);
    let vips = ["192.168.10.0", "fc00:f853:ccd:e799::"];
    let mut hosts: Vec<Host> = (1..=3)
        .map(|number| {
            let name = format!("node-{number}");
            let namespace = host(&name, number);
            std::fs::write(manifests.join(format!("{name}.yaml")), node_object(&name)).unwrap();
            let backend = backend(directory.path(), &namespace, &name, &vips);
            Host { name, namespace, process: None, _backend: backend }
        })
        .collect();
    for host in &mut hosts {
        host.process = Some(start(directory.path(), &host.namespace, &host.name));
    }

    // Nodes are told apart by sha256("node#ip"); `plan` says who it must be, by the same rule.
    let plan = std::process::Command::new(env!("CARGO_BIN_EXE_metallb"))
        .args(["plan", "-o", "json", "-f"])
        .arg(&manifests)
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    let owner = plan["services"][0]["l2"][0]["node"].as_str().unwrap().to_owned();

    let urls = ["http://192.168.10.0:18081/", "http://[fc00:f853:ccd:e799::]:18081/"];
    let seen_from = |client: &Namespace, expected: &str| {
        let mac = hosts.iter().find(|host| host.name == expected).unwrap().namespace.mac("eth0");
        for (url, vip) in urls.into_iter().zip(vips) {
            let answer = eventually(&format!("{url} is answered by {expected}"), PATIENCE, || {
                client.ip("neighbour flush dev eth0");
                get(client, url).and_then(|text| if text.contains(expected) { Ok(text) } else { Err(text) })
            });
            let neighbour = client.ip(&format!("neighbour show {vip} dev eth0"));
            assert!(neighbour.contains(&mac), "{vip} should be at {mac}: {neighbour}");
            println!("client$ curl {url}\n{answer}\nclient$ ip neighbour\n{neighbour}");
        }
    };
    seen_from(&client, &owner);

    // The owner dies, and the cluster notices: its node goes.
    let position = hosts.iter().position(|host| host.name == owner).unwrap();
    let mut process = {
        let dead = &hosts[position];
        dead.namespace.ip("link set eth0 down");
        std::fs::remove_file(manifests.join(format!("{owner}.yaml"))).unwrap();
        dead.process.as_ref().unwrap().signal(Signal::SIGKILL);
        owner.clone()
    };
    let left: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).filter(|name| *name != owner).collect();
    let heir = eventually("another node answers", PATIENCE, || {
        let text = get(&client, urls[0])?;
        left.iter().find(|name| text.contains(**name)).map(|name| (*name).to_owned()).ok_or(text)
    });
    assert_ne!(heir, std::mem::take(&mut process));
    seen_from(&client, &heir);
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bgp_seed_router_learns_both_next_hops_and_loses_one() {
    const TEST: &str = "lab_bgp_seed_router_learns_both_next_hops_and_loses_one";
    if let Some(part) = missing_part(&[&frr::PROGRAMS[..], &["nft", "curl", "python3"]].concat()) {
        return skip(TEST, &part);
    }
    let directory = tempfile::tempdir().unwrap();
    let manifests = directory.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let config = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: bgp-pool, namespace: metallb-system}
spec: {addresses: [10.254.254.1/32, 'fd00:254::1/128']}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: local, namespace: metallb-system}
spec: {ipAddressPools: [bgp-pool], aggregationLength: 32}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: first, namespace: metallb-system}
spec:
  {myASN: 7776, peerASN: 7675, peerAddress: 172.16.1.1, routerID: 172.16.1.11, dualStackAddressFamily: true,
   nodeSelectors: [{matchLabels: {kubernetes.io/hostname: master1}}]}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: second, namespace: metallb-system}
spec:
  {myASN: 7776, peerASN: 7675, peerAddress: 172.16.2.1, dualStackAddressFamily: true,
   nodeSelectors: [{matchLabels: {kubernetes.io/hostname: worker1}}]}
---
apiVersion: v1
kind: Service
metadata: {name: metallb-demo, namespace: default}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{port: 18081, targetPort: 8080, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metallb-demo-1, namespace: default, labels: {kubernetes.io/service-name: metallb-demo}}
addressType: IPv4
endpoints: [{addresses: [172.20.166.20], nodeName: worker1, conditions: {ready: true}}]
";
    let nodes = node_object("master1") + &node_object("worker1");
    std::fs::write(manifests.join("config.yaml"), config.to_owned() + &nodes).unwrap();
    let mut lab = Lab::new();
    let router = lab.namespace("router");
    router.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let vips = ["10.254.254.1", "fd00:254::1"];
    let mut hosts = Vec::new();
    for (number, (name, last)) in [(1, ("master1", 11)), (2, ("worker1", 21))] {
        let namespace = lab.namespace(name);
        lab.link(&router, &format!("eth{number}"), &namespace, "eth0");
        router.ip(&format!("address add 172.16.{number}.1/24 dev eth{number}"));
        router.ip(&format!("address add fd00:{number}::1/64 dev eth{number} nodad"));
        namespace.ip(&format!("address add 172.16.{number}.{last}/24 dev eth0"));
        namespace.ip(&format!("address add fd00:{number}::{last}/64 dev eth0 nodad"));
        // The router may send from its address on the other link: its nodes must find the way back.
        namespace.ip(&format!("route add default via 172.16.{number}.1"));
        namespace.ip(&format!("-6 route add default via fd00:{number}::1"));
        let backend = backend(directory.path(), &namespace, name, &vips);
        hosts.push(Host { name: name.to_owned(), namespace, process: None, _backend: backend });
    }
    // The seed's own lines; the address family block is what IPv6 needs beyond it.
    let router_config = "
router bgp 7675
 bgp router-id 172.16.1.1
 no bgp ebgp-requires-policy
 neighbor 172.16.1.11 remote-as 7776
 neighbor 172.16.1.11 description master1
 neighbor 172.16.2.21 remote-as 7776
 neighbor 172.16.2.21 description woker1
 address-family ipv6 unicast
  neighbor 172.16.1.11 activate
  neighbor 172.16.2.21 activate
 exit-address-family
";
    let frr = Frr::start(&router, router_config, &[]);
    for host in &mut hosts {
        host.process = Some(start(directory.path(), &host.namespace, &host.name));
    }
    let hops = |prefix: &str, expected: &[&str]| {
        eventually(&format!("{prefix} has next hops {expected:?}"), PATIENCE, || {
            let found = frr.next_hops(prefix);
            let log = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
            let logs = log("master1.log") + &log("worker1.log");
            if found == expected { Ok(()) } else { Err(format!("{found:?}\n{}\n{logs}", frr.show("show bgp summary"))) }
        });
    };
    hops("10.254.254.1/32", &["172.16.1.11", "172.16.2.21"]);
    let v6 =
        |frr: &Frr| frr.json("show bgp ipv6 unicast json")["routes"]["fd00:254::1/128"].as_array().map_or(0, Vec::len);
    eventually("the IPv6 route has two paths", PATIENCE, || match v6(&frr) {
        2 => Ok(()),
        count => Err(format!("{count} paths\n{}", frr.show("show bgp ipv6 unicast"))),
    });
    println!("{}", frr.show("show ip route"));
    for url in ["http://10.254.254.1:18081/", "http://[fd00:254::1]:18081/"] {
        let answer = eventually(&format!("{url} answers"), PATIENCE, || get(&router, url));
        assert!(answer.contains("metallb-demo"), "{answer}");
        println!("root@router:~# curl {url}\n{answer}");
    }

    let mut stopped = hosts[0].process.take().unwrap();
    stopped.signal(Signal::SIGTERM);
    assert!(stopped.wait(PATIENCE).is_some_and(|status| status.success()), "{}", stopped.output());
    hops("10.254.254.1/32", &["172.16.2.21"]);
    eventually("the IPv6 route has one path", PATIENCE, || match v6(&frr) {
        1 => Ok(()),
        count => Err(format!("{count} paths")),
    });
    let answer = get(&router, "http://10.254.254.1:18081/").unwrap();
    assert!(answer.contains("worker1"), "{answer}");
}
