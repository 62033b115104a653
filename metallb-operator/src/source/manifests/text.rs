//! Splits text into pieces that can be read independently: documents of a YAML stream, JSON documents, items of lists.
//!
//! A syntax error affects only its piece, a piece knows its line, and several threads can read pieces. A parser for the
//! whole stream would lose all documents after a syntax error.

use std::fmt;
use std::sync::Arc;

use metallb_core::spelling::quoted;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A position in the input.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) source: Arc<str>,
    /// Number of the document and of the item in its list, counted from 1.
    pub(super) document: usize,
    pub(super) item: Option<usize>,
    /// First line; `None` for an object that was not read from text.
    pub(super) line: Option<usize>,
}

/// A part of the text that is read independently.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) origin: Origin,
    body: Body<'a>,
    /// The list, if the piece is an item of one.
    pub(super) list: Option<Arc<List>>,
    /// The whole document, if the piece is an item: items may refer to one another.
    pub(super) whole: Option<&'a str>,
}

/// Kind and version that the items of a typed list inherit.
#[derive(Debug, Default, Deserialize)]
pub(super) struct List {
    #[serde(default)]
    pub(super) kind: String,
    #[serde(default, rename = "apiVersion")]
    pub(super) api_version: String,
}

/// A syntax error and its line.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) message: String,
}

#[derive(Debug)]
enum Body<'a> {
    Yaml(&'a str),
    /// A YAML sequence of one item.
    YamlItem(&'a str),
    Json(&'a str),
    Fault(Fault),
}

/// Splits a text. Text that is not a document becomes a piece with an error.
pub(super) fn pieces<'a>(text: &'a str, source: &Arc<str>) -> Vec<Piece<'a>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        let json = json_pieces(text, source);
        // YAML may begin with a brace too; if neither parser accepts the text, the JSON error is reported.
        let broken_at_once = matches!(json.first(), Some(Piece { body: Body::Fault(_), .. }));
        if !broken_at_once {
            return json;
        }
        let yaml = yaml_pieces(text, source);
        return if yaml.iter().all(|piece| piece.value().is_ok()) { yaml } else { json };
    }
    yaml_pieces(text, source)
}

impl Piece<'_> {
    /// The piece as a value; null if it contains only comments.
    pub(super) fn value(&self) -> Result<Value, Fault> {
        let first = self.origin.line.unwrap_or(1);
        match &self.body {
            Body::Yaml(text) => yaml(text, first),
            Body::YamlItem(text) => match yaml(text, first)? {
                Value::Array(mut items) if items.len() == 1 => Ok(items.remove(0)),
                _ => Err(Fault { line: first, message: "not an item of a list".to_owned() }),
            },
            Body::Json(text) => serde_json::from_str(text)
                .map(|Unique(value)| value)
                .map_err(|error| Fault { line: first + error.line().max(1) - 1, message: json_message(&error) }),
            Body::Fault(fault) => Err(fault.clone()),
        }
    }

    /// The text, for the lines of its fields, and whether it is a sequence of one item.
    pub(super) fn text(&self) -> Option<(&str, bool)> {
        match &self.body {
            Body::Yaml(text) | Body::Json(text) => Some((text, false)),
            Body::YamlItem(text) => Some((text, true)),
            Body::Fault(_) => None,
        }
    }
}

/// A value without duplicate keys. `kubectl` refuses them; `Value` alone would keep the last one.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Unique(value) = map.next_value()?;
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {}", quoted(&key))));
            }
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(Unique(entry)) = seq.next_element()? {
            entries.push(entry);
        }
        Ok(Value::Array(entries))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// The message without its line, which counts from the piece.
fn json_message(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}", self.source, self.document)?;
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        match self.line {
            Some(line) => write!(f, ", line {line}"),
            None => Ok(()),
        }
    }
}

/// Reads one YAML document that begins in line `first`. Limits the depth, not the size.
pub(super) fn yaml(text: &str, first: usize) -> Result<Value, Fault> {
    yaml_as(text).map_err(|error| {
        let mut message = error.to_string();
        let mut line = first;
        if let Some(at) = error.location() {
            line += usize::try_from(at.line()).unwrap_or(1).max(1) - 1;
            // This line number counts from the piece, so it would mislead.
            if let Some(cut) = message.rfind(" at line ") {
                message.truncate(cut);
            }
        }
        let message = message.lines().next().unwrap_or("not YAML");
        let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
        let message = if message.to_lowercase().contains("budget") {
            format!("nested deeper than {MAX_DEPTH} levels, or with too many aliases")
        } else {
            message.to_owned()
        };
        Fault { line, message }
    })
}

