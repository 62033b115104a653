//! What further peers cost that are told the same: `many_peers PEERS ROUTES`, or `many_peers PEERS ROUTES v6` for routes of IPv6.
//!
//! A speaker with so many sessions over loopback; the peers are a process of their own, which is not counted. Processor time and memory are
//! those of the speaker's process: with sessions and no routes, and after every peer was told all of them.

#![allow(clippy::print_stdout, reason = "a measurement prints what it measured")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig, State};
use metallb_bgp::types::{Asn, Attributes, Family, RouterId};
use metallb_bgp::wire;
use metallb_bgp::wire::open::{Capabilities, Open};

use self::usage::{cpu, memory};

#[path = "bgp_rate/usage.rs"]
mod usage;

type Error = Box<dyn std::error::Error>;
type Outcome<T> = Result<T, Error>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (receive, peers, routes, v6) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", peers, address] => return receive(peers.parse()?, address.parse()?),
        [peers, routes] => ("127.0.0.1", peers, routes, false),
        [peers, routes, "v6"] => ("::1", peers, routes, true),
        _ => return Err("usage: many_peers PEERS ROUTES [v6]".into()),
    };
    let mut receivers = Command::new(std::env::current_exe()?)
        .args(["receive", peers, receive])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(receivers.stdout.take().ok_or("no output")?).lines();
    let addresses = lines.take(peers.parse()?).map(|line| Ok(line?.parse()?)).collect::<Outcome<Vec<SocketAddr>>>()?;
    // As the product does.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&addresses, routes.parse()?, v6))?;
    // They end with their input.
    drop(receivers.stdin.take());
    receivers.wait()?;
    Ok(())
}

async fn measure(addresses: &[SocketAddr], routes: u32, v6: bool) -> Outcome<()> {
    let (events, _) = tokio::sync::mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    let config = |address: &SocketAddr| PeerConfig {
        session: SessionConfig {
            families: vec![if v6 { Family::Ipv6 } else { Family::Ipv4 }],
            ..SessionConfig::new(Asn(ASN), RemoteAsn::Number(Asn(PEER_ASN)))
        },
        endpoint: Endpoint::new(*address, Distance::Routed),
        router_id: Some([192, 0, 2, 7].into()),
        fallback_router_id: [192, 0, 2, 7].into(),
        bfd: None,
    };
    let peer = |address: &SocketAddr| (Arc::from(address.to_string()), config(address));
    speaker.set_peers(addresses.iter().map(peer).collect());
    until(&speaker, |_, state| state == State::Established).await;
    let us = [std::process::id()];
    let (before, idle) = (cpu(&us)?, memory(&us, "VmRSS:")?);

    let attributes = Arc::new(Attributes::default());
    let address = |number: u32| match v6 {
        true => IpAddr::from(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number))),
        false => IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)),
    };
    let route = |number| (IpNet::from(address(number)), Arc::clone(&attributes));
    let peers: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    speaker.set_routes_of(peers.iter().map(String::as_str), (0..routes).map(route).collect());
    until(&speaker, |told, _| told == routes as usize).await;
    // The last of it is on its way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    println!(
        "{} peers, {routes} routes: {:.1} ms of processor time; resident {idle:.1} MiB before, {:.1} after, {:.1} at most",
        addresses.len(),
        (cpu(&us)? - before).as_secs_f64() * 1e3,
        memory(&us, "VmRSS:")?,
        memory(&us, "VmHWM:")?,
    );
    Ok(())
}

async fn until(speaker: &Speaker, done: impl Fn(usize, State) -> bool) {
    while !speaker.snapshot().values().all(|peer| done(peer.routes_told, peer.state)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Peers that take all that comes, until the input ends.
fn receive(peers: usize, address: IpAddr) -> Outcome<()> {
    for _ in 0..peers {
        let listener = TcpListener::bind((address, 0))?;
        println!("{}", listener.local_addr()?);
        std::thread::spawn(move || listener.accept().ok().and_then(|(stream, _)| follow(stream).ok()));
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn follow(mut stream: TcpStream) -> Outcome<()> {
    let families = vec![Family::Ipv4, Family::Ipv6];
    let capabilities = Capabilities { families, four_octet_asn: true, ..Capabilities::default() };
    let mut hello = Vec::new();
    Open { asn: Asn(PEER_ASN), hold_time: 90, router_id: RouterId([192, 0, 2, 1].into()), capabilities }
        .encode(&mut hello);
    wire::keepalive(&mut hello);
    stream.write_all(&hello)?;
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

const ASN: u32 = 64_512;
const PEER_ASN: u32 = 65_001;
