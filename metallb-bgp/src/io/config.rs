//! The configuration of a peer: session, address and BFD.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::bfd::{Hops, Profile};
use crate::session::{ConfigChange, SessionConfig};
use crate::types::RouterId;

/// The configuration of a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PeerConfig {
    /// The session.
    pub session: SessionConfig,
    /// The router and the connection to it.
    pub endpoint: Endpoint,
    /// Our BGP identifier; `None` uses the local IPv4 address or, without one, `fallback_router_id`.
    pub router_id: Option<Ipv4Addr>,
    /// Our BGP identifier on a host without an IPv4 address.
    pub fallback_router_id: Ipv4Addr,
    /// BFD for the path to the router; the session ends if BFD goes down.
    pub bfd: Option<BfdConfig>,
}

/// A router and the connection to it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The router.
    pub router: Router,
    /// The source address of the connection. The kernel selects one if it is `None` or not an address of this host.
    pub source: Option<IpAddr>,
    /// The distance of the router.
    pub distance: Distance,
    /// TCP MD5 password, at most 80 bytes.
    pub password: Option<Vec<u8>>,
    /// The network device to bind to, for a VRF.
    pub device: Option<String>,
}

/// A router, by address or by link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Router {
    /// The router at an address and port.
    Address(SocketAddr),
    /// The router on an interface, found by router advertisements. Needs `CAP_NET_RAW`.
    Unnumbered {
        /// The interface.
        interface: String,
        /// The port to connect to.
        port: u16,
    },
}

/// The distance of a router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Distance {
    /// A direct neighbour: packets must not pass a router.
    Direct,
    /// Any number of hops.
    Routed,
}

/// BFD for a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BfdConfig {
    /// The parameters of the session.
    pub profile: Profile,
    /// Single-hop or multi-hop; `None` decides by the route to the router.
    pub hops: Option<Hops>,
}

impl BfdConfig {
    /// A session with these parameters, single-hop or multi-hop by the route to the router.
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self { profile, hops: None }
    }
}

impl Endpoint {
    /// A router at an address, with the default source address, no password and no VRF.
    #[must_use]
    pub const fn new(address: SocketAddr, distance: Distance) -> Self {
        Self { router: Router::Address(address), source: None, distance, password: None, device: None }
    }

    /// The router on an interface, found by router advertisements.
    #[must_use]
    pub const fn unnumbered(interface: String, port: u16, distance: Distance) -> Self {
        let router = Router::Unnumbered { interface, port };
        Self { router, source: None, distance, password: None, device: None }
    }
}

impl PeerConfig {
    /// A peer whose BGP identifier is the local IPv4 address or, without one, `fallback_router_id`; without BFD.
    #[must_use]
    pub const fn new(session: SessionConfig, endpoint: Endpoint, fallback_router_id: Ipv4Addr) -> Self {
        Self { session, endpoint, router_id: None, fallback_router_id, bfd: None }
    }

    /// The effect of a change from this configuration to `other`.
    #[must_use]
    pub fn change_to(&self, other: &Self) -> ConfigChange {
        // The fallback is unused if there is a configured identifier.
        let same_id = self.router_id == other.router_id
            && (self.router_id.is_some() || self.fallback_router_id == other.fallback_router_id);
        if !same_id || self.endpoint != other.endpoint {
            return ConfigChange::Restart;
        }
        // BFD has its own session, which changes while the BGP session stays established.
        let bfd = if self.bfd == other.bfd { ConfigChange::None } else { ConfigChange::Soft };
        self.session.change_to(&other.session).max(bfd)
    }

    /// Our BGP identifier on a connection with the local IPv4 address `local`.
    pub(super) fn router_id(&self, local: Option<Ipv4Addr>) -> RouterId {
        RouterId(self.router_id.or(local).unwrap_or(self.fallback_router_id))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::RemoteAsn;
    use crate::types::{Asn, Family};

    fn config() -> PeerConfig {
        PeerConfig {
            session: SessionConfig::new(Asn(7776), RemoteAsn::Number(Asn(7675))),
            endpoint: Endpoint::new("172.16.1.254:179".parse().unwrap(), Distance::Direct),
            router_id: Some(Ipv4Addr::new(172, 16, 1, 11)),
            fallback_router_id: Ipv4Addr::new(192, 61, 154, 117),
            bfd: None,
        }
    }

    /// The table of `docs/design/0005-what-restarts-a-bgp-session.md`.
    #[test]
    fn change_of_each_field_has_the_effect_in_the_table() {
        type Change = fn(&mut PeerConfig);
        let rows: [(&str, Change, ConfigChange); 20] = [
            ("nothing", |_| {}, ConfigChange::None),
            ("unused fallback router id", |c| c.fallback_router_id = Ipv4Addr::LOCALHOST, ConfigChange::None),
            ("keepalive time", |c| c.session.keepalive_time = Some(Duration::from_secs(5)), ConfigChange::Soft),
            ("connect time", |c| c.session.connect_time = Some(Duration::from_secs(5)), ConfigChange::Soft),
            ("BFD", |c| c.bfd = Some(BfdConfig { profile: Profile::default(), hops: None }), ConfigChange::Soft),
            (
                "BFD and hold time",
                |c| {
                    c.bfd = Some(BfdConfig { profile: Profile::default(), hops: None });
                    c.session.hold_time = Duration::from_secs(30);
                },
                ConfigChange::Restart,
            ),
            ("hold time", |c| c.session.hold_time = Duration::from_secs(30), ConfigChange::Restart),
            ("own AS number", |c| c.session.asn = Asn(1), ConfigChange::Restart),
            ("AS number of the peer", |c| c.session.remote = RemoteAsn::External, ConfigChange::Restart),
            ("families", |c| c.session.families.push(Family::Ipv6), ConfigChange::Restart),
            ("graceful restart", |c| c.session.graceful_restart = true, ConfigChange::Restart),
            (
                "address",
                |c| c.endpoint.router = Router::Address("172.16.1.253:179".parse().unwrap()),
                ConfigChange::Restart,
            ),
            (
                "port",
                |c| c.endpoint.router = Router::Address("172.16.1.254:180".parse().unwrap()),
                ConfigChange::Restart,
            ),
            (
                "interface",
                |c| c.endpoint.router = Router::Unnumbered { interface: "eth1".to_owned(), port: 179 },
                ConfigChange::Restart,
            ),
            ("source", |c| c.endpoint.source = Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ConfigChange::Restart),
            ("distance", |c| c.endpoint.distance = Distance::Routed, ConfigChange::Restart),
            ("password", |c| c.endpoint.password = Some(b"secret".to_vec()), ConfigChange::Restart),
            ("device", |c| c.endpoint.device = Some("red".to_owned()), ConfigChange::Restart),
            ("router id", |c| c.router_id = Some(Ipv4Addr::LOCALHOST), ConfigChange::Restart),
            (
                "soft and restart together",
                |c| {
                    c.session.connect_time = Some(Duration::from_secs(5));
                    c.session.hold_time = Duration::from_secs(30);
                },
                ConfigChange::Restart,
            ),
        ];
        for (name, change, expected) in rows {
            let mut other = config();
            change(&mut other);
            assert_eq!(config().change_to(&other), expected, "{name}");
        }
        let without = PeerConfig { router_id: None, ..config() };
        let moved = PeerConfig { fallback_router_id: Ipv4Addr::LOCALHOST, ..without.clone() };
        assert_eq!(without.change_to(&moved), ConfigChange::Restart, "fallback router id in use");
    }
}
