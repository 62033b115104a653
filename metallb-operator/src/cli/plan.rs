//! `metallb plan`: what would happen, and what a change would do, before anything is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use metallb_core::assignment::AssignmentState;
use metallb_core::config::{Problem, Severity};
use metallb_core::election::{ElectionRules, LiveSpeakers};
use metallb_core::model::{Endpoint, Ingress, Node, NodeName, ServiceKey};
use metallb_core::plan::{Change, Plan, PlanOptions, ServicePlan, diff, plan};
use serde::Serialize;
use thiserror::Error;

use crate::manifests::{Manifests, ObjectId, ReadError};
use crate::world::World;

/// Arguments of `metallb plan`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  metallb plan -f manifests/\n  kubectl get -A -o yaml svc,endpointslices,nodes,ns,ipaddresspools,l2advertisements,bgpadvertisements,bgppeers | metallb plan -f - --change new-pool.yaml\n  metallb plan -f manifests/ --without-node node-1\n\nExit codes: 0 nothing disrupted, 2 something would be disrupted, 1 invalid input"
)]
pub struct PlanArgs {
    #[command(flatten)]
    facts: FactsArgs,
    /// Manifests to apply over the present state; the difference is shown
    #[arg(long, value_name = "FILE")]
    change: Vec<PathBuf>,
    /// Plan without this node; the difference is shown
    #[arg(long, value_name = "NODE")]
    without_node: Vec<String>,
    /// Plan without this object; the difference is shown
    #[arg(long, value_name = "KIND/NAMESPACE/NAME")]
    delete: Vec<ObjectId>,
    /// What to print
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
}

/// Where the facts of `plan` and `explain` come from.
#[derive(Clone, Debug, clap::Args)]
pub struct FactsArgs {
    /// Manifests: a file, a directory, or - for standard input
    #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Names of nodes, where there are no Node objects
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    nodes: Vec<String>,
    /// Give every Service without endpoints a ready endpoint on every node
    #[arg(long)]
    assume_endpoints: bool,
    /// Plan for this loadBalancerClass
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CLASS")]
    lb_class: String,
    /// Announce from nodes with the exclude label too
    #[arg(long)]
    ignore_exclude_lb: bool,
}

/// How to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Manifests cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The result cannot be printed.
    #[error("the plan can't be printed")]
    Print(#[from] std::io::Error),
    /// The result cannot be serialised.
    #[error("the plan can't be serialised: {0}")]
    Serialise(String),
    /// `--delete` names nothing.
    #[error("--delete {0}: there is no such object")]
    NothingToDelete(String),
}

#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<&'a [Change]>,
}

impl PlanArgs {
    /// Plans and prints.
    ///
    /// # Errors
    /// What was given cannot be read, or the result cannot be printed.
    pub fn run(self) -> Result<ExitCode, PlanError> {
        let mut manifests = Manifests::read(&self.facts.files)?;
        let before = self.facts.plan(&mut manifests, &BTreeSet::new(), None);
        let changed = !(self.change.is_empty() && self.without_node.is_empty() && self.delete.is_empty());
        let (plan, changes) = if changed {
            manifests.apply(Manifests::read(&self.change)?);
            for id in &self.delete {
                if !manifests.delete(id) {
                    return Err(PlanError::NothingToDelete(format!("{}/{}/{}", id.kind, id.namespace, id.name)));
                }
            }
            let gone = self.without_node.iter().map(|name| name.as_str().into()).collect();
            let after = self.facts.plan(&mut manifests, &gone, Some(&before));
            let changes = diff(&before, &after);
            (after, Some(changes))
        } else {
            (before, None)
        };
        let printed = Printed { plan: &plan, changes: changes.as_deref() };
        let text = match self.output {
            Output::Table => table(&plan, changes.as_deref(), std::io::stdout().is_terminal()),
            Output::Json => {
                serde_json::to_string(&printed).map_err(|error| PlanError::Serialise(error.to_string()))? + "\n"
            }
            Output::Yaml => {
                serde_saphyr::to_string(&printed).map_err(|error| PlanError::Serialise(error.to_string()))?
            }
        };
        std::io::stdout().write_all(text.as_bytes())?;
        let disrupted = changes.iter().flatten().any(|change| change.disruptive);
        Ok(match (plan.has_errors(), disrupted) {
            (true, _) => ExitCode::from(1),
            (false, true) => ExitCode::from(2),
            (false, false) => ExitCode::SUCCESS,
        })
    }
}

