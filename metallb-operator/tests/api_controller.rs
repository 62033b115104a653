//! The controller as a process, under the shipped roles, against a real API server: what it writes, and that restarts, rivals and bad
//! objects change nothing that works.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "the harness says why it skips")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use metallb_operator::api::{ConfigurationState, IpAddressPool, ServiceL2Status, ServiceL2StatusSpec};
use nix::sys::signal::Signal;
use serde_json::json;

use support::api_server::Identity;
use support::scene::{Controller, Scene, eventually, holds};

#[allow(dead_code, reason = "nodes and endpoints do not matter here")]
mod support {
    pub(crate) mod api_server;
    pub(crate) mod scene;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_controller_writes_addresses_and_events_like_upstream() {
    let Some(scene) = Scene::start("api_controller_writes_addresses_and_events_like_upstream").await else { return };
    scene.pool("edge", "10.0.0.0/30, 'fd00::/126'", "").await;
    scene.pool("manual", "10.1.0.0/32", ", autoAssign: false").await;
    // Each row: name, annotations, the rest of the spec, the addresses, and a part of an Event.
    let rows: [(&str, &str, &str, &[&str], &str); 11] = [
        ("plain-40", "", "", &["10.0.0.0"], "IPAllocated Assigned IP [\"10.0.0.0\"]"),
        ("asks-41", "metallb.io/loadBalancerIPs: 10.0.0.2", "", &["10.0.0.2"], "IPAllocated"),
        ("old-key", "metallb.universe.tf/address-pool: manual", "", &["10.1.0.0"], "deprecatedAnnotation"),
        ("both-42", "metallb.io/loadBalancerIPs: 10.0.0.1", ", loadBalancerIP: 10.0.0.1", &[], "AllocationFailed"),
        (
            "words-43",
            "metallb.io/loadBalancerIPs: nonsense",
            "",
            &[],
            "invalid metallb.io/loadBalancerIPs: \"nonsense\"",
        ),
        (
            "elsewhere-44",
            "'metallb.io/loadBalancerIPs': 10.0.0.3, 'metallb.io/address-pool': manual",
            "",
            &[],
            "is not compatible with requested address pool",
        ),
        ("unknown-48", "metallb.io/address-pool: nope", "", &[], "unknown pool \"nope\""),
        ("outside", "", ", loadBalancerIP: 9.9.9.9", &[], "[\"9.9.9.9\"] is not allowed in config"),
        ("class", "", ", loadBalancerClass: other.example/lb", &[], ""),
        (
            "dual-55",
            "",
            ", ipFamilyPolicy: RequireDualStack",
            &["10.0.0.1", "fd00::"],
            "IPAllocated Assigned IP [\"10.0.0.1\" \"fd00::\"]",
        ),
        ("six", "", ", ipFamilies: [IPv6]", &["fd00::1"], "IPAllocated"),
    ];
    let controller = scene.controller("first");
    for (name, annotations, spec, expected, event) in rows {
        scene.service(name, annotations, spec).await;
        scene.settles(&[(name, expected)], &controller).await;
        if !event.is_empty() {
            scene.is_told("default", name, event, &controller).await;
        }
    }
    // What was refused or is somebody else's is untouched in the end too.
    let expected: Vec<(&str, &[&str])> = rows.iter().map(|row| (row.0, row.3)).collect();
    scene.settles(&expected, &controller).await;
    let annotation =
        scene.services().get("dual-55").await.unwrap().annotations()["metallb.io/ip-allocated-from-pool"].clone();
    assert_eq!(annotation, "edge");
    assert!(scene.events("default", "class").await.is_empty());

    // 51: what is no LoadBalancer any more gives its address back, and who waits for one gets it.
    scene.service("waits", "metallb.io/loadBalancerIPs: 10.0.0.0", "").await;
    scene.is_told("default", "waits", "AllocationFailed", &controller).await;
    let plain = Patch::Merge(json!({ "spec": { "type": "ClusterIP" } }));
    scene.services().patch("plain-40", &PatchParams::default(), &plain).await.unwrap();
    scene.settles(&[("plain-40", &[]), ("waits", &["10.0.0.0"])], &controller).await;

