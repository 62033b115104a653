//! Planned handover: the new owner announces an address before the old one stops answering for it.
//!
//! ```text
//! old owner                                            new owner
//! a plan takes the address away
//! answers, no longer announces ──── HandoverOffer ──>  its own plan has the address: announces it (again)
//! stops answering <──────────────── HandoverAck ─────  the first round of announcements has been sent
//! stops answering after 200 ms without an ack, repeats the offer for 5 s
//! ```
//!
//! A new owner that does not announce the address, for example because its kernel has it, sends `HandoverReject` when
//! the next offer arrives. The old owner then stops answering at once.
//!
//! A node that announced an address which another node owned all the time has corrupted the neighbours' caches. The
//! owner learns of it by a `HandoverOffer`, or by [`Handover::schedule_announcement`] when the other node died or
//! returned. The owner's announcement must be the last one, so it counts only if it was sent after the time that the
//! offer names.
//!
//! An address that came to this node is announced once more after [`REPEAT_ANNOUNCEMENT_AFTER`], for neighbours that no
//! frame reached in between, such as those behind a switch port that comes up slowly.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;
use metallb_l2::interface::{AddressChange, Announcement, Scope, Stance};

use crate::takeover::Wanted;
use crate::wire::message::{ADDRESSES_MAX, Message};

/// The addresses that this node answers for, and those that it hands over.
#[derive(Debug, Default)]
pub struct Handover {
    held: BTreeMap<IpAddr, Held>,
    /// The addresses that this node gives up for another one.
    offers: BTreeMap<IpAddr, Offer>,
    /// Addresses that were given up without an ack, with the time of the last possible announcement. Neighbours may
    /// believe in this node until another one announces them.
    unclaimed: BTreeMap<IpAddr, (Scope, Instant)>,
    /// Addresses that this node does not announce, even if it owns them.
    refused: BTreeSet<IpAddr>,
    /// Offers of other nodes that wait for an announcement of this node, and until when. Bounded: an offer beyond
    /// [`AWAITED_MAX`] is dropped; its sender repeats it.
    awaited: BTreeMap<IpAddr, (NodeName, Instant)>,
    /// The addresses whose announcement may have changed since the changes were last taken.
    changed: BTreeSet<IpAddr>,
    announce_again: BTreeSet<IpAddr>,
    /// When all held addresses are announced again.
    announce_again_at: Option<Instant>,
    /// Addresses that came to this node recently, and when each is announced once more. Bounded: beyond [`REPEATS_MAX`]
    /// the oldest is dropped, as it is only a repetition.
    repeats: VecDeque<(Instant, IpAddr)>,
    /// Not capped: [`Member`](crate::member::Member) empties it after each input, which adds at most two messages per
    /// address.
    outgoing: VecDeque<(NodeName, Message)>,
    tally: Tally,
}

/// The results of handovers, in addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Tally {
    /// The new owner has announced the address.
    pub acknowledged: u64,
    /// The new owner does not announce the address.
    pub rejected: u64,
    /// No ack or reject arrived within 200 ms.
    pub timed_out: u64,
}

#[derive(Debug)]
struct Held {
    scope: Scope,
    /// When the first round of announcements had been sent.
    announced: Option<Instant>,
}

/// An address that this node gives up.
#[derive(Debug)]
struct Offer {
    scope: Scope,
    to: NodeName,
    /// The latest time at which this node may have announced it.
    since: Instant,
    /// When this node stops answering for it without an ack.
    until: Instant,
    state: OfferState,
    /// When the offer is sent next.
    send_at: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OfferState {
    /// This node answers ARP and NDP requests for the address.
    Answering,
    /// This node has stopped answering.
    Silent,
}

impl Handover {
    /// Changes what this node does with addresses; all others stay as they are. An address that is released without a
    /// new owner is no longer answered for, at once. Costs what changes, beside the handovers in progress.
    pub(crate) fn change(&mut self, now: Instant, changes: impl IntoIterator<Item = (IpAddr, Wanted)>) {
        self.unclaimed.retain(|_, (_, since)| *since + UNCLAIMED_FOR > now);
        for (ip, wanted) in changes {
            match wanted {
                Wanted::Held(scope) => self.hold(now, ip, scope_of(&scope)),
                Wanted::Released(to) => self.release(now, ip, to),
            }
        }
        self.send_offers(now);
    }

