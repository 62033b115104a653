//! The checks of the fuzz targets, over their corpora: what was once found stays fixed without a fuzzer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[path = "../../fuzz/src/l2.rs"]
mod checks;

use std::path::Path;

#[test]
fn arp_frame_corpus_holds() {
    run("arp_frame", checks::arp_frame);
}

#[test]
fn ndp_frame_corpus_holds() {
    run("ndp_frame", checks::ndp_frame);
}

#[test]
fn l2_engine_corpus_holds() {
    run("l2_engine", checks::l2_engine);
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
