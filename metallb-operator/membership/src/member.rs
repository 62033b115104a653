//! One member: the engine, the addresses that it takes over, and its handovers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;
use metallb_l2::interface::{AddressChange, MacAddr};

use crate::engine::{Config, Counters, Engine, Event, Link, Transmit};
use crate::handover::{Handover, Tally};
use crate::takeover::{Generation, Plan, Takeover};
use crate::wire::message::Readiness;
use crate::wire::seal::Keyring;

/// A member of the cluster: finds out which speakers are live and hands addresses over to them.
///
/// Facts and decisions go in through the methods that take the time. After each of them, call
/// [`poll_output`](Self::poll_output) until it returns `None`, then wait until [`poll_timeout`](Self::poll_timeout) and
/// call [`handle_timeout`](Self::handle_timeout). Time never goes backwards. The same seed and inputs give the same
/// outputs.
#[derive(Debug)]
pub struct Member {
    engine: Engine,
    me: NodeName,
    takeover: Takeover,
    handover: Handover,
    /// When the last node that died was last heard, until its addresses are announced.
    lost_owner_heard: Option<Instant>,
    phase: Phase,
    /// Not capped: the caller empties it after each input.
    events: VecDeque<Event>,
}

/// Something that the caller must do or know.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Something happened. The handovers have been updated already.
    Event(Event),
    /// Change the addresses for which ARP and NDP requests are answered. All others stay as they are; there are none
    /// at first.
    Announce(Vec<AddressChange>),
    /// Announce these addresses again.
    AnnounceAgain(Vec<IpAddr>),
    /// Request the hardware addresses of these hosts by broadcast or multicast.
    Resolve(Vec<IpAddr>),
    /// Send a datagram.
    Transmit(Transmit),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Staying,
    /// Waits for acks of the new owners until then.
    HandingOver {
        until: Instant,
        repeat_at: Instant,
    },
    Left,
}

