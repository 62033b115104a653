//! The binary and a router: how it comes, how it goes, and what it tells of that.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a lab prints what the router saw")]

use std::time::{Duration, Instant};

#[path = "support/frr.rs"]
#[allow(dead_code, reason = "other labs ask for more")]
mod frr;
#[path = "support/netns.rs"]
#[allow(dead_code, reason = "other labs ask for more")]
mod netns;

use frr::Frr;
use netns::{Lab, Namespace, Process, eventually, missing_part, skip};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(30);
const VIP: &str = "10.254.254.1/32";

/// A router and a node on one cable, and what the node announces.
struct Scene {
    router: Namespace,
    node: Namespace,
    directory: tempfile::TempDir,
    frr: Frr,
    starts: u32,
    _lab: Lab,
}

impl Scene {
    fn new(peer: &str, router_config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("manifests")).unwrap();
        let manifests = format!(
            "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {{name: pool, namespace: metallb-system}}
spec: {{addresses: [{VIP}]}}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {{name: all, namespace: metallb-system}}
---
apiVersion: metallb.io/v1beta1
kind: BFDProfile
metadata: {{name: fast, namespace: metallb-system}}
spec: {{receiveInterval: 300, transmitInterval: 300}}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {{name: tor, namespace: metallb-system}}
spec: {{myASN: 7776, peerASN: 7675, peerAddress: 172.16.1.1, {peer}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec: {{type: LoadBalancer, ports: [{{port: 80, protocol: TCP}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
endpoints: [{{addresses: [172.20.166.20], nodeName: node-1, conditions: {{ready: true}}}}]
---
apiVersion: v1
kind: Node
metadata: {{name: node-1}}
"
        );
        std::fs::write(directory.path().join("manifests/all.yaml"), manifests).unwrap();
        let mut lab = Lab::new();
        let (router, node) = (lab.namespace("router"), lab.namespace("node"));
        lab.link(&router, "eth0", &node, "eth0");
        router.ip("address add 172.16.1.1/24 dev eth0");
        node.ip("address add 172.16.1.11/24 dev eth0");
        let frr = Frr::start(&router, router_config, &["bfdd"]);
        Self { router, node, directory, frr, starts: 0, _lab: lab }
    }

    fn start(&mut self, more: &[&str]) -> Process {
        self.starts += 1;
        let at = |file: &str| self.directory.path().join(file).to_str().unwrap().to_owned();
        let (manifests, state) = (at("manifests"), at("state.json"));
        let mut arguments = vec!["standalone", "--manifests", &manifests, "--state", &state, "--node-name", "node-1"];
        arguments.extend(more);
        let log = self.directory.path().join(format!("node-{}.log", self.starts));
        self.node.spawn(&log, env!("CARGO_BIN_EXE_metallb"), &arguments)
    }

    fn metrics(&self) -> String {
        let output = self.node.shell("curl --silent --max-time 3 http://127.0.0.1:17472/metrics").stdout;
        String::from_utf8_lossy(&output).into_owned()
    }

    fn status(&self) -> String {
        let output = self.node.command(env!("CARGO_BIN_EXE_metallb")).arg("status").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the router's kernel sends traffic for the address to the node.
    fn forwards(&self) -> bool {
        self.router.ip("route show 10.254.254.1").contains("172.16.1.11")
    }

    fn bfd_is(&self, state: &str) -> Result<(), String> {
        let peers = self.frr.json("show bfd peers json");
        let up = peers
            .as_array()
            .is_some_and(|peers| peers.iter().any(|peer| peer["peer"] == "172.16.1.11" && peer["status"] == state));
        if up { Ok(()) } else { Err(peers.to_string()) }
    }

    fn path(&self) -> serde_json::Value {
        self.frr.json(&format!("show bgp ipv4 unicast {VIP} json"))["paths"][0].clone()
    }
}

/// Its value, when there is such a line.
fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bgp_binary_killed_and_stopped_under_graceful_restart_loses_no_route() {
    const TEST: &str = "lab_bgp_binary_killed_and_stopped_under_graceful_restart_loses_no_route";
    if let Some(part) = missing_part(&[&frr::PROGRAMS[..], &["bfdd", "curl"]].concat()) {
        return skip(TEST, &part);
    }
    let router = "
bfd
 profile fast
  receive-interval 300
  transmit-interval 300
 exit
exit
router bgp 7675
 bgp router-id 172.16.1.1
 no bgp ebgp-requires-policy
 bgp graceful-restart
 neighbor 172.16.1.11 remote-as 7776
 neighbor 172.16.1.11 passive
 neighbor 172.16.1.11 bfd
 neighbor 172.16.1.11 bfd profile fast
";
    let mut scene = Scene::new("bfdProfile: fast, enableGracefulRestart: true, connectTime: 1s", router);
    let mut process = scene.start(&[]);
    let settled = |scene: &Scene| {
        eventually("the route is fresh and BFD is up", PATIENCE, || {
            scene.bfd_is("up")?;
            let path = scene.path();
            if scene.forwards() && path["valid"] == true && path.get("stale").is_none() {
                return Ok(());
            }
            Err(format!("{path}"))
        });
    };
    settled(&scene);

    // Names and labels are upstream's, for sessions and for BFD.
    eventually("the series say so", PATIENCE, || {
        let metrics = scene.metrics();
        for (series, least) in [
            ("metallb_bgp_session_up{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_announced_prefixes_total{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_pending_prefixes_total{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_updates_total{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_updates_total_received{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_opens_sent{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_opens_received{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_notifications_sent{peer=\"172.16.1.1:179\",vrf=\"default\"}", 0.0),
            ("metallb_bgp_keepalives_sent{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_keepalives_received{peer=\"172.16.1.1:179\",vrf=\"default\"}", 1.0),
            ("metallb_bgp_route_refresh_sent{peer=\"172.16.1.1:179\",vrf=\"default\"}", 0.0),
            ("metallb_bgp_total_sent{peer=\"172.16.1.1:179\",vrf=\"default\"}", 3.0),
            ("metallb_bgp_total_received{peer=\"172.16.1.1:179\",vrf=\"default\"}", 3.0),
            ("metallb_bfd_session_up{peer=\"172.16.1.1\",vrf=\"default\"}", 1.0),
            ("metallb_bfd_control_packet_input{peer=\"172.16.1.1\",vrf=\"default\"}", 3.0),
            ("metallb_bfd_control_packet_output{peer=\"172.16.1.1\",vrf=\"default\"}", 3.0),
            ("metallb_bfd_echo_packet_input{peer=\"172.16.1.1\",vrf=\"default\"}", 0.0),
            ("metallb_bfd_echo_packet_output{peer=\"172.16.1.1\",vrf=\"default\"}", 0.0),
            ("metallb_bfd_session_up_events{peer=\"172.16.1.1\",vrf=\"default\"}", 1.0),
            ("metallb_bfd_session_down_events{peer=\"172.16.1.1\",vrf=\"default\"}", 0.0),
            ("metallb_bfd_zebra_notifications{peer=\"172.16.1.1\",vrf=\"default\"}", 1.0),
        ] {
            let found = value(&metrics, series);
            if !found.is_some_and(|found| found >= least) {
                return Err(format!("{series} is {found:?}, not {least} at least\n{metrics}"));
            }
        }
        Ok(())
    });
    eventually("status says so", PATIENCE, || {
        let status = scene.status();
        let words = ["tor", "Established", "graceful-restart", "Up", "every 300ms", "900ms"];
        match words.iter().find(|word| !status.contains(**word)) {
            Some(word) => Err(format!("{word} is missing in\n{status}")),
            None => {
                println!("{status}");
                Ok(())
            }
        }
    });

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        process.signal(signal);
        assert!(process.wait(PATIENCE).is_some(), "it ends");
        let gone = Instant::now();
        // Longer than the router's detection time: BFD has had its say.
        while gone.elapsed() < Duration::from_secs(2) {
            assert!(scene.forwards(), "{signal}: the route stays while nobody speaks for it");
            std::thread::sleep(Duration::from_millis(50));
        }
        scene.bfd_is("down").unwrap();
        assert_eq!(scene.path()["stale"], true, "{signal}");
        process = scene.start(&[]);
        let back = Instant::now();
        while scene.path().get("stale").is_some() {
            assert!(back.elapsed() < PATIENCE, "{signal}: the route is not told again");
            assert!(scene.forwards(), "{signal}: the route stays while the session comes back");
            std::thread::sleep(Duration::from_millis(50));
        }
        settled(&scene);
        println!("{signal}: the route never left the router's kernel");
    }
}

/// Name, type and labels of each series of upstream's speaker and of its exporter for FRR.
const SERIES: [(&str, &str, &[&str]); 33] = [
    ("metallb_speaker_announced", "gauge", &["ip", "node", "protocol", "service"]),
    ("metallb_layer2_requests_received", "counter", &["ip"]),
    ("metallb_layer2_responses_sent", "counter", &["ip"]),
    ("metallb_layer2_gratuitous_sent", "counter", &["ip"]),
    ("metallb_k8s_client_updates_total", "counter", &[]),
    ("metallb_k8s_client_update_errors_total", "counter", &[]),
    ("metallb_k8s_client_config_loaded_bool", "gauge", &[]),
    ("metallb_k8s_client_config_stale_bool", "gauge", &[]),
    ("metallb_bgp_session_up", "gauge", &["peer", "vrf"]),
    ("metallb_bgp_updates_total", "counter", &["peer", "vrf"]),
    ("metallb_bgp_announced_prefixes_total", "gauge", &["peer", "vrf"]),
    ("metallb_bgp_pending_prefixes_total", "gauge", &["peer", "vrf"]),
    ("metallb_bgp_opens_sent", "counter", &["peer", "vrf"]),
    ("metallb_bgp_opens_received", "counter", &["peer", "vrf"]),
    ("metallb_bgp_notifications_sent", "counter", &["peer", "vrf"]),
    ("metallb_bgp_updates_total_received", "counter", &["peer", "vrf"]),
    ("metallb_bgp_keepalives_sent", "counter", &["peer", "vrf"]),
    ("metallb_bgp_keepalives_received", "counter", &["peer", "vrf"]),
    ("metallb_bgp_route_refresh_sent", "counter", &["peer", "vrf"]),
    ("metallb_bgp_total_sent", "counter", &["peer", "vrf"]),
    ("metallb_bgp_total_received", "counter", &["peer", "vrf"]),
    ("metallb_bfd_session_up", "gauge", &["peer", "vrf"]),
    ("metallb_bfd_control_packet_input", "counter", &["peer", "vrf"]),
    ("metallb_bfd_control_packet_output", "counter", &["peer", "vrf"]),
    ("metallb_bfd_echo_packet_input", "counter", &["peer", "vrf"]),
    ("metallb_bfd_echo_packet_output", "counter", &["peer", "vrf"]),
    ("metallb_bfd_session_up_events", "counter", &["peer", "vrf"]),
    ("metallb_bfd_session_down_events", "counter", &["peer", "vrf"]),
    ("metallb_bfd_zebra_notifications", "counter", &["peer", "vrf"]),
    // What only we have.
    ("metallb_bgp_session_established_total", "counter", &["peer", "vrf"]),
    ("metallb_bgp_notifications_received", "counter", &["peer", "vrf"]),
    ("metallb_bgp_route_refresh_received", "counter", &["peer", "vrf"]),
    ("metallb_bgp_connections_accepted_total", "counter", &[]),
];

/// What is wrong with one series of a scrape.
fn judge(metrics: &str, (name, kind, labels): (&str, &str, &[&str])) -> Result<(), String> {
    if !metrics.lines().any(|line| line == format!("# TYPE {name} {kind}")) {
        return Err(format!("{name} is no {kind}"));
    }
    let samples: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' '])))
        .collect();
    if samples.is_empty() {
        return Err(format!("{name} has no sample"));
    }
    for sample in samples {
        let (found, _) = sample.rsplit_once(' ').unwrap();
        let mut found: Vec<&str> = found
            .trim_matches(['{', '}'])
            .split("\",")
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split('=').next().unwrap())
            .collect();
        found.sort_unstable();
        if found != labels {
            return Err(format!("{name} has the labels {found:?}"));
        }
    }
    Ok(())
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bgp_series_of_a_running_binary_have_the_names_types_and_labels_of_both_exporters() {
    const TEST: &str = "lab_bgp_series_of_a_running_binary_have_the_names_types_and_labels_of_both_exporters";
    if let Some(part) = missing_part(&[&frr::PROGRAMS[..], &["bfdd", "curl", "arping"]].concat()) {
        return skip(TEST, &part);
    }
    let router = "
router bgp 7675
 bgp router-id 172.16.1.1
 no bgp ebgp-requires-policy
 neighbor 172.16.1.11 remote-as 7776
 neighbor 172.16.1.11 passive
 neighbor 172.16.1.11 bfd
";
    let mut scene = Scene::new("bfdProfile: fast, connectTime: 1s", router);
    // Both ways of announcing, so that there are samples of both.
    let l2 = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: l2, namespace: metallb-system}\n";
    std::fs::write(scene.directory.path().join("manifests/l2.yaml"), l2).unwrap();
    let process = scene.start(&[]);
    eventually("every series is there as upstream has it", PATIENCE, || {
        // Somebody has to ask for the address.
        scene.router.shell("arping -c 1 -w 1 -I eth0 10.254.254.1");
        let metrics = scene.metrics();
        SERIES.iter().try_for_each(|series| judge(&metrics, *series)).map_err(|wrong| format!("{wrong}\n{metrics}"))
    });
    let metrics = scene.metrics();
    for sample in [
        "metallb_bgp_session_up{peer=\"172.16.1.1:179\",vrf=\"default\"}",
        "metallb_bfd_session_up{peer=\"172.16.1.1\",vrf=\"default\"}",
    ] {
        assert!(value(&metrics, sample).is_some(), "{sample}: {}", process.output());
    }
    println!("{} series have the names, types and labels of upstream", SERIES.len());
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bgp_router_connects_to_the_binary_and_is_asked_to_leave_before_it_stops() {
    const TEST: &str = "lab_bgp_router_connects_to_the_binary_and_is_asked_to_leave_before_it_stops";
    if let Some(part) = missing_part(&[&frr::PROGRAMS[..], &["bfdd", "curl"]].concat()) {
        return skip(TEST, &part);
    }
    let router = "
router bgp 7675
 bgp router-id 172.16.1.1
 no bgp ebgp-requires-policy
 neighbor 172.16.1.11 remote-as 7776
 neighbor 172.16.1.11 port 1790
 neighbor 172.16.1.11 timers connect 1
";
    // Nothing listens where the binary would connect to.
    let mut scene = Scene::new("peerPort: 1799, connectTime: 1s", router);
    let mut process = scene.start(&["--ml-bgp-listen", "172.16.1.11:1790", "--ml-bgp-drain-time", "4000"]);
    eventually("the router has the route", PATIENCE, || if scene.forwards() { Ok(()) } else { Err(process.output()) });
    let metrics = scene.metrics();
    assert!(value(&metrics, "metallb_bgp_connections_accepted_total").is_some_and(|count| count >= 1.0), "{metrics}");
    process.signal(Signal::SIGTERM);
    eventually("the router is asked to move traffic away", PATIENCE, || {
        let community = scene.path()["community"]["string"].clone();
        if community == "graceful-shutdown" { Ok(()) } else { Err(community.to_string()) }
    });
    assert!(scene.forwards(), "the only way there is stays until the end");
    assert!(process.wait(PATIENCE).is_some_and(|status| status.success()), "{}", process.output());
    eventually("the route is gone", PATIENCE, || if scene.forwards() { Err("still there".to_owned()) } else { Ok(()) });
}
