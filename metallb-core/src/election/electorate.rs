//! The nodes that may answer, and the order among them for one address (`docs/upstream-behaviour.md#l2-order`).

use std::cmp::Reverse;
use std::net::IpAddr;

use super::hash::{IpText, NodeBlock, Rank};
use crate::model::NodeName;

/// The candidates of an election, laid out for hashing. The highest preference score goes first; among equals the
/// lowest digest of `node#ip`.
#[derive(Clone, Debug, Default)]
pub struct Electorate {
    /// By score, highest first, then by name: the candidates that can win are at the front.
    members: Vec<Member>,
}

/// One candidate.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) node: NodeName,
    score: u64,
    block: NodeBlock,
}

/// The position of a candidate for one address; lower is better.
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

    /// The number of candidates.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no candidate.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The candidates, in no promised order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.members.iter().map(|member| &member.node)
    }

    /// The owner of an address. Computes one hash per candidate of the highest score.
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

    /// The best `count` candidates for an address, best first: the owner, then those that follow it.
    #[must_use]
    pub fn ranking(&self, ip: IpAddr, count: usize) -> Vec<NodeName> {
        let best = self.best(&[IpText::new(ip)], count).pop().unwrap_or_default();
        best.into_iter().map(|(_, node)| node).collect()
    }

    /// Whether a node is a candidate.
    #[must_use]
    pub fn contains(&self, node: &NodeName) -> bool {
        let mut rest = &self.members[..];
        while let Some(first) = rest.first() {
            let (equals, lower) = rest.split_at(rest.partition_point(|member| member.score == first.score));
            if equals.binary_search_by(|member| member.node.cmp(node)).is_ok() {
                return true;
            }
            rest = lower;
        }
        false
    }

    /// Those of `ips` for which `node` answers. Each address ends at the first candidate that beats the node: about ln
    /// n hashes among n candidates, where [`Electorate::owner`] needs n.
    pub fn owned_by<'a>(
        &'a self,
        node: &NodeName,
        ips: impl IntoIterator<Item = IpAddr> + 'a,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        let me = self.leader(node);
        let mut ips = ips.into_iter();
        let batches = std::iter::from_fn(move || {
            let me = me?;
            let batch: Vec<IpAddr> = ips.by_ref().take(BATCH).collect();
            (!batch.is_empty()).then(|| self.won(me, &batch).into_iter().map(move |index| batch[index]))
        });
        batches.flatten()
    }

    /// As [`Electorate::owned_by`], by the places of the addresses among `ips`.
    pub(super) fn places_owned_by(&self, node: &NodeName, ips: &[IpAddr]) -> Vec<usize> {
        let Some(me) = self.leader(node) else { return Vec::new() };
        let batches = ips.chunks(BATCH).enumerate();
        batches.flat_map(|(batch, ips)| self.won(me, ips).into_iter().map(move |index| batch * BATCH + index)).collect()
    }

    /// Where a candidate stands for an address.
    pub(super) fn standing(&self, node: &NodeName, ip: IpAddr) -> Option<Standing> {
        let member = self.members.iter().find(|member| member.node == *node)?;
        Some(member.standing(&IpText::new(ip)))
    }

    /// The best `count` members for each of many addresses, best first.
    pub(super) fn best(&self, texts: &[IpText], count: usize) -> Vec<Vec<(Standing, NodeName)>> {
        let named = |(standing, index): (Standing, usize)| (standing, self.members[index].node.clone());
        self.best_places(texts, count).into_iter().map(|row| row.into_iter().map(named).collect()).collect()
    }

    /// The same by index.
    fn best_places(&self, texts: &[IpText], count: usize) -> Vec<Vec<(Standing, usize)>> {
        let mut rows: Vec<Vec<(Standing, usize)>> = texts.iter().map(|_| Vec::with_capacity(count + 1)).collect();
        let Some(last) = count.min(self.members.len()).checked_sub(1) else { return rows };
        // Members are sorted by score, and none can displace a member with a higher score.
        let able = self.members.partition_point(|member| member.score >= self.members[last].score);
        for (texts, rows) in texts.chunks(BATCH).zip(rows.chunks_mut(BATCH)) {
            let mut bars = vec![u64::MAX; texts.len()];
            for (index, member) in self.members[..able].iter().enumerate() {
                let mut rows = rows.iter_mut().zip(&mut bars);
                member.block.rank_each(texts.iter(), |rank| {
                    if let Some((row, bar)) = rows.next()
                        && rank.leading() <= *bar
                    {
                        offer(row, (Standing(Reverse(member.score), rank), index), count);
                        // Once a row is full, the remaining members have the score of its last one.
                        *bar = row.get(count - 1).map_or(u64::MAX, |(Standing(_, worst), _)| worst.leading());
                    }
                });
            }
        }
        rows
    }

    /// The places of those addresses of one batch for which the leader at `me` answers.
    fn won(&self, me: usize, ips: &[IpAddr]) -> Vec<usize> {
        let leaders = self.leaders();
        let texts: Vec<IpText> = ips.iter().map(|&ip| IpText::new(ip)).collect();
        let mut mine = Vec::with_capacity(texts.len());
        leaders[me].block.rank_each(texts.iter(), |rank| mine.push(rank));

        // Most addresses are lost to one of the first few nodes, and the processor can't foresee to which: if each
        // address went through the nodes by itself, it would wait at the end of each. So these nodes go through all
        // addresses.
        let (first, others) = leaders.split_at(leaders.len().min(ROUNDS));
        let mut open: Vec<usize> = (0..texts.len()).collect();
        let mut lost = vec![false; texts.len()];
        for (_, member) in first.iter().enumerate().filter(|(index, _)| *index != me) {
            let mut rivals = lost.iter_mut().zip(open.iter().map(|&at| &mine[at]));
            member.block.rank_each(open.iter().map(|&at| &texts[at]), |rank| {
                if let Some((lost, mine)) = rivals.next() {
                    *lost = rank.beats(mine);
                }
            });
            // As `retain` does, but without a jump.
            let mut kept = 0;
            for index in 0..open.len() {
                open[kept] = open[index];
                kept += usize::from(!lost[index]);
            }
            open.truncate(kept);
        }
        let rest = others.iter().enumerate().filter(|(index, _)| first.len() + index != me).map(|(_, member)| member);
        open.retain(|&at| rest.clone().all(|member| !member.block.rank(&texts[at]).beats(&mine[at])));
        open
    }

    /// The position of a node among the leaders.
    fn leader(&self, node: &NodeName) -> Option<usize> {
        self.leaders().binary_search_by(|member| member.node.cmp(node)).ok()
    }

    /// The members of the highest score: only they can win.
    fn leaders(&self) -> &[Member] {
        let top = self.members.first().map_or(0, |member| member.score);
        &self.members[..self.members.partition_point(|member| member.score == top)]
    }
}

impl Member {
    pub(super) fn new(node: NodeName, score: u64) -> Self {
        Self { block: NodeBlock::new(&node), node, score }
    }

    pub(super) fn standing(&self, text: &IpText) -> Standing {
        Standing(Reverse(self.score), self.block.rank(text))
    }

    fn place(&self) -> (Reverse<u64>, &NodeName) {
        (Reverse(self.score), &self.node)
    }
}

/// Inserts a member among the best `count` of an address if it belongs there; true if it was inserted.
pub(super) fn offer<T>(best: &mut Vec<(Standing, T)>, place: (Standing, T), count: usize) -> bool {
    let at = best.partition_point(|(other, _)| *other < place.0);
    if at == count {
        return false;
    }
    best.insert(at, place);
    best.truncate(count);
    true
}

/// Number of addresses that are hashed at a time: their texts stay in the cache.
const BATCH: usize = 128;
/// Number of nodes that process a whole batch; the addresses that remain are processed one by one by the others.
const ROUNDS: usize = 32;
