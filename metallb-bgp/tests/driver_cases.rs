//! The reliability cases again, over a real connection: what the decoder's test shows of one message, a router sees of a speaker.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]

#[path = "cases/mod_bgp.rs"]
mod cases;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cases::{Case, cases, hex, message};
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::Family;
use metallb_bgp::wire::DecodeContext;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

/// What a router sees after it has sent the message of a case.
#[derive(Debug, Eq, PartialEq)]
enum Seen {
    /// Our NOTIFICATION.
    Notification(Vec<u8>),
    /// The connection ends without one.
    End,
}

#[tokio::test]
async fn every_case_has_its_reaction_over_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut shown, mut wrong) = (0, Vec::new());
    for case in cases() {
        let context = &case.context;
        // This end has an IPv4 address, so that it never asks for IPv6 next hops.
        let Some(bytes) = case.bytes.as_deref().filter(|_| !context.extended_next_hop) else { continue };
        let seen = timeout(PATIENCE, play(&case, bytes, &listener, address)).await.expect("the connection ends");
        let agrees = match (case.reaction.strip_prefix("N "), &seen) {
            (Some(expected), Seen::Notification(found)) => {
                let (codes, data) = expected.split_once(' ').unwrap_or((expected, ""));
                let codes: Vec<u8> = codes.split('/').map(|code| code.parse().unwrap()).collect();
                // A row that gives no data leaves it open.
                found[..2] == codes && (data.is_empty() || found[2..] == hex(data))
            }
            (None, Seen::End) => true,
            _ => false,
        };
        if !agrees {
            wrong.push(format!("{}: {seen:02x?}, not {}", case.id, case.reaction));
        }
        shown += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(shown > 200, "only {shown} rows were played");
}

/// Plays the router: brings the session to where the message belongs, sends it, and an orderly end after it.
async fn play(case: &Case, bytes: &[u8], listener: &TcpListener, address: SocketAddr) -> Seen {
    let speaker = speaker(&case.context, address);
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(read_message(&mut stream).await.map(|(kind, _)| kind), Some(OPEN));
    let opens = bytes.get(18) == Some(&OPEN);
    if !opens {
        stream.write_all(&[open(&case.context), message(KEEPALIVE, &[])].concat()).await.unwrap();
    }
    stream.write_all(bytes).await.unwrap();
    match case.reaction.as_str() {
        // What would be read as the rest of the message must not follow.
        "more" => stream.shutdown().await.unwrap(),
        // It may have closed the connection already.
        _ => drop(stream.write_all(&message(NOTIFICATION, &[6, 4])).await),
    }
    let mut keepalives = 0;
    let seen = loop {
        match read_message(&mut stream).await {
            Some((NOTIFICATION, body)) => break Seen::Notification(body),
            Some((KEEPALIVE, _)) => keepalives += 1,
            Some(_) => {}
            None => break Seen::End,
        }
    };
    let accepted = seen == Seen::End;
    assert!(!accepted || keepalives == 1, "{}: the OPEN is answered", case.id);
    let counters = speaker.snapshot()["router"].counters;
    let updates = u64::from(accepted && bytes.get(18) == Some(&UPDATE) && case.reaction != "more");
    assert_eq!(counters.updates_received, updates, "{}", case.id);
    seen
}

fn speaker(context: &DecodeContext, address: SocketAddr) -> Speaker {
    let families = [Family::Ipv4, Family::Ipv6].into_iter().filter(|family| context.carries(*family)).collect();
    let config = PeerConfig {
        session: SessionConfig {
            families,
            extended_messages: context.extended_messages,
            ..SessionConfig::new(context.local_asn, RemoteAsn::Number(context.remote_asn))
        },
        endpoint: Endpoint::new(address, Distance::Routed),
        router_id: Some([172, 16, 1, 11].into()),
        fallback_router_id: [192, 0, 2, 1].into(),
        bfd: None,
    };
    let (events, _) = mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    speaker.set_peers(BTreeMap::from([(Arc::from("router"), config)]));
    speaker
}

/// The OPEN that brings a session into the context of a case.
fn open(context: &DecodeContext) -> Vec<u8> {
    let mut capabilities = hex("0104 0001 0001");
    if context.ipv6 {
        capabilities.extend(hex("0104 0002 0001"));
    }
    if context.enhanced_refresh {
        capabilities.extend(hex("0200 4600"));
    }
    if context.four_octet_asn {
        capabilities.extend(hex("4104"));
        capabilities.extend(context.remote_asn.0.to_be_bytes());
    }
    let length = capabilities.len() as u8;
    let fixed = [&[4][..], &context.remote_asn.two_octets().to_be_bytes(), &hex("005a 0a000001")].concat();
    message(OPEN, &[&fixed[..], &[length + 2, 2, length], &capabilities].concat())
}

async fn read_message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    stream.read_exact(&mut header).await.ok()?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
    stream.read_exact(&mut body).await.ok()?;
    Some((header[18], body))
}

/// More than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
