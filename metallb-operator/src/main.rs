//! The metallb binary.
fn main() {}
