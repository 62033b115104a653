//! Announces one route to one router, and withdraws it on Ctrl-C.
//!
//! `cargo run -p metallb-bgp --example announce -- 172.16.1.254:179 7776 10.254.254.1/32`

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use metallb_bgp::io::{Distance, Endpoint, PeerConfig, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::{Asn, Attributes, Family};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: announce ROUTER:PORT OUR-ASN PREFIX");
    let (address, asn, prefix) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    let mut session = SessionConfig::new(Asn(asn), RemoteAsn::External);
    session.families = vec![Family::Ipv4, Family::Ipv6];
    let config = PeerConfig::new(session, Endpoint::new(address, Distance::Routed), [192, 0, 2, 1].into());

    let (sender, mut events) = tokio::sync::mpsc::channel(16);
    let mut speaker = Speaker::new(sender, std::process::id().into());
    speaker.set_peers(BTreeMap::from([(Arc::from("router"), config)]));
    speaker.set_routes("router", BTreeMap::from([(prefix, Arc::new(Attributes::default()))]));
    loop {
        tokio::select! {
            Some(event) = events.recv() => eprintln!("{}: {:?}", event.peer, event.event),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    speaker.shutdown(false, Duration::from_secs(1)).await;
    Ok(())
}
