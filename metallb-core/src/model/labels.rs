//! Labels and label selectors, as Kubernetes matches them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A label selector as written, not yet validated.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    pub match_labels: Labels,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One entry of `matchExpressions` as written, not yet validated.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`; anything else is an error of [`Selector::parse`].
    pub operator: String,
    /// The values of `In` and `NotIn`.
    pub values: Vec<String>,
}

/// A valid selector. An object must meet all requirements; a selector without requirements matches every object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Selector {
    /// Sorted, so that equivalent selectors compare equal.
    requirements: Vec<(String, SelectorOperator)>,
}

/// Condition on one label.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SelectorOperator {
    /// The label is absent.
    DoesNotExist,
    /// The label has exactly this value (`matchLabels`). It displays differently from `In` with one value.
    Equals(String),
    /// The label is present.
    Exists,
    /// The label is present with one of these values.
    In(BTreeSet<String>),
    /// The label is absent or has none of these values.
    NotIn(BTreeSet<String>),
}

/// Error of validating a selector.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SelectorError {
    /// Unknown operator.
    #[error("\"{operator}\" is not a valid label selector operator (key \"{key}\")")]
    UnknownOperator {
        /// The key of the expression.
        key: String,
        /// The operator as written.
        operator: String,
    },
    /// `In` or `NotIn` without a value.
    #[error("operator {operator} of key \"{key}\" needs at least one value")]
    MissingValues {
        /// The key of the expression.
        key: String,
        /// The operator.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("operator {operator} of key \"{key}\" must not have values")]
    UnexpectedValues {
        /// The key of the expression.
        key: String,
        /// The operator.
        operator: String,
    },
    /// The key is not a qualified name.
    #[error("invalid label key \"{0}\"")]
    InvalidKey(String),
    /// The value is longer than 63 characters or contains invalid characters.
    #[error("invalid label value \"{0}\"")]
    InvalidValue(String),
    /// A value is repeated in one expression; reported by [`LabelSelector::check_unique`].
    #[error("duplicate definition of match expression value \"{value}\" in label selector (key \"{key}\")")]
    DuplicateValue {
        /// The key of the expression.
        key: String,
        /// The repeated value.
        value: String,
    },
    /// An expression is repeated, possibly with its values in another order; reported by
    /// [`LabelSelector::check_unique`].
    #[error("duplicate definition of match expression \"{0}\"")]
    DuplicateExpression(String),
}

impl LabelSelector {
    /// Checks for repeated values and expressions. Kubernetes allows them, MetalLB rejects them in lists of selectors
    /// (`docs/upstream-behaviour.md#configuration-pools`).
    ///
    /// # Errors
    /// [`SelectorError::DuplicateValue`], [`SelectorError::DuplicateExpression`], or the error of an invalid
    /// expression.
    pub fn check_unique(&self) -> Result<(), SelectorError> {
        let mut expressions = BTreeSet::new();
        for requirement in &self.match_expressions {
            let mut values = BTreeSet::new();
            if let Some(value) = requirement.values.iter().find(|value| !values.insert(*value)) {
                return Err(SelectorError::DuplicateValue { key: requirement.key.clone(), value: value.clone() });
            }
            let parsed = (requirement.key.clone(), requirement.parse()?);
            let text = render(&parsed);
            if !expressions.insert(parsed) {
                return Err(SelectorError::DuplicateExpression(text));
            }
        }
        Ok(())
    }

    /// The selector with the values of each expression sorted. MetalLB compares selectors in this form; the order of
    /// expressions counts.
    #[must_use]
    pub fn with_sorted_values(&self) -> Self {
        let mut sorted = self.clone();
        for requirement in &mut sorted.match_expressions {
            requirement.values.sort();
        }
        sorted
    }
}

impl Selector {
    /// Validates a selector and converts it to its canonical form.
    ///
    /// # Errors
    /// See [`SelectorError`].
    pub fn parse(raw: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::with_capacity(raw.match_labels.len() + raw.match_expressions.len());
        for (key, value) in &raw.match_labels {
            check_key(key)?;
            check_value(value)?;
            requirements.push((key.clone(), SelectorOperator::Equals(value.clone())));
        }
        for requirement in &raw.match_expressions {
            requirements.push((requirement.key.clone(), requirement.parse()?));
        }
        requirements.sort();
        requirements.dedup();
        Ok(Self { requirements })
    }

    /// Whether the selector matches an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|(key, operator)| {
            let value = labels.get(key);
            match operator {
                SelectorOperator::DoesNotExist => value.is_none(),
                SelectorOperator::Equals(wanted) => value == Some(wanted),
                SelectorOperator::Exists => value.is_some(),
                SelectorOperator::In(values) => value.is_some_and(|value| values.contains(value)),
                SelectorOperator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(&render(requirement))?;
        }
        Ok(())
    }
}

impl Requirement {
    fn parse(&self) -> Result<SelectorOperator, SelectorError> {
        check_key(&self.key)?;
        let (key, operator) = (|| self.key.clone(), || self.operator.clone());
        match self.operator.as_str() {
            "In" | "NotIn" if self.values.is_empty() => {
                Err(SelectorError::MissingValues { key: key(), operator: operator() })
            }
            "Exists" | "DoesNotExist" if !self.values.is_empty() => {
                Err(SelectorError::UnexpectedValues { key: key(), operator: operator() })
            }
            "In" => Ok(SelectorOperator::In(self.value_set()?)),
            "NotIn" => Ok(SelectorOperator::NotIn(self.value_set()?)),
            "Exists" => Ok(SelectorOperator::Exists),
            "DoesNotExist" => Ok(SelectorOperator::DoesNotExist),
            _ => Err(SelectorError::UnknownOperator { key: key(), operator: operator() }),
        }
    }

    fn value_set(&self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        for value in &self.values {
            check_value(value)?;
            values.insert(value.clone());
        }
        Ok(values)
    }
}

/// Qualified name of Kubernetes: an optional DNS prefix of at most 253 characters, `/`, and a name of at most 63.
fn check_key(key: &str) -> Result<(), SelectorError> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.split('.').all(|part| {
                let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                part.as_bytes().first().is_some_and(edge)
                    && part.as_bytes().last().is_some_and(edge)
                    && part.bytes().all(|byte| edge(&byte) || byte == b'-')
            })
    });
    if prefix_ok && !name.is_empty() && is_name(name) { Ok(()) } else { Err(SelectorError::InvalidKey(key.to_owned())) }
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(SelectorError::InvalidValue(value.to_owned())) }
}

/// At most 63 characters; alphanumeric at both ends; `-`, `_` and `.` are allowed in between.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    text.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn render((key, operator): &(String, SelectorOperator)) -> String {
    let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    match operator {
        SelectorOperator::DoesNotExist => format!("!{key}"),
        SelectorOperator::Exists => key.clone(),
        SelectorOperator::Equals(value) => format!("{key}={value}"),
        SelectorOperator::In(values) => format!("{key} in ({})", list(values)),
        SelectorOperator::NotIn(values) => format!("{key} notin ({})", list(values)),
    }
}
