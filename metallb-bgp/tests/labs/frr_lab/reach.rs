//! Paths to the router: GTSM, active routers, unnumbered links.

use metallb_bgp::bfd::{Interval, Profile};
use metallb_bgp::io::{BfdConfig, Distance, Router};

use super::*;
use crate::support::frr;

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_router_with_ttl_security_accepts_the_session() {
    let security = [HOST_V4, HOST_V6].map(|host| format!("neighbor {host} ttl-security hops 1\n "));
    let Some(frr) = Frr::start("lab_gtsm", &ebgp(&security.concat())) else { return };
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 7776, 7675)), ("v6", &peer(ROUTER_V6, 7776, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        speaker.set_routes("v6", routes(&[VIP_V6], &Attributes::default()));
        for (vip, host) in [(VIP_V4, HOST_V4), (VIP_V6, HOST_V6)] {
            eventually("the router has the route", || frr.path(vip).is_some()).await;
            assert_eq!(frr.neighbor(host)["externalBgpNbrMaxHopsAway"], 1, "{}", frr.neighbor(host));
        }
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_active_router_gets_no_second_session() {
    let active =
        ebgp("").replace(&format!("neighbor {HOST_V4} passive"), &format!("neighbor {HOST_V4} timers connect 1"));
    let Some(frr) = Frr::start("lab_active_router", &active) else { return };
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 7776, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        let before = frr.neighbor(HOST_V4);
        assert_eq!((&before["bgpState"], &before["connectionsDropped"]), (&"Established".into(), &0.into()));
        frr.vtysh(&format!("clear bgp {HOST_V4}"));
        eventually("the session is back", || snapshot(&speaker).counters.established == 2).await;
        eventually("the route is back", || frr.path(VIP_V4).is_some()).await;
    });
}

/// The configuration of a router for an unnumbered session.
fn unnumbered(asn: &str) -> String {
    format!(
        "bfd\n profile fast\n  receive-interval 200\n  transmit-interval 200\n exit\nexit\n\
         router bgp 7675\n bgp router-id 172.16.1.254\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         neighbor eth0 interface remote-as {asn}\n neighbor eth0 bfd\n neighbor eth0 bfd profile fast\n \
         address-family ipv4 unicast\n  neighbor eth0 activate\n exit-address-family\n \
         address-family ipv6 unicast\n  neighbor eth0 activate\n exit-address-family\n"
    )
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_unnumbered_session_announces_both_families() {
    for (kind, asn) in [("external", 7776), ("internal", 7675)] {
        let Some(lab) = Lab::new("lab_unnumbered", &frr::PROGRAMS) else { return };
        for namespace in ["host", "router"] {
            let ip = |arguments: &str| match namespace {
                "host" => lab.host_ip(arguments),
                _ => lab.router_ip(arguments),
            };
            ip("-4 address flush dev eth0");
            ip("-6 address flush dev eth0 scope global");
        }
        let frr = Frr::start_in(lab, &unnumbered(kind));
        frr.lab.on_host(|| async {
            let mut unnumbered_peer = peer(ROUTER_V6, asn, 7675);
            unnumbered_peer.endpoint.router = Router::Unnumbered { interface: "eth0".to_owned(), port: 179 };
            unnumbered_peer.endpoint.distance = if asn == 7675 { Distance::Routed } else { Distance::Direct };
            unnumbered_peer.session.families = vec![Family::Ipv4, Family::Ipv6];
            let interval = Interval(200_000);
            let profile = Profile::default().with_interval(interval);
            unnumbered_peer.bfd = Some(BfdConfig::new(profile));
            let speaker = speaker(&[("router", &unnumbered_peer)]);
            speaker.set_routes("router", routes(&[VIP_V4, VIP_V6], &Attributes::default()));
            for vip in [VIP_V4, VIP_V6] {
                eventually("the router has the route", || frr.path(vip).is_some_and(|path| path["valid"] == true))
                    .await;
                let path = frr.path(vip).unwrap();
                let hop = path["nexthops"][0]["ip"].as_str().unwrap_or_default();
                assert!(hop.starts_with("fe80:"), "{path}");
                assert_eq!(path["aspath"]["string"], if asn == 7675 { "Local" } else { "7776" }, "{path}");
            }
            eventually("the kernel forwards IPv4 over IPv6", || frr.lab.forwards(VIP_V4, "inet6 fe80:")).await;
            eventually("the kernel forwards IPv6", || frr.lab.forwards(VIP_V6, "fe80:")).await;
            let seen = snapshot(&speaker);
            assert!(seen.negotiated.is_some_and(|negotiated| negotiated.extended_next_hop));
            let (ours, _) = seen.addresses.unwrap();
            eventually("BFD is up", || frr.bfd_peer(&ours.ip().to_string())["status"] == "up").await;
            frr.lab.freeze("bfdd", true);
            let reason = || last_down(&speaker);
            eventually("the speaker detects it", || reason() == "sent Cease: BFD Down (6/10)").await;
            frr.lab.freeze("bfdd", false);
            eventually("the route returns", || {
                snapshot(&speaker).counters.established == 2 && frr.path(VIP_V4).is_some()
            })
            .await;
        });
    }
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_unnumbered_session_on_a_missing_interface_reports_it() {
    let Some(lab) = Lab::new("lab_no_router", &[]) else { return };
    lab.on_host(|| async {
        let mut unnumbered_peer = peer(ROUTER_V6, 7776, 7675);
        unnumbered_peer.endpoint.router = Router::Unnumbered { interface: "eth7".to_owned(), port: 179 };
        let speaker = speaker(&[("router", &unnumbered_peer)]);
        eventually("the reason is reported", || {
            last_down(&speaker).contains("cannot receive router advertisements on eth7")
        })
        .await;
    });
}
