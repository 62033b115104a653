//! The liveness page of FRR installs of upstream, over HTTPS.

use axum::Router;
use axum::routing::get;

/// The pages of `frr-metrics`.
pub(super) fn router() -> Router {
    Router::new().route("/livez", get(async || NOTE)).route("/metrics", get(async || METRICS))
}

/// The text of the pages.
pub(crate) const NOTE: &str = "FRR is not used: the speaker of this node holds the BGP sessions itself\n";

const METRICS: &str =
    "# FRR is not used: the speaker of this node exports the metrics of BGP and BFD on its own port\n";
