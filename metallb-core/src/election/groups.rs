//! Services that share addresses are elected together, so that an address never has two owners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::candidates::{CandidateSets, SetChange};
use super::electorate::{Electorate, Standing, offer};
use super::hash::IpText;
use super::{Entry, SUCCESSORS};
use crate::model::{NodeName, ServiceKey};

/// The groups of all Services that can be announced, and the addresses of those that can and cannot.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// The Services that hold an address, by name.
    by_ip: FxHashMap<IpAddr, Vec<ServiceKey>>,
    groups: Slab<Group>,
    by_service: FxHashMap<ServiceKey, usize>,
    /// Services whose group is to be determined again.
    open: BTreeSet<ServiceKey>,
    /// Groups whose owner may be unknown.
    unclaimed: BTreeSet<usize>,
    /// Groups whose candidates are to be ranked.
    pending: BTreeSet<usize>,
}

/// Services that share addresses, directly or through others; most often a single one.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The oldest one first.
    members: Vec<ServiceKey>,
    /// The address that is hashed.
    ip: IpAddr,
    candidates: Arc<Electorate>,
    /// The best candidates, best first.
    best: Vec<(Standing, NodeName)>,
}

impl Groups {
    /// Notes that a Service holds an address.
    pub(super) fn hold(&mut self, ip: IpAddr, service: &ServiceKey) {
        let holders = self.by_ip.entry(ip).or_default();
        if let Err(at) = holders.binary_search(service) {
            // Most addresses have one holder: no room is kept for more.
            holders.reserve_exact(1);
            holders.insert(at, service.clone());
        }
    }

    /// Notes that a Service holds an address no longer.
    pub(super) fn give_back(&mut self, ip: IpAddr, service: &ServiceKey) {
        if let Some(holders) = self.by_ip.get_mut(&ip) {
            holders.retain(|holder| holder != service);
            if holders.is_empty() {
                self.by_ip.remove(&ip);
            }
        }
    }

    /// Has the group of a Service, and of all its members, determined again.
    pub(super) fn open(&mut self, service: &ServiceKey) {
        if let Some(&id) = self.by_service.get(service) {
            let group = self.dissolve(id);
            self.open.extend(group.members);
        }
        self.open.insert(service.clone());
    }

    /// Takes over new candidates of a Service without determining its group again. `None` where that is not possible.
    pub(super) fn follow(
        &mut self,
        service: &ServiceKey,
        own: &Arc<Electorate>,
        local: Option<&BTreeSet<NodeName>>,
        change: &SetChange,
    ) -> Option<Order> {
        let id = *self.by_service.get(service)?;
        let group = self.groups.get_mut(id).filter(|group| group.is_single())?;
        let before = group.best.len();
        let known = if before == group.candidates.len() { Known::All } else { Known::Best };
        group.candidates = Arc::clone(own);
        group.best.retain(|(_, node)| !change.left.contains(node));
        let mut order = if group.best.len() == before { Order::Same } else { Order::Changed };
        if change.joined.len() * 2 > own.len() {
            // Ranking all candidates costs hardly more.
            group.best.clear();
            order = Order::Changed;
        } else {
            let text = IpText::new(group.ip);
            let joined = change.joined.iter().filter(|member| local.is_none_or(|local| local.contains(&member.node)));
            for member in joined {
                if group.insert(member.standing(&text), &member.node, known) {
                    order = Order::Changed;
                }
            }
        }
        if group.best.is_empty() {
            self.unclaimed.insert(id);
        }
        if !group.is_ranked() {
            self.pending.insert(id);
        }
        Some(order)
    }

    /// Determines the groups of the Services that were opened. Adds the members of new groups to `changed`.
    pub(super) fn regroup(
        &mut self,
        entries: &BTreeMap<ServiceKey, Entry>,
        sets: &CandidateSets,
        changed: &mut BTreeSet<ServiceKey>,
    ) {
        while let Some(first) = self.open.pop_first() {
            let mut members = self.connected(&first, entries);
            if members.is_empty() {
                changed.insert(first);
                continue;
            }
            for member in &members {
                if let Some(&id) = self.by_service.get(member) {
                    self.dissolve(id);
                }
                self.open.remove(member);
            }
            changed.extend(members.iter().cloned());
            // The oldest speaks for its group, so that a Service that joins moves nothing.
            members.sort_by_cached_key(|member| {
                let created = entries.get(member).and_then(|entry| entry.key.created);
                (created.is_none(), created, member.clone())
            });
            self.insert(members, entries, sets);
        }
    }

