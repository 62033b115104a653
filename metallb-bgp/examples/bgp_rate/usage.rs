//! What processes take of the machine.

use std::fs;
use std::time::Duration;

use crate::Error;

/// Processor time of all threads so far, to the nanosecond.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration, Error> {
    let mut sum = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let statistics = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += statistics.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Memory in MiB, by a name of `/proc/PID/status`: `VmRSS:` is what is resident now, `VmHWM:` the most that was.
pub(crate) fn memory(pids: &[u32], name: &str) -> Result<f64, Error> {
    let mut sum = 0.0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
        sum += line.trim().trim_end_matches(" kB").parse::<f64>()?;
    }
    Ok(sum / 1024.0)
}
