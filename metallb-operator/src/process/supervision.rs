//! Detects a process that is only half alive: a panic in any thread or task ends it, and a loop that hangs fails
//! `/healthz`. Either way it is started again, and meanwhile other speakers take its addresses over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ends the process with [`PANICKED`] after a panic in any thread or task, with a log line. Without this, the runtime
/// would end only the task, and the rest of the process would stay ready.
pub(crate) fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            event = "panicked",
            thread = thread.name().unwrap_or("unnamed"),
            location,
            "a thread panicked, ending the process: {}",
            panic.payload_as_str().unwrap_or("no message")
        );
        // The default hook prints a backtrace if the environment asks for one.
        print(panic);
        std::process::exit(PANICKED);
    }));
}

/// Knows the loops of this process and when each was last seen running.
#[derive(Clone, Debug)]
pub struct Watchdog {
    start: Instant,
    loops: Arc<Mutex<Vec<Watched>>>,
}

#[derive(Debug)]
struct Watched {
    name: &'static str,
    /// Milliseconds from the start to the last sign of life.
    last: Arc<AtomicU64>,
}

/// The sign of life of one loop, to be given at least every ten seconds.
#[derive(Clone, Debug)]
pub struct Pulse {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Watchdog {
    /// A watchdog without loops.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { start, loops: Arc::default() }
    }

    /// Watches a loop from now on.
    #[must_use]
    pub fn watch(&self, name: &'static str, now: Instant) -> Pulse {
        let pulse = Pulse { start: self.start, last: Arc::default() };
        pulse.beat(now);
        let watched = Watched { name, last: Arc::clone(&pulse.last) };
        self.loops.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
        pulse
    }

    /// The loops without a sign of life for longer than [`HANGS_AFTER`].
    #[must_use]
    pub fn hanging(&self, now: Instant) -> Vec<&'static str> {
        let now = since(self.start, now);
        let limit = u64::try_from(HANGS_AFTER.as_millis()).unwrap_or(u64::MAX);
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let hangs = |watched: &&Watched| now.saturating_sub(watched.last.load(Ordering::Relaxed)) > limit;
        loops.iter().filter(hangs).map(|watched| watched.name).collect()
    }
}

impl Pulse {
    /// The loop is alive.
    pub fn beat(&self, now: Instant) {
        self.last.store(since(self.start, now), Ordering::Relaxed);
    }
}

fn since(start: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

/// Exit code after a panic; the one of Rust's main thread.
pub(crate) const PANICKED: i32 = 101;

/// A loop that gave no sign of life for this time hangs. The largest configurations take a few seconds.
pub const HANGS_AFTER: Duration = Duration::from_mins(1);

/// Interval at which loops give their sign of life when nothing else happens.
pub(crate) const PULSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_without_a_sign_of_life_for_a_minute_hangs_until_the_next_one() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let watchdog = Watchdog::new(start);
        assert!(watchdog.hanging(at(1_000)).is_empty(), "nothing is watched");
        let (controller, lease) = (watchdog.watch("controller", at(10)), watchdog.watch("lease", at(10)));
        assert!(watchdog.hanging(at(70)).is_empty());
        lease.beat(at(70));
        assert_eq!(watchdog.hanging(at(71)), ["controller"]);
        assert_eq!(watchdog.hanging(at(131)), ["controller", "lease"]);
        controller.beat(at(131));
        assert_eq!(watchdog.hanging(at(131)), ["lease"]);
    }

    /// Runs this test once more as a process of its own, which panics in the place that `PANIC_IN` names.
    #[test]
    fn panic_in_a_task_a_thread_or_a_blocking_call_ends_the_process() {
        if let Ok(place) = std::env::var("PANIC_IN") {
            return panic_in(&place);
        }
        for place in ["task", "thread", "blocking"] {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "process::supervision::tests::panic_in_a_task_a_thread_or_a_blocking_call_ends_the_process",
                ])
                .args(["--nocapture", "--test-threads=1"])
                .env("PANIC_IN", place)
                .output()
                .unwrap();
            let printed = String::from_utf8_lossy(&child.stderr).into_owned();
            assert_eq!(child.status.code(), Some(PANICKED), "{place}: {printed}");
            assert!(printed.contains("injected") && !printed.contains("still running"), "{place}: {printed}");
        }
    }

    fn panic_in(place: &str) {
        end_on_panic();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            match place {
                "task" => drop(tokio::spawn(async { panic!("injected") })),
                "thread" => drop(std::thread::spawn(|| panic!("injected"))),
                _ => drop(tokio::task::spawn_blocking(|| panic!("injected"))),
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        });
        eprintln!("still running");
        std::process::exit(0);
    }
}
