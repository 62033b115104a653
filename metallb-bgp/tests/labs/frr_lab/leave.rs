//! Graceful shutdown, graceful restart with BFD, and connections that the router opens.

use metallb_bgp::bfd::{Interval, Profile};
use metallb_bgp::io::{BfdConfig, Refusal};
use metallb_bgp::session::{Event, Mode};

use super::*;

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_peer_that_drops_the_routes_gets_graceful_shutdown_first() {
    for (kind, asn) in [("external", 7776), ("internal", 7675)] {
        let config = ebgp("").replace("remote-as 7776", &format!("remote-as {asn}"));
        let Some(frr) = Frr::start("lab_drain", &config) else { return };
        frr.lab.on_host(|| async {
            let (v4, v6) = (peer(ROUTER_V4, asn, 7675), peer(ROUTER_V6, asn, 7675));
            let speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
            let attributes = Attributes::default().with_communities([(7776 << 16) + 7]);
            speaker.set_routes("v4", routes(&[VIP_V4], &attributes));
            speaker.set_routes("v6", routes(&[VIP_V6], &attributes));
            for vip in [VIP_V4, VIP_V6] {
                eventually("the router has the route", || frr.path(vip).is_some_and(|path| path["valid"] == true))
                    .await;
            }
            assert!(speaker.drain(true).await, "somebody is to be waited for");
            for vip in [VIP_V4, VIP_V6] {
                eventually("the router was asked", || {
                    let community = frr.path(vip).unwrap()["community"]["string"].clone();
                    community == "graceful-shutdown 7776:7" || community == "7776:7 graceful-shutdown"
                })
                .await;
                let path = frr.path(vip).unwrap();
                // FRR applies the community itself; an internal peer also gets LOCAL_PREF.
                assert_eq!(path["locPrf"], 0, "{kind} {path}");
                assert_eq!(path["valid"], true, "and may still use the route: {path}");
            }
            for host in [HOST_V4, HOST_V6] {
                assert_eq!(frr.neighbor(host)["bgpState"], "Established");
            }
            speaker.shutdown(true, Duration::from_secs(2)).await;
            for vip in [VIP_V4, VIP_V6] {
                eventually("the route is gone", || frr.path(vip).is_none()).await;
            }
        });
    }
}

fn with_bfd() -> String {
    let bfd = format!("bgp graceful-restart\n neighbor {HOST_V4} bfd\n neighbor {HOST_V4} bfd profile fast\n ");
    "bfd\n profile fast\n  receive-interval 200\n  transmit-interval 200\n exit\nexit\n".to_owned() + &ebgp(&bfd)
}

/// Graceful restart and BFD together: the route stays although the BFD session of the speaker goes down.
#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_graceful_restart_with_bfd_keeps_the_route() {
    let Some(frr) = Frr::start("lab_restart_bfd", &with_bfd()) else { return };
    frr.lab.on_host(|| async {
        let interval = Interval(200_000);
        let profile = Profile::default().with_interval(interval);
        let mut config = peer(ROUTER_V4, 7776, 7675);
        config.session.graceful_restart = true;
        config.bfd = Some(BfdConfig::new(profile));
        let first = speaker(&[("v4", &config)]);
        first.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the kernel forwards", || frr.lab.forwards(VIP_V4, HOST_V4)).await;
        eventually("BFD is up", || frr.bfd_peer(HOST_V4)["status"] == "up").await;
        eventually("BFD is up at this end", || {
            snapshot(&first).bfd.is_some_and(|bfd| bfd.state == metallb_bgp::bfd::State::Up)
        })
        .await;

        // Longer than the detection time.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(snapshot(&first).counters.established, 1, "BFD comes up and does not affect the session");
        assert_eq!(frr.neighbor(HOST_V4)["connectionsDropped"], 0);

        assert!(!first.drain(true).await, "a router that keeps the route gets no graceful shutdown");
        first.shutdown(true, Duration::from_secs(2)).await;
        eventually("the router's BFD is down", || frr.bfd_peer(HOST_V4)["status"] == "down").await;
        assert_eq!(frr.bfd_peer(HOST_V4)["remote-diagnostic"], "administratively down");
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays during the restart");
        }
        let path = frr.path(VIP_V4).unwrap();
        assert_eq!(path["stale"], true, "{path}");
        assert!(path.get("community").is_none(), "no graceful shutdown: {path}");

        let second = speaker(&[("v4", &config)]);
        second.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the route is announced again, and BFD is up", || {
            assert!(frr.lab.forwards(VIP_V4, HOST_V4), "the route stays while the session is established");
            frr.path(VIP_V4).is_some_and(|path| path.get("stale").is_none())
                && frr.bfd_peer(HOST_V4)["status"] == "up"
                && snapshot(&second).state == State::Established
        })
        .await;
    });
}

