//! The configuration in force: invalid edits do not replace valid objects.

mod departed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::departed::Departures;
use super::spec::{CommunitySpec, PeerSpec, Resources, Spec, Unreadable};
use super::{Config, Incumbents, Parsed, Problem, Severity, unreadable};
use crate::model::{Cluster, ObjectRef, Uid};

/// Keeps the last valid form of each object.
///
/// - If an object is edited into an error or cannot be read, its last valid form stays in force.
/// - If a new or edited object conflicts with an unchanged object in force, the unchanged object stays in force.
/// - If a Secret, BFD profile or community alias is deleted or changed so that a peer or advertisement in force would
///   become invalid, the last valid form of the referenced object stays in force for it.
///
/// Each of these is also reported as a problem. A deleted object is not kept; with a grace time, a deleted pool goes on
/// serving the Services that hold its addresses until the time is over ([`Config::departed`]).
#[derive(Clone, Debug, Default)]
pub struct ConfigStore {
    good: Resources,
    /// Valid forms from before the start, until the first update.
    recalled: Option<Resources>,
    departures: Departures,
}

impl ConfigStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps deleted pools for the holders of their addresses for `grace` after [`update_at`](Self::update_at) noticed
    /// the deletion.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { departures: Departures::new(grace), ..self }
    }

    /// Begins with the valid forms that an earlier process stored. The first update drops the forms of objects that do
    /// not exist any more or have another uid.
    pub fn recall(&mut self, good: Resources) {
        self.recalled = Some(good);
    }

    /// The last valid forms of all objects that exist.
    #[must_use]
    pub const fn good(&self) -> &Resources {
        &self.good
    }

    /// Like [`update`](Self::update), with the grace time for deleted pools. Call it again at
    /// [`next_deadline`](Self::next_deadline).
    pub fn update_at(&mut self, resources: &Resources, cluster: &Cluster, now: Instant) -> Parsed {
        self.departures.returned(&resources.pools, &mut self.good.pools);
        let mut parsed = self.update(resources, cluster);
        parsed.config.departed = self.departures.follow(&parsed.config, &self.good.pools, now);
        parsed
    }

    /// When the grace time of a deleted pool ends next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.departures.next_deadline()
    }

    /// Parses all objects, falls back to the last valid forms where needed, and stores the valid ones.
    pub fn update(&mut self, resources: &Resources, cluster: &Cluster) -> Parsed {
        let mut current = resources.clone();
        self.adopt_recalled(&current);
        self.restore_unreadable(&mut current);
        let mut problems: Vec<Problem> = Vec::new();
        // Each round restores at least one last valid form, which later rounds do not change, so the loop ends.
        loop {
            let parsed = Config::parse_after(&self.unchanged(&current), &current, cluster);
            let blamed: BTreeSet<ObjectRef> = errors(&problems).cloned().collect();
            let first_round = problems.is_empty();
            let fresh = |problem: &&Problem| {
                first_round || (problem.severity == Severity::Error && !blamed.contains(&problem.object))
            };
            problems.extend(parsed.problems.iter().filter(fresh).cloned());
            let refused: BTreeSet<&ObjectRef> = errors(&parsed.problems).collect();
            if !self.restore_last_valid(&mut current, &refused) {
                drop_refused(&mut current, &refused);
                current.unreadable.clear();
                self.good = current;
                problems.extend(unreadable(resources));
                problems.sort();
                return Parsed { config: parsed.config, problems };
            }
        }
    }

    /// Takes the recalled forms of objects that exist.
    fn adopt_recalled(&mut self, current: &Resources) {
        let Some(recalled) = self.recalled.take() else { return };
        let broken = &current.unreadable;
        adopt(&mut self.good.pools, recalled.pools, &current.pools, broken);
        adopt(&mut self.good.l2_advertisements, recalled.l2_advertisements, &current.l2_advertisements, broken);
        adopt(&mut self.good.bgp_advertisements, recalled.bgp_advertisements, &current.bgp_advertisements, broken);
        adopt(&mut self.good.peers, recalled.peers, &current.peers, broken);
        adopt(&mut self.good.bfd_profiles, recalled.bfd_profiles, &current.bfd_profiles, broken);
        adopt(&mut self.good.communities, recalled.communities, &current.communities, broken);
    }

    /// Puts the last valid forms of objects that cannot be read in their places.
    fn restore_unreadable(&self, current: &mut Resources) {
        let (good, broken) = (&self.good, &mut current.unreadable);
        stand_in(&mut current.pools, &good.pools, broken);
        stand_in(&mut current.l2_advertisements, &good.l2_advertisements, broken);
        stand_in(&mut current.bgp_advertisements, &good.bgp_advertisements, broken);
        stand_in(&mut current.peers, &good.peers, broken);
        stand_in(&mut current.bfd_profiles, &good.bfd_profiles, broken);
        stand_in(&mut current.communities, &good.communities, broken);
        stand_in(&mut current.secrets, &good.secrets, broken);
    }

    /// Objects that are equal to their form in force.
    fn unchanged(&self, current: &Resources) -> Incumbents {
        let mut unchanged = Incumbents::new();
        collect_unchanged(&self.good.pools, &current.pools, &mut unchanged);
        collect_unchanged(&self.good.l2_advertisements, &current.l2_advertisements, &mut unchanged);
        collect_unchanged(&self.good.bgp_advertisements, &current.bgp_advertisements, &mut unchanged);
        collect_unchanged(&self.good.peers, &current.peers, &mut unchanged);
        collect_unchanged(&self.good.bfd_profiles, &current.bfd_profiles, &mut unchanged);
        collect_unchanged(&self.good.communities, &current.communities, &mut unchanged);
        unchanged
    }

    /// Replaces refused objects by their last valid forms. If there are none, restores objects that refused objects
    /// refer to. Returns whether anything changed.
    fn restore_last_valid(&self, current: &mut Resources, refused: &BTreeSet<&ObjectRef>) -> bool {
        let good = &self.good;
        let replaced = substitute(&mut current.pools, &good.pools, refused)
            | substitute(&mut current.l2_advertisements, &good.l2_advertisements, refused)
            | substitute(&mut current.bgp_advertisements, &good.bgp_advertisements, refused)
            | substitute(&mut current.peers, &good.peers, refused)
            | substitute(&mut current.bfd_profiles, &good.bfd_profiles, refused)
            | substitute(&mut current.communities, &good.communities, refused);
        replaced || self.restore_references(current, refused)
    }

    fn restore_references(&self, current: &mut Resources, refused: &BTreeSet<&ObjectRef>) -> bool {
        let good = &self.good;
        let mut restored = false;
        for peer in good.peers.iter().filter(|peer| refused.contains(&peer.reference())) {
            // One at a time: with the Secret restored, the peer may be valid with the current profile.
            restored |= restore(&mut current.secrets, &good.secrets, &peer.password_secret, peer)
                || restore(&mut current.bfd_profiles, &good.bfd_profiles, &peer.bfd_profile, peer);
        }
        for advertisement in good.bgp_advertisements.iter().filter(|ad| refused.contains(&ad.reference())) {
            for alias in &advertisement.communities {
                restored |= restore_alias(&mut current.communities, &good.communities, alias);
            }
        }
        restored
    }
}

