//! An explanation as text.

use std::fmt::Write as _;

use metallb_core::assignment::AssignmentState;
use metallb_core::model::{InterfaceName, NodeName};
use metallb_core::plan::{AddressExplanation, Explanation, L2Plan, MissingReason, RoutePlan, candidate_text};
use metallb_core::routes::BgpReason;

use crate::cli::output::{Paint, clause, counted};

/// Explains one Service: its address, the node that answers, its routes, and missing objects.
pub(super) fn of_service(explanation: &Explanation, paint: Paint) -> String {
    let service = &explanation.service;
    let name = &service.key;
    let mut text = String::new();
    let ips = service.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let _ = match (service.state, &service.pool) {
        (AssignmentState::Assigned, Some(pool)) => writeln!(text, "{name} has {ips} from pool {pool}."),
        (AssignmentState::Assigned, None) => writeln!(text, "{name} has {ips}."),
        (AssignmentState::Pending, _) => writeln!(text, "{name} is pending."),
        (AssignmentState::Ignored, _) => writeln!(text, "{name} is ignored."),
    };
    let _ = writeln!(text, "  {} ({})", service.reason.message, service.reason.code.as_str());
    for verdict in &service.refused_pools {
        let _ = writeln!(text, "  pool {} {}", verdict.pool, verdict.refusal.explanation());
    }
    if let Some(l2) = service.l2.first() {
        let _ = write!(text, "\n{}\n", paint.head("L2 (ARP, NDP)"));
        owner(l2, &mut text);
    }
    if !explanation.routing.is_empty() {
        let _ = write!(text, "\n{}\n", paint.head("BGP"));
        routes(explanation, &mut text);
    }
    let announced = !service.bgp.is_empty() || service.l2.iter().any(|l2| l2.node.is_some());
    let unused = |code| matches!(code, MissingReason::L2Advertisement | MissingReason::BgpAdvertisement);
    // One kind of advertisement is enough: the other one is not missing, only unused.
    let (unused, missing): (Vec<_>, Vec<_>) =
        explanation.missing.iter().partition(|missing| announced && unused(missing.code));
    for (head, list) in [(paint.bad("MISSING"), missing), (paint.head("NOT USED"), unused)] {
        if !list.is_empty() {
            let _ = write!(text, "\n{head}\n");
        }
        for missing in list {
            let _ = writeln!(text, "  {}", missing.message);
        }
    }
    text
}

/// Explains one address: its Service, the node that answers, its routes.
pub(super) fn of_address(explanation: &AddressExplanation<'_>) -> String {
    let ip = explanation.ip;
    let mut text = String::new();
    let pools = explanation.pools.iter().map(|pool| format!("pool {pool}")).collect::<Vec<_>>().join(", ");
    let holders = explanation.holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let _ = match (holders.is_empty(), pools.is_empty()) {
        (false, false) => writeln!(text, "{ip} of {pools} belongs to {holders}."),
        (false, true) => writeln!(text, "{ip} belongs to {holders}."),
        (true, false) => writeln!(text, "{ip} is in {pools}; unassigned."),
        (true, true) => writeln!(text, "{ip} is in no pool; unassigned."),
    };
    for claimant in &explanation.claimants {
        let _ = writeln!(
            text,
            "  {claimant} shows it in its status, but metallb did not assign it (see metallb explain {claimant})"
        );
    }
    for (holder, l2) in explanation.holders.iter().zip(&explanation.l2) {
        let _ = match &l2.node {
            Some(node) => writeln!(text, "  {node} answers for {holder}{}", on(&l2.interfaces)),
            None => writeln!(text, "  not announced for {holder}: {}", clause(l2.reason.meaning())),
        };
    }
    for route in &explanation.routes {
        let _ = writeln!(text, "  {} offers {} to peer {}", route.node, route.route.prefix, route.peer);
    }
    text
}

fn owner(l2: &L2Plan, text: &mut String) {
    let _ = match &l2.node {
        Some(node) => writeln!(text, "  {node} answers{}", on(&l2.interfaces)),
        None => writeln!(text, "  not announced: {}", clause(l2.reason.meaning())),
    };
    if !l2.successors.is_empty() {
        let next = l2.successors.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", then ");
        let _ = writeln!(text, "  if it fails: {next}");
    }
    let is_shown = |node: &NodeName| Some(node) == l2.node.as_ref() || l2.successors.contains(node);
    let others = l2.candidates.iter().filter(|candidate| !is_shown(&candidate.node));
    for (reason, nodes) in by_reason(others.map(|candidate| (candidate.reason, candidate.node.as_str()))) {
        let _ = writeln!(text, "  {nodes}: {}", candidate_text(reason));
    }
}

fn routes(explanation: &Explanation, text: &mut String) {
    for plan in &explanation.service.bgp {
        let RoutePlan { node, peer, route, .. } = plan;
        let line = format!("  {node} offers {} to peer {peer} {}", route.prefix, plan.attributes());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let without_route = explanation.routing.iter().filter(|routing| routing.reason != BgpReason::Advertised);
    for (reason, nodes) in by_reason(without_route.map(|routing| (routing.reason, routing.node.as_str()))) {
        let _ = writeln!(text, "  no route from {nodes}: {}", clause(reason.meaning()));
    }
}

/// Groups nodes by reason; a long list of nodes is counted.
fn by_reason<'a, R: Copy + PartialEq>(nodes: impl Iterator<Item = (R, &'a str)>) -> Vec<(R, String)> {
    let mut groups: Vec<(R, Vec<&str>)> = Vec::new();
    for (reason, node) in nodes {
        match groups.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, names)) => names.push(node),
            None => groups.push((reason, vec![node])),
        }
    }
    let shown = |names: Vec<&str>| match names.len() {
        0..=NAMES_SHOWN => names.join(", "),
        many => format!("{} and {}", names[..NAMES_SHOWN].join(", "), counted(many - NAMES_SHOWN, "more node")),
    };
    groups.into_iter().map(|(reason, names)| (reason, shown(names))).collect()
}

fn on(interfaces: &[InterfaceName]) -> String {
    if interfaces.is_empty() {
        return " on all interfaces".to_owned();
    }
    format!(" on {}", interfaces.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(", "))
}

/// Further nodes are counted only.
const NAMES_SHOWN: usize = 8;