impl FactsArgs {
    /// Reads everything.
    ///
    /// # Errors
    /// A path cannot be read.
    pub fn read(&self) -> Result<Manifests, ReadError> {
        Manifests::read(&self.files)
    }

    /// Plans what `manifests` say, without the nodes in `gone`. Services that got addresses in the plan `before` hold them: by
    /// the time of a change they will be in their status.
    #[must_use]
    pub fn plan(&self, manifests: &mut Manifests, gone: &BTreeSet<NodeName>, before: Option<&Plan>) -> Plan {
        let (mut world, problems) = self.world(manifests, gone);
        for service in before.iter().flat_map(|plan| &plan.services) {
            let key = ServiceKey::new(&service.namespace, &service.name);
            if let Some(known) = world.cluster.services.get_mut(&key).filter(|known| known.ingress.is_empty()) {
                let ingress = |ip: &IpAddr| Ingress { ip: Some(ip.to_string()), hostname: None };
                known.ingress = service.ips.iter().map(ingress).collect();
            }
        }
        let mut result = plan(&world.resources, &world.cluster, &world.order, &self.options());
        result.problems.extend(problems);
        result
    }

    /// What the flags say that a plan should assume.
    #[must_use]
    pub fn options(&self) -> PlanOptions {
        PlanOptions {
            class: Some(self.lb_class.clone()).filter(|class| !class.is_empty()),
            rules: ElectionRules { live: LiveSpeakers::EveryNode, ignore_exclude_label: self.ignore_exclude_lb },
            threads: std::thread::available_parallelism().ok(),
        }
    }

    /// The facts that `manifests` and the flags give, without the nodes in `gone`.
    pub(super) fn world(&self, manifests: &mut Manifests, gone: &BTreeSet<NodeName>) -> (World, Vec<Problem>) {
        let (mut world, problems) = manifests.world();
        let cluster = &mut world.cluster;
        if cluster.nodes.is_empty() {
            for name in &self.nodes {
                let mut node = Node::new(name);
                node.labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
                cluster.nodes.insert(node.name.clone(), node);
            }
        }
        cluster.nodes.retain(|name, _| !gone.contains(name));
        for endpoints in cluster.endpoints.values_mut() {
            endpoints.retain(|endpoint| endpoint.node.as_ref().is_none_or(|node| !gone.contains(node)));
        }
        if self.assume_endpoints {
            let everywhere: Vec<Endpoint> = cluster
                .nodes
                .keys()
                .map(|node| Endpoint { has_address: true, node: Some(node.clone()), ready: Some(true), serving: None })
                .collect();
            for key in cluster.services.keys() {
                cluster.endpoints.entry(key.clone()).or_insert_with(|| everywhere.clone());
            }
        }
        (world, problems)
    }
}

