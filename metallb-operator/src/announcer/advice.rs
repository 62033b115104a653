//! Remedies for a BGP session that does not come up.

use std::io::ErrorKind;

use metallb_bgp::io::{Distance, PeerConfig, Router};
use metallb_bgp::session::{ConnectionError, DownReason, RemoteAsn};
use metallb_bgp::types::{Asn, RouterId};

/// The remedy for a session of BGPPeer `name` that ended with `reason`; `open` is what the router's last OPEN said.
/// `None` if the reason speaks for itself.
pub(super) fn advice(
    name: &str,
    reason: &DownReason,
    config: &PeerConfig,
    open: Option<(Asn, RouterId)>,
) -> Option<String> {
    match reason {
        DownReason::ConnectFailed(error) => connect_failed(error, config),
        DownReason::Sent(notification) => match (notification.code, notification.subcode) {
            (2, 2) => {
                let (asn, _) = open?;
                let expected = expected(config.session.remote);
                Some(format!(
                    "the router says AS {asn}, BGPPeer `{name}` expects {expected}: correct spec.peerASN or the router"
                ))
            }
            (2, 3) => {
                let (_, id) = open?;
                Some(format!(
                    "the router has BGP identifier {}, which is the one of this node too: set spec.routerID of BGPPeer \
                     `{name}`, or change the router's",
                    id.0
                ))
            }
            _ => None,
        },
        DownReason::Received(notification) => match (notification.code, notification.subcode) {
            (2, 2) => Some(format!(
                "the router expects another AS than {}: correct spec.myASN of BGPPeer `{name}` or the router",
                config.session.asn
            )),
            (2, 3) => Some(format!(
                "the router does not accept the BGP identifier of this node: set spec.routerID of BGPPeer `{name}` to \
                 an address that no other router has"
            )),
            (2, 6) => Some(format!(
                "the router does not accept a hold time of {} s: change spec.holdTime of BGPPeer `{name}`",
                config.session.hold_time.as_secs()
            )),
            (6, 3 | 5) => Some("the router has no neighbor for the address of this node: add it there".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

fn connect_failed(error: &ConnectionError, config: &PeerConfig) -> Option<String> {
    let endpoint = &config.endpoint;
    let io = match error {
        ConnectionError::TimedOut => None,
        ConnectionError::Io(error) => Some(error.kind()),
        ConnectionError::RouterDiscovery { source, .. } => {
            let forbidden = source.kind() == ErrorKind::PermissionDenied;
            return forbidden.then(|| "an unnumbered peer needs CAP_NET_RAW: add it to the container".to_owned());
        }
        _ => return None,
    };
    Some(match io {
        None | Some(ErrorKind::TimedOut) if endpoint.password.is_some() => {
            "a router with another password, or without one, does not answer: compare the passwords of both sides"
                .to_owned()
        }
        None | Some(ErrorKind::TimedOut) => {
            "the router does not answer: check its address, firewalls, and whether it expects a password".to_owned()
        }
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) if endpoint.distance == Distance::Direct => {
            "the router is down, or it is not on a link of this node: then set spec.ebgpMultiHop".to_owned()
        }
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            "this node has no route to the router, or the router is down".to_owned()
        }
        Some(ErrorKind::ConnectionRefused) => match &endpoint.router {
            Router::Address(address) => format!(
                "the router refuses connections at port {}: check that BGP runs there and has this node as neighbor",
                address.port()
            ),
            Router::Unnumbered { port, .. } => {
                format!("the router refuses connections at port {port}: check that BGP runs there on this link")
            }
        },
        Some(ErrorKind::InvalidInput) => "the address of the router cannot be connected to".to_owned(),
        Some(_) => return None,
    })
}

fn expected(remote: RemoteAsn) -> String {
    match remote {
        RemoteAsn::Number(asn) => asn.to_string(),
        RemoteAsn::Internal => "its own AS".to_owned(),
        RemoteAsn::External => "another AS than its own".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use metallb_bgp::error::IoError;
    use metallb_bgp::io::Endpoint;
    use metallb_bgp::session::SessionConfig;
    use metallb_bgp::wire::notification::Notification;

    use super::*;

    fn config(change: impl FnOnce(&mut PeerConfig)) -> PeerConfig {
        let session = SessionConfig::new(Asn(64500), RemoteAsn::Number(Asn(64501)));
        let endpoint = Endpoint::new("10.9.0.254:179".parse().unwrap(), Distance::Direct);
        let mut config = PeerConfig::new(session, endpoint, [192, 0, 2, 1].into());
        change(&mut config);
        config
    }

    #[test]
    fn advice_names_the_cause_and_the_field_to_change() {
        let code = |code, subcode| {
            let mut notification = Notification::shutdown(&"".into());
            (notification.code, notification.subcode) = (code, subcode);
            notification
        };
        let failed = |kind: ErrorKind| DownReason::ConnectFailed(IoError::from(kind).into());
        let with_password = |config: &mut PeerConfig| config.endpoint.password = Some(b"x".to_vec());
        let routed = |config: &mut PeerConfig| config.endpoint.distance = Distance::Routed;
        let external = |config: &mut PeerConfig| config.session.remote = RemoteAsn::External;
        let plain = |_: &mut PeerConfig| {};
        let timed_out = || DownReason::ConnectFailed(ConnectionError::TimedOut);
        type Change = fn(&mut PeerConfig);
        let rows: [(DownReason, Change, &[&str]); 14] = [
            (DownReason::Sent(code(2, 2)), plain, &["AS 65001", "`r` expects 64501", "spec.peerASN"]),
            (DownReason::Sent(code(2, 2)), external, &["AS 65001", "another AS than its own"]),
            (DownReason::Sent(code(2, 3)), plain, &["10.9.0.254", "this node too", "spec.routerID"]),
            (DownReason::Received(code(2, 2)), plain, &["AS than 64500", "spec.myASN"]),
            (DownReason::Received(code(2, 3)), plain, &["spec.routerID"]),
            (DownReason::Received(code(2, 6)), plain, &["90 s", "spec.holdTime"]),
            (DownReason::Received(code(6, 5)), plain, &["no neighbor"]),
            (timed_out(), plain, &["does not answer", "password"]),
            (timed_out(), with_password, &["compare the passwords"]),
            (failed(ErrorKind::HostUnreachable), plain, &["ebgpMultiHop"]),
            (failed(ErrorKind::NetworkUnreachable), plain, &["ebgpMultiHop"]),
            (failed(ErrorKind::HostUnreachable), routed, &["no route"]),
            (failed(ErrorKind::ConnectionRefused), plain, &["port 179", "neighbor"]),
            (failed(ErrorKind::TimedOut), with_password, &["compare the passwords"]),
        ];
        let open = Some((Asn(65001), RouterId([10, 9, 0, 254].into())));
        for (reason, change, expected) in rows {
            let text = advice("r", &reason, &config(change), open).unwrap_or_default();
            for part in expected {
                assert!(text.contains(part), "{reason}: {part} is missing in {text:?}");
            }
        }
        assert_eq!(advice("r", &DownReason::Received(code(6, 2)), &config(plain), open), None);
        assert_eq!(advice("r", &DownReason::Stopped, &config(plain), open), None);
    }
}
