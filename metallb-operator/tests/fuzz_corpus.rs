//! The check of the fuzz target `manifests`, over its corpus and over small damage to it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "checks fail by panicking")]

#[path = "../../fuzz/src/manifests.rs"]
mod checks;

use std::path::Path;

#[test]
fn manifest_corpus_holds() {
    for seed in corpus() {
        checks::manifests(&seed);
    }
}

#[test]
fn damaged_manifests_hold() {
    let corpus = corpus();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % limit.max(1)
    };
    for round in 0..ROUNDS {
        let mut text = corpus[round % corpus.len()].clone();
        for _ in 0..=below(3) {
            let at = below(text.len());
            match below(4) {
                0 => text[at] = b"-:{}[]#&*!|>\'\"%@ \n\t\xff"[below(20)],
                1 => drop(text.remove(at)),
                2 => text.truncate(at.max(1)),
                _ => {
                    let other = &corpus[below(corpus.len())];
                    let from = below(other.len());
                    text.splice(at..at, other[from..(from + below(40)).min(other.len())].iter().copied());
                }
            }
        }
        checks::manifests(&text);
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/manifests");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus is empty");
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

const ROUNDS: usize = 3000;
