//! What all attacks use: a scene, its referee, controllers with the identity of a Pod, and quick writes of Services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::api_server::Identity;
use crate::support::lease_log::LeaseLog;
use crate::support::proxy::{Proxy, Reply};
use crate::support::referee::{Double, Referee};
use crate::support::scene::{Controller, PATIENCE, Scene};

/// A scene under observation.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) referee: Referee,
    pub(crate) lease: LeaseLog,
}

/// A controller in its Pod.
pub(crate) struct Member {
    pub(crate) pod: Pod,
    pub(crate) process: Controller,
}

/// The identity of a Pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    name: String,
    uid: String,
}

// === impl Stage ===

impl Stage {
    /// On the shared API server.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        Some(Self::observe(Scene::shared(test).await?).await)
    }

    /// On an API server of its own.
    pub(crate) async fn alone(test: &str) -> Option<Self> {
        Some(Self::observe(Scene::start(test).await?).await)
    }

    async fn observe(scene: Scene) -> Self {
        let referee = Referee::start(scene.client.clone()).await;
        let lease = LeaseLog::start(scene.client.clone());
        Self { scene, referee, lease }
    }

    pub(crate) async fn proxy(&self) -> Proxy {
        Proxy::start(self.scene.api.bare_client()).await
    }

    /// Starts a controller in a Pod of its own.
    pub(crate) fn controller(&self) -> Member {
        self.controller_in(Pod::new(), |_| {})
    }

    /// Starts a controller that reaches the API server through a proxy only.
    pub(crate) fn controller_through(&self, proxy: &Proxy) -> Member {
        let config = proxy.kubeconfig_file(self.scene.directory.path(), Identity::Controller.token());
        self.controller_in(Pod::new(), |command| {
            command.env("KUBECONFIG", config);
        })
    }

    /// Starts a controller in this Pod.
    pub(crate) fn controller_in(&self, pod: Pod, configure: impl FnOnce(&mut Command)) -> Member {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", pod.name, STARTED.fetch_add(1, Ordering::Relaxed));
        let process = self.scene.launch(&name, |command| {
            command.env("METALLB_POD_NAME", &pod.name).env("METALLB_POD_UID", &pod.uid);
            configure(command);
        });
        Member { pod, process }
    }

    /// Waits until this controller holds the Lease.
    pub(crate) async fn leads(&self, member: &Member) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !member.pod.is_named_in(&self.lease.holder()) {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?} does not lead\n{}",
                member.pod,
                member.process.output()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Creates a Service that wants an address of any pool.
    pub(crate) async fn create(&self, name: &str) {
        self.create_with(name, &json!({}), &json!({})).await;
    }

    /// Creates a Service with annotations and more or other fields of its spec.
    pub(crate) async fn create_with(&self, name: &str, annotations: &Value, spec: &Value) {
        create(&self.scene.services(), name, annotations, spec).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.scene.services().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Changes annotations as a user does.
    pub(crate) async fn annotate(&self, name: &str, annotations: Value) {
        self.change(name, json!({ "metadata": { "annotations": annotations } })).await;
    }

    /// Changes a Service as a user does.
    pub(crate) async fn change(&self, name: &str, patch: Value) {
        let services = self.scene.services();
        services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Writes an address into a status as another actor would.
    pub(crate) async fn forge(&self, name: &str, ip: &str, pool: &str) {
        let patch = json!({
            "metadata": { "annotations": { ALLOCATED_FROM: pool } },
            "status": { "loadBalancer": { "ingress": [{ "ip": ip }] } },
        });
        let services = self.scene.services();
        services.patch_status(name, &PatchParams::apply("forger"), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until all Services with these names have addresses.
    pub(crate) async fn served(&self, names: &[String], patience: Duration, member: &Member) -> Duration {
        let mut waiting: Vec<&String> = Vec::new();
        let reached = self.referee.until(patience, |ledger| {
            waiting = names.iter().filter(|name| ledger.ips(name).is_empty()).collect();
            waiting.is_empty()
        });
        let reached = reached.await;
        reached.unwrap_or_else(|| panic!("{waiting:?} have no address\n{}", member.process.output()))
    }

    /// Waits until a Service has exactly this address.
    pub(crate) async fn has(&self, name: &str, ip: &str, patience: Duration, member: &Member) -> Duration {
        let expected = addresses([ip]);
        let reached = self.referee.until(patience, |ledger| ledger.ips(name) == expected).await;
        reached.unwrap_or_else(|| {
            let found = self.referee.ledger().ips(name);
            panic!("{name} has {found:?} and not {ip}\n{}", member.process.output())
        })
    }

    /// Asserts that no address stood on two Services that may not share it, not for a moment.
    pub(crate) fn no_double_holders(&self) {
        let ledger = self.referee.ledger();
        let longest = ledger.doubles().iter().map(Double::lasted).max();
        let count = ledger.doubles().len();
        assert!(
            ledger.doubles().is_empty(),
            "{count} double holders, longest {longest:?}: {:?}",
            ledger.doubles().first()
        );
    }

    /// Asserts that no Service lost or changed an address.
    pub(crate) fn nothing_moved(&self) {
        let ledger = self.referee.ledger();
        assert!(
            ledger.moves().is_empty(),
            "{} established addresses changed: {:?}",
            ledger.moves().len(),
            ledger.moves()
        );
    }
}

// === impl Pod ===

impl Pod {
    /// A Pod that there never was.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Process ids keep apart runs that share a network namespace.
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id());
        Self { name: format!("metallb-controller-{number:03}"), uid }
    }

    /// Whether the identity in a Lease is of a controller in this Pod.
    pub(crate) fn is_named_in(&self, holder: &str) -> bool {
        holder.contains(&self.name) || holder.contains(&self.uid)
    }
}

pub(crate) async fn create(services: &Api<Service>, name: &str, annotations: &Value, spec: &Value) {
    let mut service = json!({
        "metadata": { "name": name, "annotations": annotations },
        "spec": { "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{ "port": 80 }] },
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
}

pub(crate) fn addresses<const N: usize>(ips: [&str; N]) -> BTreeSet<IpAddr> {
    ips.iter().map(|ip| ip.parse().unwrap()).collect()
}

/// `NAME-0`, `NAME-1`, …
pub(crate) fn names(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

/// Tells a figure of a row.
pub(crate) fn report(row: &str, text: &str) {
    println!("REPORT {row}: {text}");
}

/// The annotation in which the controller records the pool.
pub(crate) const ALLOCATED_FROM: &str = "metallb.io/ip-allocated-from-pool";

/// What a watch delivers when the versions after the one that it asks for are no longer there.
pub(crate) fn expired() -> Reply {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410 });
    let event = json!({ "type": "ERROR", "object": status });
    Reply::Fixed(StatusCode::OK, format!("{event}\n").into())
}
