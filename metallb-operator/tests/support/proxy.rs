//! An HTTP proxy between one process and the API server that injects faults.
//!
//! The process speaks plain HTTP to it; its token passes through. Rules are added and removed while it runs: they
//! delay or withhold answers, cut connections, answer in the server's place, and hold requests until a [`Gate`] opens.
//! Watches can be held back and cut, and all open connections can be made to look dead.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::line::{Line, Lines};
use self::rule::Rules;
pub(crate) use self::rule::{End, Gate, Matcher, Reply, Rule, RuleId};

mod line;
mod rule;
#[cfg(test)]
mod tests;

/// A running proxy. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// A request that the proxy saw.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// When the request was complete.
    pub(crate) at: Instant,
    /// What the client was answered; `None` while the answer is withheld, and for ever if it never got one.
    pub(crate) status: Option<StatusCode>,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<Rules>,
    passed: Mutex<Vec<Passed>>,
    lines: Lines,
    watches: watch::Sender<Watches>,
}

/// What happens to the streams of watches.
#[derive(Clone, Debug, Default)]
struct Watches {
    /// Part of the path of watches that deliver nothing at present.
    held: Option<String>,
    /// How often watches were cut, and part of the path of those that were cut last.
    cuts: u64,
    cut: String,
}

// === impl Proxy ===

impl Proxy {
    /// Starts on a free port of loopback. `upstream` is a client without credentials.
    pub(crate) async fn start(upstream: Client) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            rules: Mutex::default(),
            passed: Mutex::default(),
            lines: Lines::default(),
            watches: watch::channel(Watches::default()).0,
        });
        let accepting = tokio::spawn(accept(listener, upstream, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes the configuration of a process that speaks through this proxy with a token.
    pub(crate) fn kubeconfig_file(&self, directory: &Path, token: &str) -> PathBuf {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{ "name": "proxy", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "proxy", "user": { "token": token } }],
            "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "proxy" } }],
        });
        let path = directory.join(format!("proxy-{}.kubeconfig", self.address.port()));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Adds a rule. A request meets the first rule that matches it, in the order in which they were added.
    pub(crate) fn add(&self, rule: Rule) -> RuleId {
        lock(&self.shared.rules).add(rule)
    }

    /// Removes a rule; requests that have met it already go on under it.
    pub(crate) fn remove(&self, rule: RuleId) {
        lock(&self.shared.rules).remove(rule);
    }

    /// All requests so far.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        lock(&self.shared.passed).clone()
    }

    /// How many requests matched so far, answered or not.
    pub(crate) fn count(&self, matcher: &Matcher) -> usize {
        let passed = lock(&self.shared.passed);
        passed.iter().filter(|request| matcher.is_met_by(&request.method, &request.path, &request.query)).count()
    }

    /// Holds back what watches of paths with this part deliver, until [`Proxy::release_watches`].
    pub(crate) fn hold_watches(&self, part: &str) {
        self.shared.watches.send_modify(|watches| watches.held = Some(part.to_owned()));
    }

    /// Delivers what was held back, all at once, and holds nothing from now on.
    pub(crate) fn release_watches(&self) {
        self.shared.watches.send_modify(|watches| watches.held = None);
    }

    /// Ends all open watches of paths with this part in the middle of their streams.
    pub(crate) fn cut_watches(&self, part: &str) {
        self.shared.watches.send_modify(|watches| {
            watches.cuts += 1;
            part.clone_into(&mut watches.cut);
        });
    }

    /// Makes all open connections look dead: nothing passes, and no segment is acknowledged. New ones work.
    pub(crate) fn freeze(&self) {
        self.shared.lines.freeze();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

// === impl Shared ===

impl Shared {
    async fn answer(&self, upstream: Client, request: Request<Incoming>) -> Result<Response<Answer>, Failed> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let number = {
            let mut passed = lock(&self.passed);
            let (method, at) = (parts.method.clone(), Instant::now());
            passed.push(Passed { method, path: path.clone(), query: query.clone(), at, status: None });
            passed.len() - 1
        };
        let rule = lock(&self.rules).take(&parts.method, &path, &query).unwrap_or_default();
        if let Some(gate) = &rule.before {
            gate.pass().await;
        }
        let answer = match rule.reply {
            Reply::Fixed(status, text) => {
                let mut answer = Response::new(Full::new(text).map_err(|never| match never {}).boxed_unsync());
                *answer.status_mut() = status;
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                answer
            }
            Reply::Swallowed => return std::future::pending().await,
            Reply::Forwarded => {
                for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
                    parts.headers.remove(name);
                }
                let answer = upstream.send(Request::from_parts(parts, Body::from(body))).await?;
                self.taken_over(answer, &path, &query).await?
            }
        };
        if let Some(gate) = &rule.after {
            gate.pass().await;
        }
        tokio::time::sleep(rule.delay).await;
        match rule.end {
            End::Answered => {}
            End::Cut => return Err("cut before the answer".into()),
            End::Never => return std::future::pending().await,
        }
        lock(&self.passed)[number].status = Some(answer.status());
        Ok(answer)
    }

    /// The server's answer as it goes to the client: whole, or for watches as a stream.
    async fn taken_over(&self, answer: Response<Body>, path: &str, query: &str) -> Result<Response<Answer>, Failed> {
        let (mut parts, body) = answer.into_parts();
        for name in [CONNECTION, TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        if !query.contains("watch=") {
            let whole = Full::new(body.collect().await?.to_bytes());
            return Ok(Response::from_parts(parts, whole.map_err(|never| match never {}).boxed_unsync()));
        }
        let rules = self.watches.subscribe();
        let cuts = rules.borrow().cuts;
        let watched = Watched { body, path: path.to_owned(), rules, cuts, waiting: Vec::new() };
        let frames = stream::unfold(Some(watched), |watched| async move {
            let mut watched = watched?;
            match watched.next().await? {
                Ok(bytes) => Some((Ok(Frame::data(bytes)), Some(watched))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
    }
}

/// The stream of a watch on its way.
struct Watched {
    body: Body,
    path: String,
    rules: watch::Receiver<Watches>,
    /// How many cuts came before this watch.
    cuts: u64,
    /// What came while it was held.
    waiting: Vec<u8>,
}

impl Watched {
    /// What goes to the client next; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, Failed>> {
        loop {
            let rules = self.rules.borrow_and_update().clone();
            if rules.cuts != self.cuts && self.path.contains(&rules.cut) {
                return Some(Err("cut".into()));
            }
            let is_held = rules.held.is_some_and(|held| self.path.contains(&held));
            if !is_held && !self.waiting.is_empty() {
                return Some(Ok(std::mem::take(&mut self.waiting).into()));
            }
            tokio::select! {
                // Fails only when the proxy is gone, and with it the need to go on.
                changed = self.rules.changed() => changed.ok()?,
                frame = self.body.frame() => match frame {
                    Some(Ok(frame)) => self.waiting.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return Some(Err(error.into())),
                    None if is_held => std::future::pending().await,
                    None => return None,
                },
            }
        }
    }
}

async fn accept(listener: TcpListener, upstream: Client, shared: Arc<Shared>) {
    // Connections end with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            Ok((stream, _)) = listener.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        let line = Line::new(stream, &shared.lines);
        let (upstream, shared) = (upstream.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let answer = service_fn(|request| shared.answer(upstream.clone(), request));
            // Cutting a connection is an error here, and the purpose of some rules.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(line), answer).await;
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answer = UnsyncBoxBody<Bytes, Failed>;
type Failed = Box<dyn std::error::Error + Send + Sync>;
