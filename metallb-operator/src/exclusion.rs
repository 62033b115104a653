//! Interfaces that are never announced on: the list `announcedInterfacesToExclude` of regular expressions
//! (`docs/upstream-behaviour.md#l2-interfaces`).

use std::path::Path;
use std::sync::Arc;

use metallb_l2::io::InterfaceFilter;
use regex::RegexSet;
use serde::Deserialize;
use thiserror::Error;

/// Why the list is unusable.
#[derive(Debug, Error)]
pub enum ExclusionError {
    /// The file exists and cannot be read.
    #[error("cannot read the list of excluded interfaces")]
    Read(#[from] std::io::Error),
    /// The file is not YAML with the list.
    #[error("the list of excluded interfaces is malformed: {0}")]
    Parse(String),
    /// An entry is not a regular expression.
    #[error("an entry of announcedInterfacesToExclude is not a regular expression")]
    Regex(#[from] regex::Error),
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default, rename = "announcedInterfacesToExclude")]
    entries: Vec<String>,
}

/// Reads the list; without the file no interface is excluded. The expressions are not anchored.
///
/// # Errors
/// The file exists and is unusable: announcing on an excluded interface would be worse than not starting.
pub fn load(path: &Path) -> Result<InterfaceFilter, ExclusionError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Arc::new(|_| true)),
        Err(error) => return Err(error.into()),
    };
    let file: File = serde_saphyr::from_str(&text).map_err(|error| ExclusionError::Parse(error.to_string()))?;
    let excluded = RegexSet::new(file.entries)?;
    Ok(Arc::new(move |name| !excluded.is_match(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_not_anchored_and_a_missing_file_excludes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("excludel2.yaml");
        assert!(load(&path).unwrap()("veth0"));
        std::fs::write(&path, "announcedInterfacesToExclude: [\"^lo$\", \"eth\"]\n").unwrap();
        let filter = load(&path).unwrap();
        assert_eq!(["lo", "lo1", "veth0", "ens3"].map(|name| filter(name)), [false, true, false, true]);
        std::fs::write(&path, "announcedInterfacesToExclude: [\"(\"]\n").unwrap();
        assert!(load(&path).is_err());
    }
}
