//! The nodes that may answer: which conditions a node must meet, and one set of candidates for all Services that the
//! same advertisements reach.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slab::Slab;

use super::electorate::{Electorate, Member};
use super::{CandidateReason, ElectionRules, LiveSpeakers};
use crate::config::{L2Advertisement, Pool, any_matches};
use crate::model::{InterfaceName, Node, NodeName, Service};

/// The L2 advertisements of a pool that are for a Service.
pub fn advertisements<'a>(pool: &'a Pool, service: &Service) -> impl Iterator<Item = &'a Arc<L2Advertisement>> {
    pool.l2.iter().filter(|ad| any_matches(&ad.service_selectors, &service.labels))
}

/// The interfaces on which a node answers for a Service that these advertisements reach; empty means all.
#[must_use]
pub fn interfaces(advertisements: &[Arc<L2Advertisement>], node: &Node) -> BTreeSet<InterfaceName> {
    let mut union = BTreeSet::new();
    for ad in advertisements.iter().filter(|ad| ad.nodes.selects(node)) {
        if ad.interfaces.is_empty() {
            return BTreeSet::new();
        }
        union.extend(ad.interfaces.iter().cloned());
    }
    union
}

/// Whether one node is a candidate (`docs/upstream-behaviour.md#l2-election`).
pub(super) fn judge(
    node: &Node,
    ads: &[Arc<L2Advertisement>],
    local: Option<&BTreeSet<NodeName>>,
    rules: &ElectionRules,
) -> CandidateReason {
    if matches!(&rules.live, LiveSpeakers::Only(names) if !names.contains(&node.name)) {
        CandidateReason::NoSpeaker
    } else if node.network_unavailable {
        CandidateReason::NetworkUnavailable
    } else if rules.exclude_label.excludes(node) {
        CandidateReason::ExcludedByLabel
    } else if !ads.iter().any(|ad| ad.nodes.selects(node)) {
        CandidateReason::NotSelected
    } else if local.is_some_and(|local| !local.contains(&node.name)) {
        CandidateReason::NoLocalEndpoint
    } else {
        CandidateReason::Eligible
    }
}

/// The preference of a node: the sum over all advertisements for the Service.
pub(super) fn score(node: &Node, ads: &[Arc<L2Advertisement>]) -> u64 {
    ads.iter().map(|ad| ad.score(node)).sum()
}

/// The candidate sets in use, one for each list of advertisements.
#[derive(Clone, Debug, Default)]
pub(super) struct CandidateSets {
    by_advertisements: BTreeMap<Arc<[Arc<L2Advertisement>]>, SetId>,
    sets: Slab<CandidateSet>,
}

/// The number of a candidate set, valid while a Service uses it.
pub(super) type SetId = usize;

/// The nodes that may answer for Services of the `Cluster` policy, with their scores.
#[derive(Clone, Debug)]
pub(super) struct CandidateSet {
    advertisements: Arc<[Arc<L2Advertisement>]>,
    users: usize,
    scores: BTreeMap<NodeName, u64>,
    electorate: Arc<Electorate>,
}

/// The difference between a candidate set and an earlier one. A node with another score left and joined.
#[derive(Clone, Debug)]
pub(super) struct SetChange {
    pub(super) left: BTreeSet<NodeName>,
    pub(super) joined: Vec<Member>,
}

impl CandidateSets {
    /// The set of these advertisements; each call needs a [`release`](Self::release).
    pub(super) fn intern(
        &mut self,
        ads: &Arc<[Arc<L2Advertisement>]>,
        nodes: &BTreeMap<NodeName, Node>,
        rules: &ElectionRules,
    ) -> SetId {
        if let Some(&id) = self.by_advertisements.get(ads) {
            self.sets[id].users += 1;
            return id;
        }
        let scores = gather(nodes, ads, rules);
        let electorate = electorate(&scores);
        let id = self.sets.insert(CandidateSet { advertisements: Arc::clone(ads), users: 1, scores, electorate });
        self.by_advertisements.insert(Arc::clone(ads), id);
        id
    }

    /// Drops the set when its last user is gone.
    pub(super) fn release(&mut self, id: SetId) {
        self.sets[id].users -= 1;
        if self.sets[id].users == 0 {
            let set = self.sets.remove(id);
            self.by_advertisements.remove(&set.advertisements);
        }
    }

    pub(super) fn get(&self, id: SetId) -> &CandidateSet {
        &self.sets[id]
    }

    /// The lists of advertisements, each once.
    pub(super) fn advertisements(&self) -> impl Iterator<Item = &[Arc<L2Advertisement>]> {
        self.sets.iter().map(|(_, set)| &*set.advertisements)
    }

    /// Computes all sets again; returns those that differ.
    pub(super) fn update(
        &mut self,
        nodes: &BTreeMap<NodeName, Node>,
        rules: &ElectionRules,
    ) -> BTreeMap<SetId, SetChange> {
        let mut changes = BTreeMap::new();
        for (id, set) in &mut self.sets {
            let scores = gather(nodes, &set.advertisements, rules);
            if scores != set.scores {
                let before = std::mem::replace(&mut set.scores, scores);
                set.electorate = electorate(&set.scores);
                changes.insert(id, SetChange::between(&before, &set.scores));
            }
        }
        changes
    }
}

impl CandidateSet {
    pub(super) const fn electorate(&self) -> &Arc<Electorate> {
        &self.electorate
    }

    /// The candidates among these nodes.
    pub(super) fn only<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeName>) -> Electorate {
        let scored = |node: &NodeName| Some((node.clone(), *self.scores.get(node)?));
        Electorate::new(nodes.into_iter().filter_map(scored))
    }

    /// These nodes, with the scores that the advertisements of the set give them. A node that is none of its candidates
    /// has none.
    pub(super) fn scored<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeName>) -> Electorate {
        let score = |node: &NodeName| self.scores.get(node).copied().unwrap_or(0);
        Electorate::new(nodes.into_iter().map(|node| (node.clone(), score(node))))
    }
}

impl SetChange {
    fn between(before: &BTreeMap<NodeName, u64>, after: &BTreeMap<NodeName, u64>) -> Self {
        let left = before.iter().filter(|(node, score)| after.get(*node) != Some(*score));
        let joined = after.iter().filter(|(node, score)| before.get(*node) != Some(*score));
        Self {
            left: left.map(|(node, _)| node.clone()).collect(),
            joined: joined.map(|(node, score)| Member::new(node.clone(), *score)).collect(),
        }
    }

    /// The nodes that left or joined.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.left.iter().chain(self.joined.iter().map(|member| &member.node))
    }
}

/// The eligible nodes, with their scores.
fn gather(
    nodes: &BTreeMap<NodeName, Node>,
    ads: &[Arc<L2Advertisement>],
    rules: &ElectionRules,
) -> BTreeMap<NodeName, u64> {
    let eligible = nodes.values().filter(|node| judge(node, ads, None, rules) == CandidateReason::Eligible);
    eligible.map(|node| (node.name.clone(), score(node, ads))).collect()
}

fn electorate(scores: &BTreeMap<NodeName, u64>) -> Arc<Electorate> {
    Arc::new(Electorate::new(scores.iter().map(|(node, score)| (node.clone(), *score))))
}
