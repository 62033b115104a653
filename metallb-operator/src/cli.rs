//! The command line: one file per subcommand with its arguments. `run` of a one-shot subcommand stands there too.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub mod controller;
pub mod convert_config;
pub mod cp_tool;
pub mod crds;
pub mod explain;
pub mod facts;
pub mod frr_metrics;
mod invocation;
pub mod lease;
pub mod options;
pub mod output;
pub mod plan;
pub mod speaker;
pub mod standalone;
pub mod status;

/// Load balancer for Kubernetes on bare metal: assigns addresses from pools and announces them by ARP/NDP or BGP
#[derive(Debug, Parser)]
#[command(
    name = "metallb",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    disable_help_flag = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print help
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which addresses are assigned and announced, and what a change would disrupt
    Plan(plan::PlanArgs),
    /// Explain why a Service has its address, and why it is announced or not
    Explain(explain::ExplainArgs),
    /// Assign addresses to Services of type LoadBalancer (one leader per cluster)
    Controller(controller::ControllerArgs),
    /// Announce addresses from this node (one per node)
    Speaker(speaker::SpeakerArgs),
    /// Assign and announce addresses from a directory of manifests, without Kubernetes
    Standalone(standalone::StandaloneArgs),
    /// Show the state of a running speaker or standalone
    Status(status::StatusArgs),
    /// Convert the ConfigMap of MetalLB before 0.13 to custom resources
    ConvertConfig(convert_config::ConvertConfigArgs),
    /// Copy a file, as the init containers of FRR installs do
    #[command(hide = true)]
    CpTool(cp_tool::CpToolArgs),
    /// Answer the liveness probe of the container frr in FRR installs
    #[command(hide = true)]
    FrrMetrics(frr_metrics::FrrMetricsArgs),
    /// Print the custom resource definitions
    Crds(crds::CrdsArgs),
    /// Print a shell completion script
    #[command(after_help = "Example:\n  metallb completions bash >/etc/bash_completion.d/metallb")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Runs the chosen subcommand to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Plan(args) => finish(args.run()),
            Command::Explain(args) => finish(args.run()),
            Command::Crds(args) => finish(args.run()),
            Command::ConvertConfig(args) => finish(args.run()),
            Command::CpTool(args) => finish(args.run()),
            Command::FrrMetrics(args) => finish(args.run().map(|()| ExitCode::SUCCESS)),
            Command::Controller(args) => {
                args.start_log();
                finish(crate::controller::run(&args.settings()).map(|()| ExitCode::SUCCESS))
            }
            Command::Speaker(args) => {
                args.start_log();
                finish(args.settings().and_then(|settings| crate::speaker::run(&settings)).map(|()| ExitCode::SUCCESS))
            }
            Command::Standalone(args) => {
                args.start_log();
                finish(args.settings().and_then(crate::standalone::run).map(|()| ExitCode::SUCCESS))
            }
            Command::Status(args) => finish(args.run()),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "metallb", &mut std::io::stdout());
                ExitCode::SUCCESS
            }
        }
    }
}

/// Prints an error and its causes on standard error; exit code 1. A cause that the line above already states, as some
/// libraries do, is left out.
#[expect(clippy::print_stderr, reason = "errors of the command line go to standard error")]
fn finish(result: Result<ExitCode, impl std::error::Error>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            let mut shown = error.to_string();
            eprintln!("metallb: {shown}");
            let mut source = error.source();
            while let Some(cause) = source {
                let text = cause.to_string();
                if !shown.contains(&text) {
                    eprintln!("  caused by: {text}");
                    shown = text;
                }
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
