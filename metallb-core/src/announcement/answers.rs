//! The addresses that this node answers for on L2, and those that it gave up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{AnnouncementChange, Answers, L2Announcement, Protocol, Scope, Transition, TransitionKind, Update};
use crate::election::{Elections, WasHeld, interfaces};
use crate::model::{InterfaceName, Node, NodeName, ServiceKey};

/// The addresses as of the last step.
#[derive(Debug, Default)]
pub(super) struct Answering {
    answers: Answers,
    /// Addresses that this node answered for earlier: the owner may have to learn of it.
    given_up: BTreeSet<IpAddr>,
    /// The interfaces of this node.
    interfaces: BTreeSet<Arc<str>>,
    /// Whether a step was made: of the addresses in the first one none is new.
    has_begun: bool,
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

/// Whether an address, its interfaces or its successor is another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Moved {
    No,
    Yes,
}

impl Answering {
    /// Follows the elections. Returns the Services whose election changed.
    pub(super) fn step(
        &mut self,
        step: Step<'_>,
        elections: &mut Elections,
        announced: &mut BTreeMap<ServiceKey, L2Announcement>,
        update: &mut Update,
    ) -> (BTreeSet<ServiceKey>, Moved) {
        let changed = elections.settle_for(step.node);
        let (mut ips, mut services) = (changed.ips, changed.services);
        let elected = services.clone();
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
        let mut moved = Moved::No;
        for (&ip, &was_held) in &ips {
            if self.place(ip, elections, announced) == Moved::Yes {
                moved = Moved::Yes;
            }
            if was_held == WasHeld::Free && self.has_begun && self.answers.addresses.contains_key(&ip) {
                update.probe.insert(ip);
            }
        }
        self.has_begun = true;
        (elected, moved)
    }

    /// The addresses to answer for.
    pub(super) const fn answers(&self) -> &Answers {
        &self.answers
    }

    /// The addresses that another node has or gets when this one leaves.
    pub(super) fn handed_over(&self) -> impl Iterator<Item = IpAddr> {
        self.answers.addresses.keys().chain(&self.given_up).copied()
    }

    /// Brings one address in step with the Services that hold it.
    fn place(
        &mut self,
        ip: IpAddr,
        elections: &mut Elections,
        announced: &BTreeMap<ServiceKey, L2Announcement>,
    ) -> Moved {
        let Answers { addresses, successors } = &mut self.answers;
        let scopes = elections.holders(ip).filter_map(|service| announced.get(service)).map(Scope::of);
        let (before, successor_before) = (addresses.remove(&ip), successors.remove(&ip));
        let (now, successor) = match scopes.reduce(Scope::union) {
            Some(scope) => {
                self.given_up.remove(&ip);
                (Some(scope), None)
            }
            None => {
                let is_held = elections.holders(ip).next().is_some();
                let was_ours = before.is_some() || self.given_up.remove(&ip);
                let is_given_up = is_held && was_ours && self.given_up.insert(ip);
                (None, is_given_up.then(|| elections.find_owner(ip)).flatten())
            }
        };
        let moved = if before == now && successor_before == successor { Moved::No } else { Moved::Yes };
        addresses.extend(now.map(|scope| (ip, scope)));
        successors.extend(successor.map(|node| (ip, node)));
        moved
    }
}

impl Scope {
    fn of(announcement: &L2Announcement) -> Self {
        match announcement.interfaces.is_empty() {
            true => Self::All,
            false => Self::Only(announcement.interfaces.iter().cloned().collect()),
        }
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
