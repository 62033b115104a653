//! `metallb`: parse the command line, dispatch, turn the result into an exit code.

use std::process::ExitCode;

use clap::Parser;
use metallb_operator::cli::Cli;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Where it cannot be printed there is nobody to tell.
            let _ = error.print();
            // Not 2, as clap would: for `plan` that means a disruption.
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
