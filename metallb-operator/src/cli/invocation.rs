//! Command lines as upstream's programs take them, rewritten to words that clap takes.
//!
//! - The name of the program chooses the subcommand: upstream's images start `/controller` and `/speaker`.
//! - Flags are spelled as Go's package `flag` spells them: one dash or two, and the last of several equal flags counts.
//! - A variable counts if its flag is not given; an empty variable counts as unset.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};

use crate::cli::Cli;

impl Cli {
    /// Parses a command line, `argv[0]` included, and the environment variables that `variable` returns.
    ///
    /// # Errors
    /// The command line is wrong, or asks for help or the version. The error of a value from a variable names it.
    pub fn parse_from_environment(
        argv: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut documented = Self::command();
        documented.build();
        let Words { words, from_variables } = words(argv, variable, &documented);
        let mut command = GO_STYLE.iter().fold(Self::command(), |command, name| {
            command.mut_subcommand(*name, |subcommand| {
                // The variables are among the words.
                subcommand.args_override_self(true).mut_args(|arg| arg.env(None::<&'static str>))
            })
        });
        let parsed = command.try_get_matches_from_mut(&words).and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(|mut error| {
            if error.kind() == ErrorKind::DisplayHelp {
                // The help of the documented command names the variables.
                return Self::command().try_get_matches_from(&words).err().unwrap_or(error);
            }
            let argument = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(argument)) => argument.clone(),
                _ => return error,
            };
            let source = from_variables.iter().find(|(flag, _)| argument.split(' ').next() == Some(flag));
            if let Some((_, name)) = source {
                let tip = format!("the value is that of the environment variable {name}");
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            error
        })
    }
}

struct Words {
    words: Vec<OsString>,
    /// Flags whose value may be that of a variable, with its name.
    from_variables: Vec<(String, String)>,
}

fn words(
    argv: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
    documented: &Command,
) -> Words {
    let mut rest: VecDeque<OsString> = argv.into_iter().collect();
    let mut words: Vec<OsString> = rest.pop_front().into_iter().collect();
    let program = words.first().and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    if let Some(name) = program.filter(|program| PROGRAMS.contains(program)) {
        words.push(name.into());
    } else if let Some(word) = rest.pop_front() {
        words.push(word);
    }
    let mut from_variables = Vec::new();
    let subcommand = words.get(1).and_then(|name| documented.find_subcommand(name));
    let Some(subcommand) = subcommand.filter(|subcommand| GO_STYLE.contains(&subcommand.get_name())) else {
        words.extend(rest);
        return Words { words, from_variables };
    };
    for arg in subcommand.get_arguments() {
        let (Some(flag), Some(name)) = (arg.get_long(), arg.get_env().and_then(OsStr::to_str)) else { continue };
        if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
            words.push(assignment(flag, &value));
            from_variables.push((format!("--{flag}"), name.to_owned()));
        }
    }
    while let Some(word) = rest.pop_front() {
        let Some((name, value)) = word.to_str().and_then(flag) else {
            let ends_flags = word == "--";
            words.push(word);
            if ends_flags {
                break;
            }
            continue;
        };
        let value = value.map(OsString::from).or_else(|| {
            let arg = subcommand.get_arguments().find(|arg| arg.get_long() == Some(name))?;
            needs_value(arg).then(|| rest.pop_front()).flatten()
        });
        words.push(match value {
            Some(value) => assignment(name, &value),
            None => format!("--{name}").into(),
        });
    }
    words.extend(rest);
    Words { words, from_variables }
}

/// Name and value of a flag with one dash or two; `None` for other words, and for flags of one letter, such as `-h`.
fn flag(word: &str) -> Option<(&str, Option<&str>)> {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-').filter(|name| name.chars().count() > 1))?;
    if name.is_empty() {
        return None;
    }
    Some(name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value))))
}

fn needs_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_num_args().is_none_or(|range| range.min_values() > 0)
}

fn assignment(flag: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(format!("--{flag}="));
    word.push(value);
    word
}

/// Names of the program that are a subcommand. `kubectl-metallb` takes all subcommands.
const PROGRAMS: [&str; 4] = ["controller", "speaker", "cp-tool", "frr-metrics"];

/// Subcommands with the command line of one of upstream's programs, and `standalone`, which shares their flags.
const GO_STYLE: [&str; 4] = ["controller", "speaker", "standalone", "frr-metrics"];

#[cfg(test)]
mod tests;
