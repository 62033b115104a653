//! `metallb standalone`: arguments.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::LogArgs;
use crate::cli::options::AdminArgs;
use crate::cli::speaker::AnnounceArgs;
use crate::standalone::{self, StandaloneError};

/// Arguments of `metallb standalone`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb standalone --manifests /etc/metallb/manifests --node-name node-1")]
pub struct StandaloneArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) announce: AnnounceArgs,
    /// Directory of manifests, watched for changes
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: PathBuf,
    /// File that remembers the addresses
    #[arg(long, default_value = "/var/lib/metallb/state.json", value_name = "FILE")]
    pub(crate) state: PathBuf,
    /// Handle only Services of this loadBalancerClass [default: Services without a class]
    #[arg(long, default_value = "", value_name = "CLASS", hide_default_value = true)]
    lb_class: String,
    /// Address of /healthz, /readyz, /metrics and /status
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST, value_name = "IP")]
    pub(crate) probe_host: Ipv4Addr,
}

impl StandaloneArgs {
    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// What cannot work from the start.
    pub fn run(self) -> Result<ExitCode, StandaloneError> {
        self.log.init();
        standalone::run(self).map(|()| ExitCode::SUCCESS)
    }

    pub(crate) fn lb_class(&self) -> Option<&str> {
        Some(self.lb_class.as_str()).filter(|class| !class.is_empty())
    }
}
