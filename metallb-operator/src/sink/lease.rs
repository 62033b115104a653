//! One writer among controllers: a `coordination.k8s.io/v1` Lease, judged by observed age.
//!
//! Several controllers may run at once, during a rolling update for example. All of them follow the cluster; only the
//! holder of the Lease writes. A Lease is free when this process has not seen it change for its duration, by the
//! monotonic clock of this process: clocks of two machines are never compared
//! (docs/design/0028-leadership-by-observed-age.md).
//!
//! - [`LeaseKeeper`] owns a thread with a runtime and connections of its own, so that nothing else delays a renewal.
//! - [`Leadership`] is what the rest of the process sees of it: a [`Standing`] to wait for, and
//!   [`Leadership::may_write`], to be asked before each write.
//! - The rules are in `lease/elector.rs`, without any input or output.

mod elector;
mod follow;
mod grant;
mod identity;
mod journal;
mod keeper;
mod lock;
mod record;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{oneshot, watch};

use self::grant::Grant;
pub use self::identity::Identity;

/// Which Lease is kept, by whom, and how.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// This process.
    pub identity: Identity,
    /// For how long and how often.
    pub timing: LeaseTiming,
}

/// For how long a Lease is valid, and how often it is renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseTiming {
    duration: Duration,
    deadline: Duration,
    renew_every: Duration,
}

/// Why the times do not fit together.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TimingError {
    /// Too short or too long for a Lease.
    #[error("the duration of the Lease must be from 1 s to 60 s")]
    Duration,
    /// Another process could take the Lease while this one still writes.
    #[error("the renew deadline must be shorter than the duration of the Lease")]
    Deadline,
    /// A single renewal that fails would end the leadership.
    #[error("the renew period must be at least 100 ms and shorter than the renew deadline")]
    Period,
}

impl LeaseTiming {
    /// The longest duration that a Lease may have, in seconds: of our own and, where another process wrote more into
    /// the Lease, the longest that is believed.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Times that fit together: `renew_every` < `deadline` < `duration` ≤ [`Self::LONGEST`].
    ///
    /// # Errors
    /// [`TimingError`] says which of them does not fit.
    pub fn new(duration: Duration, deadline: Duration, renew_every: Duration) -> Result<Self, TimingError> {
        if !(Duration::from_secs(1)..=Self::LONGEST).contains(&duration) {
            return Err(TimingError::Duration);
        }
        if deadline >= duration {
            return Err(TimingError::Deadline);
        }
        if renew_every < Duration::from_millis(100) || renew_every >= deadline {
            return Err(TimingError::Period);
        }
        Ok(Self { duration, deadline, renew_every })
    }
}

impl Default for LeaseTiming {
    /// 5 s, 3 s and 1 s.
    fn default() -> Self {
        let (duration, deadline) = (Duration::from_secs(5), Duration::from_secs(3));
        Self { duration, deadline, renew_every: Duration::from_secs(1) }
    }
}

/// A stretch of time in which this process leads. Terms count from 1 and increase with each acquisition and with each
/// restore of etcd; they mean nothing to other processes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Term(u64);

/// Where this process stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// The present term; `None` while another process leads, or nobody.
    pub term: Option<Term>,
    /// How many times a restore of etcd was proven by a write of this process.
    pub restores: u64,
}

/// What the process sees of its leadership. Clones see the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    standing: watch::Receiver<Standing>,
    grant: Arc<Grant>,
}

impl Leadership {
    /// Where this process stands, as the keeper saw it last.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Waits for the next change of the standing. For ever when the keeper has ended.
    pub async fn changed(&mut self) -> Standing {
        if self.standing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.standing.borrow_and_update()
    }

    /// Whether a write of `term` may start now. Reads the monotonic clock and compares it with the start of the last
    /// renewal that was answered, plus the deadline: a process that was stopped sees `false` when it goes on. Never
    /// blocks.
    #[must_use]
    pub fn may_write(&self, term: Term) -> bool {
        self.grant.covers(term, Instant::now)
    }
}

/// Keeps the Lease on a thread of its own. When it is dropped the thread ends, and the Lease runs out by itself.
#[derive(Debug)]
pub struct LeaseKeeper {
    release: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseKeeper {
    /// Starts the thread. It connects with `config`, on connections of its own.
    ///
    /// # Errors
    /// When the operating system gives no thread. An API server that is away is no error, now or later.
    pub fn start(config: kube::Config, settings: LeaseSettings) -> std::io::Result<(Self, Leadership)> {
        let grant = Arc::new(Grant::new(Instant::now()));
        let (publish, standing) = watch::channel(Standing::default());
        let (release, released) = oneshot::channel();
        let office = keeper::Office::new(publish, Arc::clone(&grant));
        let thread = std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || keeper::run(config, &settings, office, released))?;
        Ok((Self { release: Some(release), thread: Some(thread) }, Leadership { standing, grant }))
    }

    /// Gives the Lease back, so that a successor need not wait for it to run out, and ends the thread. Nothing may be
    /// written from here on. Takes at most 400 ms; a Lease that could not be given back in this time runs out by
    /// itself.
    pub async fn release(mut self) {
        // The thread may have ended by itself; then there is nothing to give back.
        let asked = self.release.take().is_some_and(|release| release.send(()).is_ok());
        let Some(thread) = self.thread.take().filter(|_| asked) else { return };
        let ended = tokio::task::spawn_blocking(move || thread.join());
        // The thread keeps the limit; the slack is for a machine that is busy.
        if !matches!(tokio::time::timeout(RELEASE_LIMIT + RELEASE_SLACK, ended).await, Ok(Ok(Ok(())))) {
            tracing::warn!(event = "leaseReleaseFailed", "the thread that keeps the Lease did not end in time");
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by then.
            let _ = thread.join();
        }
    }
}

/// The time in which the Lease is given back.
const RELEASE_LIMIT: Duration = Duration::from_millis(400);

const RELEASE_SLACK: Duration = Duration::from_millis(100);
