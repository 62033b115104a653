//! Flags that `controller` and `speaker` share, with upstream's names, defaults and environment (contract
//! control-plane §8, speaker §0.1).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where the process runs in the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgs {
    /// Namespace of the configuration objects [default: the pod's own namespace]
    #[arg(long, env = "METALLB_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Name of this pod, used as the owner of status objects
    #[arg(long, env = "METALLB_POD_NAME", default_value = "", value_name = "POD", hide_default_value = true)]
    pub pod_name: String,
    /// Handle only Services of this loadBalancerClass [default: Services without a class]
    #[arg(long, default_value = "", value_name = "CLASS", hide_default_value = true)]
    lb_class: String,
}

impl ClusterArgs {
    /// The namespace that holds the configuration: the flag, the environment, the pod's own, in this order.
    #[must_use]
    pub fn namespace(&self) -> String {
        if let Some(namespace) = self.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
            return namespace.to_owned();
        }
        std::fs::read_to_string(SERVICE_ACCOUNT_NAMESPACE)
            .map_or_else(|_| DEFAULT_NAMESPACE.to_owned(), |namespace| namespace.trim().to_owned())
    }

    /// The class whose Services are handled; `None` means Services without a class.
    #[must_use]
    pub fn lb_class(&self) -> Option<&str> {
        Some(self.lb_class.as_str()).filter(|class| !class.is_empty())
    }
}

/// Administrative endpoints.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// Port of /metrics on all addresses; 0 disables it
    #[arg(long, default_value_t = 9120, value_name = "PORT")]
    port: u16,
    /// Port of /healthz, /readyz and /status; 0 disables them
    #[arg(long, default_value_t = 17472, value_name = "PORT")]
    health_probe_port: u16,
}

impl AdminArgs {
    /// Where to serve in a cluster: metrics on all addresses, probes on `host`.
    pub fn addresses(&self, host: Ipv4Addr) -> impl Iterator<Item = SocketAddr> {
        let metrics = (self.port != 0).then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), self.port));
        metrics.into_iter().chain(self.probe_address(host))
    }

    /// Where to serve probes on `host`.
    #[must_use]
    pub fn probe_address(&self, host: Ipv4Addr) -> Option<SocketAddr> {
        (self.health_probe_port != 0).then(|| SocketAddr::new(IpAddr::V4(host), self.health_probe_port))
    }
}

const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
const DEFAULT_NAMESPACE: &str = "metallb-system";
