//! The command line: one file per subcommand, each with its arguments. What ends by itself has its `run` there, too.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub mod controller;
pub mod convert_config;
pub mod crds;
pub mod explain;
pub mod facts;
pub mod lease;
pub mod options;
pub mod output;
pub mod plan;
pub mod speaker;
pub mod standalone;
pub mod status;

/// Load balancer for Kubernetes on bare metal: addresses from pools, announced by ARP/NDP or BGP.
#[derive(Debug, Parser)]
#[command(name = "metallb", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what would happen, and what a change would do, before anything is applied
    Plan(plan::PlanArgs),
    /// Tell why a Service has what it has, and what is missing
    Explain(explain::ExplainArgs),
    /// Give addresses to Services of type LoadBalancer (one per cluster)
    Controller(controller::ControllerArgs),
    /// Announce addresses from this node (one per node)
    Speaker(speaker::SpeakerArgs),
    /// Do both from a directory of manifests, without Kubernetes
    Standalone(standalone::StandaloneArgs),
    /// Show what a running standalone or speaker does
    Status(status::StatusArgs),
    /// Turn the ConfigMap of MetalLB before 0.13 into the objects that replaced it
    ConvertConfig(convert_config::ConvertConfigArgs),
    /// Print the custom resource definitions
    Crds(crds::CrdsArgs),
    /// Print a shell completion script
    #[command(after_help = "Example:\n  metallb completions bash >/etc/bash_completion.d/metallb")]
    Completions {
        /// The shell to write for
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

/// Prints an error with its causes on standard error; exit code 1.
#[expect(clippy::print_stderr, reason = "the place where errors of the command line are told to a person")]
fn finish(result: Result<ExitCode, impl std::error::Error>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("metallb: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
