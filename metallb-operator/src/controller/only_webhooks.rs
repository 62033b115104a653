//! The controller with `--webhook-mode=onlywebhook`: it assigns no address. A second Deployment runs it, beside a
//! controller with `--webhook-mode=disabled`.

use super::Settings;
use crate::process::{Process, ProcessError, Threads};

/// Serves probes and metrics until SIGINT or SIGTERM.
///
/// # Errors
/// An address cannot be bound.
pub(super) fn run(settings: &Settings) -> Result<(), ProcessError> {
    Process::run(Threads::Two, async |mut process| {
        process.serve(settings.listen.iter().copied())?;
        process.stop_requested().await;
        process.finish();
        Ok(())
    })
}
