//! A real API server with etcd in a namespace of the lab, and kubectl to talk to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

#[path = "control_plane.rs"]
mod control_plane;

use self::control_plane::{Etcd, kubeconfig_file};
use super::netns::{Namespace, Process, eventually};

/// The directory with kube-apiserver, etcd, kube-proxy and kubectl, if there is one.
pub(crate) fn assets() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
    ["kube-apiserver", "etcd", "kubectl", "kube-proxy"]
        .iter()
        .all(|name| directory.join(name).is_file())
        .then_some(directory)
}

/// A running API server.
#[derive(Debug)]
pub(crate) struct KubeApi {
    namespace: Namespace,
    assets: PathBuf,
    directory: tempfile::TempDir,
    address: SocketAddr,
    processes: Vec<Process>,
}

impl KubeApi {
    /// Starts etcd and kube-apiserver in `namespace`, listening on `address`, and waits until it is ready.
    pub(crate) fn start(namespace: &Namespace, address: &str, assets: PathBuf) -> Self {
        let directory = tempfile::Builder::new().prefix("mlb-kube-").tempdir().expect("temporary directory");
        let address = SocketAddr::new(address.parse().expect("an address"), 6443);
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let etcd = Etcd { client: local(2379), peer: local(2380) };
        let start = |program: &str, arguments: Vec<String>| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            namespace.spawn(&directory.path().join(format!("{program}.log")), assets.join(program), &arguments)
        };
        let processes = vec![
            start("etcd", etcd.arguments(directory.path())),
            start("kube-apiserver", etcd.server_arguments(directory.path(), address)),
        ];
        let api = Self { namespace: namespace.clone(), assets, directory, address, processes };
        eventually("the API server is ready", Duration::from_secs(60), || {
            api.kubectl(&["get", "--raw", "/readyz"], None)
        });
        api
    }

    /// Kills the API server and etcd, for good.
    pub(crate) fn stop(&self) {
        self.processes.iter().for_each(|process| process.signal(Signal::SIGKILL));
        eventually("the API server is gone", Duration::from_secs(30), || {
            match self.kubectl(&["get", "--raw", "/readyz"], None) {
                Ok(answer) => Err(answer),
                Err(_) => Ok(()),
            }
        });
    }

    /// Writes a kubeconfig for `admin`, `controller` or `speaker`.
    pub(crate) fn kubeconfig(&self, identity: &str) -> PathBuf {
        kubeconfig_file(self.directory.path(), self.address, identity)
    }

    /// Runs kubectl as admin; `input` goes to its standard input. The error is what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String, String> {
        let mut command = self.namespace.command(self.assets.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig("admin")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes()).expect("kubectl reads");
        drop(stdin);
        let output = child.wait_with_output().expect("kubectl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Applies YAML, which must succeed.
    pub(crate) fn apply(&self, yaml: &str) {
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], Some(yaml)).expect("kubectl apply");
    }
}
