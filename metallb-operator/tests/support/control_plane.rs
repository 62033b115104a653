//! How etcd and kube-apiserver are started for a test: on loopback, or in a namespace of a lab.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Where etcd listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Etcd {
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Etcd {
    /// Its arguments; it keeps its data under `directory`.
    pub(crate) fn arguments(self, directory: &Path) -> Vec<String> {
        let Self { client, peer } = self;
        vec![
            format!("--data-dir={}", directory.join("etcd").display()),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
            "--unsafe-no-fsync".to_owned(),
        ]
    }

    /// The arguments of a kube-apiserver that listens on `address`. Writes the files that it needs to `directory`.
    pub(crate) fn server_arguments(self, directory: &Path, address: SocketAddr) -> Vec<String> {
        let (key, tokens) = (directory.join("service-account.key"), directory.join("tokens.csv"));
        let made = Command::new("openssl")
            .args(["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out"])
            .arg(&key)
            .output()
            .expect("openssl is needed to make a key for service accounts");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(&tokens, TOKENS).expect("tokens are written");
        vec![
            format!("--etcd-servers=http://{}", self.client),
            format!("--cert-dir={}", directory.join("certificates").display()),
            format!("--bind-address={}", address.ip()),
            format!("--secure-port={}", address.port()),
            format!("--token-auth-file={}", tokens.display()),
            format!("--service-account-signing-key-file={}", key.display()),
            format!("--service-account-key-file={}", key.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]
    }
}

/// The configuration of a client that has one of the [`TOKENS`]; JSON is YAML.
pub(crate) fn kubeconfig(server: SocketAddr, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://{server}"),
            // The server makes its certificate by itself.
            "insecure-skip-tls-verify": true,
        }}],
        "users": [{ "name": "test", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
    })
}

/// The same as a file, written once: a process may be reading it when another one is started.
pub(crate) fn kubeconfig_file(directory: &Path, server: SocketAddr, token: &str) -> PathBuf {
    let path = directory.join(format!("{token}.kubeconfig"));
    if !path.exists() {
        let beside = path.with_extension("new");
        fs::write(&beside, kubeconfig(server, token).to_string()).expect("kubeconfig written");
        fs::rename(beside, &path).expect("it can be renamed");
    }
    path
}

/// `token,user,uid,"group,group"`. The service accounts bear the names that the shipped bindings are for.
const TOKENS: &str = r#"admin,admin,admin,"system:masters"
controller,system:serviceaccount:metallb-system:controller,controller,"system:serviceaccounts,system:serviceaccounts:metallb-system"
speaker,system:serviceaccount:metallb-system:speaker,speaker,"system:serviceaccounts,system:serviceaccounts:metallb-system"
"#;
