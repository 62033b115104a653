//! The state file: addresses of the Services and the last good form of the manifests, across restarts.
//!
//! A write goes to a temporary file, is synced and renamed; the generation before is kept beside it as `*.bak`. An empty
//! or damaged file never prevents the start: the generation before counts then.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::ProcessError;
use crate::source::manifests::directory::Stored;

/// Content of the state file. `/status` shows it, without the manifests, together with the present BGP sessions.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// The node that wrote it.
    pub node: String,
    /// Every Service of type LoadBalancer.
    pub services: Vec<ServiceState>,
    /// Problems of the manifests.
    pub problems: Vec<String>,
    /// The last good form of the manifests, without passwords.
    pub manifests: Stored,
}

/// One Service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceState {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `assigned` or `pending`
    pub state: String,
    /// The pool of the addresses.
    pub pool: Option<String>,
    /// The addresses, in order.
    pub ips: Vec<IpAddr>,
    /// Explanation of the state.
    pub reason: String,
    /// Whether this node answers on L2.
    pub l2: bool,
    /// Peers to which this node advertises the addresses.
    pub bgp: Vec<String>,
}

/// The state file of a running process, which no other process may write.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// Held for the life of the process; `None` if the place allows no lock.
    _lock: Option<File>,
    /// Whether `path` has a readable generation that is worth keeping.
    is_good: bool,
    /// The last text that was written.
    written: Vec<u8>,
    /// The present error of writing.
    error: Option<String>,
}

impl StateFile {
    /// Locks the file and reads it. Makes its directory.
    ///
    /// # Errors
    /// Another process uses the file.
    pub(super) fn open(path: &Path) -> Result<(Self, State), ProcessError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(Err(error)) = parent.map(std::fs::create_dir_all) {
            let directory = parent.unwrap_or(path).display().to_string();
            tracing::error!(%error, event = "stateNotStored", directory, "cannot make the directory of the state file");
        }
        let lock = lock(&beside(path, "lock"))?;
        let mut file = Self { path: path.to_owned(), _lock: lock, is_good: false, written: Vec::new(), error: None };
        let state = file.load();
        Ok((file, state))
    }

    /// The present generation, or the one before.
    fn load(&mut self) -> State {
        let backup = beside(&self.path, "bak");
        let path = self.path.display().to_string();
        match load_state(&self.path) {
            Ok(Some(state)) => {
                self.is_good = true;
                return state;
            }
            Ok(None) if !backup.exists() => return State::default(),
            Ok(None) => tracing::warn!(event = "stateDamaged", path, "the state file is missing"),
            Err(error) => {
                let cause = source_text(&error);
                tracing::error!(event = "stateDamaged", path, cause, "the state file is damaged");
            }
        }
        let backup_path = backup.display().to_string();
        match load_state(&backup) {
            Ok(Some(state)) => {
                let (path, services) = (backup_path, state.services.len());
                tracing::warn!(event = "stateRestored", path, services, "the generation before is used as the state");
                state
            }
            _ => {
                let path = backup_path;
                tracing::error!(
                    event = "stateLost",
                    path,
                    "there is no readable generation of the state either: Services may get other addresses"
                );
                State::default()
            }
        }
    }

    /// Writes the state if it differs from what was written last. An error is logged when it appears and when it ends.
    pub(super) fn save(&mut self, state: &State) -> Result<(), ()> {
        let result = serde_json::to_vec_pretty(state).map_err(io::Error::other).and_then(|text| self.write(text));
        let path = self.path.display().to_string();
        match result {
            Ok(()) => {
                if self.error.take().is_some() {
                    tracing::info!(event = "stateStored", path, "the state can be stored again");
                }
                Ok(())
            }
            Err(error) => {
                let text = error.to_string();
                if self.error.as_ref() != Some(&text) {
                    tracing::error!(
                        %error, event = "stateNotStored", path,
                        "cannot store the state: addresses may change at the next start"
                    );
                    self.error = Some(text);
                }
                Err(())
            }
        }
    }

    /// The problem for `/status`, while the state cannot be stored.
    pub(super) fn problem(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        Some(format!(
            "cannot store the state in {}: {error}: addresses may change at the next start",
            self.path.display()
        ))
    }

    fn write(&mut self, text: Vec<u8>) -> io::Result<()> {
        if self.is_good && self.written == text && self.path.exists() {
            return Ok(());
        }
        let (new, backup, spare) =
            (beside(&self.path, "tmp"), beside(&self.path, "bak"), beside(&self.path, "bak.tmp"));
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        // A damaged file must not replace the generation before.
        if self.is_good && self.path.exists() {
            let _ = std::fs::remove_file(&spare);
            // Not every file system has hard links.
            std::fs::hard_link(&self.path, &spare).or_else(|_| std::fs::copy(&self.path, &spare).map(drop))?;
            std::fs::rename(&spare, &backup)?;
        }
        std::fs::rename(&new, &self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        self.is_good = true;
        self.written = text;
        Ok(())
    }
}

