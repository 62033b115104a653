//! Shared parts of the benchmarks: simple algorithms to compare with, and measurements of processes.

pub mod cpu_time;
pub mod election;
pub mod linear_allocator;
pub mod report;
pub mod usage;
