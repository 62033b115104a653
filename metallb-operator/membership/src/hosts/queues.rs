//! The queues of hosts without a handshake: messages to a host whose session is unknown, and datagrams that arrived before the
//! sender's `JoinAck`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::HOSTS_MAX;
use crate::wire::message::Message;

/// Messages to hosts whose session is unknown. Such a host is sent a `Join` again and again, at growing intervals,
/// until it answers or its messages expire: where one `Join` in twenty is lost, thousands of members would otherwise
/// suspect many live ones.
///
/// Bounded: at most [`MESSAGES_MAX`] messages per host, the oldest is dropped first; at most [`HOSTS_MAX`] hosts,
/// messages to further ones are dropped.
#[derive(Debug, Default)]
pub(crate) struct PendingMessages {
    by_address: BTreeMap<SocketAddr, Pending>,
    /// No `Join` is due earlier.
    join_at: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    messages: VecDeque<Message>,
    /// When the newest message was queued.
    since: Instant,
    join_at: Instant,
    /// The interval between the last `Join` and the next one.
    interval: Duration,
}

impl PendingMessages {
    /// Queues a message. True if the host must be sent its first `Join` now.
    pub(crate) fn push(&mut self, now: Instant, to: SocketAddr, message: Message) -> bool {
        let first = !self.by_address.contains_key(&to);
        if first && self.by_address.len() >= HOSTS_MAX {
            return false;
        }
        let new =
            || Pending { messages: VecDeque::new(), since: now, join_at: now + JOIN_INTERVAL, interval: JOIN_INTERVAL };
        let pending = self.by_address.entry(to).or_insert_with(new);
        if pending.messages.len() >= MESSAGES_MAX {
            pending.messages.pop_front();
        }
        pending.messages.push_back(message);
        pending.since = now;
        let at = pending.join_at;
        self.join_at = Some(self.join_at.map_or(at, |next| next.min(at)));
        first
    }

    /// The hosts whose next `Join` is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.join_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (address, pending) in &mut self.by_address {
            if pending.join_at <= now {
                pending.interval = (pending.interval * 2).min(JOIN_INTERVAL_MAX);
                pending.join_at = now + pending.interval;
                due.push(*address);
            }
        }
        self.join_at = self.by_address.values().map(|pending| pending.join_at).min();
        due
    }

    /// The earliest time at which a `Join` may be due.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.join_at
    }

    /// Removes and returns the messages to a host, oldest first.
    pub(crate) fn take(&mut self, to: SocketAddr) -> VecDeque<Message> {
        self.by_address.remove(&to).map(|pending| pending.messages).unwrap_or_default()
    }

    /// Drops messages to hosts that have not answered for [`MESSAGES_EXPIRE_AFTER`].
    pub(crate) fn expire(&mut self, now: Instant) {
        self.by_address.retain(|_, pending| now.saturating_duration_since(pending.since) < MESSAGES_EXPIRE_AFTER);
    }
}

/// Datagrams that arrived before the `JoinAck` of their sender, oldest first. Bounded: the oldest of [`EARLY_MAX`] is
/// dropped.
#[derive(Debug, Default)]
pub(crate) struct EarlyDatagrams(Vec<(Instant, SocketAddr, Vec<u8>)>);

impl EarlyDatagrams {
    /// Keeps a datagram.
    pub(crate) fn push(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.0.len() >= EARLY_MAX {
            self.0.remove(0);
        }
        self.0.push((now, from, datagram.to_vec()));
    }

    /// Removes and returns the datagrams of a host that are not older than [`EARLY_FOR`].
    pub(crate) fn take(&mut self, now: Instant, from: SocketAddr) -> Vec<Vec<u8>> {
        self.0.retain(|(since, ..)| now.saturating_duration_since(*since) < EARLY_FOR);
        self.0.extract_if(.., |(_, host, _)| *host == from).map(|(.., datagram)| datagram).collect()
    }
}

/// The interval between two `Join` messages to the same host, at first and at most.
const JOIN_INTERVAL: Duration = Duration::from_millis(50);
const JOIN_INTERVAL_MAX: Duration = Duration::from_secs(1);

const MESSAGES_EXPIRE_AFTER: Duration = Duration::from_secs(3);
const MESSAGES_MAX: usize = 8;

/// How much later than a datagram sent after it a `JoinAck` may arrive.
const EARLY_FOR: Duration = Duration::from_millis(50);
const EARLY_MAX: usize = 32;
