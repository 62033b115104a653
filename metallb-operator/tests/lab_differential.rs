//! `plan` says what a running `standalone` does, on random scenarios; and `status` shows it.
//!
//! `METALLB_DIFFERENTIAL_SCENARIOS` scales it, `METALLB_DIFFERENTIAL_SEED` starts elsewhere. A failure prints its seed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a lab prints what it saw")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

#[path = "support/netns.rs"]
#[allow(dead_code, reason = "each lab takes what it needs")]
mod netns;

use netns::{Lab, Namespace, eventually, missing_part, skip};

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_standalone_does_on_every_node_what_plan_says() {
    const TEST: &str = "lab_standalone_does_on_every_node_what_plan_says";
    if let Some(part) = missing_part(&[]) {
        return skip(TEST, &part);
    }
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (scenarios, seed) = (number("METALLB_DIFFERENTIAL_SCENARIOS", 60), number("METALLB_DIFFERENTIAL_SEED", 1_u64));
    let mut lab = Lab::new();
    let host = lab.namespace("host");
    // A usable interface: a node without one answers for no address. Its IPv6 address needs no wait for duplicates.
    host.must("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0");
    host.ip("link add vip0 type veth peer name far0");
    host.ip("link set vip0 up");
    host.ip("link set far0 up");
    let mut totals = [0; 4];
    for seed in seed..seed + scenarios {
        let scenario = Scenario::random(seed);
        let found = compare(&host, &scenario);
        for (total, count) in totals.iter_mut().zip(found) {
            *total += count;
        }
    }
    let [services, addresses, answered, advertised] = totals;
    println!(
        "{scenarios} scenarios with {services} Services, each node of each run by itself: {addresses} addresses, {answered} answers \
         on L2 and {advertised} offers of a Service to a peer are as planned"
    );
    assert!(addresses > 0 && answered > 0 && advertised > 0, "the scenarios are too dull to show anything");
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_status_shows_what_a_running_standalone_does() {
    const TEST: &str = "lab_status_shows_what_a_running_standalone_does";
    if let Some(part) = missing_part(&[]) {
        return skip(TEST, &part);
    }
    let mut lab = Lab::new();
    let host = lab.namespace("host");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("manifests")).unwrap();
    std::fs::write(path("manifests/all.yaml"), SMALL).unwrap();
    let process = host.spawn(
        Path::new(&path("log")),
        env!("CARGO_BIN_EXE_metallb"),
        &["standalone", "--manifests", &path("manifests"), "--state", &path("state.json"), "--node-name", "node-a"],
    );
    let status = |arguments: &[&str]| {
        let output = host.command(env!("CARGO_BIN_EXE_metallb")).arg("status").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let parts =
        ["default/web", "assigned", "192.168.10.0", "answered by node-a", "PEER", "tor", "default/late is pending:"];
    let text = eventually("status shows everything", Duration::from_secs(20), || {
        let text = status(&[]).map_err(|error| format!("{error}\n{}", process.output()))?;
        match parts.iter().find(|part| !text.contains(**part)) {
            Some(part) => Err(format!("{part} is missing in:\n{text}")),
            None => Ok(text),
        }
    });
    println!("$ metallb status\n{text}");
    let live: Value = serde_json::from_str(&status(&["-o", "json"]).unwrap()).unwrap();
    assert_eq!(live["services"][1]["ips"], json!(["192.168.10.0"]));
    let stored: Value =
        serde_json::from_str(&status(&["--state", &path("state.json"), "-o", "json"]).unwrap()).unwrap();
    assert_eq!(stored["services"], live["services"]);
    let error = status(&["--url", "http://127.0.0.1:1/status"]).unwrap_err();
    assert!(error.contains("no status from http://127.0.0.1:1/status"), "{error}");
}

/// Runs a scenario as every node of it. Returns how many Services, addresses, answers and offers there were.
fn compare(host: &Namespace, scenario: &Scenario) -> [usize; 4] {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("manifests")).unwrap();
    std::fs::write(path("manifests/all.json"), scenario.list().to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_metallb"))
        .args(["plan", "-o", "json", "-f", &path("manifests")])
        .output()
        .unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));

    let processes: Vec<_> = scenario
        .nodes
        .iter()
        .map(|node| {
            let arguments = [
                "standalone",
                "--manifests",
                &path("manifests"),
                "--state",
                &path(&format!("{node}.json")),
                "--node-name",
                node,
                "--health-probe-port",
                "0",
            ];
            host.spawn(Path::new(&path(&format!("{node}.log"))), env!("CARGO_BIN_EXE_metallb"), &arguments)
        })
        .collect();
    let mut counts = [plan["services"].as_array().unwrap().len(), 0, 0, 0];
    for (node, process) in scenario.nodes.iter().zip(&processes) {
        let state: Value = eventually(&format!("{node} has a state"), Duration::from_secs(30), || {
            let text = std::fs::read_to_string(path(&format!("{node}.json"))).map_err(|_| process.output())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        });
        let ran: BTreeMap<String, &Value> =
            state["services"].as_array().unwrap().iter().map(|service| (name(service), service)).collect();
        let planned = plan["services"].as_array().unwrap().iter().filter(|service| service["state"] != "ignored");
        let mut names = BTreeSet::new();
        for service in planned {
            let name = name(service);
            let said = json!({
                "state": service["state"],
                "pool": service["pool"],
                "ips": service["ips"],
                "l2": service["l2"].as_array().unwrap().iter().any(|l2| l2["node"] == node.as_str()),
                "bgp": offers(service, node),
            });
            let done = ran.get(&name).unwrap_or_else(|| panic!("seed {}: {name} is not there", scenario.seed));
            let done: Value =
                ["state", "pool", "ips", "l2", "bgp"].iter().map(|field| (*field, done[*field].clone())).collect();
            assert_eq!(
                done,
                said,
                "seed {}, as {node}: {name} is not what was planned\n{}\n{}",
                scenario.seed,
                scenario.list(),
                process.output()
            );
            counts[1] += service["ips"].as_array().unwrap().len();
            counts[2] += usize::from(said["l2"] == true);
            counts[3] += said["bgp"].as_array().unwrap().len();
            names.insert(name);
        }
        assert_eq!(names, ran.into_keys().collect(), "seed {}", scenario.seed);
    }
    counts
}

