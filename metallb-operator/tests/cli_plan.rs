//! `metallb plan` and `metallb explain` as programs: recorded conformance cases, exit codes, broken and large input.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

#[test]
fn plan_agrees_with_every_recorded_case_about_allocation() {
    conformance("allocation.jsonl", 146);
}

#[test]
fn plan_agrees_with_every_recorded_case_about_bgp() {
    conformance("bgp.jsonl", 106);
}

#[test]
fn plan_agrees_with_every_recorded_case_about_configuration() {
    conformance("config.jsonl", 131);
}

#[test]
fn plan_agrees_with_every_recorded_case_about_l2() {
    conformance("l2.jsonl", 95);
}

#[test]
fn plan_of_manifests_exits_with_0_and_names_the_answering_node() {
    let (code, plan) = plan_json(&[], MANIFESTS);
    assert_eq!(code, 0);
    let web = &plan["services"][0];
    assert_eq!(web["ips"], json!(["192.168.10.0"]));
    assert_eq!(web["l2"][0]["node"], "node-b");
    assert_eq!(web["bgp"].as_array().unwrap().len(), 2);
    assert!(plan.get("changes").is_none());
}

#[test]
fn plan_without_the_owner_is_a_disruption_and_exits_with_2() {
    let (code, plan) = plan_json(&["--without-node", "node-b"], MANIFESTS);
    assert_eq!(code, 2);
    let moved =
        json!({"service": "default/web", "kind": "owner-moved", "from": "node-b", "to": "node-a", "disruptive": true});
    assert!(plan["changes"].as_array().unwrap().contains(&moved), "{}", plan["changes"]);
    let withdrawn = |change: &&Value| change["kind"] == "route-withdrawn";
    assert_eq!(plan["changes"].as_array().unwrap().iter().filter(withdrawn).count(), 1);
}

#[test]
fn plan_without_a_pool_in_use_loses_the_address() {
    let (code, plan) = plan_json(&["--delete", "IPAddressPool/metallb-system/demo"], MANIFESTS);
    assert_eq!(code, 2);
    let lost = |change: &Value| change["kind"] == "ip-lost" && change["from"] == "192.168.10.0";
    assert!(plan["changes"].as_array().unwrap().iter().any(lost));
}

/// The status of the pool is as the controller writes it with `--quarantine-conflicts`.
#[test]
fn quarantined_address_is_not_assigned_and_is_explained() {
    let quarantine = |text: &str| -> String {
        let status = "status: {assignedIPv4: 1, assignedIPv6: 0, availableIPv4: 0, availableIPv6: 0, \
                      quarantined: [{ip: 192.168.10.0, macAddress: '02:00:00:00:00:99', \
                      until: '2030-01-01T00:00:00Z'}]}";
        let changed = text.replacen("spec: {addresses", &format!("{status}\nspec: {{addresses"), 1);
        assert_ne!(changed, text);
        changed
    };
    let manifests = quarantine(MANIFESTS);
    let (code, plan) = plan_json(&[], &manifests);
    assert_eq!((code, &plan["services"][0]["ips"]), (0, &json!(["192.168.10.1"])));
    let held = "kind: Service\n  status: {loadBalancer: {ingress: [{ip: 192.168.10.0}]}}\n  metadata: {name: web";
    let holding = manifests.replacen("kind: Service\n  metadata: {name: web", held, 1);
    assert_ne!(holding, manifests);
    let (_, plan) = plan_json(&[], &holding);
    assert_eq!(plan["services"][0]["reason"]["code"], "MovedFromQuarantine", "{}", plan["services"][0]);
    let only = holding.replace("192.168.10.0/24", "192.168.10.0/32");
    assert_ne!(only, holding);
    let text = explain(&["default/web"], &only);
    assert!(text.contains("02:00:00:00:00:99"), "{text}");
}

