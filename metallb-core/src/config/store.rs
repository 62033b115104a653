//! The configuration in force over time: an object edited into an error keeps its last good form.

use std::collections::BTreeSet;

use super::spec::{Resources, Spec};
use super::{Config, Parsed, Problem, Severity};
use crate::model::{Cluster, ObjectRef};

/// Keeps the last good form of each object.
#[derive(Clone, Debug, Default)]
pub struct ConfigStore {
    good: Resources,
}

impl ConfigStore {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses new objects. Where one is in error its last good form, if there was one, takes its place; the problem is
    /// reported all the same. An object that was deleted is gone.
    pub fn update(&mut self, resources: &Resources, cluster: &Cluster) -> Parsed {
        let first = Config::parse(resources, cluster);
        let refused: BTreeSet<&ObjectRef> = errors(&first.problems).collect();
        if refused.is_empty() {
            self.good = resources.clone();
            return first;
        }
        let mut mended = resources.clone();
        let good = &self.good;
        let mut replaced = substitute(&mut mended.pools, &good.pools, &refused);
        replaced |= substitute(&mut mended.l2_advertisements, &good.l2_advertisements, &refused);
        replaced |= substitute(&mut mended.bgp_advertisements, &good.bgp_advertisements, &refused);
        replaced |= substitute(&mut mended.peers, &good.peers, &refused);
        replaced |= substitute(&mut mended.bfd_profiles, &good.bfd_profiles, &refused);
        replaced |= substitute(&mut mended.communities, &good.communities, &refused);
        let second = if replaced { Config::parse(&mended, cluster) } else { first.clone() };
        let still_refused: BTreeSet<&ObjectRef> = errors(&second.problems).collect();
        retain(&mut mended.pools, &still_refused);
        retain(&mut mended.l2_advertisements, &still_refused);
        retain(&mut mended.bgp_advertisements, &still_refused);
        retain(&mut mended.peers, &still_refused);
        retain(&mut mended.bfd_profiles, &still_refused);
        retain(&mut mended.communities, &still_refused);
        self.good = mended;
        Parsed { config: second.config, problems: first.problems }
    }
}

fn errors(problems: &[Problem]) -> impl Iterator<Item = &ObjectRef> {
    problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| &problem.object)
}

fn substitute<S: Spec + Clone + PartialEq>(specs: &mut [S], good: &[S], refused: &BTreeSet<&ObjectRef>) -> bool {
    let mut replaced = false;
    for spec in specs {
        if !refused.contains(&spec.reference()) {
            continue;
        }
        let same = |other: &&S| other.meta().name == spec.meta().name && other.meta().namespace == spec.meta().namespace;
        if let Some(last_good) = good.iter().find(same) {
            replaced |= *last_good != *spec;
            *spec = last_good.clone();
        }
    }
    replaced
}

fn retain<S: Spec>(specs: &mut Vec<S>, refused: &BTreeSet<&ObjectRef>) {
    specs.retain(|spec| !refused.contains(&spec.reference()));
}
