//! Hosts we talk to: their sessions, and which of their datagrams were seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

use crate::wire::identity::Identity;
use crate::wire::message::{Hardware, Message, Standing};

/// All of them, by address.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_address: BTreeMap<SocketAddr, Peer>,
    by_node: BTreeMap<NodeName, SocketAddr>,
}

/// One host.
#[derive(Debug)]
pub(super) struct Peer {
    /// Who it says it is.
    pub(super) identity: Identity,
    /// Its session.
    pub(super) session: u64,
    /// When it was heard last.
    pub(super) heard: Instant,
    /// What it says about itself.
    pub(super) standing: Standing,
    /// The hardware addresses it answers with, as it said.
    pub(super) hardware: Vec<Hardware>,
    /// The highest sequence number seen, and which of the 64 up to it were.
    window: (u64, u64),
}

/// What came of a `Welcome`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Greeted {
    /// It was known.
    Known,
    /// It is new, or in a new life.
    New,
    /// It is an earlier life of a node whose present one is this.
    Outlived(u64),
    /// Its name belongs to another host that lives.
    Clash,
    /// There are too many.
    Full,
}

impl Peers {
    pub(super) fn get(&self, address: SocketAddr) -> Option<&Peer> {
        self.by_address.get(&address)
    }

    pub(super) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Peer> {
        self.by_address.get_mut(&address)
    }

    pub(super) fn by_node(&self, node: &NodeName) -> Option<&Peer> {
        self.by_address.get(self.by_node.get(node)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_address.values()
    }

    /// Takes in who sits at an address, as proven by a datagram of this session.
    pub(super) fn greet(&mut self, now: Instant, session: u64, identity: &Identity) -> Greeted {
        let address = identity.address;
        if let Some(known) = self.by_address.get_mut(&address)
            && known.session == session
            && known.identity.node() == identity.node()
        {
            known.identity.life = known.identity.life.max(identity.life);
            return Greeted::Known;
        }
        if let Some(holder) = self.by_node(identity.node())
            && holder.identity.address != address
            && now.saturating_duration_since(holder.heard) < CLASH_AFTER
        {
            return Greeted::Clash;
        }
        if let Some(known) = self.by_node(identity.node())
            && known.identity.life > identity.life
        {
            return Greeted::Outlived(known.identity.life);
        }
        if self.by_address.len() >= PEERS_MAX && !self.by_address.contains_key(&address) {
            return Greeted::Full;
        }
        self.forget(address);
        if let Some(elsewhere) = self.by_node.get(identity.node()).copied() {
            self.forget(elsewhere);
        }
        self.by_node.insert(identity.node().clone(), address);
        let peer = Peer {
            identity: identity.clone(),
            session,
            heard: now,
            standing: Standing::Able,
            hardware: Vec::new(),
            window: (0, 0),
        };
        self.by_address.insert(address, peer);
        Greeted::New
    }

    /// Forgets those that were silent for long, members excepted: two of thousands may have nothing to say to each other for minutes.
    pub(super) fn expire<'a>(&mut self, now: Instant, members: impl Iterator<Item = &'a Identity>) {
        let silent = |peer: &&Peer| now.saturating_duration_since(peer.heard) > FORGET_AFTER;
        let mut silent: BTreeSet<SocketAddr> =
            self.by_address.values().filter(silent).map(|peer| peer.identity.address).collect();
        if !silent.is_empty() {
            members.for_each(|member| {
                silent.remove(&member.address);
            });
        }
        silent.into_iter().for_each(|address| self.forget(address));
    }

    fn forget(&mut self, address: SocketAddr) {
        if let Some(old) = self.by_address.remove(&address)
            && self.by_node.get(old.identity.node()) == Some(&address)
        {
            self.by_node.remove(old.identity.node());
        }
    }
}

impl Peer {
    /// Whether this sequence number was not seen before. Those far behind count as seen.
    pub(super) fn is_fresh(&mut self, sequence: u64) -> bool {
        let (highest, seen) = &mut self.window;
        if sequence > *highest {
            let ahead = sequence - *highest;
            *seen = if ahead < 64 { *seen << ahead } else { 0 } | 1;
            *highest = sequence;
            return true;
        }
        let behind = *highest - sequence;
        let bit = if behind < 64 { 1 << behind } else { return false };
        let fresh = *seen & bit == 0;
        *seen |= bit;
        fresh
    }
}

/// Messages to hosts whose session is not known yet. Such a host is greeted again, ever more seldom, until it answers or nothing waits
/// for it any more: among thousands one greeting in twenty lost would count as that many members that do not answer.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_address: BTreeMap<SocketAddr, Wait>,
    /// Nobody is greeted before that.
    greet_at: Option<Instant>,
}

#[derive(Debug)]
struct Wait {
    messages: VecDeque<Message>,
    /// When the last of them came.
    since: Instant,
    greet_at: Instant,
    /// How long after the greeting before.
    pause: Duration,
}

