//! A plan as text: assignments, items that need attention, changes and disruptions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use metallb_core::assignment::AssignmentState;
use metallb_core::config::Severity;
use metallb_core::election::L2Reason;
use metallb_core::model::{InterfaceName, ServiceKey};
use metallb_core::plan::{Change, ChangeKind, Plan, ServicePlan};

use crate::cli::output::{Paint, columns, counted, dash};

/// The whole text.
pub(super) fn table(
    plan: &Plan,
    changes: Option<&[Change]>,
    skipped: &BTreeMap<String, usize>,
    paint: Paint,
) -> String {
    let mut text = services(plan);
    text.push('\n');
    text.push_str(&pools(plan));
    attention(plan, paint, &mut text);
    problems(plan, paint, &mut text);
    if let Some(changes) = changes {
        difference(changes, paint, &mut text);
    }
    if !skipped.is_empty() {
        let kinds: Vec<String> = skipped.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let _ = writeln!(text, "\nIgnored objects: {}", kinds.join(", "));
    }
    text
}

fn services(plan: &Plan) -> String {
    let ours: Vec<&ServicePlan> =
        plan.services.iter().filter(|service| service.state != AssignmentState::Ignored).collect();
    let mut text = String::new();
    if ours.is_empty() {
        text.push_str("There is no Service of type LoadBalancer and of this load balancer class.\n");
    } else {
        let mut rows = vec![["SERVICE", "STATE", "POOL", "IPS", "NODE (L2)", "ROUTES (BGP)"].map(str::to_owned)];
        rows.extend(ours.iter().map(|service| row(service)));
        text.push_str(&columns(&rows));
    }
    let ignored = plan.services.len() - ours.len();
    if ignored > 0 {
        let _ = writeln!(text, "({} ignored: another type or load balancer class)", counted(ignored, "Service"));
    }
    text
}

