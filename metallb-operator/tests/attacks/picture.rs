//! Attacks on what the controller believes: a LIST that is older than what it saw, and statuses that others wrote.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stage::{Member, Stage, addresses, expired, report};
use crate::support::proxy::{Matcher, Reply, Rule};
use crate::support::referee::Double;
use crate::support::scene::PATIENCE;

/// The API server lags: its LIST still has the Service that waits for an address, and not yet the one that holds it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_list_of_a_moment_ago_takes_no_address_away() {
    const ROW: &str = "LIST of a moment ago";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.create_with("q", &json!({ "metallb.io/loadBalancerIPs": "10.14.0.0" }), &json!({})).await;
    let old = Request::get("/api/v1/services").body(Vec::new()).unwrap();
    let old = stage.scene.client.request_text(old).await.unwrap();
    stage.create("r").await;
    stage.forge("r", "10.14.0.0", "only").await;
    stage.scene.pool("only", "10.14.0.0/32", "").await;
    stage.scene.pool("other", "10.14.1.0/24", ", autoAssign: false").await;
    let proxy = stage.proxy().await;
    let controller = stage.controller_through(&proxy);
    stage.create_with("first", &json!({ "metallb.io/address-pool": "other" }), &json!({})).await;
    stage.served(&["first".to_owned()], PATIENCE, &controller).await;

    let (lists, watches) = (Matcher::list("/api/v1/services"), Matcher::watch("/api/v1/services"));
    let before = proxy.count(&lists);
    let stale = proxy.add(Rule::new(lists.clone()).reply(Reply::Fixed(StatusCode::OK, old.into())));
    proxy.add(Rule::new(watches.clone()).times(1).reply(expired()));
    // What the server says later is late as well, as from a server that lags.
    let slow = proxy.add(Rule::new(watches).answer_delayed(Duration::from_secs(3)));
    proxy.cut_watches("/services");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let lists = proxy.count(&lists) - before;
    assert!(lists > 0, "the controller did not ask for a new LIST: {:?}", proxy.passed());
    let ledger = stage.referee.ledger();
    report(ROW, &format!("{lists} old LISTs, {} double holders", ledger.doubles().len()));
    proxy.remove(stale);
    proxy.remove(slow);
    let begin = Instant::now();
    stage.create_with("later", &json!({ "metallb.io/address-pool": "other" }), &json!({})).await;
    stage.served(&["later".to_owned()], PATIENCE, &controller).await;
    report(ROW, &format!("a new Service is served {:?} after the server caught up", begin.elapsed()));
    let ledger = stage.referee.ledger();
    assert_eq!((ledger.ips("r"), ledger.ips("q")), (addresses(["10.14.0.0"]), BTreeSet::new()));
    // The forged status is the first assignment.
    stage.nothing_moved();
    stage.no_double_holders();
}

/// `w` is the older object and comes first by name; `y` has had the address for longer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_address_forged_into_another_status_stays_with_its_holder() {
    const ROW: &str = "two holders made by another actor";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.15.0.0/24", "").await;
    let cluster_ip = json!({ "type": "ClusterIP", "allocateLoadBalancerNodePorts": null });
    for name in ["w-down", "w-runs"] {
        stage.create_with(name, &json!({}), &cluster_ip).await;
    }
    let mut controller = stage.controller();
    for (name, ip) in [("y-down", "10.15.0.0"), ("y-runs", "10.15.0.1")] {
        stage.create(name).await;
        stage.has(name, ip, PATIENCE, &controller).await;
    }
    // The API server records the times of writes in seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let load_balancer = json!({ "spec": { "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false } });
    controller.process.end(Signal::SIGTERM);
    stage.change("w-down", load_balancer.clone()).await;
    stage.forge("w-down", "10.15.0.0", "a").await;
    let begin = Instant::now();
    controller = stage.controller();
    mended(&stage, ROW, "w-down", ("y-down", "10.15.0.0"), &controller).await;
    report(ROW, &format!("mended {:?} after the start", begin.elapsed()));

    // It has an address of its own before another actor overwrites it.
    stage.change("w-runs", load_balancer).await;
    stage.served(&["w-runs".to_owned()], PATIENCE, &controller).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let begin = Instant::now();
    stage.forge("w-runs", "10.15.0.1", "a").await;
    mended(&stage, ROW, "w-runs", ("y-runs", "10.15.0.1"), &controller).await;
    report(ROW, &format!("mended {:?} after another actor wrote", begin.elapsed()));
    let ledger = stage.referee.ledger();
    assert!(ledger.moves().iter().all(|change| !change.name.starts_with('y')), "{:?}", ledger.moves());
}

/// Waits until no address has two holders, and asserts that the later one got another, with an Event.
async fn mended(stage: &Stage, row: &str, later: &str, (older, ip): (&str, &str), controller: &Member) {
    let is_mended = stage.referee.until(Duration::from_secs(10), |ledger| {
        let was_seen = ledger.doubles().iter().any(|double| double.names.iter().any(|name| name == later));
        let is_over = ledger.doubles().iter().all(|double| double.until.is_some());
        was_seen && is_over && !ledger.ips(later).is_empty() && !ledger.ips(older).is_empty()
    });
    assert!(is_mended.await.is_some(), "two holders for 10 s\n{}", controller.process.output());
    let ledger = stage.referee.ledger();
    let longest = ledger.doubles().last().map(Double::lasted);
    report(row, &format!("{later} moved to {:?} after {longest:?}", ledger.ips(later)));
    assert_eq!(ledger.ips(older), addresses([ip]), "the older assignment keeps: {:?}", ledger.moves());
    let other = ledger.ips(later).first().copied().unwrap().to_string();
    stage.scene.is_told("default", later, &other, &controller.process).await;
}
