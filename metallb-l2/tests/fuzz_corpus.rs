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

#[test]
fn l2_operations_corpus_holds() {
    run("l2_operations", checks::l2_operations);
}

#[test]
fn random_operations_hold() {
    // A cheap generator: what it finds becomes a seed.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..3000 {
        let bytes: Vec<u8> = (0..120)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.to_le_bytes()[3]
            })
            .collect();
        checks::l2_operations(&bytes);
    }
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
