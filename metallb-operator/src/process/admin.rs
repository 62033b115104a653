//! The administrative HTTP endpoints: `/healthz`, `/readyz`, `/metrics`, `/status`.
//!
//! A process is healthy while none of its loops hangs. It is ready when every source has delivered its first complete
//! list and a configuration, or the last good one, is in force. Until then `/readyz` answers 503 and names the missing
//! conditions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::listen::Pages;
use super::supervision::Watchdog;
use crate::metrics::Metrics;

/// Conditions of readiness, and whether each is met.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Readiness {
    /// Adds a condition that is not met yet.
    pub fn expect(&self, condition: &'static str) {
        self.set(condition, false);
    }

    /// Marks a condition as met, or as no longer met.
    pub fn set(&self, condition: &'static str, met: bool) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).insert(condition, met);
    }

    /// The conditions that are not met, by name; empty means ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.iter().filter(|&(_, &met)| !met).map(|(&name, _)| name).collect()
    }
}

/// Source of the `/status` document, which the process builds on request.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard {
    requests: Option<mpsc::Sender<oneshot::Sender<serde_json::Value>>>,
}

impl StatusBoard {
    /// Connects the process: each request of a reader arrives at the receiver and is answered with the document.
    /// Earlier clones stay unconnected.
    pub fn on_request(&mut self) -> mpsc::Receiver<oneshot::Sender<serde_json::Value>> {
        // When the queue is full, further readers wait for a place.
        let (requests, pending) = mpsc::channel(16);
        self.requests = Some(requests);
        pending
    }

    /// The present document; `null` if no process is connected or it does not answer in time.
    pub async fn current(&self) -> serde_json::Value {
        let Some(requests) = &self.requests else { return serde_json::Value::Null };
        let (reply, answer) = oneshot::channel();
        let ask = async {
            requests.send(reply).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(ANSWER_LIMIT, ask).await.ok().flatten().unwrap_or_default()
    }
}

/// State behind the endpoints.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Series for `/metrics`.
    pub metrics: Metrics,
    /// Conditions for `/readyz`.
    pub readiness: Readiness,
    /// State for `/status`.
    pub status: StatusBoard,
    /// The loops for `/healthz`.
    pub watchdog: Watchdog,
}

impl Admin {
    /// No conditions and no metrics yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            status: StatusBoard::default(),
            watchdog: Watchdog::new(Instant::now()),
        }
    }

    /// Serves `pages` on a listening socket until `shutdown` turns true.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn serve_on(
        self,
        listener: TcpListener,
        pages: Pages,
        mut shutdown: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        axum::serve(listener, self.router(pages))
            .with_graceful_shutdown(async move {
                // An error means that the sender was dropped: the process is ending.
                let _ = shutdown.wait_for(|stop| *stop).await;
            })
            .await
    }

    fn router(self, pages: Pages) -> Router {
        let mut router = Router::new().route("/metrics", get(metrics));
        if pages == Pages::All {
            router = router.route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/status", get(status));
        }
        router.with_state(self)
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::new()
    }
}

async fn healthz(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.watchdog.hanging(Instant::now()).as_slice() {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        hanging => (StatusCode::SERVICE_UNAVAILABLE, format!("hanging: {}\n", hanging.join(", "))),
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let missing = admin.readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.encode())
}

async fn status(State(admin): State<Admin>) -> impl IntoResponse {
    axum::Json(admin.status.current().await)
}

/// Time limit for the answer of the process.
const ANSWER_LIMIT: std::time::Duration = std::time::Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing_until_all_is_met() {
        let readiness = Readiness::default();
        readiness.expect("services synced");
        readiness.expect("configuration loaded");
        assert_eq!(readiness.missing(), ["configuration loaded", "services synced"]);
        readiness.set("services synced", true);
        readiness.set("configuration loaded", true);
        assert!(readiness.missing().is_empty());
    }
}
