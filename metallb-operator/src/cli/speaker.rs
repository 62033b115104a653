//! `metallb speaker`: arguments of [`crate::speaker`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use metallb_membership::driver as membership;

use crate::cli::options::{AdminArgs, ClusterArgs, LogArgs, UpstreamArgs, UpstreamFrrArgs, boolean, exclude_label};
use crate::process::{AnnounceSettings, ProcessError};
use crate::speaker::Settings;

/// Arguments of `metallb speaker`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  METALLB_NODE_NAME=node-1 metallb speaker --namespace metallb-system")]
pub struct SpeakerArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    announce: AnnounceArgs,
    #[command(flatten)]
    membership: MembershipArgs,
    /// Label selector of the speaker pods; membership is off without it
    #[arg(
        long,
        env = "METALLB_ML_LABELS",
        default_value = "",
        value_name = "SELECTOR",
        hide_default_value = true,
        help_heading = "Membership"
    )]
    ml_labels: String,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    frr: UpstreamFrrArgs,
}

/// Membership among speakers: gossip that detects failed nodes. It is on if a bind address is given.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Membership")]
pub struct MembershipArgs {
    /// Address for gossip, reachable from the other speakers; membership is off without it
    #[arg(long, env = "METALLB_ML_BIND_ADDR", default_value = "", value_name = "IP", hide_default_value = true)]
    ml_bindaddr: String,
    /// UDP port for gossip, the same on all nodes
    #[arg(long, env = "METALLB_ML_BIND_PORT", default_value = "7946", value_name = "PORT", value_parser = port)]
    ml_bindport: u16,
    /// Directory with the file secretkey, the shared key; without it gossip is not encrypted
    #[arg(long, env = "METALLB_ML_SECRET_KEY_PATH", default_value = "", value_name = "DIR", hide_default_value = true)]
    ml_secret_key_path: String,
    /// Use slower timers, for long distances between nodes
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOL",
        value_parser = boolean,
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    ml_wan_config: bool,
}

impl MembershipArgs {
    /// Settings of the membership driver; `None` if membership is off.
    ///
    /// # Errors
    /// The bind address is not an IP address.
    fn settings(&self, node: &str) -> Result<Option<membership::Settings>, std::net::AddrParseError> {
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

/// An empty variable counts as unset, as in upstream.
fn port(text: &str) -> Result<u16, std::num::ParseIntError> {
    if text.is_empty() { Ok(DEFAULT_PORT) } else { text.parse() }
}

/// Upstream's port.
const DEFAULT_PORT: u16 = 7946;

/// Arguments that `speaker` and `standalone` share.
#[derive(Clone, Debug, clap::Args)]
pub struct AnnounceArgs {
    /// Name of this node, as in its Node object; required
    #[arg(long, env = "METALLB_NODE_NAME", default_value = "", value_name = "NODE", hide_default_value = true)]
    node_name: String,
    /// Also announce from nodes labelled node.kubernetes.io/exclude-from-external-load-balancers
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        value_name = "BOOL",
        value_parser = boolean,
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    ignore_exclude_lb: bool,
    /// Before the first L2 announcement of an address, probe whether another host uses it; takes up to 0.7 s
    #[arg(long)]
    probe_before_announce: bool,
    /// Address on which to accept connections of BGP peers; ports below 1024 need CAP_NET_BIND_SERVICE [default:
    /// connections are only opened by the speaker]
    #[arg(long, env = "METALLB_ML_BGP_LISTEN", value_name = "ADDR:PORT", value_parser = listen)]
    ml_bgp_listen: Option<Listen>,
    /// Time on shutdown between lowering the preference of all routes and closing the BGP sessions; 0 closes at once
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
    exclude_interfaces: PathBuf,
}

/// Address on which to accept BGP peers; `None` if the variable is empty.
type Listen = Option<SocketAddr>;

impl AnnounceArgs {
    /// Converts the arguments to settings, for Services of a class.
    ///
    /// # Errors
    /// [`ProcessError::NodeName`], [`ProcessError::BindAddress`]
    pub(crate) fn settings(
        &self,
        class: Option<&str>,
        membership: &MembershipArgs,
    ) -> Result<AnnounceSettings, ProcessError> {
        if self.node_name.is_empty() {
            return Err(ProcessError::NodeName);
        }
        Ok(AnnounceSettings {
            node: self.node_name.clone(),
            class: class.map(str::to_owned),
            exclude_label: exclude_label(self.ignore_exclude_lb),
            probe: self.probe_before_announce,
            exclude_interfaces: self.exclude_interfaces.clone(),
            bgp_listen: self.ml_bgp_listen.flatten(),
            drain_time: Duration::from_millis(self.ml_bgp_drain_time),
            membership: membership.settings(&self.node_name)?,
        })
    }
}

fn listen(text: &str) -> Result<Listen, std::net::AddrParseError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

impl SpeakerArgs {
    /// Starts the log and warns about flags that have no effect.
    pub fn start_log(&self) {
        self.log.init();
        self.upstream.warn();
        self.frr.warn();
    }

    /// Converts the arguments to the settings of the speaker.
    ///
    /// # Errors
    /// [`ProcessError::NodeName`], [`ProcessError::BindAddress`]
    pub fn settings(&self) -> Result<Settings, ProcessError> {
        let mut announce = self.announce.settings(self.cluster.lb_class(), &self.membership)?;
        // Without a selector there is no pod to join.
        announce.membership = announce.membership.filter(|_| !self.ml_labels.is_empty());
        Ok(Settings {
            namespace: self.cluster.namespace(),
            pod: self.cluster.pod_name.clone(),
            // Probes of a host-network pod listen on loopback only, as upstream's.
            listen: self.admin.addresses(IpAddr::V4(Ipv4Addr::LOCALHOST)).collect(),
            announce,
            members: self.ml_labels.clone(),
        })
    }
}
