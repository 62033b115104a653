//! From `BGPPeer` to the sessions of one node, and back to what a user wants to know about them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metallb_bgp::bfd::{Hops, Interval, Profile, Role, SessionSnapshot};
use metallb_bgp::io::bfd_udp::BfdReport;
use metallb_bgp::io::{BfdConfig, Distance, Endpoint, PeerConfig, PeerSnapshot, Router, Withheld, WithheldReason};
use metallb_bgp::ipnet::IpNet;
use metallb_bgp::session::{Mode, Negotiated, RemoteAsn, SessionConfig, State};
use metallb_bgp::types::{Asn, Family};
use metallb_core::config::{BfdProfile, Config, Peer, PeerEndpoint, RemoteAsn as Remote};
use metallb_core::model::{IpFamily, Node};
use metallb_core::routes::peers_of;
use serde::Serialize;

use super::advice;

/// A peer, for `/status`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// `metadata.name`
    pub name: String,
    /// The router that is configured: an address and port, or an interface and port.
    pub router: String,
    /// The number that is accepted of it; `internal` or `external` where any such is.
    pub expected_asn: String,
    /// State of the session.
    pub state: String,
    /// Seconds since it is established.
    pub uptime_seconds: Option<u64>,
    /// Routes that the peer was told.
    pub routes: usize,
    /// Routes that the peer should know.
    pub routes_wanted: usize,
    /// Routes that the peer should know and is not told, and why, in words.
    pub withheld: Vec<String>,
    /// The remedy, if the reason of the last end does not contain it.
    pub advice: Option<String>,
    /// The next attempt waits for BFD for so many seconds at most.
    pub waits_for_bfd_seconds: Option<u64>,
    /// Why it ended last; a NOTIFICATION stands in words and numbers. Also an attempt that failed is an end.
    pub last_down: Option<String>,
    /// Why the last session that was established ended; attempts that fail since do not hide it.
    pub last_session: Option<EndedSession>,
    /// Our end of the connection.
    pub local_address: Option<SocketAddr>,
    /// The router's end of the connection.
    pub remote_address: Option<SocketAddr>,
    /// What both ends agreed on; from the router's OPEN on.
    pub negotiated: Option<NegotiatedStatus>,
    /// What BFD says, where the peer has a profile.
    pub bfd: Option<BfdPeerStatus>,
}

/// A session that was established once.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedSession {
    /// Why it ended, in words.
    pub ended_because: String,
    /// And how long ago.
    pub seconds_ago: u64,
}

/// What both ends of a session agreed on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiatedStatus {
    /// The router's number.
    pub remote_asn: u32,
    /// The router's identifier.
    pub remote_router_id: Ipv4Addr,
    /// The hold time in force; 0 is none.
    pub hold_time_seconds: u64,
    /// `ipv4-unicast`, `ipv6-unicast`, and what else is in force.
    pub capabilities: Vec<&'static str>,
}

/// What BFD says of the path to a router.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdPeerStatus {
    /// `Up`, `Init`, `Down` or `AdminDown`.
    pub state: String,
    /// What changed it last, a stable word.
    pub cause: Option<&'static str>,
    /// How often the path failed while it was Up.
    pub failures: u64,
    /// Why it cannot run at the moment.
    pub problem: Option<String>,
    /// What both ends agreed on, once the router spoke.
    pub timers: Option<BfdTimers>,
}

/// The timers of a BFD session; those of the router as it told last.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdTimers {
    /// In force: we send a packet so often, but for jitter; nothing while we send none.
    pub transmit_microseconds: Option<u64>,
    /// In force: the router sends one so often.
    pub receive_microseconds: u64,
    /// We give the router up after so long a silence.
    pub detection_microseconds: u64,
    /// The router gives us up after so long a silence.
    pub remote_detection_microseconds: u64,
    /// The router would send one so often, if we took it.
    pub remote_transmit_microseconds: u64,
    /// The router takes one so often.
    pub remote_receive_microseconds: u64,
    /// So many of the router's may be lost in a row.
    pub remote_detect_multiplier: u8,
}

