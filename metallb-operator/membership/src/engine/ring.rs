//! The choice of monitored nodes. In a small cluster each member monitors the nodes whose addresses it would inherit.
//! In a large one these would be hundreds. There all members form a ring: each monitors the ones that follow it, and
//! reports a death to all members. A member that would inherit from the dead node pings it before it believes the
//! report.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

use super::{Engine, Event, REACHABLE_FOR};
use crate::wire::identity::Identity;
use crate::wire::message::Message;

impl Engine {
    /// Selects the nodes to monitor.
    pub(super) fn select_monitored(&mut self, now: Instant) {
        // Only SWIM members are monitored directly.
        let members = self.gossip.members().map(Identity::node);
        let mut selected: BTreeSet<NodeName> =
            members.filter(|node| self.predecessors.contains(*node)).cloned().collect();
        if self.gossip.len() > SMALL {
            if selected.len() > RING_SUCCESSORS {
                selected.clear();
            }
            selected.extend(self.ring_successors());
        }
        self.detector.select(now, selected);
    }

    /// The members that follow this one in the ring.
    fn ring_successors(&self) -> BTreeSet<NodeName> {
        let me = self.config.me.key();
        let others = self.gossip.members().filter(|member| !self.detector.is_dead(member.node()));
        let mut others: Vec<(u128, &Identity)> = others.map(|member| (me.distance(member.key()), member)).collect();
        if others.len() > RING_SUCCESSORS {
            others.select_nth_unstable_by_key(RING_SUCCESSORS, |&(distance, _)| distance);
            others.truncate(RING_SUCCESSORS);
        }
        others.into_iter().map(|(_, member)| member.node().clone()).collect()
    }

    /// Whether no member of a large cluster answers: the members that are not monitored are then unreachable, too.
    pub(super) fn is_isolated(&self, now: Instant) -> bool {
        self.gossip.len() > SMALL
            && self.detector.all_are_dead()
            && now.saturating_duration_since(self.last_heard) >= self.config.timing.isolation
    }

    /// When this node is isolated unless a member is heard before.
    pub(super) fn isolated_at(&self) -> Option<Instant> {
        let possible = self.live().len() > 1 && self.gossip.len() > SMALL && self.detector.all_are_dead();
        possible.then(|| self.last_heard + self.config.timing.isolation)
    }

    /// Reports the death of a monitored node to all members: its link may be unidirectional, and it may claim their
    /// addresses.
    pub(super) fn report_death(&mut self, now: Instant, node: &NodeName, last_heard: Instant) {
        if !self.detector.is_selected(node) {
            return;
        }
        let silent = u32::try_from(now.saturating_duration_since(last_heard).as_millis()).unwrap_or(u32::MAX);
        let members = self.gossip.members().filter(|member| member.node() != node);
        let members: Vec<_> = members.map(|member| member.address).collect();
        for address in members {
            self.send_to(now, address, Message::DeclaredDead { node: node.clone(), silent });
        }
    }

    /// Tells the nodes that this one has declared dead, before it leaves: the addresses that it took over from them may
    /// have been theirs all the time.
    pub(super) fn notify_declared_dead(&mut self, now: Instant) {
        let dead: Vec<Identity> =
            self.gossip.members().filter(|member| self.detector.is_dead(member.node())).cloned().collect();
        for member in dead {
            self.send_to(now, member.address, Message::DeclaredDead { node: member.node().clone(), silent: 0 });
        }
    }

    /// Another member, which monitored a node, reports its death.
    pub(super) fn handle_declared_dead(&mut self, now: Instant, from: &NodeName, node: &NodeName, silent: u32) {
        if node == self.config.me.node() {
            // The sender may have announced the addresses of this node.
            self.events.push_back(Event::Failed(from.clone()));
            return;
        }
        // In a large cluster each member pings only nodes that it would inherit from.
        if self.gossip.len() > SMALL && !self.predecessors.contains(node) {
            return;
        }
        let silent = Duration::from_millis(u64::from(silent)).min(REACHABLE_FOR);
        let since = now.checked_sub(silent).unwrap_or(now);
        let last_heard = self.hosts.by_node(node).map_or(since, |host| host.last_heard.max(since));
        let actions = self.detector.handle_report(now, node, from, last_heard);
        actions.into_iter().for_each(|action| self.act(now, action));
    }
}

/// Up to this number of other members a node is monitored by the ones that would inherit from it.
const SMALL: usize = 8;

/// How many members each one monitors in a larger cluster.
const RING_SUCCESSORS: usize = 6;
