//! Measures the cost of further peers with the same routes: `bgp_many_peers PEERS ROUTES [v6]`.
//!
//! A speaker has the given number of sessions over loopback. The peers are in another process, which is not measured.
//! Processor time and memory are those of the process of the speaker: with sessions and no routes, and after all routes
//! were advertised to every peer.

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

use metallb_benches::usage::{cpu, memory};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Error>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (receive, peers, routes, v6) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", peers, address] => return receive(peers.parse()?, address.parse()?),
        [peers, routes] => ("127.0.0.1", peers, routes, false),
        [peers, routes, "v6"] => ("::1", peers, routes, true),
        _ => return Err("usage: bgp_many_peers PEERS ROUTES [v6]".into()),
    };
    let mut receivers = Command::new(std::env::current_exe()?)
        .args(["receive", peers, receive])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(receivers.stdout.take().ok_or("no output")?).lines();
    let addresses = lines.take(peers.parse()?).map(|line| Ok(line?.parse()?)).collect::<Outcome<Vec<SocketAddr>>>()?;
    // The runtime of the speaker process.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&addresses, routes.parse()?, v6))?;
    // The receivers end with their input.
    drop(receivers.stdin.take());
    receivers.wait()?;
    Ok(())
}

async fn measure(addresses: &[SocketAddr], routes: u32, v6: bool) -> Outcome<()> {
    let (events, _) = tokio::sync::mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    let config = |address: &SocketAddr| {
        let mut session = SessionConfig::new(Asn(ASN), RemoteAsn::Number(Asn(PEER_ASN)));
        session.families = vec![if v6 { Family::Ipv6 } else { Family::Ipv4 }];
        let mut config = PeerConfig::new(session, Endpoint::new(*address, Distance::Routed), ROUTER_ID.into());
        config.router_id = Some(ROUTER_ID.into());
        config
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
    until(&speaker, |advertised, _| advertised == routes as usize).await;
    // The last of it is on its way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    println!(
        "{} peers, {routes} routes: {:.1} ms of processor time; resident {idle:.1} MiB before, {:.1} after, \
         {:.1} at most",
        addresses.len(),
        (cpu(&us)? - before).as_secs_f64() * 1e3,
        memory(&us, "VmRSS:")?,
        memory(&us, "VmHWM:")?,
    );
    Ok(())
}

async fn until(speaker: &Speaker, done: impl Fn(usize, State) -> bool) {
    while !speaker.snapshot().values().all(|peer| done(peer.routes_advertised, peer.state)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs peers that read all messages, until the input ends.
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
    let mut capabilities = Capabilities::default();
    capabilities.families = vec![Family::Ipv4, Family::Ipv6];
    capabilities.four_octet_asn = true;
    let mut hello = Vec::new();
    Open::new(Asn(PEER_ASN), 90, RouterId([192, 0, 2, 1].into()), capabilities).encode(&mut hello);
    wire::keepalive(&mut hello);
    stream.write_all(&hello)?;
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

const ROUTER_ID: [u8; 4] = [192, 0, 2, 7];
const ASN: u32 = 64_512;
const PEER_ASN: u32 = 65_001;
