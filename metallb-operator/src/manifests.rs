//! Manifests as `kubectl` reads and prints them: files, directories, standard input; YAML of many documents, JSON, lists.
//!
//! A document or object that cannot be read becomes a problem that names file, document and line; the rest is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use metallb_core::config::legacy::LegacyConfig;
use metallb_core::config::spec::Resources;
use metallb_core::config::{ConfigReason, Problem};
use metallb_core::model::ObjectRef;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::translate;
use crate::world::World;

/// Objects in reading order. A later object of the same kind, namespace and name is kept apart, as a duplicate.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    objects: Vec<Manifest>,
    problems: Vec<Problem>,
    skipped: BTreeMap<String, usize>,
}

/// One object and where it was read.
#[derive(Clone, Debug)]
struct Manifest {
    id: ObjectId,
    value: Value,
    source: String,
}

/// What tells objects apart.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ObjectId {
    /// The kind as in YAML.
    pub kind: String,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Why manifests cannot be read at all.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A file or directory cannot be read.
    #[error("{} can't be read", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Manifests {
    /// Reads files, directories (`*.yaml`, `*.yml`, `*.json`, not recursive, by name) and `-`, standard input.
    ///
    /// # Errors
    /// A path cannot be read. What is in a file that can be read is never an error, but a problem.
    pub fn read(paths: &[PathBuf]) -> Result<Self, ReadError> {
        let mut manifests = Self::default();
        for path in paths {
            let failed = |source| ReadError::Io { path: path.clone(), source };
            if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(failed)?;
                manifests.parse(&text, "standard input");
            } else if path.is_dir() {
                let mut files = Vec::new();
                for entry in std::fs::read_dir(path).map_err(failed)? {
                    files.push(entry.map_err(failed)?.path());
                }
                files.sort();
                for file in files.iter().filter(|file| is_manifest(file)) {
                    manifests.read_file(file)?;
                }
            } else {
                manifests.read_file(path)?;
            }
        }
        Ok(manifests)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ReadError> {
        let text = std::fs::read_to_string(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        self.parse(&text, &path.display().to_string());
        Ok(())
    }

    /// Takes in the documents of one text.
    pub fn parse(&mut self, text: &str, source: &str) {
        let trimmed = text.trim_start();
        if trimmed.starts_with('{') {
            self.parse_json(trimmed, text[..text.len() - trimmed.len()].matches('\n').count(), source);
            return;
        }
        for (number, (first_line, document)) in split_documents(text).into_iter().enumerate() {
            let number = number + 1;
            if document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
                continue;
            }
            match serde_saphyr::from_str::<Value>(document) {
                Ok(Value::Null) => {}
                Ok(value) => self.add(value, &format!("{source}: document {number}, line {first_line}")),
                Err(error) => {
                    let line = error
                        .location()
                        .map_or(first_line, |at| first_line + usize::try_from(at.line()).unwrap_or(1) - 1);
                    let text = error.to_string();
                    self.broken(source, number, line, text.lines().next().unwrap_or("not YAML"));
                }
            }
        }
    }

    /// One JSON document after another, as several `kubectl get -o json` print them.
    fn parse_json(&mut self, text: &str, lines_before: usize, source: &str) {
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        for (index, document) in documents.enumerate() {
            match document {
                Ok(value) => self.add(value, &format!("{source}: document {}", index + 1)),
                Err(error) => self.broken(source, index + 1, error.line() + lines_before, &error.to_string()),
            }
        }
    }

    fn broken(&mut self, source: &str, document: usize, line: usize, error: &str) {
        let object = ObjectRef { kind: "File", namespace: None, name: source.into() };
        let message = format!("{source}: document {document}, line {line}: {error}");
        let field = format!("document {document}, line {line}");
        self.problems.push(Problem::error(object, field, ConfigReason::Malformed, message));
    }

    fn add(&mut self, mut value: Value, source: &str) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if kind.ends_with("List")
            && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take)
        {
            let item_kind = kind.strip_suffix("List").unwrap_or_default().to_owned();
            let version = value.get("apiVersion").cloned();
            for (index, mut item) in items.into_iter().enumerate() {
                // Typed lists leave kind and version to the list.
                if let Value::Object(fields) = &mut item
                    && !item_kind.is_empty()
                    && !fields.contains_key("kind")
                {
                    fields.insert("kind".to_owned(), item_kind.clone().into());
                    fields.insert("apiVersion".to_owned(), version.clone().unwrap_or_default());
                }
                self.add(item, &format!("{source}, item {}", index + 1));
            }
            return;
        }
        let field = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = field("/metadata/name");
        let mut namespace = field("/metadata/namespace");
        if kind.is_empty() || name.is_empty() {
            let object = ObjectRef { kind: "File", namespace: None, name: source.into() };
            let what = if kind.is_empty() { "kind" } else { "metadata.name" };
            let message = format!("{source}: an object without {what}");
            self.problems.push(Problem::error(object, what, ConfigReason::Malformed, message));
            return;
        }
        if namespace.is_empty() {
            let group = field("/apiVersion");
            namespace = match kind.as_str() {
                "Node" | "Namespace" => String::new(),
                _ if group.starts_with("metallb.io/") => translate::CONFIG_NAMESPACE.to_owned(),
                _ => "default".to_owned(),
            };
        }
        // As the schema's default does in a cluster: `spec` may be left out where no field of it is required.
        if matches!(kind.as_str(), "L2Advertisement" | "BGPAdvertisement" | "BFDProfile" | "Community")
            && let Some(fields) = value.as_object_mut()
        {
            fields.entry("spec").or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
        self.objects.push(Manifest { id: ObjectId { kind, namespace, name }, value, source: source.to_owned() });
    }

    /// Puts `other` over this: objects of the same identity are replaced in place, new ones come last.
    pub fn apply(&mut self, other: Self) {
        let mut incoming: BTreeMap<ObjectId, Manifest> = BTreeMap::new();
        let order: Vec<ObjectId> = other.objects.iter().map(|object| object.id.clone()).collect();
        for object in other.objects {
            incoming.insert(object.id.clone(), object);
        }
        for object in &mut self.objects {
            if let Some(new) = incoming.remove(&object.id) {
                let status = object.value.get("status").cloned();
                *object = new;
                // Applying a manifest leaves the status alone.
                if let (Some(status), Some(fields)) = (status, object.value.as_object_mut()) {
                    fields.entry("status").or_insert(status);
                }
            }
        }
        self.objects.extend(order.iter().filter_map(|id| incoming.remove(id)));
        self.problems.extend(other.problems);
    }

    /// Removes an object; false when there is none.
    pub fn delete(&mut self, id: &ObjectId) -> bool {
        let before = self.objects.len();
        self.objects.retain(|object| {
            !(object.id.kind.eq_ignore_ascii_case(&id.kind)
                && object.id.name == id.name
                && (object.id.namespace == id.namespace || object.id.namespace.is_empty()))
        });
        self.objects.len() < before
    }

    /// Kinds that mean nothing to us, with how often they were read.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<String, usize> {
        &self.skipped
    }

    /// Turns the objects into facts, with all problems of reading.
    pub fn world(&mut self) -> (World, Vec<Problem>) {
        let mut world = World::default();
        let mut problems = self.problems.clone();
        let mut seen = BTreeSet::new();
        self.skipped.clear();
        for object in &self.objects {
            let version = object.value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            let configuration =
                version.starts_with("metallb.io/") || matches!(object.id.kind.as_str(), "Secret" | "ConfigMap");
            // Twins among configuration objects are judged, and reported, by the configuration itself.
            if !seen.insert(&object.id) && !configuration {
                problems.push(object.problem("defined more than once: the first counts"));
                continue;
            }
            // Configuration counts only in its own namespace.
            if configuration && object.id.namespace != translate::CONFIG_NAMESPACE {
                *self.skipped.entry(object.id.kind.clone()).or_default() += 1;
                continue;
            }
            if let Some(legacy) = object.legacy() {
                match legacy {
                    Ok(resources) => join(&mut world.resources, resources),
                    Err(errors) => problems.extend(errors.iter().map(|error| object.problem(error))),
                }
                continue;
            }
            match object.read_into(version, &mut world) {
                Ok(true) => {}
                Ok(false) => *self.skipped.entry(object.id.kind.clone()).or_default() += 1,
                Err(error) => problems.push(object.problem(&error.to_string())),
            }
        }
        (world, problems)
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
        Problem::error(object, "", ConfigReason::Malformed, format!("{}: {error}", self.source))
    }

    /// Adds the object to the world; false for a kind that means nothing to us.
    fn read_into(&self, version: &str, world: &mut World) -> Result<bool, serde_json::Error> {
        let resources = &mut world.resources;
        match (version, self.id.kind.as_str()) {
            ("metallb.io/v1beta1", "IPAddressPool") => resources.pools.push(translate::pool(&self.typed()?)),
            ("metallb.io/v1beta1", "L2Advertisement") => {
                resources.l2_advertisements.push(translate::l2_advertisement(&self.typed()?));
            }
            ("metallb.io/v1beta1", "BGPAdvertisement") => {
                resources.bgp_advertisements.push(translate::bgp_advertisement(&self.typed()?));
            }
            ("metallb.io/v1beta2", "BGPPeer") => resources.peers.push(translate::bgp_peer(&self.typed()?)),
            ("metallb.io/v1beta1", "BGPPeer") => resources.peers.push(translate::bgp_peer_v1beta1(&self.typed()?)),
            ("metallb.io/v1beta1", "BFDProfile") => resources.bfd_profiles.push(translate::bfd_profile(&self.typed()?)),
            ("metallb.io/v1beta1", "Community") => resources.communities.push(translate::community(&self.typed()?)),
            ("v1", "Secret") => resources.secrets.push(translate::secret(&self.typed()?)),
            ("v1", "Service") => {
                let mut service = translate::service(&self.typed()?);
                service.key = metallb_core::model::ServiceKey::new(&self.id.namespace, &self.id.name);
                world.order.push(service.key.clone());
                world.cluster.services.insert(service.key.clone(), service);
            }
            ("v1", "Node") => {
                let node = translate::node(&self.typed()?);
                world.cluster.nodes.insert(node.name.clone(), node);
            }
            ("v1", "Namespace") => {
                let namespace = translate::namespace(&self.typed()?);
                world.cluster.namespaces.insert(namespace.name.clone(), namespace);
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                if let Some((mut key, endpoints)) = translate::endpoint_slice(&self.typed()?) {
                    key.namespace = self.id.namespace.as_str().into();
                    world.extend_endpoints(key, endpoints);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The configuration of MetalLB before 0.13, if this is its ConfigMap; or all that is wrong with it.
    fn legacy(&self) -> Option<Result<Resources, Vec<String>>> {
        let text = self.value.pointer("/data/config").and_then(Value::as_str)?;
        if self.id.kind != "ConfigMap" || self.id.name != "config" {
            return None;
        }
        let converted = serde_saphyr::from_str::<LegacyConfig>(text).map_err(|error| vec![error.to_string()]);
        Some(converted.and_then(|config| {
            let conversion = config.convert(&self.id.namespace);
            conversion.map(|done| done.resources).map_err(|errors| errors.iter().map(ToString::to_string).collect())
        }))
    }

    fn typed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.value)
    }
}

fn join(resources: &mut Resources, more: Resources) {
    resources.pools.extend(more.pools);
    resources.l2_advertisements.extend(more.l2_advertisements);
    resources.bgp_advertisements.extend(more.bgp_advertisements);
    resources.peers.extend(more.peers);
    resources.bfd_profiles.extend(more.bfd_profiles);
    resources.communities.extend(more.communities);
    resources.secrets.extend(more.secrets);
}

impl std::str::FromStr for ObjectId {
    type Err = String;

    /// `KIND/NAMESPACE/NAME`, or `KIND/NAME` for cluster-scoped kinds.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [kind, name] => Ok(Self { kind: kind.into(), namespace: String::new(), name: name.into() }),
            [kind, namespace, name] => Ok(Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }),
            _ => Err(format!("\"{text}\" is not KIND/NAMESPACE/NAME")),
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.is_file()
        && path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("yaml" | "yml" | "json")))
}

/// The documents of a YAML stream with the line each begins on, counted from 1.
fn split_documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- ") || marker == "..." {
            documents.push((start_line, &text[start..offset]));
            start = offset + line.len();
            start_line = index + 2;
        }
        offset += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents
}

/// Kinds that are read, for references to them.
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
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\nspec: {{addresses: [10.0.0.0/24]}}\n"
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
            messages.iter().any(|text| text.contains("document 2, item 2: an object without metadata.name")),
            "{messages:?}"
        );
        assert!(messages.iter().any(|text| text.contains("document 4, line 3")), "{messages:?}");
    }

    #[test]
    fn change_replaces_in_place_keeps_the_status_and_deletes_by_name() {
        let service = |ip: &str, status: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{type: LoadBalancer, loadBalancerIP: {ip}}}\n{status}"
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
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config, namespace: {namespace}}}\ndata:\n  config: |\n    \
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
