//! Labels and label selectors, as Kubernetes matches them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A label selector as written: not yet known to be valid.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    pub match_labels: Labels,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One entry of `matchExpressions`, as written.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`; anything else is an error of [`Selector::parse`].
    pub operator: String,
    /// The values of `In` and `NotIn`.
    pub values: Vec<String>,
}

/// A valid selector: all requirements must hold; none at all matches everything.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Selector {
    /// Sorted, so that equal selectors compare equal however they were written.
    requirements: Vec<(String, SelectorOperator)>,
}

/// What one requirement asks of a label.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SelectorOperator {
    /// The label is absent.
    DoesNotExist,
    /// The label has exactly this value (`matchLabels`; not the same text as `In` with one value, though the same meaning).
    Equals(String),
    /// The label is present.
    Exists,
    /// The label is present with one of these values.
    In(BTreeSet<String>),
    /// The label is absent or has none of these values.
    NotIn(BTreeSet<String>),
}

/// Why a selector is not valid.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SelectorError {
    /// Neither of the four operators.
    #[error("\"{operator}\" is not a valid label selector operator (key \"{key}\")")]
    UnknownOperator {
        /// The key it stands at.
        key: String,
        /// What was written.
        operator: String,
    },
    /// `In` or `NotIn` without a value.
    #[error("operator {operator} of key \"{key}\" needs at least one value")]
    MissingValues {
        /// The key it stands at.
        key: String,
        /// The operator.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("operator {operator} of key \"{key}\" must not have values")]
    UnexpectedValues {
        /// The key it stands at.
        key: String,
        /// The operator.
        operator: String,
    },
    /// Not a qualified name.
    #[error("invalid label key \"{0}\"")]
    InvalidKey(String),
    /// Not a label value: over 63 characters or wrong characters.
    #[error("invalid label value \"{0}\"")]
    InvalidValue(String),
    /// The same value twice in one expression; found by [`LabelSelector::check_unique`].
    #[error("duplicate definition of match expression value \"{value}\" in label selector (key \"{key}\")")]
    DuplicateValue {
        /// The key it stands at.
        key: String,
        /// The value given twice.
        value: String,
    },
    /// The same expression twice in one selector, whatever the order of its values; found by [`LabelSelector::check_unique`].
    #[error("duplicate definition of match expression \"{0}\"")]
    DuplicateExpression(String),
}

impl LabelSelector {
    /// Whether nothing is said twice. Kubernetes does not mind, MetalLB does in lists of selectors
    /// (`docs/upstream-behaviour.md#configuration-pools`).
    ///
    /// # Errors
    /// [`SelectorError::DuplicateValue`], [`SelectorError::DuplicateExpression`], or that of an expression that makes no sense.
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

    /// The selector with the values of each expression in order: two that are the same now are the same to MetalLB, which
    /// minds the order of expressions.
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
    /// Checks a selector and brings it into its canonical form.
    ///
    /// # Errors
    /// See [`SelectorError`]; the selector's author is to blame for each.
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

    /// Whether an object with these labels is selected.
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

/// Kubernetes' qualified name: an optional DNS prefix of at most 253 characters, `/`, and a name of at most 63.
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

/// At most 63 characters, alphanumeric at both ends, `-`, `_` and `.` between.
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
