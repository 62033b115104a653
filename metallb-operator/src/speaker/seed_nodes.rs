//! Where the other speakers are: the addresses of their pods.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use metallb_membership::driver::Handle;

/// Looks for speaker pods again and again.
pub(super) struct Contacts {
    pods: Api<Pod>,
    labels: String,
    members: Handle,
    port: u16,
}

impl Contacts {
    pub(super) fn new(client: Client, namespace: &str, labels: &str, members: Handle, port: u16) -> Self {
        Self { pods: Api::namespaced(client, namespace), labels: labels.to_owned(), members, port }
    }

    /// Never ends. While the API server is away, the addresses known stay in force; should it be away at the start, this node does
    /// not enter the cluster and announces nothing on L2, since others may.
    pub(super) async fn run(self) {
        let mut known = Vec::new();
        let mut joined = false;
        loop {
            let parameters = ListParams::default().labels(&self.labels);
            let pause = match self.pods.list(&parameters).await {
                Ok(pods) => {
                    let addresses = pods.items.into_iter().filter_map(|pod| pod.status?.pod_ip?.parse::<IpAddr>().ok());
                    let mut contacts: Vec<SocketAddr> = addresses.map(|ip| SocketAddr::new(ip, self.port)).collect();
                    contacts.sort();
                    if !joined || contacts != known {
                        self.members.join(contacts.clone());
                        (known, joined) = (contacts, true);
                    }
                    PERIOD
                }
                Err(error) => {
                    tracing::warn!(%error, event = "podsUnknown", "speaker pods can't be listed, those known are kept");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// New speakers find the old ones by themselves, so this only mends what went wrong.
const PERIOD: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);
