//! `metallb standalone`: arguments of [`crate::standalone`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::cli::options::{AdminArgs, LogArgs};
use crate::cli::speaker::{AnnounceArgs, MembershipArgs};
use crate::process::ProcessError;
use crate::standalone::Settings;

/// Arguments of `metallb standalone`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb standalone --manifests /etc/metallb/manifests --node-name node-1")]
pub struct StandaloneArgs {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    announce: AnnounceArgs,
    #[command(flatten)]
    membership: MembershipArgs,
    /// Addresses of the other nodes, with a port unless it is --ml-bindport [default: the InternalIPs of the Nodes]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = contact, help_heading = "Membership")]
    join: Vec<(IpAddr, Option<u16>)>,
    /// Directory of manifests; changes are applied
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// File that stores the assigned addresses
    #[arg(long, default_value = "/var/lib/metallb/state.json", value_name = "FILE")]
    state: PathBuf,
    /// Serve only Services of this loadBalancerClass [default: Services without a class]
    #[arg(long, default_value = "", value_name = "CLASS", hide_default_value = true)]
    lb_class: String,
    /// Address of /healthz, /readyz, /metrics and /status
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    probe_host: IpAddr,
}

impl StandaloneArgs {
    /// Starts the log.
    pub fn start_log(&self) {
        self.log.init();
    }

    /// Converts the arguments to the settings of standalone.
    ///
    /// # Errors
    /// [`ProcessError::BindAddress`]
    pub fn settings(self) -> Result<Settings, ProcessError> {
        let class = Some(self.lb_class.as_str()).filter(|class| !class.is_empty());
        Ok(Settings {
            announce: self.announce.settings(class, &self.membership)?,
            listen: self.admin.probe_address(self.probe_host),
            manifests: self.manifests,
            state: self.state,
            join: self.join,
        })
    }
}

/// Parses an address with or without a port.
fn contact(text: &str) -> Result<(IpAddr, Option<u16>), std::net::AddrParseError> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok((ip, None)),
        Err(_) => text.parse::<SocketAddr>().map(|address| (address.ip(), Some(address.port()))),
    }
}

#[cfg(test)]
mod tests {
    use super::contact;

    #[test]
    fn contact_is_an_address_with_or_without_a_port() {
        assert_eq!(contact("10.0.0.2"), Ok(("10.0.0.2".parse().unwrap(), None)));
        assert_eq!(contact("[fd00::2]:80"), Ok(("fd00::2".parse().unwrap(), Some(80))));
        assert!(contact("node-2").is_err());
    }
}
