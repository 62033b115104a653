//! The nodes that may answer, and the order among them for one address (contract speaker §1.2).

use std::cmp::Reverse;
use std::net::IpAddr;

use super::hash::{IpText, NodeBlock, Rank};
use crate::model::NodeName;

/// The candidates of an election, laid out for hashing. The highest preference score goes first; among equals the lowest
/// digest of `node#ip`.
#[derive(Clone, Debug, Default)]
pub struct Electorate {
    /// By score, highest first, then by name, so that those who can win at all stand at the front.
    members: Vec<Member>,
}

/// One candidate.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) node: NodeName,
    score: u64,
    block: NodeBlock,
}

/// Where a candidate stands for one address; lower is better.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Standing(Reverse<u64>, Rank);

impl Electorate {
    /// Candidates with their preference scores; 0 is no preference. Names must differ.
    #[must_use]
    pub fn new(candidates: impl IntoIterator<Item = (NodeName, u64)>) -> Self {
        let mut members: Vec<Member> = candidates.into_iter().map(|(node, score)| Member::new(node, score)).collect();
        members.sort_unstable_by(|a, b| a.place().cmp(&b.place()));
        Self { members }
    }

    /// How many candidates there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody may answer.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The candidates, in no promised order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.members.iter().map(|member| &member.node)
    }

    /// Who answers for an address: one hash per candidate of the highest score.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&NodeName> {
        let text = IpText::new(ip);
        let mut members = self.leaders().iter();
        let first = members.next()?;
        let best = members.fold((first.block.rank(&text), first), |best, member| {
            let rank = member.block.rank(&text);
            if rank < best.0 { (rank, member) } else { best }
        });
        Some(&best.1.node)
    }

    /// The best `count` candidates for an address, best first: the owner, then who would follow.
    #[must_use]
    pub fn podium(&self, ip: IpAddr, count: usize) -> Vec<&NodeName> {
        self.best(&IpText::new(ip), count).into_iter().map(|(_, index)| &self.members[index].node).collect()
    }

    /// Those of `ips` for which `node` answers. Each address ends at the first candidate that beats the node: about ln n hashes
    /// among n candidates, where [`Electorate::owner`] needs n.
    pub fn owned_by<'a>(
        &'a self,
        node: &NodeName,
        ips: impl IntoIterator<Item = IpAddr> + 'a,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        let leaders = self.leaders();
        let me = leaders.iter().position(|member| member.node == *node);
        ips.into_iter().filter(move |&ip| {
            let Some(me) = me else { return false };
            let text = IpText::new(ip);
            let mine = leaders[me].block.rank(&text);
            leaders.iter().enumerate().all(|(index, member)| index == me || member.block.rank(&text) > mine)
        })
    }

    /// Adds a candidate; returns where it stands among the members.
    pub(super) fn join(&mut self, node: NodeName, score: u64) -> usize {
        let member = Member::new(node, score);
        let index = self.members.partition_point(|other| other.place() < member.place());
        self.members.insert(index, member);
        index
    }

    /// Removes a candidate; returns where it stood.
    pub(super) fn leave(&mut self, node: &NodeName) -> Option<usize> {
        let index = self.members.iter().position(|member| member.node == *node)?;
        self.members.remove(index);
        Some(index)
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The best `count` members, best first, as indexes.
    pub(super) fn best(&self, text: &IpText, count: usize) -> Vec<(Standing, usize)> {
        let mut best: Vec<(Standing, usize)> = Vec::with_capacity(count + 1);
        for (index, member) in self.members.iter().enumerate() {
            if best.len() == count {
                // Members come by score: from here on nobody can displace one with more.
                match best.last() {
                    Some((worst, _)) if worst.0 == Reverse(member.score) => {}
                    _ => break,
                }
            }
            let standing = member.standing(text);
            if best.len() == count && best.last().is_some_and(|(worst, _)| standing > *worst) {
                continue;
            }
            let at = best.partition_point(|(other, _)| *other < standing);
            best.insert(at, (standing, index));
            best.truncate(count);
        }
        best
    }

    /// The members of the highest score: only they can win.
    fn leaders(&self) -> &[Member] {
        let top = self.members.first().map_or(0, |member| member.score);
        &self.members[..self.members.partition_point(|member| member.score == top)]
    }
}

impl Member {
    fn new(node: NodeName, score: u64) -> Self {
        Self { block: NodeBlock::new(&node), node, score }
    }

    pub(super) fn standing(&self, text: &IpText) -> Standing {
        Standing(Reverse(self.score), self.block.rank(text))
    }

    fn place(&self) -> (Reverse<u64>, &NodeName) {
        (Reverse(self.score), &self.node)
    }
}
