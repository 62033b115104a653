//! The join protocol: sends `Join` to all hosts where members may be, at a rate that their receive buffers can hold,
//! and repeats it for hosts that are not members.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Engine, Event, Phase, REACHABLE_FOR};
use crate::wire::identity::Identity;

/// The addresses to join, and the limits of a round.
#[derive(Debug)]
pub(super) struct Joining {
    /// Where members may be. Those that are not members are contacted in every round.
    contacts: BTreeSet<SocketAddr>,
    /// Contacts that have not been sent a `Join` yet. Not longer than `contacts`.
    queue: VecDeque<SocketAddr>,
    batch_at: Instant,
    round_at: Instant,
    contact_at: Instant,
    expire_at: Instant,
    /// Where the next round continues among the absent hosts.
    cursor: usize,
    join_acks: Budget,
    newcomers: Budget,
}

/// How often something may happen until the next round.
#[derive(Debug)]
struct Budget(usize);

impl Budget {
    /// Uses one. False if none is left.
    fn spend(&mut self) -> bool {
        let rest = self.0.checked_sub(1);
        self.0 = rest.unwrap_or(0);
        rest.is_some()
    }
}

impl Joining {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            contacts: BTreeSet::new(),
            queue: VecDeque::new(),
            batch_at: now,
            round_at: now + ROUND,
            contact_at: now + ROUND,
            expire_at: now + EXPIRY_INTERVAL,
            cursor: 0,
            join_acks: Budget(JOIN_ACKS),
            newcomers: Budget(NEWCOMERS),
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let next = self.round_at.min(self.contact_at);
        if self.queue.is_empty() { next } else { self.batch_at.min(next) }
    }

    /// Whether a host of an unknown session is answered in this round.
    pub(super) fn may_send_join_ack(&mut self) -> bool {
        self.join_acks.spend()
    }

    /// Whether gossip spreads a new member in this round. Many members that start together contact each other anyway.
    pub(super) fn may_spread_newcomer(&mut self) -> bool {
        self.newcomers.spend()
    }
}

impl Engine {
    /// Sets the addresses where other members may be and sends `Join` to the unknown ones. The first call enters the
    /// cluster; later calls replace the addresses. The own address is ignored.
    pub fn join(&mut self, now: Instant, contacts: impl IntoIterator<Item = SocketAddr>) {
        let me = self.config.me.address;
        self.joining.contacts = contacts.into_iter().filter(|&contact| contact != me).collect();
        // Each member starts with another contact, so that no contact receives all `Join` messages at once.
        let contacts = &self.joining.contacts;
        let order = contacts.range(me..).chain(contacts.range(..me));
        self.joining.queue = order.copied().filter(|&contact| self.hosts.get(contact).is_none()).collect();
        self.joining.batch_at = now;
        if self.phase == Phase::Idle {
            let batches = u32::try_from(self.joining.queue.len() / BATCH).unwrap_or(u32::MAX);
            self.phase = Phase::Joining(now + JOIN_TIMEOUT + BATCH_INTERVAL * batches);
            if self.joining.queue.is_empty() {
                self.finish_joining();
            }
        }
        self.join_batch(now);
        self.recompute_live(now);
    }

    /// Finishes joining if all contacts are known.
    pub(super) fn finish_joining_if_complete(&mut self) {
        if let Phase::Joining(_) = self.phase
            && self.joining.contacts.iter().all(|contact| self.hosts.get(*contact).is_some())
        {
            self.finish_joining();
        }
    }

    pub(super) fn finish_joining(&mut self) {
        if self.phase != Phase::Joined {
            self.phase = Phase::Joined;
            self.events.push_back(Event::Joined);
        }
    }

    pub(super) fn run_joining(&mut self, now: Instant) {
        if !self.joining.queue.is_empty() && self.joining.batch_at <= now {
            self.join_batch(now);
        }
        if self.joining.round_at <= now {
            self.joining.round_at = now + ROUND;
            self.joining.join_acks = Budget(JOIN_ACKS.max(2 * self.joining.contacts.len()));
            self.joining.newcomers = Budget(NEWCOMERS);
            self.expire(now);
            self.repeat_hardware(now);
        }
        if self.joining.contact_at <= now {
            let absent = self.contact_absent(now);
            let soon = absent > 0 && self.is_small();
            self.joining.contact_at = now + if soon { SMALL_ROUND } else { ROUND };
        }
    }

