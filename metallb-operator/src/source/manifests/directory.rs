//! A directory of manifests that is read again and again, and the last good form of its objects.
//!
//! An editing slip must not take addresses away, so an object goes only where somebody deleted it:
//!
//! - An object that cannot be read keeps its last good form. If a file or the whole directory cannot be read, all its
//!   objects do. An empty file counts as unreadable, because shells and editors empty a file before they write it; a
//!   file with only a comment is readable and has no objects.
//! - An object that is missing from a readable file, or whose file is gone from a readable directory, is deleted after
//!   [`GRACE`]. After a start there is no grace: what was deleted while the process was down stays deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use metallb_core::config::{ConfigReason, Problem, Severity};
use metallb_core::model::ObjectRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Finding, Manifest, Manifests, ObjectId, ReadError, Strictness, lossy};
use crate::source::world::World;

/// A directory of manifests with the last good form of each object.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    strictness: Strictness,
    kept: BTreeMap<ObjectId, Kept>,
    /// Device and inode of the directory when it last had manifests.
    identity: Option<(u64, u64)>,
}

/// The last good form of one object, for the state file. Objects with passwords are never stored.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StoredObject {
    /// Path of the manifest that contained it.
    pub file: String,
    /// The object.
    pub object: Value,
}

/// The part of a directory that a process stores for the next one.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Stored {
    /// Device and inode of the directory.
    pub identity: Option<(u64, u64)>,
    /// The last good form of its objects.
    pub objects: Vec<StoredObject>,
}

/// The result of [`Directory::read`].
#[derive(Debug)]
pub struct Reading {
    /// The objects in force, as far as manifests decide.
    pub world: World,
    /// All problems of reading.
    pub problems: Vec<Problem>,
    /// When an object that is missing now will be deleted: read again then.
    pub look_again: Option<Instant>,
}

/// Metadata of a directory and its files; it differs after every change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fingerprint {
    identity: Option<(u64, u64)>,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Device, inode, size and times of the last change of content and metadata.
type Stamp = (u64, u64, u64, Option<SystemTime>, (i64, i64));

#[derive(Clone, Debug)]
struct Kept {
    file: String,
    /// The last form that could be read.
    manifest: Manifest,
    /// The last form that the configuration accepted.
    good: Option<Value>,
    missing: Missing,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Missing {
    No,
    Since(Instant),
    /// It comes from the state file and was not found since the start.
    SinceStart,
}

impl Directory {
    /// The directory at `path`, with the forms that an earlier process stored.
    #[must_use]
    pub fn new(path: &Path, strictness: Strictness, stored: &Stored) -> Self {
        let mut kept = BTreeMap::new();
        for StoredObject { file, object } in &stored.objects {
            let mut manifests = Manifests::default().with(Strictness::Stored).with_values();
            manifests.add(object.clone(), file);
            for manifest in manifests.objects.into_iter().filter(|manifest| manifest.fact.is_some()) {
                let (file, good) = (file.clone(), manifest.value.clone());
                kept.insert(manifest.id.clone(), Kept { file, manifest, good, missing: Missing::SinceStart });
            }
        }
        Self { path: path.to_owned(), strictness, kept, identity: stored.identity }
    }

    /// Reads all manifests.
    ///
    /// # Errors
    /// The directory cannot be read, and there is nothing to keep.
    pub fn read(&mut self, now: Instant) -> Result<Reading, ReadError> {
        let mut all = Manifests::default();
        let mut unreadable: BTreeMap<String, String> = BTreeMap::new();
        let listed = self.list();
        let is_listed = listed.is_ok();
        match listed {
            Ok(files) => {
                for file in files {
                    self.read_file(&file, &mut all, &mut unreadable);
                }
            }
            Err(source) if self.kept.is_empty() => return Err(ReadError::Io { path: self.path.clone(), source }),
            Err(error) => {
                let count = self.kept.len();
                let message = format!(
                    "cannot read the directory of manifests: {error}: {count} objects that it contained stay in force"
                );
                all.problems.push(kept_problem(&self.path.display().to_string(), message));
            }
        }
        let seen: BTreeSet<ObjectId> = all.objects.iter().map(|object| object.id.clone()).collect();
        self.remember(&mut all);
        let look_again = self.keep_missing(&seen, is_listed, &unreadable, &mut all, now);
        let (world, mut problems) = all.world();
        for (namespace, count) in all.elsewhere() {
            problems.push(Problem::warning(
                ObjectRef { kind: "Namespace", namespace: None, name: namespace.as_str().into() },
                "",
                ConfigReason::UnknownName,
                format!("{count} configuration objects are ignored: configuration is read from metallb-system"),
            ));
        }
        Ok(Reading { world, problems, look_again })
    }

