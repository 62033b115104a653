//! The checks of the fuzz target `manifests`, over its corpus and over damaged copies of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[allow(clippy::print_stdout, reason = "shared by the crates whose readers are fuzzed")]
#[path = "../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../fuzz/src/manifests.rs"]
mod manifests;

use corpus::{Random, run, seeds};

#[test]
fn manifest_corpus_holds() {
    run("manifests", manifests::manifests, 1);
}

#[test]
fn damaged_manifests_hold() {
    let corpus = seeds("manifests");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..3000 {
        let mut text = corpus[round % corpus.len()].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(text.len());
            match random.below(5) {
                0 => text[at] = b"-:{}[]#&*!|>'\"%@ \n\t\xff"[random.below(20)],
                1 => drop(text.remove(at)),
                2 => text.truncate(at.max(1)),
                3 => text[at] = random.octet(),
                _ => {
                    let other = &corpus[random.below(corpus.len())];
                    let from = random.below(other.len());
                    text.splice(at..at, other[from..(from + random.below(40)).min(other.len())].iter().copied());
                }
            }
        }
        manifests::manifests(&text);
    }
}