    // A freed address goes to the next in line; the pool's counters follow.
    scene.services().delete("waits", &DeleteParams::default()).await.unwrap();
    scene.service("next", "", "").await;
    scene.settles(&[("next", &["10.0.0.0"])], &controller).await;
    let pools: Api<IpAddressPool> = Api::namespaced(scene.client.clone(), "metallb-system");
    eventually(&controller, async || {
        let status = pools.get("edge").await.unwrap().status.unwrap_or_default();
        let counted = (status.assigned_ipv4, status.available_ipv4, status.assigned_ipv6, status.available_ipv6);
        holds(counted == (3, 1, 2, 2), format!("{counted:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_bad_objects_are_told_and_take_nothing_away_not_even_after_a_restart() {
    let Some(scene) = Scene::start("api_bad_objects_are_told_and_take_nothing_away_not_even_after_a_restart").await
    else {
        return;
    };
    scene.pool("good", "10.0.0.0/30", "").await;
    let mut controller = scene.controller("first");
    scene.service("web", "", "").await;
    scene.settles(&[("web", &["10.0.0.0"])], &controller).await;

    scene.pool("overlaps", "10.0.0.2-10.0.0.9", "").await;
    scene.is_told("metallb-system", "overlaps", "OverlappingAddresses spec.addresses", &controller).await;
    scene.pool("typo", "10.0.9.0/33", "").await;
    scene.is_told("metallb-system", "typo", "InvalidAddress spec.addresses[0]", &controller).await;
    // A good pool that is edited into a bad one stays as it was.
    scene.pool("good", "10.0.0.0/30, 10.0.0.300", "").await;
    scene.is_told("metallb-system", "good", "InvalidAddress spec.addresses[1]", &controller).await;
    scene.service("later", "", "").await;
    scene.settles(&[("web", &["10.0.0.0"]), ("later", &["10.0.0.1"])], &controller).await;
    let states: Api<ConfigurationState> = Api::namespaced(scene.client.clone(), "metallb-system");
    eventually(&controller, async || {
        let state = states.get_opt("controller").await.unwrap().and_then(|state| state.status).unwrap_or_default();
        let summary = state.error_summary.unwrap_or_default();
        let named = ["overlaps", "typo", "good"].iter().all(|name| {
            summary.contains(&format!("IPAddressPool/metallb-system/{name} "))
                || summary.contains(&format!("pool \"{name}\""))
        });
        holds(named && state.result.as_deref() == Some("Invalid"), summary)
    })
    .await;
    scene.pool("good", "10.0.0.0/30", "").await;

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        controller.end(signal);
        controller = scene.controller("again");
        let name = format!("after-{}", signal.as_str().to_lowercase());
        scene.service(&name, "", "").await;
        let ip = if signal == Signal::SIGTERM { "10.0.0.2" } else { "10.0.0.3" };
        scene.settles(&[("web", &["10.0.0.0"]), ("later", &["10.0.0.1"]), (&name, &[ip])], &controller).await;
    }
}

/// More Services than addresses, restarts in the middle of the work, a rival that starts early.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_restarts_and_rivals_never_change_an_address_or_give_one_twice() {
    let Some(scene) = Scene::start("api_restarts_and_rivals_never_change_an_address_or_give_one_twice").await else {
        return;
    };
    scene.pool("small", "10.0.0.0-10.0.0.79", "").await;
    let mut controllers = vec![scene.controller("0")];
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..4 {
        for number in 0..25 {
            scene.service(&format!("s{round}-{number}"), "", "").await;
        }
        // The old one ends in the middle of its work, one way or the other; the new one may have started before.
        let rival = scene.controller(&format!("{}", round + 1));
        controllers.last_mut().unwrap().end(if round % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL });
        controllers.push(rival);
        seen = unchanged(&seen, scene.addresses().await, controllers.last().unwrap());
    }
    let controller = controllers.last().unwrap();
    eventually(controller, async || {
        seen = unchanged(&seen, scene.addresses().await, controller);
        holds(seen.values().filter(|ips| !ips.is_empty()).count() == 80, format!("{seen:?}"))
    })
    .await;
    // Who waits gets what is freed, and nobody else moves.
    let holder = seen.iter().find(|(_, ips)| !ips.is_empty()).map(|(name, _)| name.clone()).unwrap();
    let freed = seen.remove(&holder).unwrap();
    scene.services().delete(&holder, &DeleteParams::default()).await.unwrap();
    eventually(controller, async || {
        seen = unchanged(&seen, scene.addresses().await, controller);
        holds(seen.values().any(|ips| *ips == freed), format!("nobody got {freed:?}"))
    })
    .await;
}

/// Asserts that no address of `before` changed and none is held twice.
fn unchanged(
    before: &BTreeMap<String, Vec<String>>,
    now: BTreeMap<String, Vec<String>>,
    controller: &Controller,
) -> BTreeMap<String, Vec<String>> {
    for (name, ips) in before.iter().filter(|(_, ips)| !ips.is_empty()) {
        assert!(
            now.get(name).is_none_or(|now| now == ips),
            "{name} had {ips:?}, has {:?}\n{}",
            now.get(name),
            controller.output()
        );
    }
    let held: Vec<&String> = now.values().flatten().collect();
    assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), held.len(), "an address is held twice: {now:?}");
    now
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_controller_quarantines_what_a_speaker_says_another_host_uses() {
    let Some(scene) = Scene::start("api_controller_quarantines_what_a_speaker_says_another_host_uses").await else {
        return;
    };
    scene.pool("edge", "10.0.0.0/29", "").await;
    for name in ["a-moves", "b-stays"] {
        scene.service(name, "", "").await;
    }
    scene.service("c-asks", "metallb.io/loadBalancerIPs: 10.0.0.5", "").await;
    let mut plain = scene.controller("plain");
    let assigned: [(&str, &[&str]); 3] =
        [("a-moves", &["10.0.0.0"]), ("b-stays", &["10.0.0.1"]), ("c-asks", &["10.0.0.5"])];
    scene.settles(&assigned, &plain).await;
    // As a speaker writes it, with its rights and no more.
    let speaker = scene.api.client(Identity::Speaker).await;
    let statuses: Api<ServiceL2Status> = Api::namespaced(speaker.clone(), "metallb-system");
    let mut status = ServiceL2Status::new("l2-test", ServiceL2StatusSpec {});
    status.metadata.labels = Some([("metallb.io/node".to_owned(), "node-1".to_owned())].into());
    statuses.create(&PostParams::default(), &status).await.unwrap();
    let report = |conflicts: serde_json::Value| {
        let statuses = statuses.clone();
        async move {
            let patch = Patch::Merge(json!({ "status": { "node": "node-1", "conflicts": conflicts } }));
            statuses.patch_status("l2-test", &PatchParams::default(), &patch).await.unwrap();
        }
    };
    let conflict = |ip: &str| json!({ "ip": ip, "macAddress": "02:00:00:00:00:99" });
    report(json!([conflict("10.0.0.0"), conflict("10.0.0.5"), conflict("10.0.0.2"), conflict("9.9.9.9")])).await;
    // Without the flag a report moves nobody; a Service that comes later shows that the report had its time.
    scene.service("d-later", "", "").await;
    scene.settles(&[("a-moves", &["10.0.0.0"]), ("d-later", &["10.0.0.2"])], &plain).await;
    plain.end(Signal::SIGTERM);

    let mut strict = scene.controller_with("strict", &["--quarantine-conflicts"]);
    let moved: [(&str, &[&str]); 4] =
        [("a-moves", &["10.0.0.3"]), ("b-stays", &["10.0.0.1"]), ("c-asks", &["10.0.0.5"]), ("d-later", &["10.0.0.4"])];
    scene.settles(&moved, &strict).await;
    scene.is_told("default", "a-moves", "02:00:00:00:00:99", &strict).await;
    let pools: Api<IpAddressPool> = Api::namespaced(scene.client.clone(), "metallb-system");
    let listed = async || -> Vec<String> {
        let status = pools.get("edge").await.unwrap().status.unwrap_or_default();
        status.quarantined.into_iter().map(|entry| entry.ip).collect()
    };
    eventually(&strict, async || {
        let listed = listed().await;
        holds(listed == ["10.0.0.0", "10.0.0.2", "10.0.0.5"], format!("{listed:?}"))
    })
    .await;
    // Nobody says it any more: the addresses stay out of circulation for a while, also for a successor.
    report(serde_json::Value::Null).await;
    strict.end(Signal::SIGTERM);
    let mut successor = scene.controller_with("successor", &["--quarantine-conflicts"]);
    scene.service("e-later", "", "").await;
    scene.settles(&[("e-later", &["10.0.0.6"]), ("a-moves", &["10.0.0.3"])], &successor).await;
    assert_eq!(listed().await, ["10.0.0.0", "10.0.0.2", "10.0.0.5"]);
    successor.end(Signal::SIGTERM);
    // Without the flag they are back, and the status says so.
    let plain = scene.controller("plain again");
    scene.service("f-later", "", "").await;
    scene.settles(&[("f-later", &["10.0.0.0"])], &plain).await;
    eventually(&plain, async || {
        let listed = listed().await;
        holds(listed.is_empty(), format!("{listed:?}"))
    })
    .await;
}

/// A controller in a Pod.
fn controller_in(scene: &Scene, name: &str, pod: &str, more: &[&str]) -> Controller {
    scene.controller_with(name, &[&["--pod-name", pod], more].concat())
}

/// The holder in the Lease of the controllers; empty for none.
async fn holder(scene: &Scene) -> String {
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), "metallb-system");
    let lease = leases.get_opt("metallb-controller").await.unwrap();
    lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
}

