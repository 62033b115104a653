//! One speaker among the others: who lives, and what follows from it for the addresses that are handed over.
//!
//! [`crate::driver`] drives it with a socket and a clock, the simulator of failover with virtual ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;
use metallb_l2::interface::{Announcement, Scope};

use crate::engine::{Config, Counters, Engine, Event, Link, Transmit};
use crate::handover::{Handover, Tally};
use crate::wire::message::{Hardware, Standing};
use crate::wire::seal::Keyring;

/// The engine of membership and the handovers, put together.
///
/// What is learned and decided goes in by the methods that take the time; `poll_transmit`, `poll_event`, `poll_announcements`,
/// `poll_again` and `poll_sought` take results out, to be drained after every input; `poll_timeout` says when to call again.
#[derive(Debug)]
pub struct Member {
    engine: Engine,
    handover: Handover,
    /// When the last owner that died was heard, until we have announced what was its.
    lost: Option<Instant>,
    stay: Stay,
    events: VecDeque<Event>,
}

/// Whether we are there for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stay {
    Staying,
    HandingOver { until: Instant, repeat_at: Instant },
    Left,
}

impl Member {
    /// Alone, and silent until [`join`](Self::join).
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        Self {
            engine: Engine::new(config, seed, now),
            handover: Handover::default(),
            lost: None,
            stay: Stay::Staying,
            events: VecDeque::new(),
        }
    }

    /// See [`Engine::join`].
    pub fn join(&mut self, now: Instant, contacts: impl IntoIterator<Item = SocketAddr>) {
        self.engine.join(now, contacts);
        self.settle(now);
    }

    /// See [`Engine::watch`].
    pub fn watch(&mut self, now: Instant, nodes: impl IntoIterator<Item = NodeName>) {
        self.engine.watch(now, nodes);
        self.settle(now);
    }

    /// Replaces what this node answers for, see [`Handover::plan`]. Who leaves has nothing any more, whatever is planned.
    pub fn plan(&mut self, now: Instant, mine: BTreeMap<IpAddr, Scope>, successors: &BTreeMap<IpAddr, NodeName>) {
        if self.stay == Stay::Staying {
            self.handover.plan(now, mine, successors);
            self.settle(now);
        }
    }

    /// Replaces the hardware addresses of the interfaces that can be announced on. Without any this node stands for no election.
    pub fn set_usable(&mut self, now: Instant, hardware: impl IntoIterator<Item = Hardware>) {
        if self.stay == Stay::Staying {
            let hardware: Vec<Hardware> = hardware.into_iter().collect();
            self.engine.set_standing(now, if hardware.is_empty() { Standing::Unable } else { Standing::Able });
            self.engine.set_hardware(now, hardware);
            self.settle(now);
        }
    }

    /// Replaces what this node does not announce, whatever the plan says.
    pub fn set_refused(&mut self, refused: BTreeSet<IpAddr>) {
        self.handover.set_refused(refused);
    }

    /// See [`Engine::set_link`].
    pub fn set_link(&mut self, link: Link) {
        self.engine.set_link(link);
    }

    /// See [`Engine::set_keys`].
    pub fn set_keys(&mut self, keys: Keyring) {
        self.engine.set_keys(keys);
    }

    /// Hands everything over, then ends the membership: when all of it is taken, at the latest after [`LEAVE_PATIENCE`].
    pub fn leave(&mut self, now: Instant, successors: &BTreeMap<IpAddr, NodeName>) {
        if self.stay == Stay::Staying {
            self.engine.set_standing(now, Standing::Leaving);
            self.handover.plan(now, BTreeMap::new(), successors);
            self.stay = Stay::HandingOver { until: now + LEAVE_PATIENCE, repeat_at: now + LEAVE_REPEAT };
            self.settle(now);
        }
    }

    /// Whether the membership has ended. What it still has to send comes out of `poll_transmit`.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.stay == Stay::Left
    }

    /// Looks at a datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.engine.handle_datagram(now, from, datagram);
        self.settle(now);
    }

    /// The first round of announcements for these has left. When they were taken from a node that died: for how long nobody had heard
    /// it by then.
    pub fn handle_announced(&mut self, now: Instant, ips: &[IpAddr]) -> Option<Duration> {
        self.handover.handle_announced(now, ips);
        self.settle(now);
        self.lost.take().map(|heard| now.saturating_duration_since(heard))
    }

    /// Does what is due. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.engine.handle_timeout(now);
        self.settle(now);
        if self.engine.may_be_deaf() {
            // Neighbours know of what we had, unless others have taken it meanwhile.
            self.handover.be_quiet();
        }
        self.handover.handle_timeout(now);
        if let Stay::HandingOver { repeat_at, .. } = &mut self.stay
            && *repeat_at <= now
        {
            *repeat_at = now + LEAVE_REPEAT;
            self.engine.tell_standing(now);
        }
        self.settle(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let leaving = match self.stay {
            Stay::HandingOver { until, repeat_at } => Some(until.min(repeat_at)),
            Stay::Staying | Stay::Left => None,
        };
        self.engine.poll_timeout().into_iter().chain(self.handover.poll_timeout()).chain(leaving).min()
    }

    /// What happened; the handovers know of it already.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Everything to answer for, if that changed.
    pub fn poll_announcements(&mut self) -> Option<Vec<Announcement>> {
        self.handover.poll_announcements()
    }

    /// Addresses to announce anew, if any.
    pub fn poll_again(&mut self) -> Option<Vec<IpAddr>> {
        self.handover.poll_again()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.engine.poll_transmit()
    }

    /// See [`Engine::poll_sought`].
    pub fn poll_sought(&mut self) -> Option<Vec<IpAddr>> {
        self.engine.poll_sought()
    }

    /// See [`Engine::take_lull`].
    pub fn take_lull(&mut self) -> bool {
        self.engine.take_lull()
    }

    /// See [`Engine::live`].
    #[must_use]
    pub const fn live(&self) -> &BTreeSet<NodeName> {
        self.engine.live()
    }

    /// See [`Engine::members`].
    #[must_use]
    pub fn members(&self) -> usize {
        self.engine.members()
    }

    /// See [`Engine::has_joined`].
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.engine.has_joined()
    }

    /// See [`Engine::counters`].
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// See [`Engine::hardware_of_others`].
    #[must_use]
    pub fn hardware_of_others(&self) -> BTreeSet<Hardware> {
        self.engine.hardware_of_others()
    }

    /// How planned moves ended so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.handover.tally()
    }

    /// Tells each of the two what the other one wants.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            match &event {
                Event::Gone { heard, .. } => self.lost = Some(*heard),
                Event::Lost(_) | Event::Met(_) => self.handover.announce_again(now),
                Event::Yielding { from, ips, since } => self.handover.handle_yielding(now, from, ips, *since),
                Event::Taken(from, ips) => self.handover.handle_taken(from, ips),
                Event::Refused(from, ips) => self.handover.handle_refused(from, ips),
                _ => {}
            }
            self.events.push_back(event);
        }
        while let Some((to, message)) = self.handover.poll_message() {
            self.engine.send(now, &to, message);
        }
        if let Stay::HandingOver { until, .. } = self.stay
            && (self.handover.is_settled() || until <= now)
        {
            self.stay = Stay::Left;
            self.engine.leave(now);
        }
    }
}

