//! Handles received datagrams.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::gossip::Spread;
use super::{Engine, Event, Phase};
use crate::failure_detector::Evidence;
use crate::hosts::Admission;
use crate::wire::identity::{INCARNATION_MAX, Identity};
use crate::wire::message::{ADDRESSES_MAX, Body, HARDWARE_MAX, Message, Readiness};
use crate::wire::seal::{Opened, SealError};

/// Whether the sender of a `JoinAck` is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Accepted,
    Rejected,
}

impl Engine {
    pub(super) fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.phase == Phase::Idle {
            return;
        }
        let Some((session, sequence, body)) = self.open(datagram) else { return };
        if session == self.config.session {
            return;
        }
        if body.receiver_session != self.config.session {
            self.counters.unknown_session += 1;
            if let Some(host) = self.hosts.get(from) {
                let node = host.identity.node().clone();
                self.note_unresponsive(now, &node, body.readiness);
            }
            // It may be a replay: this node states its identity and trusts nothing in the datagram.
            if !matches!(body.message, Message::JoinAck(_)) && self.joining.may_send_join_ack() {
                self.transmit(from, session, Message::JoinAck(self.config.me.clone()));
            }
            return;
        }
        if let Message::StaleIncarnation(incarnation) = body.message {
            // The sender has rejected this node, so it may be missing from the host table.
            self.exceed_incarnation(incarnation);
            self.send_join(from);
            return;
        }
        if let Message::JoinAck(identity) = &body.message {
            if self.handle_join_ack(now, from, session, identity) == Verdict::Rejected {
                return;
            }
        } else if self.hosts.get(from).is_none_or(|host| host.session != session) {
            // The sender knows this node, but not the other way round: the datagram may have overtaken the sender's
            // `JoinAck`.
            self.counters.unknown_session += 1;
            self.early.push(now, from, datagram);
            self.send_join(from);
            return;
        }
        let Some(host) = self.hosts.get_mut(from) else { return };
        if !host.is_fresh(sequence) {
            self.counters.replayed += 1;
            return;
        }
        host.last_heard = now;
        self.liveness.outdated |= host.readiness != body.readiness;
        host.readiness = body.readiness;
        let identity = host.identity.clone();
        self.counters.received += 1;
        self.liveness.outdated |= self.is_isolated(now);
        self.last_heard = now;
        self.note_evidence(now, &identity, &body);
        let is_join_ack = matches!(body.message, Message::JoinAck(_));
        self.handle_message(now, &identity, body.message);
        if is_join_ack {
            self.early.take(now, from).into_iter().for_each(|datagram| self.receive(now, from, &datagram));
        }
    }

    /// Decrypts and decodes a datagram, and counts why it is rejected.
    fn open(&mut self, datagram: &[u8]) -> Option<(u64, u64, Body)> {
        let rejected = &mut self.counters.rejected;
        let Opened { session, sequence, body } = match self.config.keys.open(datagram) {
            Ok(opened) => opened,
            Err(error) => {
                *match error {
                    SealError::Malformed => &mut rejected.malformed,
                    SealError::Mode => &mut rejected.sealed_otherwise,
                    SealError::UnknownKey => &mut rejected.unknown_key,
                    SealError::Forged => &mut rejected.forged,
                } += 1;
                return None;
            }
        };
        let Some(body) = Body::decode(&body) else {
            rejected.malformed += 1;
            return None;
        };
        Some((session, sequence, body))
    }

    /// Passes on what the datagram proves about its sender.
    fn note_evidence(&mut self, now: Instant, sender: &Identity, body: &Body) {
        let evidence = match body.message {
            Message::Ping => Evidence::Ping,
            Message::Pong | Message::JoinAck(_) => Evidence::Pong,
            Message::Probe => Evidence::Probe,
            _ => Evidence::Other,
        };
        if let Some(action) = self.detector.handle_evidence(now, sender.node(), evidence) {
            self.act(now, action);
        }
        self.note_heard_while_returning(now, sender.address);
        match evidence {
            Evidence::Pong => self.reply_reachable(sender.node()),
            Evidence::Ping | Evidence::Probe | Evidence::Other => {
                self.note_unresponsive(now, sender.node(), body.readiness);
            }
        }
    }

    fn handle_message(&mut self, now: Instant, from: &Identity, message: Message) {
        match message {
            Message::Join | Message::JoinAck(_) | Message::Pong | Message::Readiness => {}
            Message::StaleIncarnation(_) => {}
            Message::Ping | Message::Probe => self.send_to(now, from.address, Message::Pong),
            Message::Gossip(bytes) => self.handle_gossip(now, from, &bytes),
            Message::PingReq { target, token } => self.handle_ping_req(now, from.address, target, token),
            Message::PingReqReply { target, token, reachable } => {
                let action = self.detector.handle_ping_req_reply(now, from.node(), &target, token, reachable);
                if let Some(action) = action {
                    self.act(now, action);
                }
            }
            Message::DeclaredDead { node, silent } => self.handle_declared_dead(now, from.node(), &node, silent),
            Message::HandoverOffer { ips, since } if ips.len() <= ADDRESSES_MAX => {
                let since = now.checked_sub(Duration::from_micros(since.into())).unwrap_or(now);
                self.events.push_back(Event::HandoverOffered { from: from.node().clone(), ips, since });
            }
            Message::HandoverAck(ips) if ips.len() <= ADDRESSES_MAX => {
                self.events.push_back(Event::HandoverAcknowledged(from.node().clone(), ips));
            }
            Message::HandoverReject(ips) if ips.len() <= ADDRESSES_MAX => {
                self.events.push_back(Event::HandoverRejected(from.node().clone(), ips));
            }
            Message::HardwareAddresses(addresses) if addresses.len() <= HARDWARE_MAX => {
                self.handle_hardware(from.address, addresses);
            }
            Message::HandoverOffer { .. }
            | Message::HandoverAck(_)
            | Message::HandoverReject(_)
            | Message::HardwareAddresses(_) => self.counters.rejected.malformed += 1,
        }
    }

    fn handle_join_ack(&mut self, now: Instant, from: SocketAddr, session: u64, identity: &Identity) -> Verdict {
        if identity.address != from || identity.node() == self.config.me.node() {
            self.events.push_back(Event::NameClash { node: identity.node().clone(), address: from });
            return Verdict::Rejected;
        }
        // A member that left has handed its addresses over and has told the nodes that it had taken over from.
        let had_left = self.hosts.by_node(identity.node()).is_some_and(|host| host.readiness == Readiness::Draining);
        match self.hosts.admit(now, session, identity) {
            Admission::Known => {
                // Gossip may have declared it dead, for example on the other side of a partition.
                if !self.is_member(identity) {
                    self.announce_to(from);
                }
            }
            Admission::NameClash => {
                self.events.push_back(Event::NameClash { node: identity.node().clone(), address: from });
                return Verdict::Rejected;
            }
            Admission::StaleIncarnation(incarnation) => {
                self.transmit(from, session, Message::StaleIncarnation(incarnation));
                return Verdict::Rejected;
            }
            Admission::Full => return Verdict::Rejected,
            Admission::New => {
                // In a cluster of thousands hosts join all the time. One that is live already changes nothing.
                self.liveness.outdated |= !self.live().contains(identity.node());
                self.gossip.codec().add_heard(identity.clone());
                if !had_left {
                    self.events.push_back(Event::Appeared(identity.node().clone()));
                }
                self.transmit(from, session, Message::JoinAck(self.config.me.clone()));
                // The host is alive and therefore a member, unless gossip has declared this incarnation dead.
                let spread = if self.joining.may_spread_newcomer() { Spread::Gossip } else { Spread::Nothing };
                self.gossip.add(identity.clone(), spread);
                if !self.is_member(identity) || self.gossip.len() <= ASKED_FOR_MEMBERS {
                    self.announce_to(from);
                }
                for message in self.pending.take(from) {
                    self.transmit(from, session, message);
                }
                self.send_hardware(now, from);
            }
        }
        self.finish_joining_if_complete();
        Verdict::Accepted
    }

    /// Another member knows a later incarnation of this node: this node raises its own above it.
    fn exceed_incarnation(&mut self, incarnation: u64) {
        if (self.config.me.incarnation..INCARNATION_MAX).contains(&incarnation) {
            self.config.me.incarnation = incarnation + 1;
            self.gossip.change_identity(self.config.me.clone());
        }
    }

    fn handle_gossip(&mut self, now: Instant, from: &Identity, bytes: &[u8]) {
        // Each member may send gossip only in its own name.
        let mut header = bytes;
        let source = foca::Codec::<Identity>::decode_header(&mut foca::PostcardCodec, &mut header).ok();
        let Some(header) =
            source.filter(|header| header.src.node() == from.node() && header.src.address == from.address)
        else {
            self.counters.rejected.malformed += 1;
            return;
        };
        if header.message == foca::Message::TurnUndead {
            // Two members that contradict each other must not do so at the speed of the network.
            if now < self.refute_after {
                return;
            }
            self.refute_after = now + REFUTE_INTERVAL;
        }
        if let Some(host) = self.hosts.get_mut(from.address) {
            host.identity.incarnation = header.src.incarnation;
        }
        if let Some(known) = self.gossip.known(from.key()).filter(|it| it.incarnation > header.src.incarnation) {
            // Another member has reported an incarnation that this sender has not started. Gossip accepts only a later
            // one.
            let incarnation = known.incarnation;
            return self.send_to(now, from.address, Message::StaleIncarnation(incarnation));
        }
        self.gossip.handle_datagram(bytes);
        self.drain_gossip(now);
    }
}

/// While there are at most this many members, each new one is asked for all members that it knows.
const ASKED_FOR_MEMBERS: usize = 3;

/// Rate limit for refuting this node's own death.
const REFUTE_INTERVAL: Duration = Duration::from_millis(100);