/// Reads one YAML document. Limits the depth, not the size.
pub(super) fn yaml_as<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    options.budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_events: usize::MAX,
        max_nodes: usize::MAX,
        max_total_scalar_bytes: usize::MAX,
    };
    serde_saphyr::from_str_with_options(text, options)
}

fn yaml_pieces<'a>(text: &'a str, source: &Arc<str>) -> Vec<Piece<'a>> {
    let mut documents = documents(text);
    // A marker at the very beginning starts the first document.
    if documents.len() > 1 && is_blank(documents[0].1) {
        documents.remove(0);
    }
    let mut pieces = Vec::new();
    for (index, (mut line, mut document)) in documents.into_iter().enumerate() {
        if is_blank(document) {
            continue;
        }
        while let Some((_, rest)) = document.split_once('\n').filter(|(first, _)| first.trim().is_empty()) {
            (line, document) = (line + 1, rest);
        }
        let origin = |item, line| Origin { source: Arc::clone(source), document: index + 1, item, line: Some(line) };
        let Some((list, items)) = block_list(document) else {
            let body = Body::Yaml(document);
            pieces.push(Piece { origin: origin(None, line), body, list: None, whole: None });
            continue;
        };
        let list = Arc::new(list);
        pieces.extend(items.into_iter().enumerate().map(|(item, (offset, text))| Piece {
            origin: origin(Some(item + 1), line + offset),
            body: Body::YamlItem(text),
            list: Some(Arc::clone(&list)),
            whole: Some(document),
        }));
    }
    pieces
}

/// The documents of a YAML stream with their first lines, counted from 1.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        let begins = marker == "---" || marker.starts_with("--- ") || marker.starts_with("---\t");
        if begins || marker == "..." {
            documents.push((start_line, &text[start..offset]));
            // A document may start on the line of its marker.
            start = offset + 3;
            start_line = index + 1;
        }
        offset += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents
}

/// Whether the text contains only comments and directives.
fn is_blank(document: &str) -> bool {
    document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'))
}

/// The items of a list in block style, as `kubectl` prints it, each with its first line, counted from 0; `None` for
/// other text.
fn block_list(document: &str) -> Option<(List, Vec<(usize, &str)>)> {
    let mut lines = Lines { text: document, offset: 0, number: 0 };
    let head = lines.find(|line| line.text.trim_end() == "items:")?.start;
    let mut begins: Vec<(usize, usize)> = Vec::new();
    let mut indent = None;
    let mut end = document.len();
    for line in lines {
        let content = line.text.trim_start_matches(' ');
        if content.trim_end().is_empty() || content.starts_with('#') {
            continue;
        }
        let depth = line.text.len() - content.len();
        let dash = content.trim_end() == "-" || content.starts_with("- ");
        let expected = *indent.get_or_insert(depth);
        if depth == expected && dash {
            begins.push((line.start, line.number));
        } else if depth <= expected {
            end = line.start;
            break;
        }
    }
    if begins.is_empty() {
        return None;
    }
    let rest = format!("{}{}", &document[..head], &document[end..]);
    let list: List = serde_json::from_value(yaml(&rest, 1).ok()?).ok()?;
    if !list.kind.ends_with("List") {
        return None;
    }
    let ends = begins.iter().skip(1).map(|(offset, _)| *offset).chain([end]);
    let items = begins.iter().zip(ends).map(|(&(from, line), to)| (line, &document[from..to])).collect();
    Some((list, items))
}

struct Line<'a> {
    text: &'a str,
    number: usize,
    start: usize,
}

struct Lines<'a> {
    text: &'a str,
    offset: usize,
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.text[self.offset..];
        let length = rest.split_inclusive('\n').next()?.len();
        let (start, number) = (self.offset, self.number);
        self.offset += length;
        self.number += 1;
        Some(Line { text: &rest[..length], number, start })
    }
}

