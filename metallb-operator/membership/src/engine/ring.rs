//! Who is watched. Among few members each watches those whose addresses it would inherit. Among many that would be hundreds, so
//! all stand in a ring: each watches those that follow it, and tells everybody when one of them is gone. Who would inherit from
//! that one tries it itself before it believes so.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

use super::{Engine, Event, MEMBER_SILENCE};
use crate::wire::identity::Identity;
use crate::wire::message::Message;

impl Engine {
    /// Chooses whom to watch.
    pub(super) fn aim(&mut self, now: Instant) {
        // Who is no member is left to gossip.
        let members = self.foca.iter_members().map(|member| member.id().node());
        let mut wanted: BTreeSet<NodeName> = members.filter(|node| self.interests.contains(*node)).cloned().collect();
        if self.foca.num_members() > FEW {
            if wanted.len() > RING {
                wanted.clear();
            }
            wanted.extend(self.followers());
        }
        self.watch.set(now, wanted);
    }

    /// The members that come next in the ring of all.
    fn followers(&self) -> BTreeSet<NodeName> {
        let me = self.config.me.key();
        let others = self.foca.iter_members().map(foca::Member::id).filter(|member| !self.watch.is_gone(member.node()));
        let mut others: Vec<(u128, &Identity)> = others.map(|member| (me.distance(member.key()), member)).collect();
        if others.len() > RING {
            others.select_nth_unstable_by_key(RING, |&(distance, _)| distance);
            others.truncate(RING);
        }
        others.into_iter().map(|(_, member)| member.node().clone()).collect()
    }

    /// Whether nobody among many answers us: those that we do not watch are as far away as those that we do.
    pub(super) fn is_cut_off(&self, now: Instant) -> bool {
        self.foca.num_members() > FEW
            && self.watch.hears_nobody()
            && now.saturating_duration_since(self.heard_at) >= self.config.timing.isolated
    }

    /// When we may turn out to be cut off.
    pub(super) fn cut_off_at(&self) -> Option<Instant> {
        let may_be = self.live.len() > 1 && self.foca.num_members() > FEW && self.watch.hears_nobody();
        may_be.then(|| self.heard_at + self.config.timing.isolated)
    }

    /// Tells everybody that a node that we watch is gone: it may be deaf, and claim what is theirs.
    pub(super) fn tell_missing(&mut self, now: Instant, node: &NodeName, heard: Instant) {
        if !self.watch.wants(node) {
            return;
        }
        let silent = u32::try_from(now.saturating_duration_since(heard).as_millis()).unwrap_or(u32::MAX);
        let members = self.foca.iter_members().map(foca::Member::id).filter(|member| member.node() != node);
        let members: Vec<_> = members.map(|member| member.address).collect();
        for address in members {
            self.send_to(now, address, Message::Missing { about: node.clone(), silent });
        }
    }

    /// Tells those that we held for gone, now that we leave: what we stood in for may have been theirs all the time.
    pub(super) fn tell_missed(&mut self, now: Instant) {
        let members = self.foca.iter_members().map(foca::Member::id).filter(|member| self.watch.is_gone(member.node()));
        let gone: Vec<Identity> = members.cloned().collect();
        for member in gone {
            self.send_to(now, member.address, Message::Missing { about: member.node().clone(), silent: 0 });
        }
    }

    /// Another member, which watched it, says that a node is gone.
    pub(super) fn hear_missing(&mut self, now: Instant, from: &NodeName, about: &NodeName, silent: u32) {
        if about == self.config.me.node() {
            // It may have stood in for us.
            self.events.push_back(Event::Lost(from.clone()));
            return;
        }
        // Of the many each tries only those that it would inherit from.
        if self.foca.num_members() > FEW && !self.interests.contains(about) {
            return;
        }
        let silent = Duration::from_millis(u64::from(silent)).min(MEMBER_SILENCE);
        let since = now.checked_sub(silent).unwrap_or(now);
        let heard = self.peers.by_node(about).map_or(since, |peer| peer.heard.max(since));
        let actions = self.watch.doubt(now, about, from, heard);
        actions.into_iter().for_each(|action| self.act(now, action));
    }
}

/// Among how many others each is watched by those that would inherit from it.
const FEW: usize = 8;

/// How many each watches among more.
const RING: usize = 6;
