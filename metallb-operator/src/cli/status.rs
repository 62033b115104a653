//! `metallb status`: what a running standalone does, from its state file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

use super::plan::{Output, render};
use crate::standalone::{StandaloneError, State, load_state};

/// Arguments of `metallb status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb status --state /var/lib/metallb/state.json")]
pub struct StatusArgs {
    /// The state file of `metallb standalone`
    #[arg(long, default_value = "/var/lib/metallb/state.json", value_name = "FILE")]
    state: PathBuf,
    /// What to print
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
}

/// Why no status is shown.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StandaloneError),
    /// There is no state file.
    #[error("{} does not exist: is `metallb standalone` running with this --state?", .0.display())]
    Missing(PathBuf),
    /// Printing failed.
    #[error("the status can't be printed")]
    Print(#[from] std::io::Error),
    /// The state cannot be serialised.
    #[error("the status can't be serialised: {0}")]
    Serialise(String),
}

impl StatusArgs {
    /// Prints the status.
    ///
    /// # Errors
    /// There is none, or it cannot be printed.
    pub fn run(self) -> Result<ExitCode, StatusError> {
        if !self.state.exists() {
            return Err(StatusError::Missing(self.state));
        }
        let state = load_state(&self.state)?;
        let text = match self.output {
            Output::Table => table(&state),
            Output::Json => {
                serde_json::to_string_pretty(&state).map_err(|error| StatusError::Serialise(error.to_string()))? + "\n"
            }
            Output::Yaml => {
                serde_saphyr::to_string(&state).map_err(|error| StatusError::Serialise(error.to_string()))?
            }
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(state: &State) -> String {
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let mut rows = vec![["SERVICE", "STATE", "POOL", "IPS", "L2", "BGP PEERS"].map(str::to_owned)];
    rows.extend(state.services.iter().map(|service| {
        [
            format!("{}/{}", service.namespace, service.name),
            service.state.clone(),
            dash(service.pool.clone().unwrap_or_default()),
            dash(service.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            if service.l2 { format!("answered by {}", state.node) } else { "-".to_owned() },
            dash(service.bgp.join(", ")),
        ]
    }));
    let mut text = render(&rows);
    if !state.peers.is_empty() {
        let field = |peer: &serde_json::Value, name: &str| match &peer[name] {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut rows = vec![["PEER", "STATE", "UPTIME (s)", "ROUTES", "LAST CLOSED BECAUSE"].map(str::to_owned)];
        rows.extend(
            state
                .peers
                .iter()
                .map(|peer| ["name", "state", "uptimeSeconds", "routes", "lastDown"].map(|name| field(peer, name))),
        );
        text.push('\n');
        text.push_str(&render(&rows));
    }
    for problem in &state.problems {
        text.push_str(&format!("\nproblem: {problem}"));
    }
    if !state.problems.is_empty() {
        text.push('\n');
    }
    text
}
