//! The lines of fields in a YAML or JSON text. Only needed to report a problem.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Path of a field in an object, as `spec.ports[0].port`.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct FieldPath(Vec<Step>);

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Step {
    Key(String),
    Index(usize),
}

/// The lines of all fields of one text.
#[derive(Debug)]
pub(super) struct Lines(Spanned<Node>);

#[derive(Debug)]
enum Node {
    Scalar,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<Key>, Spanned<Node>)>),
}

#[derive(Debug)]
struct Key(String);

impl FieldPath {
    /// The field `key` of this object.
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The entry `index` of this list, counted from 0.
    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The path without its last step.
    pub(super) fn parent(&self) -> Self {
        Self(self.0.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default())
    }

    /// The keys without indices, as `spec.ports.port`: the same for all entries of a list.
    pub(super) fn keys(&self) -> String {
        let keys = self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl Lines {
    /// Reads the lines of one document; `None` if it is not YAML.
    pub(super) fn of(text: &str) -> Option<Self> {
        super::text::yaml_as(text).ok().map(Self)
    }

    /// The line of a field, counted from 1. Of a field that is not there, the line of what would contain it. `prefix`
    /// leads from the root of the text to the object.
    pub(super) fn line(&self, prefix: &FieldPath, path: &FieldPath) -> usize {
        let mut node = &self.0;
        let mut line = line_of(node);
        for step in prefix.0.iter().chain(&path.0) {
            let next = match (step, &node.value) {
                (Step::Index(index), Node::List(entries)) => entries.get(*index).map(|entry| (line_of(entry), entry)),
                (Step::Key(key), Node::Map(fields)) => {
                    let field = fields.iter().find(|(name, _)| name.value.0 == *key);
                    field.map(|(name, value)| (line_of(name), value))
                }
                _ => None,
            };
            let Some((at, value)) = next else { break };
            (line, node) = (at, value);
        }
        line
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if key.contains(['.', '/']) => write!(f, "[{key}]")?,
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;

        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Node::Map(fields))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    entries.push(entry);
                }
                Ok(Node::List(entries))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
        }

        deserializer.deserialize_any(NodeVisitor)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

fn line_of<T>(value: &Spanned<T>) -> usize {
    usize::try_from(value.referenced.line()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_the_line_of_its_key() {
        let text = "kind: A\nspec:\n  ports:\n  - port: 1\n    name: x\n  -\n    port: 2\n\
                    \x20 flow: {a: 1,\n    b: [c,\n    d]}\n";
        let lines = Lines::of(text).unwrap();
        let spec = FieldPath::default().key("spec");
        let rows = [
            (FieldPath::default().key("kind"), 1),
            (spec.clone(), 2),
            (spec.key("ports").index(0).key("name"), 5),
            (spec.key("ports").index(1).key("port"), 7),
            (spec.key("flow").key("a"), 8),
            (spec.key("flow").key("b").index(1), 10),
            (spec.key("missing"), 2),
        ];
        for (path, expected) in rows {
            assert_eq!(lines.line(&FieldPath::default(), &path), expected, "{path}");
        }
        let json = Lines::of("{\n\t\"spec\": {\n\t\t\"a\": 1}}");
        assert_eq!(json.map(|lines| lines.line(&FieldPath::default(), &spec.key("a"))), Some(3));
    }
}
