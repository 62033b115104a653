//! Attacks on single writes of a status: answers that are late, lost or refused, and wishes that change meanwhile.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::stage::{ALLOCATED_FROM, Stage, addresses, names, report};
use crate::support::proxy::{End, Gate, Matcher, Reply, Rule};
use crate::support::referee::Double;
use crate::support::scene::{PATIENCE, eventually, holds};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_address_wished_for_as_soon_as_the_first_one_shows_is_never_forgotten() {
    const ROW: &str = "no fault, 400 wishes";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.1.0.0/22", "").await;
    stage.scene.pool("b", "10.2.0.0/22", ", autoAssign: false").await;
    let controller = stage.controller();
    let begin = Instant::now();
    let stage_ref = &stage;
    let wishes = join_all((0..4).map(|creator| async move {
        for name in names(&format!("wish-{creator}"), 100) {
            stage_ref.create(&name).await;
            let first = stage_ref.referee.served(&name, PATIENCE).await;
            assert!(first.is_some(), "{name} has no address");
            stage_ref.annotate(&name, json!({ "metallb.io/address-pool": "b" })).await;
        }
    }));
    wishes.await;
    let created = begin.elapsed();
    let mut forgotten = Vec::new();
    let is_in_b = |ip: &std::net::IpAddr| ip.to_string().starts_with("10.2.");
    let settled = stage.referee.until(Duration::from_secs(10), |ledger| {
        let services = ledger.services().values().filter(|seen| seen.name.starts_with("wish-"));
        forgotten = services.filter(|seen| !seen.ips.iter().any(is_in_b)).map(|seen| seen.name.clone()).collect();
        forgotten.is_empty()
    });
    let settled = settled.await;
    let more = names("more", 60);
    for name in &more {
        stage.create(name).await;
    }
    stage.served(&more, PATIENCE, &controller).await;
    let ledger = stage.referee.ledger();
    let longest = ledger.doubles().iter().map(Double::lasted).max();
    let lasting = ledger.doubles().iter().filter(|double| double.until.is_none()).count();
    report(
        ROW,
        &format!(
            "created in {created:?}, settled after {settled:?}, {} forgotten, {} moves, \
             {} double holders ({lasting} last, longest {longest:?})",
            forgotten.len(),
            ledger.moves().len(),
            ledger.doubles().len()
        ),
    );
    assert!(forgotten.is_empty(), "forgotten: {forgotten:?}");
    stage.no_double_holders();
    assert_eq!(ledger.moves().len(), 400, "each Service moves once, when its user asks for it");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_wish_that_changes_while_the_answer_is_late_is_served_after_the_answer() {
    const ROW: &str = "answer 3 s late";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.3.0.0/29", "").await;
    let proxy = stage.proxy().await;
    let controller = stage.controller_through(&proxy);
    proxy.add(Rule::new(Matcher::status_of("late-.*")).times(2).answer_delayed(Duration::from_secs(3)));
    let late = ["late-address".to_owned(), "late-type".to_owned()];
    for name in &late {
        stage.create(name).await;
    }
    stage.served(&late, PATIENCE, &controller).await;
    let begin = Instant::now();
    let first = stage.referee.ledger().ips("late-address");
    stage.annotate("late-address", json!({ "metallb.io/loadBalancerIPs": "10.3.0.7" })).await;
    stage.change("late-type", json!({ "spec": { "type": "ClusterIP" } })).await;
    // The address that the user gives up is still that of the Service.
    stage.create("next").await;
    let next = stage.referee.served("next", PATIENCE).await.unwrap();
    assert!(next.is_disjoint(&first), "{next:?} is still held by the Service whose write is under way");

    // The answer comes within 3 s, and the wish is served within a second of it.
    let bound = Duration::from_secs(3 + 10);
    stage.has("late-address", "10.3.0.7", bound, &controller).await;
    report(ROW, &format!("the new wish is served {:?} after it was made", begin.elapsed()));
    let services = stage.scene.services();
    eventually(&controller.process, async || {
        let service = services.get("late-type").await.unwrap();
        holds(!service.annotations().contains_key(ALLOCATED_FROM), format!("{:?}", service.annotations()))
    })
    .await;
    report(ROW, &format!("the record is gone {:?} after the change of type", begin.elapsed()));
    assert!(stage.referee.ledger().ips("late-type").is_empty());
    stage.no_double_holders();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_namesake_created_while_a_write_is_answered_404_is_served() {
    const ROW: &str = "deleted and re-created during a write";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.4.0.0/30", "").await;
    let proxy = stage.proxy().await;
    let controller = stage.controller_through(&proxy);
    let (request, answer) = (Gate::new(), Gate::new());
    let writes = Matcher::status_of("twice");
    proxy.add(Rule::new(writes.clone()).times(1).held(&request).answer_held(&answer));
    stage.create("twice").await;
    request.arrived(1).await;
    stage.delete("twice").await;
    request.open();
    answer.arrived(1).await;
    stage.create("twice").await;
    // The controller sees the namesake before it sees the answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    answer.open();
    let served = stage.served(&["twice".to_owned()], Duration::from_secs(10), &controller).await;
    // The namesake need not wait for the answer, so that it may be served before.
    eventually(&controller.process, async || {
        let passed = proxy.passed();
        let first = passed.iter().find(|request| request.path.ends_with("/twice/status")).unwrap();
        holds(first.status == Some(StatusCode::NOT_FOUND), format!("{first:?}"))
    })
    .await;
    report(ROW, &format!("the namesake is served {served:?} after the answer"));
    stage.no_double_holders();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_address_whose_release_is_refused_stays_taken() {
    const ROW: &str = "release refused by a policy";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("one", "10.5.0.0/32", "").await;
    stage.scene.pool("two", "10.5.1.0/29", ", autoAssign: false").await;
    let mut controller = stage.controller();
    stage.create("mov1").await;
    stage.has("mov1", "10.5.0.0", PATIENCE, &controller).await;
    stage.scene.api.apply(POLICY).await.unwrap();
    let services = stage.scene.services();
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let touch = Patch::Merge(json!({ "metadata": { "annotations": { "touched": "yes" } } }));
    eventually(&controller.process, async || {
        let answer = services.patch_status("mov1", &dry, &touch).await;
        holds(answer.is_err(), "the policy is not in force".to_owned())
    })
    .await;
    stage.annotate("mov1", json!({ "metallb.io/address-pool": "two" })).await;
    // Time for decision and refusal; a Service that is served afterwards shows that both had it.
    stage.create_with("before", &json!({ "metallb.io/address-pool": "two" }), &json!({})).await;
    stage.served(&["before".to_owned()], PATIENCE, &controller).await;
    stage.create("thief").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let evidence = |when: &str| {
        let ledger = stage.referee.ledger();
        assert_eq!(ledger.ips("mov1"), addresses(["10.5.0.0"]), "{when}");
        assert!(ledger.ips("thief").is_empty(), "{when}: the address has two holders");
    };
    evidence("while the policy is in force");
    controller.process.end(Signal::SIGTERM);
    controller = stage.controller();
    stage.create_with("after", &json!({ "metallb.io/address-pool": "two" }), &json!({})).await;
    stage.served(&["after".to_owned()], PATIENCE, &controller).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    evidence("after a restart");

    let begin = Instant::now();
    stage.scene.remove_policies().await;
    stage.has("thief", "10.5.0.0", PATIENCE, &controller).await;
    report(ROW, &format!("released and given away {:?} after the policy went", begin.elapsed()));
    let moved = stage.referee.ledger().ips("mov1");
    assert!(moved.iter().all(|ip| ip.to_string().starts_with("10.5.1.")), "{moved:?}");
    stage.no_double_holders();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_writes_that_are_never_answered_hold_up_nobody_else() {
    const ROW: &str = "20 writes never answered";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.6.0.0/24", "").await;
    let proxy = stage.proxy().await;
    let controller = stage.controller_through(&proxy);
    stage.create("first").await;
    stage.served(&["first".to_owned()], PATIENCE, &controller).await;
    // Half of them reach the server, half of them do not.
    proxy.add(Rule::new(Matcher::status_of("written-.*")).times(10).end(End::Never));
    proxy.add(Rule::new(Matcher::status_of("swallowed-.*")).times(10).reply(Reply::Swallowed));
    let lost = [names("written", 10), names("swallowed", 10)].concat();
    let begin = Instant::now();
    for name in &lost {
        stage.create(name).await;
    }
    let mut longest = Duration::ZERO;
    for name in names("other", 10) {
        stage.create(&name).await;
        longest = longest.max(stage.served(&[name], Duration::from_secs(10), &controller).await);
    }
    report(ROW, &format!("other Services waited {longest:?} at most"));
    stage.served(&lost, PATIENCE, &controller).await;
    report(ROW, &format!("all are served after {:?}", begin.elapsed()));
    stage.nothing_moved();
    stage.no_double_holders();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_writes_whose_answers_are_lost_are_made_once() {
    const ROW: &str = "30 answers cut off";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.7.0.0/24", "").await;
    let proxy = stage.proxy().await;
    let controller = stage.controller_through(&proxy);
    proxy.add(Rule::new(Matcher::status_of("cut-.*")).times(30).end(End::Cut));
    let cut = names("cut", 30);
    for name in &cut {
        stage.create(name).await;
    }
    stage.served(&cut, PATIENCE, &controller).await;
    let events: Api<Event> = Api::namespaced(stage.scene.client.clone(), "default");
    let told = async || -> Vec<i32> {
        let listed = events.list(&ListParams::default()).await.unwrap();
        let told = |name: &String| {
            let is_told = |event: &&Event| {
                event.involved_object.name.as_ref() == Some(name) && event.reason.as_deref() == Some("IPAllocated")
            };
            listed.iter().filter(is_told).map(|event| event.count.unwrap_or(1)).sum()
        };
        cut.iter().map(told).collect()
    };
    eventually(&controller.process, async || {
        let told = told().await;
        holds(told.iter().all(|count| *count > 0), format!("{told:?}"))
    })
    .await;
    // Longer than any pause between attempts.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = told().await;
    report(ROW, &format!("{} writes for 30 Services", proxy.count(&Matcher::status_of("cut-.*"))));
    assert!(told.iter().all(|count| *count == 1), "Events per Service: {told:?}");
    stage.nothing_moved();
    stage.no_double_holders();
}

/// A load balancer before the API server fails over: nothing answers on old connections, new ones work.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_dead_connections_are_found_and_replaced() {
    const ROW: &str = "all connections dead";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.17.0.0/24", "").await;
    let proxy = stage.proxy().await;
    let controller = stage.controller_through(&proxy);
    stage.create("before").await;
    stage.served(&["before".to_owned()], PATIENCE, &controller).await;
    proxy.freeze();
    stage.create("after").await;
    let served = stage.served(&["after".to_owned()], PATIENCE, &controller).await;
    report(ROW, &format!("a new Service is served after {served:?}"));
    stage.nothing_moved();
    stage.no_double_holders();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_attack_wishes_changed_100_times_in_a_row_end_with_the_last() {
    const ROW: &str = "100 changes in a row";
    let Some(stage) = Stage::start(ROW).await else { return };
    stage.scene.pool("a", "10.8.0.0/24", "").await;
    stage.scene.pool("b", "10.9.0.0/24", ", autoAssign: false").await;
    let controller = stage.controller();
    let all = ["type", "field", "annotation", "pool"].map(str::to_owned);
    for name in &all {
        stage.create(name).await;
    }
    stage.served(&all, PATIENCE, &controller).await;
    let repeat = |name: &'static str, wish: fn(u8) -> Value| {
        let stage = &stage;
        async move {
            for number in 1..=100 {
                stage.change(name, wish(number)).await;
            }
        }
    };
    tokio::join!(
        repeat("type", |number| {
            let kind = if number % 2 == 0 { "ClusterIP" } else { "LoadBalancer" };
            json!({ "spec": { "type": kind } })
        }),
        repeat("field", |number| json!({ "spec": { "loadBalancerIP": format!("10.8.0.{}", 100 + number) } })),
        repeat("annotation", |number| {
            json!({ "metadata": { "annotations": { "metallb.io/loadBalancerIPs": format!("10.9.0.{number}") } } })
        }),
        repeat("pool", |number| {
            let pool = if number % 2 == 0 { "b" } else { "a" };
            json!({ "metadata": { "annotations": { "metallb.io/address-pool": pool } } })
        }),
    );
    let begin = Instant::now();
    stage.has("field", "10.8.0.200", PATIENCE, &controller).await;
    stage.has("annotation", "10.9.0.100", PATIENCE, &controller).await;
    let is_settled = stage.referee.until(PATIENCE, |ledger| {
        ledger.ips("type").is_empty() && ledger.ips("pool").iter().any(|ip| ip.to_string().starts_with("10.9."))
    });
    assert!(is_settled.await.is_some(), "{:?}\n{}", stage.referee.ledger().services(), controller.process.output());
    report(ROW, &format!("settled {:?} after the last change", begin.elapsed()));
    // The API server itself clears the status of a Service that is no longer a LoadBalancer; the record is ours.
    let services = stage.scene.services();
    eventually(&controller.process, async || {
        let service = services.get("type").await.unwrap();
        holds(!service.annotations().contains_key(ALLOCATED_FROM), format!("{:?}", service.annotations()))
    })
    .await;
    stage.no_double_holders();
}

const POLICY: &str = "\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-status}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: ['']
        apiVersions: [v1]
        operations: [UPDATE]
        resources: [services/status]
  validations:
    - expression: \"object.metadata.name != 'mov1'\"
      message: this Service stays as it is
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-status}
spec: {policyName: no-status, validationActions: [Deny]}
";
