//! What every long-running subcommand has around its loop: a runtime, signals, the administrative server, an orderly end, and one
//! type for what keeps it from running.

pub mod admin;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use metallb_core::config::{Problem, Severity};
use metallb_core::model::ExcludeLabel;
use metallb_membership::driver as membership;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::admin::Admin;
use crate::client::ConnectError;
use crate::exclusion::ExclusionError;
use crate::source::manifests::ReadError;
use crate::sys;

/// Why a process does not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// There is no client for the API server.
    #[error("no connection to the Kubernetes API")]
    Connect(#[from] ConnectError),
    /// The manifests cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory of the manifests cannot be watched.
    #[error("the manifests can't be watched")]
    Watch(#[from] notify::Error),
    /// The list of excluded interfaces cannot be used.
    #[error(transparent)]
    Exclusion(#[from] ExclusionError),
    /// The host does not allow packet sockets.
    #[error(transparent)]
    Start(#[from] metallb_l2::io::StartError),
    /// Membership does not start.
    #[error(transparent)]
    Membership(#[from] membership::StartError),
    /// The address for membership is no address.
    #[error("--ml-bindaddr is no IP address")]
    BindAddress(#[from] std::net::AddrParseError),
    /// The state file is there but cannot be understood; starting without it could change addresses.
    #[error("the state file {} is malformed; remove it to start anew", path.display())]
    State {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The operating system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// The frame around the loop of one process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Metrics, readiness and status.
    pub(crate) admin: Admin,
    terminate: Signal,
    interrupt: Signal,
    stop: watch::Sender<bool>,
}

/// What processes that announce have in common.
#[derive(Clone, Debug)]
pub struct AnnounceSettings {
    /// Name of the node, as in its Node object.
    pub node: String,
    /// Only Services of this load balancer class are announced; `None` means Services without a class.
    pub class: Option<String>,
    /// Whether nodes with the exclude label take part.
    pub exclude_label: ExcludeLabel,
    /// Whether an address that is new to the cluster is probed before it is announced on L2.
    pub probe: bool,
    /// File with the list of interfaces that are never announced on.
    pub exclude_interfaces: PathBuf,
    /// Where BGP peers may connect.
    pub bgp_listen: Option<SocketAddr>,
    /// How long peers may take to move traffic away when the process ends.
    pub drain_time: Duration,
    /// Membership among speakers; `None` where it is off.
    pub membership: Option<membership::Settings>,
}

/// Threads of a runtime.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Threads {
    /// One per core.
    PerCore,
    /// Two, with one arena of memory for all threads: for a process that runs on every node.
    Two,
}

// === impl ProcessError ===

impl ProcessError {
    /// Names what was tried; to be used with `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

// === impl Process ===

impl Process {
    /// Runs `main` on a runtime of its own, with the handlers of SIGTERM and SIGINT installed.
    ///
    /// # Errors
    /// Those of `main`, and a runtime or a handler that the operating system refuses.
    pub(crate) fn run(
        threads: Threads,
        main: impl AsyncFnOnce(Self) -> Result<(), ProcessError>,
    ) -> Result<(), ProcessError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if threads == Threads::Two {
            sys::share_memory();
            builder.worker_threads(2);
        }
        let runtime = builder.enable_all().build().map_err(ProcessError::io("the runtime can't be started"))?;
        runtime.block_on(async {
            let handler = |kind| signal(kind).map_err(ProcessError::io("signals can't be handled"));
            let (terminate, interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
            main(Self { admin: Admin::new(), terminate, interrupt, stop: watch::channel(false).0 }).await
        })
    }

    /// Serves the administrative endpoints on each of `addresses` until the process ends.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub(crate) async fn serve(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> Result<(), ProcessError> {
        for address in addresses {
            let listener = TcpListener::bind(address)
                .await
                .map_err(ProcessError::io(format!("{address} can't be listened on")))?;
            tokio::spawn(self.admin.clone().serve_on(listener, self.stop.subscribe()));
        }
        Ok(())
    }

    /// Waits for the next SIGTERM or SIGINT.
    pub(crate) async fn stop_requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Ends the administrative server.
    pub(crate) fn finish(self) {
        self.stop.send_replace(true);
    }
}

/// Logs what is wrong with an object of the configuration.
pub(crate) fn log_problem(problem: &Problem) {
    let (object, field, code) = (&problem.object, &problem.field, problem.code.as_str());
    match problem.severity {
        Severity::Error => tracing::error!(event = "configError", %object, field, code, "{}", problem.message),
        Severity::Warning => tracing::warn!(event = "configWarning", %object, field, code, "{}", problem.message),
    }
}
