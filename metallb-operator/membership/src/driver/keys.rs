//! Reads the membership keys.

use std::path::{Path, PathBuf};

use super::StartError;
use crate::wire::seal::Keyring;

/// Reads the keys in a directory. The file `secretkey` seals. Files whose names begin with `secretkey-` are accepted as
/// well, while the key is being changed.
pub(super) fn read(directory: &Path) -> Result<Keyring, StartError> {
    let read = |path: PathBuf| std::fs::read(&path).map_err(|source| StartError::Key { path, source });
    let mut secrets = vec![read(directory.join(SEALING_KEY))?];
    let entries = std::fs::read_dir(directory)
        .map_err(|source| StartError::Key { path: directory.to_owned(), source })?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_further_key = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(FURTHER_KEYS))
    };
    let mut further: Vec<PathBuf> = entries.filter(is_further_key).collect();
    further.sort();
    for path in further {
        secrets.push(read(path)?);
    }
    Ok(Keyring::new(secrets.iter().map(Vec::as_slice)))
}

/// The key of the Secret that upstream's controller creates as well.
const SEALING_KEY: &str = "secretkey";
const FURTHER_KEYS: &str = "secretkey-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_without_the_sealing_key_is_an_error_that_names_the_file() {
        let directory = Path::new("/nonexistent/keys");
        let error = read(directory).unwrap_err();
        assert!(matches!(&error, StartError::Key { path, .. } if *path == directory.join("secretkey")), "{error}");
    }
}
