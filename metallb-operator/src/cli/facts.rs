//! Source of the facts for `plan` and `explain`: manifests, or the present state of a cluster.

use std::collections::BTreeSet;
use std::path::PathBuf;

use metallb_core::config::Problem;
use metallb_core::election::{ElectionRules, LiveSpeakers};
use metallb_core::model::{Endpoint, Ingress, Node, NodeName};
use metallb_core::plan::{Plan, PlanOptions, plan};
use thiserror::Error;

use crate::cli::options::exclude_label;
use crate::source::manifests::{Manifests, ReadError, Strictness};
use crate::source::snapshot::{self, Access, SnapshotError};
use crate::source::translate;
use crate::source::world::World;

/// Source of the facts for `plan` and `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct FactsArgs {
    /// Manifests: a file, a directory, or - for standard input [default: the cluster that kubectl would use]
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Kubeconfig of the cluster [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    context: Option<String>,
    /// Namespace of the configuration objects
    #[arg(long, default_value = translate::CONFIG_NAMESPACE, value_name = "NAMESPACE")]
    namespace: String,
    /// Node names, used if the manifests contain no Node objects
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    nodes: Vec<String>,
    /// Assume one ready endpoint on every node for each Service without endpoints
    #[arg(long)]
    assume_endpoints: bool,
    /// Plan for Services of this loadBalancerClass [default: Services without a class]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CLASS")]
    lb_class: String,
    /// Use objects with unknown fields, values and annotations, and only warn about these
    #[arg(long)]
    lenient: bool,
    /// Also announce from nodes labelled node.kubernetes.io/exclude-from-external-load-balancers
    #[arg(long)]
    ignore_exclude_lb: bool,
}

/// Why the facts cannot be read.
#[derive(Debug, Error)]
pub enum FactsError {
    /// The manifests cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cluster cannot be read.
    #[error("cannot read the cluster (use -f to read manifests instead)")]
    Cluster(#[from] SnapshotError),
}

impl FactsArgs {
    /// Reads everything from manifests or from the cluster.
    ///
    /// # Errors
    /// A path or the cluster cannot be read.
    pub fn read(&self) -> Result<Manifests, FactsError> {
        if self.files.is_empty() {
            let access = Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
            return Ok(snapshot::take(&access, &self.namespace)?);
        }
        self.read_files(&self.files)
    }

    /// Reads further manifests with the same settings.
    ///
    /// # Errors
    /// A path cannot be read.
    pub fn read_files(&self, paths: &[PathBuf]) -> Result<Manifests, FactsError> {
        let strictness = if self.lenient { Strictness::Lenient } else { Strictness::Strict };
        let mut manifests = Manifests::new(&self.namespace).with(strictness);
        manifests.read_paths(paths)?;
        Ok(manifests)
    }

    /// Notes on standard error that nothing was read, and which configuration objects were ignored or placed because of
    /// their namespace.
    #[expect(clippy::print_stderr, reason = "notes must not mix with the result")]
    pub fn note_ignored(&self, manifests: &Manifests) {
        if manifests.is_empty() && !self.files.is_empty() {
            let paths: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
            eprintln!(
                "metallb: note: no object was read from {}: of a directory, *.yaml, *.yml and *.json are read, and not \
                 its subdirectories",
                paths.join(", ")
            );
        }
        if manifests.homeless() > 0 {
            let objects = super::output::counted(manifests.homeless(), "configuration object");
            eprintln!(
                "metallb: note: {objects} without metadata.namespace: read as in namespace {}, but kubectl apply would \
                 put them into the current namespace of the kubeconfig",
                self.namespace
            );
        }
        for (namespace, count) in manifests.elsewhere() {
            let objects = super::output::counted(*count, "configuration object");
            eprintln!(
                "metallb: note: ignored {objects} in namespace {namespace}: \
                 configuration is read from namespace {} (see --namespace)",
                self.namespace
            );
        }
    }

    /// Plans `manifests` without the nodes in `gone`. Services that got addresses in the plan `before` hold them: their
    /// status will show the addresses by the time of a change.
    #[must_use]
    pub fn plan(&self, manifests: &mut Manifests, gone: &BTreeSet<NodeName>, before: Option<&Plan>) -> Plan {
        let (mut world, problems) = self.world(manifests, gone);
        for service in before.iter().flat_map(|plan| &plan.services) {
            if let Some(known) = world.cluster.services.get_mut(&service.key).filter(|known| known.ingress.is_empty()) {
                known.ingress = service.ips.iter().copied().map(Ingress::from).collect();
            }
        }
        let mut result = plan(&world.resources, &world.cluster, &world.order, &self.options());
        result.problems.extend(problems);
        result
    }

    /// The assumptions of a plan, from the flags.
    #[must_use]
    pub fn options(&self) -> PlanOptions {
        PlanOptions {
            class: Some(self.lb_class.clone()).filter(|class| !class.is_empty()),
            rules: ElectionRules {
                live: LiveSpeakers::EveryNode,
                exclude_label: exclude_label(self.ignore_exclude_lb),
            },
            threads: std::thread::available_parallelism().ok(),
        }
    }

    /// The facts from `manifests` and the flags, without the nodes in `gone`.
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
