//! From `BGPPeer` to the sessions of one node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metallb_bgp::io::{Endpoint, PeerConfig};
use metallb_bgp::session::{RemoteAsn, SessionConfig};
use metallb_bgp::types::{Asn, Family};
use metallb_core::config::{Config, Peer, PeerEndpoint, RemoteAsn as Remote};
use metallb_core::model::{IpFamily, Node};
use metallb_core::routes::peers_of;

/// The sessions that `node` holds.
pub(super) fn configs(config: &Config, node: &Node) -> BTreeMap<Arc<str>, PeerConfig> {
    peers_of(config, node).filter_map(|peer| Some((peer.name.as_str().into(), peer_config(peer, node)?))).collect()
}

fn peer_config(peer: &Peer, node: &Node) -> Option<PeerConfig> {
    let PeerEndpoint::Address(address) = peer.endpoint else {
        tracing::warn!(peer = peer.name.as_str(), "unnumbered peers are not supported yet, the peer is left out");
        return None;
    };
    if peer.bfd_profile.is_some() {
        tracing::warn!(peer = peer.name.as_str(), "BFD is not supported yet, the session runs without it");
    }
    let asn = Asn(peer.local_asn.unwrap_or(peer.my_asn));
    let remote = match peer.remote_asn {
        Remote::Number(number) => RemoteAsn::Number(Asn(number)),
        Remote::Internal => RemoteAsn::Internal,
        Remote::External => RemoteAsn::External,
    };
    let internal = remote == RemoteAsn::Internal || remote == RemoteAsn::Number(asn);
    let families = [(IpFamily::V4, Family::Ipv4), (IpFamily::V6, Family::Ipv6)];
    Some(PeerConfig {
        session: SessionConfig {
            hold_time: peer.hold_time.unwrap_or(DEFAULT_HOLD_TIME),
            keepalive_time: peer.keepalive_time,
            connect_time: peer.connect_time,
            families: families
                .into_iter()
                .filter(|(family, _)| peer.carries(*family))
                .map(|(_, family)| family)
                .collect(),
            graceful_restart: peer.graceful_restart,
            ..SessionConfig::new(asn, remote)
        },
        endpoint: Endpoint {
            address: SocketAddr::new(address, peer.port),
            source: peer.source_address.filter(|source| source.is_ipv4() == address.is_ipv4()),
            ttl: (!internal && !peer.ebgp_multihop && !is_loopback(address)).then_some(1),
            password: peer.password.as_ref().map(|password| password.expose().as_bytes().to_vec()),
            device: peer.vrf.as_ref().map(ToString::to_string),
        },
        router_id: peer.router_id,
        fallback_router_id: router_id_of(node.name.as_str()),
    })
}

fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

/// The identifier of a node without an IPv4 address: the CRC-32 of its name, lowest byte first (contract speaker §3.1).
fn router_id_of(node: &str) -> Ipv4Addr {
    let crc = node.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    Ipv4Addr::from((!crc).to_le_bytes())
}

/// What upstream proposes where no hold time is configured.
const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_id_of_a_node_without_ipv4_is_that_of_fact_110() {
        assert_eq!(router_id_of("kind-worker"), Ipv4Addr::new(192, 61, 154, 117));
        assert_eq!(router_id_of("pandora"), Ipv4Addr::new(117, 188, 221, 68));
    }
}