    /// Releases all addresses to their successors.
    pub(crate) fn release_all(&mut self, now: Instant, successors: &BTreeMap<IpAddr, NodeName>) {
        let known = self.held.keys().chain(self.offers.keys()).chain(self.unclaimed.keys());
        let ips: BTreeSet<IpAddr> = known.copied().collect();
        self.change(now, ips.into_iter().map(|ip| (ip, Wanted::Released(successors.get(&ip).cloned()))));
    }

    /// The addresses that were given up and that no other node has acknowledged. Their owner, if it is known, is
    /// offered them by the next [`change`](Self::change) that names it: it may have had the address all the time, on
    /// the other side of a partition.
    pub(crate) fn unclaimed(&self) -> impl Iterator<Item = IpAddr> {
        self.unclaimed.keys().copied()
    }

    fn hold(&mut self, now: Instant, ip: IpAddr, scope: Scope) {
        self.offers.remove(&ip);
        self.unclaimed.remove(&ip);
        match self.held.get(&ip) {
            Some(held) if held.scope == scope => return,
            Some(_) => {}
            None => {
                if self.repeats.len() >= REPEATS_MAX {
                    self.repeats.pop_front();
                }
                self.repeats.push_back((now + REPEAT_ANNOUNCEMENT_AFTER, ip));
            }
        }
        self.held.insert(ip, Held { scope, announced: None });
        self.changed.insert(ip);
    }

    fn release(&mut self, now: Instant, ip: IpAddr, to: Option<NodeName>) {
        if let Some(Held { scope, announced }) = self.held.remove(&ip) {
            self.changed.insert(ip);
            if let Some(to) = to {
                let (until, state) = (now + ACK_TIMEOUT, OfferState::Answering);
                self.offers.insert(ip, Offer { scope, to, since: now, until, state, send_at: now });
            } else if announced.is_some() {
                self.unclaimed.insert(ip, (scope, now));
            }
            return;
        }
        let Some(to) = to else { return };
        if let Some((scope, since)) = self.unclaimed.remove(&ip) {
            let state = OfferState::Silent;
            self.offers.insert(ip, Offer { scope, to, since, until: now, state, send_at: now });
        } else if let Some(offer) = self.offers.get_mut(&ip).filter(|offer| offer.to != to) {
            // The successor changed since the handover began.
            offer.to = to;
            offer.send_at = now;
        }
    }

    /// Replaces the addresses that this node does not announce, even if it owns them.
    pub fn set_refused(&mut self, refused: BTreeSet<IpAddr>) {
        self.refused = refused;
    }

    /// Another member gives these addresses up for this node. It announced none of them after `since`.
    pub fn handle_offer(&mut self, now: Instant, from: &NodeName, ips: &[IpAddr], since: Instant) {
        let mut rejected = Vec::new();
        for &ip in ips.iter().take(ADDRESSES_MAX) {
            match self.held.get(&ip) {
                Some(_) if self.refused.contains(&ip) => {
                    rejected.push(ip);
                    continue;
                }
                // The earlier ack was lost, or is on its way.
                Some(Held { announced: Some(at), .. }) if *at >= since => {
                    self.outgoing.push_back((from.clone(), Message::HandoverAck(vec![ip])));
                    continue;
                }
                Some(Held { announced: Some(_), .. }) if !self.awaited.contains_key(&ip) => {
                    self.announce_again.insert(ip);
                }
                _ => {}
            }
            // The next plan will have the address when this node learns what the other one knows.
            if self.awaited.len() < AWAITED_MAX || self.awaited.contains_key(&ip) {
                self.awaited.insert(ip, (from.clone(), now + AWAITED_FOR));
            }
        }
        self.send(from, &rejected, Message::HandoverReject);
    }