fn row(service: &ServicePlan) -> [String; 6] {
    let state = match service.state {
        AssignmentState::Assigned => "assigned",
        AssignmentState::Pending => "pending",
        AssignmentState::Ignored => "ignored",
    };
    [
        service.key.to_string(),
        state.to_owned(),
        dash(service.pool.as_ref().map(ToString::to_string).unwrap_or_default()),
        dash(service.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        dash(answers(service)),
        dash(routes(service)),
    ]
}

fn answers(service: &ServicePlan) -> String {
    let Some(l2) = service.l2.first() else { return String::new() };
    let on = l2.interfaces.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(",");
    match &l2.node {
        Some(node) if on.is_empty() => node.to_string(),
        Some(node) => format!("{node} ({on})"),
        // No L2 announcement is wanted, so none is missing.
        None if l2.reason == L2Reason::NoMatchingAdvertisement => String::new(),
        None => "none".to_owned(),
    }
}

/// `10.0.0.0/32 via node-a+node-b to tor-1,tor-2`
fn routes(service: &ServicePlan) -> String {
    let mut hops: BTreeMap<String, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for route in &service.bgp {
        let (nodes, peers) = hops.entry(route.route.prefix.to_string()).or_default();
        nodes.insert(route.node.as_str());
        peers.insert(route.peer.as_str());
    }
    let few = |names: &BTreeSet<&str>, separator: &str, what: &str| match names.len() {
        0..=3 => names.iter().copied().collect::<Vec<_>>().join(separator),
        many => counted(many, what),
    };
    let texts: Vec<String> = hops
        .iter()
        .map(|(prefix, (nodes, peers))| {
            format!("{prefix} via {} to {}", few(nodes, "+", "node"), few(peers, ",", "peer"))
        })
        .collect();
    texts.join("; ")
}

fn pools(plan: &Plan) -> String {
    if plan.pools.is_empty() {
        return "No IPAddressPool is valid.\n".to_owned();
    }
    let mut rows = vec![["POOL", "IPV4 USED", "IPV4 FREE", "IPV6 USED", "IPV6 FREE"].map(str::to_owned)];
    rows.extend(plan.pools.iter().map(|pool| {
        let (v4, v6) = ((pool.assigned_v4, pool.available_v4), (pool.assigned_v6, pool.available_v6));
        // A pool without addresses of a family shows no counters for it.
        let pair = |counters| match counters {
            (0, 0) => ["-".to_owned(), "-".to_owned()],
            (used, free) => [count(used), count(free)],
        };
        let ([v4_used, v4_free], [v6_used, v6_free]) = (pair(v4), pair(v6));
        [pool.name.to_string(), v4_used, v4_free, v6_used, v6_free]
    }));
    columns(&rows)
}

/// Pending Services and Services whose address is not announced, grouped by reason.
fn attention(plan: &Plan, paint: Paint, text: &mut String) {
    let mut groups: Vec<(String, String, Vec<String>)> = Vec::new();
    let mut known: BTreeMap<(String, String), usize> = BTreeMap::new();
    for service in &plan.services {
        let (what, detail) = match service.state {
            AssignmentState::Pending => {
                let refused = service.refused_pools.iter();
                let lines =
                    refused.map(|verdict| format!("\n      pool {} {}", verdict.pool, verdict.refusal.explanation()));
                (format!("is pending: {}", service.reason.message), lines.collect())
            }
            AssignmentState::Assigned if service.bgp.is_empty() && service.l2.iter().all(|l2| l2.node.is_none()) => {
                let why = service.l2.first().map_or("no advertisement matches its pool", |l2| unanswered(l2.reason));
                (format!("address assigned but not announced: {why}"), String::new())
            }
            _ => continue,
        };
        let index = *known.entry((what.clone(), detail.clone())).or_insert_with(|| {
            groups.push((what, detail, Vec::new()));
            groups.len() - 1
        });
        groups[index].2.push(service.key.to_string());
    }
    let lines = groups.iter().map(|(what, detail, names)| match &names[..] {
        [name] => format!("  {} {name} {what}{detail}", paint.odd("-")),
        names => {
            let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
            let rest = names.len().saturating_sub(NAMES_SHOWN);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            format!("  {} {} {what}\n      {shown}{more}{detail}", paint.odd("-"), counted(names.len(), "Service"))
        }
    });
    section("NEEDS ATTENTION", lines, paint, text);
}

const fn unanswered(reason: L2Reason) -> &'static str {
    match reason {
        L2Reason::NoEndpoints => "it has no usable endpoint",
        L2Reason::NoMatchingAdvertisement => {
            "no advertisement matches it, or no node may announce it (see metallb explain)"
        }
        L2Reason::SharedIpWithServiceSelector => {
            "it may share its address, which rules out advertisements with serviceSelectors"
        }
        L2Reason::NoCandidate => "no node may answer for it",
        L2Reason::OwnedForSharingService => "the node that answers for the shared address cannot serve it",
        _ => "see metallb explain",
    }
}

fn problems(plan: &Plan, paint: Paint, text: &mut String) {
    let lines = plan.problems.iter().map(|problem| {
        let label = match problem.severity {
            Severity::Error => paint.bad("error  "),
            Severity::Warning => paint.odd("warning"),
        };
        let place = if problem.field.is_empty() { String::new() } else { format!(" {}", problem.field) };
        // A problem of a file contains the file name in its message.
        if problem.object.kind == "File" {
            format!("  {label} {}", problem.message)
        } else {
            format!("  {label} {}{place}: {}", problem.object, problem.message)
        }
    });
    section("PROBLEMS", lines, paint, text);
}

