//! What comes in.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

use super::{Engine, Event, INQUIRIES_MAX, Inquiry};
use crate::failure_detector::Sign;
use crate::hosts::Greeted;
use crate::wire::identity::{Identity, LIFE_MAX};
use crate::wire::message::{ADDRESSES_MAX, Body, HARDWARE_MAX, Message, Standing};
use crate::wire::seal::{Opened, SealError};

impl Engine {
    pub(super) fn hear(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.entry == super::Entry::Outside {
            return;
        }
        let refused = &mut self.counters.refused;
        let Opened { session, sequence, body } = match self.config.keys.open(datagram) {
            Ok(opened) => opened,
            Err(error) => {
                *match error {
                    SealError::Malformed => &mut refused.malformed,
                    SealError::Mode => &mut refused.sealed_otherwise,
                    SealError::UnknownKey => &mut refused.unknown_key,
                    SealError::Forged => &mut refused.forged,
                } += 1;
                return;
            }
        };
        let Some(body) = Body::decode(&body) else {
            refused.malformed += 1;
            return;
        };
        if session == self.config.session {
            return;
        }
        if body.to != self.config.session {
            self.counters.strangers += 1;
            if let Some(peer) = self.peers.get(from) {
                let node = peer.identity.node().clone();
                self.hear_talk(now, &node, body.standing);
            }
            // It may be a record of long ago: we say who we are, and believe nothing.
            if !matches!(body.message, Message::Welcome(_)) && self.greetings.may_welcome() {
                self.transmit(from, session, Message::Welcome(self.config.me.clone()));
            }
            return;
        }
        if let Message::Outlived(life) = body.message {
            // Whoever says so refuses us as a peer, so that it may be none of ours.
            self.outlive(life);
            self.greet(from);
            return;
        }
        if let Message::Welcome(identity) = &body.message {
            if self.welcome(now, from, session, identity).is_none() {
                return;
            }
        } else if self.peers.get(from).is_none_or(|peer| peer.session != session) {
            // It knows us, and we do not know it: what it sent after its greeting may have overtaken that.
            self.counters.strangers += 1;
            self.early.push(now, from, datagram);
            self.greet(from);
            return;
        }
        let Some(peer) = self.peers.get_mut(from) else { return };
        if !peer.is_fresh(sequence) {
            self.counters.repeated += 1;
            return;
        }
        peer.heard = now;
        self.stale |= peer.standing != body.standing;
        peer.standing = body.standing;
        let identity = peer.identity.clone();
        self.counters.received += 1;
        self.stale |= self.is_cut_off(now);
        self.heard_at = now;
        let sign = match body.message {
            Message::Ping => Sign::Ping,
            Message::Pong | Message::Welcome(_) => Sign::Answer,
            Message::Call => Sign::Call,
            _ => Sign::Talk,
        };
        if let Some(news) = self.watch.hear(now, identity.node(), sign) {
            self.act(now, news);
        }
        self.hear_while_returning(now, from);
        match sign {
            Sign::Answer => self.answer_inquiries(identity.node()),
            Sign::Ping | Sign::Call | Sign::Talk => self.hear_talk(now, identity.node(), body.standing),
        }
        let greets = matches!(body.message, Message::Welcome(_));
        self.handle(now, &identity, body);
        if greets {
            self.early.take(now, from).into_iter().for_each(|datagram| self.hear(now, from, &datagram));
        }
    }

    fn handle(&mut self, now: Instant, from: &Identity, body: Body) {
        match body.message {
            Message::Hello | Message::Welcome(_) | Message::Pong | Message::Standing => {}
            Message::Outlived(_) => {}
            Message::Ping | Message::Call => self.send_to(now, from.address, Message::Pong),
            Message::Gossip(bytes) => self.handle_gossip(now, from, &bytes),
            Message::Ask { about, token } => self.inquire(now, from.address, about, token),
            Message::Verdict { about, token, heard } => {
                if let Some(news) = self.watch.judge(now, from.node(), &about, token, heard) {
                    self.act(now, news);
                }
            }
            Message::Missing { about, silent } => self.hear_missing(now, from.node(), &about, silent),
            Message::Yielding { ips, since } if ips.len() <= ADDRESSES_MAX => {
                let since = now.checked_sub(Duration::from_micros(since.into())).unwrap_or(now);
                self.events.push_back(Event::Yielding { from: from.node().clone(), ips, since });
            }
            Message::Taken(ips) if ips.len() <= ADDRESSES_MAX => {
                self.events.push_back(Event::Taken(from.node().clone(), ips));
            }
            Message::Refused(ips) if ips.len() <= ADDRESSES_MAX => {
                self.events.push_back(Event::Refused(from.node().clone(), ips));
            }
            Message::Hardware(addresses) if addresses.len() <= HARDWARE_MAX => {
                self.hear_hardware(from.address, addresses);
            }
            Message::Yielding { .. } | Message::Taken(_) | Message::Refused(_) | Message::Hardware(_) => {
                self.counters.refused.malformed += 1;
            }
        }
    }

