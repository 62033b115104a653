//! Runs the checks of the fuzz targets over their corpora, without a fuzzer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[path = "../../fuzz/src/l2.rs"]
mod checks;
#[allow(dead_code, clippy::print_stdout, reason = "shared by the crates whose readers are fuzzed")]
#[path = "../../fuzz/src/corpus.rs"]
mod corpus;

use corpus::{Random, run};

#[test]
fn arp_frame_corpus_holds() {
    run("arp_frame", checks::arp_frame, 1);
}

#[test]
fn ndp_frame_corpus_holds() {
    run("ndp_frame", checks::ndp_frame, 1);
}

#[test]
fn l2_engine_corpus_holds() {
    run("l2_engine", checks::l2_engine, 1);
}

#[test]
fn l2_operations_corpus_holds() {
    run("l2_operations", checks::l2_operations, 1);
}

#[test]
fn random_operations_hold() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..3000 {
        let bytes: Vec<u8> = (0..120).map(|_| random.octet()).collect();
        checks::l2_operations(&bytes);
    }
}
