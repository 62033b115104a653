//! The loop against a scripted server on loopback.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, Uri};
use futures::{FutureExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// How the server answers one request.
enum Reply {
    /// No answer at all.
    Nothing,
    /// An error.
    Status(u16),
    /// A list, or the page of one that goes on.
    List(&'static str, Vec<Value>, &'static str),
    /// Events, and how the watch ends.
    Watch(Vec<Value>, End),
}

enum End {
    Closed,
    Cut,
    Open,
}

/// The loop, its output, and its requests.
struct Followed {
    changes: Receiver<Change<ConfigMap>>,
    requests: UnboundedReceiver<String>,
    demand: watch::Sender<Demand>,
}

impl Followed {
    /// Follows a server that answers by this script, and then no longer.
    async fn by(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        let script = Arc::new(Mutex::new(VecDeque::from(script)));
        let answer = move |uri: Uri| {
            // A test that saw what it expects is gone already.
            let _ = seen.send(in_short(&uri));
            let reply = script.lock().unwrap().pop_front().unwrap_or(Reply::Nothing);
            reply.sent()
        };
        tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        let mut config = Config::new(format!("http://{address}").parse().unwrap());
        // As in the client of the process, only the loop retries.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let (demand, asked) = watch::channel(Demand::default());
        let (queue, changes) = mpsc::channel(1);
        let api: Api<DeserializeGuard<ConfigMap>> = Api::all(client);
        spawn(api, asked, queue, |change| change);
        Self { changes, requests, demand }
    }

    async fn next(&mut self) -> String {
        let change = timeout(Duration::from_secs(10), self.changes.recv()).await.expect("a change in time").unwrap();
        let text = |object: &ConfigMap| {
            let Metadata { name, identity } = Metadata::of(&object.metadata);
            format!("{}@{}", name.name, identity.version)
        };
        match change {
            Change::Apply(object) => format!("put {}", text(&object)),
            Change::Broken(broken) => format!("broken {}", broken.metadata.name.name),
            Change::Delete(Metadata { name, identity }) => format!("delete {}@{}", name.name, identity.version),
            Change::Reset(listed) => {
                let objects: Vec<String> = listed.objects.iter().map(text).collect();
                let bad: Vec<String> =
                    listed.undecodable.iter().map(|bad| format!("!{}", bad.metadata.name.name)).collect();
                format!("round {} at {}: {}", listed.round, listed.version, [objects, bad].concat().join(" "))
            }
        }
    }

    async fn expect(&mut self, changes: &[&str]) {
        for change in changes {
            assert_eq!(self.next().await, *change);
        }
    }

    async fn request(&mut self) -> String {
        timeout(Duration::from_secs(10), self.requests.recv()).await.expect("a request in time").unwrap()
    }

    async fn expect_requests(&mut self, requests: &[&str]) {
        for request in requests {
            assert_eq!(self.request().await, *request);
        }
    }

    fn ask(&self, round: u64, forgotten: u64) {
        let floor = None;
        self.demand.send_replace(Demand { round: nth(round), forgotten: nth(forgotten), floor });
    }
}

impl Reply {
    async fn sent(self) -> Response<Body> {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Status(code) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
                let code = StatusCode::from_u16(code).unwrap();
                Response::builder().status(code).body(status.to_string().into()).unwrap()
            }
            Self::List(version, items, next) => {
                let metadata = json!({"resourceVersion": version, "continue": next});
                let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items});
                Response::new(list.to_string().into())
            }
            Self::Watch(events, end) => {
                let lines = events.into_iter().map(|event| match event {
                    // A malformed line.
                    Value::String(line) => format!("{line}\n"),
                    event => format!("{event}\n"),
                });
                let lines: Vec<_> = lines.map(|line| Ok::<_, std::io::Error>(Bytes::from(line))).collect();
                let lines = stream::iter(lines);
                let rest: stream::BoxStream<'static, _> = match end {
                    End::Closed => stream::empty().boxed(),
                    End::Open => stream::pending().boxed(),
                    // The connection must not drop data that was written before.
                    End::Cut => sleep(Duration::from_millis(50))
                        .map(|()| Err(std::io::Error::other("cut")))
                        .into_stream()
                        .boxed(),
                };
                Response::new(Body::from_stream(lines.chain(rest)))
            }
        }
    }
}

