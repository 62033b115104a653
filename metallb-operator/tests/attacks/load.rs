//! What 1,000 created Services cost a controller: a measurement, run by `scripts/controller-bench.sh`.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::json;
use tokio::sync::mpsc;

use crate::stage::{Stage, create};

const SERVICES: usize = 1_000;
const CLIENTS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: scripts/controller-bench.sh"]
async fn bench_controller_serves_1000_services() {
    let Some(stage) = Stage::alone("bench_controller").await else { return };
    stage.scene.pool("wide", "10.64.0.0/16", "").await;
    let controller = stage.controller();
    stage.create("warm").await;
    stage.served(&["warm".to_owned()], Duration::from_secs(30), &controller).await;
    let (cpu, writes) = (cpu_of(controller.process.id()), writes(&stage).await);
    let (shown, mut times) = mpsc::channel(SERVICES);
    tokio::spawn(follow(stage.scene.services(), shown));
    let begun = Instant::now();
    let creating: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let services = stage.scene.services();
            tokio::spawn(async move {
                let mut created = HashMap::new();
                for number in (client..SERVICES).step_by(CLIENTS) {
                    let name = format!("load-{number}");
                    created.insert(name.clone(), Instant::now());
                    create(&services, &name, &json!({}), &json!({})).await;
                }
                created
            })
        })
        .collect();
    let mut created = HashMap::new();
    for client in creating {
        created.extend(client.await.unwrap());
    }
    let mut waits = Vec::new();
    while waits.len() < SERVICES {
        let (name, at): (String, Instant) = times.recv().await.unwrap();
        if let Some(since) = created.remove(&name) {
            waits.push(at.saturating_duration_since(since));
        }
    }
    let all = begun.elapsed();
    // Coalesced writes and Events follow.
    tokio::time::sleep(Duration::from_secs(3)).await;
    waits.sort();
    let per = SERVICES as f64;
    println!(
        "REPORT 1,000 Services in {all:?}: create to address p50 {:?} p99 {:?}, controller {:.2} ms CPU and {:.2} writes each",
        waits[SERVICES / 2],
        waits[SERVICES * 99 / 100],
        (cpu_of(controller.process.id()) - cpu).as_secs_f64() * 1e3 / per,
        (self::writes(&stage).await - writes) / per,
    );
}

/// Reports when each Service first shows an address.
async fn follow(services: Api<Service>, shown: mpsc::Sender<(String, Instant)>) {
    let events = services.watch(&WatchParams::default().timeout(290), "0").await.unwrap();
    let mut events = std::pin::pin!(events);
    let mut seen = std::collections::HashSet::new();
    while let Ok(Some(event)) = events.try_next().await {
        let (WatchEvent::Added(service) | WatchEvent::Modified(service)) = event else { continue };
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        if status.is_some_and(|ingress| !ingress.is_empty()) && seen.insert(service.name_any()) {
            let _ = shown.send((service.name_any(), Instant::now())).await;
        }
    }
}

/// User and system time of a process.
fn cpu_of(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    // USER_HZ is 100 on Linux.
    Duration::from_millis(ticks * 10)
}

/// Status writes and Events that the API server took so far.
async fn writes(stage: &Stage) -> f64 {
    let request = axum::http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = stage.scene.client.request_text(request).await.unwrap();
    let is_ours = |line: &&str| {
        let is_write = ["PATCH", "PUT", "POST", "APPLY"].iter().any(|verb| line.contains(&format!("verb=\"{verb}\"")));
        let is_status = line.contains("subresource=\"status\"") || line.contains("resource=\"events\"");
        line.starts_with("apiserver_request_total{") && is_write && is_status
    };
    text.lines().filter(is_ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