    fn join_batch(&mut self, now: Instant) {
        let mut left = BATCH;
        while left > 0
            && let Some(contact) = self.joining.queue.pop_front()
        {
            // The contact may have joined this node in the meantime.
            if self.hosts.get(contact).is_none() {
                self.send_join(contact);
                left -= 1;
            }
        }
        self.joining.batch_at = now + BATCH_INTERVAL;
    }

    /// Removes what is too old, and updates what the codec knows of live members.
    fn expire(&mut self, now: Instant) {
        if self.joining.expire_at <= now {
            self.joining.expire_at = now + EXPIRY_INTERVAL;
            self.hosts.expire(now, self.gossip.members());
        }
        self.pending.expire(now);
        let heard = self.hosts.iter().filter(|host| now.saturating_duration_since(host.last_heard) < REACHABLE_FOR);
        self.gossip.codec().set_heard(heard.map(|host| host.identity.clone()));
        let clashes = self.gossip.codec().take_clashes();
        self.events.extend(clashes.into_iter().map(|(node, address)| Event::NameClash { node, address }));
    }

    /// The addresses of hosts that are not members: contacts, and members that gossip has declared dead.
    pub(super) fn absent(&self) -> BTreeSet<SocketAddr> {
        let mut absent: BTreeSet<SocketAddr> = self.gossip.down_members().map(|member| member.address).collect();
        absent.extend(&self.joining.contacts);
        absent.remove(&self.config.me.address);
        if !absent.is_empty() {
            for member in self.gossip.members() {
                absent.remove(&member.address);
            }
        }
        absent
    }

    /// Whether the cluster is so small that each absent host can be contacted in every round.
    pub(super) fn is_small(&self) -> bool {
        self.gossip.len().max(self.joining.contacts.len()) <= SMALL
    }

    /// Contacts hosts that are not members. Returns how many there are.
    fn contact_absent(&mut self, now: Instant) -> usize {
        let absent: Vec<SocketAddr> = self.absent().into_iter().collect();
        if absent.is_empty() {
            return 0;
        }
        let count = CONTACTED_PER_ROUND.max(absent.len() / ROUNDS_FOR_ALL).min(absent.len());
        for offset in 0..count {
            let address = absent[(self.joining.cursor + offset) % absent.len()];
            match self.hosts.get(address) {
                Some(host) if now.saturating_duration_since(host.last_heard) < REACHABLE_FOR => {
                    self.announce_to(address);
                }
                _ => self.send_join(address),
            }
        }
        self.joining.cursor = (self.joining.cursor + count) % absent.len();
        absent.len()
    }

    /// Whether gossip takes exactly this incarnation for alive.
    pub(super) fn is_member(&self, identity: &Identity) -> bool {
        self.gossip.is_member(identity)
    }
}

/// How long contacts may take to answer before this node acts as if it were alone.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_millis(150);

/// How many contacts are sent a `Join` at once, and the time to the next batch: a thousand in an eighth of a second.
const BATCH: usize = 32;
const BATCH_INTERVAL: Duration = Duration::from_millis(4);

/// The interval at which absent hosts are contacted, how many at least in one round, and the rounds that it takes to
/// reach all.
const ROUND: Duration = Duration::from_secs(1);
const CONTACTED_PER_ROUND: usize = 32;
const ROUNDS_FOR_ALL: usize = 4;

/// Up to this size of the cluster a returning host is to be heard sooner: until then two nodes may answer for its
/// addresses.
const SMALL: usize = 16;
const SMALL_ROUND: Duration = Duration::from_millis(100);

/// The interval at which silent hosts are removed.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(30);

/// `JoinAck` messages per [`ROUND`], unless there are more contacts: replayed datagrams cannot be used to amplify
/// traffic.
const JOIN_ACKS: usize = 2000;

/// New members that gossip spreads per [`ROUND`].
const NEWCOMERS: usize = 64;