    /// Finds those groups that `node` wins, among those whose owner is unknown: far cheaper than ranking them.
    /// Adds the members of those groups to `changed`.
    pub(super) fn claim(&mut self, node: &NodeName, changed: &mut BTreeSet<ServiceKey>) {
        let unclaimed = std::mem::take(&mut self.unclaimed);
        let unranked = self.waiting(unclaimed, |group| group.best.is_empty());
        let mut won = Vec::new();
        for alike in alike(&unranked) {
            let ips: Vec<IpAddr> = alike.iter().map(|(_, group)| group.ip).collect();
            let Some((_, first)) = alike.first() else { continue };
            won.extend(first.candidates.places_owned_by(node, &ips).into_iter().map(|place| alike[place].0));
        }
        for id in won {
            let Some(group) = self.groups.get_mut(id) else { continue };
            let standing = group.candidates.standing(node, group.ip);
            group.best.extend(standing.map(|standing| (standing, node.clone())));
            changed.extend(group.members.iter().cloned());
        }
    }

    /// Ranks the candidates of all groups that wait for it. Adds the members of those whose order changed to `changed`,
    /// and returns how many elections that took.
    pub(super) fn rank(&mut self, threads: NonZeroUsize, changed: &mut BTreeSet<ServiceKey>) -> u64 {
        let pending = std::mem::take(&mut self.pending);
        self.rank_these(pending, threads, changed)
    }

    /// The same for the group of one Service.
    pub(super) fn rank_one(&mut self, service: &ServiceKey, changed: &mut BTreeSet<ServiceKey>) -> u64 {
        let id = self.by_service.get(service).copied().filter(|id| self.pending.remove(id));
        self.rank_these(id, NonZeroUsize::MIN, changed)
    }

    fn rank_these(
        &mut self,
        ids: impl IntoIterator<Item = usize>,
        threads: NonZeroUsize,
        changed: &mut BTreeSet<ServiceKey>,
    ) -> u64 {
        let ranked = rank_all(&self.waiting(ids, |_| true), threads);
        let count = ranked.len() as u64;
        for (id, best) in ranked {
            let Some(group) = self.groups.get_mut(id) else { continue };
            if !group.order().eq(best.iter().map(|(_, node)| node)) {
                changed.extend(group.members.iter().cloned());
            }
            group.best = best;
        }
        count
    }

    /// These groups, those with the same candidates together.
    fn waiting(&self, ids: impl IntoIterator<Item = usize>, wanted: impl Fn(&Group) -> bool) -> Vec<(usize, &Group)> {
        let mut waiting: Vec<(usize, &Group)> = ids
            .into_iter()
            .filter_map(|id| Some((id, self.groups.get(id)?)))
            .filter(|(_, group)| wanted(group))
            .collect();
        waiting.sort_by_key(|(_, group)| Arc::as_ptr(&group.candidates));
        waiting
    }

    /// The group of a Service; `None` where it cannot be announced.
    pub(super) fn of(&self, service: &ServiceKey) -> Option<&Group> {
        self.groups.get(*self.by_service.get(service)?)
    }

    /// The Services that hold an address, by name.
    pub(super) fn holders(&self, ip: IpAddr) -> &[ServiceKey] {
        self.by_ip.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// The addresses that are held.
    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.by_ip.keys().copied()
    }

    /// The Services that can be announced and share addresses with this one, directly or through others, itself
    /// included.
    fn connected(&self, first: &ServiceKey, entries: &BTreeMap<ServiceKey, Entry>) -> Vec<ServiceKey> {
        let announced = |service: &ServiceKey| entries.get(service).filter(|entry| entry.own.is_ok());
        let mut found: Vec<ServiceKey> = announced(first).map(|_| first.clone()).into_iter().collect();
        let mut seen: BTreeSet<ServiceKey> = found.iter().cloned().collect();
        let mut at = 0;
        while let Some(entry) = found.get(at).and_then(announced) {
            for other in entry.key.ips.iter().flat_map(|&ip| self.holders(ip)) {
                if announced(other).is_some() && seen.insert(other.clone()) {
                    found.push(other.clone());
                }
            }
            at += 1;
        }
        found
    }

