//! Announces from one node of a cluster.

use std::process::ExitCode;

use thiserror::Error;

use crate::cli::speaker::SpeakerArgs;

/// Why the speaker does not run.
#[derive(Debug, Error)]
pub enum SpeakerError {}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// What cannot work from the start.
pub fn run(_args: SpeakerArgs) -> Result<ExitCode, SpeakerError> {
    Ok(ExitCode::SUCCESS)
}
