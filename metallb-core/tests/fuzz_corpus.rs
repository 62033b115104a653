//! Runs the checks of the fuzz targets over their corpora, so that findings stay fixed without a fuzzer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[path = "../../fuzz/src/core.rs"]
mod checks;
#[allow(dead_code, clippy::print_stdout, reason = "shared by the crates whose readers are fuzzed")]
#[path = "../../fuzz/src/corpus.rs"]
mod corpus;

use corpus::run;

#[test]
fn address_corpus_holds() {
    run("address", checks::address, 1);
}

#[test]
fn annotations_corpus_holds() {
    run("annotations", checks::annotations, 1);
}

#[test]
fn community_corpus_holds() {
    run("community", checks::community, 1);
}

#[test]
fn go_duration_corpus_holds() {
    run("go_duration", checks::go_duration, 1);
}

#[test]
fn selector_corpus_holds() {
    run("selector", checks::selector, 1);
}
