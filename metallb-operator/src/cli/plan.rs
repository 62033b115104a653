//! `metallb plan`: what would happen, and what a change would do, before anything is applied.

use std::collections::BTreeSet;
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
#[command(
    after_help = "Examples:\n  metallb plan -f manifests/\n  metallb plan -f manifests/ --without-node node-1\n  metallb plan --change new-pool.yaml          # the cluster of the current kubeconfig, and what the file would change\n  kubectl get -A -o yaml svc,endpointslices,nodes,ns,ipaddresspools,l2advertisements,bgpadvertisements,bgppeers | metallb plan -f - -o json\n\nExit codes: 0 nothing disrupted, 2 something would be disrupted, 1 invalid input"
)]
pub struct PlanArgs {
    #[command(flatten)]
    facts: FactsArgs,
    /// Manifests to apply over the present state; the difference is shown
    #[arg(long, value_name = "PATH")]
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

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// There is nothing to plan with.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The plan cannot be shown.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// `--delete` names nothing.
    #[error("--delete {0}: there is no such object")]
    NothingToDelete(String),
    /// `--without-node` names nothing.
    #[error("--without-node {0}: there is no such node")]
    UnknownNode(NodeName),
}

/// What is printed for programs.
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
    /// What was given cannot be read or names nothing, or the result cannot be printed.
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
        self.facts.note_strays(&manifests);
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