    /// The new owner has announced these addresses.
    pub fn handle_ack(&mut self, from: &NodeName, ips: &[IpAddr]) {
        for ip in ips {
            if self.offers.get(ip).is_some_and(|offer| offer.to == *from)
                && self.offers.remove(ip).is_some_and(|offer| offer.state == OfferState::Answering)
            {
                self.tally.acknowledged += 1;
                self.changed.insert(*ip);
            }
        }
    }

    /// The new owner does not announce these addresses. If another node becomes the owner, it is sent an offer.
    pub fn handle_reject(&mut self, from: &NodeName, ips: &[IpAddr]) {
        for ip in ips {
            if self.offers.get(ip).is_some_and(|offer| offer.to == *from)
                && let Some(Offer { scope, since, state, .. }) = self.offers.remove(ip)
            {
                self.unclaimed.insert(*ip, (scope, since));
                let answered = state == OfferState::Answering;
                self.tally.rejected += u64::from(answered);
                self.changed.extend(answered.then_some(*ip));
            }
        }
    }

    /// The first round of announcements for these addresses has been sent.
    pub fn handle_announced(&mut self, now: Instant, ips: &[IpAddr]) {
        let mut announced: BTreeMap<NodeName, Vec<IpAddr>> = BTreeMap::new();
        for ip in ips {
            let Some(held) = self.held.get_mut(ip) else { continue };
            held.announced = Some(now);
            if let Some((to, _)) = self.awaited.remove(ip) {
                announced.entry(to).or_default().push(*ip);
            }
        }
        for (to, ips) in announced {
            self.send(&to, &ips, Message::HandoverAck);
        }
    }

    /// Announces all held addresses again after 50 ms: a node that died or returned may have claimed them
    /// in a partition. The delay lets the next election finish, so that no address is announced after its new owner has
    /// announced it.
    pub fn schedule_announcement(&mut self, now: Instant) {
        self.announce_again_at = Some(now + ELECTION_DELAY);
    }

    /// Cancels what [`schedule_announcement`](Self::schedule_announcement) has scheduled.
    pub fn cancel_announcement(&mut self) {
        self.announce_again_at = None;
    }

    /// Repeats offers that were not answered, and stops answering for addresses whose offer has timed out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.announce_again_at.take_if(|at| *at <= now).is_some() {
            let announced = self.held.iter().filter(|(_, held)| held.announced.is_some());
            self.announce_again.extend(announced.map(|(ip, _)| *ip));
        }
        while let Some((_, ip)) = self.repeats.pop_front_if(|(at, _)| *at <= now) {
            if self.held.get(&ip).is_some_and(|held| held.announced.is_some()) {
                self.announce_again.insert(ip);
            }
        }
        let answering = self.offers.iter_mut().filter(|(_, offer)| offer.state == OfferState::Answering);
        for (ip, offer) in answering.filter(|(_, offer)| offer.until <= now) {
            offer.state = OfferState::Silent;
            self.tally.timed_out += 1;
            self.changed.insert(*ip);
        }
        for (ip, offer) in self.offers.extract_if(.., |_, offer| offer.until + OFFERED_FOR <= now) {
            self.unclaimed.insert(ip, (offer.scope, offer.since));
        }
        self.awaited.retain(|_, (_, until)| *until > now);
        self.send_offers(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let offers = self.offers.values().map(|offer| match offer.state {
            OfferState::Answering => offer.until.min(offer.send_at),
            OfferState::Silent => offer.send_at,
        });
        let repeat = self.repeats.front().map(|(at, _)| *at);
        offers.chain(self.awaited.values().map(|(_, until)| *until)).chain(self.announce_again_at).chain(repeat).min()
    }

