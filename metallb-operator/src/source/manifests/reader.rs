//! Reads one piece of text: its objects, what they contain, and what is wrong with them.

use metallb_core::config::{ConfigReason, Problem, Severity};
use metallb_core::model::{ObjectRef, UnknownAnnotation, unknown_annotations};
use serde_json::{Map, Value};

use super::fact::Fact;
use super::kinds::{self, Recognized};
use super::lines::{FieldPath, Lines};
use super::schema::{ViolationKind, violations};
use super::text::{Fault, List, Origin, Piece};
use super::{CONFIGURATION, Finding, Manifest, ObjectId, Strictness};

/// The objects and problems of one piece of text.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) objects: Vec<Manifest>,
    pub(super) problems: Vec<Problem>,
    /// An object without a name, which is not used.
    pub(super) skipped: Vec<String>,
    /// Whether the text has a syntax error.
    pub(super) broken: bool,
}

/// Where a value was read.
pub(super) struct Place<'a> {
    origin: Origin,
    /// The text that contains it, for the lines of fields.
    text: Option<&'a str>,
    /// The path from the root of the text to the value.
    prefix: FieldPath,
}

impl<'a> Place<'a> {
    fn of(piece: &'a Piece<'_>) -> Self {
        let (text, is_item) = piece.text().unzip();
        let prefix = if is_item == Some(true) { FieldPath::default().index(0) } else { FieldPath::default() };
        Self { origin: piece.origin.clone(), text, prefix }
    }

    pub(super) fn unknown(origin: Origin) -> Self {
        Self { origin, text: None, prefix: FieldPath::default() }
    }

    /// The lines of `paths`, counted in the file.
    fn lines(&self, paths: &[&FieldPath]) -> Vec<Option<usize>> {
        let known = self.origin.line.filter(|_| !paths.is_empty()).zip(self.text.and_then(Lines::of));
        let Some((first, lines)) = known else { return vec![None; paths.len()] };
        paths.iter().map(|path| Some(first + lines.line(&self.prefix, path) - 1)).collect()
    }
}

/// Reads pieces of text.
pub(super) struct Reader {
    pub(super) namespace: String,
    pub(super) strictness: Strictness,
    pub(super) keeps_values: bool,
}

impl Reader {
    pub(super) fn read(&self, piece: &Piece<'_>) -> Batch {
        let mut batch = Batch::default();
        match piece.value() {
            Ok(Value::Null) => {}
            Ok(value) => self.add(&mut batch, value, &Place::of(piece), piece.list.as_deref()),
            Err(Fault { line, message }) => {
                let at = Origin { line: Some(line), ..piece.origin.clone() };
                let is_template = piece.text().is_some_and(|(text, _)| text.contains("{{"));
                let hint = if is_template { ": a Helm template must be rendered first (`helm template`)" } else { "" };
                batch.broken = true;
                batch.problems.push(misread(&at, &format!("{message}{hint}")));
            }
        }
        batch
    }

