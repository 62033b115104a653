//! Measures the latency of one route, from `change_routes` to the socket of the peer: `bgp_one_route OTHER_ROUTES
//! TRIALS`.
//!
//! A speaker and a peer run in one process with a connection on loopback. The peer blocks in `read`; the time is from
//! the call of `change_routes` to the return of that `read`. Trials are one millisecond apart, so that each includes
//! its wake-ups.

#![expect(clippy::print_stdout, reason = "a measurement prints times")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::{Asn, Attributes};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [others, trials] = arguments.as_slice() else { return Err("usage: bgp_one_route OTHER_ROUTES TRIALS".into()) };
    let (others, trials): (u32, u32) = (others.parse()?, trials.parse()?);

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (seen, updates) = mpsc::channel();
    std::thread::spawn(move || listener.accept().ok().and_then(|(stream, _)| follow(stream, &seen).ok()));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _inside = runtime.enter();
    let (events, _) = tokio::sync::mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    let session = SessionConfig::new(Asn(64512), RemoteAsn::Number(Asn(65001)));
    let mut config = PeerConfig::new(session, Endpoint::new(address, Distance::Routed), [192, 0, 2, 7].into());
    config.router_id = Some([192, 0, 2, 7].into());
    speaker.set_peers(BTreeMap::from([("peer".into(), config)]));
    let attributes = Arc::new(Attributes::default());
    // Every second address: the routes of the trials are between them.
    let net = |number: u32| IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    speaker.set_routes("peer", (0..others).map(|number| (net(2 * number), Arc::clone(&attributes))).collect());
    // The initial routes are complete when no more updates arrive.
    updates.recv_timeout(TIMEOUT)?;
    while updates.recv_timeout(Duration::from_millis(300)).is_ok() {}

    for (name, announce) in [("announce", true), ("withdraw", false)] {
        let mut times = Vec::new();
        for trial in 0..trials {
            std::thread::sleep(Duration::from_millis(1));
            // Odd numbers, spread over the range.
            let place = 2 * (u64::from(trial) * u64::from(others.max(trials)) / u64::from(trials)) as u32 + 1;
            let change = announce.then(|| Arc::clone(&attributes));
            let begun = Instant::now();
            speaker.change_routes("peer", vec![(net(place), change)]);
            times.push(updates.recv_timeout(TIMEOUT)?.duration_since(begun));
        }
        times.sort();
        let at = |share: f64| {
            times.get((times.len() as f64 * share) as usize).map_or(0.0, |time| time.as_nanos() as f64 / 1e3)
        };
        println!(
            "{name} beside {others}: p50 {:.1} µs, p90 {:.1} µs, p99 {:.1} µs, {} trials",
            at(0.5),
            at(0.9),
            at(0.99),
            times.len()
        );
    }
    Ok(())
}

/// Plays a peer and reports the arrival times of UPDATE messages.
fn follow(mut stream: TcpStream, seen: &mpsc::Sender<Instant>) -> Outcome<()> {
    let marker = [0xff; 16];
    let open = [&marker[..], &[0, 29, 1, 4], &65001_u16.to_be_bytes(), &[0, 0], &[192, 0, 2, 1], &[0]].concat();
    stream.write_all(&[open, [&marker[..], &[0, 19, 4]].concat()].concat())?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = stream.read(&mut buffer)?;
        let at = Instant::now();
        if length == 0 {
            return Ok(());
        }
        seen.send(at)?;
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