/// `list`, `list page TOKEN` or `watch VERSION`. Also checks the required parameters of each request.
fn in_short(uri: &Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let parameter = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    if parameter("watch").is_some() {
        assert_eq!(parameter("allowWatchBookmarks"), Some("true"));
        assert!(WATCH_SECONDS.contains(&parameter("timeoutSeconds").unwrap().parse().unwrap()));
        return format!("watch {}", parameter("resourceVersion").unwrap());
    }
    assert_eq!(parameter("resourceVersion"), None, "a list is read from the store");
    assert_eq!(parameter("limit"), Some("500"));
    parameter("continue").map_or_else(|| "list".to_owned(), |token| format!("list page {token}"))
}

fn nth(round: u64) -> Round {
    (0..round).fold(Round::default(), |round, _| round.next())
}

fn object(name: &str, version: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-of-{name}"),
                     "resourceVersion": version}})
}

fn undecodable(name: &str, version: &str) -> Value {
    let mut object = object(name, version);
    object["data"] = json!("no map");
    object
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: &str) -> Value {
    event("BOOKMARK", &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": version}}))
}

fn expired() -> Value {
    event(
        "ERROR",
        &json!({"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"}),
    )
}

#[tokio::test]
async fn watch_that_is_closed_or_cut_goes_on_from_the_last_version_without_a_list() {
    for (name, end) in [("closed", End::Closed), ("cut", End::Cut)] {
        let first = vec![event("ADDED", &object("b", "11")), event("DELETED", &object("a", "12")), bookmark("20")];
        let mut followed = Followed::by(vec![
            Reply::List("10", vec![object("a", "9")], ""),
            Reply::Watch(first, end),
            Reply::Watch(vec![event("MODIFIED", &object("b", "21"))], End::Open),
        ])
        .await;
        followed.expect(&["round 0 at 10: a@9", "put b@11", "delete a@12", "put b@21"]).await;
        followed.expect_requests(&["list", "watch 10", "watch 20"]).await;
        assert!(followed.requests.try_recv().is_err(), "{name}");
    }
}

#[tokio::test]
async fn watch_that_the_server_cannot_go_on_with_is_followed_by_a_list() {
    let rows: [(&str, fn() -> Reply); 5] = [
        ("410 in the stream", || Reply::Watch(vec![expired()], End::Open)),
        ("410", || Reply::Status(410)),
        ("403", || Reply::Status(403)),
        ("a line that is no event", || Reply::Watch(vec![json!("<html>")], End::Open)),
        ("an event of no known type", || Reply::Watch(vec![event("NEWS", &object("a", "11"))], End::Open)),
    ];
    for (name, reply) in rows {
        let lists = || Reply::List("10", vec![object("a", "9")], "");
        let mut followed = Followed::by(vec![lists(), reply(), lists()]).await;
        followed.expect(&["round 0 at 10: a@9", "round 0 at 10: a@9"]).await;
        assert_eq!(
            [followed.request().await, followed.request().await, followed.request().await].join(", "),
            "list, watch 10, list",
            "{name}"
        );
    }
}

#[tokio::test]
async fn watch_that_an_overloaded_server_refuses_is_tried_again_without_a_list() {
    let mut followed = Followed::by(vec![
        Reply::List("10", vec![], ""),
        Reply::Status(429),
        Reply::Status(503),
        Reply::Watch(vec![event("ADDED", &object("a", "11"))], End::Open),
    ])
    .await;
    followed.expect(&["round 0 at 10: ", "put a@11"]).await;
    followed.expect_requests(&["list", "watch 10", "watch 10", "watch 10"]).await;
}

#[tokio::test]
async fn list_older_than_what_was_seen_is_ignored_and_read_again() {
    let mut followed = Followed::by(vec![
        Reply::List("10", vec![object("a", "9")], ""),
        Reply::Watch(vec![event("ADDED", &object("b", "15")), expired()], End::Open),
        Reply::List("12", vec![object("a", "9")], ""),
        Reply::List("9", vec![], ""),
        Reply::List("15", vec![object("a", "9"), object("b", "15")], ""),
    ])
    .await;
    followed.expect(&["round 0 at 10: a@9", "put b@15", "round 0 at 15: a@9 b@15"]).await;
    followed.expect_requests(&["list", "watch 10", "list", "list", "list", "watch 15"]).await;
}

#[tokio::test]
async fn list_older_than_an_answer_to_the_owner_is_ignored_and_read_again() {
    let list = |version| Reply::List(version, vec![object("a", "9")], "");
    let mut followed = Followed::by(vec![list("10"), Reply::Watch(vec![], End::Open), list("49"), list("50")]).await;
    followed.expect(&["round 0 at 10: a@9"]).await;
    followed.expect_requests(&["list", "watch 10"]).await;
    followed.demand.send_replace(Demand { round: nth(1), floor: Some("50".into()), ..Demand::default() });
    followed.expect(&["round 1 at 50: a@9"]).await;
    followed.expect_requests(&["list", "list", "watch 50"]).await;
}

#[tokio::test]
async fn pages_make_one_list_and_one_that_expired_begins_it_anew() {
    let mut followed = Followed::by(vec![
        Reply::List("10", vec![object("a", "9")], "one"),
        Reply::Status(410),
        Reply::List("11", vec![object("a", "9")], "two"),
        Reply::List("12", vec![object("b", "12")], ""),
        Reply::List("13", vec![object("a", "9")], "three"),
        Reply::List("13", vec![object("b", "12")], ""),
    ])
    .await;
    followed.expect(&["round 0 at 13: a@9 b@12"]).await;
    followed
        .expect_requests(&["list", "list page one", "list", "list page two", "list", "list page three", "watch 13"])
        .await;
}

#[tokio::test]
async fn list_without_a_version_is_no_list() {
    let lists = ["", "11"].map(|version| Reply::List(version, vec![], ""));
    let mut followed = Followed::by(Vec::from(lists)).await;
    followed.expect(&["round 0 at 11: "]).await;
}

#[tokio::test]
async fn refused_lists_are_tried_again_and_send_nothing() {
    let refusals = [403, 404, 429, 500].map(Reply::Status);
    let script = refusals.into_iter().chain([Reply::List("10", vec![], "")]).collect();
    let mut followed = Followed::by(script).await;
    followed.expect(&["round 0 at 10: "]).await;
    followed.expect_requests(&["list"; 5]).await;
}

#[tokio::test]
async fn undecodable_object_is_named_and_logged_once_per_version() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).without_time().with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let list = |version, bad| Reply::List(version, vec![object("a", "8"), undecodable("b", bad)], "");
    let news = vec![
        event("MODIFIED", &undecodable("b", "9")),
        event("MODIFIED", &undecodable("a", "11")),
        event("DELETED", &undecodable("a", "12")),
        expired(),
    ];
    let mut followed = Followed::by(vec![
        list("10", "9"),
        Reply::Watch(news, End::Open),
        list("13", "9"),
        Reply::Watch(vec![expired()], End::Open),
        list("14", "14"),
    ])
    .await;
    followed
        .expect(&[
            "round 0 at 10: a@8 !b",
            "broken b",
            "broken a",
            "delete a@12",
            "round 0 at 13: a@8 !b",
            "round 0 at 14: a@8 !b",
        ])
        .await;
    let lines: Vec<String> = log.lines("objectUndecodable");
    let of = |name: &str| lines.iter().filter(|line| line.contains(&format!("name={name} "))).count();
    assert_eq!((of("b"), of("a")), (2, 1), "{lines:#?}");
}

