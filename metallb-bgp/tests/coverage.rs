//! What pages and tables say is shown by a test, is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Names of all functions in the sources of this repository that could be tests.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = BTreeSet::new();
    let parts = [
        "metallb-bgp/src",
        "metallb-bgp/tests",
        "metallb-core/src",
        "metallb-core/tests",
        "metallb-operator/src",
        "metallb-operator/tests",
        "fuzz/src",
    ];
    for part in parts {
        let mut folders: Vec<PathBuf> = vec![root.join(part)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = read_to_string(path).unwrap();
                    let heads = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
                    names.extend(heads.map(|(name, _)| name.to_owned()));
                }
            }
        }
    }
    names
}

/// Code spans with an underscore and nothing but lower case are names of tests.
fn tests_named_in(text: &str) -> impl Iterator<Item = &str> {
    let letter = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    text.split('`').skip(1).step_by(2).filter(move |span| span.contains('_') && span.bytes().all(letter))
}

#[test]
fn tests_named_in_the_page_on_rfc_coverage_exist() {
    let page = read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rfc-coverage.md")).unwrap();
    let known = functions();
    let named: BTreeSet<&str> = tests_named_in(&page).collect();
    assert!(named.len() >= 50, "only {} tests are named", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| RFC")).count();
    assert!(rows >= 100, "only {rows} rows");
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        assert!(!last.is_empty(), "neither a test nor a reason: {row}");
    }
}

#[test]
fn each_invariant_has_a_test_that_exists() {
    let page = read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/testing.md")).unwrap();
    let known = functions();
    // The page calls the first one "model", and there is nothing to test about I6.
    let model = "allocator_equals_the_naive_model_after_every_step";
    assert!(page.contains(&format!("`{model}`")));
    for number in (1..=5).chain(7..=8).chain(13..=14).chain(23..=41) {
        let head = format!("| I{number} |");
        let row = page.lines().find(|line| line.starts_with(&head)).unwrap_or_else(|| panic!("no {head}"));
        let by_model = row.contains("| model").then_some(model);
        let named: Vec<&str> = tests_named_in(row).chain(by_model).collect();
        assert!(!named.is_empty() && named.iter().all(|name| known.contains(*name)), "{row}");
    }
}

/// That the others go both ways is seen to by `bgp_cases.rs` and `driver_cases.rs`.
#[test]
fn each_case_without_bytes_names_a_test_that_exists_or_a_reason() {
    let known = functions();
    let rows: Vec<&str> = include_str!("cases/bgp.txt").lines().filter(|line| line.contains(" | - | ")).collect();
    for row in &rows {
        let why = row.rsplit(" | ").next().unwrap();
        match why.strip_prefix("test: ") {
            Some(name) => assert!(known.contains(name), "{row}"),
            None => assert!(why.starts_with("not ours: "), "{row}"),
        }
    }
    assert!((10..=16).contains(&rows.len()), "{}", rows.len());
}

/// The fields of `spec` in all versions of a shipped CustomResourceDefinition; they stand seven steps deep.
fn fields_of(definition: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds").join(definition);
    let (mut inside, mut fields) = (false, BTreeSet::new());
    for line in read_to_string(path).unwrap().lines() {
        match line.len() - line.trim_start().len() {
            10 => inside = line.trim() == "spec:",
            14 if inside => fields.extend(line.trim().strip_suffix(':').map(str::to_owned)),
            _ => {}
        }
    }
    fields
}

#[test]
fn each_field_of_a_peer_and_of_a_profile_has_a_row_that_names_a_test() {
    let page = read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md")).unwrap();
    let known = functions();
    for (head, definition, least) in
        [("### BGPPeer", "metallb.io_bgppeers.yaml", 20), ("### BFDProfile", "metallb.io_bfdprofiles.yaml", 7)]
    {
        let part = page.split_once(head).unwrap().1;
        let part = part.split_once("\n#").map_or(part, |(part, _)| part);
        let mut rows = BTreeSet::new();
        for row in part.lines().filter(|line| line.starts_with("| `")) {
            let mut columns = row.trim_matches('|').split(" | ");
            rows.insert(columns.next().unwrap().trim().trim_matches('`').to_owned());
            let tests: Vec<&str> = tests_named_in(columns.last().unwrap()).collect();
            assert!(!tests.is_empty() && tests.iter().all(|test| known.contains(*test)), "{row}");
        }
        assert!(rows.len() >= least, "{head}: {}", rows.len());
        assert_eq!(rows, fields_of(definition), "{head}");
    }
}

#[test]
fn each_case_of_bfd_without_a_row_names_a_test_that_exists() {
    let known = functions();
    let text = include_str!("../src/bfd/tests/cases.rs");
    let rows: Vec<&str> = text.lines().filter(|line| line.contains("\", Why::")).collect();
    assert!((10..=14).contains(&rows.len()), "{}", rows.len());
    for row in rows {
        assert!(known.contains(row.rsplit('"').nth(1).unwrap()), "{row}");
    }
}

#[test]
fn rows_named_for_known_vulnerabilities_exist() {
    let page = read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/testing.md")).unwrap();
    let table = include_str!("cases/bgp.txt");
    let known: BTreeSet<&str> = table.lines().filter_map(|line| Some(line.split_once(" | ")?.0)).collect();
    let rows = page.lines().filter(|line| line.starts_with("| CVE-") || line.starts_with("| issue "));
    let mut count = 0;
    for row in rows {
        let named = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(!named.is_empty() && named.split(' ').all(|id| known.contains(id)), "{row}");
        count += 1;
    }
    assert!(count >= 20, "only {count} rows");
}
