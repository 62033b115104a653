//! `metallb controller`: arguments, and the process around [`crate::controller`].

use std::net::Ipv4Addr;
use std::process::ExitCode;

use crate::cli::LogArgs;
use crate::cli::options::{AdminArgs, ClusterArgs};
use crate::controller::{self, ControllerError};

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
    /// Accepted for compatibility, without effect: speakers do not gossip yet
    #[arg(long, env = "METALLB_ML_SECRET_NAME", hide = true)]
    ml_secret_name: Option<String>,
    /// Accepted for compatibility, without effect
    #[arg(long, env = "METALLB_DEPLOYMENT", hide = true)]
    deployment: Option<String>,
}

impl ControllerArgs {
    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// What cannot work from the start: no API server configuration, an address in use.
    pub fn run(self) -> Result<ExitCode, ControllerError> {
        self.log.init();
        controller::run(&self).map(|()| ExitCode::SUCCESS)
    }

    /// Probes come from the kubelet over the pod network.
    pub(crate) const PROBE_HOST: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
}
