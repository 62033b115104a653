//! The cases of the table over a real connection: the reaction of the speaker as a router sees it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig, State};
use metallb_bgp::types::{Asn, Family};
use metallb_bgp::wire::DecodeContext;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::table::{Case, How, KINDS, When, case_u28, cases, hex, message};

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

/// The reaction that a router sees after the message of a case.
#[derive(Debug, Eq, PartialEq)]
enum Seen {
    /// A NOTIFICATION of the speaker.
    Notification(Vec<u8>),
    /// The connection ends without one.
    End,
}

#[tokio::test]
async fn connection_reacts_to_every_case_as_in_the_table() {
    let (shown, silent): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(|case| case.bytes.is_some());
    assert!(silent.iter().all(|case| KINDS.contains(&case.reaction.as_str())));
    assert!(shown.len() >= 750, "only {} rows have bytes", shown.len());
    // The cases with three seconds of silence run concurrently.
    let (silent_peers, others): (Vec<Case>, Vec<Case>) = shown.into_iter().partition(|case| case.how == How::Silent);
    let silent_peers: Vec<_> =
        silent_peers.into_iter().map(|case| tokio::spawn(async move { check(&case).await })).collect();
    let mut wrong = Vec::new();
    for case in others {
        wrong.extend(check(&case).await);
    }
    for case in silent_peers {
        wrong.extend(case.await.unwrap());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Plays a case in all its variants and returns the differences from the table.
async fn check(case: &Case) -> Vec<String> {
    // IPv6 next hops for IPv4 prefixes are negotiated only on a connection without IPv4.
    let loopback = if case.context.extended_next_hop { "[::1]:0" } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(loopback).await.unwrap();
    let bytes = case.bytes.as_deref().unwrap_or_default();
    let plays: Vec<Vec<&[u8]>> = match case.how {
        How::Whole | How::Silent => vec![vec![bytes]],
        How::Split => (1..bytes.len()).map(|at| <[_; 2]>::from(bytes.split_at(at)).to_vec()).collect(),
        How::Cut | How::Reset => (0..bytes.len()).map(|at| vec![&bytes[..at]]).collect(),
    };
    let mut wrong = Vec::new();
    for segments in plays {
        let seen = timeout(TIMEOUT, play(case, &segments, &listener)).await.expect("the connection ends");
        let expected = case.answer.as_ref().unwrap_or(&case.reaction);
        let agrees = match (expected.strip_prefix("N "), &seen) {
            (Some(expected), Seen::Notification(found)) => {
                let (codes, data) = expected.split_once(' ').unwrap_or((expected, ""));
                let codes: Vec<u8> = codes.split('/').map(|code| code.parse().unwrap()).collect();
                // A row without data accepts any data.
                found[..2] == codes && (data.is_empty() || found[2..] == hex(data))
            }
            (None, Seen::End) => true,
            _ => false,
        };
        if !agrees {
            wrong.push(format!("{}: {seen:02x?}, not {expected}", case.id));
        }
    }
    wrong
}

/// Plays the router: brings the session into the state of the case, sends the message, then ends the session.
async fn play(case: &Case, segments: &[&[u8]], listener: &TcpListener) -> Seen {
    let bytes = segments.concat();
    let speaker = speaker(&case.context, listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(read_message(&mut stream).await.map(|(kind, _)| kind), Some(OPEN));
    let hold = if case.how == How::Silent { 3 } else { 90 };
    match case.when {
        When::OpenSent => {}
        When::OpenConfirm => stream.write_all(&open(&case.context, hold)).await.unwrap(),
        When::Established => {
            stream.write_all(&[open(&case.context, hold), message(KEEPALIVE, &[])].concat()).await.unwrap();
        }
    }
    stream.set_nodelay(true).unwrap();
    for segment in segments {
        // The speaker may have closed the connection already.
        drop(stream.write_all(segment).await);
        tokio::task::yield_now().await;
    }
    match case.how {
        How::Silent => {}
        How::Reset => {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(stream);
            until(|| speaker.snapshot()["router"].last_down.is_some()).await;
            assert_eq!(speaker.snapshot()["router"].counters.notifications_sent, 0, "{}", case.id);
            return Seen::End;
        }
        // Further bytes would be decoded as the rest of the message.
        _ if case.how == How::Cut || case.reaction == "more" => stream.shutdown().await.unwrap(),
        _ => drop(stream.write_all(&message(NOTIFICATION, &[6, 4])).await),
    }
    let (mut keepalives, mut others) = (0, 0);
    let seen = loop {
        match read_message(&mut stream).await {
            Some((NOTIFICATION, body)) => break Seen::Notification(body),
            Some((KEEPALIVE, _)) => keepalives += 1,
            Some(_) => others += 1,
            None => break Seen::End,
        }
    };
    assert!(others <= 20, "{}: too many messages ({others})", case.id);
    let accepted = seen == Seen::End && case.how != How::Cut;
    let opened = case.when != When::OpenSent || bytes.get(18) == Some(&OPEN);
    assert!(!accepted || keepalives == u64::from(opened), "{}: the OPEN is answered by KEEPALIVE", case.id);
    let counters = speaker.snapshot()["router"].counters;
    let updates = u64::from(accepted && bytes.get(18) == Some(&UPDATE) && case.reaction != "more");
    assert_eq!(counters.updates_received, updates, "{}", case.id);
    let sound = ["accept", "eor4", "eor6"].contains(&case.reaction.as_str());
    assert_eq!(counters.updates_malformed, if sound { 0 } else { updates }, "{}", case.id);
    seen
}

/// The attributes of case U28: one session survives all harmless ones, and each kind of fatal ones ends a session.
#[tokio::test]
async fn connection_reacts_to_all_attribute_types_flags_and_lengths() {
    let context = DecodeContext::new(Asn(64512), Asn(65001));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let speaker_of = |listener: &TcpListener| speaker(&context, listener.local_addr().unwrap());
    let establish = async |listener: &TcpListener| {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[open(&context, 90), message(KEEPALIVE, &[])].concat()).await.unwrap();
        stream
    };
    let (fatal, harmless): (Vec<_>, Vec<_>) = case_u28().partition(|(_, fatal)| *fatal);
    let speaker = speaker_of(&listener);
    let mut stream = establish(&listener).await;
    for (bytes, _) in &harmless {
        stream.write_all(bytes).await.unwrap();
    }
    let all = harmless.len() as u64;
    until(|| speaker.snapshot()["router"].counters.updates_received == all).await;
    assert_eq!(speaker.snapshot()["router"].state, State::Established);
    drop((speaker, stream));
    // One of each type, with varying flags and lengths.
    for (bytes, _) in fatal.iter().step_by(19) {
        let _speaker = speaker_of(&listener);
        let mut stream = establish(&listener).await;
        stream.write_all(bytes).await.unwrap();
        let last = async {
            loop {
                match read_message(&mut stream).await {
                    Some((NOTIFICATION, body)) => break body,
                    Some(_) => {}
                    None => panic!("it ends without a NOTIFICATION"),
                }
            }
        };
        assert_eq!(timeout(TIMEOUT, last).await.expect("an answer")[..2], [3, 2], "{bytes:02x?}");
    }
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, wait).await.expect("the condition becomes true");
}

fn speaker(context: &DecodeContext, address: SocketAddr) -> Speaker {
    let families = [Family::Ipv4, Family::Ipv6].into_iter().filter(|family| context.carries(*family)).collect();
    let mut session = SessionConfig::new(context.local_asn, RemoteAsn::Number(context.remote_asn));
    session.families = families;
    session.extended_messages = context.extended_messages;
    let endpoint = Endpoint::new(address, Distance::Routed);
    let mut config = PeerConfig::new(session, endpoint, [192, 0, 2, 1].into());
    config.router_id = Some([172, 16, 1, 11].into());
    let (events, _) = mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    speaker.set_peers(BTreeMap::from([(Arc::from("router"), config)]));
    speaker
}

/// The OPEN that negotiates the context of a case.
fn open(context: &DecodeContext, hold: u8) -> Vec<u8> {
    let mut capabilities = Vec::new();
    if context.ipv4 {
        capabilities.extend(hex("0104 0001 0001"));
    }
    if context.ipv6 {
        capabilities.extend(hex("0104 0002 0001"));
    }
    if context.extended_next_hop {
        capabilities.extend(hex("0506 0001 0001 0002"));
    }
    if context.enhanced_refresh {
        capabilities.extend(hex("0200 4600"));
    }
    if context.four_octet_asn {
        capabilities.extend(hex("4104"));
        capabilities.extend(context.remote_asn.0.to_be_bytes());
    }
    let length = capabilities.len() as u8;
    let fixed = [&[4][..], &context.remote_asn.two_octets().to_be_bytes(), &[0, hold], &hex("0a000001")].concat();
    message(OPEN, &[&fixed[..], &[length + 2, 2, length], &capabilities].concat())
}

async fn read_message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    stream.read_exact(&mut header).await.ok()?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
    stream.read_exact(&mut body).await.ok()?;
    Some((header[18], body))
}

/// More than any step takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
