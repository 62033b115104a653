//! Measures the cost of one event in a speaker with many Services, and the takeover from a dead node while a
//! configuration is being loaded: `moves [SERVICES]` (50,000).
//!
//! Run: `cargo run --release -p metallb-benches --example moves`.

#![expect(clippy::print_stdout, reason = "a measurement prints times")]

mod event;
mod takeover;
mod world;

use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let services = std::env::args().nth(1).map_or(Ok(50_000), |text| text.parse())?;
    event::measure(&[100, 1_000, 5_000])?;
    takeover::measure(services)
}

/// The middle and the longest of some times.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}