impl Waiting {
    /// Keeps a message; older ones make room. Whether the host should be greeted now.
    pub(super) fn push(&mut self, now: Instant, to: SocketAddr, message: Message) -> bool {
        let first = !self.by_address.contains_key(&to);
        if first && self.by_address.len() >= PEERS_MAX {
            return false;
        }
        let new = || Wait { messages: VecDeque::new(), since: now, greet_at: now + GREET_AGAIN, pause: GREET_AGAIN };
        let wait = self.by_address.entry(to).or_insert_with(new);
        if wait.messages.len() >= WAITING_MAX {
            wait.messages.pop_front();
        }
        wait.messages.push_back(message);
        wait.since = now;
        let at = wait.greet_at;
        self.greet_at = Some(self.greet_at.map_or(at, |next| next.min(at)));
        first
    }

    /// Those that are to be greeted again.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.greet_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (address, wait) in &mut self.by_address {
            if wait.greet_at <= now {
                wait.pause = (wait.pause * 2).min(GREET_AGAIN_MAX);
                wait.greet_at = now + wait.pause;
                due.push(*address);
            }
        }
        self.greet_at = self.by_address.values().map(|wait| wait.greet_at).min();
        due
    }

    /// When somebody may be to be greeted again.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.greet_at
    }

    pub(super) fn take(&mut self, to: SocketAddr) -> VecDeque<Message> {
        self.by_address.remove(&to).map(|wait| wait.messages).unwrap_or_default()
    }

    /// Forgets what waits for hosts that do not answer.
    pub(super) fn expire(&mut self, now: Instant) {
        self.by_address.retain(|_, wait| now.saturating_duration_since(wait.since) < WAIT_AT_MOST);
    }
}

/// Datagrams that overtook the greeting of their sender, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Early(Vec<(Instant, SocketAddr, Vec<u8>)>);

impl Early {
    /// Keeps a datagram; older ones make room.
    pub(super) fn push(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.0.len() >= EARLY_MAX {
            self.0.remove(0);
        }
        self.0.push((now, from, datagram.to_vec()));
    }

    /// Those of a host that has greeted us now, unless they are old.
    pub(super) fn take(&mut self, now: Instant, from: SocketAddr) -> Vec<Vec<u8>> {
        self.0.retain(|(since, ..)| now.saturating_duration_since(*since) < OVERTAKEN);
        self.0.extract_if(.., |(_, host, _)| *host == from).map(|(.., datagram)| datagram).collect()
    }
}

/// How many hosts are kept; twice the largest cluster that Kubernetes supports.
const PEERS_MAX: usize = 10_000;

/// For how long after it was heard a name is not given to another host.
const CLASH_AFTER: Duration = Duration::from_secs(5);

const FORGET_AFTER: Duration = Duration::from_secs(120);

/// How soon a host for which something waits is greeted again, and how seldom it is at last.
const GREET_AGAIN: Duration = Duration::from_millis(50);
const GREET_AGAIN_MAX: Duration = Duration::from_secs(1);
const WAIT_AT_MOST: Duration = Duration::from_secs(3);
const WAITING_MAX: usize = 8;

/// How much later than a datagram sent after it a greeting may come, and how many such datagrams are kept.
const OVERTAKEN: Duration = Duration::from_millis(50);
const EARLY_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_number_is_fresh_once_and_only_within_the_window() {
        let identity = Identity::new("n".into(), "10.0.0.1:7946".parse().unwrap(), 1);
        let mut peers = Peers::default();
        let now = Instant::now();
        assert_eq!(peers.greet(now, 1, &identity), Greeted::New);
        let peer = peers.get_mut(identity.address).unwrap();
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
            assert_eq!(peer.is_fresh(sequence), fresh, "{sequence}");
        }
    }

    #[test]
    fn a_name_that_lives_is_not_given_to_another_host() {
        let first = Identity::new("n".into(), "10.0.0.1:7946".parse().unwrap(), 1);
        let second = Identity::new("n".into(), "10.0.0.2:7946".parse().unwrap(), 9);
        let mut peers = Peers::default();
        let now = Instant::now();
        assert_eq!(peers.greet(now, 1, &first), Greeted::New);
        assert_eq!(peers.greet(now, 1, &first), Greeted::Known);
        assert_eq!(peers.greet(now + Duration::from_secs(1), 2, &second), Greeted::Clash);
        assert_eq!(peers.greet(now + CLASH_AFTER, 2, &second), Greeted::New);
        assert!(peers.get(first.address).is_none());
    }

    #[test]
    fn members_are_not_forgotten_however_silent_they_are() {
        let [member, stranger] =
            [1, 2].map(|number| Identity::new(format!("n{number}").into(), ([10, 0, 0, number], 7946).into(), 1));
        let mut peers = Peers::default();
        let now = Instant::now();
        for identity in [&member, &stranger] {
            assert_eq!(peers.greet(now, 1, identity), Greeted::New);
        }
        for (after, known) in [(FORGET_AFTER, [true, true]), (FORGET_AFTER * 9, [true, false])] {
            peers.expire(now + after, [&member].into_iter());
            assert_eq!([&member, &stranger].map(|identity| peers.by_node(identity.node()).is_some()), known);
        }
    }
}
