//! `metallb explain`: the story of one Service or one address.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr;

use metallb_core::assignment::AssignmentState;
use metallb_core::model::{InterfaceName, ServiceKey};
use metallb_core::plan::{AddressExplanation, Explanation, L2Plan, candidate_text, explain, explain_address};
use metallb_core::routes::BgpReason;
use serde::Serialize;
use thiserror::Error;

use super::plan::{FactsArgs, Output};
use crate::manifests::ReadError;

/// Arguments of `metallb explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  metallb explain -f manifests/ default/web\n  kubectl get -A -o yaml svc,endpointslices,nodes,ns,ipaddresspools,l2advertisements,bgpadvertisements,bgppeers | metallb explain -f - default/web\n  metallb explain -f manifests/ --ip 192.168.10.7"
)]
pub struct ExplainArgs {
    #[command(flatten)]
    facts: FactsArgs,
    /// The Service
    #[arg(value_name = "NAMESPACE/NAME", required_unless_present = "ip")]
    service: Option<ServiceName>,
    /// Explain an address: who has it, who answers for it, which routes carry it
    #[arg(long, value_name = "IP", conflicts_with = "service")]
    ip: Option<IpAddr>,
    /// What to print
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
}

/// `NAMESPACE/NAME` on the command line; `NAME` alone is in the namespace `default`.
#[derive(Clone, Debug)]
struct ServiceName(ServiceKey);

impl FromStr for ServiceName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        Ok(Self(ServiceKey::new(namespace, name)))
    }
}

/// Why there is no explanation.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// Manifests cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The Service is not among the manifests.
    #[error("there is no Service {0}")]
    UnknownService(ServiceKey),
    /// The result cannot be printed.
    #[error("the explanation can't be printed")]
    Print(#[from] std::io::Error),
    /// The result cannot be serialised.
    #[error("the explanation can't be serialised: {0}")]
    Serialise(String),
}

