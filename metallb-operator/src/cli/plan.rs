//! `metallb plan`: shows assignments and announcements, and the effects of a change, before anything is applied.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;

use metallb_core::model::NodeName;
use metallb_core::plan::{Change, Plan, diff};
use serde::Serialize;
use thiserror::Error;

use super::facts::{FactsArgs, FactsError};
use super::output::{Output, OutputError};
use crate::source::manifests::ObjectId;

mod table;

/// Arguments of `metallb plan`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        metallb plan                             # the cluster of the kubeconfig\n  \
        metallb plan --change new-pool.yaml      # effects of the file on the cluster\n  \
        metallb plan -f manifests/ --without-node node-1\n  \
        kubectl get -A -o yaml svc,endpointslices,nodes,ns >cluster.yaml\n  \
        metallb plan -f cluster.yaml -f manifests/ -o json\n\n\
        Exit codes: 0 nothing disrupted, 2 something would be disrupted, 1 invalid input")]
pub struct PlanArgs {
    #[command(flatten)]
    facts: FactsArgs,
    /// Manifests to apply over the present state; shows the difference
    #[arg(long, value_name = "PATH")]
    change: Vec<PathBuf>,
    /// Plan without this node; shows the difference
    #[arg(long, value_name = "NODE")]
    without_node: Vec<String>,
    /// Plan without this object; shows the difference
    #[arg(long, value_name = "KIND/NAMESPACE/NAME")]
    delete: Vec<ObjectId>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
    /// Rejects a path without `-f`, with a hint
    #[arg(hide = true, value_name = "PATH", value_parser = path_without_flag)]
    _path: Option<Infallible>,
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The facts cannot be read.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The plan cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// No object has the name given with `--delete`.
    #[error("--delete {0}: there is no such object")]
    NothingToDelete(String),
    /// No node has the name given with `--without-node`.
    #[error("--without-node {0}: there is no such node")]
    UnknownNode(NodeName),
}

/// The output as JSON or YAML.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<&'a [Change]>,
}

impl PlanArgs {
    /// Plans and prints the result.
    ///
    /// # Errors
    /// The facts cannot be read, a name matches nothing, or the result cannot be printed.
    pub fn run(self) -> Result<ExitCode, PlanError> {
        let mut manifests = self.facts.read()?;
        let before = self.facts.plan(&mut manifests, &BTreeSet::new(), None);
        let changed = !(self.change.is_empty() && self.without_node.is_empty() && self.delete.is_empty());
        let (plan, changes) = if changed {
            let gone: BTreeSet<NodeName> = self.without_node.iter().map(|name| name.as_str().into()).collect();
            let (known, _) = self.facts.world(&mut manifests, &BTreeSet::new());
            if let Some(unknown) = gone.iter().find(|name| !known.cluster.nodes.contains_key(*name)) {
                return Err(PlanError::UnknownNode(unknown.clone()));
            }
            manifests.apply(self.facts.read_files(&self.change)?);
            for id in &self.delete {
                if !manifests.delete(id) {
                    return Err(PlanError::NothingToDelete(id.to_string()));
                }
            }
            let after = self.facts.plan(&mut manifests, &gone, Some(&before));
            let changes = diff(&before, &after);
            (after, Some(changes))
        } else {
            (before, None)
        };
        self.facts.note_ignored(&manifests);
        let printed = Printed { plan: &plan, changes: changes.as_deref() };
        self.output.print(&printed, |paint| table::table(&plan, changes.as_deref(), manifests.skipped(), paint))?;
        let disrupted = changes.iter().flatten().any(|change| change.disruptive);
        Ok(match (plan.has_errors(), disrupted) {
            (true, _) => ExitCode::from(1),
            (false, true) => ExitCode::from(2),
            (false, false) => ExitCode::SUCCESS,
        })
    }
}

fn path_without_flag(path: &str) -> Result<Infallible, String> {
    Err(format!("manifests need a flag: use `-f {path}`"))
}