/// How long a leaving node waits for its successors.
pub const LEAVE_PATIENCE: Duration = Duration::from_millis(250);

/// How often it repeats that it leaves.
const LEAVE_REPEAT: Duration = Duration::from_millis(30);

#[cfg(test)]
mod tests {
    use metallb_l2::interface::Stance;

    use super::*;
    use crate::engine::Timing;
    use crate::wire::identity::Identity;

    const MS: Duration = Duration::from_millis(1);

    fn address(index: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, index], 7946))
    }

    /// Two that know each other, of which the first one has announced an address.
    fn pair(now: Instant, ip: IpAddr) -> [Member; 2] {
        let mut members = [1, 2].map(|index| {
            let me = Identity::new(format!("n{index}").into(), address(index), 1000);
            let config =
                Config { me, session: index.into(), keys: Keyring::default(), timing: Timing::default(), wan: false };
            let mut member = Member::new(config, index.into(), now);
            member.join(now, [address(1), address(2)]);
            member.set_usable(now, [[2, 0, 0, 0, 0, index]]);
            member
        });
        exchange(now, &mut members);
        let [owner, heir] = &mut members;
        owner.plan(now, [(ip, Scope::All)].into(), &BTreeMap::new());
        owner.handle_announced(now, &[ip]);
        assert_eq!(heir.live().len(), 2);
        members
    }

    fn exchange(now: Instant, members: &mut [Member; 2]) {
        for _ in 0..8 {
            for from in 0..2 {
                while let Some(transmit) = members[from].poll_transmit() {
                    members[1 - from].handle_datagram(now, address(from as u8 + 1), &transmit.datagram);
                }
            }
        }
    }

    #[test]
    fn who_leaves_answers_until_all_is_taken_and_has_nothing_after_that() {
        let (now, ip) = (Instant::now(), "10.1.0.1".parse().unwrap());
        let mut members = pair(now, ip);
        members[0].leave(now, &[(ip, "n2".into())].into());
        let yielded = members[0].poll_announcements().unwrap();
        assert_eq!(yielded.iter().map(|one| (one.ip, one.stance)).collect::<Vec<_>>(), [(ip, Stance::Yield)]);
        exchange(now, &mut members);
        let [owner, heir] = &mut members;
        assert!(!owner.has_left());
        assert_eq!(heir.live().len(), 1, "the word of who leaves is enough");
        owner.plan(now, [(ip, Scope::All)].into(), &BTreeMap::new());
        assert!(owner.poll_announcements().is_none(), "who leaves takes nothing back");
        heir.plan(now, [(ip, Scope::All)].into(), &BTreeMap::new());
        assert_eq!(heir.handle_announced(now + MS, &[ip]), None, "nobody died");
        exchange(now + MS, &mut members);
        assert!(members[0].has_left());
        assert!(members[0].poll_announcements().unwrap().is_empty());
        assert_eq!(members[0].tally(), Tally { acknowledged: 1, ..Tally::default() });
    }

    #[test]
    fn who_leaves_does_not_wait_for_ever() {
        let (now, ip) = (Instant::now(), "10.1.0.1".parse().unwrap());
        let [mut owner, _] = pair(now, ip);
        owner.leave(now, &[(ip, "n2".into())].into());
        let mut ended = now;
        while !owner.has_left() {
            ended = owner.poll_timeout().unwrap();
            owner.handle_timeout(ended);
        }
        // It falls silent first, and is gone then.
        assert_eq!(owner.tally().timed_out, 1);
        assert!((200 * MS..=LEAVE_PATIENCE).contains(&(ended - now)), "{:?}", ended - now);
    }
}
