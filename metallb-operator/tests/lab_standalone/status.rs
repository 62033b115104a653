//! The status tells the truth about addresses that nobody can reach: network namespaces and the kernel.

use std::time::Duration;

use serde_json::Value;

use crate::netns::{Lab, Namespace, Process, eventually, missing_part, skip};

const PATIENCE: Duration = Duration::from_secs(20);

/// A dual-stack Service of one node, with `spec` of the L2Advertisement and `addresses` of the pool.
fn manifests(node: &str, spec: &str, addresses: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n---\n\
         apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: p, namespace: metallb-system}}\n\
         spec: {{addresses: [{addresses}]}}\n---\n\
         apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: l, namespace: metallb-system}}\n\
         spec: {{{spec}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80, protocol: TCP}}], ipFamilyPolicy: PreferDualStack, \
         ipFamilies: [IPv4, IPv6]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: web-x, namespace: default, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: [10.244.0.10], nodeName: {node}, conditions: {{ready: true}}}}]\n"
    )
}

/// A node with `standalone`.
struct Node {
    namespace: Namespace,
    directory: tempfile::TempDir,
    process: Process,
    _lab: Lab,
}

impl Node {
    fn start(manifests: &str) -> Self {
        let mut lab = Lab::new();
        let (namespace, switch) = (lab.namespace("node"), lab.namespace("switch"));
        lab.link(&namespace, "eth0", &switch, "port");
        namespace.ip("address add 10.9.0.1/24 dev eth0");
        namespace.ip("address add fd00:9::1/64 dev eth0 nodad");
        namespace.ip("route add default via 10.9.0.254");
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("manifests");
        std::fs::create_dir(&files).unwrap();
        std::fs::write(files.join("all.yaml"), manifests).unwrap();
        let (files, state) = (files.display().to_string(), directory.path().join("state.json").display().to_string());
        let arguments =
            ["standalone", "--manifests", &files, "--state", &state, "--node-name", "n1", "--log-format", "text"];
        let log = directory.path().join("log");
        let process = namespace.spawn(&log, env!("CARGO_BIN_EXE_metallb"), &arguments);
        Self { namespace, directory, process, _lab: lab }
    }

    fn status(&self, format: &str) -> String {
        let output = self.namespace.shell(&format!("{} status -o {format}", env!("CARGO_BIN_EXE_metallb")));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the table contains all `lines`, and returns the document.
    fn expect(&self, lines: &[&str]) -> Value {
        let table = eventually("the status says it", PATIENCE, || {
            let table = self.status("table");
            if lines.iter().all(|line| table.contains(line)) { Ok(table) } else { Err(table + &self.process.output()) }
        });
        println!("node$ metallb status\n{table}");
        serde_json::from_str(&self.status("json")).unwrap()
    }

    fn metrics(&self) -> String {
        let output = self.namespace.shell("curl --silent --max-time 2 http://127.0.0.1:17472/metrics");
        let metrics = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(metrics.contains("metallb_layer2_refused_addresses"), "{metrics} {}", self.directory.path().display());
        metrics
    }
}

const POOL: &str = "10.9.0.50-10.9.0.60, 'fd00:9::50-fd00:9::60'";

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_status_shows_addresses_as_answered_only_while_they_are() {
    const TEST: &str = "lab_status_shows_addresses_as_answered_only_while_they_are";
    if let Some(part) = missing_part(&["curl", "sysctl"]) {
        return skip(TEST, &part);
    }
    let node = Node::start(&manifests("n1", "", POOL));
    let series = "metallb_speaker_announced{ip=\"fd00:9::50\"";
    let status = node.expect(&["answered by n1"]);
    assert_eq!((&status["services"][0]["l2"], &status["refused"]), (&true.into(), &serde_json::json!({})));
    assert!(node.metrics().contains(series));

    node.namespace.must("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1");
    let status = node.expect(&["fd00:9::50 is not answered by n1: no IPv6 link-local address on eth0", "disable_ipv6"]);
    assert_eq!(status["services"][0]["l2"], true, "IPv4 is answered");
    assert!(!node.metrics().contains(series));
    assert!(node.metrics().contains("metallb_layer2_unanswered_addresses{reason=\"no_link_local\"} 1"));
    assert!(node.process.output().contains("fd00:9::50 is not announced"));
    node.namespace.must("sysctl -q -w net.ipv6.conf.all.disable_ipv6=0");
    eventually("it is answered again", PATIENCE, || {
        let table = node.status("table");
        if table.contains("not answered") { Err(table) } else { Ok(()) }
    });
    assert!(node.metrics().contains(series));
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_status_names_the_interfaces_that_the_node_lacks() {
    const TEST: &str = "lab_status_names_the_interfaces_that_the_node_lacks";
    if let Some(part) = missing_part(&["curl"]) {
        return skip(TEST, &part);
    }
    let node = Node::start(&manifests("n1", "interfaces: [eth9]", POOL));
    let line = "10.9.0.50 is not answered by n1: its L2Advertisements name eth9, and the usable interfaces of this \
                node are eth0";
    let status = node.expect(&[line]);
    assert_eq!(status["services"][0]["l2"], false);
    assert!(!node.metrics().contains("metallb_speaker_announced{"));
    assert!(node.process.output().contains("interfaces eth9"), "{}", node.process.output());
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_status_shows_refused_addresses_and_a_missing_node() {
    const TEST: &str = "lab_status_shows_refused_addresses_and_a_missing_node";
    if let Some(part) = missing_part(&["curl"]) {
        return skip(TEST, &part);
    }
    for (address, reason) in [
        ("10.9.0.254/32", "the default route of this node leads to it"),
        ("10.9.0.1/32", "this node has it on eth0"),
        ("10.9.0.255/32", "it is the broadcast address of eth0"),
    ] {
        let node = Node::start(&manifests("n1", "", address));
        let ip = address.trim_end_matches("/32");
        let status = node.expect(&[&format!("{ip} is not answered by n1: {reason}")]);
        assert_eq!(status["services"][0]["l2"], false, "{ip}");
    }
    let node = Node::start(&manifests("n2", "", POOL));
    node.expect(&["no Node has the name n1 of this speaker", "--node-name", "(n2)"]);
    assert!(node.process.output().contains("no Node has the name n1"));
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_status_shows_an_address_in_no_subnet_of_the_node() {
    const TEST: &str = "lab_status_shows_an_address_in_no_subnet_of_the_node";
    if let Some(part) = missing_part(&["curl"]) {
        return skip(TEST, &part);
    }
    let node = Node::start(&manifests("n1", "", "10.8.0.50/32"));
    let status = node.expect(&["10.8.0.50 is in no subnet of this node (10.9.0.1/24 on eth0)", "answered by n1"]);
    assert_eq!(status["services"][0]["l2"], true, "the node answers on its own segment");
    assert!(node.process.output().contains("otherSubnet"), "{}", node.process.output());
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_status_shows_two_interfaces_on_one_segment() {
    const TEST: &str = "lab_status_shows_two_interfaces_on_one_segment";
    if let Some(part) = missing_part(&["curl"]) {
        return skip(TEST, &part);
    }
    let node = Node::start(&manifests("n1", "", POOL));
    node.expect(&["answered by n1"]);
    // A loose pair: both ends belong to the node.
    node.namespace.ip("link add a0 type veth peer name a1");
    node.namespace.ip("link set a0 up");
    node.namespace.ip("link set a1 up");
    node.expect(&["a0 and a1 of this node are on one segment", "`interfaces`"]);
}
