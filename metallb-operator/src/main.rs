//! `metallb`: parse the command line, dispatch, turn the result into an exit code.

use std::process::ExitCode;

use clap::Parser;
use metallb_operator::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
