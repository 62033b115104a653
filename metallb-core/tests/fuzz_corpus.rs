//! The checks of the fuzz targets, over their corpora: what was once found stays fixed without a fuzzer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[path = "../../fuzz/src/core.rs"]
mod checks;

use std::path::Path;

#[test]
fn address_corpus_holds() {
    run("address", checks::address);
}

#[test]
fn annotations_corpus_holds() {
    run("annotations", checks::annotations);
}

#[test]
fn community_corpus_holds() {
    run("community", checks::community);
}

#[test]
fn go_duration_corpus_holds() {
    run("go_duration", checks::go_duration);
}

#[test]
fn selector_corpus_holds() {
    run("selector", checks::selector);
}

fn run(target: &str, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}