/// Concatenated JSON documents, as several `kubectl get -o json` print them.
fn json_pieces<'a>(text: &'a str, source: &Arc<str>) -> Vec<Piece<'a>> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        kind: String,
        #[serde(default, rename = "apiVersion")]
        api_version: String,
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }

    let mut pieces = Vec::new();
    let mut position = Position { text, offset: 0, line: 1 };
    for (index, document) in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>().enumerate() {
        let mut piece = |item, line, body, list| {
            let origin = Origin { source: Arc::clone(source), document: index + 1, item, line: Some(line) };
            pieces.push(Piece { origin, body, list, whole: None });
        };
        let raw = match document {
            Ok(raw) => raw.get(),
            Err(error) => {
                let fault = Fault { line: error.line().max(1), message: json_message(&error) };
                piece(None, fault.line, Body::Fault(fault), None);
                break;
            }
        };
        match serde_json::from_str::<Envelope<'_>>(raw) {
            Ok(envelope) if envelope.kind.ends_with("List") => {
                let list = Arc::new(List { kind: envelope.kind, api_version: envelope.api_version });
                for (item, raw) in envelope.items.into_iter().enumerate() {
                    let raw = raw.get();
                    piece(Some(item + 1), position.line_of(raw), Body::Json(raw), Some(Arc::clone(&list)));
                }
            }
            _ => piece(None, position.line_of(raw), Body::Json(raw), None),
        }
    }
    pieces
}

/// Counts lines while moving through a text.
struct Position<'a> {
    text: &'a str,
    offset: usize,
    line: usize,
}

impl Position<'_> {
    /// The first line of `part`, which must follow all parts of earlier calls.
    fn line_of(&mut self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let between = self.text.as_bytes().get(self.offset..offset).unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count();
        self.offset = offset;
        self.line
    }
}

/// Deeper than any Kubernetes object, and shallow enough for the stack of a thread.
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Result<Value, Fault>)> {
        pieces(text, &"f".into()).iter().map(|piece| (piece.origin.to_string(), piece.value())).collect()
    }

    #[test]
    fn items_of_a_list_in_block_style_are_what_the_whole_document_says() {
        let documents = [
            "apiVersion: v1\nitems:\n- a: |\n    items:\n    - x\n  b: [1,\n    2]\n- \"q\n    - r\"\n\
             -\n  c: d\nkind: List\n",
            "kind: NodeList\nitems: # all\n  # first\n  - a: 1\n\n  # second\n  - b:\n    - c\n    - - d\n\
             metadata: {}\n",
            "kind: List\nitems:\n  - a: >\n      text\n\n      - more\n  - {b: c}\n",
        ];
        for document in documents {
            let whole = yaml(document, 1).unwrap();
            let items = whole["items"].as_array().unwrap();
            let found: Vec<Value> = read(document).into_iter().map(|(_, value)| value.unwrap()).collect();
            // `kubectl` prints no comment behind `items:`; such a document is one piece.
            let expected = if document.contains("items: #") { vec![whole.clone()] } else { items.clone() };
            assert_eq!(found, expected, "{document}");
        }
    }

    #[test]
    fn every_piece_knows_where_it_stands() {
        let text = "---\n\n# head\nkind: A\n--- {kind: B}\n---\nkind: List\nitems:\n- kind: C\n- kind: [\n- kind: D\n";
        let found = read(text);
        let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(
            places,
            [
                "f: document 1, line 3",
                "f: document 2, line 5",
                "f: document 3, item 1, line 9",
                "f: document 3, item 2, line 10",
                "f: document 3, item 3, line 11"
            ]
        );
        let faults: Vec<usize> =
            found.iter().filter_map(|(_, value)| value.as_ref().err()).map(|fault| fault.line).collect();
        assert_eq!(faults, [10]);

        let json = "\n{\"kind\": \"List\",\n \"items\": [\n  {\"a\": 1},\n  {\"b\": 2}]}\n{\"c\"";
        let places: Vec<String> = read(json).into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, ["f: document 1, item 1, line 4", "f: document 1, item 2, line 5", "f: document 2, line 6"]);
    }

    #[test]
    fn braces_begin_json_or_yaml_and_what_is_neither_is_told_about_as_json() {
        assert_eq!(read("{kind: A, b: [c]}")[0].1.as_ref().unwrap()["b"][0], "c");
        let fault = read("{\"kind\": \"A\", ]").remove(0).1.unwrap_err();
        assert!(fault.message.contains("key must be a string"), "{}", fault.message);
    }

    #[test]
    fn large_is_fine_and_deep_is_an_error() {
        let wide = format!("a: [{}]", "1, ".repeat(300_000));
        assert_eq!(yaml(&wide, 1).unwrap()["a"].as_array().unwrap().len(), 300_000);
        assert!(yaml(&"[".repeat(100_000), 1).is_err());
        assert!(read(&"{\"a\":".repeat(100_000))[0].1.is_err());
    }
}
