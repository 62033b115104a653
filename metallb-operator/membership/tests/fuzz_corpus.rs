//! The checks of the fuzz target `gossip_frame`, over its corpus and over damaged copies of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[allow(clippy::print_stdout, reason = "shared by the crates whose readers are fuzzed")]
#[path = "../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/src/gossip.rs"]
mod gossip;

use corpus::{Random, run, seeds};

#[test]
fn gossip_corpus_holds() {
    run("gossip_frame", gossip::gossip_frame, 1);
}

#[test]
fn damaged_gossip_holds() {
    let corpus = seeds("gossip_frame");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..300 {
        let mut bytes = corpus[round % corpus.len()].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.octet(),
                _ => bytes.extend(&corpus[random.below(corpus.len())]),
            }
        }
        gossip::gossip_frame(&bytes);
    }
}
