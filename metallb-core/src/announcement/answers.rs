//! The addresses that this node answers for on L2, those that it gave up, and those that it is on standby for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    AddressChanges, AnnouncementChange, Assignment, L2Announcement, Predecessors, Protocol, Scope, Transition,
    TransitionKind, Update,
};
use crate::election::{Elections, WasHeld, interfaces};
use crate::model::{InterfaceName, Node, NodeName, ServiceKey};

/// The addresses as of the last step.
#[derive(Debug, Default)]
pub(super) struct Answering {
    /// Addresses without an assignment are left out.
    assignments: BTreeMap<IpAddr, Assignment>,
    /// Addresses that this node answered for earlier: the owner may have to learn of it.
    given_up: BTreeSet<IpAddr>,
    /// The interfaces of this node.
    interfaces: BTreeSet<Arc<str>>,
    /// Whether a step was made: of the addresses in the first one none is new.
    has_begun: bool,
    looked_at: u64,
}

/// The inputs of a step beside the elections.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) node: &'a NodeName,
    pub(super) me: Option<&'a Node>,
    pub(super) interfaces: &'a BTreeSet<Arc<str>>,
    pub(super) scopes: Scopes,
}

/// Whether the interfaces that advertisements name for this node may be others than before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scopes {
    Same,
    Changed,
}

impl Answering {
    /// Follows the elections. Returns the addresses whose election changed.
    pub(super) fn step(
        &mut self,
        step: Step<'_>,
        elections: &mut Elections,
        announced: &mut BTreeMap<ServiceKey, L2Announcement>,
        update: &mut Update,
    ) -> BTreeSet<IpAddr> {
        let changed = elections.settle_for(step.node);
        let (mut ips, mut services) = (changed.ips, changed.services);
        let elected: BTreeSet<IpAddr> = ips.keys().copied().collect();
        if step.scopes == Scopes::Changed || *step.interfaces != self.interfaces {
            self.interfaces.clone_from(step.interfaces);
            services.extend(announced.keys().cloned());
        }
        for service in services {
            let now = announcement(step, &service, elections);
            let before = announced.get(&service);
            if before == now.as_ref() {
                continue;
            }
            for &ip in before.iter().chain(&now.as_ref()).flat_map(|announcement| &announcement.ips) {
                ips.entry(ip).or_insert(WasHeld::Held);
            }
            note(&service, before, now.as_ref(), update);
            match now {
                Some(now) => drop(announced.insert(service, now)),
                None => drop(announced.remove(&service)),
            }
        }
        // Announcements that ended come after those that began.
        update.transitions.sort_by_key(|transition| transition.kind == TransitionKind::Withdrawn(Protocol::Layer2));
        for (&ip, &was_held) in &ips {
            self.place(step, ip, elections, announced, &mut update.addresses);
            if was_held == WasHeld::Free && self.has_begun && self.is_owner(ip) {
                update.probe.insert(ip);
            }
        }
        self.has_begun = true;
        elected
    }

    /// The addresses that another node has or gets when this one leaves.
    pub(super) fn handed_over(&self) -> impl Iterator<Item = IpAddr> {
        let owned = self.assignments.iter().filter(|(_, assignment)| matches!(assignment, Assignment::Owner(_)));
        owned.map(|(ip, _)| ip).chain(&self.given_up).copied()
    }

    /// How often an assignment was determined.
    pub(super) const fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Brings one address in step with the nodes that come before this one, unless this node owns it.
    pub(super) fn stand_by(
        &mut self,
        ip: IpAddr,
        standby: Option<(Scope, Predecessors)>,
        elections: &mut Elections,
        changes: &mut AddressChanges,
    ) {
        if self.is_owner(ip) {
            return;
        }
        let now = match standby {
            Some((scope, predecessors)) => Some(Assignment::Standby(scope, predecessors)),
            None if self.given_up.contains(&ip) => elections.find_owner(ip).map(Assignment::GivenUp),
            None => None,
        };
        self.assign(ip, now, changes);
    }

