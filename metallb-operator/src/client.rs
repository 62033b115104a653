//! The Kubernetes client of the process: kube's own stack, with deadlines.
//!
//! - A request that is not a watch ends within [`REQUEST_LIMIT`], its body included. The parameter `timeout` passes the
//!   limit to the server, which then stops working on an answer that has no reader.
//! - A watch must be answered within the same limit. Its stream ends at the latest [`WATCH_SLACK`] after the requested
//!   time (`timeoutSeconds`), even if the server sends nothing.
//! - An idle connection whose other end does not answer is closed after 5 to 7 s. The first probe is sent after 3 s
//!   without traffic, further ones every 2 s, and with TCP_USER_TIMEOUT Linux closes the connection at the first probe
//!   5 s or more after the last packet. Data that is not acknowledged closes it after 5 s.
//! - Requests are not retried here. kube's own retries sleep inside the request for as long as the server demands,
//!   while the caller holds its permit; they also hide that a write answered with 504 may have been stored.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{Request, Response, Uri, header};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use thiserror::Error;
use tokio::time::{Instant, Sleep};
use tower::{BoxError, Layer, Service, ServiceBuilder};

/// Why the client cannot be built.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account is usable.
    #[error("no configuration for the Kubernetes API")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The configuration does not yield a client.
    #[error("cannot build the Kubernetes client")]
    Client(#[source] Box<kube::Error>),
}

/// Infers the configuration (kubeconfig or service account) and builds the shared client of the process. Returns the
/// configuration for callers that need connections of their own.
///
/// # Errors
/// [`ConnectError`]. An unreachable server is no error: nothing is sent here.
pub async fn connect() -> Result<(Config, Client), ConnectError> {
    let config = Config::infer().await.map_err(|error| ConnectError::Config(Box::new(error)))?;
    let client = with_deadlines(config.clone()).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok((config, client))
}

/// A client with the deadlines of this module. Call it in a tokio runtime, in which its connections then live.
///
/// # Errors
/// `config` is unusable: TLS, credentials, or a proxy (which this build does not support).
pub fn with_deadlines(config: Config) -> Result<Client, kube::Error> {
    with_limit(config, REQUEST_LIMIT)
}

/// The same with another limit for requests that are not watches.
pub(crate) fn with_limit(mut config: Config, limit: Duration) -> Result<Client, kube::Error> {
    let deadlines = DeadlineLayer { limit };
    if config.proxy_url.is_some() {
        // kube chooses the connector for the kind of proxy, or reports missing support.
        config.default_retry = false;
        return Ok(ClientBuilder::try_from(config)?.with_layer(&deadlines).build());
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_keepalive(Some(KEEPALIVE_AFTER));
    tcp.set_keepalive_interval(Some(KEEPALIVE_EVERY));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT));
    let connector = config.rustls_https_connector_with_connector(tcp)?;
    let transport = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(deadlines)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// Time limit of a request that is not a watch, and of the first answer to a watch.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// A watch ends at the latest this long after the requested time.
pub const WATCH_SLACK: Duration = Duration::from_secs(10);

/// Duration of a watch without `timeoutSeconds`: servers end such watches after 30 to 60 minutes.
const WATCH_LIMIT: Duration = Duration::from_mins(60);

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(3);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
/// Used only by kernels without TCP_USER_TIMEOUT.
const KEEPALIVE_PROBES: u32 = 3;
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(5);

/// The time limit of a request has passed.
#[derive(Debug, Error)]
#[error("not answered in full within {} ms", limit.as_millis())]
struct TooLate {
    limit: Duration,
}

#[derive(Clone, Copy, Debug)]
struct DeadlineLayer {
    limit: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadlines<S>;

    fn layer(&self, inner: S) -> Deadlines<S> {
        Deadlines { inner, limit: self.limit }
    }
}

#[derive(Clone, Debug)]
struct Deadlines<S> {
    inner: S,
    limit: Duration,
}

impl<S, B> Service<Request<Body>> for Deadlines<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<Timed<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let start = Instant::now();
        let limit = self.limit;
        let whole = match Purpose::of(&request) {
            Purpose::Request => {
                *request.uri_mut() = with_timeout(request.uri(), limit);
                Some(limit)
            }
            Purpose::Watch { lasts } => Some(lasts + WATCH_SLACK),
            Purpose::Upgrade => None,
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = tokio::time::timeout_at(start + limit, answer)
                .await
                .map_err(|_| TooLate { limit })?
                .map_err(Into::into)?;
            let end = whole.map(|limit| (Box::pin(tokio::time::sleep_until(start + limit)), limit));
            Ok(answer.map(|body| Timed { body, end }))
        })
    }
}

/// Kind of a request; it decides how long the body may take.
#[derive(Debug, Eq, PartialEq)]
enum Purpose {
    Request,
    Watch { lasts: Duration },
    Upgrade,
}

impl Purpose {
    fn of<B>(request: &Request<B>) -> Self {
        if request.headers().contains_key(header::UPGRADE) {
            return Self::Upgrade;
        }
        let parameter = |name: &str| parameters(request.uri()).find(|(key, _)| *key == name).map(|(_, value)| value);
        if !matches!(parameter("watch"), Some("true" | "1")) {
            return Self::Request;
        }
        let asked = parameter("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Self::Watch { lasts: asked.unwrap_or(WATCH_LIMIT).min(WATCH_LIMIT) }
    }
}

fn parameters(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='))
}

/// Adds the parameter `timeout`, unless the URI has one.
fn with_timeout(uri: &Uri, limit: Duration) -> Uri {
    if parameters(uri).any(|(key, _)| key == "timeout") {
        return uri.clone();
    }
    let timeout = format!("timeout={}ms", limit.as_millis());
    let target = match uri.query().filter(|query| !query.is_empty()) {
        Some(query) => format!("{}?{query}&{timeout}", uri.path()),
        None => format!("{}?{timeout}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    let Ok(target) = target.parse() else { return uri.clone() };
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// A body that fails at its time limit.
#[derive(Debug)]
struct Timed<B> {
    body: B,
    end: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl<B> HttpBody for Timed<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some((sleep, limit)) = &mut self.end
            && sleep.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(TooLate { limit: *limit }.into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