impl ExplainArgs {
    /// Explains and prints.
    ///
    /// # Errors
    /// What was given cannot be read or names nothing, or the result cannot be printed.
    pub fn run(self) -> Result<ExitCode, ExplainError> {
        let mut manifests = self.facts.read()?;
        let text = if let Some(ip) = self.ip {
            let ip = metallb_core::address::canonical(ip);
            let plan = self.facts.plan(&mut manifests, &BTreeSet::new(), None);
            let (world, _) = self.facts.world(&mut manifests, &BTreeSet::new());
            let explanation = explain_address(&plan, &world.resources, &world.cluster, ip);
            self.print(&explanation, || address_story(&explanation))?
        } else {
            let ServiceName(key) =
                self.service.as_ref().ok_or_else(|| ExplainError::UnknownService(ServiceKey::new("", "")))?;
            let (world, _) = self.facts.world(&mut manifests, &BTreeSet::new());
            let explanation = explain(&world.resources, &world.cluster, &world.order, &self.facts.options(), key)
                .ok_or_else(|| ExplainError::UnknownService(key.clone()))?;
            self.print(&explanation, || service_story(&explanation))?
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, data: &impl Serialize, story: impl FnOnce() -> String) -> Result<String, ExplainError> {
        match self.output {
            Output::Table => Ok(story()),
            Output::Json => serde_json::to_string_pretty(data)
                .map(|text| text + "\n")
                .map_err(|error| ExplainError::Serialise(error.to_string())),
            Output::Yaml => serde_saphyr::to_string(data).map_err(|error| ExplainError::Serialise(error.to_string())),
        }
    }
}

fn service_story(explanation: &Explanation) -> String {
    let service = &explanation.service;
    let mut text = String::new();
    let ips = service.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let _ = match (service.state, &service.pool) {
        (AssignmentState::Assigned, Some(pool)) => {
            writeln!(text, "{}/{} has {ips} from pool {pool}.", service.namespace, service.name)
        }
        (AssignmentState::Assigned, None) => writeln!(text, "{}/{} has {ips}.", service.namespace, service.name),
        (AssignmentState::Pending, _) => writeln!(text, "{}/{} waits for an address.", service.namespace, service.name),
        (AssignmentState::Ignored, _) => writeln!(text, "{}/{} is not ours.", service.namespace, service.name),
    };
    let _ = writeln!(text, "  {}: {}", service.reason.code.as_str(), service.reason.message);
    for verdict in &service.refused_pools {
        let _ = writeln!(text, "  pool {} {}", verdict.pool, verdict.refusal.explanation());
    }
    if let Some(l2) = service.l2.first() {
        text.push_str("\nL2 (ARP, NDP)\n");
        l2_story(l2, &mut text);
    }
    if !explanation.routing.is_empty() {
        text.push_str("\nBGP\n");
        routes_story(explanation, &mut text);
    }
    if !explanation.missing.is_empty() {
        text.push_str("\nMISSING\n");
        for missing in &explanation.missing {
            let _ = writeln!(text, "  {}", missing.message);
        }
    }
    text
}

fn l2_story(l2: &L2Plan, text: &mut String) {
    let _ = match &l2.node {
        Some(node) => writeln!(text, "  {node} answers{}", on(&l2.interfaces)),
        None => writeln!(text, "  nobody answers: {}", sentence(metallb_core::election::L2Reason::ALL, l2.reason)),
    };
    if !l2.successors.is_empty() {
        let next = l2.successors.iter().map(metallb_core::model::NodeName::as_str).collect::<Vec<_>>().join(", then ");
        let _ = writeln!(text, "  if it fails: {next}");
    }
    for candidate in l2.candidates.iter().filter(|candidate| Some(&candidate.node) != l2.node.as_ref()) {
        let _ = writeln!(text, "  {} {}", candidate.node, candidate_text(candidate.reason));
    }
}

fn routes_story(explanation: &Explanation, text: &mut String) {
    for route in &explanation.service.bgp {
        let communities: Vec<&str> =
            route.communities.iter().chain(&route.large_communities).map(String::as_str).collect();
        let tags =
            if communities.is_empty() { String::new() } else { format!(", communities {}", communities.join(" ")) };
        let _ = writeln!(
            text,
            "  {} offers {} to peer {} (local preference {}{tags})",
            route.node, route.prefix, route.peer, route.local_pref
        );
    }
    for routing in explanation.routing.iter().filter(|routing| routing.reason != BgpReason::Advertised) {
        let _ = writeln!(text, "  {} offers nothing: {}", routing.node, sentence(BgpReason::ALL, routing.reason));
    }
}

fn address_story(explanation: &AddressExplanation<'_>) -> String {
    let ip = explanation.ip;
    let mut text = String::new();
    let pools = explanation.pools.iter().map(|pool| format!("pool {pool}")).collect::<Vec<_>>().join(", ");
    let _ = match (explanation.holders.is_empty(), pools.is_empty()) {
        (false, false) => writeln!(text, "{ip} of {pools} belongs to {}.", explanation.holders.join(" and ")),
        (false, true) => writeln!(text, "{ip} belongs to {}.", explanation.holders.join(" and ")),
        (true, false) => writeln!(text, "{ip} lies in {pools}; nobody has it."),
        (true, true) => writeln!(text, "{ip} lies in no pool; nobody has it."),
    };
    for (holder, l2) in explanation.holders.iter().zip(&explanation.l2) {
        let _ = match &l2.node {
            Some(node) => writeln!(text, "  {node} answers for {holder}{}", on(&l2.interfaces)),
            None => writeln!(
                text,
                "  nobody answers for {holder}: {}",
                sentence(metallb_core::election::L2Reason::ALL, l2.reason)
            ),
        };
    }
    for route in &explanation.routes {
        let _ = writeln!(text, "  {} offers {} to peer {}", route.node, route.prefix, route.peer);
    }
    text
}

fn on(interfaces: &[InterfaceName]) -> String {
    if interfaces.is_empty() {
        return " on all interfaces".to_owned();
    }
    format!(" on {}", interfaces.iter().map(metallb_core::model::InterfaceName::as_str).collect::<Vec<_>>().join(", "))
}

/// The sentence that belongs to a reason.
fn sentence<R: Copy + PartialEq>(all: &[(R, &'static str)], reason: R) -> &'static str {
    all.iter().find(|(other, _)| *other == reason).map_or("", |(_, text)| text)
}
