//! Log lines of the keeper: one for each change of state, none for repeated attempts.

use std::io;

use kube::Error;

use super::Claim;
use super::elector::{Loss, Turn};

/// Remembers the last report of each kind.
#[derive(Debug)]
pub(super) struct Journal {
    lease: String,
    trouble: Option<Trouble>,
    is_unwatched: bool,
    is_unlocked: bool,
    claim: Claim,
}

/// Why the Lease cannot be read or written, as coarsely as a person needs it to act.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trouble {
    Refused(u16),
    NoAnswer,
}

impl Journal {
    pub(super) fn new(lease: &str) -> Self {
        Self { lease: lease.to_owned(), trouble: None, is_unwatched: false, is_unlocked: false, claim: Claim::Possible }
    }

    pub(super) fn turned(&self, turns: Vec<Turn>) {
        let lease = &self.lease;
        for turn in turns {
            match turn {
                Turn::Acquired(term) => {
                    tracing::info!(lease, term = term.0, event = "leadershipAcquired", "this process leads now");
                }
                Turn::Lost(loss) => {
                    let why = match loss {
                        Loss::Late => "no renewal of the Lease was answered in time",
                        Loss::Taken => "the Lease names another holder",
                        Loss::SetBack => "a restore of etcd reverted the Lease",
                        Loss::Released => "this process released the Lease",
                    };
                    tracing::info!(lease, why, event = "leadershipLost", "this process no longer leads");
                }
                Turn::Follows(holder) => {
                    tracing::info!(lease, holder, event = "leaderFollowed", "another process holds the Lease");
                }
                Turn::Restored => tracing::warn!(
                    lease,
                    event = "etcdRestored",
                    "the Lease is older than the last write of this process: etcd was restored from a snapshot"
                ),
            }
        }
    }

    /// A request ended, without or with an error other than a conflict.
    pub(super) fn answered(&mut self, error: Option<&Error>) {
        let trouble = error.map(|error| match error {
            Error::Api(status) if (400..500).contains(&status.code) => Trouble::Refused(status.code),
            _ => Trouble::NoAnswer,
        });
        if trouble == self.trouble {
            return;
        }
        let lease = &self.lease;
        match error {
            Some(error) => tracing::warn!(
                lease,
                error = error as &dyn std::error::Error,
                event = "leaseUnavailable",
                "cannot read or write the Lease, retrying"
            ),
            None => tracing::info!(lease, event = "leaseAvailable", "the Lease is readable and writable again"),
        }
        self.trouble = trouble;
    }

    /// Whether the Role allows a claim.
    pub(super) fn claimed(&mut self, claim: Claim) {
        let before = std::mem::replace(&mut self.claim, claim);
        let lease = &self.lease;
        match claim {
            _ if before == claim => {}
            Claim::Possible => {
                tracing::info!(lease, event = "leaseAllowed", "the Role allows the Lease: one controller writes");
            }
            Claim::Refused => tracing::error!(
                lease,
                event = "leaseForbidden",
                "no controller leads: the Role of this process must allow get, list, watch, create and update of \
                 leases in coordination.k8s.io"
            ),
            Claim::Waived => tracing::error!(
                lease,
                event = "leaseWaived",
                "going on without a Lease, which the Role of this process forbids: run one controller only, or allow \
                 get, list, watch, create and update of leases in coordination.k8s.io"
            ),
        }
    }

    /// The watch of the Lease works, or ended with an error.
    pub(super) fn watched(&mut self, error: Option<&Error>) {
        let lease = &self.lease;
        match error {
            Some(error) if !self.is_unwatched => tracing::warn!(
                lease,
                error = error as &dyn std::error::Error,
                event = "leaseUnwatched",
                "cannot watch the Lease; it is read once per renewal period"
            ),
            None if self.is_unwatched => tracing::info!(lease, event = "leaseWatched", "the Lease is watched again"),
            _ => {}
        }
        self.is_unwatched = error.is_some();
    }

    /// The lock of the Pod was taken, or not.
    pub(super) fn locked(&mut self, error: Option<&io::Error>) {
        let lease = &self.lease;
        if let Some(error) = error
            && !self.is_unlocked
        {
            tracing::warn!(
                lease,
                %error,
                event = "podLockHeld",
                "cannot take the lock of this Pod, so the Lease is not reclaimed before it expires"
            );
        }
        self.is_unlocked = error.is_some();
    }

    /// The Lease could not be given back in time.
    pub(super) fn not_released(&self) {
        tracing::warn!(
            lease = self.lease,
            event = "leaseReleaseFailed",
            "the Lease was not released in time and will expire"
        );
    }
}