    /// Notes which objects the configuration accepted: those without an error.
    pub fn accept(&mut self, problems: &[Problem]) {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        let refused: BTreeSet<&ObjectRef> = errors.map(|problem| &problem.object).collect();
        for kept in self.kept.values_mut() {
            if !refused.contains(&kept.manifest.reference()) {
                kept.good.clone_from(&kept.manifest.value);
            }
        }
    }

    /// The last accepted form of each object, for the state file.
    #[must_use]
    pub fn stored(&self) -> Stored {
        let without_password = self.kept.values().filter_map(|kept| {
            let good = kept.good.as_ref().filter(|good| !has_password(&kept.manifest.id.kind, good))?;
            let mut object = good.clone();
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            Some(StoredObject { file: kept.file.clone(), object })
        });
        Stored { identity: self.identity, objects: without_password.collect() }
    }

    /// The last accepted forms as facts, to begin with after a start.
    #[must_use]
    pub fn last_good(&self) -> World {
        let mut manifests = Manifests::default();
        manifests.objects.extend(self.kept.values().map(|kept| kept.manifest.clone()));
        manifests.world().0
    }

    fn list(&mut self) -> io::Result<Vec<PathBuf>> {
        let identity = identity(&self.path)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            files.push(entry?.path());
        }
        files.retain(|file| has_manifest_name(file) && !file.is_dir());
        files.sort();
        // A mount that is gone leaves an empty directory behind.
        if files.is_empty() && self.identity.is_some_and(|before| before != identity) && !self.kept.is_empty() {
            return Err(io::Error::other(
                "it was replaced by an empty directory (to delete all objects, put a file with only a comment into it)",
            ));
        }
        self.identity = Some(identity);
        Ok(files)
    }

    fn read_file(&self, path: &Path, all: &mut Manifests, unreadable: &mut BTreeMap<String, String>) {
        let file = path.display().to_string();
        let text = match std::fs::read(path) {
            Ok(bytes) => lossy(bytes),
            Err(error) => {
                // It may have been deleted after the listing.
                if path.symlink_metadata().is_ok() {
                    unreadable.insert(file, error.to_string());
                }
                return;
            }
        };
        if text.trim().is_empty() {
            unreadable.insert(file, "the file is empty".to_owned());
            return;
        }
        let mut read = Manifests::default().with(self.strictness).with_values();
        read.parse(&text, &file);
        // What cannot be read and has no known name may be any object of the file.
        let anonymous = |object: &Manifest| object.fact.is_none() && !self.kept.contains_key(&object.id);
        if !read.problems.is_empty() || read.objects.iter().any(anonymous) {
            unreadable.insert(file, "parts of the file cannot be read".to_owned());
        }
        all.objects.extend(read.objects);
        all.problems.extend(read.problems);
        for (kind, count) in read.unnamed {
            *all.unnamed.entry(kind).or_default() += count;
        }
    }

