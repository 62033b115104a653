//! `metallb standalone`: arguments of [`crate::standalone`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::cli::options::{AdminArgs, LogArgs};
use crate::cli::speaker::{AnnounceArgs, MembershipArgs};

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
    #[command(flatten)]
    pub(crate) membership: MembershipArgs,
    /// Addresses of the other nodes, each with a port unless it is --ml-bindport [default: each InternalIP of a Node]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = contact, help_heading = "Membership")]
    pub(crate) join: Vec<(IpAddr, Option<u16>)>,
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
    /// Starts the log.
    pub fn start_log(&self) {
        self.log.init();
    }

    /// Where other members may be, when we are at `bind`: as the command line says, or else where the nodes are.
    pub(crate) fn contacts(&self, bind: SocketAddr, nodes: impl Iterator<Item = IpAddr>) -> Vec<SocketAddr> {
        let port = bind.port();
        if !self.join.is_empty() {
            return self.join.iter().map(|&(ip, own)| SocketAddr::new(ip, own.unwrap_or(port))).collect();
        }
        nodes.filter(|ip| ip.is_ipv4() == bind.is_ipv4()).map(|ip| SocketAddr::new(ip, port)).collect()
    }

    pub(crate) fn lb_class(&self) -> Option<&str> {
        Some(self.lb_class.as_str()).filter(|class| !class.is_empty())
    }
}

/// An address, with or without a port.
fn contact(text: &str) -> Result<(IpAddr, Option<u16>), std::net::AddrParseError> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok((ip, None)),
        Err(_) => text.parse::<SocketAddr>().map(|address| (address.ip(), Some(address.port()))),
    }
}
