//! `metallb`: parses the command line, runs the subcommand and returns its exit code.

use std::process::ExitCode;

use metallb_operator::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse_from_environment(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(cli) => cli.run(),
        Err(error) => {
            // An unwritable standard error leaves no way to report.
            let _ = error.print();
            // clap would exit with 2, which means a disruption for `plan`.
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
