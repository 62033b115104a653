//! `BGPPeer` and `BFDProfile` objects (`docs/upstream-behaviour.md#configuration-peers`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::duration::parse_go_duration;
use super::spec::{BfdProfileSpec, Password, PeerSpec, SecretSpec, Spec as _};
use super::{BfdProfile, ConfigReason, Peer, PeerEndpoint, Pool, Problem, RemoteAsn, node_selection, parse_selectors};
use crate::address::canonical;
use crate::model::{BfdProfileName, Cluster, IpFamily, PeerName, PoolName};

pub(super) fn parse_bfd_profiles(
    specs: Vec<&BfdProfileSpec>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<BfdProfileName, BfdProfile> {
    let mut profiles = BTreeMap::new();
    for spec in specs {
        let before = problems.len();
        let mut bounded = |name: &str, value: Option<i64>, min: i64, max: i64, default: u16| match value {
            None => default,
            Some(value) if (min..=max).contains(&value) => u16::try_from(value).unwrap_or(default),
            Some(value) => {
                let message = format!("invalid {name} {value}: must be in {min}..={max}");
                problems.push(Problem::error(
                    spec.reference(),
                    format!("spec.{name}"),
                    ConfigReason::OutOfRange,
                    message,
                ));
                default
            }
        };
        let mut interval =
            |name: &str, value, default| Duration::from_millis(bounded(name, value, 10, 60_000, default).into());
        let receive_interval = interval("receiveInterval", spec.receive_interval, 300);
        let transmit_interval = interval("transmitInterval", spec.transmit_interval, 300);
        let echo_interval = interval("echoInterval", spec.echo_interval, 50);
        let multiplier = bounded("detectMultiplier", spec.detect_multiplier, 2, 255, 3);
        let ttl = bounded("minimumTtl", spec.minimum_ttl, 1, 254, 254);
        if problems.len() > before {
            continue;
        }
        let profile = BfdProfile {
            receive_interval,
            transmit_interval,
            detect_multiplier: u8::try_from(multiplier).unwrap_or(u8::MAX),
            echo_interval,
            echo_mode: spec.echo_mode,
            passive_mode: spec.passive_mode,
            minimum_ttl: u8::try_from(ttl).unwrap_or(u8::MAX),
        };
        profiles.insert(spec.meta.name.as_str().into(), profile);
    }
    profiles
}

pub(super) fn parse_peers(
    specs: &[&PeerSpec],
    secrets: &[SecretSpec],
    profiles: &BTreeMap<BfdProfileName, BfdProfile>,
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) -> BTreeMap<PeerName, Peer> {
    let mut peers: BTreeMap<PeerName, Peer> = BTreeMap::new();
    for spec in specs {
        let mut parser = PeerParser { spec, problems, failed: false };
        let Some(peer) = parser.parse(secrets, profiles) else { continue };
        let duplicate = peers.values().find(|other| {
            other.endpoint == peer.endpoint
                && other.port == peer.port
                && other.vrf == peer.vrf
                && share_a_node(other, &peer, cluster)
        });
        if let Some(other) = duplicate {
            let message = format!(
                "peer {} already exists as \"{}\": a node opens only one session to a router",
                peer.metric_label(),
                other.name
            );
            let field = "spec.peerAddress";
            problems.push(Problem::error(spec.reference(), field, ConfigReason::DuplicatePeer, message));
            continue;
        }
        peers.insert(peer.name.clone(), peer);
    }
    peers
}

/// Whether some node has sessions with both peers. If no node is known, this is assumed
/// (`docs/upstream-behaviour.md#configuration-peers`).
fn share_a_node(a: &Peer, b: &Peer, cluster: &Cluster) -> bool {
    cluster.nodes.is_empty() || cluster.nodes.values().any(|node| a.nodes.selects(node) && b.nodes.selects(node))
}

/// A peer with BFD echo must not carry IPv6 (`docs/upstream-behaviour.md#configuration-advertisements`). The session
/// stays, without BFD, because closing it would withdraw routes that work.
pub(super) fn check_echo(
    pools: &BTreeMap<PoolName, Pool>,
    peers: &mut BTreeMap<PeerName, Peer>,
    specs: &[&PeerSpec],
    profiles: &BTreeMap<BfdProfileName, BfdProfile>,
    problems: &mut Vec<Problem>,
) {
    let echo = |peer: &Peer| peer.bfd_profile.as_ref().and_then(|name| profiles.get(name)).is_some_and(|p| p.echo_mode);
    for spec in specs {
        let Some(peer) = peers.get_mut(spec.meta.name.as_str()).filter(|peer| echo(peer)) else { continue };
        let reached = pools
            .values()
            .filter(|pool| pool.has_family(IpFamily::V6))
            .find(|pool| pool.bgp.iter().any(|ad| ad.peers.as_ref().is_none_or(|names| names.contains(&peer.name))));
        if let Some(pool) = reached {
            let message = format!(
                "BFD echo does not support IPv6, but routes of the IPv6 pool \"{}\" reach this peer: \
                 the session runs without BFD",
                pool.name
            );
            problems.push(Problem::error(spec.reference(), "spec.bfdProfile", ConfigReason::EchoWithIpv6, message));
            peer.bfd_profile = None;
        }
    }
}

struct PeerParser<'a> {
    spec: &'a PeerSpec,
    problems: &'a mut Vec<Problem>,
    failed: bool,
}

