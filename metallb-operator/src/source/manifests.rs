//! Reads manifests as `kubectl` does: files, directories, standard input; YAML of many documents, JSON, lists.
//!
//! An unreadable document, item or object becomes a problem with file, document and line; the rest is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use metallb_core::config::{ConfigReason, Problem, Severity};
use metallb_core::model::ObjectRef;
use serde_json::Value;
use thiserror::Error;

use self::fact::Fact;
use self::reader::{Batch, Place, Reader};
use self::text::Origin;
use crate::source::translate;
use crate::source::world::World;

pub mod directory;
mod fact;
mod kinds;
mod lines;
mod reader;
mod schema;
mod text;

/// Objects in reading order. A later object of the same kind, namespace and name is kept apart, as a duplicate.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// Namespace of the configuration; configuration elsewhere is ignored.
    namespace: String,
    strictness: Strictness,
    keeps_values: bool,
    objects: Vec<Manifest>,
    problems: Vec<Problem>,
    skipped: BTreeMap<String, usize>,
    /// Objects of unused kinds without a name.
    unnamed: BTreeMap<String, usize>,
    elsewhere: BTreeMap<String, usize>,
}

/// The treatment of fields, values and annotations that do not exist.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Strictness {
    /// Each is an error, and its object is not used: a misspelled selector would select everything.
    #[default]
    Strict,
    /// Each is a warning, and its object is used without it.
    Lenient,
    /// They are ignored: an API server has checked the objects, and may know more fields.
    Stored,
}

/// One object and where it was read.
#[derive(Clone, Debug)]
struct Manifest {
    id: ObjectId,
    /// Its content; `None` if it cannot be used.
    fact: Option<Fact>,
    findings: Vec<Finding>,
    origin: Origin,
    /// Whether it has no namespace, although its kind needs one.
    is_homeless: bool,
    /// The object as read, if it is needed later.
    value: Option<Value>,
}

/// An error or warning about an object.
#[derive(Clone, Debug)]
struct Finding {
    severity: Severity,
    code: ConfigReason,
    field: String,
    /// The line of the field; `None` for the first line of the object.
    line: Option<usize>,
    message: String,
}

/// Identity of an object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ObjectId {
    /// The kind as in YAML.
    pub kind: String,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Why the manifests cannot be read at all.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: std::io::Error,
    },
}

impl Manifests {
    /// An empty set; configuration is read from `namespace` only.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            strictness: Strictness::Strict,
            keeps_values: false,
            objects: Vec::new(),
            problems: Vec::new(),
            skipped: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// Reads with another strictness.
    #[must_use]
    pub const fn with(mut self, strictness: Strictness) -> Self {
        self.strictness = strictness;
        self
    }

    /// Keeps every object as it was read, not only the fact.
    #[must_use]
    const fn with_values(mut self) -> Self {
        self.keeps_values = true;
        self
    }

    /// Reads files, directories (`*.yaml`, `*.yml`, `*.json`, not recursive, by name) and `-`, standard input.
    /// Configuration is read from the namespace `metallb-system`.
    ///
    /// # Errors
    /// A path cannot be read. Invalid content of a readable file is a problem, not an error.
    pub fn read(paths: &[PathBuf]) -> Result<Self, ReadError> {
        let mut manifests = Self::default();
        manifests.read_paths(paths)?;
        Ok(manifests)
    }

