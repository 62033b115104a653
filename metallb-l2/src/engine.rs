//! The sans-IO engine: decides which frames to answer and which to send unsolicited.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use crate::announce::{BurstTiming, Schedule};
pub use crate::conflict::Defence;
pub use crate::counters::Counters;
use crate::counters::Tally;
use crate::foreign::{ForeignAddress, ForeignAddresses};
use crate::group::Groups;
pub use crate::group::{GroupChange, Membership};
use crate::interface::{AddressChange, Announcement, Interface, MacAddr, Scope, Stance};
use crate::limit::Limiter;
pub use crate::limit::{Limits, Rate};
use crate::outgoing::{Gratuitous, Outgoing, Pass, enqueue, enqueue_probe};
pub use crate::responder::DropReason;
use crate::responder::{Claim, Request, parse};
use crate::vip::{Generation, Phase, VipId, VipTable};
use crate::wire::Frame;
use crate::wire::ndp::{Checksum, Solicitation, solicited_node};

/// Answers ARP and NDP requests for a set of addresses on a set of interfaces, and announces those addresses.
///
/// How to drive it:
/// - Facts enter through `set_interfaces`, `set_addresses`, `change_addresses`, `set_foreign_addresses`,
///   `set_speaker_macs`, `announce_again`, `handle_frame` and `handle_timeout`. Time is an argument and never goes
///   backwards.
/// - After each of them, `poll_group`, `poll_transmit`, `poll_announced` and `poll_event` are called until they return
///   `None`. The queues behind them grow only between two such drains; events are also limited in number.
/// - `poll_timeout` returns when `handle_timeout` is due. Early and repeated calls are harmless.
///
/// The same seed and the same inputs give the same bytes. Answering a request does not allocate.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    interfaces: BTreeMap<u32, Interface>,
    own_macs: FxHashSet<MacAddr>,
    /// Pairs of interfaces on one segment that were reported since the interfaces changed.
    shared_segments: std::collections::BTreeSet<(u32, u32)>,
    speaker_macs: FxHashSet<MacAddr>,
    foreign: ForeignAddresses,
    vips: VipTable,
    schedule: Schedule,
    probes: Schedule,
    groups: Groups,
    limiter: Limiter,
    outgoing: VecDeque<Outgoing>,
    announced: VecDeque<IpAddr>,
    events: VecDeque<Event>,
    tally: Tally,
}

/// Settings that stay the same for the life of an engine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// How many requests are answered per second.
    pub limits: Limits,
    /// What to do when another host uses an address that this engine announces.
    pub defence: Defence,
}

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The index of the interface that received it.
    pub interface: u32,
    /// The frame, beginning with its Ethernet header. It may be cut at the end.
    pub bytes: &'a [u8],
    /// Whether its checksum can be verified.
    pub checksum: Checksum,
}

/// A frame to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Transmit {
    /// The index of the interface to send it on.
    pub interface: u32,
    /// The frame.
    pub frame: Frame,
}

/// A finding for the layer above. Repetitions are rate limited.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Another host uses an address that this engine announces (RFC 5227 §2.4).
    Conflict {
        /// The address.
        ip: IpAddr,
        /// The hardware address of the other host.
        mac: MacAddr,
        /// The interface on which it was seen.
        interface: Arc<str>,
    },
    /// A probe found that another host has the address. The engine leaves it alone and probes again every minute.
    Occupied {
        /// The address.
        ip: IpAddr,
        /// The hardware address of the other host.
        mac: MacAddr,
        /// The interface on which it was seen.
        interface: Arc<str>,
    },
    /// Two interfaces of this host are on one segment, so requests are answered with both hardware addresses. It is
    /// reported once until the interfaces change.
    SharedSegment {
        /// The names of the interfaces.
        interfaces: [Arc<str>; 2],
    },
}

/// The addresses that begin a burst together.
#[derive(Debug, Default)]
struct Bursts {
    held: Vec<(VipId, Generation)>,
    probing: Vec<(VipId, Generation)>,
}

