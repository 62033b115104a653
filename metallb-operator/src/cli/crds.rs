//! `metallb crds`: the definitions of all nine kinds.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

use crate::api;

/// Arguments of `metallb crds`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb crds | kubectl apply --server-side -f -")]
pub struct CrdsArgs {
    /// Write one file per kind into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Why nothing is printed.
#[derive(Debug, Error)]
pub enum CrdsError {
    /// Writing failed.
    #[error("the definitions can't be written")]
    Write(#[from] std::io::Error),
    /// A definition cannot be serialised.
    #[error("a definition can't be serialised: {0}")]
    Serialise(String),
}

impl CrdsArgs {
    /// Prints or writes the definitions.
    ///
    /// # Errors
    /// Writing failed.
    pub fn run(self) -> Result<ExitCode, CrdsError> {
        for definition in api::definitions() {
            let text = serde_saphyr::to_string(&definition).map_err(|error| CrdsError::Serialise(error.to_string()))?;
            match &self.output_dir {
                Some(directory) => {
                    let name = format!("metallb.io_{}.yaml", definition.spec.names.plural);
                    std::fs::write(directory.join(name), text)?;
                }
                None => std::io::stdout().write_all(format!("---\n{text}").as_bytes())?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
