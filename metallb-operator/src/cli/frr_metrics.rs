//! `metallb frr-metrics`: answers the liveness probe of the container `frr` in FRR installs of upstream.
//!
//! The speaker holds the BGP sessions itself and exports their metrics, so this program depends on nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::cli::options::LogArgs;
use crate::process::{Process, ProcessError, Threads};

/// Arguments of `metallb frr-metrics`.
#[derive(Clone, Debug, clap::Args)]
pub struct FrrMetricsArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Port of /livez and /metrics over HTTPS
    #[arg(long, default_value_t = 9121, value_name = "PORT")]
    metrics_port: u16,
    /// Address to listen on; 0.0.0.0 includes IPv6
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "IP")]
    metrics_bind_address: IpAddr,
    #[arg(long, value_name = "PATH", hide = true)]
    metrics_path: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    tls_cert_file: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    tls_private_key_file: Option<String>,
    #[arg(long, value_name = "VERSION", hide = true)]
    tls_min_version: Option<String>,
    #[arg(long, value_name = "NAMES", hide = true)]
    tls_cipher_suites: Option<String>,
    #[arg(long, value_name = "IDS", hide = true)]
    tls_curve_preferences: Option<String>,
}

impl FrrMetricsArgs {
    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The address cannot be bound, or no certificate can be made.
    pub fn run(&self) -> Result<(), ProcessError> {
        self.log.init();
        tracing::info!(event = "frrUnused", "{}", crate::process::livez::NOTE.trim_end());
        let address = SocketAddr::new(self.metrics_bind_address, self.metrics_port);
        Process::run(Threads::Two, async |mut process| {
            process.serve_livez(address)?;
            process.stop_requested().await;
            process.finish();
            Ok(())
        })
    }
}
