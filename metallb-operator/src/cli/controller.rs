//! `metallb controller`: arguments of [`crate::controller`].

use std::net::Ipv4Addr;

use crate::cli::lease::LeaseArgs;
use crate::cli::options::{AdminArgs, ClusterArgs, LogArgs, UpstreamArgs, UpstreamWebhookArgs};

/// Arguments of `metallb controller`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb controller --namespace metallb-system --log-level debug")]
pub struct ControllerArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) lease: LeaseArgs,
    /// Secret to make for the speakers' gossip, unless it exists; empty makes none
    #[arg(long, env = "METALLB_ML_SECRET_NAME", default_value = "", value_name = "NAME", hide_default_value = true)]
    pub(crate) ml_secret_name: String,
    /// Take an address that a host outside of the cluster uses away from its Service, if there is another, and hand it out to nobody
    /// for ten minutes after the host was last seen
    #[arg(long)]
    pub(crate) quarantine_conflicts: bool,
    /// Accepted for compatibility, without effect
    #[arg(long, env = "METALLB_DEPLOYMENT", hide = true)]
    deployment: Option<String>,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    webhooks: UpstreamWebhookArgs,
}

impl ControllerArgs {
    /// Starts the log, and tells there which flags have no effect.
    pub fn start_log(&self) {
        self.log.init();
        self.upstream.warn();
        self.webhooks.warn();
    }

    /// Probes come from the kubelet over the pod network.
    pub(crate) const PROBE_HOST: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
}