/// The behaviour of FRR that docs/design/0005-what-restarts-a-bgp-session.md describes.
#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_enabling_graceful_restart_restarts_the_session_and_a_change_at_the_router_does_not() {
    let Some(frr) = Frr::start("lab_first_restart", &ebgp("bgp graceful-restart")) else { return };
    frr.lab.on_host(|| async {
        let mut config = peer(ROUTER_V4, 7776, 7675);
        let (events, mut heard) = mpsc::channel(64);
        let mut speaker = Speaker::new(events, 1);
        configure(&mut speaker, &[("v4", &config)]);
        let sessions = |number: u64| {
            let neighbor = frr.neighbor(HOST_V4);
            neighbor["bgpState"] == "Established" && neighbor["connectionsEstablished"] == number
        };
        let restarts = |speaker: &Speaker| {
            let snapshot = snapshot(speaker);
            snapshot.state == State::Established && snapshot.negotiated.is_some_and(|agreed| agreed.graceful_restart)
        };
        eventually("the session is up", || sessions(1) && snapshot(&speaker).state == State::Established).await;
        assert!(!restarts(&speaker), "only one end supports it");
        while heard.try_recv().is_ok() {}

        config.session.graceful_restart = true;
        configure(&mut speaker, &[("v4", &config)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("both ends have negotiated it", || sessions(2) && restarts(&speaker)).await;
        // The router may reset the next connection and forget the NOTIFICATION, so the speaker's own event is checked.
        let ends = std::iter::from_fn(|| heard.try_recv().ok()).filter_map(|heard| match heard.event {
            Event::Down { from, reason } => Some((from, reason.to_string())),
            _ => None,
        });
        let ends: Vec<_> = ends.collect();
        let expected = (State::Established, "sent Cease: Other Configuration Change (6/6)".to_owned());
        assert_eq!(ends.first(), Some(&expected), "{ends:?}");

        let router = ["configure terminal", "router bgp 7675"];
        for line in [format!("neighbor {HOST_V4} graceful-restart-disable"), "bgp graceful-restart-disable".to_owned()]
        {
            frr.configure(&[&router[..], &[&line]].concat());
        }
        // FRR applies a change to a session within a second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(sessions(2) && restarts(&speaker), "negotiated capabilities stay: {}", frr.neighbor(HOST_V4));

        frr.vtysh("clear bgp *");
        eventually("both ends have negotiated without it", || {
            sessions(3) && snapshot(&speaker).state == State::Established
        })
        .await;
        assert!(!restarts(&speaker), "{:?}", snapshot(&speaker).negotiated);
        eventually("the route is there", || frr.path(VIP_V4).is_some()).await;
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_router_that_connects_gets_its_session_and_an_unknown_host_is_refused() {
    // The router opens every session.
    let port = 1790;
    let active = ebgp(&format!(
        "neighbor {HOST_V4} port {port}\n neighbor {HOST_V4} timers connect 1\n neighbor {HOST_V4} password right\n \
         neighbor {HOST_V6} port {port}\n neighbor {HOST_V6} timers connect 1\n \
         neighbor {HOST_V6} ttl-security hops 1"
    ))
    .replace(&format!("neighbor {HOST_V4} passive\n"), "")
    .replace(&format!("neighbor {HOST_V6} passive\n"), "");
    let Some(frr) = Frr::start("lab_incoming", &active) else { return };
    frr.lab.router_ip("address add 172.16.1.253/24 dev eth0");
    frr.lab.on_host(|| async {
        let passive = |address: &str| {
            let mut config = peer(address, 7776, 7675);
            config.session.mode = Mode::Passive;
            config
        };
        let (mut v4, v6) = (passive(ROUTER_V4), passive(ROUTER_V6));
        v4.endpoint.password = Some(b"wrong".to_vec());
        let mut speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
        speaker.listen(format!("[::]:{port}").parse().unwrap()).unwrap();
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        speaker.set_routes("v6", routes(&[VIP_V6], &Attributes::default()));
        eventually("the route of the open session is there", || frr.path(VIP_V6).is_some()).await;
        assert_eq!(frr.neighbor(HOST_V6)["externalBgpNbrMaxHopsAway"], 1, "{}", frr.neighbor(HOST_V6));
        assert!(frr.path(VIP_V4).is_none(), "the password is wrong");
        assert_ne!(frr.neighbor(HOST_V4)["bgpState"], "Established");

        v4.endpoint.password = Some(b"right".to_vec());
        configure(&mut speaker, &[("v4", &v4), ("v6", &v6)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the route is there", || frr.path(VIP_V4).is_some()).await;
        assert_eq!(frr.neighbor(HOST_V4)["hostForeign"], HOST_V4, "{}", frr.neighbor(HOST_V4));
        assert_eq!(frr.neighbor(HOST_V4)["portForeign"], port, "{}", frr.neighbor(HOST_V4));

        let before = speaker.observer().incoming();
        assert_eq!(before.refused[&Refusal::UnknownPeer], 0);
        let connect = format!(
            "import socket\nsource = ('172.16.1.253', 0)\n\
             socket.create_connection(('{HOST_V4}', {port}), 5, source_address=source).close()"
        );
        frr.lab.on_router("python3", &["-c", &connect]);
        eventually("an unknown host is refused and counted", || {
            speaker.observer().incoming().refused[&Refusal::UnknownPeer] > 0
        })
        .await;
        assert!(speaker.observer().incoming().accepted >= 2);
        assert!(speaker.snapshot().values().all(|peer| peer.state == State::Established), "the sessions stay up");
    });
}
