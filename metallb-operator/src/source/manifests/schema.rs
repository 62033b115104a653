//! Checks objects against the schemas of their kinds: unknown fields, wrong types, values outside of their lists.
//!
//! Typed reading would stop at the first wrong type and drop unknown fields. The schemas of this product's kinds are
//! those of `metallb crds`; those of Kubernetes come with its types.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use metallb_core::spelling::{hint, nearest, quoted};
use serde_json::{Map, Value};

use super::lines::FieldPath;
use crate::api;

/// Something that the schema of an object does not allow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Violation {
    pub(super) path: FieldPath,
    pub(super) kind: ViolationKind,
    pub(super) message: String,
}

/// The kind of a [`Violation`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ViolationKind {
    /// A field that the kind does not have. The object can be read without it.
    UnknownField,
    /// A text or number outside of its list or range, which would be read as a default.
    WrongValue,
    /// A value of the wrong type, or a missing field: the object cannot be read.
    WrongType,
}

/// All violations of an object of a known kind; none for another kind.
pub(super) fn violations(version: &str, kind: &str, object: &Value) -> Vec<Violation> {
    let Some(root) = SCHEMAS.roots.get(&(version.to_owned(), kind.to_owned())) else { return Vec::new() };
    let ours = version.starts_with("metallb.io/");
    // A cluster may be newer than the types here, and the server has checked what it stores.
    let stored = !ours && object.pointer("/metadata/uid").is_some();
    let mut check = Check { version, kind, root, ours, stored, found: Vec::new() };
    check.value(object, root, &FieldPath::default());
    check.found
}

struct Check<'a> {
    version: &'a str,
    kind: &'a str,
    root: &'a Value,
    ours: bool,
    stored: bool,
    found: Vec<Violation>,
}

