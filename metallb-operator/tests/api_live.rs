//! `plan` and `explain` against a real kube-apiserver: the cluster as it is, and what a change would do to it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that cannot go on ends; the harness says why it skips"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use support::api_server::{ApiServer, Identity};

mod support {
    #[allow(dead_code, reason = "each test takes what it needs")]
    pub(crate) mod api_server;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: scripts/test.sh labs, as root"]
async fn api_plan_and_explain_look_at_the_cluster_as_it_is() {
    let Some(api) = ApiServer::start("api_plan_and_explain_look_at_the_cluster_as_it_is").await else { return };
    api.install().await;
    api.apply(OBJECTS).await.unwrap();
    for name in ["node-a", "node-b"] {
        api.create_node(name, &BTreeMap::new(), true).await;
    }
    api.create_endpoints("default", "web", 80, &[("10.244.0.7".parse().unwrap(), "node-a")]).await;
    let admin = api.kubeconfig_file(Identity::Admin);
    tokio::task::spawn_blocking(move || look(&admin)).await.unwrap();

    // Who may read configuration in its own namespace only, as a speaker, sees the same.
    let speaker = api.kubeconfig_file(Identity::Speaker);
    let output = tokio::task::spawn_blocking(move || metallb(&["plan", "-o", "json"], &speaker)).await.unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(plan["services"].as_array().unwrap().iter().any(|service| service["ips"] == json!(["192.168.10.0"])));
}

fn look(kubeconfig: &Path) {
    let plan = |arguments: &[&str]| {
        let output = metallb(&[&["plan", "-o", "json"], arguments].concat(), kubeconfig);
        let plan: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), plan)
    };
    let (code, now) = plan(&[]);
    assert_eq!(code, 0, "{}", now["problems"]);
    let web = now["services"].as_array().unwrap().iter().find(|service| service["name"] == "web").unwrap().clone();
    assert_eq!(web["ips"], json!(["192.168.10.0"]));
    let owner = web["l2"][0]["node"].as_str().unwrap().to_owned();
    assert_eq!(web["bgp"].as_array().unwrap().len(), 2);
    // The API server has a Service of its own.
    assert!(now["services"].as_array().unwrap().iter().any(|service| service["name"] == "kubernetes"));

    let (code, without) = plan(&["--without-node", &owner]);
    assert_eq!(code, 2);
    let moved = |change: &Value| change["kind"] == "owner-moved" && change["from"] == owner.as_str();
    assert!(without["changes"].as_array().unwrap().iter().any(moved), "{}", without["changes"]);
    let (code, deleted) = plan(&["--delete", "IPAddressPool/metallb-system/demo"]);
    assert_eq!((code, &deleted["changes"][0]["kind"]), (2, &json!("ip-lost")));

    let output = metallb(&["explain", "default/web"], kubeconfig);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("$ metallb explain default/web\n{text}");
    for part in ["default/web has 192.168.10.0 from pool demo", &format!("{owner} answers"), "to peer tor"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let output = metallb(&["explain", "--ip", "192.168.10.0"], kubeconfig);
    assert!(String::from_utf8_lossy(&output.stdout).contains("belongs to default/web"), "{output:?}");
    let output = metallb(&["explain", "default/none"], kubeconfig);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no Service default/none"), "{output:?}");
}

fn metallb(arguments: &[&str], kubeconfig: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metallb")).args(arguments).arg("--kubeconfig").arg(kubeconfig).output().unwrap()
}

const OBJECTS: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: demo, namespace: metallb-system}
spec: {addresses: [192.168.10.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: l2, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: bgp, namespace: metallb-system}
---
apiVersion: v1
kind: Secret
metadata: {name: tor-password, namespace: metallb-system}
type: kubernetes.io/basic-auth
stringData: {username: nobody, password: hunter2}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: tor, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 172.16.0.1, passwordSecret: {name: tor-password}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
";
