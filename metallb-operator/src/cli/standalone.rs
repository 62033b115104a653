//! `metallb standalone`: arguments of [`crate::standalone`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::cli::options::LogArgs;
use crate::cli::speaker::{AnnounceArgs, MembershipArgs};
use crate::process::ProcessError;
use crate::process::listen::{Listen, Pages};
use crate::source::manifests::Strictness;
use crate::standalone::Settings;

/// Arguments of `metallb standalone`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb standalone --manifests /etc/metallb/manifests --node-name node-1")]
pub struct StandaloneArgs {
    #[command(flatten)]
    log: LogArgs,
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
    /// Use objects with unknown fields, values and annotations, and only warn about these
    #[arg(long)]
    lenient: bool,
    /// Also serve /metrics on this port of --probe-host [default: only on --health-probe-port]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Port of /healthz, /readyz, /metrics and /status; 0 disables them
    #[arg(long, default_value_t = 17472, value_name = "PORT")]
    health_probe_port: u16,
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
        let metrics = self.port.filter(|port| *port != self.health_probe_port);
        let listen = [Some((self.health_probe_port, Pages::All)), metrics.map(|port| (port, Pages::Metrics))];
        let listen = listen.into_iter().flatten().filter(|(port, _)| *port != 0);
        let listen =
            listen.map(|(port, pages)| Listen { address: SocketAddr::new(self.probe_host, port), pages }).collect();
        Ok(Settings {
            announce: self.announce.settings(class, &self.membership)?,
            listen,
            strictness: if self.lenient { Strictness::Lenient } else { Strictness::Strict },
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
    use clap::Parser as _;

    use super::{StandaloneArgs, contact};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: StandaloneArgs,
    }

    #[test]
    fn port_adds_an_address_of_the_metrics() {
        for (flags, expected) in [
            (&[][..], &["127.0.0.1:17472"][..]),
            (&["--port", "9120"], &["127.0.0.1:17472", "127.0.0.1:9120"]),
            (&["--port", "9120", "--health-probe-port", "0"], &["127.0.0.1:9120"]),
            (&["--port", "0", "--probe-host", "0.0.0.0"], &["0.0.0.0:17472"]),
            (&["--port", "17472"], &["127.0.0.1:17472"]),
        ] {
            let arguments = ["standalone", "--manifests", "m", "--node-name", "n"].iter().chain(flags);
            let listen = Cli::try_parse_from(arguments).unwrap().args.settings().unwrap().listen;
            let listen: Vec<String> = listen.iter().map(|listen| listen.address.to_string()).collect();
            assert_eq!(listen, expected, "{flags:?}");
        }
    }

    #[test]
    fn contact_is_an_address_with_or_without_a_port() {
        assert_eq!(contact("10.0.0.2"), Ok(("10.0.0.2".parse().unwrap(), None)));
        assert_eq!(contact("[fd00::2]:80"), Ok(("fd00::2".parse().unwrap(), Some(80))));
        assert!(contact("node-2").is_err());
    }
}
