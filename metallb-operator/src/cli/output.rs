//! Output of the subcommands: tables and text, JSON, YAML.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use thiserror::Error;

/// Output format.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// Human-readable table
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Why a result cannot be printed.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Standard output is not writable.
    #[error("cannot print the result")]
    Print(#[from] std::io::Error),
    /// The result cannot be serialised.
    #[error("cannot serialise the result: {0}")]
    Serialise(String),
}

impl Output {
    /// Prints `data`, or the text that `table` makes. A closed pipe, as behind `head`, is not an error.
    ///
    /// # Errors
    /// The data cannot be serialised, or standard output is not writable.
    pub fn print(self, data: &impl Serialize, table: impl FnOnce(Paint) -> String) -> Result<(), OutputError> {
        let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
        let written = match self {
            Self::Table => stdout.write_all(table(Paint::for_stdout()).as_bytes()),
            Self::Json => match serde_json::to_writer_pretty(&mut stdout, data) {
                Err(error) if !error.is_io() => return Err(OutputError::Serialise(error.to_string())),
                result => result.map_err(Into::into).and_then(|()| stdout.write_all(b"\n")),
            },
            Self::Yaml => {
                let text = serde_saphyr::to_string(data).map_err(|error| OutputError::Serialise(error.to_string()))?;
                stdout.write_all(text.as_bytes())
            }
        };
        match written.and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    colors: bool,
}

impl Paint {
    /// No colours.
    pub const PLAIN: Self = Self { colors: false };

    /// Colours if standard output is a terminal that supports them and `NO_COLOR` is not set.
    #[must_use]
    pub fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colors: std::io::stdout().is_terminal() && !refused }
    }

    /// An error or a disruption.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.tinted(text, "31")
    }

    /// A warning.
    #[must_use]
    pub fn odd(self, text: &str) -> String {
        self.tinted(text, "33")
    }

    /// An improvement.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.tinted(text, "32")
    }

    /// The heading of a section.
    #[must_use]
    pub fn head(self, text: &str) -> String {
        self.tinted(text, "1")
    }

    fn tinted(self, text: &str, code: &str) -> String {
        if self.colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Aligns columns, separated by two blanks.
#[must_use]
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1 Service`, `2 Services`.
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A sentence as a clause: without full stop, and without the capital of a first word that is no acronym.
pub(super) fn clause(sentence: &str) -> String {
    let sentence = sentence.strip_suffix('.').unwrap_or(sentence);
    let mut letters = sentence.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() && !second.is_ascii_digit() => {
            first.to_lowercase().chain(std::iter::once(second)).chain(letters).collect()
        }
        _ => sentence.to_owned(),
    }
}

/// `-` for an empty text.
#[must_use]
pub fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