impl Engine {
    /// Creates an engine without addresses and interfaces. `seed` determines the jitter of bursts and the hash of the
    /// rate limiter; it should be unpredictable to other hosts.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        Self {
            config,
            interfaces: BTreeMap::new(),
            own_macs: FxHashSet::default(),
            shared_segments: std::collections::BTreeSet::new(),
            speaker_macs: FxHashSet::default(),
            foreign: ForeignAddresses::new(),
            vips: VipTable::default(),
            schedule: Schedule::new(BurstTiming::ANNOUNCE, seed),
            probes: Schedule::new(BurstTiming::PROBE, seed.rotate_left(32)),
            groups: Groups::default(),
            limiter: Limiter::new(config.limits, seed, now),
            outgoing: VecDeque::new(),
            announced: VecDeque::new(),
            events: VecDeque::with_capacity(EVENTS_KEPT),
            tally: Tally::default(),
        }
    }

    /// Replaces the interfaces. Addresses are announced again on each interface that is new or changed.
    pub fn set_interfaces(&mut self, now: Instant, interfaces: impl IntoIterator<Item = Interface>) {
        let new: BTreeMap<u32, Interface> =
            interfaces.into_iter().map(|interface| (interface.index, interface)).collect();
        if new == self.interfaces {
            return;
        }
        let old = std::mem::replace(&mut self.interfaces, new);
        self.shared_segments.clear();
        self.own_macs = self.interfaces.values().map(|interface| interface.mac).collect();
        let fresh: Vec<u32> =
            self.interfaces.values().filter(|new| old.get(&new.index) != Some(new)).map(|new| new.index).collect();
        let mut touched = Vec::new();
        for (id, vip) in self.vips.iter_mut() {
            vip.resolve(self.interfaces.values());
            if vip.is_held() && fresh.iter().any(|&index| vip.is_on(index)) {
                touched.push((id, vip.generation.advance()));
            }
        }
        self.schedule.start(now, touched);
        self.groups.update(&self.vips, self.interfaces.values());
        self.announce_due(now);
    }

    /// Replaces the addresses. Those that are new or have a new scope are announced in one burst; unchanged ones cause
    /// no frames. Answers for removed addresses end at once. If an address occurs twice the last occurrence counts; see
    /// [`Scope::union`](crate::interface::Scope::union).
    pub fn set_addresses<A: Into<Announcement>>(&mut self, now: Instant, addresses: impl IntoIterator<Item = A>) {
        // Indexed by `VipId`.
        let mut wanted: Vec<Option<Announcement>> = Vec::new();
        for announcement in addresses.into_iter().map(Into::into) {
            let index = self.vips.intern(announcement.ip).index();
            if index >= wanted.len() {
                wanted.resize(index + 1, None);
            }
            wanted[index] = Some(announcement);
        }
        let mut bursts = Bursts::default();
        let mut changed = false;
        for id in self.vips.ids() {
            let wanted = wanted.get_mut(id.index()).and_then(Option::take);
            changed |= self.want(id, wanted.map(|wanted| (wanted.scope, wanted.stance)), &mut bursts);
        }
        if changed {
            self.start(now, bursts);
            self.groups.update(&self.vips, self.interfaces.values());
        }
        self.announce_due(now);
    }

    /// Changes single addresses and leaves all others as they are, with the same effects as
    /// [`set_addresses`](Self::set_addresses) for the resulting list. Costs what changes. If an address occurs twice
    /// the last occurrence counts.
    pub fn change_addresses(&mut self, now: Instant, changes: impl IntoIterator<Item = AddressChange>) {
        let mut wanted: BTreeMap<VipId, Option<(Scope, Stance)>> = BTreeMap::new();
        for change in changes {
            match change {
                AddressChange::Announce(Announcement { ip, scope, stance }) => {
                    wanted.insert(self.vips.intern(ip), Some((scope, stance)));
                }
                AddressChange::Withdraw(ip) => {
                    // An address that the table does not have is not announced.
                    if let Some(id) = self.vips.find(ip) {
                        wanted.insert(id, None);
                    }
                }
            }
        }
        let mut bursts = Bursts::default();
        let mut changed = Vec::new();
        for (id, wanted) in wanted {
            if self.want(id, wanted, &mut bursts) {
                changed.push(id);
            }
        }
        // After all changes: a group that passes from one address to another is not left in between.
        for id in changed {
            self.groups.update_one(&self.vips, id, self.interfaces.values());
        }
        self.start(now, bursts);
        self.announce_due(now);
    }

    /// Brings one address in the wanted state. Returns whether that is another one than before.
    fn want(&mut self, id: VipId, wanted: Option<(Scope, Stance)>, bursts: &mut Bursts) -> bool {
        let vip = self.vips.vip_mut(id);
        let (scope, phase) = match wanted {
            Some((scope, stance)) => (Some(scope), vip.phase_after(stance)),
            None => (None, Phase::Held),
        };
        if scope == vip.scope && phase == vip.phase {
            return false;
        }
        (vip.scope, vip.phase) = (scope, phase);
        vip.foreign = self.foreign.find(vip.ip).cloned();
        vip.resolve(self.interfaces.values());
        let generation = vip.generation.advance();
        match phase {
            _ if vip.scope.is_none() || vip.foreign.is_some() => {}
            Phase::Held => bursts.held.push((id, generation)),
            Phase::Probing | Phase::Occupied => bursts.probing.push((id, generation)),
            Phase::Yielding => {}
        }
        true
    }

    fn start(&mut self, now: Instant, bursts: Bursts) {
        self.schedule.start(now, bursts.held);
        self.probes.start(now, bursts.probing);
    }

    /// Replaces the addresses that must not be announced. Answers for an address that becomes foreign end at once. When
    /// it is no longer foreign it is announced like a new one.
    pub fn set_foreign_addresses(&mut self, now: Instant, foreign: ForeignAddresses) {
        if foreign == self.foreign {
            return;
        }
        self.foreign = foreign;
        let (mut held, mut probing) = (Vec::new(), Vec::new());
        for (id, vip) in self.vips.iter_mut() {
            let foreign = self.foreign.find(vip.ip);
            if foreign == vip.foreign.as_ref() {
                continue;
            }
            vip.foreign = foreign.cloned();
            vip.resolve(self.interfaces.values());
            let generation = vip.generation.advance();
            match vip.phase {
                _ if vip.scope.is_none() || vip.foreign.is_some() => {}
                Phase::Held => held.push((id, generation)),
                Phase::Probing | Phase::Occupied => probing.push((id, generation)),
                Phase::Yielding => {}
            }
        }
        self.schedule.start(now, held);
        self.probes.start(now, probing);
        self.groups.update(&self.vips, self.interfaces.values());
        self.announce_due(now);
    }

    /// The wanted addresses that are not announced because they are foreign, with the reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<IpAddr, ForeignAddress> {
        let wanted = self.vips.iter().filter(|(_, vip)| vip.scope.is_some());
        wanted.filter_map(|(_, vip)| Some((vip.ip, vip.foreign.clone()?))).collect()
    }

    /// Why a wanted address is not announced; `None` if it is not wanted or not foreign.
    #[must_use]
    pub fn refusal(&self, ip: IpAddr) -> Option<&ForeignAddress> {
        let vip = self.vips.vip(self.vips.find(ip)?);
        vip.foreign.as_ref().filter(|_| vip.scope.is_some())
    }

    /// Starts a new burst for addresses that are held, and ignores all others. The winner calls this after two speakers
    /// announced the same address.
    pub fn announce_again(&mut self, now: Instant, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut members = Vec::new();
        for ip in addresses {
            let Some(id) = self.vips.find(ip) else { continue };
            let vip = self.vips.vip_mut(id);
            if vip.is_held() {
                vip.claimed_by_speaker = None;
                members.push((id, vip.generation.advance()));
            }
        }
        self.schedule.start(now, members);
        self.announce_due(now);
    }

    /// Replaces the hardware addresses of the other speakers. A claim by one of them is counted but is no conflict,
    /// because the speakers settle among themselves who holds an address.
    pub fn set_speaker_macs(&mut self, macs: impl IntoIterator<Item = MacAddr>) {
        self.speaker_macs = macs.into_iter().collect();
    }

    /// Whether requests for an address are answered on at least one of the interfaces in its scope.
    #[must_use]
    pub fn announces(&self, ip: IpAddr) -> bool {
        let answered = |id| {
            let vip = self.vips.vip(id);
            vip.scope.is_some() && vip.foreign.is_none() && matches!(vip.phase, Phase::Held | Phase::Yielding)
        };
        self.vips.find(ip).is_some_and(answered)
    }

    /// Processes a received frame and returns the reply, to be sent on the same interface.
    ///
    /// # Errors
    /// The reason why there is no reply. Each one is counted.
    pub fn handle_frame(&mut self, now: Instant, frame: &Received<'_>) -> Result<Frame, DropReason> {
        let answer = self.answer(now, frame);
        if let Err(reason) = answer {
            self.tally.count_drop(reason);
            if reason == DropReason::OwnFrame {
                self.note_shared_segment(frame);
            }
        }
        answer
    }

    /// A frame of another interface of this host shows that both are on one segment.
    fn note_shared_segment(&mut self, frame: &Received<'_>) {
        let (Some(receiver), Some(source)) = (self.interfaces.get(&frame.interface), frame.bytes.get(6..12)) else {
            return;
        };
        let is_sender = |interface: &&Interface| interface.mac.0 == source && interface.mac != receiver.mac;
        let Some(sender) = self.interfaces.values().find(is_sender) else { return };
        let pair = (sender.index.min(receiver.index), sender.index.max(receiver.index));
        if self.events.len() < EVENTS_KEPT && self.shared_segments.insert(pair) {
            let names = [pair.0, pair.1].map(|index| Arc::clone(&self.interfaces[&index].name));
            self.events.push_back(Event::SharedSegment { interfaces: names });
        }
    }

    /// Queues the frames that are due. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.announce_due(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next; `None` if nothing is scheduled.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next().into_iter().chain(self.probes.next()).min()
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        while let Some(next) = self.outgoing.pop_front() {
            if let Some(frame) = next.frame(&self.vips, &self.interfaces) {
                let vip = self.vips.vip_mut(next.vip);
                match next.message {
                    Gratuitous::Probe => self.tally.probes += 1,
                    Gratuitous::Arp(_) | Gratuitous::Advertisement => vip.counts.gratuitous += 1,
                }
                if next.ends_first_round {
                    self.announced.push_back(vip.ip);
                }
                return Some(Transmit { interface: next.interface, frame });
            }
        }
        // Release the memory of a large burst.
        self.outgoing.shrink_to(OUTGOING_KEPT);
        None
    }

    /// The next address whose whole first round of announcements was returned by
    /// [`poll_transmit`](Self::poll_transmit). An address without a usable interface is never reported.
    pub fn poll_announced(&mut self) -> Option<IpAddr> {
        let next = self.announced.pop_front();
        if next.is_none() {
            self.announced.shrink_to(OUTGOING_KEPT);
        }
        next
    }

    /// The next solicited-node group to join or leave.
    pub fn poll_group(&mut self) -> Option<GroupChange> {
        self.groups.next_change()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A snapshot of all counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.snapshot(&self.vips)
    }

    fn answer(&mut self, now: Instant, frame: &Received<'_>) -> Result<Frame, DropReason> {
        let interface = self.interfaces.get(&frame.interface).ok_or(DropReason::Interface)?;
        let parsed = parse(frame.bytes, frame.checksum, interface, |mac| self.own_macs.contains(&mac))?;
        let is_misdirected = match &parsed.request {
            Ok(Request::Ndp(solicitation, _)) => !self.accepts_destination(solicitation, interface),
            _ => false,
        };
        self.tally.mismatched_senders += u64::from(parsed.mismatched);
        if let Some(claim) = parsed.claim.filter(|_| !is_misdirected) {
            self.handle_claim(now, claim, frame.interface);
        }
        if let Some(probe) = parsed.probe() {
            self.handle_probe(now, probe, frame.interface);
        }
        let request = parsed.request?;
        let id = self.vips.find(request.ip()).ok_or(DropReason::AnnounceIp)?;
        let vip = self.vips.vip_mut(id);
        if vip.scope.is_none() {
            return Err(DropReason::AnnounceIp);
        }
        if is_misdirected {
            return Err(DropReason::IpDestination);
        }
        if vip.foreign.is_some() {
            return Err(DropReason::ForeignAddress);
        }
        if !vip.is_on(frame.interface) {
            return Err(DropReason::NotMatchInterface);
        }
        if matches!(vip.phase, Phase::Probing | Phase::Occupied) {
            return Err(DropReason::Probing);
        }
        vip.counts.requests += 1;
        if !self.limiter.allows(now, parsed.sender) {
            return Err(DropReason::RateLimited);
        }
        let interface = self.interfaces.get(&frame.interface).ok_or(DropReason::Interface)?;
        let reply = request.reply(interface, vip.override_flag(now)).ok_or(DropReason::Interface)?;
        vip.counts.responses += 1;
        Ok(reply)
    }

    /// Whether a host may send a solicitation to this destination (RFC 4861 §4.3): the target's solicited-node group,
    /// the target itself, or another address of this host.
    fn accepts_destination(&self, solicitation: &Solicitation, interface: &Interface) -> bool {
        let destination = solicitation.destination;
        let is_own = |ip: IpAddr| matches!(self.foreign.find(ip), Some(ForeignAddress::OwnAddress(_)));
        destination == solicited_node(solicitation.target)
            || destination == solicitation.target
            || interface.link_local == Some(destination)
            || is_own(destination.into())
            || self.vips.find(destination.into()).is_some_and(|id| self.vips.vip(id).is_on(interface.index))
    }

    fn handle_claim(&mut self, now: Instant, claim: Claim, index: u32) {
        let Some(id) = self.vips.find(claim.ip) else { return };
        let vip = self.vips.vip_mut(id);
        if !vip.is_on(index) || vip.phase == Phase::Yielding {
            return;
        }
        if self.speaker_macs.contains(&claim.mac) {
            self.tally.claims_of_speakers += 1;
            vip.claimed_by_speaker = Some(now);
            return;
        }
        vip.counts.conflicts += 1;
        let occupied = vip.phase != Phase::Held;
        if vip.phase == Phase::Probing {
            vip.phase = Phase::Occupied;
            let again = vec![(id, vip.generation.advance())];
            self.probes.start(now + PROBE_AGAIN, again);
        }
        let vip = self.vips.vip_mut(id);
        let response = vip.conflict.observe(now, claim.mac, self.config.defence);
        if let (true, Some(interface)) = (response.report, self.interfaces.get(&index)) {
            if self.events.len() == EVENTS_KEPT {
                self.events.pop_front();
                self.tally.lost_events += 1;
            }
            let (Claim { ip, mac }, interface) = (claim, Arc::clone(&interface.name));
            self.events.push_back(match occupied {
                true => Event::Occupied { ip, mac, interface },
                false => Event::Conflict { ip, mac, interface },
            });
        }
        if response.defend && !occupied {
            for pass in [Pass::First, Pass::Second] {
                enqueue(&mut self.outgoing, &self.interfaces, &self.vips, id, pass, false);
            }
        }
    }

    /// Handles an ARP probe by another host. It is an ordinary request unless this engine probes for the same address,
    /// which makes it a conflict (RFC 5227 §2.1.1).
    fn handle_probe(&mut self, now: Instant, probe: Claim, index: u32) {
        let found = self.vips.find(probe.ip).map(|id| self.vips.vip(id));
        if found.is_some_and(|vip| vip.scope.is_some() && vip.phase == Phase::Probing) {
            self.handle_claim(now, probe, index);
        }
    }

    fn announce_due(&mut self, now: Instant) {
        let Self { schedule, probes, vips, interfaces, outgoing, .. } = self;
        let (mut due, mut taken) = (Vec::new(), Vec::new());
        probes.run_due(now, vips, |id, round| due.push((id, round)));
        for (id, round) in due {
            let vip = vips.vip_mut(id);
            vip.phase = if round < PROBES { Phase::Probing } else { Phase::Held };
            match vip.phase {
                Phase::Held => taken.push((id, vip.generation.advance())),
                _ => enqueue_probe(outgoing, interfaces, vips, id),
            }
        }
        schedule.start(now, taken);
        let mut due = Vec::new();
        schedule.run_due(now, vips, |id, round| due.push((id, round == 0)));
        // All ARP requests leave before the first ARP reply. Most neighbours need only one of the two, so a large burst
        // takes half the time.
        for pass in [Pass::First, Pass::Second] {
            for &(id, is_first_round) in &due {
                enqueue(outgoing, interfaces, vips, id, pass, is_first_round);
            }
        }
    }
}

/// The number of probes before an address is taken.
const PROBES: u8 = BurstTiming::PROBE.rounds - 1;

/// The pause before the next probe for an address that another host has.
const PROBE_AGAIN: Duration = Duration::from_secs(60);

/// The limit of queued events. When it is reached the oldest one is dropped and counted, so that a hostile host cannot
/// fill the memory.
const EVENTS_KEPT: usize = 256;

/// The capacity of the queues that is kept between bursts.
const OUTGOING_KEPT: usize = 1024;

#[cfg(test)]
mod tests;
