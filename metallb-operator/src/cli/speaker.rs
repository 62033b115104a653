//! `metallb speaker`: arguments of [`crate::speaker`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use metallb_core::model::ExcludeLabel;
use metallb_membership::driver as membership;

use crate::cli::options::{AdminArgs, ClusterArgs, LogArgs, UpstreamArgs, UpstreamFrrArgs, exclude_label};

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
    #[command(flatten)]
    pub(crate) membership: MembershipArgs,
    /// Labels of the speaker pods, as a label selector; membership is off without it
    #[arg(
        long,
        env = "METALLB_ML_LABELS",
        default_value = "",
        value_name = "SELECTOR",
        hide_default_value = true,
        help_heading = "Membership"
    )]
    pub(crate) ml_labels: String,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    frr: UpstreamFrrArgs,
}

/// How speakers find out who of them lives: by gossip, where an address to listen on is given.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Membership")]
pub struct MembershipArgs {
    /// Address to gossip on, where the other speakers reach this one; membership is off without it
    #[arg(long, env = "METALLB_ML_BIND_ADDR", default_value = "", value_name = "IP", hide_default_value = true)]
    ml_bindaddr: String,
    /// UDP port to gossip on, the same on all nodes
    #[arg(long, env = "METALLB_ML_BIND_PORT", default_value = "7946", value_name = "PORT", value_parser = port)]
    ml_bindport: u16,
    /// Directory with the file secretkey, the key of the cluster; without it members talk in plain text
    #[arg(long, env = "METALLB_ML_SECRET_KEY_PATH", default_value = "", value_name = "DIR", hide_default_value = true)]
    ml_secret_key_path: String,
    /// Gossip for long distances between nodes: slower
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    ml_wan_config: bool,
}

impl MembershipArgs {
    /// Settings of the membership driver; `None` where membership is off.
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn settings(&self, node: &str) -> Result<Option<membership::Settings>, std::net::AddrParseError> {
        if self.ml_bindaddr.is_empty() {
            return Ok(None);
        }
        let address: IpAddr = self.ml_bindaddr.parse()?;
        let keys = Some(PathBuf::from(&self.ml_secret_key_path)).filter(|path| !path.as_os_str().is_empty());
        Ok(Some(membership::Settings {
            node: node.into(),
            bind: SocketAddr::new(address, self.ml_bindport),
            keys,
            wan: self.ml_wan_config,
        }))
    }
}

/// An empty variable counts as none, as upstream.
fn port(text: &str) -> Result<u16, std::num::ParseIntError> {
    if text.is_empty() { Ok(DEFAULT_PORT) } else { text.parse() }
}

/// The port of upstream.
const DEFAULT_PORT: u16 = 7946;

/// What `speaker` and `standalone` share: who we are and where we may announce.
#[derive(Clone, Debug, clap::Args)]
pub struct AnnounceArgs {
    /// Name of the node this process runs on, as in its Node object
    #[arg(long, env = "METALLB_NODE_NAME", value_name = "NODE")]
    pub node_name: String,
    /// Announce from nodes labelled node.kubernetes.io/exclude-from-external-load-balancers too
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, action = clap::ArgAction::Set)]
    pub ignore_exclude_lb: bool,
    /// Before an address that is new to the cluster is announced on L2, find out whether another host has it; takes up to 0.7 s
    #[arg(long)]
    pub probe_before_announce: bool,
    /// Let BGP peers connect to this address, too; ports below 1024 need CAP_NET_BIND_SERVICE [default: only this side connects]
    #[arg(long, env = "METALLB_ML_BGP_LISTEN", value_name = "ADDR:PORT", value_parser = listen)]
    ml_bgp_listen: Option<Listen>,
    /// How long peers that will drop the routes may move traffic away before a stopping process closes their sessions; 0 closes at once
    #[arg(
        long,
        env = "METALLB_ML_BGP_DRAIN_TIME",
        default_value_t = 500,
        value_name = "MILLISECONDS",
        value_parser = clap::value_parser!(u64).range(0..=60_000)
    )]
    ml_bgp_drain_time: u64,
    /// File with the key announcedInterfacesToExclude, a list of regular expressions
    #[arg(long, default_value = "/etc/metallb/excludel2.yaml", value_name = "FILE")]
    pub exclude_interfaces: PathBuf,
}

/// Where peers may connect; `None` where the variable is empty.
type Listen = Option<SocketAddr>;

impl AnnounceArgs {
    /// How long peers may take to move traffic away.
    pub(crate) const fn drain_time(&self) -> Duration {
        Duration::from_millis(self.ml_bgp_drain_time)
    }

    /// Whether nodes with the exclude label take part.
    pub(crate) const fn exclude_label(&self) -> ExcludeLabel {
        exclude_label(self.ignore_exclude_lb)
    }

    /// Where peers may connect.
    pub(crate) fn bgp_listen(&self) -> Option<SocketAddr> {
        self.ml_bgp_listen.flatten()
    }
}

fn listen(text: &str) -> Result<Listen, std::net::AddrParseError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

impl SpeakerArgs {
    /// Starts the log, and tells there which flags have no effect.
    pub fn start_log(&self) {
        self.log.init();
        self.upstream.warn();
        self.frr.warn();
    }

    /// Probes of a host-network pod are for this host only, as upstream.
    pub(crate) const PROBE_HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
}
