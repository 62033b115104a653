//! How many times faster than the naive algorithm, from what criterion has just saved: the figure that must never regress.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One line of the report.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is done.
    pub work: &'static str,
    /// The group of both measurements.
    pub group: &'static str,
    /// The name of ours.
    pub ours: &'static str,
    /// The name of the naive one.
    pub naive: &'static str,
    /// How many times as much the naive one would have to do for the same work.
    pub times: f64,
}

/// What no implementation can do without, by itself.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// What is done.
    pub work: &'static str,
    /// The group of both measurements.
    pub group: &'static str,
    /// The name of ours.
    pub ours: &'static str,
    /// The name of the bare operation.
    pub bare: &'static str,
    /// How many of it the work needs.
    pub times: f64,
}

/// A goal, and what other crates take for the same work.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// What is done.
    pub work: &'static str,
    /// The group of all measurements.
    pub group: &'static str,
    /// The name of ours.
    pub ours: &'static str,
    /// What it may take, in nanoseconds.
    pub nanoseconds: f64,
}

/// Prints a table of all rows that were measured, as Markdown.
pub fn print(rows: &[Row]) {
    let measured = |row: &Row, home: &Path| {
        let ours = median(home, row.group, row.ours)?;
        let naive = median(home, row.group, row.naive)? * row.times;
        Some(format!("| {} | {} | {} | {:.0} |", row.work, time(ours), time(naive), naive / ours))
    };
    table("| work | ours | naive | ratio |\n|---|---|---|---|", rows, measured);
}

/// Prints how near all that was measured is to what it can't do without, as Markdown.
pub fn print_floors(floors: &[Floor]) {
    let measured = |floor: &Floor, home: &Path| {
        let ours = median(home, floor.group, floor.ours)?;
        let bare = median(home, floor.group, floor.bare)? * floor.times;
        Some(format!("| {} | {} | {} | {:.2} |", floor.work, time(ours), time(bare), ours / bare))
    };
    table("| work | ours | floor | ours / floor |\n|---|---|---|---|", floors, measured);
}

/// Prints all goals that were measured, as Markdown, with a column for each of the `others` and a dash where one does no such work.
pub fn print_goals(goals: &[Goal], others: &[&str]) {
    let measured = |goal: &Goal, home: &Path| {
        let ours = median(home, goal.group, goal.ours)?;
        let theirs = others.iter().map(|name| median(home, goal.group, name).map_or_else(|| "-".to_owned(), time));
        let reached = if ours <= goal.nanoseconds { "yes" } else { "no" };
        let cells = [goal.work.to_owned(), time(goal.nanoseconds), time(ours), reached.to_owned()];
        Some(format!("| {} |", cells.into_iter().chain(theirs).collect::<Vec<_>>().join(" | ")))
    };
    let heads: Vec<&str> = ["work", "goal", "ours", "reached"].into_iter().chain(others.iter().copied()).collect();
    table(&format!("| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len())), goals, measured);
}

/// Nothing where criterion only tries whether the benchmarks run, nor for rows that were not measured.
#[allow(clippy::print_stdout, reason = "the report of a benchmark")]
fn table<R>(head: &str, rows: &[R], line: impl Fn(&R, &Path) -> Option<String>) {
    let only_tries = std::env::args().any(|argument| argument == "--test");
    let Some(home) = criterion_home().filter(|_| !only_tries) else { return };
    let lines: Vec<String> = rows.iter().filter_map(|row| line(row, &home)).collect();
    if !lines.is_empty() {
        println!("\n{head}\n{}", lines.join("\n"));
    }
}

/// The directory beside the one that holds this program, as criterion chooses it.
fn criterion_home() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|above| above.join("criterion")).find(|home| home.is_dir())
}

/// Nanoseconds.
fn median(home: &Path, group: &str, name: &str) -> Option<f64> {
    // As criterion makes names of directories.
    let name = name.replace(['?', '"', '/', '\\', '*', '<', '>', ':', '|', '^'], "_");
    let text = std::fs::read_to_string(home.join(group).join(name).join("new/estimates.json")).ok()?;
    let estimates: Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e2 => format!("{ns:.1} ns"),
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}