impl Member {
    /// A member that is silent until [`join`](Self::join). `seed` starts the random choices of gossip.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let me = config.me.node().clone();
        let engine = Engine::new(config, seed, now);
        let mut takeover = Takeover::default();
        takeover.set_live(engine.live(), &me);
        Self {
            engine,
            me,
            takeover,
            handover: Handover::default(),
            lost_owner_heard: None,
            phase: Phase::Staying,
            events: VecDeque::new(),
        }
    }

    /// Sets the addresses where other members may be. The first call enters the cluster; later calls replace the
    /// addresses.
    pub fn join(&mut self, now: Instant, contacts: impl IntoIterator<Item = SocketAddr>) {
        self.engine.join(now, contacts);
        self.exchange(now);
    }

    /// Takes in the assignments that changed, and the nodes to monitor. Costs what changes, beside the handovers in
    /// progress. After [`leave`](Self::leave) a plan is ignored: all addresses are handed over.
    pub fn plan(&mut self, now: Instant, plan: Plan) {
        if self.phase != Phase::Staying {
            return;
        }
        let mut changes: BTreeMap<IpAddr, _> = self.takeover.plan(&plan).into_iter().collect();
        for ip in self.handover.unclaimed() {
            changes.entry(ip).or_insert_with(|| self.takeover.wanted(ip));
        }
        self.handover.change(now, changes);
        self.exchange(now);
        if let Some(nodes) = plan.monitor {
            self.engine.monitor(now, nodes);
            self.exchange(now);
        }
    }

    /// Replaces the hardware addresses of the interfaces that can announce. Without any this node is not ready.
    pub fn set_usable(&mut self, now: Instant, hardware: impl IntoIterator<Item = MacAddr>) {
        if self.phase == Phase::Staying {
            let hardware: Vec<MacAddr> = hardware.into_iter().collect();
            let readiness = if hardware.is_empty() { Readiness::NotReady } else { Readiness::Ready };
            self.engine.set_readiness(now, readiness);
            self.engine.set_hardware(now, hardware);
            self.exchange(now);
        }
    }

    /// Replaces the addresses that this node does not announce, even if a plan has them.
    pub fn set_refused(&mut self, refused: BTreeSet<IpAddr>) {
        self.handover.set_refused(refused);
    }

    /// Sets the state of the link that membership uses. Nothing is sent while it is down.
    pub const fn set_link(&mut self, link: Link) {
        self.engine.set_link(link);
    }

    /// Replaces the keys; the first one seals from now on.
    pub fn set_keys(&mut self, keys: Keyring) {
        self.engine.set_keys(keys);
    }

    /// Hands all addresses over to their successors, then leaves the cluster: when the successors have announced them,
    /// at the latest after [`LEAVE_TIMEOUT`].
    pub fn leave(&mut self, now: Instant, successors: &BTreeMap<IpAddr, NodeName>) {
        if self.phase == Phase::Staying {
            self.engine.set_readiness(now, Readiness::Draining);
            self.handover.release_all(now, successors);
            self.phase = Phase::HandingOver { until: now + LEAVE_TIMEOUT, repeat_at: now + DRAINING_INTERVAL };
            self.exchange(now);
        }
    }

    /// Whether the member has left the cluster. Its last datagrams are still to be polled.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.phase == Phase::Left
    }

    /// Processes a received datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.engine.handle_datagram(now, from, datagram);
        self.exchange(now);
    }

    /// The first round of announcements for these addresses has been sent. If they were taken over from a dead node,
    /// returns the time since that node was last heard.
    pub fn handle_announced(&mut self, now: Instant, ips: &[IpAddr]) -> Option<Duration> {
        self.handover.handle_announced(now, ips);
        self.exchange(now);
        self.lost_owner_heard.take().map(|heard| now.saturating_duration_since(heard))
    }

    /// Does what is due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.engine.handle_timeout(now);
        self.exchange(now);
        if self.engine.may_have_unidirectional_link() {
            // If others have taken the addresses over, an announcement would mislead the neighbours. If not, the
            // neighbours know them.
            self.handover.cancel_announcement();
        }
        self.handover.handle_timeout(now);
        if let Phase::HandingOver { repeat_at, .. } = &mut self.phase
            && *repeat_at <= now
        {
            *repeat_at = now + DRAINING_INTERVAL;
            self.engine.send_readiness(now);
        }
        self.exchange(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let leaving = match self.phase {
            Phase::HandingOver { until, repeat_at } => Some(until.min(repeat_at)),
            Phase::Staying | Phase::Left => None,
        };
        self.engine.poll_timeout().into_iter().chain(self.handover.poll_timeout()).chain(leaving).min()
    }

    /// The next output: first all events, then changes of announcements, then hosts to resolve, then datagrams.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(event) = self.events.pop_front() {
            return Some(Output::Event(event));
        }
        if let Some(announcements) = self.handover.poll_announcements() {
            return Some(Output::Announce(announcements));
        }
        if let Some(ips) = self.handover.poll_announce_again() {
            return Some(Output::AnnounceAgain(ips));
        }
        if let Some(hosts) = self.engine.poll_resolve() {
            return Some(Output::Resolve(hosts));
        }
        self.engine.poll_transmit().map(Output::Transmit)
    }

    /// The nodes whose speakers are live and ready, this one included.
    #[must_use]
    pub const fn live(&self) -> &BTreeSet<NodeName> {
        self.engine.live()
    }

    /// The number of the set of live members, which a [`Plan`] that is computed with it names.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.takeover.generation()
    }

    /// How many addresses plans and changes of the live members have had looked at.
    #[must_use]
    pub const fn addresses_looked_at(&self) -> u64 {
        self.takeover.looked_at()
    }

    /// The number of members that gossip knows, without this one.
    #[must_use]
    pub fn members(&self) -> usize {
        self.engine.members()
    }

    /// Whether the live members are known, as far as any have answered.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.engine.has_joined()
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// The hardware addresses that other members reported.
    #[must_use]
    pub fn hardware_of_others(&self) -> BTreeSet<MacAddr> {
        self.engine.hardware_of_others()
    }

    /// The results of handovers so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.handover.tally()
    }

    /// Passes events of the engine to the takeovers and handovers, and messages of the handovers to the engine.
    fn exchange(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            match &event {
                Event::DeclaredDead { last_heard, .. } => self.lost_owner_heard = Some(*last_heard),
                Event::LiveChanged => self.follow_live(now),
                Event::Failed(_) | Event::Appeared(_) => self.handover.schedule_announcement(now),
                Event::HandoverOffered { from, ips, since } => self.handover.handle_offer(now, from, ips, *since),
                Event::HandoverAcknowledged(from, ips) => self.handover.handle_ack(from, ips),
                Event::HandoverRejected(from, ips) => self.handover.handle_reject(from, ips),
                _ => {}
            }
            self.events.push_back(event);
        }
        while let Some((to, message)) = self.handover.poll_message() {
            self.engine.send(now, &to, message);
        }
        if let Phase::HandingOver { until, .. } = self.phase
            && (self.handover.is_settled() || until <= now)
        {
            self.phase = Phase::Left;
            self.engine.leave(now);
        }
    }

    /// Takes over the addresses of nodes that died, and gives those back whose owner returned. A member that leaves
    /// hands everything over instead.
    fn follow_live(&mut self, now: Instant) {
        let changes = self.takeover.set_live(self.engine.live(), &self.me);
        if self.phase == Phase::Staying {
            self.handover.change(now, changes);
        }
    }
}