/// Adds the recalled forms whose objects exist, with the same uid.
fn adopt<S: Spec>(good: &mut Vec<S>, recalled: Vec<S>, current: &[S], broken: &BTreeMap<ObjectRef, Unreadable>) {
    let present: BTreeMap<ObjectRef, Option<&Uid>> = current
        .iter()
        .map(|spec| (spec.reference(), spec.meta().uid.as_ref()))
        .chain(broken.iter().map(|(object, broken)| (object.clone(), broken.uid.as_ref())))
        .collect();
    let known: BTreeSet<ObjectRef> = good.iter().map(Spec::reference).collect();
    good.extend(recalled.into_iter().filter(|spec| {
        let object = spec.reference();
        !known.contains(&object) && present.get(&object) == Some(&spec.meta().uid.as_ref())
    }));
}

/// Adds the last valid forms of objects that cannot be read.
fn stand_in<S: Spec + Clone>(current: &mut Vec<S>, good: &[S], broken: &mut BTreeMap<ObjectRef, Unreadable>) {
    if broken.is_empty() {
        return;
    }
    for spec in good {
        if broken.remove(&spec.reference()).is_some() {
            current.push(spec.clone());
        }
    }
}

fn errors(problems: &[Problem]) -> impl Iterator<Item = &ObjectRef> {
    problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| &problem.object)
}