impl PeerParser<'_> {
    fn fail(&mut self, field: &str, code: ConfigReason, message: impl Into<String>) {
        self.failed = true;
        self.problems.push(Problem::error(self.spec.reference(), format!("spec.{field}"), code, message));
    }

    fn warn(&mut self, field: &str, code: ConfigReason, message: impl Into<String>) {
        self.problems.push(Problem::warning(self.spec.reference(), format!("spec.{field}"), code, message));
    }

    fn parse(&mut self, secrets: &[SecretSpec], profiles: &BTreeMap<BfdProfileName, BfdProfile>) -> Option<Peer> {
        let spec = self.spec;
        let my_asn = self.asn("myASN", spec.my_asn);
        if my_asn == Some(0) {
            self.fail("myASN", ConfigReason::InvalidAsn, "missing local ASN");
        }
        let remote_asn = self.remote_asn();
        let local_asn = self.asn("localASN", spec.local_asn).filter(|&asn| asn != 0);
        if spec.ebgp_multihop && my_asn.is_some_and(|asn| remote_asn == Some(RemoteAsn::Number(asn))) {
            let message = "invalid ebgp-multihop: peerASN and myASN are equal";
            self.fail("ebgpMultiHop", ConfigReason::MultihopWithInternalPeer, message);
        }
        let endpoint = self.endpoint();
        let port = u16::try_from(if spec.port == 0 { 179 } else { spec.port }).ok();
        if port.is_none() {
            self.fail("peerPort", ConfigReason::OutOfRange, format!("peer port {} is not in 1..=65535", spec.port));
        }
        let source_address =
            self.optional_ip("sourceAddress", &spec.source_address, ConfigReason::InvalidSourceAddress);
        if let (Some(source), Some(PeerEndpoint::Address(router))) = (source_address, &endpoint)
            && source.is_ipv4() != router.is_ipv4()
        {
            let message = format!(
                "sourceAddress {source} is not of the family of peerAddress {router} and is not used: set one that is"
            );
            self.warn("sourceAddress", ConfigReason::InvalidSourceAddress, message);
        }
        let router_id = match self.optional_ip("routerID", &spec.router_id, ConfigReason::InvalidRouterId) {
            Some(IpAddr::V4(id)) if !id.is_unspecified() => Some(id),
            // Upstream accepts every address here, but routers reject these.
            Some(ip) => {
                let message = format!("router ID {ip} is not a non-zero IPv4 address: the default is used");
                self.warn("routerID", ConfigReason::InvalidRouterId, message);
                None
            }
            None => None,
        };
        let (hold_time, keepalive_time) = self.timers().unwrap_or_default();
        let connect_time = self.duration("connectTime", spec.connect_time.as_deref());
        if connect_time.is_some_and(|time| time.as_secs() < 1 || time.as_secs() > 65_535 || time.subsec_nanos() != 0) {
            let message = "connect time should be between 1 seconds to 65535, in whole seconds";
            self.fail("connectTime", ConfigReason::InvalidTimer, message);
        }
        let nodes = parse_selectors(&spec.node_selectors, &spec.reference(), "spec.nodeSelectors", self.problems);
        let password = self.password(secrets);
        let bfd_profile = (!spec.bfd_profile.is_empty()).then(|| BfdProfileName::from(spec.bfd_profile.as_str()));
        if let Some(profile) = &bfd_profile
            && !profiles.contains_key(profile)
        {
            let message = format!("peer {} referencing non existing bfd profile {profile}", spec.meta.name);
            self.fail("bfdProfile", ConfigReason::UnknownBfdProfile, message);
        }
        if spec.disable_mp {
            self.warn("disableMP", ConfigReason::DeprecatedField, "disableMP is deprecated and has no effect");
        }
        if self.failed {
            return None;
        }
        Some(Peer {
            name: spec.meta.name.as_str().into(),
            endpoint: endpoint?,
            port: port?,
            my_asn: my_asn?,
            remote_asn: remote_asn?,
            local_asn,
            source_address,
            router_id,
            hold_time,
            keepalive_time,
            connect_time,
            password,
            nodes: node_selection(nodes?),
            bfd_profile,
            graceful_restart: spec.graceful_restart,
            ebgp_multihop: spec.ebgp_multihop,
            vrf: (!spec.vrf.is_empty()).then(|| spec.vrf.as_str().into()),
            dual_stack: spec.dual_stack,
        })
    }

    fn asn(&mut self, field: &str, value: i64) -> Option<u32> {
        let asn = u32::try_from(value).ok();
        if asn.is_none() {
            self.fail(field, ConfigReason::InvalidAsn, format!("ASN {value} is not in 0..=4294967295"));
        }
        asn
    }

    fn remote_asn(&mut self) -> Option<RemoteAsn> {
        let number = self.asn("peerASN", self.spec.peer_asn)?;
        let (code, field) = (ConfigReason::InvalidAsn, "peerASN");
        match (number, self.spec.dynamic_asn.as_str()) {
            (0, "") => self.fail(field, code, "missing peer ASN or dynamicASN"),
            (0, "internal") => return Some(RemoteAsn::Internal),
            (0, "external") => return Some(RemoteAsn::External),
            (0, other) => {
                self.fail("dynamicASN", code, format!("invalid dynamicASN \"{other}\": internal or external"));
            }
            (number, "") => return Some(RemoteAsn::Number(number)),
            _ => self.fail(field, code, "both peerASN and dynamicASN specified"),
        }
        None
    }

    fn endpoint(&mut self) -> Option<PeerEndpoint> {
        let (address, interface) = (self.spec.address.as_str(), self.spec.interface.as_str());
        let code = ConfigReason::InvalidPeerAddress;
        match (address.is_empty(), interface.is_empty()) {
            (true, true) => self.fail("peerAddress", code, "missing peer address and interface: one of them is needed"),
            (false, false) => self.fail("peerAddress", code, "both peer address and interface specified"),
            (true, false) => return Some(PeerEndpoint::Interface(interface.into())),
            (false, true) => match address.parse::<IpAddr>() {
                Ok(ip) => match unusable_router(canonical(ip)) {
                    None => return Some(PeerEndpoint::Address(canonical(ip))),
                    Some(why) => {
                        self.fail("peerAddress", code, format!("invalid BGPPeer address \"{address}\": {why}"));
                    }
                },
                Err(_) => {
                    let zone = address.split_once('%').filter(|(ip, _)| ip.parse::<IpAddr>().is_ok());
                    let why = match zone {
                        Some((_, zone)) => format!(": set interface: {zone} instead of peerAddress"),
                        None => ": not an IP address".to_owned(),
                    };
                    self.fail("peerAddress", code, format!("invalid BGPPeer address \"{address}\"{why}"));
                }
            },
        }
        None
    }

    fn optional_ip(&mut self, field: &str, text: &str, code: ConfigReason) -> Option<IpAddr> {
        if text.is_empty() {
            return None;
        }
        let ip = text.parse().ok().map(canonical);
        if ip.is_none() {
            self.fail(field, code, format!("invalid {field} \"{text}\": not an IP address"));
        }
        ip
    }

    fn duration(&mut self, field: &str, text: Option<&str>) -> Option<Duration> {
        let text = text?;
        let duration = parse_go_duration(text);
        if duration.is_none() {
            self.fail(field, ConfigReason::InvalidTimer, format!("invalid duration \"{text}\""));
        }
        duration
    }

    /// Hold and keepalive time; one of them implies the other (`docs/upstream-behaviour.md#configuration-peers`).
    fn timers(&mut self) -> Option<(Option<Duration>, Option<Duration>)> {
        let hold = self.duration("holdTime", self.spec.hold_time.as_deref());
        let keepalive = self.duration("keepaliveTime", self.spec.keepalive_time.as_deref());
        let (hold, keepalive) = match (hold, keepalive) {
            (None, None) => return None,
            (Some(hold), None) => (hold, hold / 3),
            (None, Some(keepalive)) => (keepalive * 3, keepalive),
            (Some(hold), Some(keepalive)) => (hold, keepalive),
        };
        let whole = Duration::from_secs(hold.as_secs().min(LONGEST_HOLD_TIME));
        if (1..3).contains(&whole.as_secs()) {
            let message = format!("invalid hold time {hold:?}: must be 0 or at least 3s");
            self.fail("holdTime", ConfigReason::InvalidTimer, message);
        }
        if hold.as_secs() > LONGEST_HOLD_TIME {
            let message = format!("hold time {hold:?} exceeds the maximum of BGP: {LONGEST_HOLD_TIME}s is used");
            self.warn("holdTime", ConfigReason::InvalidTimer, message);
        }
        if keepalive > hold {
            let message = format!("invalid keepaliveTime {keepalive:?}: must not be above the hold time {hold:?}");
            self.fail("keepaliveTime", ConfigReason::InvalidTimer, message);
        }
        Some((Some(whole), Some(keepalive)))
    }

    fn password(&mut self, secrets: &[SecretSpec]) -> Option<Password> {
        let spec = self.spec;
        let (name, namespace) = (spec.password_secret.as_str(), spec.meta.namespace.as_str());
        let password = if name.is_empty() {
            (!spec.password.is_empty()).then(|| spec.password.clone())?
        } else if !spec.password.is_empty() {
            self.fail("password", ConfigReason::InvalidPassword, "both password and passwordSecret specified");
            return None;
        } else {
            let reference = format!("\"{namespace}\"/\"{name}\"");
            let found = secrets.iter().find(|secret| secret.meta.name == name && secret.meta.namespace == namespace);
            let field = "passwordSecret";
            let outcome = match found {
                None => Err((
                    ConfigReason::SecretNotFound,
                    format!(
                        "parsing peer {} secret ref not found for peer config {reference}\n\
                         failed to parse peer {} password secret",
                        spec.meta.name, spec.meta.name
                    ),
                )),
                Some(secret) if secret.secret_type != BASIC_AUTH => Err((
                    ConfigReason::InvalidSecret,
                    format!(
                        "parsing peer {} secret type mismatch on {reference}, type \"{BASIC_AUTH}\" is expected \n\
                         failed to parse peer {} password secret",
                        spec.meta.name, spec.meta.name
                    ),
                )),
                Some(secret) => secret.password.clone().ok_or_else(|| {
                    (ConfigReason::InvalidSecret, format!("password not specified in the secret {reference}"))
                }),
            };
            match outcome {
                Ok(password) => password,
                Err((code, message)) => {
                    self.fail(field, code, message);
                    return None;
                }
            }
        };
        if password.expose().len() > TCP_MD5_MAX_KEY {
            let message = format!("password is longer than {TCP_MD5_MAX_KEY} bytes, the maximum of TCP MD5");
            self.fail("password", ConfigReason::InvalidPassword, message);
            return None;
        }
        Some(password)
    }
}

/// Why no router can be reached at an address.
fn unusable_router(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("a link-local address exists on every link: set interface instead of peerAddress")
        }
        ip if ip.is_unspecified() => Some("it is no address of a router: set the address of the router"),
        ip if ip.is_multicast() => Some("it is a multicast address: set the unicast address of the router"),
        IpAddr::V4(v4) if v4.is_broadcast() => {
            Some("it is the broadcast address: set the unicast address of the router")
        }
        _ => None,
    }
}

/// Longest hold time of an OPEN message in seconds (RFC 4271 §4.2).
const LONGEST_HOLD_TIME: u64 = 65_535;

const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

/// `TCP_MD5SIG_MAXKEYLEN` of Linux.
const TCP_MD5_MAX_KEY: usize = 80;
