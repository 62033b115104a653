//! `metallb explain`: explains one Service or one address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr;

use metallb_core::config::{Problem, Severity};
use metallb_core::model::{Cluster, ServiceKey};
use metallb_core::plan::{explain, explain_address};
use thiserror::Error;

use super::facts::{FactsArgs, FactsError};
use super::output::{Output, OutputError};
use crate::source::manifests::{Manifests, ObjectId};

mod explanation;

/// Arguments of `metallb explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        metallb explain default/web              # in the cluster of the kubeconfig\n  \
        metallb explain -f manifests/ default/web\n  \
        metallb explain --ip 192.168.10.7")]
pub struct ExplainArgs {
    #[command(flatten)]
    facts: FactsArgs,
    /// The Service
    #[arg(value_name = "NAMESPACE/NAME", required_unless_present = "ip")]
    service: Option<ServiceName>,
    /// Explain an address: which Service has it, which node answers for it, which routes carry it
    #[arg(long, value_name = "IP", conflicts_with = "service")]
    ip: Option<IpAddr>,
    /// Output format
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

/// Why nothing can be explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// The facts cannot be read.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// No such Service exists.
    #[error("there is no Service {name}{}", hint(.similar))]
    UnknownService {
        /// The name on the command line.
        name: ServiceKey,
        /// Services with a similar name.
        similar: Vec<ServiceKey>,
    },
    /// The Service was read and is not used.
    #[error("Service {name} cannot be used{}", listed(.problems))]
    RefusedService {
        /// The name on the command line.
        name: ServiceKey,
        /// Its errors.
        problems: Vec<Problem>,
    },
    /// The explanation cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl ExplainArgs {
    /// Explains the Service or address and prints the result.
    ///
    /// # Errors
    /// The facts cannot be read, the name matches nothing, or the result cannot be printed.
    pub fn run(self) -> Result<ExitCode, ExplainError> {
        let mut manifests = self.facts.read()?;
        let (world, unreadable) = self.facts.world(&mut manifests, &BTreeSet::new());
        if let Some(ServiceName(key)) = &self.service {
            let explanation = explain(&world.resources, &world.cluster, &world.order, &self.facts.options(), key)
                .ok_or_else(|| refused(key, &manifests).unwrap_or_else(|| unknown(key, &world.cluster)))?;
            self.output.print(&explanation, |paint| explanation::of_service(&explanation, paint))?;
        } else if let Some(ip) = self.ip {
            let ip = metallb_core::address::canonical(ip);
            let plan = self.facts.plan(&mut manifests, &BTreeSet::new(), None);
            let explanation = explain_address(&plan, &world.resources, &world.cluster, ip);
            self.output.print(&explanation, |_| explanation::of_address(&explanation))?;
        }
        self.facts.note_ignored(&manifests);
        note_problems(&unreadable);
        Ok(ExitCode::SUCCESS)
    }
}

#[expect(clippy::print_stderr, reason = "notes must not mix with the result")]
fn note_problems(problems: &[Problem]) {
    for problem in problems {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        eprintln!("metallb: {severity}: {problem}");
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        let objects = super::output::counted(errors, "error");
        eprintln!("metallb: note: because of {objects}, objects may be missing in this explanation");
    }
}

fn refused(key: &ServiceKey, manifests: &Manifests) -> Option<ExplainError> {
    let id = ObjectId { kind: "Service".to_owned(), namespace: key.namespace.to_string(), name: key.name.to_string() };
    let problems = manifests.refusals(&id);
    (!problems.is_empty()).then(|| ExplainError::RefusedService { name: key.clone(), problems })
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

fn unknown(key: &ServiceKey, cluster: &Cluster) -> ExplainError {
    let alike = |other: &&ServiceKey| other.name.contains(&*key.name) || key.name.contains(&*other.name);
    let similar = cluster.services.keys().filter(alike).take(5).cloned().collect();
    ExplainError::UnknownService { name: key.clone(), similar }
}

fn hint(similar: &[ServiceKey]) -> String {
    let names: Vec<String> = similar.iter().map(ToString::to_string).collect();
    if names.is_empty() { String::new() } else { format!("; there is {}", names.join(", ")) }
}
