//! The controller as a process, under the shipped roles, against a real API server: editing mistakes, restarts beside
//! them and pools that are created again change no address.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "the harness says why it skips")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};
use metallb_operator::api::IpAddressPool;
use nix::sys::signal::Signal;

use support::scene::{Controller, Scene, eventually, holds};

#[allow(dead_code, reason = "nodes and endpoints do not matter here")]
mod support {
    pub(crate) mod api_server;
    pub(crate) mod scene;
}

const NAME: &str = "metallb-last-good-configuration";

/// Services that were created in another order than that of their names.
const SERVICES: [&str; 10] = ["s4", "s1", "s9", "s0", "s7", "s2", "s8", "s3", "s6", "s5"];

async fn ten_services(scene: &Scene, controller: &Controller) -> BTreeMap<String, Vec<String>> {
    for name in SERVICES {
        scene.service(name, "", "").await;
        eventually(controller, async || {
            let found = scene.addresses().await;
            holds(found.get(name).is_some_and(|ips| !ips.is_empty()), format!("{name} has no address: {found:?}"))
        })
        .await;
    }
    scene.addresses().await
}

async fn stored(scene: &Scene, controller: &Controller, text: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), "metallb-system");
    eventually(controller, async || {
        let map = maps.get_opt(NAME).await.unwrap();
        let objects = map.and_then(|map| map.data).and_then(|data| data.get("objects.jsonl").cloned());
        let found = objects.as_ref().is_some_and(|objects| objects.contains(text));
        holds(found, format!("{text} is not stored: {objects:?}"))
    })
    .await;
}

async fn logged(controller: &Controller, text: &str) {
    eventually(controller, async || holds(controller.output().contains(text), format!("no {text} in the log"))).await;
}

/// A restart, and a second replica that starts later and takes over, beside a pool with a mistake.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_mistake_in_a_pool_renumbers_nobody_after_restarts_and_takeovers() {
    let test = "api_mistake_in_a_pool_renumbers_nobody_after_restarts_and_takeovers";
    let Some(scene) = Scene::start(test).await else { return };
    scene.pool("a", "10.0.0.0/28", "").await;
    scene.pool("b", "10.0.1.0/28", ", autoAssign: false").await;
    let mut first = scene.controller("first");
    let before = ten_services(&scene, &first).await;
    scene.service("asks", "metallb.io/address-pool: b", "").await;
    scene.settles(&[("asks", &["10.0.1.0"])], &first).await;
    stored(&scene, &first, "10.0.1.0/28").await;

    // One mistake makes the pool invalid, the other one makes it overlap the pool b, which sorts and is created later.
    for (round, (addresses, has_forms)) in
        [("'10.0.0.0/28 '", true), ("10.0.0.0-10.0.1.255", true), ("10.0.0.0/33", false)].into_iter().enumerate()
    {
        scene.pool("a", addresses, "").await;
        scene.is_told("metallb-system", "a", "spec.addresses", &first).await;
        if !has_forms {
            let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), "metallb-system");
            maps.delete(NAME, &DeleteParams::default()).await.unwrap();
        }
        let second = scene.controller(&format!("second-{round}"));
        // Ready, and a standby that followed nothing of what happened before.
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.end(Signal::SIGKILL);
        logged(&second, "\"leading\"").await;
        let late = format!("late-{round}");
        scene.service(&late, "", ", loadBalancerIP: 10.0.1.9").await;
        scene.settles(&[(&late, &["10.0.1.9"])], &second).await;
        scene.services().delete(&late, &DeleteParams::default()).await.unwrap();
        let mut now = scene.addresses().await;
        now.retain(|name, _| before.contains_key(name));
        assert_eq!(now, before, "{addresses}\n{}", second.output());
        scene.settles(&[("asks", &["10.0.1.0"])], &second).await;
        first = second;
    }
    scene.pool("a", "10.0.0.0/28", "").await;
    scene.service("last", "", "").await;
    scene.settles(&[("last", &["10.0.0.10"])], &first).await;
    let mut now = scene.addresses().await;
    now.retain(|name, _| before.contains_key(name));
    assert_eq!(now, before, "repaired");
}

/// The pool is deleted and created, as by `kubectl replace --force`, with a running and with a restarted controller.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_pool_that_is_deleted_and_created_again_renumbers_nobody() {
    let Some(scene) = Scene::start("api_pool_that_is_deleted_and_created_again_renumbers_nobody").await else { return };
    scene.pool("edge", "10.0.0.0/28", "").await;
    let mut controller = scene.controller("first");
    let before = ten_services(&scene, &controller).await;
    // A gap, so that a new assignment in the order of names or of age would move others.
    scene.services().delete("s1", &DeleteParams::default()).await.unwrap();
    let pools: Api<IpAddressPool> = Api::namespaced(scene.client.clone(), "metallb-system");
    for round in 0..3 {
        let mut pool = pools.get("edge").await.unwrap();
        pools.delete("edge", &DeleteParams::default()).await.unwrap();
        if round > 0 {
            logged(&controller, "poolDeleted").await;
        }
        if round == 2 {
            controller.end(Signal::SIGKILL);
            controller = scene.controller("again");
            logged(&controller, "\"leading\"").await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        pool.metadata.uid = None;
        pool.metadata.resource_version = None;
        pools.create(&PostParams::default(), &pool).await.unwrap();
        let late = format!("late-{round}");
        scene.service(&late, "", "").await;
        eventually(&controller, async || {
            let found = scene.addresses().await;
            holds(found.get(&late).is_some_and(|ips| !ips.is_empty()), format!("{late} has no address: {found:?}"))
        })
        .await;
        let now = scene.addresses().await;
        let established = before.iter().filter(|(name, _)| *name != "s1");
        let moved: Vec<_> = established.filter(|(name, ips)| now.get(*name) != Some(*ips)).collect();
        assert!(moved.is_empty(), "round {round}: {moved:?} in {now:?}\n{}", controller.output());
        let distinct: BTreeSet<_> = now.values().flatten().collect();
        assert_eq!(distinct.len(), now.len(), "{now:?}");
    }
}

/// Deleted for good: the address is lost with an Event when the grace time is over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_pool_that_is_deleted_for_good_is_reported_on_its_services() {
    let Some(scene) = Scene::start("api_pool_that_is_deleted_for_good_is_reported_on_its_services").await else {
        return;
    };
    scene.pool("edge", "10.0.0.0/28", "").await;
    let controller = scene.controller("first");
    scene.service("web", "", "").await;
    scene.settles(&[("web", &["10.0.0.0"])], &controller).await;
    let pools: Api<IpAddressPool> = Api::namespaced(scene.client.clone(), "metallb-system");
    pools.delete("edge", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.addresses().await["web"], ["10.0.0.0"], "{}", controller.output());
    scene.settles(&[("web", &[])], &controller).await;
    scene.is_told("default", "web", "ClearAssignment", &controller).await;
}
