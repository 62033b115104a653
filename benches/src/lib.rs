//! Naive, upstream-shaped algorithms that the benchmarks compare ours with.

pub mod election;
pub mod linear_allocator;
