//! A real API server with etcd in a namespace of the lab, and kubectl to talk to it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

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
    address: String,
    processes: Vec<Process>,
}

impl KubeApi {
    /// Starts etcd and kube-apiserver in `namespace`, listening on `address`, and waits until it is ready.
    pub(crate) fn start(namespace: &Namespace, address: &str, assets: PathBuf) -> Self {
        let directory = tempfile::Builder::new().prefix("mlb-kube-").tempdir().expect("temporary directory");
        let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
        let accounts = "system:serviceaccount:metallb-system";
        std::fs::write(
            path("tokens"),
            format!("admin,admin,1,system:masters\ncontroller,{accounts}:controller,2\nspeaker,{accounts}:speaker,3\n"),
        )
        .expect("tokens written");
        namespace.must(&format!("openssl genrsa -out {} 2048 2>/dev/null", path("sa.key")));
        let etcd = namespace.spawn(
            directory.path().join("etcd.log").as_path(),
            assets.join("etcd"),
            &[
                "--data-dir",
                &path("etcd"),
                "--unsafe-no-fsync",
                "--listen-client-urls",
                "http://127.0.0.1:2379",
                "--advertise-client-urls",
                "http://127.0.0.1:2379",
                "--listen-peer-urls",
                "http://127.0.0.1:2380",
                "--initial-advertise-peer-urls",
                "http://127.0.0.1:2380",
                "--initial-cluster",
                "default=http://127.0.0.1:2380",
            ],
        );
        let server = namespace.spawn(
            directory.path().join("kube-apiserver.log").as_path(),
            assets.join("kube-apiserver"),
            &[
                "--etcd-servers=http://127.0.0.1:2379",
                &format!("--cert-dir={}", path("certs")),
                &format!("--bind-address={address}"),
                "--secure-port=6443",
                &format!("--token-auth-file={}", path("tokens")),
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://lab",
                &format!("--service-account-signing-key-file={}", path("sa.key")),
                &format!("--service-account-key-file={}", path("sa.key")),
                "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
                "--disable-admission-plugins=ServiceAccount",
                "--allow-privileged=true",
            ],
        );
        let api = Self {
            namespace: namespace.clone(),
            assets,
            directory,
            address: address.to_owned(),
            processes: vec![etcd, server],
        };
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
        let path = self.directory.path().join(format!("{identity}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters: [{{name: lab, cluster: {{server: 'https://{}:6443', insecure-skip-tls-verify: true}}}}]\nusers: [{{name: lab, user: {{token: {identity}}}}}]\ncontexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n",
            self.address
        );
        std::fs::write(&path, text).expect("kubeconfig written");
        path
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