#[tokio::test]
async fn outage_costs_a_line_at_its_begin_and_one_at_its_end() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).without_time().with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let script = vec![
        Reply::Status(503),
        Reply::Status(503),
        Reply::Status(503),
        Reply::List("10", vec![], ""),
        Reply::Watch(vec![], End::Open),
    ];
    let mut followed = Followed::by(script).await;
    followed.expect(&["round 0 at 10: "]).await;
    followed.expect_requests(&["list", "list", "list", "list", "watch 10"]).await;
    // The line follows the answer to the watch, which this test does not see.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while log.lines("watchResumed").is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((log.lines("watchInterrupted").len(), log.lines("watchResumed").len()), (1, 1));
}

#[tokio::test]
async fn new_round_interrupts_a_hanging_watch_a_hanging_list_and_a_pause() {
    let mut followed = Followed::by(vec![
        Reply::List("10", vec![], ""),
        Reply::Watch(vec![], End::Open),
        Reply::Nothing,
        Reply::List("11", vec![object("a", "11")], ""),
        Reply::Nothing,
    ])
    .await;
    followed.expect(&["round 0 at 10: "]).await;
    followed.expect_requests(&["list", "watch 10"]).await;
    followed.ask(1, 0);
    followed.expect_requests(&["list"]).await;
    followed.ask(2, 0);
    followed.expect(&["round 2 at 11: a@11"]).await;
    followed.expect_requests(&["list", "watch 11"]).await;
    assert!(followed.changes.try_recv().is_err(), "the list of round 1 does not count");
}