    /// Reads further paths, as [`Self::read`] does.
    ///
    /// # Errors
    /// A path cannot be read.
    pub fn read_paths(&mut self, paths: &[PathBuf]) -> Result<(), ReadError> {
        for path in paths {
            let failed = |source| ReadError::Io { path: path.clone(), source };
            if path.as_os_str() == "-" {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
                self.parse(&lossy(bytes), "standard input");
            } else if path.is_dir() {
                let mut files = Vec::new();
                for entry in std::fs::read_dir(path).map_err(failed)? {
                    files.push(entry.map_err(failed)?.path());
                }
                files.sort();
                for file in files.iter().filter(|file| is_manifest(file)) {
                    self.read_file(file)?;
                }
            } else {
                self.read_file(path)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ReadError> {
        let bytes = std::fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        self.parse(&lossy(bytes), &path.display().to_string());
        Ok(())
    }

    /// Reads the documents of one text.
    pub fn parse(&mut self, text: &str, source: &str) {
        // YAML allows lines that end in CR alone; the splitter does not know them.
        let converted = (text.contains('\r') && !text.contains('\n')).then(|| text.replace('\r', "\n"));
        let text = converted.as_deref().unwrap_or(text);
        let pieces = text::pieces(text, &source.into());
        let reader = self.reader();
        let batches = in_parallel(&pieces, |piece| reader.read(piece));
        let mut batches = batches.into_iter();
        for document in pieces.chunk_by(|left, right| left.origin.document == right.origin.document) {
            let parts: Vec<Batch> = batches.by_ref().take(document.len()).collect();
            // An item may use an anchor of another item: then only the whole document is readable.
            if let [first, ..] = document
                && let Some(whole) = first.whole
                && parts.iter().any(|part| part.broken)
                && let Ok(value) = text::yaml(whole, 1)
            {
                let mut batch = Batch::default();
                let origin = Origin { item: None, line: None, ..first.origin.clone() };
                reader.add(&mut batch, value, &Place::unknown(origin), None);
                self.take(batch);
                continue;
            }
            parts.into_iter().for_each(|part| self.take(part));
        }
    }

    /// Adds an object or list that was not read from text, such as an answer of the API.
    pub fn add(&mut self, value: Value, source: &str) {
        let origin = Origin { source: source.into(), document: 1, item: None, line: None };
        let mut batch = Batch::default();
        self.reader().add(&mut batch, value, &Place::unknown(origin), None);
        self.take(batch);
    }

    fn reader(&self) -> Reader {
        Reader { namespace: self.namespace.clone(), strictness: self.strictness, keeps_values: self.keeps_values }
    }

    /// Whether nothing at all was read: no object, and no text that could be one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.problems.is_empty()
    }

    /// Number of configuration objects without a namespace.
    #[must_use]
    pub fn homeless(&self) -> usize {
        self.objects.iter().filter(|object| object.is_homeless).count()
    }

    /// The problems of one object that cannot be used.
    #[must_use]
    pub fn refusals(&self, id: &ObjectId) -> Vec<Problem> {
        let refused = self.objects.iter().filter(|object| object.id == *id && object.fact.is_none());
        refused.flat_map(Manifest::problems).collect()
    }

    fn take(&mut self, batch: Batch) {
        self.objects.extend(batch.objects);
        self.problems.extend(batch.problems);
        for kind in batch.skipped {
            *self.unnamed.entry(kind).or_default() += 1;
        }
    }

    /// Applies `other`: objects with the same identity are replaced in place, new ones are appended. As with
    /// `kubectl apply`, a Service keeps what the cluster set: status, age and cluster addresses; and an object that
    /// would be refused keeps its present form.
    pub fn apply(&mut self, other: Self) {
        let mut incoming: BTreeMap<ObjectId, Manifest> = BTreeMap::new();
        let order: Vec<ObjectId> = other.objects.iter().map(|object| object.id.clone()).collect();
        for object in other.objects {
            incoming.insert(object.id.clone(), object);
        }
        for object in &mut self.objects {
            if let Some(new) = incoming.remove(&object.id) {
                let present = object.fact.take();
                let refused = new.fact.is_none();
                *object = new;
                object.fact = match (present, object.fact.take()) {
                    (Some(mut present), Some(new)) => {
                        present.replaced_by(new);
                        Some(present)
                    }
                    (present, new) => {
                        if refused {
                            present
                        } else {
                            new
                        }
                    }
                };
            }
        }
        self.objects.extend(order.iter().filter_map(|id| incoming.remove(id)));
        self.problems.extend(other.problems);
    }

    /// Removes an object; false if there is none. The kind is case-insensitive; a missing namespace means the default
    /// namespace of `kubectl` or of the configuration.
    pub fn delete(&mut self, id: &ObjectId) -> bool {
        let before = self.objects.len();
        let home = self.namespace.as_str();
        self.objects.retain(|object| {
            let its = object.id.namespace.as_str();
            let same_place =
                its == id.namespace || its.is_empty() || (id.namespace.is_empty() && [home, "default"].contains(&its));
            !(object.id.kind.eq_ignore_ascii_case(&id.kind) && object.id.name == id.name && same_place)
        });
        self.objects.len() < before
    }

    /// Names of the Secrets that contain passwords of peers.
    #[must_use]
    pub fn password_secrets(&self) -> BTreeSet<String> {
        let peers = self.objects.iter().filter_map(|object| match &object.fact {
            Some(Fact::Peer(peer)) if object.id.namespace == self.namespace => Some(&peer.password_secret),
            _ => None,
        });
        peers.filter(|name| !name.is_empty()).cloned().collect()
    }

    /// Kinds that are not used here, with the number of their objects.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<String, usize> {
        &self.skipped
    }

    /// Other namespaces that contain configuration, which is ignored, with the number of objects.
    #[must_use]
    pub fn elsewhere(&self) -> &BTreeMap<String, usize> {
        &self.elsewhere
    }

    /// Converts the objects to facts, with all problems of reading.
    pub fn world(&mut self) -> (World, Vec<Problem>) {
        let mut world = World::default();
        let mut problems = self.problems.clone();
        let mut seen = BTreeSet::new();
        self.skipped.clone_from(&self.unnamed);
        self.elsewhere.clear();
        for object in &self.objects {
            // An unreadable object of an unknown kind counts as configuration.
            let configuration = match &object.fact {
                Some(fact) => fact.is_configuration(),
                None => CONFIGURATION.contains(&object.id.kind.as_str()),
            };
            // Configuration is read from its own namespace only.
            if configuration && object.id.namespace != self.namespace {
                if matches!(object.fact, Some(Fact::Secret(_) | Fact::Legacy(_))) || object.id.kind == "Secret" {
                    *self.skipped.entry(object.id.kind.clone()).or_default() += 1;
                } else {
                    *self.elsewhere.entry(object.id.namespace.clone()).or_default() += 1;
                }
                continue;
            }
            match &object.fact {
                Some(Fact::Other) => *self.skipped.entry(object.id.kind.clone()).or_default() += 1,
                // The configuration itself reports duplicates among its objects.
                Some(_) if !seen.insert(&object.id) && !configuration => {
                    problems.push(object.problem(&Finding::error(
                        ConfigReason::Malformed,
                        "defined more than once: the first definition is used".to_owned(),
                    )));
                }
                Some(fact) => fact.add_to(&mut world),
                None => {}
            }
            problems.extend(object.problems());
        }
        if self.strictness != Strictness::Stored {
            for key in world.cluster.services.keys() {
                let namespaces = &mut world.cluster.namespaces;
                let namespace = || translate::undefined_namespace(&key.namespace);
                namespaces.entry(key.namespace.clone()).or_insert_with(namespace);
            }
        }
        (world, problems)
    }
}

impl Default for Manifests {
    /// An empty set; configuration is read from `metallb-system`.
    fn default() -> Self {
        Self::new(translate::CONFIG_NAMESPACE)
    }
}

impl Manifest {
    fn problems(&self) -> impl Iterator<Item = Problem> {
        self.findings.iter().map(|finding| self.problem(finding))
    }

