//! Addresses of the speaker Pods, the seed nodes of membership.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use metallb_membership::driver::Handle;

/// Lists the speaker Pods periodically.
pub(super) struct SeedNodes {
    pods: Api<Pod>,
    labels: String,
    members: Handle,
    port: u16,
}

impl SeedNodes {
    pub(super) fn new(client: Client, namespace: &str, labels: &str, members: Handle, port: u16) -> Self {
        Self { pods: Api::namespaced(client, namespace), labels: labels.to_owned(), members, port }
    }

    /// Never ends. While the API server is unreachable, the known addresses stay in use. If it is unreachable at the
    /// start, this node does not join and announces nothing on L2, since other nodes may.
    pub(super) async fn run(self) {
        let mut known = Vec::new();
        let mut joined = false;
        loop {
            let parameters = ListParams::default().labels(&self.labels);
            let pause = match self.pods.list(&parameters).await {
                Ok(pods) => {
                    let addresses = pods.items.into_iter().filter_map(|pod| pod.status?.pod_ip?.parse::<IpAddr>().ok());
                    let mut seed_nodes: Vec<SocketAddr> = addresses.map(|ip| SocketAddr::new(ip, self.port)).collect();
                    seed_nodes.sort();
                    if !joined || seed_nodes != known {
                        self.members.join(seed_nodes.clone());
                        (known, joined) = (seed_nodes, true);
                    }
                    PERIOD
                }
                Err(error) => {
                    tracing::warn!(
                        %error, event = "podsUnknown",
                        "cannot list the speaker Pods, the known ones stay in use"
                    );
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// New speakers contact the existing ones themselves, so this only repairs missed contacts.
const PERIOD: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);