#[test]
fn change_that_only_adds_is_no_disruption() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("more.yaml");
    std::fs::write(&file, SECOND_SERVICE).unwrap();
    let (code, plan) = plan_json(&["--change", file.to_str().unwrap()], MANIFESTS);
    assert_eq!(code, 0);
    let gained =
        json!({"service": "default/db", "kind": "ip-gained", "from": null, "to": "192.168.10.1", "disruptive": false});
    assert!(plan["changes"].as_array().unwrap().contains(&gained), "{}", plan["changes"]);
}

#[test]
fn assigned_addresses_stay_when_a_change_adds_a_preferred_pool() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pool.yaml");
    let first = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
                 metadata: {name: aaa, namespace: metallb-system}\n\
                 spec: {addresses: [10.9.0.0/24], serviceAllocation: {priority: 1}}\n";
    std::fs::write(&file, first).unwrap();
    let (code, plan) = plan_json(&["--change", file.to_str().unwrap()], MANIFESTS);
    assert_eq!((code, &plan["services"][0]["ips"]), (0, &json!(["192.168.10.0"])));
    assert_eq!(plan["changes"], json!([]));
}

#[test]
fn broken_document_is_named_and_the_rest_is_planned() {
    let (code, plan) = plan_json(&[], &format!("{MANIFESTS}---\nkind: [\n"));
    assert_eq!(code, 1);
    assert_eq!(plan["services"][0]["state"], "assigned");
    let message = plan["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("document 8") && message.contains("line "), "{message}");
}

#[test]
fn missing_file_exits_with_1_and_names_it() {
    let output = metallb(&["plan", "-f", "/nonexistent.yaml"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent.yaml"));
}

#[test]
fn table_in_a_pipe_has_no_colours_and_names_disrupted_services() {
    let output = metallb(&["plan", "-f", "-", "--without-node", "node-b"], MANIFESTS);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b'));
    for part in [
        "WHAT WOULD CHANGE",
        "! announced by node-a instead of node-b",
        "! route withdrawn: 192.168.10.0/32 via node-b to tor",
        "DISRUPTED\n  connections break for 1 Service: default/web",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn explain_of_a_service_names_address_owner_and_routes() {
    let text = explain(&["default/web"], MANIFESTS);
    for part in ["192.168.10.0", "pool demo", "node-b answers", "node-a", "peer tor", "192.168.10.0/32"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn explain_names_what_is_missing() {
    let lonely =
        MANIFESTS.replace("kind: L2Advertisement", "kind: Other").replace("kind: BGPAdvertisement", "kind: Other");
    let text = explain(&["default/web"], &lonely);
    assert!(text.contains("MISSING\n  no L2Advertisement reaches pool demo: there is none at all"), "{text}");
    assert!(text.contains("no BGPAdvertisement reaches pool demo"), "{text}");
    let l2_only = MANIFESTS.replace("kind: BGPAdvertisement", "kind: Other");
    let text = explain(&["default/web"], &l2_only);
    assert!(text.contains("NOT USED\n  no BGPAdvertisement") && !text.contains("MISSING"), "{text}");
    let excluded = MANIFESTS.replace(
        "name: node-a}",
        "name: node-a, labels: {node.kubernetes.io/exclude-from-external-load-balancers: \"\"}}",
    );
    let text = explain(&["default/web"], &excluded);
    assert!(text.contains("node-a: excluded by the label"), "{text}");
}

#[test]
fn explain_by_address_names_holder_owner_and_routes() {
    let text = explain(&["--ip", "192.168.10.0"], MANIFESTS);
    for part in ["default/web", "node-b answers", "192.168.10.0/32"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let text = explain(&["--ip", "192.168.10.77"], MANIFESTS);
    assert!(text.contains("192.168.10.77 is in pool demo; unassigned"), "{text}");
}

#[test]
fn explain_names_every_obstacle() {
    let web = "metadata: {name: web, namespace: default}\n  spec: {type: LoadBalancer,";
    let rows: &[(&str, String, &str)] = &[
        ("class", MANIFESTS.replace(web, &format!("{web} loadBalancerClass: other,")), "handled here"),
        ("no pool", MANIFESTS.replace("kind: IPAddressPool", "kind: Other"), "there is no IPAddressPool"),
        (
            "broken pool",
            MANIFESTS.replace("192.168.10.0/24", "192.168.10.0/33"),
            "none of the 1 IPAddressPools is valid",
        ),
        (
            "namespace",
            MANIFESTS.replace("[192.168.10.0/24]", "[192.168.10.0/24], serviceAllocation: {namespaces: [shop, stock]}"),
            "pool demo serves other namespaces (shop, stock)",
        ),
        (
            "labels",
            MANIFESTS.replace(
                "[192.168.10.0/24]",
                "[192.168.10.0/24], serviceAllocation: {serviceSelectors: [{matchLabels: {a: b}}]}",
            ),
            "pool demo serves Services with other labels",
        ),
        ("family", MANIFESTS.replace("192.168.10.0/24", "fd00::/120"), "has no addresses of a family"),
        ("not automatic", MANIFESTS.replace("[192.168.10.0/24]", "[192.168.10.0/24], autoAssign: false"), "autoAssign"),
        ("endpoints", MANIFESTS.replace("ready: true", "ready: false"), "none of its 1 endpoints is ready"),
        ("slices", MANIFESTS.replace("kind: EndpointSlice", "kind: Other"), "it has no endpoint"),
        ("nodes", MANIFESTS.replace("kind: Node\n", "kind: Other\n"), "no Node is known"),
        (
            "other pool",
            MANIFESTS.replace("spec: {}", "spec: {ipAddressPools: [x]}"),
            "no L2Advertisement reaches pool demo: l2 selects other pools",
        ),
        (
            "Service labels",
            MANIFESTS.replace("spec: {}", "spec: {serviceSelectors: [{matchLabels: {a: b}}]}"),
            "has serviceSelectors that match the Service",
        ),
        (
            "no candidate",
            MANIFESTS.replace("spec: {}", "spec: {nodeSelectors: [{matchLabels: {a: b}}]}"),
            "no node may answer for it: node-a, node-b: selected by no L2Advertisement",
        ),
        ("no peer", MANIFESTS.replace("kind: BGPPeer", "kind: Other"), "but there is no BGPPeer"),
        (
            "peer elsewhere",
            MANIFESTS.replace("{myASN", "{nodeSelectors: [{matchLabels: {a: b}}], myASN"),
            "peer tor selects none of the nodes that may announce",
        ),
        (
            "peer not meant",
            MANIFESTS.replace(
                "name: bgp, namespace: metallb-system}\nspec: {}",
                "name: bgp, namespace: metallb-system}\nspec: {peers: [other]}",
            ),
            "peer tor is not among spec.peers",
        ),
        (
            "peer of the other family",
            MANIFESTS.replace("172.16.0.1", "fd00::1"),
            "peer tor does not carry the address family",
        ),
    ];
    for (name, manifests, expected) in rows {
        assert_ne!(manifests, MANIFESTS, "{name}: nothing was replaced");
        let text = explain(&["default/web"], manifests);
        assert!(text.contains(expected), "{name}: {expected:?} is missing in:\n{text}");
    }
}

#[test]
fn explain_of_an_unknown_service_exits_with_1_and_names_one_that_may_be_meant() {
    let output = metallb(&["explain", "-f", "-", "shop/web"], MANIFESTS);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("there is no Service shop/web; there is default/web"), "{error}");
}

#[test]
fn plan_without_an_advertisement_is_a_disruption_and_another_preference_is_none() {
    // The address stays, but is no longer announced.
    let (code, plan) = plan_json(&["--delete", "l2advertisement/metallb-system/l2"], MANIFESTS);
    assert_eq!(code, 2);
    let lost =
        json!({"service": "default/web", "kind": "owner-moved", "from": "node-b", "to": null, "disruptive": true});
    assert_eq!(plan["changes"], json!([lost]));

    // Another local preference is a change, but no disruption. Only internal peers get it.
    let internal = MANIFESTS.replace("peerASN: 64513", "peerASN: 64512");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bgp.yaml");
    let preferred = "apiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\n\
                     metadata: {name: bgp, namespace: metallb-system}\nspec: {localPref: 300}\n";
    std::fs::write(&file, preferred).unwrap();
    let (code, plan) = plan_json(&["--change", file.to_str().unwrap()], MANIFESTS);
    assert_eq!((code, &plan["changes"]), (0, &json!([])), "an external peer is not told");
    let (code, plan) = plan_json(&["--change", file.to_str().unwrap()], &internal);
    assert_eq!(code, 0);
    let kinds: Vec<&Value> = plan["changes"].as_array().unwrap().iter().map(|change| &change["kind"]).collect();
    assert_eq!(kinds, ["route-added", "route-added"]);
    assert_eq!(plan["changes"][0]["to"], "192.168.10.0/32 via node-a to tor (local preference 300)");
}

#[test]
fn unknown_names_are_errors_and_not_empty_plans() {
    for arguments in [["--without-node", "node-z"], ["--delete", "Service/default/nope"], ["--delete", "web"]] {
        let output = metallb(&[&["plan", "-f", "-"], &arguments[..]].concat(), MANIFESTS);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(error.contains(arguments[1]), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn path_without_a_flag_is_refused_with_the_flag_to_use() {
    let output = metallb(&["plan", "manifests/"], "");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("use `-f manifests/`"), "{error}");
}

#[test]
fn configuration_in_another_namespace_is_ignored_with_a_note() {
    let elsewhere = MANIFESTS.replace("namespace: metallb-system", "namespace: lb");
    let output = metallb(&["plan", "-f", "-", "-o", "json"], &elsewhere);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("ignored 4 configuration objects in namespace lb"), "{error}");
    let (code, plan) = plan_json(&["--namespace", "lb"], &elsewhere);
    assert_eq!((code, &plan["services"][0]["state"]), (0, &json!("assigned")));
}

#[test]
fn large_list_with_a_broken_item_loses_that_item_only_and_names_its_line() {
    let mut list = "apiVersion: v1\nitems:\n".to_owned();
    for number in 0..3000 {
        list += &format!("- apiVersion: v1\n  kind: Node\n  metadata:\n    name: node-{number:04}\n");
    }
    list += "- apiVersion: v1\n  kind: [\n";
    list +=
        "- apiVersion: v1\n  kind: Service\n  metadata:\n    name: web\n  spec:\n    type: LoadBalancer\nkind: List\n";
    let (code, plan) = plan_json(&[], &list);
    assert_eq!(code, 1);
    assert_eq!(plan["services"][0]["reason"]["code"], "NoPools");
    let message = plan["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("document 1, item 3001, line 12004"), "{message}");
}

#[test]
fn every_subcommand_has_help_with_an_example_and_refuses_unknown_flags() {
    let commands =
        ["plan", "explain", "controller", "speaker", "standalone", "status", "convert-config", "crds", "completions"];
    for command in commands {
        let help = metallb(&[command, "--help"], "");
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(
            help.status.success() && text.contains("Example") && text.contains(&format!("metallb {command}")),
            "{text}"
        );
        let refused = metallb(&[command, "--no-such-flag"], "");
        assert_eq!(refused.status.code(), Some(1), "{command}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--no-such-flag"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = metallb(&["completions", shell], "");
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("without-node"), "{shell}");
    }
}

fn metallb(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_metallb"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that fails early closes its input; its output then shows the reason.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn plan_json(arguments: &[&str], input: &str) -> (i32, Value) {
    let output = metallb(&[&["plan", "-f", "-", "-o", "json"], arguments].concat(), input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let plan = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON on standard output: {error}"));
    (output.status.code().unwrap(), plan)
}

fn explain(arguments: &[&str], input: &str) -> String {
    let output = metallb(&[&["explain", "-f", "-"], arguments].concat(), input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs every case of a file, which must contain `cases` of them.
fn conformance(file: &str, cases: usize) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../metallb-core/tests/data/conformance").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), cases);
    let next = AtomicUsize::new(0);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let worker = || {
            std::iter::from_fn(|| lines.get(next.fetch_add(1, Ordering::Relaxed)))
                .flat_map(|line| run_case(&serde_json::from_str(line).unwrap()))
                .collect::<Vec<_>>()
        };
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn run_case(case: &Value) -> Vec<String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": case["objects"]}).to_string();
    let arguments: Vec<&str> = case["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (_, plan) = plan_json(&arguments, &list);
    let mut failures = Vec::new();
    let mut check = |what: &str, found: &Value, expected: &Value| {
        if found != expected {
            failures.push(format!("{} {what}: {found} instead of {expected}", case["id"]));
        }
    };
    let expect = &case["expect"];
    let found = by_name(&plan["services"]);
    for (name, expected) in by_name(&expect["services"]) {
        let service = found.get(&name).copied().unwrap_or(&Value::Null);
        for field in ["state", "pool", "ips"] {
            if let Some(expected) = expected.get(field) {
                check(&format!("{name} {field}"), &service[field], expected);
            }
        }
        if let Some(expected) = expected.get("l2") {
            check(&format!("{name} l2"), &owners(&service["l2"], expected), &owners(expected, expected));
        }
        if let Some(expected) = expected.get("bgp") {
            check(&format!("{name} bgp"), &routes(&service["bgp"]), &routes(expected));
        }
    }
    let found = by_name(&plan["pools"]);
    for (name, expected) in by_name(&expect["pools"]) {
        for (field, expected) in expected.as_object().unwrap() {
            check(&format!("pool {name} {field}"), &found.get(&name).copied().unwrap_or(&Value::Null)[field], expected);
        }
    }
    let errors: Vec<&Value> =
        plan["problems"].as_array().unwrap().iter().filter(|p| p["severity"] == "error").collect();
    if let Some(invalid) = expect.get("invalid") {
        check("invalid", &json!(!errors.is_empty()), invalid);
    }
    if let Some(blames) = expect.get("blames").filter(|blames| !blames.is_null()) {
        check("blames", &json!(errors.iter().any(|problem| problem["object"] == *blames)), &json!(true));
    }
    failures
}

fn by_name(list: &Value) -> BTreeMap<String, &Value> {
    let name = |value: &Value| {
        format!("{}/{}", value["namespace"].as_str().unwrap_or_default(), value["name"].as_str().unwrap_or_default())
    };
    list.as_array().into_iter().flatten().map(|value| (name(value), value)).collect()
}

/// Owner and interfaces of the addresses in `named`; an address that `list` lacks has no owner.
fn owners(list: &Value, named: &Value) -> Value {
    let of = |ip: &Value| list.as_array().into_iter().flatten().find(|entry| entry["ip"] == *ip);
    let owner = |entry: &Value| {
        let found = of(&entry["ip"]).unwrap_or(&Value::Null);
        let interfaces: BTreeSet<&str> =
            found["interfaces"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        json!([entry["ip"], found["node"], if found["node"].is_null() { BTreeSet::new() } else { interfaces }])
    };
    named.as_array().into_iter().flatten().map(owner).collect()
}

fn routes(list: &Value) -> Value {
    let texts = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let route = |entry: &Value| {
        json!([
            entry["node"],
            entry["peer"],
            entry["prefix"],
            entry["localPref"],
            texts(&entry["communities"]),
            texts(&entry["largeCommunities"])
        ])
        .to_string()
    };
    json!(list.as_array().into_iter().flatten().map(route).collect::<BTreeSet<_>>())
}

const MANIFESTS: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node-a}
---
apiVersion: v1
kind: Node
metadata: {name: node-b}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: demo, namespace: metallb-system}
spec: {addresses: [192.168.10.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: l2, namespace: metallb-system}
spec: {}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: bgp, namespace: metallb-system}
spec: {}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: tor, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 172.16.0.1}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: default}
  spec: {type: LoadBalancer, ports: [{port: 80}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints: [{addresses: [10.244.0.7], nodeName: node-a, conditions: {ready: true}}]
";

const SECOND_SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 5432}]}
";