fn name(service: &Value) -> String {
    format!("{}/{}", service["namespace"].as_str().unwrap(), service["name"].as_str().unwrap())
}

/// The peers to which `node` offers routes of a Service.
fn offers(service: &Value, node: &str) -> BTreeSet<String> {
    let routes = service["bgp"].as_array().unwrap().iter();
    routes.filter(|route| route["node"] == node).map(|route| route["peer"].as_str().unwrap().to_owned()).collect()
}

/// A small cluster with a bit of everything.
struct Scenario {
    seed: u64,
    nodes: Vec<String>,
    objects: Vec<Value>,
}

impl Scenario {
    fn random(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut scenario = Self { seed, nodes: Vec::new(), objects: Vec::new() };
        scenario.add_nodes(&mut random);
        scenario.add_pools(&mut random);
        scenario.add_advertisements(&mut random);
        for number in 0..random.below(14) + 2 {
            scenario.add_service(&mut random, number);
        }
        scenario
    }

    fn list(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "List", "items": self.objects})
    }

    fn add_nodes(&mut self, random: &mut Random) {
        for number in 0..random.below(4) + 1 {
            let name = format!("node-{number}");
            let mut labels = json!({"kubernetes.io/hostname": name, "rack": random.pick(&["a", "b"])});
            if random.one_in(6) {
                labels["node.kubernetes.io/exclude-from-external-load-balancers"] = json!("");
            }
            let unavailable = if random.one_in(8) { "True" } else { "False" };
            self.objects.push(json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                "status": {"conditions": [{"type": "NetworkUnavailable", "status": unavailable}]},
            }));
            self.nodes.push(name);
        }
        for (namespace, tier) in [("default", "gold"), ("shop", "base")] {
            self.objects.push(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"tier": tier}},
            }));
        }
    }

    fn add_pools(&mut self, random: &mut Random) {
        for number in 0..random.below(3) + 1 {
            let size = random.pick(&["30", "29", "24"]);
            let mut addresses = vec![format!("10.{number}.0.0/{size}")];
            if random.one_in(2) {
                addresses.push(format!("fd00:{number}::/126"));
            }
            let mut spec =
                json!({"addresses": addresses, "autoAssign": !random.one_in(5), "avoidBuggyIPs": random.one_in(3)});
            if random.one_in(3) {
                spec["serviceAllocation"] = match random.below(3) {
                    0 => json!({"priority": random.below(3), "namespaces": ["shop"]}),
                    1 => json!({"namespaceSelectors": [{"matchLabels": {"tier": "gold"}}]}),
                    _ => json!({"priority": 1, "serviceSelectors": [{"matchLabels": {"app": "a"}}]}),
                };
            }
            let meta = json!({"name": format!("pool-{number}"), "labels": {"kind": random.pick(&["x", "y"])}});
            self.configure("v1beta1", "IPAddressPool", meta, spec);
        }
    }

    fn add_advertisements(&mut self, random: &mut Random) {
        let scope = |random: &mut Random| {
            let mut spec = json!({});
            if random.one_in(3) {
                spec["nodeSelectors"] = json!([{"matchLabels": {"rack": random.pick(&["a", "b"])}}]);
            }
            if random.one_in(3) {
                spec["ipAddressPools"] = json!([format!("pool-{}", random.below(3))]);
            } else if random.one_in(4) {
                spec["ipAddressPoolSelectors"] = json!([{"matchLabels": {"kind": "x"}}]);
            }
            if random.one_in(5) {
                spec["serviceSelectors"] = json!([{"matchLabels": {"app": "a"}}]);
            }
            spec
        };
        for number in 0..random.below(3) {
            let mut spec = scope(random);
            if random.one_in(4) {
                spec["interfaces"] = json!(["vip0"]);
            }
            if random.one_in(4) {
                let preferred = json!({"weight": 10, "preference": {"matchLabels": {"rack": "b"}}});
                spec["preferredNodeSelectors"] = json!([preferred]);
            }
            self.configure("v1beta1", "L2Advertisement", json!({"name": format!("l2-{number}")}), spec);
        }
        for number in 0..random.below(3) {
            let mut spec = scope(random);
            if random.one_in(3) && spec.get("serviceSelectors").is_none() {
                spec["aggregationLength"] = json!(random.pick(&["24", "28"]).parse::<u8>().unwrap());
            }
            if random.one_in(3) {
                spec["peers"] = json!(["peer-0"]);
            }
            self.configure("v1beta1", "BGPAdvertisement", json!({"name": format!("bgp-{number}")}), spec);
        }
        for number in 0..random.below(3) {
            let mut spec = json!({
                "myASN": 64512, "peerASN": 64513, "peerAddress": random.pick(&["192.0.2.1", "2001:db8::1"]).replace('1', &number.to_string()),
                "dualStackAddressFamily": random.one_in(3),
            });
            if random.one_in(3) {
                spec["nodeSelectors"] = json!([{"matchLabels": {"rack": "a"}}]);
            }
            self.configure("v1beta2", "BGPPeer", json!({"name": format!("peer-{number}")}), spec);
        }
    }

    fn add_service(&mut self, random: &mut Random, number: u64) {
        let namespace = random.pick(&["default", "shop"]);
        let name = format!("service-{number}");
        let mut annotations = json!({});
        if random.one_in(4) {
            annotations["metallb.io/allow-shared-ip"] = json!("key");
        }
        if random.one_in(6) {
            annotations["metallb.io/address-pool"] = json!(format!("pool-{}", random.below(3)));
        }
        if random.one_in(6) {
            annotations["metallb.io/loadBalancerIPs"] = json!(format!("10.{}.0.{}", random.below(3), random.below(4)));
        }
        let families = random.below(4);
        let mut spec = json!({
            "type": if random.one_in(8) { "ClusterIP" } else { "LoadBalancer" },
            "externalTrafficPolicy": random.pick(&["Local", "Cluster", "Cluster"]),
            "ports": [{"port": 80 + random.below(3), "protocol": random.pick(&["TCP", "UDP"])}],
            "selector": {"app": "shared"},
        });
        if random.one_in(10) {
            spec["loadBalancerClass"] = json!("example.org/other");
        }
        match families {
            0 => {
                spec["clusterIPs"] = json!(["10.96.0.9", "fd96::9"]);
                spec["ipFamilyPolicy"] = json!(random.pick(&["PreferDualStack", "RequireDualStack"]));
            }
            1 => spec["ipFamilies"] = json!(["IPv6"]),
            _ => spec["clusterIP"] = json!("10.96.0.9"),
        }
        let mut meta = json!({
            "name": name, "namespace": namespace, "annotations": annotations, "labels": {"app": random.pick(&["a", "b"])},
        });
        if random.one_in(2) {
            meta["creationTimestamp"] = json!(format!("2026-01-01T00:00:{:02}Z", random.below(60)));
        }
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec});
        if random.one_in(4) {
            let held = format!("10.{}.0.{}", random.below(3), random.below(8));
            service["status"] = json!({"loadBalancer": {"ingress": [{"ip": held}]}});
        }
        self.objects.push(service);
        if random.one_in(6) {
            return;
        }
        let endpoints: Vec<Value> = (0..random.below(3) + 1)
            .map(|_| {
                let node = random.pick(&self.nodes);
                json!({"addresses": ["10.244.0.1"], "nodeName": node, "conditions": {"ready": !random.one_in(4)}})
            })
            .collect();
        self.objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": format!("{name}-1"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        }));
    }

    fn configure(&mut self, version: &str, kind: &str, mut meta: Value, spec: Value) {
        meta["namespace"] = json!("metallb-system");
        self.objects
            .push(json!({"apiVersion": format!("metallb.io/{version}"), "kind": kind, "metadata": meta, "spec": spec}));
    }
}

/// Marsaglia's xorshift: enough to choose with.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Clone + Into<String>>(&mut self, choices: &[T]) -> String {
        let index = usize::try_from(self.below(choices.len() as u64)).unwrap();
        choices[index].clone().into()
    }
}

const SMALL: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node-a}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: demo, namespace: metallb-system}
spec: {addresses: [192.168.10.0/32]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: l2, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: tor, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: late, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.7], nodeName: node-a, conditions: {ready: true}}]
";
