//! The definition of the command line, and the page that is generated from it.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command};

use super::*;

#[test]
fn command_line_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn page_of_flags_says_what_the_command_line_takes() {
    let mut text = String::from(
        "# Flags\n\nThe flags of every subcommand, as in `metallb COMMAND --help`. \
         The environment variable counts if the flag is not given.\n\
         A test of `metallb-operator` generates this page; `cargo test -p metallb-operator --lib page_of_flags`\n\
         rewrites it when it is out of date. Upstream's flags without effect here are accepted and logged if set.\n",
    );
    let mut root = Cli::command();
    root.build();
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        section(&mut text, command);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/flags.md");
    if std::fs::read_to_string(&path).unwrap_or_default() != text {
        std::fs::write(&path, text).unwrap();
        panic!("docs/operations/flags.md was out of date and has been rewritten: commit it");
    }
}

fn section(text: &mut String, command: &Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "\n## metallb {}\n\n{about}.\n\n", command.get_name());
    text.push_str("| flag | variable | default | meaning |\n|---|---|---|---|\n");
    let shown = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let (mut positional, mut flags): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(shown).partition(|arg| arg.is_positional());
    flags.sort_by_key(|arg| arg.get_long());
    positional.extend(flags);
    for arg in positional {
        let _ = writeln!(text, "| {} | {} | {} | {} |", spelling(arg), variable(arg), default(arg), meaning(arg));
    }
}

fn spelling(arg: &Arg) -> String {
    let takes_value = arg.get_action().takes_values() && arg.get_num_args().is_none_or(|range| range.min_values() > 0);
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    match (arg.get_short(), arg.get_long()) {
        (_, None) => format!("`{value}`"),
        (short, Some(long)) => {
            let short = short.map(|short| format!("-{short}, ")).unwrap_or_default();
            let value = if takes_value { format!(" {value}") } else { String::new() };
            format!("`{short}--{long}{value}`")
        }
    }
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default()
}

fn default(arg: &Arg) -> String {
    if arg.is_required_set() {
        return "required".to_owned();
    }
    let values: Vec<_> = arg.get_default_values().iter().map(|value| value.display().to_string()).collect();
    let is_told = arg.get_action().takes_values() && values.iter().any(|value| !value.is_empty());
    if is_told { format!("`{}`", values.join(" ")) } else { String::new() }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    assert!(!help.is_empty(), "{} has no description", arg.get_id());
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let values = if values.is_empty() || values == ["`true`", "`false`"] {
        String::new()
    } else {
        format!(": {}", values.join(", "))
    };
    format!("{help}{values}").replace('|', "\\|")
}