    /// Brings one address in step with the Services that hold it.
    fn place(
        &mut self,
        step: Step<'_>,
        ip: IpAddr,
        elections: &mut Elections,
        announced: &BTreeMap<ServiceKey, L2Announcement>,
        changes: &mut AddressChanges,
    ) {
        self.looked_at += 1;
        let scopes = elections.holders(ip).filter_map(|service| announced.get(service)).map(Scope::of);
        if let Some(scope) = scopes.reduce(Scope::union) {
            self.given_up.remove(&ip);
            return self.assign(ip, Some(Assignment::Owner(scope)), changes);
        }
        let is_held = elections.holders(ip).next().is_some();
        let was_ours = self.is_owner(ip) || self.given_up.remove(&ip);
        let is_given_up = is_held && was_ours && self.given_up.insert(ip);
        if self.is_on_standby(ip) && elections.has_candidates(ip) {
            // The order is determined with that of all others. Until then the old one is the best that is known.
            return;
        }
        let owner = is_given_up.then(|| elections.find_owner(ip)).flatten();
        let now = owner.map(|owner| match standby(ip, step.node, step.me, elections) {
            // The order is known already, so that the successor can be followed at once.
            Some((scope, before)) => Assignment::Standby(scope, before.into()),
            None => Assignment::GivenUp(owner),
        });
        self.assign(ip, now, changes);
    }

    fn assign(&mut self, ip: IpAddr, now: Option<Assignment>, changes: &mut AddressChanges) {
        if self.assignments.get(&ip) == now.as_ref() {
            return;
        }
        changes.insert(ip, now.clone().unwrap_or(Assignment::None));
        match now {
            Some(now) => drop(self.assignments.insert(ip, now)),
            None => drop(self.assignments.remove(&ip)),
        }
    }

    fn is_owner(&self, ip: IpAddr) -> bool {
        matches!(self.assignments.get(&ip), Some(Assignment::Owner(_)))
    }

    fn is_on_standby(&self, ip: IpAddr) -> bool {
        matches!(self.assignments.get(&ip), Some(Assignment::Standby(..)))
    }
}

/// Where `node` answers for an address when those before it fail, and the nodes before it. `None` where it is not among
/// the first, or where the order may be another one then.
pub(super) fn standby(
    ip: IpAddr,
    node: &NodeName,
    me: Option<&Node>,
    elections: &Elections,
) -> Option<(Scope, Vec<NodeName>)> {
    let (me, before) = (me?, elections.predecessors(ip, node)?);
    if !elections.has_stable_order(ip, node) {
        return None;
    }
    let services = elections.holders(ip).filter(|service| elections.refusal(service).is_none());
    let scopes =
        services.filter_map(|service| Some(Scope::named(interfaces(elections.advertisements_of(service)?, me))));
    Some((scopes.reduce(Scope::union)?, before))
}

impl Scope {
    fn of(announcement: &L2Announcement) -> Self {
        Self::named(announcement.interfaces.iter().cloned().collect())
    }

    /// The interfaces that advertisements name; all of them where they name none.
    fn named(names: BTreeSet<InterfaceName>) -> Self {
        if names.is_empty() { Self::All } else { Self::Only(names) }
    }

    fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut names), Self::Only(others)) => {
                names.extend(others);
                Self::Only(names)
            }
            _ => Self::All,
        }
    }
}

/// The announcement of a Service, if this node owns it.
fn announcement(step: Step<'_>, service: &ServiceKey, elections: &Elections) -> Option<L2Announcement> {
    let me = step.me?;
    elections.election(service)?.owner.filter(|owner| owner == step.node)?;
    let names: Vec<InterfaceName> = interfaces(elections.advertisements_of(service)?, me).into_iter().collect();
    let failed = !names.is_empty() && !names.iter().any(|name| step.interfaces.contains(name.as_str()));
    Some(L2Announcement { ips: elections.ips_of(service)?.to_vec(), interfaces: names, failed })
}

fn note(service: &ServiceKey, before: Option<&L2Announcement>, now: Option<&L2Announcement>, update: &mut Update) {
    let ips = |announcement: Option<&L2Announcement>| announcement.map(|announcement| announcement.ips.clone());
    let change = AnnouncementChange {
        service: service.clone(),
        protocol: Protocol::Layer2,
        before: ips(before),
        after: ips(now),
    };
    update.transitions.extend(change.transition());
    update.changes.push(change);
    if let Some(now) = now.filter(|now| now.failed && before.is_none_or(|before| !before.failed)) {
        let failed = |&ip: &IpAddr| Transition { service: service.clone(), kind: TransitionKind::Failed(ip) };
        update.transitions.extend(now.ips.iter().map(failed));
    }
}