impl PeerStatus {
    /// `routes` are the prefixes that the peer should know.
    pub(super) fn new(
        name: &str,
        peer: PeerSnapshot,
        bfd: &BfdReport,
        config: Option<&PeerConfig>,
        routes: impl Fn() -> Vec<IpNet>,
    ) -> Self {
        let is_down = peer.state != State::Established;
        let advice = peer.last_down.as_ref().zip(config).filter(|_| is_down);
        let advice = advice.and_then(|(reason, config)| advice::advice(name, reason, config, peer.last_open));
        let left = peer.waits_for_bfd_until.map(|at| at.saturating_duration_since(Instant::now()));
        let session = peer.bfd_path.as_ref().and_then(|path| bfd.session(path));
        Self {
            name: name.to_owned(),
            router: match &peer.router {
                Router::Address(address) => address.to_string(),
                Router::Unnumbered { interface, port } => format!("{interface}:{port}"),
            },
            expected_asn: match peer.remote {
                RemoteAsn::Number(asn) => asn.to_string(),
                RemoteAsn::Internal => "internal".to_owned(),
                RemoteAsn::External => "external".to_owned(),
            },
            state: peer.state.to_string(),
            uptime_seconds: peer.established_at.map(|at| at.elapsed().as_secs()),
            routes: peer.routes_advertised,
            routes_wanted: peer.routes_wanted,
            withheld: withheld(&peer, routes),
            advice,
            waits_for_bfd_seconds: left.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0)),
            last_down: peer.last_down.map(|reason| reason.to_string()),
            last_session: peer.last_session.map(|ended| EndedSession {
                ended_because: ended.reason.to_string(),
                seconds_ago: ended.at.elapsed().as_secs(),
            }),
            local_address: peer.addresses.map(|(local, _)| local),
            remote_address: peer.addresses.map(|(_, remote)| remote),
            negotiated: peer.negotiated.as_ref().map(NegotiatedStatus::new),
            bfd: peer.bfd.map(|bfd| BfdPeerStatus {
                state: bfd.state.to_string(),
                cause: bfd.cause.map(metallb_bgp::bfd::Cause::as_str),
                failures: bfd.failures,
                problem: bfd.problem.map(|problem| problem.to_string()),
                timers: session.and_then(BfdTimers::of),
            }),
        }
    }
}

/// Why routes are not advertised, a sentence for each family.
fn withheld(peer: &PeerSnapshot, routes: impl Fn() -> Vec<IpNet>) -> Vec<String> {
    if peer.withheld.is_empty() {
        return Vec::new();
    }
    let routes = routes();
    let sentence = |withheld: &Withheld| {
        let is_of_family = |net: &&IpNet| Family::of(net.addr()) == withheld.family;
        let mut names: Vec<String> = routes.iter().filter(is_of_family).take(3).map(ToString::to_string).collect();
        if withheld.routes > names.len() {
            names.push(format!("{} more", withheld.routes - names.len()));
        }
        let family = match withheld.family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        let why = match withheld.reason {
            WithheldReason::NotNegotiated => format!(
                "the OPEN of the router does not name {family} unicast: activate this family for the neighbor there"
            ),
            WithheldReason::NotConfigured => format!(
                "the session carries no {family}: set dualStackAddressFamily, or add a BGPPeer with an {family} address"
            ),
            _ => {
                let local = peer.addresses.map_or_else(String::new, |(local, _)| format!(" with {}", local.ip()));
                format!("this node has no usable {family} address on the interface{local} as next hop: add one")
            }
        };
        format!("{} not advertised: {why}", names.join(", "))
    };
    peer.withheld.iter().map(sentence).collect()
}

impl BfdTimers {
    fn of(session: &SessionSnapshot) -> Option<Self> {
        // An hour or two at most.
        let microseconds = |time: Duration| time.as_micros() as u64;
        let remote = session.remote_timers?;
        Some(Self {
            transmit_microseconds: session.transmit_interval.map(microseconds),
            receive_microseconds: microseconds(session.receive_interval?),
            detection_microseconds: microseconds(session.detection_time),
            remote_detection_microseconds: microseconds(session.remote_detection_time),
            remote_transmit_microseconds: remote.transmit_interval.0.into(),
            remote_receive_microseconds: remote.receive_interval.0.into(),
            remote_detect_multiplier: remote.detect_multiplier.get(),
        })
    }
}

impl NegotiatedStatus {
    fn new(negotiated: &Negotiated) -> Self {
        let carries = |family| negotiated.families.contains(&family);
        let capabilities = [
            (carries(Family::Ipv4), "ipv4-unicast"),
            (carries(Family::Ipv6), "ipv6-unicast"),
            (negotiated.four_octet_asn, "four-octet-asn"),
            (negotiated.route_refresh, "route-refresh"),
            (negotiated.enhanced_refresh, "enhanced-route-refresh"),
            (negotiated.extended_messages, "extended-messages"),
            (negotiated.extended_next_hop, "extended-next-hop"),
            (negotiated.graceful_restart, "graceful-restart"),
        ];
        Self {
            remote_asn: negotiated.remote_asn.0,
            remote_router_id: negotiated.remote_router_id.0,
            hold_time_seconds: negotiated.hold_time.as_secs(),
            capabilities: capabilities.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect(),
        }
    }
}

