//! Differences between two plans, and the Services that they disrupt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::{L2Plan, Plan, RoutePlan, ServicePlan};
use crate::model::{InterfaceName, NodeName, ServiceKey};

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Change {
    /// The Service.
    pub service: ServiceKey,
    /// The kind of change.
    pub kind: ChangeKind,
    /// The value before.
    pub from: Option<String>,
    /// The value afterwards.
    pub to: Option<String>,
    /// Whether connections break.
    pub disruptive: bool,
}

/// The kinds of change.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// A Service loses an address without a replacement.
    IpLost,
    /// A Service gets another address of the same family.
    IpChanged,
    /// A Service gets an address.
    IpGained,
    /// Another node answers, none answers any longer, or it answers on other interfaces.
    OwnerMoved,
    /// A new route; or, if `from` is given, a route with other attributes.
    RouteAdded,
    /// A withdrawn route.
    RouteWithdrawn,
}

/// The differences, by Service in the order of `after`, then of `before`.
#[must_use]
pub fn diff(before: &Plan, after: &Plan) -> Vec<Change> {
    let (old, new) = (by_key(before), by_key(after));
    let mut changes = Vec::new();
    for service in &after.services {
        compare(&service.key, old.get(&service.key).copied(), Some(service), &mut changes);
    }
    for service in &before.services {
        if !new.contains_key(&service.key) {
            compare(&service.key, Some(service), None, &mut changes);
        }
    }
    changes
}

fn by_key(plan: &Plan) -> BTreeMap<&ServiceKey, &ServicePlan> {
    plan.services.iter().map(|service| (&service.key, service)).collect()
}

fn compare(key: &ServiceKey, old: Option<&ServicePlan>, new: Option<&ServicePlan>, changes: &mut Vec<Change>) {
    let mut push = |kind, from: Option<String>, to: Option<String>, disruptive| {
        changes.push(Change { service: key.clone(), kind, from, to, disruptive });
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
    let owners = |plan: Option<&ServicePlan>| -> BTreeMap<IpAddr, Option<Owner>> {
        let ips = plan.iter().flat_map(|plan| &plan.ips).map(|&ip| (ip, None));
        let answered = plan.iter().flat_map(|plan| &plan.l2).map(|l2| (l2.ip, Owner::of(l2)));
        // The Service keeps an address that no L2Advertisement reaches any longer, but no node answers for it.
        ips.chain(answered).collect()
    };
    let (was, is) = (owners(old), owners(new));
    for (ip, from) in &was {
        let Some(to) = is.get(ip).filter(|to| *to != from) else { continue };
        let shown = |owner: &Option<Owner>| owner.as_ref().map(|owner| owner.shown(from, to));
        // No node answered before, so no connection breaks. Nor does an additional interface break one.
        let disruptive = match (from, to) {
            (None, _) => false,
            (Some(from), Some(to)) => from.node != to.node || !from.interfaces.within(&to.interfaces),
            (Some(_), None) => true,
        };
        push(ChangeKind::OwnerMoved, shown(from), shown(to), disruptive);
    }
    let routes = |plan: Option<&ServicePlan>| -> BTreeMap<String, String> {
        let line = |plan: &RoutePlan| format!("{} via {} to {}", plan.route.prefix, plan.node, plan.peer);
        plan.iter().flat_map(|plan| &plan.bgp).map(|plan| (line(plan), plan.attributes())).collect()
    };
    let (was, is) = (routes(old), routes(new));
    for (route, now) in &is {
        match was.get(route) {
            None => push(ChangeKind::RouteAdded, None, Some(route.clone()), false),
            // The peer gets it as a replacement: there is a route all the time.
            Some(before) if before != now => {
                let with = |attributes: &str| Some(format!("{route} {attributes}"));
                push(ChangeKind::RouteAdded, with(before), with(now), false);
            }
            Some(_) => {}
        }
    }
    for route in was.keys().filter(|route| !is.contains_key(*route)) {
        push(ChangeKind::RouteWithdrawn, Some(route.clone()), None, true);
    }
}

/// The owner and its interfaces.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Owner {
    node: NodeName,
    interfaces: On,
}

/// The interfaces on which a node answers.
#[derive(Clone, Debug, Eq, PartialEq)]
enum On {
    All,
    Some(BTreeSet<InterfaceName>),
}

impl Owner {
    fn of(plan: &L2Plan) -> Option<Self> {
        let interfaces =
            if plan.interfaces.is_empty() { On::All } else { On::Some(plan.interfaces.iter().cloned().collect()) };
        plan.node.clone().map(|node| Self { node, interfaces })
    }

    /// The node, with its interfaces if only they change.
    fn shown(&self, from: &Option<Self>, to: &Option<Self>) -> String {
        let same_node = matches!((from, to), (Some(from), Some(to)) if from.node == to.node);
        match &self.interfaces {
            _ if !same_node => self.node.to_string(),
            On::All => format!("{} on all interfaces", self.node),
            On::Some(names) => {
                let names: Vec<&str> = names.iter().map(InterfaceName::as_str).collect();
                format!("{} on {}", self.node, names.join(","))
            }
        }
    }
}

impl On {
    fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, Self::Some(_)) => false,
            (Self::Some(few), Self::Some(many)) => few.is_subset(many),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "both ends of a change are optional")]
