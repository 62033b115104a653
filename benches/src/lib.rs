//! Naive, upstream-shaped algorithms that the benchmarks compare ours with.