    pub(super) fn add(&self, batch: &mut Batch, mut value: Value, place: &Place<'_>, list: Option<&List>) {
        let origin = &place.origin;
        let Some(fields) = value.as_object_mut() else {
            batch.problems.push(misread(origin, "not an object with apiVersion and kind"));
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
        if kind.ends_with("List") {
            match fields.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => {
                    let list = List { kind, api_version: version };
                    for (index, item) in items.into_iter().enumerate() {
                        let origin = Origin { item: Some(index + 1), ..origin.clone() };
                        let prefix = place.prefix.key("items").index(index);
                        self.add(batch, item, &Place { origin, text: place.text, prefix }, Some(&list));
                    }
                    return;
                }
                // `kubectl` reads it as a list without items.
                Some(Value::Null) => return,
                _ => {}
            }
        }
        if kind.is_empty() && !kinds::is_object(fields) {
            batch.skipped.push("document without a kind".to_owned());
            return;
        }
        let recognized = kinds::recognize(&version, &kind);
        let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
        let name = metadata.as_ref().map(|metadata| text(metadata, "name")).unwrap_or_default();
        let Some(metadata) = metadata.filter(|_| !kind.is_empty() && !name.is_empty()) else {
            if recognized == Recognized::Foreign && !kind.is_empty() {
                batch.skipped.push(kind);
                return;
            }
            let path = FieldPath::default().key("metadata").key("name");
            let at = Origin { line: place.lines(&[&path])[0].or(origin.line), ..origin.clone() };
            let message = match fields.get("metadata").and_then(|metadata| metadata.get("name")) {
                _ if kind.is_empty() => "an object without kind".to_owned(),
                Some(name @ (Value::Bool(_) | Value::Number(_))) => format!(
                    "metadata.name of the {kind} is {name}, not a text: write it in quotes, because YAML reads yes, \
                     no, on and off as true or false"
                ),
                _ => format!("an object without metadata.name: {kind}"),
            };
            batch.problems.push(misread(&at, &message));
            return;
        };
        let mut id = ObjectId { namespace: text(metadata, "namespace"), kind, name };
        let mut is_homeless = false;
        if matches!(id.kind.as_str(), "Node" | "Namespace") && version == "v1" {
            id.namespace.clear();
        } else if id.namespace.is_empty() {
            is_homeless = version.starts_with("metallb.io/");
            id.namespace = if is_homeless { &self.namespace } else { DEFAULT_NAMESPACE }.to_owned();
        }
        if !id.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), id.namespace.as_str().into());
        }
        // The schema has a default for `spec` where no field of it is required.
        if matches!(id.kind.as_str(), "L2Advertisement" | "BGPAdvertisement" | "BFDProfile" | "Community") {
            fields.entry("spec").or_insert_with(|| Value::Object(Map::new()));
        }
        let kept = self.keeps_values.then(|| value.clone());
        let (fact, findings) = match recognized {
            Recognized::Foreign => (Some(Fact::Other), Vec::new()),
            Recognized::Slip(message, meant) => {
                meant.clone_into(&mut id.kind);
                (None, vec![Finding { field: "kind".to_owned(), ..Finding::error(ConfigReason::UnknownKind, message) }])
            }
            Recognized::Known => self.content(&id, &version, value, place),
        };
        batch.objects.push(Manifest { id, fact, findings, origin: origin.clone(), is_homeless, value: kept });
    }

    /// The content of an object of a known kind, and what is wrong with it.
    fn content(&self, id: &ObjectId, version: &str, value: Value, place: &Place<'_>) -> (Option<Fact>, Vec<Finding>) {
        let severity = match self.strictness {
            Strictness::Strict => Severity::Error,
            Strictness::Lenient | Strictness::Stored => Severity::Warning,
        };
        // A ConfigMap of another name is no concern of ours.
        let is_checked = id.kind != "ConfigMap" || id.name == "config";
        let mut violations = if is_checked { violations(version, &id.kind, &value) } else { Vec::new() };
        if self.strictness == Strictness::Stored {
            violations.retain(|violation| violation.kind == ViolationKind::WrongType);
        }
        let paths: Vec<&FieldPath> = violations.iter().map(|violation| &violation.path).collect();
        let lines = place.lines(&paths);
        let mut findings: Vec<Finding> = violations
            .iter()
            .zip(lines)
            .map(|(violation, line)| Finding {
                severity: if violation.kind == ViolationKind::WrongType { Severity::Error } else { severity },
                code: match violation.kind {
                    ViolationKind::UnknownField => ConfigReason::UnknownField,
                    ViolationKind::WrongValue | ViolationKind::WrongType => ConfigReason::Malformed,
                },
                field: violation.path.to_string(),
                line,
                message: violation.message.clone(),
            })
            .collect();
        findings.extend(self.annotations(id, &value, place, severity));
        let fact = match Fact::read(id, version, value) {
            Ok(fact) => Some(fact),
            Err(errors) => {
                if !findings.iter().any(|finding| finding.severity == Severity::Error) {
                    findings.extend(errors.into_iter().map(|error| Finding::error(ConfigReason::Malformed, error)));
                }
                None
            }
        };
        if matches!(fact, Some(Fact::OldConfigMap)) {
            let message =
                "this looks like a configuration of MetalLB before 0.13: only a ConfigMap with the name config \
                           is read (see metallb convert-config)"
                    .to_owned();
            let finding = Finding::error(ConfigReason::UnknownKind, message);
            findings.push(Finding { severity: Severity::Warning, field: "metadata.name".to_owned(), ..finding });
        }
        let is_refused = findings.iter().any(|finding| finding.severity == Severity::Error);
        (fact.filter(|_| !is_refused), findings)
    }

    /// Unknown annotations of Services and of the configuration.
    fn annotations(&self, id: &ObjectId, value: &Value, place: &Place<'_>, severity: Severity) -> Vec<Finding> {
        let is_ours = CONFIGURATION.contains(&id.kind.as_str()) && id.kind != "Secret";
        if self.strictness == Strictness::Stored || !(is_ours || id.kind == "Service") {
            return Vec::new();
        }
        let written = value.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten();
        let written = written.map(|(key, _)| (key.clone(), String::new())).collect();
        let parent = FieldPath::default().key("metadata").key("annotations");
        let finding = |unknown: UnknownAnnotation| {
            let path = parent.key(&unknown.key);
            Finding {
                severity,
                code: ConfigReason::UnknownAnnotation,
                line: place.lines(&[&path])[0],
                field: path.to_string(),
                message: unknown.to_string(),
            }
        };
        unknown_annotations(&written).into_iter().map(finding).collect()
    }
}

/// A problem of the text itself.
fn misread(origin: &Origin, message: &str) -> Problem {
    let object = ObjectRef { kind: "File", namespace: None, name: origin.source.as_ref().into() };
    let whole = origin.to_string();
    let place = whole.strip_prefix(&format!("{}: ", origin.source)).unwrap_or(&whole);
    Problem::error(object, "", ConfigReason::Malformed, format!("{place}: {message}"))
}

/// Namespace of a Kubernetes object without one.
const DEFAULT_NAMESPACE: &str = "default";