    fn reference(&self) -> ObjectRef {
        let kind = KINDS.iter().find(|kind| **kind == self.id.kind).copied().unwrap_or("Object");
        let namespace = (!self.id.namespace.is_empty()).then(|| self.id.namespace.as_str().into());
        ObjectRef { kind, namespace, name: self.id.name.as_str().into() }
    }

    fn problem(&self, finding: &Finding) -> Problem {
        let object = self.reference();
        let origin = Origin { line: finding.line.or(self.origin.line), ..self.origin.clone() };
        let (field, code) = (finding.field.as_str(), finding.code);
        let message = format!("{origin}: {}", finding.message);
        match finding.severity {
            Severity::Error => Problem::error(object, field, code, message),
            Severity::Warning => Problem::warning(object, field, code, message),
        }
    }
}

impl Finding {
    fn error(code: ConfigReason, message: String) -> Self {
        Self { severity: Severity::Error, code, field: String::new(), line: None, message }
    }

    fn warning(code: ConfigReason, message: String) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }
}

/// Applies `work` to every item, in order; with several threads if there are many items.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if threads == 1 || items.len() < WORTH_A_THREAD {
        return items.iter().map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let share = items.len().div_ceil(threads);
        let workers: Vec<_> =
            items.chunks(share).map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Vec<R>>())).collect();
        // The panic hook has reported the panic; continue it here.
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<R>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    })
}

impl std::str::FromStr for ObjectId {
    type Err = String;

    /// `KIND/NAMESPACE/NAME`, or `KIND/NAME` for cluster-scoped kinds.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("\"{text}\" is not KIND/NAMESPACE/NAME"));
        }
        match parts[..] {
            [kind, name] => Ok(Self { kind: kind.into(), namespace: String::new(), name: name.into() }),
            [kind, namespace, name] => Ok(Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }),
            _ => Err(format!("\"{text}\" is not KIND/NAMESPACE/NAME")),
        }
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let separator = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{}/{}{separator}{}", self.kind, self.namespace, self.name)
    }
}

fn is_manifest(path: &Path) -> bool {
    path.is_file()
        && path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("yaml" | "yml" | "json")))
}

/// Replaces invalid UTF-8, so that only the object that contains it is affected.
fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Kinds that are read; needed for static names in references.
const KINDS: [&str; 12] = [
    "BFDProfile",
    "BGPAdvertisement",
    "BGPPeer",
    "Community",
    "EndpointSlice",
    "IPAddressPool",
    "L2Advertisement",
    "Namespace",
    "Node",
    "Secret",
    "Service",
    "ConfigMap",
];

/// Kinds that are read from the namespace of the configuration only.
const CONFIGURATION: [&str; 7] =
    ["IPAddressPool", "L2Advertisement", "BGPAdvertisement", "BGPPeer", "BFDProfile", "Community", "Secret"];

/// Below this number of pieces, threads cost more than they save.
const WORTH_A_THREAD: usize = 256;

#[cfg(test)]
mod tests;
