//! A real kube-apiserver with etcd for one test: on free ports of loopback, in a temporary directory, ended by process
//! id.
//!
//! There is no controller manager, scheduler or kubelet: tests make Nodes and EndpointSlices themselves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::TypeMeta;
use kube::discovery::{self, Scope};
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "control_plane.rs"]
mod control_plane;

use self::control_plane::{Etcd, kubeconfig, kubeconfig_file};

/// Who talks to the API server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Identity {
    /// Member of `system:masters`.
    Admin,
    /// The service account of the shipped controller.
    Controller,
    /// The service account of the shipped speaker.
    Speaker,
}

/// A running API server. Dropping it ends both processes and removes their directory.
#[derive(Debug)]
pub(crate) struct ApiServer {
    address: SocketAddr,
    directory: TempDir,
    assets: PathBuf,
    store: Etcd,
    // Dropped in this order: the server goes before its store.
    server: Process,
    etcd: Process,
}

#[derive(Debug)]
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ApiServer {
    /// Starts; `None`, with a line that says why, where the binaries are absent.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
            println!(
                "SKIPPED {test}: KUBEBUILDER_ASSETS is not set (export KUBEBUILDER_ASSETS=$(scripts/kube-assets.sh))"
            );
            return None;
        };
        if let Some(absent) = ["kube-apiserver", "etcd"].into_iter().find(|name| !assets.join(name).is_file()) {
            println!("SKIPPED {test}: {absent} is not in KUBEBUILDER_ASSETS");
            return None;
        }
        // Between choosing a free port and listening on it another process may take it: then all starts anew.
        // Starting waits for processes, which must not hold up the runtime.
        let starting = move || (0..3).find_map(|_| Self::try_start(&assets));
        tokio::task::spawn_blocking(starting).await.unwrap().or_else(|| panic!("kube-apiserver does not start"))
    }

    fn try_start(assets: &Path) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("metallb-api-").tempdir().unwrap();
        let path = directory.path();
        let store = Etcd { client: free_address(), peer: free_address() };
        let etcd = spawn(path, Command::new(assets.join("etcd")).args(store.arguments(path)));
        let address = free_address();
        let arguments = store.server_arguments(path, address);
        let server = spawn(path, Command::new(assets.join("kube-apiserver")).args(arguments));
        let mut api = Self { address, directory, assets: assets.to_owned(), store, server, etcd };
        api.becomes_ready().then_some(api)
    }

    fn becomes_ready(&mut self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deadline = Instant::now() + Duration::from_secs(90);
        while Instant::now() < deadline {
            let ended = |process: &mut Process| process.0.try_wait().unwrap().is_some();
            if ended(&mut self.server) || ended(&mut self.etcd) {
                break;
            }
            let answer = runtime.block_on(async {
                let request = axum::http::Request::get("/readyz").body(Vec::new()).ok()?;
                self.client(Identity::Admin).await.request_text(request).await.ok()
            });
            if answer.as_deref() == Some("ok") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{}", self.logs());
        false
    }

    /// The last lines that both processes wrote.
    fn logs(&self) -> String {
        ["etcd.log", "kube-apiserver.log"]
            .iter()
            .map(|name| {
                let text = fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
            })
            .collect()
    }

    /// A client that speaks as an identity.
    pub(crate) async fn client(&self, identity: Identity) -> Client {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig(identity)).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A client without credentials, for a proxy.
    pub(crate) fn bare_client(&self) -> Client {
        let mut config = Config::new(format!("https://{}", self.address).parse().unwrap());
        config.accept_invalid_certs = true;
        Client::try_from(config).unwrap()
    }

    /// Ends both processes with this one, where no destructor will: for a server that is kept in a static variable.
    pub(crate) fn end_with_this_process(&self) {
        let pids = [&self.server, &self.etcd].map(|process| process.0.id().to_string());
        let directory = self.directory.path();
        // Its input ends when this process does.
        let script = "trap '' INT TERM; read -r _; kill -KILL \"$2\" \"$3\"; sleep 0.1; rm -rf \"$1\"";
        let keeper =
            Command::new("sh").args(["-c", script, "sh"]).arg(directory).args(pids).stdin(Stdio::piped()).spawn();
        std::mem::forget(keeper.unwrap().stdin);
    }

    /// Copies what etcd has stored, as a crash at this moment would leave it.
    pub(crate) fn snapshot(&self) -> TempDir {
        let copy = tempfile::Builder::new().prefix("metallb-etcd-").tempdir().unwrap();
        self.etcd.signal(Signal::SIGSTOP);
        copy_directory(&self.data(), copy.path());
        self.etcd.signal(Signal::SIGCONT);
        copy
    }

    /// Puts back what etcd had stored at a snapshot. The API server runs on; its connection to etcd breaks for a moment.
    pub(crate) fn restore(&mut self, snapshot: &TempDir) {
        self.etcd.end();
        fs::remove_dir_all(self.data()).unwrap();
        copy_directory(snapshot.path(), &self.data());
        let path = self.directory.path();
        self.etcd = spawn(path, Command::new(self.assets.join("etcd")).args(self.store.arguments(path)));
    }

    /// Kills the API server and starts it again on the same address; returns when it is ready.
    pub(crate) async fn restart_server(&mut self) {
        self.server.end();
        let path = self.directory.path();
        let arguments = self.store.server_arguments(path, self.address);
        self.server = spawn(path, Command::new(self.assets.join("kube-apiserver")).args(arguments));
        let is_ready =
            tokio::task::block_in_place(|| std::thread::scope(|scope| scope.spawn(|| self.becomes_ready()).join()));
        assert!(is_ready.unwrap(), "the API server does not start again");
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("etcd")
    }

    /// The file with the configuration that a process needs to speak as an identity.
    pub(crate) fn kubeconfig_file(&self, identity: Identity) -> PathBuf {
        kubeconfig_file(self.directory.path(), self.address, identity.token())
    }

    fn kubeconfig(&self, identity: Identity) -> Value {
        kubeconfig(self.address, identity.token())
    }

    /// Applies every document of a YAML text as the administrator, server-side, whatever its kind.
    pub(crate) async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>, kube::Error> {
        let client = self.client(Identity::Admin).await;
        let mut applied = Vec::new();
        for document in yaml.split("\n---").filter(|document| document.lines().any(|line| !is_blank(line))) {
            let object: Value = serde_saphyr::from_str(document.trim_start_matches("---")).unwrap();
            applied.push(apply_object(&client, &object).await?);
        }
        Ok(applied)
    }

    /// Installs namespace, definitions and roles as shipped in `deploy/`, and waits until all kinds are served.
    pub(crate) async fn install(&self) {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let mut files = vec![deploy.join("namespace.yaml")];
        for directory in ["crds", "rbac"] {
            let listed = fs::read_dir(deploy.join(directory)).unwrap().map(|entry| entry.unwrap().path());
            files.extend(listed.filter(|file| !file.ends_with("kustomization.yaml")));
        }
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            self.apply(&text).await.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client(Identity::Admin).await);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let listed = definitions.list(&ListParams::default()).await.unwrap();
            let established = |definition| condition(definition, "Established") == Some("True");
            if listed.items.len() == 9 && listed.iter().all(established) {
                return;
            }
            assert!(Instant::now() < deadline, "not all kinds are established within a minute");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes a Node, with its `Ready` condition.
    pub(crate) async fn create_node(&self, name: &str, labels: &BTreeMap<String, String>, ready: bool) {
        let nodes: Api<Node> = Api::all(self.client(Identity::Admin).await);
        let node = json!({ "metadata": { "name": name, "labels": labels } });
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let status = if ready { "True" } else { "False" };
        let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Makes an EndpointSlice of a Service: pairs of address and node, all ready.
    pub(crate) async fn create_endpoints(
        &self,
        namespace: &str,
        service: &str,
        port: u16,
        endpoints: &[(IpAddr, &str)],
    ) {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client(Identity::Admin).await, namespace);
        let ipv4 = endpoints.first().is_none_or(|(address, _)| address.is_ipv4());
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(address, node)| json!({ "addresses": [address], "nodeName": node, "conditions": { "ready": true } }))
            .collect();
        let slice = json!({
            "metadata": { "generateName": format!("{service}-"), "labels": { "kubernetes.io/service-name": service } },
            "addressType": if ipv4 { "IPv4" } else { "IPv6" },
            "ports": [{ "name": "", "port": port, "protocol": "TCP" }],
            "endpoints": endpoints,
        });
        slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    }
}

/// The status of a condition of a definition.
pub(crate) fn condition<'a>(definition: &'a CustomResourceDefinition, kind: &str) -> Option<&'a str> {
    let conditions = definition.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

async fn apply_object(client: &Client, object: &Value) -> Result<DynamicObject, kube::Error> {
    let types = TypeMeta {
        api_version: object["apiVersion"].as_str().unwrap_or_default().to_owned(),
        kind: object["kind"].as_str().unwrap_or_default().to_owned(),
    };
    let kind = GroupVersionKind::try_from(&types).unwrap();
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await?;
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
        Scope::Cluster => Api::all_with(client.clone(), &resource),
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    api.patch(name, &PatchParams::apply("metallb-tests").force(), &Patch::Apply(object)).await
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---"
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn spawn(directory: &Path, command: &mut Command) -> Process {
    let program = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
    let log = File::create(directory.join(format!("{program}.log"))).unwrap();
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
    Process(child.unwrap_or_else(|error| panic!("{program}: {error}")))
}

impl Identity {
    /// Its bearer token.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Controller => "controller",
            Self::Speaker => "speaker",
        }
    }
}
