//! The speaker with FRR.

mod bfd;
mod leave;
mod moves;
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

use crate::support::frr::Frr;
use crate::support::lab::{HOST_V4, HOST_V6, Lab, ROUTER_V4, ROUTER_V6, eventually};

const VIP_V4: &str = "10.254.254.1/32";
const VIP_V6: &str = "fd00:254::1/128";

fn peer(address: &str, asn: u32, remote: u32) -> PeerConfig {
    let address: IpAddr = address.parse().unwrap();
    let distance = if asn == remote { Distance::Routed } else { Distance::Direct };
    let mut session = SessionConfig::new(Asn(asn), RemoteAsn::Number(Asn(remote)));
    session.connect_time = Some(Duration::from_secs(1));
    session.families = vec![Family::of(address)];
    PeerConfig::new(session, Endpoint::new(SocketAddr::new(address, 179), distance), [192, 0, 2, 1].into())
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

/// Why the last session or attempt ended, as text.
fn last_down(speaker: &Speaker) -> String {
    snapshot(speaker).last_down.map(|reason| reason.to_string()).unwrap_or_default()
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_external_sessions_announce_and_withdraw_both_families() {
    let Some(frr) = Frr::start("lab_external", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let (v4, v6) = (peer(ROUTER_V4, 7776, 7675), peer(ROUTER_V6, 7776, 7675));
        let speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
        let attributes =
            Attributes::default().with_communities([(7776 << 16) + 7]).with_large_communities([(7776, 1, 2)]);
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_internal_sessions_send_local_pref() {
    let config = ebgp("").replace("remote-as 7776", "remote-as 7675");
    let Some(frr) = Frr::start("lab_internal", &config) else { return };
    frr.lab.on_host(|| async {
        let (v4, v6) = (peer(ROUTER_V4, 7675, 7675), peer(ROUTER_V6, 7675, 7675));
        let speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default().with_local_pref(150)));
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_dual_stack_session_gets_the_other_next_hop_from_the_interface() {
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_four_octet_asn_is_in_the_path() {
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_session_needs_the_same_password_at_both_ends() {
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_routes_of_the_router_are_counted_and_not_installed() {
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_wrong_as_number_is_refused_by_either_end() {
    let Some(frr) = Frr::start("lab_wrong_number", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let stranger = speaker(&[("v4", &peer(ROUTER_V4, 65_000, 7675))]);
        let reason = |speaker: &Speaker| last_down(speaker);
        eventually("the router refuses the speaker", || {
            reason(&stranger) == "received OPEN Message Error: Bad Peer AS (2/2)"
        })
        .await;
        stranger.shutdown(false, Duration::from_secs(1)).await;
        let picky = speaker(&[("v4", &peer(ROUTER_V4, 7776, 1))]);
        eventually("the speaker refuses the router", || reason(&picky) == "sent OPEN Message Error: Bad Peer AS (2/2)")
            .await;
        // FRR records the NOTIFICATION with the connection and not with the neighbor, which only shows that there is no
        // session.
        assert_eq!(frr.neighbor(HOST_V4)["connectionsEstablished"], 0);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_cleared_session_is_reestablished_with_its_routes() {
    let Some(frr) = Frr::start("lab_clear", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 7776, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        frr.vtysh(&format!("clear bgp {HOST_V4} soft in"));
        eventually("the routes are requested again", || snapshot(&speaker).counters.route_refreshes_received > 0).await;
        frr.vtysh(&format!("clear bgp {HOST_V4}"));
        eventually("the reason is reported", || {
            last_down(&speaker).starts_with("received Cease: Administrative Reset (6/4)")
        })
        .await;
        eventually("the session is back", || snapshot(&speaker).counters.established == 2).await;
        eventually("the route is back", || frr.path(VIP_V4).is_some()).await;
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_silent_end_is_detected_by_either_end() {
    let Some(frr) = Frr::start("lab_silence", &ebgp("")) else { return };
    frr.lab.on_host(|| async {
        let mut config = peer(ROUTER_V4, 7776, 7675);
        config.session.hold_time = Duration::from_secs(3);
        let speaker = speaker(&[("v4", &config)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        // The kernel of the router acknowledges every segment, so only the hold timer detects it.
        frr.lab.freeze("bgpd", true);
        let reason = || last_down(&speaker);
        eventually("the speaker detects it", || reason() == "sent Hold Timer Expired (4/0)").await;
        frr.lab.freeze("bgpd", false);
        eventually("the session is back", || snapshot(&speaker).counters.established >= 2).await;
        eventually("the route is back", || frr.path(VIP_V4).is_some()).await;
        // This thread also runs the session. Bytes that arrived in the meantime are handled before timers.
        std::thread::sleep(Duration::from_secs(5));
        eventually("the router detected it", || reason() == "received Hold Timer Expired (4/0)").await;
        eventually("the route returns", || frr.path(VIP_V4).is_some()).await;
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_shutdown_withdraws_the_route_and_sends_the_reason() {
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
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_graceful_restart_of_the_speaker_keeps_the_route() {
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
        eventually("the router sees the end of the session", || frr.neighbor(HOST_V4)["bgpState"] != "Established")
            .await;
        assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays during the restart");

        let after = speaker(&[("v4", &config)]);
        eventually("the session is back", || {
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays while the session is established");
            snapshot(&after).state == State::Established
        })
        .await;
        // The new process does not know its routes yet.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays until the routes are known");
        }
        after.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the route that is not announced again is removed", || {
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays");
            !frr.lab.forwards("10.254.254.2", HOST_V4)
        })
        .await;
        assert!(frr.path(VIP_V4).unwrap().get("stale").is_none());
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_configuration_change_restarts_only_its_own_session() {
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
        eventually("Peer De-configured arrives", || frr.neighbor(HOST_V4)["lastErrorCodeSubcode"] == "0603").await;
        assert_eq!(frr.neighbor(HOST_V6)["connectionsEstablished"], 1);
    });
}
