use std::net::SocketAddr;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service as KubeService;
use kube::api::{Api, ListParams, WatchParams};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn request(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

#[test]
fn purpose_of_a_request_is_read_from_its_query() {
    let seconds = Duration::from_secs;
    for (uri, purpose) in [
        ("/api/v1/services?limit=5", Purpose::Request),
        ("/api/v1/services", Purpose::Request),
        ("/api/v1/services?watch=false", Purpose::Request),
        ("/api/v1/services?fieldSelector=watch%3Dtrue", Purpose::Request),
        ("/api/v1/services?watch=true&timeoutSeconds=290", Purpose::Watch { lasts: seconds(290) }),
        ("/api/v1/services?timeoutSeconds=7&watch=1", Purpose::Watch { lasts: seconds(7) }),
        ("/api/v1/services?watch=true", Purpose::Watch { lasts: WATCH_LIMIT }),
        ("/api/v1/services?watch=true&timeoutSeconds=99999999999", Purpose::Watch { lasts: WATCH_LIMIT }),
    ] {
        assert_eq!(Purpose::of(&request(uri)), purpose, "{uri}");
    }
    let upgrade = Request::get("/exec").header(header::UPGRADE, "websocket").body(()).unwrap();
    assert_eq!(Purpose::of(&upgrade), Purpose::Upgrade);
}

#[test]
fn limit_is_sent_to_the_server_unless_the_caller_set_one() {
    for (uri, expected) in [
        ("/a", "/a?timeout=10000ms"),
        ("/a?", "/a?timeout=10000ms"),
        ("/a?b=c", "/a?b=c&timeout=10000ms"),
        ("/a?timeout=3s", "/a?timeout=3s"),
        ("https://host:6443/a?b=c", "https://host:6443/a?b=c&timeout=10000ms"),
    ] {
        assert_eq!(with_timeout(&uri.parse().unwrap(), REQUEST_LIMIT).to_string(), expected);
    }
}

/// A server that sends `answer` to the first request of each connection, and then nothing.
async fn silent_after(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0_u8; 4096];
            let _ = stream.read(&mut asked).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            open.push(stream);
        }
    });
    address
}

async fn services(address: SocketAddr, limit: Duration) -> Api<KubeService> {
    let config = Config::new(format!("http://{address}").parse().unwrap());
    Api::namespaced(with_limit(config, limit).unwrap(), "default")
}

const LIMIT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn request_without_an_answer_ends_at_its_limit() {
    let services = services(silent_after("").await, LIMIT).await;
    let begun = Instant::now();
    let error = services.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Service(source) if source.is::<TooLate>()), "{error:?}");
    assert!(begun.elapsed() >= LIMIT);
}

#[tokio::test]
async fn request_whose_body_never_ends_ends_at_its_limit() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"kind\":";
    let services = services(silent_after(head).await, LIMIT).await;
    let begun = Instant::now();
    services.list(&ListParams::default()).await.unwrap_err();
    assert!(begun.elapsed() >= LIMIT && begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn watch_without_an_answer_ends_at_the_limit_and_one_with_an_answer_continues() {
    let parameters = WatchParams::default();
    let silent = services(silent_after("").await, LIMIT).await;
    assert!(silent.watch(&parameters, "0").await.is_err());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let answering = services(silent_after(head).await, LIMIT).await;
    let mut events = answering.watch(&parameters, "0").await.unwrap().boxed();
    let event = tokio::time::timeout(LIMIT * 3, events.try_next()).await;
    assert!(event.is_err(), "{event:?}");
}

#[tokio::test]
async fn errors_of_the_server_are_returned_at_once_and_not_retried() {
    let answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n";
    let services = services(silent_after(answer).await, Duration::from_secs(60)).await;
    let error = services.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 429), "{error:?}");
}