#[tokio::test]
async fn new_round_does_not_wait_for_the_pause_after_failures() {
    let mut followed = Followed::by((0..100).map(|_| Reply::Status(503)).collect()).await;
    // The fifth pause is at least 800 ms.
    followed.expect_requests(&["list"; 5]).await;
    for round in 1..=5 {
        followed.ask(round, 0);
        let asked = timeout(Duration::from_millis(400), followed.requests.recv()).await;
        assert_eq!(asked.ok().flatten().as_deref(), Some("list"), "round {round}");
    }
}

#[tokio::test]
async fn restored_store_is_listed_below_the_versions_of_before() {
    let mut followed = Followed::by(vec![
        Reply::List("100", vec![object("a", "90")], ""),
        Reply::Watch(vec![], End::Open),
        Reply::List("50", vec![object("a", "40")], ""),
    ])
    .await;
    followed.expect(&["round 0 at 100: a@90"]).await;
    followed.expect_requests(&["list", "watch 100"]).await;
    followed.ask(1, 1);
    followed.expect(&["round 1 at 50: a@40"]).await;
    followed.expect_requests(&["list", "watch 50"]).await;
}

#[tokio::test]
async fn full_queue_delays_events_and_loses_none() {
    let events = (11..60).map(|version: u32| event("MODIFIED", &object("a", &version.to_string()))).collect();
    let mut followed = Followed::by(vec![Reply::List("10", vec![], ""), Reply::Watch(events, End::Open)]).await;
    followed.expect_requests(&["list"]).await;
    sleep(Duration::from_millis(100)).await;
    followed.expect(&["round 0 at 10: "]).await;
    for version in 11..60 {
        assert_eq!(followed.next().await, format!("put a@{version}"));
    }
}

#[tokio::test]
async fn loop_ends_with_its_owner() {
    let mut followed = Followed::by(vec![Reply::List("10", vec![], "")]).await;
    followed.expect(&["round 0 at 10: "]).await;
    let (nobody, _) = watch::channel(Demand::default());
    drop(std::mem::replace(&mut followed.demand, nobody));
    let end = timeout(Duration::from_secs(10), followed.changes.recv()).await;
    assert!(end.expect("the queue is closed in time").is_none());
}

/// Lines of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, event: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(event)).map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