/// Reads a state file; `None` if there is none.
///
/// # Errors
/// The file cannot be read, or is empty or damaged.
pub fn load_state(path: &Path) -> Result<Option<State>, ProcessError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let state = serde_json::from_slice(&bytes);
            state.map(Some).map_err(|source| ProcessError::State { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ProcessError::Io { what: format!("cannot read the state file {}", path.display()), source }),
    }
}

/// Takes the lock of a state file. The lock has a file of its own, because each write replaces the state file.
fn lock(path: &Path) -> Result<Option<File>, ProcessError> {
    let held = match File::options().create(true).truncate(false).write(true).open(path) {
        Ok(file) => file.try_lock().map(|()| file),
        Err(error) => Err(TryLockError::Error(error)),
    };
    match held {
        Ok(file) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(ProcessError::InUse { what: format!("the lock {}", path.display()) }),
        Err(TryLockError::Error(error)) => {
            let path = path.display().to_string();
            tracing::warn!(%error, event = "stateNotLocked", path, "cannot lock the state file");
            Ok(None)
        }
    }
}

/// `state.json` becomes `state.json.SUFFIX`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn source_text(error: &ProcessError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(services: usize) -> State {
        State { node: "n1".to_owned(), services: vec![ServiceState::default(); services], ..State::default() }
    }

    fn stored(path: &Path) -> usize {
        StateFile::open(path).unwrap().1.services.len()
    }

    #[test]
    fn damaged_state_file_never_stops_the_start_and_the_generation_before_counts() {
        for damage in ["", "{", "{\"services\": 1}", "\u{0}\u{0}\u{0}", "null"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("not/yet/state.json");
            let (mut file, empty) = StateFile::open(&path).unwrap();
            assert_eq!(empty.services.len(), 0);
            file.save(&state(1)).unwrap();
            file.save(&state(2)).unwrap();
            drop(file);
            assert_eq!(stored(&path), 2);
            std::fs::write(&path, damage).unwrap();
            assert_eq!(stored(&path), 1, "{damage:?}");
            // The damaged file does not become the generation before.
            let (mut file, _) = StateFile::open(&path).unwrap();
            file.save(&state(3)).unwrap();
            drop(file);
            std::fs::write(&path, damage).unwrap();
            assert_eq!(stored(&path), 1, "{damage:?}");
            std::fs::remove_file(&path).unwrap();
            assert_eq!(stored(&path), 1, "a lost file");
            std::fs::write(&path, damage).unwrap();
            std::fs::write(beside(&path, "bak"), damage).unwrap();
            assert_eq!(stored(&path), 0, "nothing is left");
        }
    }

    #[test]
    fn second_process_finds_the_state_file_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let first = StateFile::open(&path).unwrap();
        let error = StateFile::open(&path).unwrap_err();
        assert!(error.to_string().contains("another process uses"), "{error}");
        drop(first);
        assert!(StateFile::open(&path).is_ok());
    }

    #[test]
    fn error_of_writing_names_the_path_and_ends_with_the_next_success() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place");
        let path = place.join("state.json");
        let (mut file, _) = StateFile::open(&path).unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        assert!(file.save(&state(1)).is_err());
        let problem = file.problem().unwrap();
        assert!(problem.contains(path.to_str().unwrap()), "{problem}");
        std::fs::create_dir(&place).unwrap();
        file.save(&state(1)).unwrap();
        assert_eq!(file.problem(), None);
    }
}
