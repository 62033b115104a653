//! Coming in, and letting others in: who may be there is greeted, at a pace that sockets of many members can follow.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Engine, Entry, Event, MEMBER_SILENCE};
use crate::wire::identity::Identity;

/// Whom we greet, and how much we say to those who greet us.
#[derive(Debug)]
pub(super) struct Greetings {
    /// Where others may be; those that are no members are greeted again and again.
    contacts: BTreeSet<SocketAddr>,
    /// Those that are still to be greeted for the first time, and when the next ones are.
    queue: VecDeque<SocketAddr>,
    queue_at: Instant,
    round_at: Instant,
    contact_at: Instant,
    forget_at: Instant,
    cursor: usize,
    /// Answers to strangers that are left until `round_at`.
    welcomes_left: usize,
    /// Newcomers of whom gossip is told until then.
    tellings_left: usize,
}

impl Greetings {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            contacts: BTreeSet::new(),
            queue: VecDeque::new(),
            queue_at: now,
            round_at: now + ROUND,
            contact_at: now + ROUND,
            forget_at: now + FORGETTING,
            cursor: 0,
            welcomes_left: WELCOMES,
            tellings_left: TELLINGS,
        }
    }

    pub(super) fn next(&self) -> Instant {
        let next = self.round_at.min(self.contact_at);
        if self.queue.is_empty() { next } else { self.queue_at.min(next) }
    }

    /// Whether a stranger is answered.
    pub(super) fn may_welcome(&mut self) -> bool {
        spend(&mut self.welcomes_left)
    }

    /// Whether gossip is told of a newcomer that greeted us. Of one it is; a crowd greets everybody itself.
    pub(super) fn may_tell(&mut self) -> bool {
        spend(&mut self.tellings_left)
    }
}

/// Takes one. False when none is left.
fn spend(left: &mut usize) -> bool {
    let fewer = left.checked_sub(1);
    *left = fewer.unwrap_or(0);
    fewer.is_some()
}

impl Engine {
    /// Says where other members may be, and greets those that are none yet. The first call enters the cluster; a later one
    /// replaces the addresses. Our own address among them is passed over.
    pub fn join(&mut self, now: Instant, contacts: impl IntoIterator<Item = SocketAddr>) {
        let me = self.config.me.address;
        self.greetings.contacts = contacts.into_iter().filter(|&contact| contact != me).collect();
        // Everybody begins with another one, so that none is greeted by all at once.
        let contacts = &self.greetings.contacts;
        let order = contacts.range(me..).chain(contacts.range(..me));
        self.greetings.queue = order.copied().filter(|&contact| self.peers.get(contact).is_none()).collect();
        self.greetings.queue_at = now;
        if self.entry == Entry::Outside {
            let batches = u32::try_from(self.greetings.queue.len() / BATCH).unwrap_or(u32::MAX);
            self.entry = Entry::Entering(now + ENTRY_PATIENCE + PACE * batches);
            if self.greetings.queue.is_empty() {
                self.enter();
            }
        }
        self.greet_queued(now);
        self.settle(now);
    }

    /// Takes these for members on somebody else's word; gossip finds out whether they live.
    pub fn introduce(&mut self, now: Instant, members: impl IntoIterator<Item = Identity>) {
        let members = members.into_iter().map(foca::Member::alive);
        let _ = self.foca.apply_many(members, false, &mut self.runtime);
        self.stale = true;
        self.settle(now);
    }

    /// Goes on when all that were to be greeted are known.
    pub(super) fn enter_if_greeted(&mut self) {
        if let Entry::Entering(_) = self.entry
            && self.greetings.contacts.iter().all(|contact| self.peers.get(*contact).is_some())
        {
            self.enter();
        }
    }

    pub(super) fn enter(&mut self) {
        if self.entry != Entry::Inside {
            self.entry = Entry::Inside;
            self.events.push_back(Event::Joined);
        }
    }

    pub(super) fn run_greetings(&mut self, now: Instant) {
        if !self.greetings.queue.is_empty() && self.greetings.queue_at <= now {
            self.greet_queued(now);
        }
        if self.greetings.round_at <= now {
            self.greetings.round_at = now + ROUND;
            self.greetings.welcomes_left = WELCOMES.max(2 * self.greetings.contacts.len());
            self.greetings.tellings_left = TELLINGS;
            self.keep_house(now);
            self.repeat_hardware(now);
        }
        if self.greetings.contact_at <= now {
            let absent = self.contact(now);
            let few = absent > 0 && self.are_few();
            self.greetings.contact_at = now + if few { ROUND_OF_FEW } else { ROUND };
        }
    }