/// How long a leaving member waits for its successors.
pub const LEAVE_TIMEOUT: Duration = Duration::from_millis(250);

/// The interval at which a leaving member repeats that it is draining.
const DRAINING_INTERVAL: Duration = Duration::from_millis(30);

/// A member may be moved to another thread.
const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<Member>();
};

#[cfg(test)]
mod tests {
    use metallb_core::announcement::{Assignment, Scope};
    use metallb_l2::interface::Stance;

    use super::*;
    use crate::engine::Timing;
    use crate::wire::identity::Identity;

    const MS: Duration = Duration::from_millis(1);

    fn address(index: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, index], 7946))
    }

    /// Two members that know each other. The first one has announced the address.
    fn pair(now: Instant, ip: IpAddr) -> [Member; 2] {
        let mut members = [1, 2].map(|index| {
            let me = Identity::new(format!("n{index}").into(), address(index), 1000);
            let config =
                Config { me, session: index.into(), keys: Keyring::default(), timing: Timing::default(), wan: false };
            let mut member = Member::new(config, index.into(), now);
            member.join(now, [address(1), address(2)]);
            member.set_usable(now, [MacAddr([2, 0, 0, 0, 0, index])]);
            member
        });
        exchange(now, &mut members);
        let [owner, heir] = &mut members;
        owner.plan(now, owns(ip));
        owner.handle_announced(now, &[ip]);
        assert_eq!(heir.live().len(), 2);
        members
    }

    fn owns(ip: IpAddr) -> Plan {
        Plan { addresses: [(ip, Assignment::Owner(Scope::All))].into(), ..Plan::default() }
    }

    /// Delivers all datagrams without delay. Returns the last announcements of the first member, if they changed.
    fn exchange(now: Instant, members: &mut [Member; 2]) -> Option<Vec<AddressChange>> {
        let mut announced = None;
        for _ in 0..8 {
            for from in 0..2 {
                while let Some(output) = members[from].poll_output() {
                    match output {
                        Output::Transmit(transmit) => {
                            members[1 - from].handle_datagram(now, address(from as u8 + 1), &transmit.datagram);
                        }
                        Output::Announce(announcements) if from == 0 => announced = Some(announcements),
                        _ => {}
                    }
                }
            }
        }
        announced
    }

    #[test]
    fn leaving_owner_answers_until_its_successor_has_announced() {
        let (now, ip) = (Instant::now(), "10.1.0.1".parse().unwrap());
        let mut members = pair(now, ip);
        members[0].leave(now, &[(ip, "n2".into())].into());
        let offered = exchange(now, &mut members).unwrap();
        assert!(
            matches!(offered.as_slice(), [AddressChange::Announce(one)] if (one.ip, one.stance) == (ip, Stance::Yield)),
            "{offered:?}"
        );
        assert!(!members[0].has_left());
        assert_eq!(members[1].live().len(), 1, "draining takes effect at once");
        members[0].plan(now, owns(ip));
        assert_eq!(exchange(now, &mut members), None, "a plan after `leave` is ignored");
        members[1].plan(now, owns(ip));
        assert_eq!(members[1].handle_announced(now + MS, &[ip]), None, "no node has died");
        assert_eq!(exchange(now + MS, &mut members), Some(vec![AddressChange::Withdraw(ip)]));
        assert!(members[0].has_left());
        assert_eq!(members[0].tally(), Tally { acknowledged: 1, ..Tally::default() });
    }

    #[test]
    fn leaving_owner_without_an_ack_leaves_within_the_timeout() {
        let (now, ip) = (Instant::now(), "10.1.0.1".parse().unwrap());
        let [mut owner, _] = pair(now, ip);
        owner.leave(now, &[(ip, "n2".into())].into());
        let mut ended = now;
        while !owner.has_left() {
            ended = owner.poll_timeout().unwrap();
            owner.handle_timeout(ended);
        }
        // It stops answering first, then leaves.
        assert_eq!(owner.tally().timed_out, 1);
        assert!((200 * MS..=LEAVE_TIMEOUT).contains(&(ended - now)), "{:?}", ended - now);
    }
}
