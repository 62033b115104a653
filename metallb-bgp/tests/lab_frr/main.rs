//! The speaker against FRR, over a cable between two network namespaces. What is asserted is what the router says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![expect(clippy::print_stdout, reason = "a test of real time, and of real parts that may be absent")]

mod bfd;
#[path = "../support/frr.rs"]
mod frr;
#[path = "../support/lab.rs"]
#[allow(dead_code, reason = "another lab asks for more")]
mod lab;
mod leave;
mod reach;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use metallb_bgp::io::{Distance, Endpoint, PeerConfig, PeerSnapshot, Speaker};
use metallb_bgp::session::{RemoteAsn, SessionConfig, State};
use metallb_bgp::types::{Asn, Attributes, Family};
use tokio::sync::mpsc;

use self::frr::Frr;
use self::lab::{HOST_V4, HOST_V6, Lab, ROUTER_V4, ROUTER_V6, eventually};

const VIP_V4: &str = "10.254.254.1/32";
const VIP_V6: &str = "fd00:254::1/128";

fn peer(address: &str, asn: u32, remote: u32) -> PeerConfig {
    let address: IpAddr = address.parse().unwrap();
    let distance = if asn == remote { Distance::Routed } else { Distance::Direct };
    PeerConfig {
        session: SessionConfig {
            connect_time: Some(Duration::from_secs(1)),
            families: vec![Family::of(address)],
            ..SessionConfig::new(Asn(asn), RemoteAsn::Number(Asn(remote)))
        },
        endpoint: Endpoint::new(SocketAddr::new(address, 179), distance),
        router_id: None,
        fallback_router_id: [192, 0, 2, 1].into(),
        bfd: None,
    }
}

fn routes(prefixes: &[&str], attributes: &Attributes) -> BTreeMap<IpNet, Arc<Attributes>> {
    prefixes.iter().map(|prefix| (prefix.parse().unwrap(), Arc::new(attributes.clone()))).collect()
}

fn speaker(peers: &[(&str, &PeerConfig)]) -> Speaker {
    let (events, _) = mpsc::channel(16);
    let mut speaker = Speaker::new(events, 1);
    configure(&mut speaker, peers);
    speaker
}

fn configure(speaker: &mut Speaker, peers: &[(&str, &PeerConfig)]) {
    speaker.set_peers(peers.iter().map(|(name, config)| (Arc::from(*name), (*config).clone())).collect());
}

fn snapshot(speaker: &Speaker) -> PeerSnapshot {
    speaker.snapshot().into_values().next().expect("one peer")
}

fn ebgp(extra: &str) -> String {
    format!(
        "router bgp 7675\n bgp router-id 172.16.1.254\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         neighbor {HOST_V4} remote-as 7776\n neighbor {HOST_V4} passive\n neighbor {HOST_V6} remote-as 7776\n \
         neighbor {HOST_V6} passive\n {extra}\n address-family ipv4 unicast\n  neighbor {HOST_V4} activate\n \
         exit-address-family\n address-family ipv6 unicast\n  neighbor {HOST_V6} activate\n exit-address-family\n"
    )
}

#[test]
fn lab_external_sessions_of_both_families_offer_and_withdraw() {
    let Some(frr) = Frr::start("lab_external", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let (v4, v6) = (peer(ROUTER_V4, 7776, 7675), peer(ROUTER_V6, 7776, 7675));
        let speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
        let attributes = Attributes {
            communities: [(7776 << 16) + 7].into(),
            large_communities: [(7776, 1, 2)].into(),
            ..Attributes::default()
        };
        speaker.set_routes("v4", routes(&[VIP_V4], &attributes));
        speaker.set_routes("v6", routes(&[VIP_V6], &attributes));
        for (vip, next_hop) in [(VIP_V4, HOST_V4), (VIP_V6, HOST_V6)] {
            eventually("the router has the route", || frr.path(vip).is_some_and(|path| path["valid"] == true)).await;
            let path = frr.path(vip).unwrap();
            assert_eq!(path["aspath"]["string"], "7776", "{path}");
            assert_eq!(path["origin"], "IGP", "{path}");
            assert_eq!(path["community"]["string"], "7776:7", "{path}");
            assert_eq!(path["largeCommunity"]["string"], "7776:1:2", "{path}");
            let hops = path["nexthops"].as_array().unwrap();
            assert!(hops.iter().any(|hop| hop["ip"] == next_hop), "{path}");
        }
        eventually("the kernel forwards IPv4", || frr.lab.forwards(VIP_V4, HOST_V4)).await;
        eventually("the kernel forwards IPv6", || frr.lab.forwards(VIP_V6, "")).await;
        assert_eq!(frr.neighbor(HOST_V4)["bgpTimerHoldTimeMsecs"], 90_000);
        speaker.set_routes("v4", BTreeMap::new());
        speaker.set_routes("v6", BTreeMap::new());
        for (vip, host) in [(VIP_V4, HOST_V4), (VIP_V6, HOST_V6)] {
            eventually("the route is gone", || frr.path(vip).is_none()).await;
            assert_eq!(frr.neighbor(host)["bgpState"], "Established", "the session stays");
        }
    });
}

