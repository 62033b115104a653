//! A peer and how to reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::bfd::{Hops, Profile};
use crate::session::{ConfigChange, SessionConfig};
use crate::types::RouterId;

/// A peer and how to reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerConfig {
    /// What the session must be.
    pub session: SessionConfig,
    /// Where the router is.
    pub endpoint: Endpoint,
    /// The identifier; the local IPv4 address, or `fallback_router_id`, where it is not given.
    pub router_id: Option<Ipv4Addr>,
    /// The identifier of a host without any IPv4 address.
    pub fallback_router_id: Ipv4Addr,
    /// Watch the path by BFD: the session ends when the path does.
    pub bfd: Option<BfdConfig>,
}

/// Where a router is and how packets get there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Which router.
    pub router: Router,
    /// The address to connect from; left to the kernel where it is not given, or is not on this host.
    pub source: Option<IpAddr>,
    /// How far packets may go.
    pub distance: Distance,
    /// TCP MD5 password, at most 80 bytes.
    pub password: Option<Vec<u8>>,
    /// The device to bind to, for a VRF.
    pub device: Option<String>,
}

/// A router by address, or by the link that it is on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Router {
    /// At an address and port.
    At(SocketAddr),
    /// The one that advertises itself on an interface: unnumbered. Needs `CAP_NET_RAW`.
    Behind {
        /// The interface.
        interface: String,
        /// The port to connect to.
        port: u16,
    },
}

/// How far a router may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Distance {
    /// It is a direct neighbour, and packets must not get further.
    Direct,
    /// As many hops as it takes.
    Routed,
}

/// How a path is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BfdConfig {
    /// Timers and modes.
    pub profile: Profile,
    /// How far the router is; where it is not given, what the addresses of this host tell.
    pub hops: Option<Hops>,
}

impl Endpoint {
    /// A direct or distant router at an address, with nothing else asked for.
    #[must_use]
    pub const fn new(address: SocketAddr, distance: Distance) -> Self {
        Self { router: Router::At(address), source: None, distance, password: None, device: None }
    }
}

impl PeerConfig {
    /// What it costs to go from this configuration to `other`.
    #[must_use]
    pub fn change_to(&self, other: &Self) -> ConfigChange {
        // An identifier that is given makes the fallback one meaningless.
        let same_id = self.router_id == other.router_id
            && (self.router_id.is_some() || self.fallback_router_id == other.fallback_router_id);
        if !same_id || self.endpoint != other.endpoint {
            return ConfigChange::Restart;
        }
        // BFD is a session of its own, which follows a change while BGP goes on.
        let bfd = if self.bfd == other.bfd { ConfigChange::None } else { ConfigChange::Soft };
        self.session.change_to(&other.session).max(bfd)
    }

    /// The identifier to show on a connection whose local IPv4 address is `local`.
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
    fn change_of_each_field_costs_what_the_table_says() {
        type Change = fn(&mut PeerConfig);
        let rows: [(&str, Change, ConfigChange); 20] = [
            ("nothing", |_| {}, ConfigChange::None),
            ("fallback router id that is not used", |c| c.fallback_router_id = Ipv4Addr::LOCALHOST, ConfigChange::None),
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
            ("own number", |c| c.session.asn = Asn(1), ConfigChange::Restart),
            ("peer's number", |c| c.session.remote = RemoteAsn::External, ConfigChange::Restart),
            ("families", |c| c.session.families.push(Family::Ipv6), ConfigChange::Restart),
            ("graceful restart", |c| c.session.graceful_restart = true, ConfigChange::Restart),
            ("address", |c| c.endpoint.router = Router::At("172.16.1.253:179".parse().unwrap()), ConfigChange::Restart),
            ("port", |c| c.endpoint.router = Router::At("172.16.1.254:180".parse().unwrap()), ConfigChange::Restart),
            (
                "interface",
                |c| c.endpoint.router = Router::Behind { interface: "eth1".to_owned(), port: 179 },
                ConfigChange::Restart,
            ),
            ("source", |c| c.endpoint.source = Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ConfigChange::Restart),
            ("distance", |c| c.endpoint.distance = Distance::Routed, ConfigChange::Restart),
            ("password", |c| c.endpoint.password = Some(b"secret".to_vec()), ConfigChange::Restart),
            ("device", |c| c.endpoint.device = Some("red".to_owned()), ConfigChange::Restart),
            ("router id", |c| c.router_id = Some(Ipv4Addr::LOCALHOST), ConfigChange::Restart),
            (
                "soft and hard at once",
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
        assert_eq!(without.change_to(&moved), ConfigChange::Restart, "fallback router id that may be used");
    }
}