impl Check<'_> {
    fn value(&mut self, value: &Value, schema: &Value, path: &FieldPath) {
        let schema = resolved(schema);
        if schema.get("x-kubernetes-int-or-string").is_some() {
            if !value.is_string() && !value.is_i64() {
                self.wrong_type(path, "a number or a text", value);
            }
            return;
        }
        match (schema.get("type").and_then(Value::as_str), value) {
            (Some("object"), Value::Object(fields)) => self.object(fields, schema, path),
            (Some("array"), Value::Array(entries)) => {
                if let Some(items) = schema.get("items") {
                    for (index, entry) in entries.iter().enumerate() {
                        self.value(entry, items, &path.index(index));
                    }
                }
            }
            (Some("integer"), Value::Number(number)) => self.integer(number, schema, path),
            (Some("string"), Value::String(text)) => self.text(text, schema, path),
            (Some("number"), Value::Number(_)) | (Some("boolean"), Value::Bool(_)) | (None, _) => {}
            (Some(expected), _) => self.wrong_type(path, &expectation(expected, path), value),
        }
    }

    fn object(&mut self, fields: &Map<String, Value>, schema: &Value, path: &FieldPath) {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (name, value) in fields {
            let path = path.key(name);
            match (known.and_then(|known| known.get(name)), others) {
                // A field without a value is like one that is not there.
                (Some(_), _) | (None, Some(_)) if value.is_null() => {}
                (Some(schema), _) => self.value(value, schema, &path),
                (None, Some(schema)) if schema.is_object() => self.value(value, schema, &path),
                (None, None) if known.is_some_and(|known| !known.is_empty()) => self.unknown_field(&path, name, known),
                _ => {}
            }
        }
        if !self.ours {
            return;
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if fields.get(name).is_none_or(Value::is_null) {
                self.add(&path.key(name), ViolationKind::WrongType, "the field is missing".to_owned());
            }
        }
    }

    fn unknown_field(&mut self, path: &FieldPath, name: &str, known: Option<&Map<String, Value>>) {
        // Only controllers write a status, and newer ones write more.
        if self.stored || path.keys().starts_with("status") {
            return;
        }
        let names = known.into_iter().flat_map(|known| known.keys()).map(String::as_str);
        let meant = nearest(name, names.clone());
        let mut message = format!("unknown field {}", quoted(name));
        if self.exists_in_newer_version(path) {
            message.push_str(": metallb.io/v1beta2 has it, so change apiVersion");
        } else if meant.is_some() {
            message.push_str(&hint(meant));
        } else if let Some(elsewhere) = elsewhere(self.root, name) {
            message.push_str(&format!(": did you mean \"{elsewhere}\"? The indentation decides"));
        } else {
            let names: Vec<&str> = names.filter(|name| !matches!(*name, "apiVersion" | "kind" | "status")).collect();
            if names.len() <= FEW {
                message.push_str(&format!(": {} has {}", container(&path.parent(), self.kind), names.join(", ")));
            }
        }
        self.add(path, ViolationKind::UnknownField, message);
    }

    fn exists_in_newer_version(&self, path: &FieldPath) -> bool {
        if (self.version, self.kind) != ("metallb.io/v1beta1", "BGPPeer") {
            return false;
        }
        let newer = ("metallb.io/v1beta2".to_owned(), "BGPPeer".to_owned());
        let Some(mut schema) = SCHEMAS.roots.get(&newer) else { return false };
        for key in path.keys().split('.') {
            let Some(next) = resolved(schema).pointer(&format!("/properties/{key}")) else { return false };
            schema = next;
        }
        true
    }

    fn integer(&mut self, number: &serde_json::Number, schema: &Value, path: &FieldPath) {
        let Some(number) = number.as_i64() else {
            let found = Value::Number(number.clone());
            return self.wrong_type(path, "a whole number", &found);
        };
        if schema.get("format").and_then(Value::as_str) == Some("int32") && i32::try_from(number).is_err() {
            let message = format!("expected a number of 32 bits, found {number}");
            return self.add(path, ViolationKind::WrongType, message);
        }
        let keys = path.keys();
        let range = RANGES.iter().find(|(kind, field, _)| *kind == self.kind && *field == keys);
        if let Some((_, _, range)) = range.filter(|(_, _, range)| !range.contains(&number)) {
            let message = format!("expected a number from {} to {}, found {number}", range.start(), range.end());
            self.add(path, ViolationKind::WrongValue, message);
        }
    }

    fn text(&mut self, text: &str, schema: &Value, path: &FieldPath) {
        let keys = path.keys();
        let of_schema: Option<Vec<&str>> = schema
            .get("enum")
            .and_then(Value::as_array)
            .map(|values| values.iter().filter_map(Value::as_str).collect());
        let of_kubernetes =
            || VALUES.iter().find(|(kind, field, _)| *kind == self.kind && *field == keys).map(|row| row.2.to_vec());
        let Some(allowed) = of_schema.or_else(of_kubernetes) else { return };
        // Kubernetes and this product read an empty text as a field that is not there.
        if text.is_empty() || allowed.contains(&text) || self.stored {
            return;
        }
        let meant = nearest(text, allowed.iter().copied());
        let message = format!("expected {}, found {}{}", one_of(&allowed), quoted(text), hint(meant));
        self.add(path, ViolationKind::WrongValue, message);
    }

    fn wrong_type(&mut self, path: &FieldPath, expected: &str, found: &Value) {
        let remedy = match (found, expected) {
            (Value::Bool(_), "a text") => {
                ": write it in quotes, because YAML reads yes, no, on and off as true or false"
            }
            (Value::Number(_), "a text") => ": write it in quotes",
            (Value::String(text), "a number") if text.parse::<i64>().is_ok() => ": write it without quotes",
            (Value::String(text), "true or false") if matches!(text.as_str(), "true" | "false") => {
                ": write it without quotes"
            }
            (Value::String(_) | Value::Number(_) | Value::Object(_), "a list") => ": write [ ] around it",
            _ => "",
        };
        let message = format!("expected {expected}, found {}{remedy}", described(found));
        self.add(path, ViolationKind::WrongType, message);
    }

    fn add(&mut self, path: &FieldPath, kind: ViolationKind, message: String) {
        self.found.push(Violation { path: path.clone(), kind, message });
    }
}

