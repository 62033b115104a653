//! Running the checks without a fuzzer: the seeds of a target, and cheap numbers to damage them with. What a fuzzer finds becomes a seed.

use std::path::Path;

/// The seeds of a target, by name of file.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let directory = above.map(|directory| directory.join("fuzz/corpus").join(target)).find(|corpus| corpus.is_dir());
    let directory = directory.expect("a crate of this repository has the corpus above it");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus is empty");
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Checks every seed of a target; there must be `least` of them.
pub fn run(target: &str, check: fn(&[u8]), least: usize) {
    let seeds = seeds(target);
    for (number, seed) in seeds.iter().enumerate() {
        // Shown only where the check fails.
        println!("{target}, seed {number}");
        check(seed);
    }
    assert!(seeds.len() >= least, "only {} seeds", seeds.len());
}

/// A cheap generator.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`; zero where that is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound.max(1)
    }

    /// Any octet.
    pub fn octet(&mut self) -> u8 {
        self.below(256) as u8
    }
}
