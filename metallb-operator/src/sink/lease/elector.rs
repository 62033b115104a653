//! The rules of leadership, without input or output: requests and their results are values, and time is an argument.
//!
//! The monotonic clock decides everything. The wall clock is only copied into `renewTime`, for people who read the
//! Lease.
//!
//! Why two electors never write at one time, if their monotonic clocks run at the same rate: a leader may write
//! until `deadline` after the *start* of its last renewal that was answered. Another process takes the Lease only by an
//! update that names the version which it has seen unchanged for at least `duration`, and `deadline` is shorter than
//! `duration`. It saw that version after the renewal was started, so its wait starts later and ends later.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;

use super::identity::{Identity, PodUid};
use super::record::{self, Version};
use super::{Claim, LeaseSettings, Standing, Term};

/// The next step.
#[derive(Debug)]
pub(super) struct Step {
    /// Send this request now; report its result with [`Elector::ended`].
    pub(super) request: Option<Request>,
    /// Ask again at this time, unless something happens before.
    pub(super) wake: Option<Instant>,
}

/// A request to the API server. At most one is in progress.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    /// Read the Lease without a resourceVersion: the answer must not come from a cache.
    Get,
    /// Create it.
    Create(Box<Lease>),
    /// Replace it; the update names the version that it replaces.
    Update(Box<Lease>),
}

/// The result of a request.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// Success, with the present Lease.
    Done(Box<Lease>),
    /// The Lease does not exist.
    Absent,
    /// Nothing was written, because another write came first (409).
    Conflict,
    /// The server refuses the request; nothing was read or written.
    Refused,
    /// Unknown: no answer, or a server error. The request may still be executed.
    Unknown,
}

/// A change of the state, for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// This process leads now.
    Acquired(Term),
    /// This process no longer leads.
    Lost(Loss),
    /// Another process holds the Lease.
    Follows(String),
    /// A restore of etcd was detected.
    Restored,
}

/// Why this process no longer leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Loss {
    /// No renewal was answered before the deadline.
    Late,
    /// The Lease names another holder or none.
    Taken,
    /// A restore of etcd reverted the Lease; it is evaluated again.
    SetBack,
    /// This process releases it.
    Released,
}

/// Decides when to read, create and renew one Lease, and whether this process leads.
#[derive(Debug)]
pub(super) struct Elector {
    settings: LeaseSettings,
    /// Our identity as written: with the Pod's uid only while this process holds the Pod's lock.
    claimant: Identity,
    observed: Observed,
    follows: bool,
    releasing: bool,
    pending: Option<Pending>,
    /// After a conflict the Lease must be read before the next write.
    conflicted: bool,
    failures: u32,
    not_before: Option<Instant>,
    last_read: Option<Instant>,
    /// Start of the last answered renewal.
    renewed: Option<Instant>,
    last_write: Option<Version>,
    leading: Option<Leading>,
    terms: u64,
    restores: u64,
    rewinds: u64,
    /// The last other holder that was reported.
    followed: Option<String>,
    turns: Vec<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Leading {
    term: Term,
    until: Instant,
}

/// Knowledge about the Lease.
#[derive(Clone, Debug)]
enum Observed {
    Nothing,
    /// It does not exist. If another process held it before, it is not created before that process must have stopped.
    /// stopped.
    Absent {
        free_at: Instant,
    },
    Present {
        lease: Box<Lease>,
        seen: Instant,
    },
}

#[derive(Clone, Debug)]
struct Pending {
    started: Instant,
    purpose: Purpose,
    /// The version that is replaced.
    base: Option<Version>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    Read,
    Create,
    Hold,
    Release,
}

impl Elector {
    /// An elector that has seen nothing.
    pub(super) fn new(settings: LeaseSettings) -> Self {
        let claimant = settings.identity.with_uid(None);
        Self {
            settings,
            claimant,
            observed: Observed::Nothing,
            follows: false,
            releasing: false,
            pending: None,
            conflicted: false,
            failures: 0,
            not_before: None,
            last_read: None,
            renewed: None,
            last_write: None,
            leading: None,
            terms: 0,
            restores: 0,
            rewinds: 0,
            followed: None,
            turns: Vec::new(),
        }
    }