    fn greet_queued(&mut self, now: Instant) {
        let mut left = BATCH;
        while left > 0
            && let Some(contact) = self.greetings.queue.pop_front()
        {
            // It may have greeted us meanwhile.
            if self.peers.get(contact).is_none() {
                self.greet(contact);
                left -= 1;
            }
        }
        self.greetings.queue_at = now + PACE;
    }

    /// Forgets what is old.
    fn keep_house(&mut self, now: Instant) {
        if self.greetings.forget_at <= now {
            self.greetings.forget_at = now + FORGETTING;
            self.peers.expire(now, self.foca.iter_members().map(foca::Member::id));
        }
        self.waiting.expire(now);
        let heard = self.peers.iter().filter(|peer| now.saturating_duration_since(peer.heard) < MEMBER_SILENCE);
        self.codec.set_heard(heard.map(|peer| peer.identity.clone()));
        let clashes = self.codec.take_clashes();
        self.events.extend(clashes.into_iter().map(|(node, address)| Event::NameClash { node, address }));
    }

    /// Where those are that are no members: contacts, and those that were.
    pub(super) fn absent(&self) -> BTreeSet<SocketAddr> {
        let down = self.foca.iter_membership_state().filter(|member| member.state() == foca::State::Down);
        let mut absent: BTreeSet<SocketAddr> = down.map(|member| member.id().address).collect();
        absent.extend(&self.greetings.contacts);
        absent.remove(&self.config.me.address);
        if !absent.is_empty() {
            for member in self.foca.iter_members() {
                absent.remove(&member.id().address);
            }
        }
        absent
    }

    /// Whether there are so few, members and places where we were told that others may be, that all of them can be looked for at once.
    pub(super) fn are_few(&self) -> bool {
        self.foca.num_members().max(self.greetings.contacts.len()) <= FEW_IN_ALL
    }

    /// Greets those that are no members. How many there are.
    fn contact(&mut self, now: Instant) -> usize {
        let absent: Vec<SocketAddr> = self.absent().into_iter().collect();
        if absent.is_empty() {
            return 0;
        }
        let many = AGAIN.max(absent.len() / ROUNDS_FOR_ALL).min(absent.len());
        for offset in 0..many {
            let address = absent[(self.greetings.cursor + offset) % absent.len()];
            match self.peers.get(address) {
                Some(peer) if now.saturating_duration_since(peer.heard) < MEMBER_SILENCE => self.announce_to(address),
                _ => self.greet(address),
            }
        }
        self.greetings.cursor = (self.greetings.cursor + many) % absent.len();
        absent.len()
    }

    /// Asks a host that talks to us for members, and becomes one of its.
    pub(super) fn announce_to(&mut self, address: SocketAddr) {
        if let Some(peer) = self.peers.get(address) {
            let identity = peer.identity.clone();
            let _ = self.foca.announce(identity, &mut self.runtime);
        }
    }
}

/// How long those that are greeted first may take to answer, before we act as if we were alone.
pub(super) const ENTRY_PATIENCE: Duration = Duration::from_millis(150);

/// How many are greeted for the first time at once, and how long until the next ones are: a thousand in an eighth of a second.
const BATCH: usize = 32;
const PACE: Duration = Duration::from_millis(4);

/// How often those that are no members are greeted, how many at once, and in how many rounds all are.
const ROUND: Duration = Duration::from_secs(1);
const AGAIN: usize = 32;

/// Among so few, whoever returns is to be heard at once: two may have answered for its addresses meanwhile.
const FEW_IN_ALL: usize = 16;
const ROUND_OF_FEW: Duration = Duration::from_millis(100);
const ROUNDS_FOR_ALL: usize = 4;

/// How often it is looked who may be forgotten.
const FORGETTING: Duration = Duration::from_secs(30);

/// Answers to strangers per [`ROUND`], unless there are more contacts: whoever replays datagrams does not get more out of us.
const WELCOMES: usize = 2000;

/// Newcomers per [`ROUND`] of whom gossip is told.
const TELLINGS: usize = 64;
