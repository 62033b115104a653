//! Our speaker as a process of its own, which is told what to decide by lines of its input.

use std::io::BufRead as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::{Asn, Attributes};

use super::stage::{ASN, Error, ONE, RECEIVER, RECEIVER_ASN, now};

/// Announces until its input ends. A line says how many routes to offer instead of those so far, or that the one route is to be offered
/// (`+`) or withdrawn (`-`) beside them; the answer is the time at which the speaker was told.
pub(crate) fn run() -> Result<(), Error> {
    // As the product does.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (lines, mut next) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        let (events, _) = tokio::sync::mpsc::channel(16);
        let mut speaker = Speaker::new(events, 1);
        let session = SessionConfig {
            connect_time: Some(Duration::from_secs(1)),
            ..SessionConfig::new(Asn(ASN), RemoteAsn::Number(Asn(RECEIVER_ASN)))
        };
        let endpoint = Endpoint::new(SocketAddr::from((RECEIVER, 179)), Distance::Direct);
        let config =
            PeerConfig { session, endpoint, router_id: None, fallback_router_id: [192, 0, 2, 1].into(), bfd: None };
        speaker.set_peers([(Arc::from(PEER), config)].into());
        let attributes = Arc::new(Attributes::default());
        while let Some(line) = next.recv().await {
            let route = |address: IpAddr| (IpNet::from(address), Arc::clone(&attributes));
            let one = route(ONE.into());
            let decided = match line.as_str() {
                "+" => {
                    let decided = now();
                    speaker.change_routes(PEER, vec![(one.0, Some(one.1))]);
                    decided
                }
                "-" => {
                    let decided = now();
                    speaker.change_routes(PEER, vec![(one.0, None)]);
                    decided
                }
                count => {
                    let first = u32::from_be_bytes([10, 0, 0, 0]);
                    let address = |number: u32| IpAddr::from((first + number).to_be_bytes());
                    let routes = (0..count.parse()?).map(|number| route(address(number))).collect();
                    let decided = now();
                    speaker.set_routes(PEER, routes);
                    decided
                }
            };
            #[expect(clippy::print_stdout, reason = "the answer")]
            {
                println!("{}", decided.as_nanos());
            }
        }
        Ok(())
    })
}

const PEER: &str = "receiver";
