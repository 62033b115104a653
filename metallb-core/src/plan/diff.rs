//! What changes between two plans, and whom it hurts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::{Plan, ServicePlan};

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Change {
    /// `namespace/name`
    pub service: String,
    /// What changes.
    pub kind: ChangeKind,
    /// What it was.
    pub from: Option<String>,
    /// What it will be.
    pub to: Option<String>,
    /// Whether connections break.
    pub disruptive: bool,
}

/// What can change.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// A Service loses an address and gets none for it.
    IpLost,
    /// A Service gets another address of the same family.
    IpChanged,
    /// A Service gets an address.
    IpGained,
    /// Another node answers.
    OwnerMoved,
    /// A route more.
    RouteAdded,
    /// A route less.
    RouteWithdrawn,
}

/// The differences, by Service in the order of `after`, then of `before`.
#[must_use]
pub fn diff(before: &Plan, after: &Plan) -> Vec<Change> {
    let name = |service: &ServicePlan| format!("{}/{}", service.namespace, service.name);
    let old: BTreeMap<String, &ServicePlan> = before.services.iter().map(|service| (name(service), service)).collect();
    let new: BTreeMap<String, &ServicePlan> = after.services.iter().map(|service| (name(service), service)).collect();
    let mut changes = Vec::new();
    for service in &after.services {
        let name = name(service);
        compare(&name, old.get(&name).copied(), Some(service), &mut changes);
    }
    for service in &before.services {
        let name = name(service);
        if !new.contains_key(&name) {
            compare(&name, Some(service), None, &mut changes);
        }
    }
    changes
}

fn compare(name: &str, old: Option<&ServicePlan>, new: Option<&ServicePlan>, changes: &mut Vec<Change>) {
    let mut push = |kind, from: Option<String>, to: Option<String>, disruptive| {
        changes.push(Change { service: name.to_owned(), kind, from, to, disruptive });
    };
    for v4 in [true, false] {
        let of =
            |plan: Option<&ServicePlan>| plan.and_then(|plan| plan.ips.iter().copied().find(|ip| ip.is_ipv4() == v4));
        match (of(old), of(new)) {
            (Some(was), Some(is)) if was != is => push(ChangeKind::IpChanged, text(was), text(is), true),
            (Some(was), None) => push(ChangeKind::IpLost, text(was), None, true),
            (None, Some(is)) => push(ChangeKind::IpGained, None, text(is), false),
            _ => {}
        }
    }
    let owners = |plan: Option<&ServicePlan>| -> BTreeMap<IpAddr, Option<String>> {
        plan.iter().flat_map(|plan| &plan.l2).map(|l2| (l2.ip, l2.node.as_ref().map(ToString::to_string))).collect()
    };
    let (was, is) = (owners(old), owners(new));
    for (ip, from) in &was {
        if let Some(to) = is.get(ip).filter(|to| *to != from) {
            // Nobody answered before: whoever does now hurts nobody.
            push(ChangeKind::OwnerMoved, from.clone(), to.clone(), from.is_some());
        }
    }
    let routes = |plan: Option<&ServicePlan>| -> BTreeSet<String> {
        let line = |route: &super::RoutePlan| format!("{} via {} to {}", route.prefix, route.node, route.peer);
        plan.iter().flat_map(|plan| &plan.bgp).map(line).collect()
    };
    let (was, is) = (routes(old), routes(new));
    for route in is.difference(&was) {
        push(ChangeKind::RouteAdded, None, Some(route.clone()), false);
    }
    for route in was.difference(&is) {
        push(ChangeKind::RouteWithdrawn, Some(route.clone()), None, true);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "both ends of a change are optional")]
fn text(ip: IpAddr) -> Option<String> {
    Some(ip.to_string())
}
