//! The hosts that have completed the handshake: identity, session, and the sequence numbers already received.

mod queues;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;
use metallb_l2::interface::MacAddr;

pub(crate) use self::queues::{EarlyDatagrams, PendingMessages};
use crate::wire::identity::Identity;
use crate::wire::message::Readiness;

/// All known hosts, by address; at most [`HOSTS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    by_address: BTreeMap<SocketAddr, Host>,
    by_node: BTreeMap<NodeName, SocketAddr>,
}

/// A known host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) identity: Identity,
    pub(crate) session: u64,
    /// When its last datagram arrived.
    pub(crate) last_heard: Instant,
    /// As stated in its last datagram.
    pub(crate) readiness: Readiness,
    /// The hardware addresses that it reported.
    pub(crate) hardware: Vec<MacAddr>,
    received: ReplayWindow,
}

/// The result of admitting a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Admission {
    /// The host was known already.
    Known,
    /// The host is new, or has restarted.
    New,
    /// The host presents an older incarnation of a node whose current one has this number.
    StaleIncarnation(u64),
    /// The name belongs to another live host.
    NameClash,
    /// The table is full: the newcomer is turned away.
    Full,
}

impl Hosts {
    pub(crate) fn get(&self, address: SocketAddr) -> Option<&Host> {
        self.by_address.get(&address)
    }

    pub(crate) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Host> {
        self.by_address.get_mut(&address)
    }

    pub(crate) fn by_node(&self, node: &NodeName) -> Option<&Host> {
        self.by_address.get(self.by_node.get(node)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Host> {
        self.by_address.values()
    }

    /// Records the host at an address; a datagram of this session has proven it.
    pub(crate) fn admit(&mut self, now: Instant, session: u64, identity: &Identity) -> Admission {
        let address = identity.address;
        if let Some(known) = self.by_address.get_mut(&address)
            && known.session == session
            && known.identity.node() == identity.node()
        {
            known.identity.incarnation = known.identity.incarnation.max(identity.incarnation);
            return Admission::Known;
        }
        if let Some(owner) = self.by_node(identity.node())
            && owner.identity.address != address
            && now.saturating_duration_since(owner.last_heard) < NAME_RELEASED_AFTER
        {
            return Admission::NameClash;
        }
        if let Some(known) = self.by_node(identity.node())
            && known.identity.incarnation > identity.incarnation
        {
            return Admission::StaleIncarnation(known.identity.incarnation);
        }
        if self.by_address.len() >= HOSTS_MAX && !self.by_address.contains_key(&address) {
            return Admission::Full;
        }
        self.remove(address);
        if let Some(elsewhere) = self.by_node.get(identity.node()).copied() {
            self.remove(elsewhere);
        }
        self.by_node.insert(identity.node().clone(), address);
        let host = Host {
            identity: identity.clone(),
            session,
            last_heard: now,
            readiness: Readiness::Ready,
            hardware: Vec::new(),
            received: ReplayWindow::default(),
        };
        self.by_address.insert(address, host);
        Admission::New
    }

    /// Removes hosts that were silent for [`EXPIRE_AFTER`]. Members stay: in a cluster of thousands two of them may
    /// exchange no datagram for minutes.
    pub(crate) fn expire<'a>(&mut self, now: Instant, members: impl Iterator<Item = &'a Identity>) {
        let silent = |host: &&Host| now.saturating_duration_since(host.last_heard) > EXPIRE_AFTER;
        let mut silent: BTreeSet<SocketAddr> =
            self.by_address.values().filter(silent).map(|host| host.identity.address).collect();
        if !silent.is_empty() {
            members.for_each(|member| {
                silent.remove(&member.address);
            });
        }
        silent.into_iter().for_each(|address| self.remove(address));
    }

    fn remove(&mut self, address: SocketAddr) {
        if let Some(old) = self.by_address.remove(&address)
            && self.by_node.get(old.identity.node()) == Some(&address)
        {
            self.by_node.remove(old.identity.node());
        }
    }
}

impl Host {
    /// Records a sequence number. False for a replay.
    pub(crate) fn is_fresh(&mut self, sequence: u64) -> bool {
        self.received.insert(sequence)
    }
}

/// The sequence numbers received in a session: the highest one, and a bit for each of the 64 up to it. Numbers further
/// back count as received.
#[derive(Debug, Default)]
struct ReplayWindow {
    highest: u64,
    received: u64,
}

impl ReplayWindow {
    /// Adds a number. False if it was there.
    fn insert(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.received = if ahead < 64 { self.received << ahead } else { 0 } | 1;
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        let bit = if behind < 64 { 1 << behind } else { return false };
        let fresh = self.received & bit == 0;
        self.received |= bit;
        fresh
    }
}

/// The most hosts kept: twice the largest cluster that Kubernetes supports.
const HOSTS_MAX: usize = 10_000;

/// How long a silent host keeps its node name.
const NAME_RELEASED_AFTER: Duration = Duration::from_secs(5);

/// How long a host that is not a member is kept after its last datagram.
const EXPIRE_AFTER: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_number_is_fresh_once_and_only_within_the_window() {
        let mut window = ReplayWindow::default();
        for (sequence, fresh) in [
            (5, true),
            (5, false),
            (4, true),
            (4, false),
            (100, true),
            (36, false),
            (37, true),
            (37, false),
            (99, true),
        ] {
            assert_eq!(window.insert(sequence), fresh, "{sequence}");
        }
    }

    #[test]
    fn name_of_a_live_host_is_refused_to_another_host_until_the_first_is_silent_for_five_seconds() {
        let first = Identity::new("n".into(), "10.0.0.1:7946".parse().unwrap(), 1);
        let second = Identity::new("n".into(), "10.0.0.2:7946".parse().unwrap(), 9);
        let mut hosts = Hosts::default();
        let now = Instant::now();
        assert_eq!(hosts.admit(now, 1, &first), Admission::New);
        assert_eq!(hosts.admit(now, 1, &first), Admission::Known);
        assert_eq!(hosts.admit(now + Duration::from_secs(1), 2, &second), Admission::NameClash);
        assert_eq!(hosts.admit(now + NAME_RELEASED_AFTER, 2, &second), Admission::New);
        assert!(hosts.get(first.address).is_none());
    }

    #[test]
    fn silent_host_expires_and_silent_member_does_not() {
        let [member, stranger] =
            [1, 2].map(|number| Identity::new(format!("n{number}").into(), ([10, 0, 0, number], 7946).into(), 1));
        let mut hosts = Hosts::default();
        let now = Instant::now();
        for identity in [&member, &stranger] {
            assert_eq!(hosts.admit(now, 1, identity), Admission::New);
        }
        for (after, known) in [(EXPIRE_AFTER, [true, true]), (EXPIRE_AFTER * 9, [true, false])] {
            hosts.expire(now + after, [&member].into_iter());
            assert_eq!([&member, &stranger].map(|identity| hosts.by_node(identity.node()).is_some()), known);
        }
    }
}
