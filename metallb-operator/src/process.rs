//! The frame of every long-running subcommand: runtime, signals, administrative server, shutdown, and one error type.

pub mod admin;
pub mod listen;
pub(crate) mod livez;
pub mod supervision;
pub mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use metallb_core::config::{Problem, Severity};
use metallb_core::model::ExcludeLabel;
use metallb_membership::driver as membership;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::admin::Admin;
use self::listen::Listen;
use self::tls::{TlsError, TlsListener};
use crate::client::ConnectError;
use crate::exclusion::ExclusionError;
use crate::source::manifests::ReadError;
use crate::sys;

/// Why a process cannot run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The Kubernetes client cannot be built.
    #[error("cannot connect to the Kubernetes API")]
    Connect(#[from] ConnectError),
    /// The manifests cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory of the manifests cannot be watched.
    #[error("cannot watch the manifests")]
    Watch(#[from] notify::Error),
    /// The list of excluded interfaces is unusable.
    #[error(transparent)]
    Exclusion(#[from] ExclusionError),
    /// The host does not allow packet sockets.
    #[error(transparent)]
    Start(#[from] metallb_l2::io::StartError),
    /// The membership driver cannot start.
    #[error(transparent)]
    Membership(#[from] membership::StartError),
    /// The membership address is not an IP address.
    #[error("--ml-bindaddr is not an IP address")]
    BindAddress(#[from] std::net::AddrParseError),
    /// Another process of this host uses what only one can use.
    #[error("another process uses {what}")]
    InUse {
        /// The file or name.
        what: String,
    },
    /// The state file is damaged.
    #[error("the state file {} is damaged", path.display())]
    State {
        /// Path of the file.
        path: PathBuf,
        /// The syntax error.
        #[source]
        source: serde_json::Error,
    },
    /// The name of the node is missing.
    #[error(
        "the name of this node is empty: set METALLB_NODE_NAME (the field spec.nodeName of the Pod), or --node-name"
    )]
    NodeName,
    /// A listener has no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system refused an operation.
    #[error("{what}")]
    Io {
        /// The operation.
        what: String,
        /// Error of the operating system.
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
    hangup: watch::Receiver<()>,
    stop: watch::Sender<bool>,
}

/// Settings that `speaker` and `standalone` share.
#[derive(Clone, Debug)]
pub struct AnnounceSettings {
    /// Name of the node, as in its Node object.
    pub node: String,
    /// Announce only Services of this load balancer class; `None` means Services without a class.
    pub class: Option<String>,
    /// Whether nodes with the exclude label take part.
    pub exclude_label: ExcludeLabel,
    /// Whether an address that is new to the cluster is probed before it is announced on L2.
    pub probe: bool,
    /// File with the list of excluded interfaces.
    pub exclude_interfaces: PathBuf,
    /// Address on which to accept BGP peers.
    pub bgp_listen: Option<SocketAddr>,
    /// Drain time of BGP sessions on shutdown.
    pub drain_time: Duration,
    /// Settings of membership; `None` if it is off.
    pub membership: Option<membership::Settings>,
}

/// Threads of a runtime.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Threads {
    /// One per core.
    PerCore,
    /// Two, with one memory arena for all threads: for a process on every node.
    Two,
}

// === impl ProcessError ===

impl ProcessError {
    /// Adds the failed operation to an I/O error; for `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

// === impl Process ===

impl Process {
    /// Runs `main` on a new runtime, with handlers for SIGTERM and SIGINT.
    ///
    /// # Errors
    /// Errors of `main`, or the operating system refuses a thread or a signal handler.
    pub(crate) fn run(
        threads: Threads,
        main: impl AsyncFnOnce(Self) -> Result<(), ProcessError>,
    ) -> Result<(), ProcessError> {
        supervision::end_on_panic();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if threads == Threads::Two {
            sys::share_memory();
            builder.worker_threads(2);
        }
        let runtime = builder.enable_all().build().map_err(ProcessError::io("cannot start the async runtime"))?;
        runtime.block_on(async {
            let handler = |kind| signal(kind).map_err(ProcessError::io("cannot install signal handlers"));
            let (terminate, interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
            let hangup = hangups(handler(SignalKind::hangup())?);
            main(Self { admin: Admin::new(), terminate, interrupt, hangup, stop: watch::channel(false).0 }).await
        })
    }

    /// Serves the administrative endpoints on each of `addresses` until the process ends.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub(crate) fn serve(&self, addresses: impl IntoIterator<Item = Listen>) -> Result<(), ProcessError> {
        for Listen { address, pages } in addresses {
            let listener = listen::bind(address).map_err(ProcessError::io(format!("cannot listen on {address}")))?;
            tokio::spawn(self.admin.clone().serve_on(listener, pages, self.stop.subscribe()));
        }
        Ok(())
    }

    /// Serves the liveness page of FRR installs over HTTPS on `address` until the process ends.
    ///
    /// # Errors
    /// The address cannot be bound, or no certificate can be made.
    pub(crate) fn serve_livez(&self, address: SocketAddr) -> Result<(), ProcessError> {
        let failure = || ProcessError::io(format!("cannot listen on {address}"));
        let listener = listen::bind(address).map_err(failure())?;
        let listener = TlsListener::new(listener, tls::self_signed(&["frr-metrics"])?).map_err(failure())?;
        let mut stop = self.stop.subscribe();
        let server = axum::serve(listener, livez::router()).with_graceful_shutdown(async move {
            // An error means that the sender was dropped: the process is ending.
            let _ = stop.wait_for(|stop| *stop).await;
        });
        tokio::spawn(server.into_future());
        Ok(())
    }

    /// Waits for the next SIGTERM or SIGINT.
    pub(crate) async fn stop_requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Changes with every SIGHUP from now on. A process that reads everything from the API ignores it.
    pub(crate) fn hangup(&self) -> watch::Receiver<()> {
        let mut hangup = self.hangup.clone();
        hangup.mark_unchanged();
        hangup
    }

    /// Stops the administrative server.
    pub(crate) fn finish(self) {
        self.stop.send_replace(true);
    }
}

/// Receives SIGHUP for the life of the process; by default the signal would end it.
fn hangups(mut signal: Signal) -> watch::Receiver<()> {
    let (received, hangup) = watch::channel(());
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            tracing::debug!(event = "hangup", "SIGHUP was received");
            received.send_replace(());
        }
    });
    hangup
}

/// Logs a problem of a configuration object.
pub(crate) fn log_problem(problem: &Problem) {
    let (object, field, code) = (&problem.object, &problem.field, problem.code.as_str());
    match problem.severity {
        Severity::Error => tracing::error!(event = "configError", %object, field, code, "{}", problem.message),
        Severity::Warning => tracing::warn!(event = "configWarning", %object, field, code, "{}", problem.message),
    }
}