fn table(plan: &Plan, changes: Option<&[Change]>, color: bool) -> String {
    let mut rows = vec![["SERVICE", "STATE", "POOL", "IPS", "ANSWERS (L2)", "ROUTES (BGP)"].map(str::to_owned)];
    rows.extend(plan.services.iter().filter(|service| service.state != AssignmentState::Ignored).map(row));
    let mut text = render(&rows);
    let ignored = plan.services.iter().filter(|service| service.state == AssignmentState::Ignored).count();
    if ignored > 0 {
        let _ = writeln!(text, "({ignored} Services are not ours: another type or another load balancer class)");
    }
    for service in plan.services.iter().filter(|service| service.state == AssignmentState::Pending) {
        let _ = writeln!(text, "\n{}/{} waits: {}", service.namespace, service.name, service.reason.message);
        for verdict in &service.refused_pools {
            let _ = writeln!(text, "  pool {} {}", verdict.pool, verdict.refusal.explanation());
        }
    }
    let mut rows = vec![["POOL", "IPV4 USED", "IPV4 FREE", "IPV6 USED", "IPV6 FREE"].map(str::to_owned)];
    rows.extend(plan.pools.iter().map(|pool| {
        [
            pool.name.to_string(),
            pool.assigned_v4.to_string(),
            pool.available_v4.to_string(),
            pool.assigned_v6.to_string(),
            count(pool.available_v6),
        ]
    }));
    text.push('\n');
    text.push_str(&render(&rows));
    if !plan.problems.is_empty() {
        text.push_str("\nPROBLEMS\n");
    }
    for problem in &plan.problems {
        let (label, tint) = match problem.severity {
            Severity::Error => ("error  ", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let _ = writeln!(text, "  {} {problem}", painted(label, tint, color));
    }
    if let Some(changes) = changes {
        text.push_str(&changes_text(changes, color));
    }
    text
}

fn row(service: &ServicePlan) -> [String; 6] {
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let ips = service.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let owner = service.l2.first().and_then(|l2| {
        let on = l2.interfaces.iter().map(metallb_core::model::InterfaceName::as_str).collect::<Vec<_>>().join(",");
        l2.node.as_ref().map(|node| if on.is_empty() { node.to_string() } else { format!("{node} ({on})") })
    });
    let mut hops: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let prefixes: Vec<(String, &str, &str)> =
        service.bgp.iter().map(|route| (route.prefix.to_string(), route.node.as_str(), route.peer.as_str())).collect();
    for (prefix, node, _) in &prefixes {
        hops.entry(prefix).or_default().insert(node);
    }
    let peers: BTreeSet<&str> = prefixes.iter().map(|(_, _, peer)| *peer).collect();
    let mut routes: Vec<String> = hops
        .iter()
        .map(|(prefix, nodes)| match nodes.len() {
            0..=3 => format!("{prefix} via {}", nodes.iter().copied().collect::<Vec<_>>().join("+")),
            many => format!("{prefix} via {many} nodes"),
        })
        .collect();
    if !peers.is_empty() {
        routes.push(format!("to {}", peers.into_iter().collect::<Vec<_>>().join(",")));
    }
    [
        format!("{}/{}", service.namespace, service.name),
        match service.state {
            AssignmentState::Assigned => "assigned".to_owned(),
            AssignmentState::Pending => "pending".to_owned(),
            AssignmentState::Ignored => "ignored".to_owned(),
        },
        dash(service.pool.as_ref().map(ToString::to_string).unwrap_or_default()),
        dash(ips),
        owner.unwrap_or_else(|| {
            dash(service.l2.first().map(|l2| format!("nobody: {}", l2.reason.as_str())).unwrap_or_default())
        }),
        dash(routes.join(", ")),
    ]
}

fn changes_text(changes: &[Change], color: bool) -> String {
    let mut text = String::from("\nWHAT WOULD CHANGE\n");
    for change in changes {
        let kind = serde_json::to_value(change.kind)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default();
        let arrow = match (&change.from, &change.to) {
            (Some(from), Some(to)) => format!("{from} -> {to}"),
            (Some(from), None) => format!("{from} -> none"),
            (None, Some(to)) => format!("none -> {to}"),
            (None, None) => String::new(),
        };
        let mark = if change.disruptive { painted("!", RED, color) } else { painted("+", GREEN, color) };
        let _ = writeln!(text, "  {mark} {}  {kind}  {arrow}", change.service);
    }
    let hurt: BTreeSet<&str> =
        changes.iter().filter(|change| change.disruptive).map(|change| change.service.as_str()).collect();
    let _ = match (changes.len(), hurt.len()) {
        (0, _) => writeln!(text, "  nothing"),
        (_, 0) => writeln!(text, "Nobody is disrupted."),
        (_, count) => {
            let names = hurt.iter().take(10).copied().collect::<Vec<_>>().join(", ");
            let more = if count > 10 { format!(" and {} more", count - 10) } else { String::new() };
            writeln!(text, "Connections break for {count} Service(s): {names}{more}")
        }
    };
    text
}

/// Columns as wide as their widest cell, two blanks between.
pub(super) fn render<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Numbers that stand for "more than can be counted" are not printed as digits.
fn count(value: i64) -> String {
    if value > i64::MAX / 2 { "unlimited".to_owned() } else { value.to_string() }
}

fn painted(text: &str, tint: &str, color: bool) -> String {
    if color { format!("\x1b[{tint}m{text}\x1b[0m") } else { text.to_owned() }
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
