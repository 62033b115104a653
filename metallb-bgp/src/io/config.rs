//! A peer and how to reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
}

/// Where a router is and how packets get there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// The address to connect from; left to the kernel where it is not given, or is not on this host.
    pub source: Option<IpAddr>,
    /// Time to live; `None` leaves the default. 1 keeps a session with a direct neighbour direct.
    pub ttl: Option<u8>,
    /// TCP MD5 password, at most 80 bytes.
    pub password: Option<Vec<u8>>,
    /// The device to bind to, for a VRF.
    pub device: Option<String>,
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
        self.session.change_to(&other.session)
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
            endpoint: Endpoint {
                address: "172.16.1.254:179".parse().unwrap(),
                source: None,
                ttl: Some(1),
                password: None,
                device: None,
            },
            router_id: Some(Ipv4Addr::new(172, 16, 1, 11)),
            fallback_router_id: Ipv4Addr::new(192, 61, 154, 117),
        }
    }

    /// The table of `docs/design/0005-what-restarts-a-bgp-session.md`.
    #[test]
    fn change_of_each_field_costs_what_the_table_says() {
        type Change = fn(&mut PeerConfig);
        let rows: [(&str, Change, ConfigChange); 17] = [
            ("nothing", |_| {}, ConfigChange::None),
            ("fallback router id that is not used", |c| c.fallback_router_id = Ipv4Addr::LOCALHOST, ConfigChange::None),
            ("keepalive time", |c| c.session.keepalive_time = Some(Duration::from_secs(5)), ConfigChange::Soft),
            ("connect time", |c| c.session.connect_time = Some(Duration::from_secs(5)), ConfigChange::Soft),
            ("hold time", |c| c.session.hold_time = Duration::from_secs(30), ConfigChange::Restart),
            ("own number", |c| c.session.asn = Asn(1), ConfigChange::Restart),
            ("peer's number", |c| c.session.remote = RemoteAsn::External, ConfigChange::Restart),
            ("families", |c| c.session.families.push(Family::Ipv6), ConfigChange::Restart),
            ("graceful restart", |c| c.session.graceful_restart = true, ConfigChange::Restart),
            ("address", |c| c.endpoint.address = "172.16.1.253:179".parse().unwrap(), ConfigChange::Restart),
            ("port", |c| c.endpoint.address.set_port(180), ConfigChange::Restart),
            ("source", |c| c.endpoint.source = Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ConfigChange::Restart),
            ("time to live", |c| c.endpoint.ttl = None, ConfigChange::Restart),
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
