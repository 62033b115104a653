//! `metallb cp-tool`: copies a file, for init containers of FRR installs, whose image has no shell.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use thiserror::Error;

/// Arguments of `metallb cp-tool`.
#[derive(Clone, Debug, clap::Args)]
pub struct CpToolArgs {
    /// File to copy
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// Path of the copy; an existing file is replaced
    #[arg(value_name = "DESTINATION")]
    destination: PathBuf,
}

/// Why a file was not copied.
#[derive(Debug, Error)]
#[error("cannot copy {} to {}", source_path.display(), destination.display())]
pub struct CopyError {
    source_path: PathBuf,
    destination: PathBuf,
    #[source]
    source: io::Error,
}

impl CpToolArgs {
    /// Copies the file with its mode.
    ///
    /// # Errors
    /// The source cannot be read, or the destination cannot be written.
    pub fn run(self) -> Result<ExitCode, CopyError> {
        copy(&self.source, &self.destination).map_err(|source| CopyError {
            source_path: self.source,
            destination: self.destination,
            source,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Copies to a temporary name first: a program that runs from an earlier copy cannot be overwritten.
fn copy(source: &Path, destination: &Path) -> io::Result<()> {
    let mut temporary = destination.as_os_str().to_owned();
    temporary.push(".new");
    fs::copy(source, &temporary)?;
    fs::rename(&temporary, destination)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn copy_follows_a_link_keeps_the_mode_and_replaces_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("program"), "new").unwrap();
        fs::set_permissions(path("program"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("program", path("link")).unwrap();
        fs::write(path("copy"), "old").unwrap();
        let args = CpToolArgs { source: path("link"), destination: path("copy") };
        args.run().unwrap();
        assert_eq!(fs::read_to_string(path("copy")).unwrap(), "new");
        let metadata = fs::symlink_metadata(path("copy")).unwrap();
        assert!(metadata.is_file() && metadata.permissions().mode() & 0o777 == 0o755, "{metadata:?}");
        let missing = CpToolArgs { source: path("missing"), destination: path("copy") };
        let error = missing.run().unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains("copy"), "{error}");
    }
}