#[test]
fn lab_internal_sessions_carry_the_local_preference() {
    let config = ebgp("").replace("remote-as 7776", "remote-as 7675");
    let Some(frr) = Frr::start("lab_internal", &config) else { return };
    frr.lab.on_host(|| async {
        let (v4, v6) = (peer(ROUTER_V4, 7675, 7675), peer(ROUTER_V6, 7675, 7675));
        let speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes { local_pref: Some(150), ..Attributes::default() }));
        speaker.set_routes("v6", routes(&[VIP_V6], &Attributes::default()));
        for (vip, preference) in [(VIP_V4, 150), (VIP_V6, 100)] {
            eventually("the router has the route", || frr.path(vip).is_some_and(|path| path["valid"] == true)).await;
            let path = frr.path(vip).unwrap();
            assert_eq!(path["locPrf"], preference, "{path}");
            assert_eq!(path["aspath"]["string"], "Local", "{path}");
        }
    });
}

#[test]
fn lab_session_of_both_families_takes_the_other_next_hop_from_the_interface() {
    let config = ebgp("").replace(&format!("  neighbor {HOST_V6} activate"), &format!("  neighbor {HOST_V4} activate"));
    let Some(frr) = Frr::start("lab_dual_stack", &config) else { return };
    frr.lab.on_host(|| async {
        let mut both = peer(ROUTER_V4, 7776, 7675);
        both.session.families = vec![Family::Ipv4, Family::Ipv6];
        let speaker = speaker(&[("both", &both)]);
        speaker.set_routes("both", routes(&[VIP_V4, VIP_V6], &Attributes::default()));
        for (vip, next_hop) in [(VIP_V4, HOST_V4), (VIP_V6, HOST_V6)] {
            eventually("the router has the route", || frr.path(vip).is_some_and(|path| path["valid"] == true)).await;
            let path = frr.path(vip).unwrap();
            assert!(path["nexthops"].as_array().unwrap().iter().any(|hop| hop["ip"] == next_hop), "{path}");
        }
    });
}

#[test]
fn lab_number_of_four_octets_is_in_the_path() {
    let config = ebgp("").replace("remote-as 7776", "remote-as 4200000001");
    let Some(frr) = Frr::start("lab_four_octets", &config) else { return };
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 4_200_000_001, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        assert_eq!(frr.path(VIP_V4).unwrap()["aspath"]["string"], "4200000001");
    });
}

#[test]
fn lab_password_must_be_the_same_on_both_sides() {
    let Some(frr) = Frr::start("lab_password", &ebgp(&format!("neighbor {HOST_V4} password right"))) else { return };
    frr.lab.on_host(|| async {
        let with = |password: Option<&str>| {
            let mut config = peer(ROUTER_V4, 7776, 7675);
            config.endpoint.password = password.map(|password| password.as_bytes().to_vec());
            config
        };
        for password in [None, Some("wrong")] {
            let speaker = speaker(&[("v4", &with(password))]);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_ne!(frr.neighbor(HOST_V4)["bgpState"], "Established", "{password:?}");
            assert_eq!(snapshot(&speaker).state, State::Connect, "{password:?}: no answer comes");
            speaker.shutdown(false, Duration::from_secs(1)).await;
        }
        let mut speaker = speaker(&[("v4", &with(Some("wrong")))]);
        configure(&mut speaker, &[("v4", &with(Some("right")))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
    });
}

#[test]
fn lab_routes_of_the_router_are_counted_and_never_used() {
    let offers = ebgp("no bgp network import-check\n network 203.0.113.0/24");
    let Some(frr) = Frr::start("lab_routes_of_the_router", &offers) else { return };
    frr.lab.on_host(|| async {
        let before = frr.lab.host_ip("-4 route show table all");
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 7776, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        eventually("the router's own route came", || snapshot(&speaker).counters.prefixes_dropped > 0).await;
        assert!(before.contains("172.16.1.0/24"), "{before}");
        assert_eq!(frr.lab.host_ip("-4 route show table all"), before);
    });
}

#[test]
fn lab_wrong_number_is_refused_by_either_side() {
    let Some(frr) = Frr::start("lab_wrong_number", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let stranger = speaker(&[("v4", &peer(ROUTER_V4, 65_000, 7675))]);
        let reason = |speaker: &Speaker| snapshot(speaker).last_down.unwrap_or_default();
        eventually("the router refuses us", || reason(&stranger) == "received OPEN Message Error: Bad Peer AS (2/2)")
            .await;
        stranger.shutdown(false, Duration::from_secs(1)).await;
        let picky = speaker(&[("v4", &peer(ROUTER_V4, 7776, 1))]);
        eventually("we refuse the router", || reason(&picky) == "sent OPEN Message Error: Bad Peer AS (2/2)").await;
        // FRR notes the NOTIFICATION with the connection, not with the neighbor: what it shows is that there is no session.
        assert_eq!(frr.neighbor(HOST_V4)["connectionsEstablished"], 0);
    });
}

#[test]
fn lab_cleared_session_comes_back_with_its_routes() {
    let Some(frr) = Frr::start("lab_clear", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 7776, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        frr.vtysh(&format!("clear bgp {HOST_V4} soft in"));
        eventually("the routes are told again", || snapshot(&speaker).counters.route_refreshes_received > 0).await;
        frr.vtysh(&format!("clear bgp {HOST_V4}"));
        eventually("we see why", || {
            snapshot(&speaker)
                .last_down
                .is_some_and(|reason| reason.starts_with("received Cease: Administrative Reset (6/4)"))
        })
        .await;
        eventually("the session is back", || snapshot(&speaker).counters.established == 2).await;
        eventually("and so is the route", || frr.path(VIP_V4).is_some()).await;
    });
}

