//! Attacks on the change of leaders: killed, ended, stopped and restarted controllers, and wrong clocks.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use nix::sys::signal::Signal;

use crate::churn::Churn;
use crate::stage::{Pod, Stage, expired, report};
use crate::support::proxy::{Gate, Matcher, Proxy, Rule};
use crate::support::referee::{Change, Double};
use crate::support::scene::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_leader_killed_under_churn_moves_no_address() {
    const ROW: &str = "leader killed, 4 times";
    let Some(stage) = Stage::start(ROW).await else { return };
    leaders_end_under_churn(ROW, &stage, Signal::SIGKILL, Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_leader_ended_under_churn_moves_no_address() {
    const ROW: &str = "leader ended by SIGTERM, 4 times";
    let Some(stage) = Stage::start(ROW).await else { return };
    leaders_end_under_churn(ROW, &stage, Signal::SIGTERM, Duration::from_secs(5)).await;
}

/// Ends the leader of two controllers four times; each time a new standby starts. Nothing moves, and nobody shares.
///
/// Standbys see what happened in batches, and so in another order than the leader.
async fn leaders_end_under_churn(row: &str, stage: &Stage, signal: Signal, bound: Duration) {
    let mut leader = stage.controller();
    stage.leads(&leader).await;
    let churn = Churn::start(stage, 7).await;
    // They carry the connections of leaders too, and stay until the end.
    let mut proxies = Vec::new();
    for _ in 0..4 {
        let proxy = stage.proxy().await;
        let standby = stage.controller_through(&proxy);
        batched(&proxy, 4).await;
        proxies.push(proxy);
        let holder = stage.lease.holder();
        let begin = Instant::now();
        leader.process.end(signal);
        let Some(next) = stage.lease.other_than(&holder, bound).await else {
            panic!("no next leader within {bound:?}\n{}", standby.process.output());
        };
        let next = next.duration_since(begin);
        let is_served = |at: Option<Instant>| at.is_some_and(|at| at > begin + next);
        let served = stage.referee.until(PATIENCE, |ledger| is_served(ledger.last_assignment())).await;
        assert!(served.is_some(), "the next leader gives no address\n{}", standby.process.output());
        report(row, &format!("next leader after {next:?}, its first address after {:?}", begin.elapsed()));
        leader = standby;
    }
    tokio::time::sleep(SETTLING).await;
    report(row, &format!("{} Services came and went", churn.stop().await));
    stage.nothing_moved();
    stage.no_double_holders();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_only_controller_killed_and_restarted_in_its_pod_serves_at_once() {
    const ROW: &str = "only controller killed and restarted in its Pod";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.11.0.0/24", "").await;
    let pod = Pod::new();
    let mut controller = stage.controller_in(pod.clone(), |_| {});
    stage.create("before").await;
    stage.served(&["before".to_owned()], PATIENCE, &controller).await;
    let mut longest = Duration::ZERO;
    for round in 0..3 {
        let begin = Instant::now();
        controller.process.end(Signal::SIGKILL);
        controller = stage.controller_in(pod.clone(), |_| {});
        let name = format!("after-{round}");
        stage.create(&name).await;
        stage.served(&[name], PATIENCE, &controller).await;
        report(ROW, &format!("first new address after {:?}", begin.elapsed()));
        longest = longest.max(begin.elapsed());
    }
    stage.nothing_moved();
    stage.no_double_holders();
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

/// The leader sees two creations one after the other, the standby sees both at once and would decide by name.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_standby_that_saw_another_order_moves_nothing() {
    const ROW: &str = "standby that saw another order";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.12.0.0/24", "").await;
    let (to_leader, to_standby) = (stage.proxy().await, stage.proxy().await);
    let mut leader = stage.controller_through(&to_leader);
    stage.leads(&leader).await;
    let standby = stage.controller_through(&to_standby);
    passes(&to_standby, &Matcher::watch("/api/v1/services"), 0).await;
    to_standby.hold_watches("/services");
    let gate = Gate::new();
    to_leader.add(Rule::new(Matcher::status_of("[za]")).held(&gate));
    for (count, name) in [(1, "z"), (2, "a")] {
        stage.create(name).await;
        gate.arrived(count).await;
    }
    // Its watch has expired: it sees both in a LIST.
    let (lists, watches) = (Matcher::list("/api/v1/services"), Matcher::watch("/api/v1/services"));
    let before = to_standby.count(&lists);
    to_standby.add(Rule::new(watches).times(1).reply(expired()));
    to_standby.cut_watches("/services");
    to_standby.release_watches();
    passes(&to_standby, &lists, before).await;
    gate.open();
    stage.has("z", "10.12.0.0", PATIENCE, &leader).await;
    stage.has("a", "10.12.0.1", PATIENCE, &leader).await;
    tokio::time::sleep(MOMENT).await;
    let begin = Instant::now();
    leader.process.end(Signal::SIGKILL);
    stage.create("later").await;
    stage.served(&["later".to_owned()], PATIENCE, &standby).await;
    report(ROW, &format!("next address after {:?}", begin.elapsed()));
    tokio::time::sleep(MOMENT).await;
    stage.nothing_moved();
    stage.no_double_holders();
}

/// The leader is stopped until another one has led for a while. When it goes on, it may finish a write that it began.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_leader_stopped_under_churn_moves_no_address() {
    const ROW: &str = "leader stopped, 3 times";
    let Some(stage) = Stage::start(ROW).await else { return };
    let mut leader = stage.controller();
    stage.leads(&leader).await;
    let mut standby = stage.controller();
    let churn = Churn::start(&stage, 11).await;
    for _ in 0..3 {
        tokio::time::sleep(SETTLING).await;
        let holder = stage.lease.holder();
        let begin = Instant::now();
        leader.process.signal(Signal::SIGSTOP);
        let next = stage.lease.other_than(&holder, PATIENCE).await;
        let next = next.unwrap_or_else(|| panic!("no next leader\n{}", standby.process.output())).duration_since(begin);
        tokio::time::sleep(SETTLING).await;
        report(ROW, &format!("next leader after {next:?}, stopped for {:?}", begin.elapsed()));
        leader.process.signal(Signal::SIGCONT);
        std::mem::swap(&mut leader, &mut standby);
    }
    tokio::time::sleep(SETTLING).await;
    churn.stop().await;
    tokio::time::sleep(MOMENT).await;
    let ledger = stage.referee.ledger();
    let longest = ledger.doubles().iter().map(Double::lasted).max().unwrap_or_default();
    let is_mended = |change: &&Change| {
        let was_double = |double: &Double| double.uids.contains(&change.uid) && change.from.contains(&double.ip);
        ledger.doubles().iter().any(was_double)
    };
    let unexplained: Vec<_> = ledger.moves().into_iter().filter(|change| !is_mended(change)).collect();
    report(
        ROW,
        &format!("{} double holders, longest {longest:?}, {} moves", ledger.doubles().len(), ledger.moves().len()),
    );
    assert!(unexplained.is_empty(), "{} established addresses changed: {unexplained:?}", unexplained.len());
    assert!(longest < Duration::from_secs(1), "a late write was not mended: {:?}", ledger.doubles());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_wrong_clocks_of_rivals_never_decide_who_leads() {
    const ROW: &str = "clocks 20 s ahead and behind";
    let Some(library) = faketime() else {
        println!("SKIPPED {ROW}: libfaketime is not installed");
        return;
    };
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.13.0.0/24", "").await;
    let shifted = |offset: &str| {
        stage.controller_in(Pod::new(), |command: &mut Command| {
            command.env("LD_PRELOAD", &library).env("FAKETIME", offset);
            // The monotonic clock is the real one; older versions read the second name.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        })
    };
    let mut leader = stage.controller();
    stage.leads(&leader).await;
    for (offset, observed) in [("+20s", 6), ("-20s", 4)] {
        let rival = shifted(offset);
        let terms = stage.lease.terms();
        tokio::time::sleep(Duration::from_secs(observed)).await;
        assert_eq!(stage.lease.terms(), terms, "a rival whose clock is {offset} takes the Lease of a live leader");
        let begin = Instant::now();
        leader.process.end(Signal::SIGKILL);
        stage.leads(&rival).await;
        report(ROW, &format!("a rival at {offset} leads {:?} after the leader was killed", begin.elapsed()));
        let name = format!("served-at-{}", if offset.starts_with('+') { "plus" } else { "minus" });
        stage.create(&name).await;
        stage.served(&[name], PATIENCE, &rival).await;
        let wrong = clock_of_holder(&stage).await.unsigned_abs();
        assert!((15..=30).contains(&wrong), "the clock of the rival is {wrong} s off: it is not faked");
        leader = rival;
    }
    stage.nothing_moved();
    stage.no_double_holders();
}

/// By how many seconds the last renewal of the Lease is ahead of this clock.
async fn clock_of_holder(stage: &Stage) -> i64 {
    let leases: Api<Lease> = Api::namespaced(stage.scene.client.clone(), "metallb-system");
    let renewed = leases.get("metallb-controller").await.unwrap().spec.unwrap().renew_time.unwrap();
    Timestamp::now().duration_until(renewed.0).as_secs()
}

/// The library that shows a process another time.
fn faketime() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let libraries = directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.is_file())
}

/// Delivers what Services do in batches, a number of times.
async fn batched(proxy: &Proxy, batches: usize) {
    passes(proxy, &Matcher::watch("/api/v1/services"), 0).await;
    for _ in 0..batches {
        proxy.hold_watches("/services");
        tokio::time::sleep(MOMENT).await;
        proxy.release_watches();
    }
}

/// Waits until more than this number of requests matched, and a moment longer.
async fn passes(proxy: &Proxy, matcher: &Matcher, before: usize) {
    let deadline = Instant::now() + PATIENCE;
    while proxy.count(matcher) <= before {
        assert!(Instant::now() < deadline, "{matcher:?} did not pass: {:?}", proxy.passed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(MOMENT).await;
}

/// More than a process needs to take in and decide on a few events.
const MOMENT: Duration = Duration::from_millis(400);

/// More than a controller needs to start and to serve all that can be served.
const SETTLING: Duration = Duration::from_millis(1500);
