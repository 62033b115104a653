//! Naive, upstream-shaped algorithms that the benchmarks compare ours with.

pub mod cpu_time;
pub mod election;
pub mod linear_allocator;
pub mod report;