    /// Remembers what was read, and falls back to it where an object cannot be read.
    fn remember(&mut self, all: &mut Manifests) {
        let mut seen = BTreeSet::new();
        for object in &mut all.objects {
            let is_first = seen.insert(object.id.clone());
            let known = self.kept.get_mut(&object.id);
            match known {
                Some(kept) if object.fact.is_none() => {
                    if is_first {
                        object.fact.clone_from(&kept.manifest.fact);
                        object.findings.push(Finding::warning(
                            ConfigReason::LastFormKept,
                            "its last good form stays in force until this is repaired".to_owned(),
                        ));
                    }
                    kept.missing = Missing::No;
                }
                Some(kept) if is_first => {
                    kept.file = object.origin.source.to_string();
                    kept.manifest = object.clone();
                    kept.missing = Missing::No;
                }
                None if is_first && object.fact.as_ref().is_some_and(super::Fact::is_used) => {
                    let (file, manifest) = (object.origin.source.to_string(), object.clone());
                    self.kept.insert(object.id.clone(), Kept { file, manifest, good: None, missing: Missing::No });
                }
                _ => {}
            }
        }
    }

    /// Keeps objects that were not found, unless somebody deleted them. Returns when to look again.
    fn keep_missing(
        &mut self,
        seen: &BTreeSet<ObjectId>,
        is_listed: bool,
        unreadable: &BTreeMap<String, String>,
        all: &mut Manifests,
        now: Instant,
    ) -> Option<Instant> {
        let mut look_again: Option<Instant> = None;
        let mut kept_of: BTreeMap<&str, usize> = BTreeMap::new();
        let mut deleted = Vec::new();
        for (id, kept) in self.kept.iter_mut().filter(|(id, _)| !seen.contains(*id)) {
            if let Some((file, _)) = unreadable.get_key_value(&kept.file) {
                *kept_of.entry(file).or_default() += 1;
                kept.missing = Missing::No;
            } else if is_listed {
                let since = match kept.missing {
                    Missing::No => now,
                    Missing::Since(since) => since,
                    Missing::SinceStart => {
                        deleted.push(id.clone());
                        continue;
                    }
                };
                if now.saturating_duration_since(since) >= GRACE {
                    deleted.push(id.clone());
                    continue;
                }
                kept.missing = Missing::Since(since);
                let end = since + GRACE;
                look_again = Some(look_again.map_or(end, |earlier| earlier.min(end)));
            }
            // Its findings belong to a text that is no longer there.
            all.objects.push(Manifest { findings: Vec::new(), ..kept.manifest.clone() });
        }
        for id in &deleted {
            self.kept.remove(id);
        }
        for (file, why) in unreadable {
            let count = kept_of.get(file.as_str()).copied().unwrap_or_default();
            let objects = if count == 1 { "1 object".to_owned() } else { format!("{count} objects") };
            let message = format!(
                "{why}: {objects} that it contained before stay in force (to delete them, delete the file, or leave \
                 only a comment in it)"
            );
            // The parts that cannot be read have their own problems.
            if count > 0 || why != "parts of the file cannot be read" {
                all.problems.push(kept_problem(file, message));
            }
        }
        look_again
    }
}

impl Fingerprint {
    /// Looks at a directory and its manifests, through symbolic links.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let Ok(identity) = identity(path) else { return Self::default() };
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<(PathBuf, Option<Stamp>)> =
            entries.filter(|file| has_manifest_name(file)).map(|file| (file.clone(), stamp(&file))).collect();
        files.sort();
        Self { identity: Some(identity), files }
    }

    /// Device and inode of the directory; `None` if it is not there.
    #[must_use]
    pub const fn identity(&self) -> Option<(u64, u64)> {
        self.identity
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok(), changed))
}

fn has_manifest_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("yaml" | "yml" | "json")))
}

fn has_password(kind: &str, object: &Value) -> bool {
    match kind {
        "Secret" => true,
        "BGPPeer" => object.pointer("/spec/password").is_some(),
        "ConfigMap" => {
            object.pointer("/data/config").and_then(Value::as_str).is_none_or(|text| text.contains("password"))
        }
        _ => false,
    }
}

fn kept_problem(file: &str, message: String) -> Problem {
    let object = ObjectRef { kind: "File", namespace: None, name: file.into() };
    Problem::error(object, "", ConfigReason::LastFormKept, message)
}

/// How long an object is kept that is missing from a readable place: editors and `mv` make gaps of less.
pub const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