/// The sessions that `node` holds. In a VRF nobody listens.
pub(super) fn configs(config: &Config, node: &Node, mode: Mode) -> BTreeMap<Arc<str>, PeerConfig> {
    let mode_of = |peer: &Peer| if peer.vrf.is_some() { Mode::Active } else { mode };
    peers_of(config, node)
        .map(|peer| (peer.name.as_str().into(), peer_config(peer, config, node, mode_of(peer))))
        .collect()
}

fn peer_config(peer: &Peer, config: &Config, node: &Node, mode: Mode) -> PeerConfig {
    let asn = Asn(peer.local_asn.unwrap_or(peer.my_asn));
    let remote = match peer.remote_asn {
        Remote::Number(number) => RemoteAsn::Number(Asn(number)),
        Remote::Internal => RemoteAsn::Internal,
        Remote::External => RemoteAsn::External,
    };
    let internal = remote == RemoteAsn::Internal || remote == RemoteAsn::Number(asn);
    let families = [(IpFamily::V4, Family::Ipv4), (IpFamily::V6, Family::Ipv6)];
    let mut session = SessionConfig::new(asn, remote);
    session.hold_time = peer.hold_time.unwrap_or(DEFAULT_HOLD_TIME);
    session.keepalive_time = peer.keepalive_time;
    session.connect_time = peer.connect_time;
    session.families =
        families.into_iter().filter(|(family, _)| peer.carries(*family)).map(|(_, family)| family).collect();
    session.graceful_restart = peer.graceful_restart;
    session.mode = mode;
    let distance = if internal || peer.ebgp_multihop { Distance::Routed } else { Distance::Direct };
    let mut endpoint = match &peer.endpoint {
        PeerEndpoint::Address(address) => {
            let mut endpoint = Endpoint::new(SocketAddr::new(*address, peer.port), distance);
            endpoint.source = peer.source_address.filter(|source| source.is_ipv4() == address.is_ipv4());
            endpoint
        }
        // The only usable source address is the link-local one.
        PeerEndpoint::Interface(interface) => Endpoint::unnumbered(interface.to_string(), peer.port, distance),
    };
    endpoint.password = peer.password.as_ref().map(|password| password.expose().as_bytes().to_vec());
    endpoint.device = peer.vrf.as_ref().map(ToString::to_string);
    let mut peer_config = PeerConfig::new(session, endpoint, router_id_of(node.name.as_str()));
    peer_config.router_id = peer.router_id;
    let profile = peer.bfd_profile.as_ref().and_then(|name| config.bfd_profiles.get(name));
    peer_config.bfd = profile.map(|profile| {
        let mut bfd = BfdConfig::new(bfd_profile(profile));
        // Within an autonomous system only the addresses say how far a router is.
        bfd.hops = (!internal).then_some(if peer.ebgp_multihop { Hops::Multiple } else { Hops::Single });
        bfd
    });
    peer_config
}

fn bfd_profile(profile: &BfdProfile) -> Profile {
    let mut parameters = Profile::default();
    parameters.receive_interval = Interval::from(profile.receive_interval);
    parameters.transmit_interval = Interval::from(profile.transmit_interval);
    parameters.detect_multiplier = NonZeroU8::new(profile.detect_multiplier).unwrap_or(NonZeroU8::MIN);
    parameters.echo = profile.echo_mode.then(|| Interval::from(profile.echo_interval));
    parameters.role = if profile.passive_mode { Role::Passive } else { Role::Active };
    parameters.minimum_ttl = profile.minimum_ttl;
    parameters
}

/// The identifier of a node without an IPv4 address: the CRC-32 of its name, lowest byte first
/// (`docs/upstream-behaviour.md#bgp-router-id`).
fn router_id_of(node: &str) -> Ipv4Addr {
    let crc = node.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    usable_router_id((!crc).to_le_bytes())
}

/// Some routers do not accept an identifier in 0/8, 127/8 or 224/3, so its first bit or two are changed.
fn usable_router_id([first, rest @ ..]: [u8; 4]) -> Ipv4Addr {
    let first = match first {
        0 | 127 => first ^ 0b0100_0000,
        224.. => first & 0b0111_1111,
        _ => first,
    };
    // 224 to 255 became 96 to 127.
    let first = if first == 127 { 63 } else { first };
    Ipv4Addr::new(first, rest[0], rest[1], rest[2])
}

/// What upstream proposes where no hold time is configured.
const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests;