    /// From now on this process holds the lock of its Pod, so that it may take the Lease from the process before it.
    pub(super) fn hold_pod_lock(&mut self, uid: PodUid) {
        self.claimant = self.claimant.with_uid(Some(uid));
    }

    /// Whether a watch reports each change. Without one the Lease is read once in each renewal period.
    pub(super) const fn follow(&mut self, follows: bool) {
        self.follows = follows;
    }

    /// From now on the Lease is given back, and not taken again.
    pub(super) fn release(&mut self) {
        self.releasing = true;
        self.lose(Loss::Released);
    }

    /// Whether nothing is left to give back.
    pub(super) fn is_released(&self) -> bool {
        self.releasing && self.pending.is_none() && !self.conflicted && !self.is_ours()
    }

    /// Where this process stands.
    pub(super) fn standing(&self, claim: Claim) -> Standing {
        Standing { term: self.leading.map(|leading| leading.term), restores: self.restores, claim }
    }

    /// Whether this process has seen neither the Lease nor its absence.
    pub(super) const fn has_seen_nothing(&self) -> bool {
        matches!(self.observed, Observed::Nothing)
    }

    /// Leads until the deadline after `sent`, when a request was sent that the Role forbids. Has no effect on a process
    /// that has seen the Lease or its absence: such a process is allowed to read it, and another one may hold it.
    pub(super) fn lead_without_lease(&mut self, now: Instant, sent: Instant) {
        self.expire(now);
        let until = sent + self.settings.timing.deadline;
        if !self.releasing && until > now && self.has_seen_nothing() {
            self.lead(until);
        }
    }

    /// The present term and until when it may write.
    pub(super) fn grant(&self) -> Option<(Term, Instant)> {
        self.leading.map(|leading| (leading.term, leading.until))
    }

    /// How many times an authoritative answer was older than what had been seen. A watch that was started before is of
    /// no use.
    pub(super) const fn rewinds(&self) -> u64 {
        self.rewinds
    }

    /// What changed since it was asked last.
    pub(super) fn take_turns(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turns)
    }

    /// The Lease as a watch or a list shows it. Ignored when it is not newer than what was seen.
    pub(super) fn observe(&mut self, now: Instant, lease: Box<Lease>) {
        self.see(now, lease, Authority::Cache);
    }

    /// A watch or a list of this version shows that there is no Lease.
    pub(super) fn observe_absence(&mut self, now: Instant, version: Option<Version>) {
        if let Observed::Present { lease, .. } = &self.observed
            && let (Some(seen), Some(version)) = (Version::of(lease), version)
            && version < seen
        {
            return;
        }
        self.see_absence(now);
    }

    /// The end of the request under way.
    pub(super) fn ended(&mut self, now: Instant, end: End) {
        self.expire(now);
        let Some(pending) = self.pending.take() else { return };
        match (pending.purpose, end) {
            (_, End::Unknown | End::Refused) => self.retry_later(now),
            (_, End::Conflict) => {
                self.conflicted = true;
                self.failures = self.failures.saturating_add(1);
                // A conflict is looked at at once. One after another means that something else keeps writing.
                self.not_before = (self.failures > QUICK_CONFLICTS).then(|| now + self.pause());
            }
            (purpose, End::Absent) => {
                if purpose == Purpose::Read {
                    self.has_read(now);
                }
                self.see_absence(now);
            }
            (Purpose::Read, End::Done(lease)) => self.read(now, lease),
            (Purpose::Create | Purpose::Hold | Purpose::Release, End::Done(lease)) => {
                self.written(now, &pending, lease);
            }
        }
    }

