//! SWIM gossip: the library `foca` with its timers and its tuning.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification, PeriodicParams, State, Timer};
use rand::rngs::SmallRng;

use super::liveness::is_outdated_by;
use super::{Engine, REACHABLE_FOR};
use crate::wire::codec::GossipCodec;
use crate::wire::identity::{Identity, NameKey};
use crate::wire::message::{GOSSIP_MAX, Message};

/// The gossip protocol of this member. Its outputs are handled by [`Engine::drain_gossip`].
pub(super) struct Gossip {
    foca: Foca<Identity, GossipCodec, SmallRng, NoCustomBroadcast>,
    codec: GossipCodec,
    runtime: AccumulatingRuntime<Identity>,
    /// Pending timers. The second part of the key keeps timers of the same instant in the order in which they were set.
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    timer_serial: u64,
    /// The cluster size that the timing is tuned for.
    tuned_for: u32,
    wan: bool,
}

/// Whether other members are told of a new one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Spread {
    Gossip,
    Nothing,
}

impl Gossip {
    pub(super) fn new(me: Identity, wan: bool, rng: SmallRng) -> Self {
        let codec = GossipCodec::default();
        Self {
            foca: Foca::new(me, tuning(FIRST_TUNING, wan), rng, codec.clone()),
            codec,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timer_serial: 0,
            tuned_for: FIRST_TUNING,
            wan,
        }
    }

    /// The live members without this one, as far as gossip knows.
    pub(super) fn members(&self) -> impl Iterator<Item = &Identity> {
        self.foca.iter_members().map(foca::Member::id)
    }

    pub(super) fn len(&self) -> usize {
        self.foca.num_members()
    }

    /// Whether exactly this incarnation is a live member.
    pub(super) fn is_member(&self, identity: &Identity) -> bool {
        self.members().any(|member| member == identity)
    }

    /// The members that gossip has declared dead and still remembers.
    pub(super) fn down_members(&self) -> impl Iterator<Item = &Identity> {
        self.foca.iter_membership_state().filter(|member| member.state() == State::Down).map(foca::Member::id)
    }

    /// The known incarnation of a node, live or dead.
    pub(super) fn known(&self, key: NameKey) -> Option<&Identity> {
        self.foca.iter_membership_state().map(foca::Member::id).find(|known| known.key() == key)
    }

    pub(super) const fn codec(&self) -> &GossipCodec {
        &self.codec
    }

    /// Adds a member that has proven to be alive. A member that is down stays so until it raises its incarnation.
    pub(super) fn add(&mut self, member: Identity, spread: Spread) {
        let members = std::iter::once(foca::Member::alive(member));
        // It fails only for invalid timers and data, of which there are none here.
        let _ = self.foca.apply_many(members, spread == Spread::Gossip, &mut self.runtime);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn add_all(&mut self, members: impl IntoIterator<Item = Identity>) {
        let _ = self.foca.apply_many(members.into_iter().map(foca::Member::alive), false, &mut self.runtime);
    }

    /// Announces this member to another one, which answers with the members that it knows.
    pub(super) fn announce(&mut self, to: Identity) {
        let _ = self.foca.announce(to, &mut self.runtime);
    }

    pub(super) fn leave(&mut self) {
        let _ = self.foca.leave_cluster(&mut self.runtime);
    }

    pub(super) fn change_identity(&mut self, me: Identity) {
        let _ = self.foca.change_identity(me, &mut self.runtime);
    }

    /// Processes a datagram. One that cannot be decoded is dropped as a whole.
    pub(super) fn handle_datagram(&mut self, bytes: &[u8]) {
        let _ = self.foca.handle_data(bytes, &mut self.runtime);
    }

    /// Runs the next timer that is due. False if none is.
    pub(super) fn run_timer(&mut self, now: Instant) -> bool {
        let Some((&key, _)) = self.timers.first_key_value().filter(|(key, _)| key.0 <= now) else { return false };
        if let Some(timer) = self.timers.remove(&key) {
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
        }
        true
    }

    /// When the next timer is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    fn has_output(&self) -> bool {
        self.runtime.backlog() > 0
    }

    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.runtime.to_send().map(|(to, bytes)| (to.address, bytes.to_vec()))
    }

    fn set_timers(&mut self, now: Instant) {
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timer_serial += 1;
            self.timers.insert((now + after, self.timer_serial), timer);
        }
    }

    fn poll_notification(&mut self) -> Option<OwnedNotification<Identity>> {
        self.runtime.to_notify()
    }

    /// Adapts the timing to the number of members.
    pub(super) fn tune(&mut self) {
        let size = u32::try_from(self.len() + 1).unwrap_or(u32::MAX);
        if size > self.tuned_for || size < self.tuned_for / 4 {
            let target = size.next_power_of_two().max(FIRST_TUNING);
            if self.foca.set_config(tuning(target, self.wan)).is_ok() {
                self.tuned_for = target;
            }
        }
    }
}

impl Engine {
    /// Handles all outputs of the gossip protocol.
    pub(super) fn drain_gossip(&mut self, now: Instant) {
        while self.gossip.has_output() {
            while let Some((to, bytes)) = self.gossip.poll_transmit() {
                self.send_to(now, to, Message::Gossip(bytes));
            }
            self.gossip.set_timers(now);
            while let Some(notification) = self.gossip.poll_notification() {
                self.liveness.outdated |= is_outdated_by(&self.liveness.live, &notification);
                match notification {
                    OwnedNotification::MemberDown(member) => {
                        self.detector.remove(member.node());
                        self.mark_failed(member.node());
                    }
                    OwnedNotification::Rejoin(identity) => self.announce_rejoin(now, identity.incarnation),
                    _ => {}
                }
            }
        }
    }

    /// Others had declared this member dead, and it has raised its incarnation: all reachable hosts must learn of it at
    /// once.
    fn announce_rejoin(&mut self, now: Instant, incarnation: u64) {
        self.config.me.incarnation = incarnation;
        let reachable: Vec<SocketAddr> = self
            .hosts
            .iter()
            .filter(|host| now.saturating_duration_since(host.last_heard) < REACHABLE_FOR)
            .map(|host| host.identity.address)
            .take(REJOIN_ANNOUNCED_TO)
            .collect();
        reachable.into_iter().for_each(|address| self.announce_to(address));
    }

    /// Announces this member to a known host and asks it for the members that it knows.
    pub(super) fn announce_to(&mut self, address: SocketAddr) {
        if let Some(host) = self.hosts.get(address) {
            self.gossip.announce(host.identity.clone());
        }
    }
}

/// The configuration of gossip for a cluster of this size.
fn tuning(size: u32, wan: bool) -> foca::Config {
    let size = NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN);
    let mut config = if wan { foca::Config::new_wan(size) } else { foca::Config::new_lan(size) };
    config.max_packet_size = NonZeroUsize::new(GOSSIP_MAX).unwrap_or(NonZeroUsize::MIN);
    config.remove_down_after = Some(REMEMBER_DEAD);
    // The join protocol contacts dead members itself, and sooner.
    config.periodic_announce_to_down_members = None;
    config.periodic_announce =
        Some(PeriodicParams { frequency: Duration::from_secs(10), num_members: NonZeroUsize::MIN });
    config
}

/// The cluster size that gossip is tuned for at the start.
const FIRST_TUNING: u32 = 8;

/// How long gossip remembers a dead member.
const REMEMBER_DEAD: Duration = Duration::from_secs(60);

/// How many hosts learn at once that this member is not dead.
const REJOIN_ANNOUNCED_TO: usize = 32;