struct Schemas {
    /// By version and kind.
    roots: BTreeMap<(String, String), Value>,
    definitions: Map<String, Value>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let mut generator = schemars::SchemaGenerator::default();
    let mut roots = BTreeMap::new();
    let mut add = |version: &str, kind: &str, schema: schemars::Schema| {
        roots.insert((version.to_owned(), kind.to_owned()), schema.to_value());
    };
    add("v1", "Service", generator.subschema_for::<core::Service>());
    add("v1", "Node", generator.subschema_for::<core::Node>());
    add("v1", "Namespace", generator.subschema_for::<core::Namespace>());
    add("v1", "Secret", generator.subschema_for::<core::Secret>());
    add("v1", "ConfigMap", generator.subschema_for::<core::ConfigMap>());
    add("discovery.k8s.io/v1", "EndpointSlice", generator.subschema_for::<EndpointSlice>());
    let metadata = generator.subschema_for::<ObjectMeta>().to_value();
    for definition in api::definitions() {
        for version in &definition.spec.versions {
            let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
            let Some(mut schema) = schema.and_then(|schema| serde_json::to_value(schema).ok()) else { continue };
            if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
                fields.insert("metadata".to_owned(), metadata.clone());
                for name in ["apiVersion", "kind"] {
                    fields.insert(name.to_owned(), serde_json::json!({"type": "string"}));
                }
                // Some exported objects have an empty status although their kind has none.
                fields.insert("status".to_owned(), serde_json::json!({}));
            }
            let version = format!("{}/{}", definition.spec.group, version.name);
            roots.insert((version, definition.spec.names.kind.clone()), schema);
        }
    }
    Schemas { roots, definitions: generator.take_definitions(false) }
});

/// Follows references and single `allOf` entries.
fn resolved(mut schema: &Value) -> &Value {
    loop {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        let next = match name {
            Some(name) => SCHEMAS.definitions.get(name),
            None => schema.get("allOf").and_then(|all| all.get(0)),
        };
        match next {
            Some(next) => schema = next,
            None => return schema,
        }
    }
}

/// Where another field of the same name is, at most three levels deep.
fn elsewhere(root: &Value, name: &str) -> Option<FieldPath> {
    let mut level = vec![(FieldPath::default(), root)];
    for _ in 0..3 {
        let mut next = Vec::new();
        for (path, schema) in level {
            let fields = resolved(schema).get("properties").and_then(Value::as_object).into_iter().flatten();
            for (key, schema) in fields.filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status")) {
                if key == name {
                    return Some(path.key(key));
                }
                next.push((path.key(key), schema));
            }
        }
        level = next;
    }
    None
}

fn container(path: &FieldPath, kind: &str) -> String {
    let path = path.to_string();
    if path.is_empty() { format!("a {kind}") } else { path }
}

fn expectation(expected: &str, path: &FieldPath) -> String {
    let keys = path.keys();
    match expected {
        "string" if keys.starts_with("spec.") && keys.ends_with("Time") => "a duration such as \"90s\"",
        "string" => "a text",
        "integer" | "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping of fields",
        other => other,
    }
    .to_owned()
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn one_of(values: &[&str]) -> String {
    match values {
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => "nothing".to_owned(),
    }
}

/// Values that the API server checks and the schemas do not contain: kind, field, values.
const VALUES: [(&str, &str, &[&str]); 12] = [
    ("Service", "spec.type", &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    ("Service", "spec.externalTrafficPolicy", &["Cluster", "Local"]),
    ("Service", "spec.internalTrafficPolicy", &["Cluster", "Local"]),
    ("Service", "spec.sessionAffinity", &["None", "ClientIP"]),
    ("Service", "spec.ipFamilies", &["IPv4", "IPv6"]),
    ("Service", "spec.ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"]),
    ("Service", "spec.ports.protocol", &["TCP", "UDP", "SCTP"]),
    ("EndpointSlice", "addressType", &["IPv4", "IPv6", "FQDN"]),
    ("EndpointSlice", "ports.protocol", &["TCP", "UDP", "SCTP"]),
    ("Node", "spec.taints.effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    ("Node", "status.addresses.type", &["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]),
    ("Node", "status.conditions.status", &["True", "False", "Unknown"]),
];

/// Ranges that the API server checks and the schemas do not contain: kind, field, range.
const RANGES: [(&str, &str, std::ops::RangeInclusive<i64>); 4] = [
    ("Service", "spec.ports.port", 1..=65_535),
    ("Service", "spec.ports.nodePort", 0..=65_535),
    ("Service", "spec.healthCheckNodePort", 0..=65_535),
    ("EndpointSlice", "ports.port", 0..=65_535),
];

/// A message lists all names if there are at most this many.
const FEW: usize = 12;
