//! The speaker of metallb-bgp in a process of its own, controlled by lines of its input.

use std::io::BufRead as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::{Asn, Attributes};

use super::stage::{ASN, Error, ONE, RECEIVER, RECEIVER_ASN, now};

/// Runs until its input ends. A line with a number replaces all routes by that many; `+` and `-` announce and withdraw
/// the single route. The response is the time before the call.
pub(crate) fn run() -> Result<(), Error> {
    // The runtime of the speaker process.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (lines, mut next) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        let (events, _) = tokio::sync::mpsc::channel(16);
        let mut speaker = Speaker::new(events, 1);
        let mut session = SessionConfig::new(Asn(ASN), RemoteAsn::Number(Asn(RECEIVER_ASN)));
        session.connect_time = Some(Duration::from_secs(1));
        let endpoint = Endpoint::new(SocketAddr::from((RECEIVER, 179)), Distance::Direct);
        let config = PeerConfig::new(session, endpoint, [192, 0, 2, 1].into());
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
            #[expect(clippy::print_stdout, reason = "the response")]
            {
                println!("{}", decided.as_nanos());
            }
        }
        Ok(())
    })
}

const PEER: &str = "receiver";
