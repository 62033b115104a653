//! An explanation as a story for people.

use std::fmt::Write as _;

use metallb_core::assignment::AssignmentState;
use metallb_core::model::{InterfaceName, NodeName};
use metallb_core::plan::{AddressExplanation, Explanation, L2Plan, MissingReason, RoutePlan, candidate_text};
use metallb_core::routes::BgpReason;

use crate::cli::output::{Paint, counted};

/// The story of one Service: its address, who answers, which routes, and what is missing.
pub(super) fn of_service(explanation: &Explanation, paint: Paint) -> String {
    let service = &explanation.service;
    let name = &service.key;
    let mut text = String::new();
    let ips = service.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let _ = match (service.state, &service.pool) {
        (AssignmentState::Assigned, Some(pool)) => writeln!(text, "{name} has {ips} from pool {pool}."),
        (AssignmentState::Assigned, None) => writeln!(text, "{name} has {ips}."),
        (AssignmentState::Pending, _) => writeln!(text, "{name} waits for an address."),
        (AssignmentState::Ignored, _) => writeln!(text, "{name} is not ours."),
    };
    let _ = writeln!(text, "  {} ({})", service.reason.message, service.reason.code.as_str());
    for verdict in &service.refused_pools {
        let _ = writeln!(text, "  pool {} {}", verdict.pool, verdict.refusal.explanation());
    }
    if let Some(l2) = service.l2.first() {
        let _ = write!(text, "\n{}\n", paint.head("L2 (ARP, NDP)"));
        answering(l2, &mut text);
    }
    if !explanation.routing.is_empty() {
        let _ = write!(text, "\n{}\n", paint.head("BGP"));
        routes(explanation, &mut text);
    }
    let announced = !service.bgp.is_empty() || service.l2.iter().any(|l2| l2.node.is_some());
    let unused = |code| matches!(code, MissingReason::L2Advertisement | MissingReason::BgpAdvertisement);
    // One way to announce an address is enough: the other one is not missing, only not used.
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

/// The story of one address: who has it, who answers for it, which routes carry it.
pub(super) fn of_address(explanation: &AddressExplanation<'_>) -> String {
    let ip = explanation.ip;
    let mut text = String::new();
    let pools = explanation.pools.iter().map(|pool| format!("pool {pool}")).collect::<Vec<_>>().join(", ");
    let holders = explanation.holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let _ = match (holders.is_empty(), pools.is_empty()) {
        (false, false) => writeln!(text, "{ip} of {pools} belongs to {holders}."),
        (false, true) => writeln!(text, "{ip} belongs to {holders}."),
        (true, false) => writeln!(text, "{ip} lies in {pools}; nobody has it."),
        (true, true) => writeln!(text, "{ip} lies in no pool; nobody has it."),
    };
    for claimant in &explanation.claimants {
        let _ = writeln!(text, "  {claimant} has it in its status, but not from us (metallb explain {claimant})");
    }
    for (holder, l2) in explanation.holders.iter().zip(&explanation.l2) {
        let _ = match &l2.node {
            Some(node) => writeln!(text, "  {node} answers for {holder}{}", on(&l2.interfaces)),
            None => writeln!(text, "  nobody answers for {holder}: {}", l2.reason.meaning()),
        };
    }
    for route in &explanation.routes {
        let _ = writeln!(text, "  {} offers {} to peer {}", route.node, route.route.prefix, route.peer);
    }
    text
}

fn answering(l2: &L2Plan, text: &mut String) {
    let _ = match &l2.node {
        Some(node) => writeln!(text, "  {node} answers{}", on(&l2.interfaces)),
        None => writeln!(text, "  nobody answers: {}", l2.reason.meaning()),
    };
    if !l2.successors.is_empty() {
        let next = l2.successors.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", then ");
        let _ = writeln!(text, "  if it fails: {next}");
    }
    let told = |node: &NodeName| Some(node) == l2.node.as_ref() || l2.successors.contains(node);
    let others = l2.candidates.iter().filter(|candidate| !told(&candidate.node));
    for (reason, nodes) in by_reason(others.map(|candidate| (candidate.reason, candidate.node.as_str()))) {
        let _ = writeln!(text, "  {nodes}: {}", candidate_text(reason));
    }
}

fn routes(explanation: &Explanation, text: &mut String) {
    for RoutePlan { node, peer, route } in &explanation.service.bgp {
        let communities: Vec<String> = route.communities.iter().map(ToString::to_string).collect();
        let tags =
            if communities.is_empty() { String::new() } else { format!(", communities {}", communities.join(" ")) };
        let _ = writeln!(
            text,
            "  {node} offers {} to peer {peer} (local preference {}{tags})",
            route.prefix,
            route.effective_local_pref()
        );
    }
    let silent = explanation.routing.iter().filter(|routing| routing.reason != BgpReason::Advertised);
    for (reason, nodes) in by_reason(silent.map(|routing| (routing.reason, routing.node.as_str()))) {
        let _ = writeln!(text, "  nothing from {nodes}: {}", reason.meaning());
    }
}

/// Nodes by what is said of them; many nodes are counted.
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

/// Beyond, nodes are only counted.
const NAMES_SHOWN: usize = 8;