fn text(ip: IpAddr) -> Option<String> {
    Some(ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::{AssignReason, AssignmentState};
    use crate::election::L2Reason;
    use crate::plan::ReasonText;
    use crate::routes::Route;

    fn service(ips: &[&str], owner: Option<(&str, &[&str])>, routes: &[(&str, u32)]) -> Plan {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let l2 = |(node, interfaces): (&str, &[&str])| {
            let of = |&ip: &IpAddr| L2Plan {
                ip,
                node: Some(node.into()),
                interfaces: interfaces.iter().map(|name| InterfaceName::from(*name)).collect(),
                reason: L2Reason::Elected,
                successors: Vec::new(),
                candidates: [].into(),
                candidates_omitted: 0,
            };
            ips.iter().map(of).collect()
        };
        let route = |&(node, local_pref): &(&str, u32)| RoutePlan {
            node: node.into(),
            peer: "tor".into(),
            route: Route {
                prefix: "10.0.0.0/24".parse().unwrap(),
                local_pref: Some(local_pref),
                communities: BTreeSet::new(),
            },
            external: false,
        };
        let planned = ServicePlan {
            key: ServiceKey::new("default", "web"),
            state: AssignmentState::Assigned,
            pool: None,
            reason: ReasonText { code: AssignReason::Kept, message: String::new() },
            refused_pools: Vec::new(),
            l2: owner.map(l2).unwrap_or_default(),
            bgp: routes.iter().map(route).collect(),
            ips,
        };
        Plan { services: vec![planned], pools: Vec::new(), problems: Vec::new() }
    }

    /// Kind, from, to, and whether it disrupts.
    type Row = (ChangeKind, Option<&'static str>, Option<&'static str>, bool);

    #[test]
    fn every_way_in_which_a_service_changes_is_told_with_whether_it_hurts() {
        use ChangeKind::{IpChanged, IpGained, IpLost, OwnerMoved, RouteAdded, RouteWithdrawn};
        let ip = &["10.0.0.1"][..];
        let on = |node, interfaces| service(ip, Some((node, interfaces)), &[]);
        let routes = |routes| service(ip, None, routes);
        let via = |node: &str| -> &'static str {
            if node == "a" { "10.0.0.0/24 via a to tor" } else { "10.0.0.0/24 via b to tor" }
        };
        let table: &[(&str, Plan, Plan, &[Row])] = &[
            ("nothing", on("a", &[]), on("a", &[]), &[]),
            ("lost", routes(&[]), service(&[], None, &[]), &[(IpLost, Some("10.0.0.1"), None, true)]),
            ("gained", service(&[], None, &[]), on("a", &[]), &[(IpGained, None, Some("10.0.0.1"), false)]),
            (
                "changed",
                on("a", &[]),
                service(&["10.0.0.2"], Some(("a", &[])), &[]),
                &[(IpChanged, Some("10.0.0.1"), Some("10.0.0.2"), true)],
            ),
            ("moved", on("a", &[]), on("b", &[]), &[(OwnerMoved, Some("a"), Some("b"), true)]),
            ("unanswered", on("a", &[]), routes(&[]), &[(OwnerMoved, Some("a"), None, true)]),
            ("answered", routes(&[]), on("a", &[]), &[(OwnerMoved, None, Some("a"), false)]),
            (
                "an interface less",
                on("a", &[]),
                on("a", &["eth0"]),
                &[(OwnerMoved, Some("a on all interfaces"), Some("a on eth0"), true)],
            ),
            (
                "an interface more",
                on("a", &["eth0"]),
                on("a", &["eth0", "eth1"]),
                &[(OwnerMoved, Some("a on eth0"), Some("a on eth0,eth1"), false)],
            ),
            (
                "another next hop",
                routes(&[("a", 100)]),
                routes(&[("b", 100)]),
                &[(RouteAdded, None, Some(via("b")), false), (RouteWithdrawn, Some(via("a")), None, true)],
            ),
            ("a route that stays", routes(&[("a", 100)]), routes(&[("a", 100)]), &[]),
            (
                "another preference",
                routes(&[("a", 100)]),
                routes(&[("a", 200)]),
                &[(
                    RouteAdded,
                    Some("10.0.0.0/24 via a to tor (local preference 100)"),
                    Some("10.0.0.0/24 via a to tor (local preference 200)"),
                    false,
                )],
            ),
        ];
        for (name, before, after, expected) in table {
            let changes = diff(before, after);
            let found: Vec<_> = changes
                .iter()
                .map(|change| (change.kind, change.from.as_deref(), change.to.as_deref(), change.disruptive))
                .collect();
            assert_eq!(found, *expected, "{name}");
        }
    }

    #[test]
    fn service_that_is_gone_loses_everything_and_a_new_one_only_gains() {
        let nothing = Plan { services: Vec::new(), pools: Vec::new(), problems: Vec::new() };
        let there = service(&["10.0.0.1"], Some(("a", &[])), &[("a", 100)]);
        let gone = diff(&there, &nothing);
        assert_eq!(
            gone.iter().map(|change| change.kind).collect::<Vec<_>>(),
            [ChangeKind::IpLost, ChangeKind::RouteWithdrawn]
        );
        assert!(gone.iter().all(|change| change.disruptive));
        assert!(diff(&nothing, &there).iter().all(|change| !change.disruptive));
    }
}