    /// The addresses whose announcement may have changed since the last call, if any.
    pub fn poll_announcements(&mut self) -> Option<Vec<AddressChange>> {
        if self.changed.is_empty() {
            return None;
        }
        let changed = std::mem::take(&mut self.changed);
        Some(changed.into_iter().map(|ip| self.announcement(ip)).collect())
    }

    fn announcement(&self, ip: IpAddr) -> AddressChange {
        let offered = || self.offers.get(&ip).filter(|offer| offer.state == OfferState::Answering);
        let scope = match self.held.get(&ip) {
            Some(held) => Some((&held.scope, Stance::Hold)),
            None => offered().map(|offer| (&offer.scope, Stance::Yield)),
        };
        match scope {
            Some((scope, stance)) => AddressChange::Announce(Announcement { ip, scope: scope.clone(), stance }),
            None => AddressChange::Withdraw(ip),
        }
    }

    /// Addresses to announce again, if any.
    pub fn poll_announce_again(&mut self) -> Option<Vec<IpAddr>> {
        let again = std::mem::take(&mut self.announce_again);
        (!again.is_empty()).then(|| again.into_iter().collect())
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<(NodeName, Message)> {
        self.outgoing.pop_front()
    }

    /// Whether this node no longer answers for any address that it gives up.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.offers.values().any(|offer| offer.state == OfferState::Answering)
    }

    /// The results of handovers so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    fn send_offers(&mut self, now: Instant) {
        let mut due: BTreeMap<(NodeName, Instant), Vec<IpAddr>> = BTreeMap::new();
        for (&ip, offer) in self.offers.iter_mut().filter(|(_, offer)| offer.send_at <= now) {
            offer.send_at = now
                + match offer.state {
                    OfferState::Answering => OFFER_INTERVAL,
                    OfferState::Silent => OFFER_INTERVAL_SILENT,
                };
            due.entry((offer.to.clone(), offer.since)).or_default().push(ip);
        }
        for ((to, since), ips) in due {
            let since = u32::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(u32::MAX);
            self.send(&to, &ips, |ips| Message::HandoverOffer { ips, since });
        }
    }

    fn send(&mut self, to: &NodeName, ips: &[IpAddr], message: impl Fn(Vec<IpAddr>) -> Message) {
        self.outgoing.extend(ips.chunks(ADDRESSES_MAX).map(|ips| (to.clone(), message(ips.to_vec()))));
    }
}

/// The interfaces as `metallb-l2` names them.
fn scope_of(scope: &metallb_core::announcement::Scope) -> Scope {
    match scope {
        metallb_core::announcement::Scope::All => Scope::All,
        metallb_core::announcement::Scope::Only(names) => {
            Scope::Only(names.iter().map(|name| name.as_str().into()).collect())
        }
    }
}

/// How long the old owner answers while no ack arrives.
const ACK_TIMEOUT: Duration = Duration::from_millis(200);

/// The interval between offers while the old owner answers.
const OFFER_INTERVAL: Duration = Duration::from_millis(40);

/// How long the old owner repeats the offer after it stopped answering, and the interval: the new owner may have owned
/// the address all the time and must then correct the neighbours' caches.
const OFFERED_FOR: Duration = Duration::from_secs(5);
const OFFER_INTERVAL_SILENT: Duration = Duration::from_millis(300);

/// How long an address without an ack is remembered: longer than neighbours keep a cache entry.
const UNCLAIMED_FOR: Duration = Duration::from_secs(600);

/// The election that follows a change of the live members is finished within this time.
const ELECTION_DELAY: Duration = Duration::from_millis(50);

/// The time from the first announcement of an address to its repetition: longer than a switch blocks a port that came
/// up (spanning tree: twice 15 s).
pub const REPEAT_ANNOUNCEMENT_AFTER: Duration = Duration::from_secs(35);

/// How long an offer is remembered until a plan has the address.
const AWAITED_FOR: Duration = Duration::from_millis(500);

/// The most addresses with a remembered offer.
const AWAITED_MAX: usize = 65_536;

/// The most repetitions that are scheduled.
const REPEATS_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
