//! The speaker over real connections on loopback, with a router that misbehaves. Case numbers are those of `bgp.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{ConnectionError, DownReason, Mode, RemoteAsn, SessionConfig, State};
use metallb_bgp::types::{Asn, Attributes};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

fn config(address: SocketAddr) -> PeerConfig {
    let session = SessionConfig::new(Asn(7776), RemoteAsn::Number(Asn(65001)));
    let mut config = PeerConfig::new(session, Endpoint::new(address, Distance::Routed), [192, 0, 2, 1].into());
    config.router_id = Some([172, 16, 1, 11].into());
    config
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn speaker(peers: &[(&str, PeerConfig)]) -> Speaker {
    let (events, _) = mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    speaker.set_peers(peers.iter().map(|(name, config)| (Arc::from(*name), config.clone())).collect());
    speaker
}

fn host_routes(count: u32) -> BTreeMap<IpNet, Arc<Attributes>> {
    let attributes = Arc::default();
    let net = |number: u32| IpNet::from(std::net::IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    (0..count).map(|number| (net(number), Arc::clone(&attributes))).collect()
}

fn raw(length: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    raw(19 + body.len() as u16, kind, body)
}

/// An OPEN with these fields and optional parameters.
fn open(version: u8, asn: u16, hold: u16, id: u32, parameters: &[u8]) -> Vec<u8> {
    let fixed = [&[version][..], &asn.to_be_bytes(), &hold.to_be_bytes(), &id.to_be_bytes()].concat();
    message(OPEN, &[&fixed[..], parameters].concat())
}

fn good_open() -> Vec<u8> {
    open(4, 65001, 90, 0x0a00_0001, &[0])
}

async fn read_message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    stream.read_exact(&mut header).await.ok()?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
    stream.read_exact(&mut body).await.ok()?;
    Some((header[18], body))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = timeout(TIMEOUT, listener.accept()).await.expect("a connection").unwrap();
    assert_eq!(read_message(&mut stream).await.map(|(kind, _)| kind), Some(OPEN));
    stream
}

async fn accept_and_establish(listener: &TcpListener) -> TcpStream {
    let mut stream = accept(listener).await;
    stream.write_all(&[good_open(), message(KEEPALIVE, &[])].concat()).await.unwrap();
    assert_eq!(read_message(&mut stream).await.map(|(kind, _)| kind), Some(KEEPALIVE));
    stream
}

/// Reads to the end of the connection and returns the body of the last message if it is a NOTIFICATION.
async fn last_notification(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut last = None;
    while let Some((kind, body)) = timeout(TIMEOUT, read_message(stream)).await.expect("the connection ends") {
        assert!(last.is_none(), "nothing follows a NOTIFICATION");
        last = (kind == NOTIFICATION).then_some(body);
    }
    last
}

/// The number of the case, the state in which the router sends its bytes, the bytes, and the NOTIFICATION in response.
type Case = (&'static str, When, Vec<u8>, Option<&'static [u8]>);

#[derive(Clone, Copy, Debug)]
enum When {
    OpenSent,
    Established,
}

#[tokio::test]
async fn malformed_input_causes_its_notification() {
    use When::{Established, OpenSent};
    let base = |parameters: &[u8]| open(4, 65001, 90, 0x0a00_0001, parameters);
    let mut first = message(KEEPALIVE, &[]);
    first[0] = 0;
    let mut last = message(KEEPALIVE, &[]);
    last[15] = 0xfe;
    let rows: Vec<Case> = vec![
        ("H01", OpenSent, first, Some(&[1, 1])),
        ("H02", OpenSent, last, Some(&[1, 1])),
        ("H03", OpenSent, raw(0, KEEPALIVE, &[]), Some(&[1, 2, 0, 0])),
        ("H04", OpenSent, raw(18, KEEPALIVE, &[]), Some(&[1, 2, 0, 18])),
        ("H05", Established, raw(4097, UPDATE, &[]), Some(&[1, 2, 0x10, 1])),
        ("H06", OpenSent, raw(0xffff, OPEN, &[]), Some(&[1, 2, 0xff, 0xff])),
        ("H07", Established, raw(4097, KEEPALIVE, &[]), Some(&[1, 2, 0x10, 1])),
        ("H08", OpenSent, raw(28, OPEN, &[0; 9]), Some(&[1, 2, 0, 28])),
        ("H09", Established, raw(22, UPDATE, &[0; 3]), Some(&[1, 2, 0, 22])),
        ("H10", Established, message(KEEPALIVE, &[0]), Some(&[1, 2, 0, 20])),
        ("H11", Established, message(NOTIFICATION, &[6]), None),
        ("H13", Established, message(0, &[]), Some(&[1, 3, 0])),
        ("H14", Established, message(0xff, &[]), Some(&[1, 3, 0xff])),
        ("H15", Established, message(0x80, &[]), Some(&[1, 3, 0x80])),
        ("H22", Established, [message(KEEPALIVE, &[]), vec![0], message(KEEPALIVE, &[])].concat(), Some(&[1, 1])),
        ("O01", OpenSent, open(3, 65001, 90, 1, &[0]), Some(&[2, 1, 0, 4])),
        ("O02", OpenSent, open(5, 65001, 90, 1, &[0]), Some(&[2, 1, 0, 4])),
        ("O03", OpenSent, open(4, 0, 90, 1, &[0]), Some(&[2, 2])),
        ("O04", OpenSent, open(4, 65002, 90, 1, &[0]), Some(&[2, 2])),
        ("O05", OpenSent, open(4, 23456, 90, 1, &[0]), Some(&[2, 2])),
        ("O06", OpenSent, base(&[8, 2, 6, 65, 4, 0, 0, 0xfd, 0xea]), Some(&[2, 2])),
        ("O07", OpenSent, base(&[8, 2, 6, 65, 4, 0, 0, 0, 0]), Some(&[2, 2])),
        ("O08", OpenSent, open(4, 65001, 1, 1, &[0]), Some(&[2, 6, 0, 1])),
        ("O09", OpenSent, open(4, 65001, 2, 1, &[0]), Some(&[2, 6, 0, 2])),
        ("O12", OpenSent, open(4, 65001, 90, 0, &[0]), Some(&[2, 3, 0, 0, 0, 0])),
        ("O16", OpenSent, base(&[0xff]), Some(&[2, 0])),
        ("O17", OpenSent, base(&[5, 2, 1, 0]), Some(&[2, 0])),
        ("O18", OpenSent, base(&[2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(&[2, 0])),
        ("O19", OpenSent, base(&[0xff, 0xff, 0]), Some(&[2, 0])),
        ("O21", OpenSent, base(&[0xff, 0xff, 0, 2, 0, 1]), Some(&[2, 0])),
        ("O25", OpenSent, base(&[3, 1, 1, 0]), Some(&[2, 4])),
        ("O26", OpenSent, base(&[3, 0xfe, 1, 0]), Some(&[2, 4])),
        ("O27", OpenSent, base(&[3, 2, 1, 1]), Some(&[2, 0])),
        ("O31", OpenSent, base(&[6, 2, 4, 65, 4, 0, 0]), Some(&[2, 0])),
        ("O47", Established, good_open(), Some(&[5, 3, 1])),
        ("N01", Established, message(NOTIFICATION, &[0, 0]), None),
        ("N02", Established, message(NOTIFICATION, &[0xff; 4077]), None),
        ("N06", Established, message(NOTIFICATION, b"\x06\x02\x06\n\x1b[2J\0"), None),
        ("N07", Established, message(NOTIFICATION, &[6, 9]), None),
        ("U01", Established, message(UPDATE, &[0, 5, 0, 0]), Some(&[3, 1])),
        ("U02", Established, message(UPDATE, &[0, 0, 0, 5]), Some(&[3, 1])),
        ("FSM, RFC 6608", OpenSent, message(KEEPALIVE, &[]), Some(&[5, 1, 4])),
    ];
    let (listener, address) = listener().await;
    for (case, when, bytes, expected) in rows {
        let speaker = speaker(&[("router", config(address))]);
        let mut stream = match when {
            OpenSent => accept(&listener).await,
            Established => accept_and_establish(&listener).await,
        };
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(last_notification(&mut stream).await.as_deref(), expected, "{case} in {when:?}");
        assert_ne!(speaker.snapshot()["router"].state, State::Established, "{case}");
    }
}

/// H16
#[tokio::test]
async fn connection_that_ends_within_a_header_is_lost_without_a_notification() {
    let (listener, address) = listener().await;
    for length in 0..19 {
        let speaker = speaker(&[("router", config(address))]);
        let mut stream = accept(&listener).await;
        stream.write_all(&good_open()[..length]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(last_notification(&mut stream).await, None, "{length}");
        let last_down = speaker.snapshot()["router"].last_down.clone();
        assert_eq!(last_down, Some(DownReason::ConnectionLost(ConnectionError::ClosedByPeer)), "{length}");
    }
}

/// H19
#[tokio::test]
async fn messages_may_be_split_anywhere() {
    let (listener, address) = listener().await;
    let bytes = [good_open(), message(KEEPALIVE, &[])].concat();
    for at in (1..bytes.len()).step_by(5) {
        let speaker = speaker(&[("router", config(address))]);
        let mut stream = accept(&listener).await;
        stream.set_nodelay(true).unwrap();
        stream.write_all(&bytes[..at]).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(&bytes[at..]).await.unwrap();
        assert_eq!(read_message(&mut stream).await.map(|(kind, _)| kind), Some(KEEPALIVE), "{at}");
        until(|| speaker.snapshot()["router"].state == State::Established).await;
    }
}

/// H21, I37
#[tokio::test]
async fn flooding_peer_does_not_delay_other_peers() {
    let ((flood, flooder), (calm, neighbour)) = (listener().await, listener().await);
    let speaker = speaker(&[("flooder", config(flooder)), ("neighbour", config(neighbour))]);
    let mut stream = accept_and_establish(&flood).await;
    let mut other = accept_and_establish(&calm).await;
    let flooding = tokio::spawn(async move {
        let refresh = message(5, &[0, 1, 0, 1]);
        let block = [message(KEEPALIVE, &[]), refresh].concat().repeat(1000);
        // It reads nothing, so that the responses block.
        while stream.write_all(&block).await.is_ok() {}
    });
    speaker.set_routes("flooder", host_routes(10_000));
    let start = Instant::now();
    tokio::time::sleep(Duration::from_millis(200)).await;
    speaker.set_routes("neighbour", host_routes(1));
    let update = timeout(TIMEOUT, read_message(&mut other)).await.expect("the neighbour gets an update");
    assert_eq!(update.map(|(kind, _)| kind), Some(UPDATE));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    flooding.abort();
}

#[tokio::test]
async fn peers_that_share_routes_get_equal_updates_at_their_own_pace() {
    let [(one, fast), (two, slow), (three, other)] = [listener().await, listener().await, listener().await];
    let speaker = speaker(&[("fast", config(fast)), ("slow", config(slow)), ("other", config(other))]);
    let mut fast = accept_and_establish(&one).await;
    let mut slow = accept_and_establish(&two).await;
    let _other = accept_and_establish(&three).await;
    // More than fits into the buffers of a connection.
    let count = 1_000_000;
    speaker.set_routes_of(["fast", "slow", "nobody"], host_routes(count));
    let mut updates = Vec::new();
    while updates.len() < count.div_ceil(810) as usize {
        let update = timeout(TIMEOUT, read_message(&mut fast)).await.expect("an update").unwrap();
        assert_eq!(update.0, UPDATE);
        updates.push(update.1);
    }
    let behind = speaker.snapshot();
    assert_eq!(behind["fast"].routes_advertised, count as usize);
    assert!(behind["slow"].routes_advertised < count as usize, "nothing was read there");
    assert_eq!((behind["slow"].routes_wanted, behind["other"].routes_wanted), (count as usize, 0));
    for expected in updates {
        let update = timeout(TIMEOUT, read_message(&mut slow)).await.expect("an update").unwrap();
        assert_eq!(update, (UPDATE, expected));
    }
}

#[tokio::test]
async fn connection_has_the_source_address_if_this_host_has_it() {
    let (listener, address) = listener().await;
    for (source, from) in [(None, "127.0.0.1"), (Some("127.0.0.9"), "127.0.0.9"), (Some("192.0.2.77"), "127.0.0.1")] {
        let mut config = config(address);
        config.endpoint.source = source.map(|source| source.parse().unwrap());
        let _speaker = speaker(&[("router", config)]);
        let (_, peer) = timeout(TIMEOUT, listener.accept()).await.expect("a connection").unwrap();
        assert_eq!(peer.ip().to_string(), from, "{source:?}");
    }
}

#[tokio::test]
async fn failed_attempts_do_not_replace_the_reason_of_the_last_session() {
    let (listener, address) = listener().await;
    let speaker = speaker(&[("router", config(address))]);
    let mut stream = accept_and_establish(&listener).await;
    until(|| speaker.snapshot()["router"].state == State::Established).await;
    assert_eq!(speaker.snapshot()["router"].last_session, None);
    drop(listener);
    stream.write_all(&message(NOTIFICATION, &[6, 2])).await.unwrap();
    drop(stream);
    let refused = "connect failed: Connection refused";
    let last_down = || speaker.snapshot()["router"].last_down.as_ref().map(ToString::to_string);
    until(|| last_down().as_deref() == Some(refused)).await;
    let ended = speaker.snapshot()["router"].last_session.as_ref().map(|ended| ended.reason.to_string());
    assert_eq!(ended.as_deref(), Some("received Cease: Administrative Shutdown (6/2)"));
}

/// N10
#[tokio::test]
async fn peer_that_closes_at_once_is_retried_after_a_pause() {
    let (listener, address) = listener().await;
    let _speaker = speaker(&[("router", config(address))]);
    let mut attempts = 0;
    let count = async {
        loop {
            let mut stream = accept_and_establish(&listener).await;
            attempts += 1;
            stream.write_all(&message(NOTIFICATION, &[6, 2])).await.unwrap();
        }
    };
    let _ = timeout(Duration::from_secs(3), count).await;
    assert!((2..=4).contains(&attempts), "{attempts} attempts in three seconds");
}

#[tokio::test]
async fn slow_reader_gets_every_route_and_commands_do_not_disturb_the_connection_attempt() {
    let (listener, address) = listener().await;
    let speaker = speaker(&[("router", config(address))]);
    // During the connection attempt.
    for count in [1, 10, 30_000] {
        speaker.set_routes("router", host_routes(count));
    }
    let mut stream = accept_and_establish(&listener).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut prefixes = 0;
    while prefixes < 30_000 {
        let (kind, body) =
            timeout(TIMEOUT, read_message(&mut stream)).await.expect("more routes").expect("more routes");
        assert_eq!(kind, UPDATE);
        let attributes = usize::from(u16::from_be_bytes([body[2], body[3]]));
        prefixes += (body.len() - 4 - attributes) / 5;
    }
    assert_eq!(prefixes, 30_000);
    let counters = speaker.snapshot()["router"].counters;
    assert_eq!((counters.opens_sent, counters.established), (1, 1));
    speaker.shutdown(false, TIMEOUT).await;
    assert_eq!(last_notification(&mut stream).await.unwrap()[..2], [6, 2]);
}

/// A change after a pause is written by the calling thread; further changes and whole tables are written by the task of
/// the peer.
#[tokio::test]
async fn route_changes_are_applied_in_the_order_of_the_calls() {
    let (listener, address) = listener().await;
    let speaker = speaker(&[("router", config(address))]);
    let received = Arc::new(Mutex::new(BTreeSet::new()));
    speaker.set_routes("router", host_routes(50));
    let reader = tokio::spawn(follow(accept_and_establish(&listener).await, Arc::clone(&received)));
    let all: Vec<(IpNet, Arc<Attributes>)> = host_routes(60).into_iter().collect();
    let mut random = SmallRng::seed_from_u64(1);
    for round in 0..300 {
        // The task does not run before the next pause. Its commands must not be overtaken by direct writes.
        let mut wanted = host_routes(0);
        for step in 0..round % 8 {
            if step == round % 3 {
                wanted = host_routes(random.random_range(0..60));
                speaker.set_routes("router", wanted.clone());
            }
            let (prefix, attributes) = &all[random.random_range(0..all.len())];
            let change = random.random::<bool>().then(|| Arc::clone(attributes));
            match &change {
                Some(attributes) => drop(wanted.insert(*prefix, Arc::clone(attributes))),
                None => drop(wanted.remove(prefix)),
            }
            speaker.change_routes("router", vec![(*prefix, change)]);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if round % 8 > round % 3 {
            let wanted = wanted.keys().map(ToString::to_string).collect();
            until(|| *received.lock().unwrap() == wanted).await;
        }
    }
    assert!(!reader.is_finished());
    assert_eq!(speaker.snapshot()["router"].counters.established, 1);
}

/// Maintains the routing table of a peer.
async fn follow(mut stream: TcpStream, received: Arc<Mutex<BTreeSet<String>>>) {
    let prefixes = |bytes: &[u8]| -> Vec<String> {
        bytes.chunks(5).map(|chunk| format!("{}.{}.{}.{}/32", chunk[1], chunk[2], chunk[3], chunk[4])).collect()
    };
    while let Some((kind, body)) = read_message(&mut stream).await {
        let end = |at: usize| at + 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        if kind == UPDATE {
            let mut received = received.lock().unwrap();
            for withdrawn in prefixes(&body[2..end(0)]) {
                assert!(received.remove(&withdrawn), "only announced routes are withdrawn");
            }
            received.extend(prefixes(&body[end(end(0))..]));
        }
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition becomes true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Case F07 over TCP: two speakers connect to each other at the same time.
#[tokio::test]
async fn two_speakers_that_connect_to_each_other_keep_one_session() {
    let (listener_a, address_a) = listener().await;
    let (listener_b, address_b) = listener().await;
    let both = |asn, remote, address, id: [u8; 4]| {
        let mut config = config(address);
        config.session = SessionConfig::new(Asn(asn), RemoteAsn::Number(Asn(remote)));
        config.session.mode = Mode::Both;
        config.session.connect_time = Some(Duration::from_secs(1));
        config.router_id = Some(id.into());
        config
    };
    let mut speakers = [
        speaker(&[("other", both(65001, 65002, address_b, [10, 0, 0, 1]))]),
        speaker(&[("other", both(65002, 65001, address_a, [10, 0, 0, 2]))]),
    ];
    speakers.iter().for_each(|speaker| speaker.set_routes("other", host_routes(100)));
    let deadline = Instant::now() + TIMEOUT;
    let mut agreed_since = None;
    // The state must be stable for a second: an unresolved collision would end the session.
    while agreed_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(1)) {
        assert!(Instant::now() < deadline, "{:?}", speakers.each_ref().map(Speaker::snapshot));
        tokio::select! {
            accepted = listener_a.accept() => assert!(speakers[0].accept("other", accepted.unwrap().0)),
            accepted = listener_b.accept() => assert!(speakers[1].accept("other", accepted.unwrap().0)),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        let agreed = speakers.iter().all(|speaker| {
            let peer = &speaker.snapshot()["other"];
            peer.state == State::Established && peer.routes_advertised == 100
        });
        agreed_since = if agreed { agreed_since.or_else(|| Some(Instant::now())) } else { None };
    }
    let counters = speakers.each_ref().map(|speaker| speaker.snapshot()["other"].counters);
    assert_eq!(counters.map(|counters| counters.prefixes_dropped), [100, 100]);
    assert!(!speakers[0].accept("nobody", TcpStream::connect(address_a).await.unwrap()));
    speakers.iter_mut().for_each(|speaker| drop(speaker.set_peers(BTreeMap::new())));
}

/// More than any step takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