/// Changes by Service, disruptive ones first.
fn difference(changes: &[Change], paint: Paint, text: &mut String) {
    let mut by_service: BTreeMap<&ServiceKey, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        by_service.entry(&change.service).or_default().push(change);
    }
    let (disrupted, others): (Vec<_>, Vec<_>) =
        by_service.iter().partition(|(_, changes)| changes.iter().any(|change| change.disruptive));
    let lines = disrupted.iter().chain(&others).map(|(service, changes)| {
        let mut block = format!("  {service}");
        let mut counts = BTreeMap::new();
        let mut shown = BTreeSet::new();
        // IPv4 and IPv6 changes of a Service often read the same.
        for change in changes.iter().filter(|change| shown.insert(sentence(change))) {
            let count: &mut usize = counts.entry((change.kind, change.disruptive)).or_default();
            *count += 1;
            if *count <= LINES_PER_KIND {
                let mark = if change.disruptive { paint.bad("!") } else { paint.good("+") };
                let _ = write!(block, "\n    {mark} {}", sentence(change));
            }
        }
        for ((kind, _), count) in counts.iter().filter(|(_, count)| **count > LINES_PER_KIND) {
            let _ = write!(block, "\n      and {} more {}", count - LINES_PER_KIND, plural(*kind));
        }
        block
    });
    section("WHAT WOULD CHANGE", lines, paint, text);
    if changes.is_empty() {
        let _ = write!(text, "\n{}\n  nothing\n", paint.head("WHAT WOULD CHANGE"));
    }
    let _ = write!(text, "\n{}\n", paint.head("DISRUPTED"));
    let names: Vec<String> = disrupted.iter().take(10).map(|(service, _)| service.to_string()).collect();
    let more = disrupted.len() - names.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let _ = match names.len() {
        0 => writeln!(text, "  {}", paint.good("nothing")),
        _ => writeln!(
            text,
            "  {} {}{rest}",
            paint.bad(&format!("connections break for {}:", counted(disrupted.len(), "Service"))),
            names.join(", ")
        ),
    };
}

fn sentence(change: &Change) -> String {
    let (from, to) = (change.from.as_deref(), change.to.as_deref());
    match (change.kind, from, to) {
        (ChangeKind::OwnerMoved, None, Some(to)) => return format!("announced by {to}"),
        (ChangeKind::OwnerMoved, Some(from), None) => return format!("no longer announced (was {from})"),
        _ => {}
    }
    let (from, to) = (from.unwrap_or("nothing"), to.unwrap_or("nothing"));
    match change.kind {
        ChangeKind::IpLost => format!("loses {from}"),
        ChangeKind::IpChanged => format!("gets {to} instead of {from}"),
        ChangeKind::IpGained => format!("gets {to}"),
        ChangeKind::OwnerMoved => format!("announced by {to} instead of {from}"),
        ChangeKind::RouteAdded if change.from.is_some() => format!("route changes from {from} to {to}"),
        ChangeKind::RouteAdded => format!("route added: {to}"),
        ChangeKind::RouteWithdrawn => format!("route withdrawn: {from}"),
        _ => format!("changes from {from} to {to}"),
    }
}

const fn plural(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::IpLost => "addresses lost",
        ChangeKind::IpChanged => "addresses changed",
        ChangeKind::IpGained => "addresses gained",
        ChangeKind::OwnerMoved => "owners moved",
        ChangeKind::RouteAdded => "routes added",
        ChangeKind::RouteWithdrawn => "routes withdrawn",
        _ => "changes",
    }
}

/// A section with a heading, cut after [`LINES_PER_SECTION`]; nothing if there are no lines.
fn section(head: &str, lines: impl Iterator<Item = String>, paint: Paint, text: &mut String) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = write!(text, "\n{}\n", paint.head(head));
    for line in lines.by_ref().take(LINES_PER_SECTION) {
        text.push_str(&line);
        text.push('\n');
    }
    let rest = lines.count();
    if rest > 0 {
        let _ = writeln!(text, "  … and {rest} more (-o json has all)");
    }
}

/// Saturated counters are not printed as digits.
fn count(value: i64) -> String {
    if value > i64::MAX / 2 { "unlimited".to_owned() } else { value.to_string() }
}

/// Lines per section before the rest is only counted.
const LINES_PER_SECTION: usize = 40;

/// Services per line before the rest is only counted.
const NAMES_SHOWN: usize = 5;

/// Changes of one kind per Service before the rest is only counted.
const LINES_PER_KIND: usize = 4;
