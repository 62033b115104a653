//! `metallb controller`: arguments of [`crate::controller`].

use std::net::{IpAddr, Ipv6Addr};

use crate::cli::lease::LeaseArgs;
use crate::cli::options::{AdminArgs, ClusterArgs, LogArgs, UpstreamArgs, UpstreamWebhookArgs};
use crate::controller::Settings;

/// Arguments of `metallb controller`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb controller --namespace metallb-system --log-level debug")]
pub struct ControllerArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    lease: LeaseArgs,
    /// Name of the Secret with the membership key; created if missing; empty disables creation
    #[arg(long, env = "METALLB_ML_SECRET_NAME", default_value = "", value_name = "NAME", hide_default_value = true)]
    ml_secret_name: String,
    /// Take an address that a foreign host uses away from its Service if another address is free, and assign it to no
    /// Service until ten minutes after the host was last seen
    #[arg(long)]
    quarantine_conflicts: bool,
    /// Accepted for compatibility, without effect
    #[arg(long, env = "METALLB_DEPLOYMENT", hide = true)]
    deployment: Option<String>,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    webhooks: UpstreamWebhookArgs,
}

impl ControllerArgs {
    /// Starts the log and warns about flags that have no effect.
    pub fn start_log(&self) {
        self.log.init();
        self.upstream.warn();
        self.webhooks.warn();
    }

    /// Converts the arguments to the settings of the controller.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            namespace: self.cluster.namespace(),
            class: self.cluster.lb_class().map(str::to_owned),
            pod: self.cluster.pod_name.clone(),
            pod_uid: self.lease.pod_uid().map(str::to_owned),
            lease: self.lease.timing(),
            duty: self.webhooks.duty(),
            // The kubelet probes over the pod network.
            listen: self.admin.addresses(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).collect(),
            membership_secret: Some(self.ml_secret_name.clone()).filter(|name| !name.is_empty()),
            quarantine_conflicts: self.quarantine_conflicts,
        }
    }
}