    /// `None` when it is not believed.
    fn welcome(&mut self, now: Instant, from: SocketAddr, session: u64, identity: &Identity) -> Option<()> {
        if identity.address != from || identity.node() == self.config.me.node() {
            self.events.push_back(Event::NameClash { node: identity.node().clone(), address: from });
            return None;
        }
        // Who left handed over what it had, and told those whom it had stood in for.
        let left = self.peers.by_node(identity.node()).is_some_and(|peer| peer.standing == Standing::Leaving);
        match self.peers.greet(now, session, identity) {
            Greeted::Known => {
                // Gossip gave it up, as on the other side of a partition.
                if !self.is_member(identity) {
                    self.announce_to(from);
                }
            }
            Greeted::Clash => {
                self.events.push_back(Event::NameClash { node: identity.node().clone(), address: from });
                return None;
            }
            Greeted::Outlived(life) => {
                self.transmit(from, session, Message::Outlived(life));
                return None;
            }
            Greeted::Full => return None,
            Greeted::New => {
                // Among thousands somebody greets all the time; who counts as alive already changes nothing.
                self.stale |= !self.live.contains(identity.node());
                self.codec.hear(identity.clone());
                if !left {
                    self.events.push_back(Event::Met(identity.node().clone()));
                }
                self.transmit(from, session, Message::Welcome(self.config.me.clone()));
                // It lives, so it is a member; unless gossip holds it for dead, which only a new identity ends.
                let alive = std::iter::once(foca::Member::alive(identity.clone()));
                let tell = self.greetings.may_tell();
                let _ = self.foca.apply_many(alive, tell, &mut self.runtime);
                if !self.is_member(identity) || self.foca.num_members() <= FEEDS {
                    self.announce_to(from);
                }
                for message in self.waiting.take(from) {
                    self.transmit(from, session, message);
                }
                self.tell_hardware(now, from);
            }
        }
        self.enter_if_greeted();
        Some(())
    }

    /// Whether gossip takes it for alive, in this life.
    fn is_member(&self, identity: &Identity) -> bool {
        self.foca.iter_members().any(|member| member.id() == identity)
    }

    /// We are taken for an earlier life of ours: we call ourselves a later one.
    fn outlive(&mut self, life: u64) {
        if (self.config.me.life..LIFE_MAX).contains(&life) {
            self.config.me.life = life + 1;
            let _ = self.foca.change_identity(self.config.me.clone(), &mut self.runtime);
        }
    }

    fn handle_gossip(&mut self, now: Instant, from: &Identity, bytes: &[u8]) {
        // A member speaks for itself only.
        let mut header = bytes;
        let source = foca::Codec::<Identity>::decode_header(&mut foca::PostcardCodec, &mut header).ok();
        let Some(header) =
            source.filter(|header| header.src.node() == from.node() && header.src.address == from.address)
        else {
            self.counters.refused.malformed += 1;
            return;
        };
        if header.message == foca::Message::TurnUndead {
            // Two that contradict each other must not do so at the speed of the network.
            if now < self.undead_at {
                return;
            }
            self.undead_at = now + UNDEAD_PERIOD;
        }
        if let Some(peer) = self.peers.get_mut(from.address) {
            peer.identity.life = header.src.life;
        }
        let known = self.foca.iter_membership_state().map(foca::Member::id).find(|known| known.key() == from.key());
        if let Some(known) = known.filter(|known| known.life > header.src.life) {
            // Somebody told us of a life that it has not begun; only a later one is believed by gossip.
            let life = known.life;
            return self.send_to(now, from.address, Message::Outlived(life));
        }
        // What gossip cannot read it refuses whole; there is nobody to tell.
        let _ = self.foca.handle_data(bytes, &mut self.runtime);
        self.drain_foca(now);
    }

    /// Tries the node, twice, before it says that it does not answer.
    fn inquire(&mut self, now: Instant, asker: SocketAddr, about: NodeName, token: u32) {
        if about == *self.config.me.node() {
            return self.send_to(now, asker, Message::Verdict { about, token, heard: true });
        }
        let Some(address) = self.address_of(&about) else {
            // We never heard of it: no reason to contradict, and none to agree.
            return;
        };
        self.inquiries.retain(|inquiry| inquiry.asker != asker || inquiry.about != about);
        if self.inquiries.len() < INQUIRIES_MAX {
            self.send_to(now, address, Message::Ping);
            let inquiry =
                Inquiry { about, asker, token, again: Some(now + VERDICT_AFTER / 2), until: now + VERDICT_AFTER };
            self.inquiries.push(inquiry);
        }
    }

    fn answer_inquiries(&mut self, heard: &NodeName) {
        let answered: Vec<Inquiry> = self.inquiries.extract_if(.., |inquiry| inquiry.about == *heard).collect();
        self.give_verdicts(answered, true);
    }

    pub(super) fn run_inquiries(&mut self, now: Instant) {
        let ended: Vec<Inquiry> = self.inquiries.extract_if(.., |inquiry| inquiry.until <= now).collect();
        self.give_verdicts(ended, false);
        let mut again = Vec::new();
        for inquiry in &mut self.inquiries {
            if inquiry.again.is_some_and(|at| at <= now) {
                inquiry.again = None;
                again.push(inquiry.about.clone());
            }
        }
        for node in again {
            self.send(now, &node, Message::Ping);
        }
    }

    fn give_verdicts(&mut self, inquiries: Vec<Inquiry>, heard: bool) {
        for Inquiry { about, asker, token, .. } in inquiries {
            if let Some(session) = self.peers.get(asker).map(|peer| peer.session) {
                self.transmit(asker, session, Message::Verdict { about, token, heard });
            }
        }
    }

    /// What we say about ourselves.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }
}

/// Of how many members we ask for all they know when we come.
const FEEDS: usize = 3;

/// How often we take for true that we are held for dead.
const UNDEAD_PERIOD: Duration = Duration::from_millis(100);

/// How long we try a node on behalf of another member.
const VERDICT_AFTER: Duration = Duration::from_millis(120);