#[test]
fn lab_silence_ends_the_session_on_both_sides() {
    let Some(frr) = Frr::start("lab_silence", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let mut config = peer(ROUTER_V4, 7776, 7675);
        config.session.hold_time = Duration::from_secs(3);
        let speaker = speaker(&[("v4", &config)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        // Its kernel acknowledges every segment: only the hold timer can tell.
        frr.lab.freeze("bgpd", true);
        let reason = || snapshot(&speaker).last_down.unwrap_or_default();
        eventually("we notice", || reason() == "sent Hold Timer Expired (4/0)").await;
        frr.lab.freeze("bgpd", false);
        eventually("the session is back", || snapshot(&speaker).counters.established >= 2).await;
        eventually("and so is the route", || frr.path(VIP_V4).is_some()).await;
        // This thread is also the one that runs the session. What the router said meanwhile counts before our own timers do.
        std::thread::sleep(Duration::from_secs(5));
        eventually("the router noticed", || reason() == "received Hold Timer Expired (4/0)").await;
        eventually("the route returns", || frr.path(VIP_V4).is_some()).await;
    });
}

#[test]
fn lab_planned_stop_takes_the_route_away_at_once_and_says_why() {
    let Some(frr) = Frr::start("lab_stop", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 7776, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        speaker.shutdown(true, Duration::from_secs(2)).await;
        eventually("the route is gone", || frr.path(VIP_V4).is_none()).await;
        let neighbor = frr.neighbor(HOST_V4);
        assert_eq!(neighbor["lastErrorCodeSubcode"], "0602", "{neighbor}");
        assert_eq!(neighbor["lastShutdownDescription"], "shutting down", "{neighbor}");
    });
}

#[test]
fn lab_restart_of_the_speaker_never_takes_the_route_away() {
    let Some(frr) = Frr::start("lab_graceful_restart", &ebgp("bgp graceful-restart")) else { return };
    frr.lab.on_host(|| async {
        let mut config = peer(ROUTER_V4, 7776, 7675);
        config.session.graceful_restart = true;
        let before = speaker(&[("v4", &config)]);
        before.set_routes("v4", routes(&[VIP_V4, "10.254.254.2/32"], &Attributes::default()));
        eventually("the kernel forwards", || {
            frr.lab.forwards(VIP_V4, HOST_V4) && frr.lab.forwards("10.254.254.2", HOST_V4)
        })
        .await;
        before.shutdown(true, Duration::from_secs(2)).await;
        eventually("the router knows that we are gone", || frr.neighbor(HOST_V4)["bgpState"] != "Established").await;
        assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays while we are away");

        let after = speaker(&[("v4", &config)]);
        eventually("the session is back", || {
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays while we come back");
            snapshot(&after).state == State::Established
        })
        .await;
        // The new process does not know its routes yet.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays until the routes are known");
        }
        after.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("what is not offered again goes", || {
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays");
            !frr.lab.forwards("10.254.254.2", HOST_V4)
        })
        .await;
        assert!(frr.path(VIP_V4).unwrap().get("stale").is_none());
    });
}

#[test]
fn lab_change_of_configuration_restarts_only_the_session_that_needs_it() {
    let Some(frr) = Frr::start("lab_change", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let (mut v4, mut v6) = (peer(ROUTER_V4, 7776, 7675), peer(ROUTER_V6, 7776, 7675));
        let mut speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
        let up = |frr: &Frr| [HOST_V4, HOST_V6].iter().all(|host| frr.neighbor(host)["bgpState"] == "Established");
        eventually("both are up", || up(&frr)).await;
        v4.session.hold_time = Duration::from_secs(30);
        v6.session.connect_time = Some(Duration::from_secs(9));
        configure(&mut speaker, &[("v4", &v4), ("v6", &v6)]);
        eventually("the new hold time is in force", || {
            up(&frr) && frr.neighbor(HOST_V4)["bgpTimerHoldTimeMsecs"] == 30_000
        })
        .await;
        assert_eq!(frr.neighbor(HOST_V4)["connectionsEstablished"], 2);
        assert_eq!(frr.neighbor(HOST_V6)["connectionsEstablished"], 1);
        configure(&mut speaker, &[("v6", &v6)]);
        eventually("the router was told", || frr.neighbor(HOST_V4)["lastErrorCodeSubcode"] == "0603").await;
        assert_eq!(frr.neighbor(HOST_V6)["connectionsEstablished"], 1);
    });
}
