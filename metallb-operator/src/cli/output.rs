//! How subcommands print: tables and stories for people, JSON and YAML for programs.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use thiserror::Error;

/// How to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

/// Why a result cannot be shown.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Standard output does not take it.
    #[error("the result can't be printed")]
    Print(#[from] std::io::Error),
    /// The result cannot be serialised.
    #[error("the result can't be serialised: {0}")]
    Serialise(String),
}

impl Output {
    /// Prints `data`, or for people what `table` makes of it. A reader that has seen enough, as `head`, is no error.
    ///
    /// # Errors
    /// The data cannot be serialised, or standard output does not take it.
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

    /// Colours on a terminal that can show them, unless `NO_COLOR` is set.
    #[must_use]
    pub fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colors: std::io::stdout().is_terminal() && !refused }
    }

    /// Something that hurts.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.tinted(text, "31")
    }

    /// Something to look at.
    #[must_use]
    pub fn odd(self, text: &str) -> String {
        self.tinted(text, "33")
    }

    /// Something welcome.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.tinted(text, "32")
    }

    /// The head of a section.
    #[must_use]
    pub fn head(self, text: &str) -> String {
        self.tinted(text, "1")
    }

    fn tinted(self, text: &str, code: &str) -> String {
        if self.colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Columns as wide as their widest cell, two blanks between.
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

/// What stands for nothing in a table.
#[must_use]
pub fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
