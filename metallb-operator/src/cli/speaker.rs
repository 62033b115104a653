//! `metallb speaker`: arguments, and the process around [`crate::speaker`].

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::LogArgs;
use crate::cli::options::{AdminArgs, ClusterArgs};
use crate::speaker::{self, SpeakerError};

/// Arguments of `metallb speaker`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  METALLB_NODE_NAME=node-1 metallb speaker --namespace metallb-system")]
pub struct SpeakerArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) announce: AnnounceArgs,
    /// Accepted for compatibility, ignored
    #[arg(long, env = "METALLB_HOST", hide = true)]
    host: Option<String>,
}

/// What `speaker` and `standalone` share: who we are and where we may announce.
#[derive(Clone, Debug, clap::Args)]
pub struct AnnounceArgs {
    /// Name of the node this process runs on, as in its Node object
    #[arg(long, env = "METALLB_NODE_NAME", value_name = "NODE")]
    pub node_name: String,
    /// Announce from nodes labelled node.kubernetes.io/exclude-from-external-load-balancers too
    #[arg(long)]
    pub ignore_exclude_lb: bool,
    /// File with the key announcedInterfacesToExclude, a list of regular expressions
    #[arg(long, default_value = "/etc/metallb/excludel2.yaml", value_name = "FILE")]
    pub exclude_interfaces: PathBuf,
}

impl SpeakerArgs {
    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// What cannot work from the start: no API server configuration, no right to open sockets, an address in use.
    pub fn run(self) -> Result<ExitCode, SpeakerError> {
        self.log.init();
        speaker::run(&self).map(|()| ExitCode::SUCCESS)
    }

    /// Probes of a host-network pod are for this host only, as upstream.
    pub(crate) const PROBE_HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
}