    fn insert(&mut self, members: Vec<ServiceKey>, entries: &BTreeMap<ServiceKey, Entry>, sets: &CandidateSets) {
        let found: Vec<&Entry> = members.iter().filter_map(|member| entries.get(member)).collect();
        let Some(oldest) = found.first() else { return };
        let Some(&ip) = oldest.key.ips.first() else { return };
        let candidates = match (&found[..], &oldest.own) {
            ([_], Ok(own)) => Arc::clone(own),
            _ => joint(&found, sets),
        };
        let id = self.groups.insert(Group { members: members.clone(), ip, candidates, best: Vec::new() });
        self.by_service.extend(members.into_iter().map(|member| (member, id)));
        self.unclaimed.insert(id);
        self.pending.insert(id);
    }

    fn dissolve(&mut self, id: usize) -> Group {
        let group = self.groups.remove(id);
        for member in &group.members {
            self.by_service.remove(member);
        }
        self.unclaimed.remove(&id);
        self.pending.remove(&id);
        group
    }
}

/// Whether the order of the best candidates is what it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    Same,
    Changed,
}

/// How many of the candidates of a group are known by rank.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Known {
    All,
    Best,
}

impl Group {
    /// The best candidates, best first.
    pub(super) fn order(&self) -> impl Iterator<Item = &NodeName> {
        self.best.iter().map(|(_, node)| node)
    }

    pub(super) const fn candidates(&self) -> &Arc<Electorate> {
        &self.candidates
    }

    /// The Services that share addresses.
    pub(super) fn members(&self) -> &[ServiceKey] {
        &self.members
    }

    pub(super) const fn is_single(&self) -> bool {
        self.members.len() == 1
    }

    /// Whether as many of the best candidates are known as there are, or as are remembered.
    fn is_ranked(&self) -> bool {
        self.best.len() >= self.candidates.len().min(DEPTH)
    }

    /// Puts a new candidate among the best ones; whether it belongs there.
    fn insert(&mut self, standing: Standing, node: &NodeName, known: Known) -> bool {
        // Unknown candidates behind the last known one may be better than this one.
        if known == Known::Best && self.best.last().is_none_or(|(last, _)| standing > *last) {
            return false;
        }
        offer(&mut self.best, (standing, node.clone()), DEPTH)
    }
}

/// The candidates that all Services of a group have in common; where there is none, those of any of them.
fn joint(members: &[&Entry], sets: &CandidateSets) -> Arc<Electorate> {
    let own: Vec<BTreeSet<&NodeName>> =
        members.iter().filter_map(|entry| Some(entry.own.as_ref().ok()?.nodes().collect())).collect();
    let (Some(oldest), Some(first)) = (members.first(), own.first()) else { return Arc::default() };
    let mut common = first.clone();
    common.retain(|name| own.iter().all(|set| set.contains(name)));
    if common.is_empty() {
        common = own.iter().flatten().copied().collect();
    }
    Arc::new(sets.get(oldest.set).scored(common))
}

/// The best candidates of each group.
fn rank_all(groups: &[(usize, &Group)], threads: NonZeroUsize) -> Vec<(usize, Vec<(Standing, NodeName)>)> {
    let share = groups.len().div_ceil(threads.get()).max(1);
    let mut shares = groups.chunks(share);
    let first = shares.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = shares.map(|share| scope.spawn(move || rank(share))).collect();
        let mut ranked = rank(first);
        for other in others {
            match other.join() {
                Ok(more) => ranked.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        ranked
    })
}

fn rank(groups: &[(usize, &Group)]) -> Vec<(usize, Vec<(Standing, NodeName)>)> {
    let mut ranked = Vec::with_capacity(groups.len());
    for alike in alike(groups) {
        let texts: Vec<IpText> = alike.iter().map(|(_, group)| IpText::new(group.ip)).collect();
        let Some((_, first)) = alike.first() else { continue };
        let best = first.candidates.best(&texts, DEPTH);
        ranked.extend(alike.iter().map(|(id, _)| *id).zip(best));
    }
    ranked
}

/// Neighbours with the same candidates, which are hashed together.
fn alike<'a, 'g>(groups: &'a [(usize, &'g Group)]) -> impl Iterator<Item = &'a [(usize, &'g Group)]> {
    groups.chunk_by(|(_, a), (_, b)| Arc::ptr_eq(&a.candidates, &b.candidates))
}

/// How many candidates are remembered.
const DEPTH: usize = 1 + SUCCESSORS;