fn same_object<S: Spec>(a: &S, b: &S) -> bool {
    a.meta().name == b.meta().name && a.meta().namespace == b.meta().namespace
}

fn collect_unchanged<S: Spec>(good: &[S], current: &[S], unchanged: &mut Incumbents) {
    let good: BTreeMap<ObjectRef, &S> = good.iter().map(|spec| (spec.reference(), spec)).collect();
    let same = |spec: &&S| good.get(&spec.reference()).is_some_and(|good| good == spec);
    unchanged.extend(current.iter().filter(same).map(Spec::reference));
}

fn substitute<S: Spec + Clone>(specs: &mut [S], good: &[S], refused: &BTreeSet<&ObjectRef>) -> bool {
    let mut replaced = false;
    for spec in specs.iter_mut().filter(|spec| refused.contains(&spec.reference())) {
        if let Some(last_good) = good.iter().find(|other| same_object(*other, spec) && *other != spec) {
            *spec = last_good.clone();
            replaced = true;
        }
    }
    replaced
}

/// Restores the last valid form of the object `name` that `peer` refers to, if it is missing or different.
fn restore<S: Spec + Clone>(specs: &mut Vec<S>, good: &[S], name: &str, peer: &PeerSpec) -> bool {
    let wanted = |spec: &&S| spec.meta().name == name && spec.meta().namespace == peer.meta.namespace;
    let Some(last_good) = good.iter().find(wanted) else { return false };
    match specs.iter_mut().find(|spec| same_object(*spec, last_good)) {
        Some(spec) if spec == last_good => return false,
        Some(spec) => *spec = last_good.clone(),
        None => specs.push(last_good.clone()),
    }
    true
}

/// Restores an alias that no object defines, in the object that defined it.
fn restore_alias(specs: &mut Vec<CommunitySpec>, good: &[CommunitySpec], alias: &str) -> bool {
    let defines = |spec: &&CommunitySpec| spec.communities.iter().any(|(name, _)| name == alias);
    if specs.iter().any(|spec| defines(&spec)) {
        return false;
    }
    let Some(last_good) = good.iter().find(defines) else { return false };
    let entries = last_good.communities.iter().filter(|(name, _)| name == alias).cloned();
    match specs.iter_mut().find(|spec| same_object(*spec, last_good)) {
        Some(spec) => spec.communities.extend(entries),
        None => specs.push(CommunitySpec { meta: last_good.meta.clone(), communities: entries.collect() }),
    }
    true
}

fn drop_refused(current: &mut Resources, refused: &BTreeSet<&ObjectRef>) {
    fn retain<S: Spec>(specs: &mut Vec<S>, refused: &BTreeSet<&ObjectRef>) {
        specs.retain(|spec| !refused.contains(&spec.reference()));
    }
    retain(&mut current.pools, refused);
    retain(&mut current.l2_advertisements, refused);
    retain(&mut current.bgp_advertisements, refused);
    retain(&mut current.peers, refused);
    retain(&mut current.bfd_profiles, refused);
    retain(&mut current.communities, refused);
}