    /// What to do now. `wall` is written to `renewTime` and decides nothing.
    pub(super) fn poll(&mut self, now: Instant, wall: Timestamp) -> Step {
        self.expire(now);
        let ends = self.leading.map(|leading| leading.until);
        if self.pending.is_some() {
            return Step { request: None, wake: ends };
        }
        let Some((purpose, due)) = self.due(now) else { return Step { request: None, wake: ends } };
        let due = self.not_before.map_or(due, |not_before| due.max(not_before));
        if due > now {
            return Step { request: None, wake: Some(ends.map_or(due, |ends| ends.min(due))) };
        }
        let (request, base) = self.request(purpose, wall);
        self.pending = Some(Pending { started: now, purpose, base });
        if purpose == Purpose::Read {
            self.last_read = Some(now);
        }
        Step { request: Some(request), wake: ends }
    }

    /// The next request and when it is due.
    fn due(&self, now: Instant) -> Option<(Purpose, Instant)> {
        if self.conflicted || matches!(self.observed, Observed::Nothing) {
            return (!self.is_released()).then_some((Purpose::Read, now));
        }
        if self.releasing {
            return self.is_ours().then_some((Purpose::Release, now));
        }
        let take = match &self.observed {
            Observed::Nothing => return None,
            Observed::Absent { free_at } => (Purpose::Create, *free_at),
            Observed::Present { .. } if self.is_ours() => {
                let renewed = self.renewed.filter(|_| self.leading.is_some());
                return Some((
                    Purpose::Hold,
                    renewed.map_or(now, |renewed| renewed + self.settings.timing.renew_every),
                ));
            }
            Observed::Present { lease, seen } => (Purpose::Hold, self.free_at(now, lease, *seen)),
        };
        if self.follows || take.1 <= now {
            return Some(take);
        }
        let read = self.last_read.map_or(now, |last| last + self.settings.timing.renew_every);
        Some(if read < take.1 { (Purpose::Read, read) } else { take })
    }

    fn request(&self, purpose: Purpose, wall: Timestamp) -> (Request, Option<Version>) {
        let base = match &self.observed {
            Observed::Present { lease, .. } => Some(lease.as_ref()),
            Observed::Nothing | Observed::Absent { .. } => None,
        };
        let version = base.and_then(Version::of);
        let claimed = |base| Box::new(record::claimed(base, &self.settings, &self.claimant, wall));
        match (purpose, base) {
            (Purpose::Read, _) => (Request::Get, None),
            (Purpose::Create, _) | (Purpose::Hold | Purpose::Release, None) => (Request::Create(claimed(None)), None),
            (Purpose::Hold, base) => (Request::Update(claimed(base)), version),
            (Purpose::Release, Some(base)) => {
                (Request::Update(Box::new(record::released(base, &self.settings, wall))), version)
            }
        }
    }

    /// When a Lease that is not ours may be taken.
    fn free_at(&self, now: Instant, lease: &Lease, seen: Instant) -> Instant {
        let Some(holder) = record::holder(lease) else { return now };
        if self.is_predecessor(holder) {
            return now;
        }
        seen + record::believed_duration(lease, &self.settings.timing)
    }

    /// Whether the holder was a process of this Pod that has ended: it held the lock that this process holds.
    fn is_predecessor(&self, holder: &str) -> bool {
        let uid = self.claimant.uid();
        uid.is_some() && Identity::parse(holder).is_some_and(|holder| holder.uid() == uid)
    }

    fn is_ours(&self) -> bool {
        let Observed::Present { lease, .. } = &self.observed else { return false };
        record::holder(lease).and_then(Identity::parse).is_some_and(|holder| holder.is_same_process(&self.claimant))
    }

    fn read(&mut self, now: Instant, lease: Box<Lease>) {
        let after_conflict = self.conflicted;
        self.has_read(now);
        let is_below = |last: Version| Version::of(&lease).is_some_and(|version| version < last);
        if after_conflict && self.last_write.is_some_and(is_below) {
            self.restored();
        }
        self.see(now, lease, if after_conflict { Authority::Server } else { Authority::Cache });
    }

