//! The client that the process uses for the Kubernetes API: kube's own stack, with a deadline for everything.
//!
//! - A request that is no watch ends within [`REQUEST_LIMIT`], its body included. The server learns the limit from the
//!   parameter `timeout`, so that it stops working on an answer that nobody waits for.
//! - A watch must be answered within the same limit. Its stream ends [`WATCH_SLACK`] after the time for which it asked
//!   the server (`timeoutSeconds`) at the latest: a server that is alive and silent does not hold it for ever.
//! - A connection whose other end does not answer is closed after 11 s. The first probe is sent after 5 s without
//!   traffic, the next ones every 3 s, and with TCP_USER_TIMEOUT Linux gives up at the first of these moments that lies
//!   10 s or more after the last packet. Data that is not acknowledged ends the connection after 10 s.
//! - Nothing is tried again in here. kube's own retries sleep inside of a request, for as long as the server asks for,
//!   while the caller holds its permit; they would also hide that a write was answered with 504 and may have been done.

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

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account is usable.
    #[error("no configuration for the Kubernetes API")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The configuration cannot be turned into a client.
    #[error("the Kubernetes client can't be built")]
    Client(#[source] Box<kube::Error>),
}

/// Infers the configuration (kubeconfig or service account) and builds the client that all of the process uses. The configuration
/// is for those that need connections of their own.
///
/// # Errors
/// [`ConnectError`]. A server that is away is none: nothing is sent here.
pub async fn connect() -> Result<(Config, Client), ConnectError> {
    let config = Config::infer().await.map_err(|error| ConnectError::Config(Box::new(error)))?;
    let client = with_deadlines(config.clone()).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok((config, client))
}

/// A client with the deadlines of this module. To be called in a tokio runtime, in which its connections then live.
///
/// # Errors
/// What is wrong with `config`: TLS, credentials, or a proxy (which this build does not support).
pub fn with_deadlines(config: Config) -> Result<Client, kube::Error> {
    with_limit(config, REQUEST_LIMIT)
}

/// The same with another limit for requests that are no watches.
pub(crate) fn with_limit(mut config: Config, limit: Duration) -> Result<Client, kube::Error> {
    let deadlines = DeadlineLayer { limit };
    if config.proxy_url.is_some() {
        // kube chooses the connector for the kind of proxy, or says that it was built without.
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

/// The limit of a request that is no watch, and of the time until a watch is answered.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// How long after the time that it asked for a watch ends at the latest.
pub const WATCH_SLACK: Duration = Duration::from_secs(10);

/// For how long a watch may last that names no `timeoutSeconds`: servers end such watches after 30 to 60 minutes.
const WATCH_LIMIT: Duration = Duration::from_mins(60);

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(3);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
/// Counts only where the kernel does not know TCP_USER_TIMEOUT.
const KEEPALIVE_PROBES: u32 = 3;
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(5);

/// The time of a request is over.
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

/// What a request is for; it decides how long its body may take.
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

/// The same URI, with the parameter `timeout`, unless it has one.
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

/// A body that fails when its time is over.
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
