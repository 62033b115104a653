use std::time::Duration;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::routing::get;
use futures::StreamExt as _;
use kube::Config;
use tokio::sync::mpsc;

use super::*;

/// A server that counts its requests, and a client that reaches it through a proxy.
struct Lab {
    proxy: Proxy,
    client: Client,
    /// What the open watches say.
    news: mpsc::UnboundedSender<&'static str>,
    served: watch::Receiver<usize>,
}

impl Lab {
    async fn start() -> Self {
        let (count, served) = watch::channel(0);
        let (news, told) = mpsc::unbounded_channel();
        let told = Arc::new(tokio::sync::Mutex::new(told));
        let things = move |request: axum::extract::Request| {
            let (count, told) = (count.clone(), Arc::clone(&told));
            async move {
                count.send_modify(|count| *count += 1);
                if request.uri().query().is_none_or(|query| !query.contains("watch=1")) {
                    return Response::new(AxumBody::from("things"));
                }
                let stream = stream::unfold(told, |told| async move {
                    let next = told.lock().await.recv().await?;
                    Some((Ok::<_, std::convert::Infallible>(next), told))
                });
                Response::new(AxumBody::from_stream(stream))
            }
        };
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let router = Router::new().route("/things", get(things.clone()).patch(things));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let proxy = Proxy::start(client_of(server)).await;
        let client = client_of(proxy.address());
        Self { proxy, client, news, served }
    }

    async fn get(&self) -> Result<String, kube::Error> {
        self.client.request_text(Request::get("/things").body(Vec::new()).unwrap()).await
    }

    /// An open watch, as the texts that arrive together.
    async fn watch(&self) -> impl futures::Stream<Item = Result<String, kube::Error>> + Unpin + use<> {
        let request = Request::get("/things?watch=1").body(Body::empty()).unwrap();
        let body = self.client.send(request).await.unwrap().into_body();
        let texts = stream::unfold(body, |mut body| async move {
            let frame = body.frame().await?;
            Some((frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()), body))
        });
        texts.boxed()
    }
}

fn client_of(server: SocketAddr) -> Client {
    Client::try_from(Config::new(format!("http://{server}").parse().unwrap())).unwrap()
}

fn reads() -> Matcher {
    Matcher::list("/things")
}

#[tokio::test]
async fn proxy_request_without_a_rule_is_forwarded_and_recorded() {
    let lab = Lab::start().await;
    assert_eq!(lab.get().await.unwrap(), "things");
    let passed = lab.proxy.passed();
    assert_eq!((passed.len(), passed[0].path.as_str(), passed[0].status), (1, "/things", Some(StatusCode::OK)));
    assert_eq!((lab.proxy.count(&reads()), lab.proxy.count(&Matcher::watch("/things"))), (1, 0));
}

#[tokio::test]
async fn proxy_rule_ends_after_its_number_of_requests_or_when_it_is_removed() {
    let lab = Lab::start().await;
    let teapot = || Rule::new(reads()).reply(Reply::Fixed(StatusCode::IM_A_TEAPOT, "{}".into()));
    lab.proxy.add(teapot().times(1));
    assert!(lab.get().await.is_err());
    assert!(lab.get().await.is_ok());
    let rule = lab.proxy.add(teapot());
    lab.proxy.add(Rule::new(Matcher::new(Method::PATCH, "things")).end(End::Cut));
    assert!(lab.get().await.is_err());
    lab.proxy.remove(rule);
    assert!(lab.get().await.is_ok());
    assert_eq!(*lab.served.borrow(), 2, "fixed answers do not reach the server");
}

#[tokio::test]
async fn proxy_gates_hold_requests_and_answers() {
    let lab = Lab::start().await;
    let (request, answer) = (Gate::new(), Gate::new());
    lab.proxy.add(Rule::new(reads()).held(&request).answer_held(&answer));
    let opening = async {
        request.arrived(1).await;
        assert_eq!(*lab.served.borrow(), 0);
        request.open();
        answer.arrived(1).await;
        assert_eq!((*lab.served.borrow(), lab.proxy.passed()[0].status), (1, None));
        answer.open();
    };
    let (got, ()) = tokio::join!(lab.get(), opening);
    assert_eq!(got.unwrap(), "things");
}

#[tokio::test]
async fn proxy_answers_are_delayed_cut_off_or_never_given() {
    let lab = Lab::start().await;
    let delay = Duration::from_millis(200);
    lab.proxy.add(Rule::new(reads()).times(1).answer_delayed(delay));
    let begin = Instant::now();
    assert!(lab.get().await.is_ok());
    assert!(begin.elapsed() >= delay);
    lab.proxy.add(Rule::new(reads()).times(1).end(End::Cut));
    assert!(lab.get().await.is_err());
    assert_eq!(*lab.served.borrow(), 2, "the server has seen what was cut off");
    lab.proxy.add(Rule::new(reads()).times(1).end(End::Never));
    assert!(tokio::time::timeout(delay, lab.get()).await.is_err());
    assert_eq!(*lab.served.borrow(), 3);
    lab.proxy.add(Rule::new(reads()).times(1).reply(Reply::Swallowed));
    assert!(tokio::time::timeout(delay, lab.get()).await.is_err());
    assert_eq!(*lab.served.borrow(), 3);
}

#[tokio::test]
async fn proxy_watches_are_held_released_at_once_and_cut() {
    let lab = Lab::start().await;
    let mut watch = lab.watch().await;
    lab.news.send("a").unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), "a");
    lab.proxy.hold_watches("/things");
    lab.news.send("b").unwrap();
    lab.news.send("c").unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), watch.next()).await.is_err());
    lab.proxy.release_watches();
    assert_eq!(watch.next().await.unwrap().unwrap(), "bc");
    lab.proxy.cut_watches("/others");
    lab.news.send("d").unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), "d");
    lab.proxy.cut_watches("/things");
    assert!(watch.next().await.unwrap().is_err());
}

#[tokio::test]
async fn proxy_frozen_connections_look_dead_and_new_ones_work() {
    let lab = Lab::start().await;
    assert!(lab.get().await.is_ok());
    lab.proxy.freeze();
    assert!(tokio::time::timeout(Duration::from_millis(200), lab.get()).await.is_err());
    // A client with no open connection.
    let fresh = client_of(lab.proxy.address());
    assert!(fresh.request_text(Request::get("/things").body(Vec::new()).unwrap()).await.is_ok());
}