    fn has_read(&mut self, now: Instant) {
        if !self.conflicted {
            self.failures = 0;
            self.not_before = None;
        }
        self.conflicted = false;
        self.last_read = Some(now);
    }

    fn written(&mut self, now: Instant, pending: &Pending, lease: Box<Lease>) {
        self.failures = 0;
        self.not_before = None;
        let version = Version::of(&lease);
        // Versions only grow, unless etcd was restored: here the Lease had been lost in it and was created by this
        // write.
        let is_set_back = version.is_some_and(|version| {
            self.last_write.is_some_and(|last| version < last) || pending.base.is_some_and(|base| version < base)
        });
        if is_set_back {
            self.restored();
        }
        self.last_write = version;
        self.see(now, lease, if is_set_back { Authority::Server } else { Authority::Cache });
        if pending.purpose == Purpose::Release || self.releasing || !self.is_ours() {
            return;
        }
        self.renewed = Some(pending.started);
        let until = pending.started + self.settings.timing.deadline;
        // The answer may have come too late; then the next renewal begins at once.
        if until <= now {
            return;
        }
        self.lead(until);
    }

    /// Leads until `until`, in the present term or a new one.
    fn lead(&mut self, until: Instant) {
        let term = self.leading.map_or_else(
            || {
                self.terms += 1;
                let term = Term(self.terms);
                self.turns.push(Turn::Acquired(term));
                term
            },
            |leading| leading.term,
        );
        self.leading = Some(Leading { term, until });
    }

    fn restored(&mut self) {
        self.restores += 1;
        self.last_write = None;
        self.turns.push(Turn::Restored);
        self.lose(Loss::SetBack);
    }

    fn see(&mut self, now: Instant, lease: Box<Lease>, authority: Authority) {
        if let Observed::Present { lease: before, .. } = &self.observed {
            let is_same = before.metadata.resource_version == lease.metadata.resource_version;
            if is_same && before.spec == lease.spec {
                return;
            }
            if let (Some(before), Some(version)) = (Version::of(before), Version::of(&lease))
                && version < before
            {
                if authority == Authority::Cache {
                    return;
                }
                self.rewinds += 1;
            }
        }
        self.observed = Observed::Present { lease, seen: now };
        if !self.is_ours() {
            self.lose(Loss::Taken);
        }
        self.tell_holder();
    }

    fn tell_holder(&mut self) {
        let Observed::Present { lease, .. } = &self.observed else { return };
        let holder = record::holder(lease).filter(|_| !self.is_ours()).map(str::to_owned);
        if holder != self.followed {
            self.followed.clone_from(&holder);
            self.turns.extend(holder.map(Turn::Follows));
        }
    }

    fn see_absence(&mut self, now: Instant) {
        let free_at = match &self.observed {
            Observed::Present { lease, seen } if !self.is_ours() => self.free_at(now, lease, *seen),
            Observed::Absent { free_at } => *free_at,
            Observed::Nothing | Observed::Present { .. } => now,
        };
        self.observed = Observed::Absent { free_at };
    }

    fn expire(&mut self, now: Instant) {
        if self.leading.is_some_and(|leading| leading.until <= now) {
            self.lose(Loss::Late);
        }
    }

    fn lose(&mut self, loss: Loss) {
        if self.leading.take().is_some() {
            self.turns.push(Turn::Lost(loss));
        }
    }

    fn retry_later(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause());
        self.failures = self.failures.saturating_add(1);
    }

    /// A quarter of the renewal period after the first failure, a whole one after the third.
    fn pause(&self) -> Duration {
        let period = self.settings.timing.renew_every;
        (period / 4 * 2_u32.pow(self.failures.min(2))).min(period)
    }
}

/// Where a picture of the Lease comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Authority {
    /// It may be older than what was seen.
    Cache,
    /// It is how things are now, even if it is older than what was seen.
    Server,
}

/// Conflicts in a row that are tried again without a pause.
const QUICK_CONFLICTS: u32 = 2;

#[cfg(test)]
mod tests;
