//! A cluster without nodes, the controllers that run in it as processes, and waiting for what they write.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt as _};
use metallb_operator::api::IpAddressPool;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Mutex, MutexGuard};

use super::api_server::{ApiServer, Identity};

/// Tries until it holds; at the end of all patience tells what was wrong last, and what the controller said.
pub(crate) async fn eventually(controller: &Controller, mut probe: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(evidence) = probe().await {
        assert!(Instant::now() < deadline, "{evidence}\n{}", controller.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn holds(condition: bool, evidence: String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(evidence) }
}

/// A cluster without nodes, and controllers that run in it.
pub(crate) struct Scene {
    pub(crate) api: Server,
    pub(crate) client: Client,
    pub(crate) directory: tempfile::TempDir,
}

/// The API server of a scene.
pub(crate) enum Server {
    Own(ApiServer),
    Shared(MutexGuard<'static, Option<ApiServer>>),
}

/// One controller process, ended when dropped.
pub(crate) struct Controller {
    child: Child,
    log: PathBuf,
}

// === impl Scene ===

impl Scene {
    /// With an API server of its own.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        let api = ApiServer::start(test).await?;
        api.install().await;
        Some(Self::new(Server::Own(api)).await)
    }

    /// On the API server that all tests of this process share, one after the other; nothing of the one before is left.
    pub(crate) async fn shared(test: &str) -> Option<Self> {
        let mut shared = SHARED.lock().await;
        if shared.is_none() {
            let api = ApiServer::start(test).await?;
            api.install().await;
            api.end_with_this_process();
            *shared = Some(api);
        }
        let scene = Self::new(Server::Shared(shared)).await;
        scene.clear().await;
        Some(scene)
    }

    async fn new(api: Server) -> Self {
        let client = api.client(Identity::Admin).await;
        Self { api, client, directory: tempfile::tempdir().unwrap() }
    }

    /// Removes admission policies.
    pub(crate) async fn remove_policies(&self) {
        let (all, delete) = (ListParams::default(), DeleteParams::default());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        bindings.delete_collection(&delete, &all).await.unwrap();
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        policies.delete_collection(&delete, &all).await.unwrap();
    }

    /// Removes admission policies, Services, Events, pools and the Lease.
    async fn clear(&self) {
        self.remove_policies().await;
        let (all, delete) = (ListParams::default(), DeleteParams::default());
        self.services().delete_collection(&delete, &all).await.unwrap();
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        events.delete_collection(&delete, &all).await.unwrap();
        let pools: Api<IpAddressPool> = Api::namespaced(self.client.clone(), "metallb-system");
        pools.delete_collection(&delete, &all).await.unwrap();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "metallb-system");
        leases.delete_collection(&delete, &all).await.unwrap();
    }

    pub(crate) fn controller(&self, name: &str) -> Controller {
        self.controller_with(name, &[])
    }

    pub(crate) fn controller_with(&self, name: &str, more: &[&str]) -> Controller {
        self.launch(name, |command| {
            command.args(more);
        })
    }

    /// Starts a controller with more arguments or another environment.
    pub(crate) fn launch(&self, name: &str, configure: impl FnOnce(&mut Command)) -> Controller {
        let log = self.directory.path().join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        // Another build to compare with, for measurements.
        let program = std::env::var("METALLB_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_metallb").to_owned());
        let mut command = Command::new(program);
        command
            .args(["controller", "--namespace", "metallb-system", "--port", "0", "--health-probe-port", "0"])
            .env("KUBECONFIG", self.api.kubeconfig_file(Identity::Controller))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        configure(&mut command);
        Controller { child: command.spawn().unwrap(), log }
    }

    pub(crate) async fn pool(&self, name: &str, addresses: &str, more: &str) {
        self.api
            .apply(&format!(
                "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
                 metadata: {{name: {name}, namespace: metallb-system}}\nspec: {{addresses: [{addresses}]{more}}}\n"
            ))
            .await
            .unwrap();
    }

    pub(crate) async fn service(&self, name: &str, annotations: &str, spec: &str) {
        self.api
            .apply(&format!(
                "apiVersion: v1\nkind: Service\n\
                 metadata: {{name: {name}, namespace: default, annotations: {{{annotations}}}}}\n\
                 spec: {{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{{port: 80}}]{spec}}}\n"
            ))
            .await
            .unwrap();
    }

    pub(crate) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// The addresses of every Service, by name.
    pub(crate) async fn addresses(&self) -> BTreeMap<String, Vec<String>> {
        let listed = self.services().list(&ListParams::default()).await.unwrap();
        let of = |service: &Service| ips(service).map(str::to_owned).collect();
        listed
            .iter()
            .filter(|service| service.name_any() != "kubernetes")
            .map(|service| (service.name_any(), of(service)))
            .collect()
    }

    /// `reason message` of every Event about an object.
    pub(crate) async fn events(&self, namespace: &str, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let listed = events.list(&about).await.unwrap();
        let text = |event: Event| format!("{} {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        listed.into_iter().map(text).collect()
    }

    /// Waits until the addresses of the named Services are the given ones.
    pub(crate) async fn settles(&self, expected: &[(&str, &[&str])], controller: &Controller) {
        eventually(controller, async || {
            let found = self.addresses().await;
            let wrong: Vec<_> =
                expected.iter().filter(|(name, ips)| found.get(*name).is_none_or(|found| found != ips)).collect();
            holds(wrong.is_empty(), format!("{wrong:?} are not as expected in {found:?}"))
        })
        .await;
    }

    pub(crate) async fn is_told(&self, namespace: &str, name: &str, text: &str, controller: &Controller) {
        eventually(controller, async || {
            let events = self.events(namespace, name).await;
            holds(events.iter().any(|event| event.contains(text)), format!("{name}: no {text:?} in {events:?}"))
        })
        .await;
    }
}

impl Deref for Server {
    type Target = ApiServer;

    fn deref(&self) -> &ApiServer {
        match self {
            Self::Own(api) => api,
            Self::Shared(api) => api.as_ref().unwrap(),
        }
    }
}

// === impl Controller ===

impl Controller {
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, and waits for the end.
    pub(crate) fn end(&mut self, signal: Signal) {
        self.signal(signal);
        let status = self.child.wait().unwrap();
        assert!(signal == Signal::SIGKILL || status.success(), "{status}\n{}", self.output());
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ips(service: &Service) -> impl Iterator<Item = &str> {
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref()).flatten();
    ingress.filter_map(|ingress| ingress.ip.as_deref())
}

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static SHARED: Mutex<Option<ApiServer>> = Mutex::const_new(None);
