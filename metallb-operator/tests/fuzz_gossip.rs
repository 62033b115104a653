//! The check of the fuzz target `gossip_frame`, over its corpus and over small damage to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what it expects"
)]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[path = "../../fuzz/src/gossip.rs"]
mod checks;

use std::path::Path;

#[test]
fn gossip_corpus_holds() {
    for (name, seed) in corpus() {
        println!("{name}");
        checks::gossip_frame(&seed);
    }
}

#[test]
fn damaged_gossip_holds() {
    let corpus = corpus();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % limit.max(1)
    };
    for round in 0..ROUNDS {
        let mut bytes = corpus[round % corpus.len()].1.clone();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            match below(3) {
                0 => bytes[at] ^= 1 << below(8),
                1 => bytes[at] = below(256) as u8,
                _ => {
                    let other = &corpus[below(corpus.len())].1;
                    bytes.extend(other);
                }
            }
        }
        checks::gossip_frame(&bytes);
    }
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/gossip_frame");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus is empty");
    files.iter().map(|file| (file.display().to_string(), std::fs::read(file).unwrap())).collect()
}

const ROUNDS: usize = 300;
