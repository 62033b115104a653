//! Processor time and memory of processes.

use std::error::Error;
use std::fs;
use std::time::Duration;

/// Processor time of all threads since their start.
///
/// # Errors
/// A process does not exist.
pub fn cpu(pids: &[u32]) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let mut sum = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let statistics = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += statistics.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Memory in MiB, by a field of `/proc/PID/status`: `VmRSS:` is the resident memory, `VmHWM:` its maximum.
///
/// # Errors
/// A process does not exist.
pub fn memory(pids: &[u32], name: &str) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let mut sum = 0.0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
        sum += line.trim().trim_end_matches(" kB").parse::<f64>()?;
    }
    Ok(sum / 1024.0)
}