/// Waits until the holder is another one than `before` and belongs to `pod`; how long that took.
async fn leads(scene: &Scene, pod: &str, before: &str, controller: &Controller) -> Duration {
    let begun = Instant::now();
    eventually(controller, async || {
        let holder = holder(scene).await;
        holds(holder != before && holder.starts_with(&format!("{pod}_")), format!("\"{holder}\" holds the Lease"))
    })
    .await;
    begun.elapsed()
}

/// Times are printed; the bounds are ten times what is promised, for machines that are busy.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_lease_goes_to_the_standby_after_a_kill_and_at_once_after_a_release() {
    let Some(scene) = Scene::start("api_lease_goes_to_the_standby_after_a_kill_and_at_once_after_a_release").await
    else {
        return;
    };
    let mut first = controller_in(&scene, "first", "first", &[]);
    leads(&scene, "first", "", &first).await;
    let mut second = controller_in(&scene, "second", "second", &[]);
    eventually(&second, async || holds(second.output().contains("first_"), "the standby saw no Lease".into())).await;
    first.end(Signal::SIGKILL);
    let killed = leads(&scene, "second", "", &second).await;
    let third = controller_in(&scene, "third", "third", &[]);
    eventually(&third, async || holds(third.output().contains("second_"), "the standby saw no Lease".into())).await;
    second.end(Signal::SIGTERM);
    let released = leads(&scene, "third", "", &third).await;
    println!("next leader after SIGKILL: {killed:?}, after SIGTERM: {released:?}");
    assert!(killed < Duration::from_secs(60) && released < Duration::from_secs(5), "{killed:?} {released:?}");
    // Its holder creates a Lease that somebody deletes again, and goes on in its term.
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), "metallb-system");
    let deleted = leases.get("metallb-controller").await.unwrap().metadata.uid;
    leases.delete("metallb-controller", &DeleteParams::default()).await.unwrap();
    eventually(&third, async || {
        let lease = leases.get_opt("metallb-controller").await.unwrap();
        holds(lease.is_some_and(|lease| lease.metadata.uid != deleted), "the Lease is not created again".into())
    })
    .await;
    leads(&scene, "third", "", &third).await;
    assert_eq!(third.output().matches("leadershipAcquired").count(), 1, "{}", third.output());
    for controller in [&first, &second, &third] {
        let output = controller.output();
        assert!(!output.contains("leaseUnwatched") && !output.contains("etcdRestored"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_lease_is_taken_over_at_once_by_the_next_process_of_the_same_pod_only() {
    let Some(scene) = Scene::start("api_lease_is_taken_over_at_once_by_the_next_process_of_the_same_pod_only").await
    else {
        return;
    };
    let uid = format!("11111111-2222-4333-8444-{:012}", std::process::id());
    let flags = ["--lease-duration", "40s", "--pod-uid", &uid];
    let mut first = controller_in(&scene, "first", "pod", &flags);
    leads(&scene, "pod", "", &first).await;
    eventually(&first, async || holds(holder(&scene).await.contains(&uid), holder(&scene).await)).await;
    // A second process of the Pod, beside the first one, waits.
    let mut beside = controller_in(&scene, "beside", "pod", &flags);
    eventually(&beside, async || holds(beside.output().contains("podLockHeld"), beside.output())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = holder(&scene).await;
    assert!(before.contains(&uid), "{before}");
    beside.end(Signal::SIGKILL);
    assert_eq!(holder(&scene).await, before);

    first.end(Signal::SIGKILL);
    let again = controller_in(&scene, "again", "pod", &flags);
    let restarted = leads(&scene, "pod", &before, &again).await;
    println!("leads again after SIGKILL and a restart in the same Pod: {restarted:?}");
    assert!(!again.output().contains("podLockHeld"), "{}", again.output());
    assert!(restarted < Duration::from_secs(5), "{restarted:?}");
}
