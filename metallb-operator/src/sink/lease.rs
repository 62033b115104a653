//! One writer among controllers: a `coordination.k8s.io/v1` Lease, judged by observed age.
//!
//! Several controllers may run at once, during a rolling update for example. All of them follow the cluster; only the
//! holder of the Lease writes. A Lease is free when this process has not seen it change for its duration, by the
//! monotonic clock of this process: clocks of two machines are never compared
//! (docs/design/0028-leadership-by-observed-age.md).
//! `kubert::lease` and `kube-lease-manager` need an older kube, and their clock rules differ.
//!
//! - [`LeaseKeeper`] owns a thread with a runtime and connections of its own, so that nothing else delays a renewal.
//! - [`Leadership`] is what the rest of the process sees of it: a [`Standing`] to wait for, and
//!   [`Leadership::may_write`], to be asked before each write.
//! - Where the Role allows no Lease, `lease/forbidden.rs` decides when to go on without one.
//! - The rules are in `lease/elector.rs`, without any input or output.

mod elector;
mod follow;
mod forbidden;
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

/// Settings of one Lease.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Identity of this process.
    pub identity: Identity,
    /// Duration and interval of renewals.
    pub timing: LeaseTiming,
}

/// Duration of a Lease and interval of its renewals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseTiming {
    duration: Duration,
    deadline: Duration,
    renew_every: Duration,
}

/// Why the durations are inconsistent.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TimingError {
    /// The duration is out of range.
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
    /// The longest duration of a Lease, in seconds. Limits our own duration, and how long a duration written by another
    /// process is respected.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Checks that `renew_every` < `deadline` < `duration` ≤ [`Self::LONGEST`].
    ///
    /// # Errors
    /// [`TimingError`] names the violated rule.
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

/// A period during which this process leads. Terms count from 1 and increase with each acquisition and with each
/// restore of etcd; they have no meaning to other processes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Term(u64);

/// State of the leadership.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// The present term; `None` if this process does not lead.
    pub term: Option<Term>,
    /// Number of restores of etcd that a write of this process detected.
    pub restores: u64,
    /// Whether the Role of this process allows it to claim the Lease.
    pub claim: Claim,
}

/// Whether this process can claim the Lease.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Claim {
    /// No answer of the API server contradicts it.
    #[default]
    Possible,
    /// The API server answers that the Role forbids it: nobody leads.
    Refused,
    /// The Role forbids it for good: this process leads without a Lease.
    Waived,
}

/// Handle to the state of the leadership. Clones share the state.
#[derive(Clone, Debug)]
pub struct Leadership {
    standing: watch::Receiver<Standing>,
    grant: Arc<Grant>,
}

impl Leadership {
    /// The last state that the keeper published.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Waits for the next change of the state. Waits for ever if the keeper has ended.
    pub async fn changed(&mut self) -> Standing {
        if self.standing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.standing.borrow_and_update()
    }

    /// Whether a write of `term` may start now. Compares the monotonic clock with the start of the last answered
    /// renewal plus the deadline, so a process that was suspended gets `false` when it resumes. Never blocks.
    #[must_use]
    pub fn may_write(&self, term: Term) -> bool {
        self.grant.covers(term, Instant::now)
    }
}

/// Keeps the Lease on a thread of its own. Dropping it ends the thread, and the Lease then expires.
#[derive(Debug)]
pub struct LeaseKeeper {
    release: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseKeeper {
    /// Starts the thread, which opens its own connections with `config`.
    ///
    /// # Errors
    /// The operating system refuses the thread. An unreachable API server is never an error.
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

    /// Releases the Lease, so that a successor need not wait for its expiry, and ends the thread. Nothing may be
    /// written afterwards. Takes at most 400 ms; a Lease that is not released in this time expires.
    pub async fn release(mut self) {
        // The thread may have ended already; then there is nothing to release.
        let asked = self.release.take().is_some_and(|release| release.send(()).is_ok());
        let Some(thread) = self.thread.take().filter(|_| asked) else { return };
        let ended = tokio::task::spawn_blocking(move || thread.join());
        // The thread observes the limit; the slack covers a busy machine.
        if !matches!(tokio::time::timeout(RELEASE_LIMIT + RELEASE_SLACK, ended).await, Ok(Ok(Ok(())))) {
            tracing::warn!(event = "leaseReleaseFailed", "the thread that keeps the Lease did not end in time");
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

/// Name of the Lease of the controllers.
pub(crate) const LEASE: &str = "metallb-controller";

/// Time limit for the release of the Lease.
const RELEASE_LIMIT: Duration = Duration::from_millis(400);

const RELEASE_SLACK: Duration = Duration::from_millis(100);
