//! `metallb status`: shows the state of a running speaker or standalone, from `/status` or from a state file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::Uri;
use hyper::body::Bytes;
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use thiserror::Error;
use tower::BoxError;

use super::output::{Output, OutputError, Paint, columns, dash};
use crate::process::ProcessError;
use crate::standalone::load_state;

/// Arguments of `metallb status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        metallb status\n  \
        metallb status --url http://127.0.0.1:17472/status -o json\n  \
        metallb status --state /var/lib/metallb/state.json   # while nothing runs")]
pub struct StatusArgs {
    /// URL of the status
    #[arg(long, default_value = "http://127.0.0.1:17472/status", value_name = "URL")]
    url: Uri,
    /// Read the state file of `metallb standalone` instead
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    state: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
}

/// Why there is no status to show.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The state file cannot be read.
    #[error(transparent)]
    State(#[from] ProcessError),
    /// The state file does not exist.
    #[error("{} does not exist: is it the --state of `metallb standalone`?", .0.display())]
    Missing(PathBuf),
    /// The URL cannot be read.
    #[error("no status from {url}: is metallb running here? (--state reads a state file)")]
    Unreachable {
        /// The URL.
        url: Uri,
        /// Error of the request.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The status cannot be printed.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl StatusArgs {
    /// Reads and prints the status.
    ///
    /// # Errors
    /// The status cannot be read or printed.
    pub fn run(self) -> Result<ExitCode, StatusError> {
        let status = match &self.state {
            Some(path) if !path.exists() => return Err(StatusError::Missing(path.clone())),
            Some(path) => serde_json::to_value(load_state(path)?.unwrap_or_default())
                .map_err(|error| OutputError::Serialise(error.to_string()))?,
            None => {
                fetch(self.url.clone()).map_err(|source| StatusError::Unreachable { url: self.url.clone(), source })?
            }
        };
        self.output.print(&status, |paint| table(&status, paint))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Gets the status; a URL without scheme or path means `http` and `/status`.
fn fetch(url: Uri) -> Result<Value, BoxError> {
    let mut parts = url.into_parts();
    parts.scheme.get_or_insert(Scheme::HTTP);
    if parts.path_and_query.as_ref().is_none_or(|path| path == "/") {
        parts.path_and_query = Some(PathAndQuery::from_static("/status"));
    }
    let url = Uri::from_parts(parts)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bytes = runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let exchange = async {
            let response = client.get(url).await?;
            if !response.status().is_success() {
                return Err(format!("the server answered {}", response.status()).into());
            }
            Ok::<_, BoxError>(response.into_body().collect().await?.to_bytes())
        };
        tokio::time::timeout(REQUEST_LIMIT, exchange).await?
    })?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Shows the fields that the status contains; each kind of process leaves out those that it does not have.
fn table(status: &Value, paint: Paint) -> String {
    if status.is_null() {
        return "The process has no status yet, or is a controller, which reports in the status of Services.\n"
            .to_owned();
    }
    let node = status["node"].as_str().unwrap_or("this node");
    let mut text = String::new();
    let list = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
    if status["services"].is_array() {
        let mut rows = vec![["SERVICE", "STATE", "POOL", "IPS", "L2", "BGP PEERS"].map(str::to_owned)];
        rows.extend(list("services").iter().map(|service| {
            [
                format!("{}/{}", field(service, "namespace"), field(service, "name")),
                field(service, "state"),
                field(service, "pool"),
                dash(joined(&service["ips"])),
                if service["l2"] == true { format!("answered by {node}") } else { "-".to_owned() },
                dash(joined(&service["bgp"])),
            ]
        }));
        text.push_str(&columns(&rows));
        let pending = list("services").iter().filter(|service| service["state"] == "pending");
        for service in pending {
            let name = format!("{}/{}", field(service, "namespace"), field(service, "name"));
            text.push_str(&format!("{} {name} is pending: {}\n", paint.odd("-"), field(service, "reason")));
        }
    } else {
        let mut names: Vec<&str> = list("l2").iter().chain(list("bgp")).filter_map(Value::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let mark = |name: &str, list: &[Value], what: String| {
            if list.iter().any(|entry| entry == name) { what } else { "-".to_owned() }
        };
        let mut rows = vec![["SERVICE", "L2", "BGP"].map(str::to_owned)];
        rows.extend(names.into_iter().map(|name| {
            let l2 = mark(name, list("l2"), format!("answered by {node}"));
            [name.to_owned(), l2, mark(name, list("bgp"), "advertised".to_owned())]
        }));
        text.push_str(&columns(&rows));
    }
    for (ip, reason) in status["refused"].as_object().into_iter().flatten() {
        let reason = reason.as_str().unwrap_or_default();
        text.push_str(&format!("{} {ip} is not answered by {node}: {reason}\n", paint.odd("-")));
    }
    for (ip, rivals) in status["rivals"].as_object().into_iter().flatten() {
        for rival in rivals.as_array().into_iter().flatten().filter_map(Value::as_str) {
            text.push_str(&format!("{} {ip}: {rival}\n", paint.odd("-")));
        }
    }
    for (name, reasons) in status["silent"].as_object().into_iter().flatten() {
        for reason in reasons.as_array().into_iter().flatten().filter_map(Value::as_str) {
            text.push_str(&format!("{} {name}: {reason}\n", paint.odd("-")));
        }
    }
    if !list("peers").is_empty() {
        let heads = ["PEER", "ROUTER", "ASN", "STATE", "UPTIME", "ROUTES", "BFD", "LAST SESSION ENDED"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(list("peers").iter().map(|peer| {
            [
                field(peer, "name"),
                field(peer, "router"),
                if peer["negotiated"].is_object() {
                    field(&peer["negotiated"], "remoteAsn")
                } else {
                    field(peer, "expectedAsn")
                },
                field(peer, "state"),
                span(&peer["uptimeSeconds"]),
                routes(peer),
                bfd(&peer["bfd"]),
                ended(&peer["lastSession"]),
            ]
        }));
        text.push('\n');
        text.push_str(&columns(&rows));
        for peer in list("peers").iter().filter(|peer| peer["state"] != "Established" && peer["lastDown"].is_string()) {
            let advice = peer["advice"].as_str().map_or_else(String::new, |advice| format!(": {advice}"));
            text.push_str(&format!(
                "{} {} is not up: {}{advice}\n",
                paint.odd("-"),
                field(peer, "name"),
                field(peer, "lastDown")
            ));
        }
        for peer in list("peers") {
            let name = field(peer, "name");
            if let Some(seconds) = peer["waitsForBfdSeconds"].as_u64() {
                text.push_str(&format!("{} {name} waits for BFD, at most {seconds}s longer\n", paint.odd("-")));
            }
            for withheld in peer["withheld"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                text.push_str(&format!("{} {name}: {withheld}\n", paint.odd("-")));
            }
        }
        let mut rows = vec![["PEER", "FROM", "TO", "ROUTER ID", "HOLD TIME", "CAPABILITIES"].map(str::to_owned)];
        rows.extend(list("peers").iter().filter(|peer| peer["negotiated"].is_object()).map(|peer| {
            let negotiated = &peer["negotiated"];
            [
                field(peer, "name"),
                field(peer, "localAddress"),
                field(peer, "remoteAddress"),
                field(negotiated, "remoteRouterId"),
                format!("{}s", field(negotiated, "holdTimeSeconds")),
                dash(joined(&negotiated["capabilities"])),
            ]
        }));
        if rows.len() > 1 {
            text.push('\n');
            text.push_str(&columns(&rows));
        }
        let heads = ["BFD PEER", "SEND", "RECEIVE", "DETECTION", "ROUTER'S DETECTION", "ROUTER'S TIMERS"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(list("peers").iter().filter(|peer| peer["bfd"]["timers"].is_object()).map(|peer| {
            let timers = &peer["bfd"]["timers"];
            let time = |name: &str| milliseconds(&timers[name]);
            let every = |name: &str| timers[name].as_u64().map_or("-".to_owned(), |_| format!("every {}", time(name)));
            [
                field(peer, "name"),
                every("transmitMicroseconds"),
                every("receiveMicroseconds"),
                time("detectionMicroseconds"),
                time("remoteDetectionMicroseconds"),
                format!(
                    "transmit {}, receive {}, multiplier {}",
                    time("remoteTransmitMicroseconds"),
                    time("remoteReceiveMicroseconds"),
                    field(timers, "remoteDetectMultiplier")
                ),
            ]
        }));
        if rows.len() > 1 {
            text.push('\n');
            text.push_str(&columns(&rows));
        }
    }
    if !list("problems").is_empty() {
        text.push_str(&format!("\n{}\n", paint.head("PROBLEMS")));
    }
    for problem in list("problems") {
        text.push_str(&format!("  {}\n", problem.as_str().unwrap_or_default()));
    }
    text
}

fn field(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => dash(text.clone()),
        other => other.to_string(),
    }
}

/// The number of advertised routes, and the number of wanted ones where it differs.
fn routes(peer: &Value) -> String {
    match (&peer["routes"], &peer["routesWanted"]) {
        (sent, wanted) if wanted.is_null() || sent == wanted => field(peer, "routes"),
        (sent, wanted) => format!("{sent} of {wanted}"),
    }
}

/// A duration by its two largest units.
fn span(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_u64() else { return "-".to_owned() };
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        (_, _, _) => format!("{days}d{:02}h", hours % 24),
    }
}

/// Microseconds as milliseconds.
fn milliseconds(microseconds: &Value) -> String {
    microseconds.as_u64().map_or("-".to_owned(), |time| format!("{}ms", time as f64 / 1e3))
}

/// Reason and age of the end of a session.
fn ended(session: &Value) -> String {
    match session["endedBecause"].as_str() {
        Some(reason) => format!("{reason}, {} ago", span(&session["secondsAgo"])),
        None => "-".to_owned(),
    }
}

/// The state and, if it is not Up, the reason.
fn bfd(bfd: &Value) -> String {
    let reason = if bfd["problem"].is_null() { &bfd["cause"] } else { &bfd["problem"] };
    match (bfd["state"].as_str(), reason.as_str()) {
        (None, _) => "-".to_owned(),
        (Some("Up"), _) | (Some(_), None) => field(bfd, "state"),
        (Some(state), Some(reason)) => format!("{state} ({reason})"),
    }
}

fn joined(list: &Value) -> String {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// Time limit of the request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_a_speaker_shows_services_and_sessions_and_that_of_a_controller_refers_to_services() {
        let status = serde_json::json!({
            "node": "node-a", "l2": ["default/web"], "bgp": ["default/web", "shop/db"], "problems": ["pool a: empty"],
            "refused": {"192.0.2.9": "the default route of this node leads to it"},
            "rivals": {"192.0.2.8": ["another host, 02:00:00:00:00:01, uses 192.0.2.8 on eth0"]},
            "silent": {"shop/db": ["nobody answers: The Service has no usable endpoint."]},
            "peers": [
                {"name": "tor", "router": "192.0.2.1:179", "expectedAsn": "external",
                 "state": "Established", "uptimeSeconds": 7, "routes": 2, "routesWanted": 2,
                 "localAddress": "192.0.2.7:50000", "remoteAddress": "192.0.2.1:179", "lastDown": null,
                 "negotiated": {"remoteAsn": 64600, "remoteRouterId": "192.0.2.1", "holdTimeSeconds": 90,
                                "capabilities": ["ipv4-unicast", "graceful-restart"]},
                 "bfd": {"state": "Up", "cause": "handshake", "failures": 0, "problem": null, "timers": {
                     "transmitMicroseconds": 300_000, "receiveMicroseconds": 16_700, "detectionMicroseconds": 50_100,
                     "remoteDetectionMicroseconds": 900_000, "remoteTransmitMicroseconds": 16_700,
                     "remoteReceiveMicroseconds": 300_000, "remoteDetectMultiplier": 3}}},
                {"name": "core", "router": "192.0.2.2:179", "expectedAsn": "64601", "state": "Idle",
                 "uptimeSeconds": null, "routes": 0, "routesWanted": 2,
                 "lastDown": "connect failed: Connection refused", "advice": "start it", "waitsForBfdSeconds": 7,
                 "withheld": ["fd00::1/128 not advertised: no IPv6"],
                 "lastSession": {"endedBecause": "received Cease: Peer De-configured (6/3)", "secondsAgo": 3_725},
                 "negotiated": null,
                 "bfd": {"state": "Down", "cause": "neighbor-down", "failures": 1, "problem": null}},
            ],
        });
        let text = table(&status, Paint::PLAIN);
        for line in [
            "default/web  answered by node-a  advertised",
            "shop/db      -                   advertised",
            "- shop/db: nobody answers: The Service has no usable endpoint.\n",
            "tor   192.0.2.1:179  64600  Established  7s      2       Up                    -",
            "core  192.0.2.2:179  64601  Idle         -       0 of 2  Down (neighbor-down)  \
             received Cease: Peer De-configured (6/3), 1h02m ago",
            "- core is not up: connect failed: Connection refused: start it\n",
            "- core waits for BFD, at most 7s longer\n",
            "- core: fd00::1/128 not advertised: no IPv6\n",
            "- 192.0.2.9 is not answered by node-a: the default route of this node leads to it\n",
            "- 192.0.2.8: another host, 02:00:00:00:00:01, uses 192.0.2.8 on eth0\n",
            "tor   192.0.2.7:50000  192.0.2.1:179  192.0.2.1  90s        ipv4-unicast, graceful-restart",
            "BFD PEER  SEND         RECEIVE       DETECTION  ROUTER'S DETECTION  ROUTER'S TIMERS",
            "tor       every 300ms  every 16.7ms  50.1ms     900ms               \
             transmit 16.7ms, receive 300ms, multiplier 3",
            "  pool a: empty",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(table(&Value::Null, Paint::PLAIN).contains("controller"));
    }
}
