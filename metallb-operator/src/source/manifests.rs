//! Reads manifests as `kubectl` does: files, directories, standard input; YAML of many documents, JSON, lists.
//!
//! An unreadable document, item or object becomes a problem with file, document and line; the rest is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use metallb_core::config::{ConfigReason, Problem};
use metallb_core::model::ObjectRef;
use serde_json::{Map, Value};
use thiserror::Error;

use self::fact::Fact;
use self::text::{Fault, List, Origin, Piece};
use crate::source::translate;
use crate::source::world::World;

mod fact;
mod text;

/// Objects in reading order. A later object of the same kind, namespace and name is kept apart, as a duplicate.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// Namespace of the configuration; configuration elsewhere is ignored.
    namespace: String,
    objects: Vec<Manifest>,
    problems: Vec<Problem>,
    skipped: BTreeMap<String, usize>,
    elsewhere: BTreeMap<String, usize>,
}

/// One object and where it was read.
#[derive(Clone, Debug)]
struct Manifest {
    id: ObjectId,
    /// Its content, or the errors in it.
    fact: Result<Fact, Vec<String>>,
    origin: Origin,
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
            objects: Vec::new(),
            problems: Vec::new(),
            skipped: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }
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
        let pieces = text::pieces(text, &source.into());
        let batches = in_parallel(&pieces, |piece| Batch::of(piece, &self.namespace));
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
                batch.add(value, &Origin { item: None, line: None, ..first.origin.clone() }, None, &self.namespace);
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
        batch.add(value, &origin, None, &self.namespace);
        self.take(batch);
    }

    fn take(&mut self, batch: Batch) {
        self.objects.extend(batch.objects);
        self.problems.extend(batch.problems);
    }

    /// Applies `other`: objects with the same identity are replaced in place, new ones are appended. As with
    /// `kubectl apply`, a Service keeps what the cluster set: status, age and cluster addresses.
    pub fn apply(&mut self, other: Self) {
        let mut incoming: BTreeMap<ObjectId, Manifest> = BTreeMap::new();
        let order: Vec<ObjectId> = other.objects.iter().map(|object| object.id.clone()).collect();
        for object in other.objects {
            incoming.insert(object.id.clone(), object);
        }
        for object in &mut self.objects {
            if let Some(new) = incoming.remove(&object.id) {
                object.origin = new.origin;
                match (&mut object.fact, new.fact) {
                    (Ok(old), Ok(new)) => old.replaced_by(new),
                    (old, new) => *old = new,
                }
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
            Ok(Fact::Peer(peer)) if object.id.namespace == self.namespace => Some(&peer.password_secret),
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
        self.skipped.clear();
        self.elsewhere.clear();
        for object in &self.objects {
            // An unreadable object of an unknown kind counts as configuration.
            let configuration = match &object.fact {
                Ok(fact) => fact.is_configuration(),
                Err(_) => !matches!(object.id.kind.as_str(), "Service" | "Node" | "Namespace" | "EndpointSlice"),
            };
            // Configuration is read from its own namespace only.
            if configuration && object.id.namespace != self.namespace {
                if matches!(object.fact, Ok(Fact::Secret(_) | Fact::Legacy(_))) {
                    *self.skipped.entry(object.id.kind.clone()).or_default() += 1;
                } else {
                    *self.elsewhere.entry(object.id.namespace.clone()).or_default() += 1;
                }
                continue;
            }
            match &object.fact {
                Ok(Fact::Other) => *self.skipped.entry(object.id.kind.clone()).or_default() += 1,
                // The configuration itself reports duplicates among its objects.
                Ok(_) if !seen.insert(&object.id) && !configuration => {
                    problems.push(object.problem("defined more than once: the first definition is used"));
                }
                Ok(fact) => fact.add_to(&mut world),
                Err(errors) => problems.extend(errors.iter().map(|error| object.problem(error))),
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
    fn problem(&self, error: &str) -> Problem {
        let kind = KINDS.iter().find(|kind| **kind == self.id.kind).copied().unwrap_or("Object");
        let object = ObjectRef {
            kind,
            namespace: (!self.id.namespace.is_empty()).then(|| self.id.namespace.as_str().into()),
            name: self.id.name.as_str().into(),
        };
        Problem::error(object, "", ConfigReason::Malformed, format!("{}: {error}", self.origin))
    }
}

/// The objects and problems of one piece of text.
#[derive(Debug, Default)]
struct Batch {
    objects: Vec<Manifest>,
    problems: Vec<Problem>,
    /// Whether the text has a syntax error.
    broken: bool,
}

impl Batch {
    fn of(piece: &Piece<'_>, namespace: &str) -> Self {
        let mut batch = Self::default();
        match piece.value() {
            Ok(Value::Null) => {}
            Ok(value) => batch.add(value, &piece.origin, piece.list.as_deref(), namespace),
            Err(Fault { line, message }) => {
                let at = Origin { line: Some(line), ..piece.origin.clone() };
                batch.broken = true;
                batch.problems.push(misread(&at, &place(&at), &message));
            }
        }
        batch
    }

    fn add(&mut self, mut value: Value, origin: &Origin, list: Option<&List>, namespace: &str) {
        let Some(fields) = value.as_object_mut() else {
            self.problems.push(misread(origin, &place(origin), "not an object with apiVersion and kind"));
            return;
        };
        // The items of a typed list inherit kind and version from the list.
        if let Some(list) = list.filter(|list| list.kind != "List" && !fields.contains_key("kind")) {
            let kind = list.kind.strip_suffix("List").unwrap_or_default();
            fields.insert("kind".to_owned(), kind.into());
            fields.insert("apiVersion".to_owned(), list.api_version.as_str().into());
        }
        let text = |fields: &Map<String, Value>, key| fields.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let (kind, version) = (text(fields, "kind"), text(fields, "apiVersion"));
        if kind.ends_with("List")
            && let Some(Value::Array(items)) = fields.get_mut("items").map(Value::take)
        {
            let list = List { kind, api_version: version };
            for (index, item) in items.into_iter().enumerate() {
                let origin = Origin { item: Some(index + 1), ..origin.clone() };
                self.add(item, &origin, Some(&list), namespace);
            }
            return;
        }
        let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
        let name = metadata.as_ref().map(|metadata| text(metadata, "name")).unwrap_or_default();
        let Some(metadata) = metadata.filter(|_| !kind.is_empty() && !name.is_empty()) else {
            let what = if kind.is_empty() { "kind" } else { "metadata.name" };
            self.problems.push(misread(origin, what, &format!("an object without {what}")));
            return;
        };
        let mut id = ObjectId { namespace: text(metadata, "namespace"), kind, name };
        if matches!(id.kind.as_str(), "Node" | "Namespace") && version == "v1" {
            id.namespace.clear();
        } else if id.namespace.is_empty() {
            let ours = version.starts_with("metallb.io/");
            id.namespace = if ours { namespace } else { DEFAULT_NAMESPACE }.to_owned();
        }
        if !id.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), id.namespace.as_str().into());
        }
        // The schema has a default for `spec` where no field of it is required.
        if matches!(id.kind.as_str(), "L2Advertisement" | "BGPAdvertisement" | "BFDProfile" | "Community") {
            fields.entry("spec").or_insert_with(|| Value::Object(Map::new()));
        }
        let fact = Fact::read(&id, &version, value);
        self.objects.push(Manifest { id, fact, origin: origin.clone() });
    }
}

/// A problem of the text itself.
fn misread(origin: &Origin, field: &str, message: &str) -> Problem {
    let object = ObjectRef { kind: "File", namespace: None, name: origin.source.as_ref().into() };
    Problem::error(object, field, ConfigReason::Malformed, format!("{origin}: {message}"))
}

fn place(origin: &Origin) -> String {
    let whole = origin.to_string();
    whole.strip_prefix(&format!("{}: ", origin.source)).unwrap_or(&whole).to_owned()
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

/// Namespace of a Kubernetes object without one.
const DEFAULT_NAMESPACE: &str = "default";

/// Below this number of pieces, threads cost more than they save.
const WORTH_A_THREAD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (World, Vec<Problem>, Manifests) {
        let mut manifests = Manifests::default();
        manifests.parse(text, "test.yaml");
        let (world, problems) = manifests.world();
        (world, problems, manifests)
    }

    fn pool(name: &str) -> String {
        format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\n\
             spec: {{addresses: [10.0.0.0/24]}}\n"
        )
    }

    #[test]
    fn broken_document_is_reported_with_its_number_and_line_and_the_rest_is_read() {
        let text = format!("{}---\nkind: [\n---\n# only a comment\n---\n{}", pool("a"), pool("b"));
        let (world, problems, _) = read(&text);
        assert_eq!(world.resources.pools.iter().map(|pool| pool.meta.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].message.contains("document 2"), "{}", problems[0].message);
        assert!(
            problems[0].message.contains("line 6") || problems[0].message.contains("line 7"),
            "{}",
            problems[0].message
        );
    }

    #[test]
    fn object_of_the_wrong_shape_is_reported_by_name_and_the_rest_is_read() {
        let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: 80}\n";
        let (world, problems, _) = read(&format!("{broken}---\n{}", pool("a")));
        assert_eq!(world.resources.pools.len(), 1);
        assert!(problems[0].message.contains("test.yaml: document 1"), "{}", problems[0].message);
        assert_eq!(problems[0].object.to_string(), "Service/default/web");
    }

    #[test]
    fn field_without_a_value_is_as_one_that_is_not_there() {
        let written = |kind: &str, version: &str, spec: &str| {
            read(&format!("apiVersion: metallb.io/{version}\nkind: {kind}\nmetadata: {{name: it}}\nspec:\n  {spec}\n"))
        };
        let rows = [
            (
                "IPAddressPool",
                "v1beta1",
                "addresses: [10.0.0.0/24]",
                &["autoAssign", "avoidBuggyIPs", "serviceAllocation"][..],
            ),
            ("BGPAdvertisement", "v1beta1", "localPref: 7", &["aggregationLength", "aggregationLengthV6", "peers"]),
            ("BGPPeer", "v1beta2", "myASN: 1", &["disableMP", "dualStackAddressFamily", "holdTime", "passwordSecret"]),
        ];
        for (kind, version, spec, fields) in rows {
            let (plain, problems, _) = written(kind, version, spec);
            assert_eq!(problems, []);
            for field in fields {
                let (world, problems, _) = written(kind, version, &format!("{spec}\n  {field}:"));
                assert_eq!((world.resources, problems), (plain.resources.clone(), vec![]), "{kind} {field}");
            }
        }
        let (_, problems, _) = written("IPAddressPool", "v1beta1", "addresses: [null]");
        assert_eq!(problems.len(), 1, "an entry of a list is not a field");
    }

    #[test]
    fn lists_typed_or_not_and_json_documents_in_a_row_are_unfolded() {
        let items = r#"{"kind":"List","apiVersion":"v1","items":[{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1"}}]}
            {"kind":"NodeList","apiVersion":"v1","items":[{"metadata":{"name":"n2"}},{"metadata":{}}]}
            {"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"}} {"kind""#;
        let (world, problems, manifests) = read(items);
        assert_eq!(world.cluster.nodes.keys().map(ToString::to_string).collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!(manifests.skipped(), &BTreeMap::from([("Pod".to_owned(), 1)]));
        let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(problems.len(), 2, "{messages:?}");
        assert!(
            messages.iter().any(|text| text.contains("document 2, item 2, line 2: an object without metadata.name")),
            "{messages:?}"
        );
        assert!(messages.iter().any(|text| text.contains("document 4, line 3")), "{messages:?}");
    }

    #[test]
    fn change_replaces_in_place_keeps_the_status_and_deletes_by_name() {
        let service = |ip: &str, status: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n\
                 spec: {{type: LoadBalancer, loadBalancerIP: {ip}}}\n{status}"
            )
        };
        let held = "status: {loadBalancer: {ingress: [{ip: 10.0.0.7}]}}\n";
        let (_, _, mut manifests) = read(&format!("{}---\n{}", service("10.0.0.7", held), pool("a")));
        let mut change = Manifests::default();
        change.parse(&format!("{}---\n{}", service("10.0.0.9", ""), pool("b")), "change.yaml");
        manifests.apply(change);
        assert!(manifests.delete(&"IPAddressPool/metallb-system/a".parse().unwrap()));
        assert!(!manifests.delete(&"IPAddressPool/metallb-system/a".parse().unwrap()));

        let (world, problems) = manifests.world();
        assert_eq!(problems, []);
        assert_eq!(world.resources.pools.iter().map(|pool| pool.meta.name.as_str()).collect::<Vec<_>>(), ["b"]);
        let service = world.cluster.services.values().next().unwrap();
        assert_eq!(service.load_balancer_ip.as_deref(), Some("10.0.0.9"));
        assert_eq!(service.ingress[0].ip.as_deref(), Some("10.0.0.7"));
    }

    #[test]
    fn config_map_of_old_is_configuration_in_its_own_namespace_only() {
        let map = |namespace: &str, address: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config, namespace: {namespace}}}\n\
                 data:\n  config: |\n    \
                 address-pools: [{{name: lan, protocol: layer2, addresses: [{address}]}}]\n"
            )
        };
        let (world, problems, _) = read(&map("metallb-system", "10.0.0.0/24"));
        assert_eq!((problems, world.resources.pools.len(), world.resources.l2_advertisements.len()), (vec![], 1, 1));
        let (world, problems, _) = read(&map("elsewhere", "10.0.0.0/24"));
        assert_eq!((problems, world.resources.pools.len()), (vec![], 0));
        let (_, problems, _) = read(&map("metallb-system", "10.0.0.0/33"));
        assert_eq!(problems[0].object.to_string(), "ConfigMap/metallb-system/config");
        assert!(problems[0].message.contains("10.0.0.0/33"), "{}", problems[0].message);
    }
}
