//! BFD for BGP sessions with FRR.

use metallb_bgp::bfd::{Hops, Interval, Profile, SessionSnapshot};
use metallb_bgp::io::{BfdConfig, Distance};

use super::*;
use crate::support::frr;

/// BFD with intervals that a busy machine can keep. The hold timer would need 90 s.
fn bfd_config(interval: u32, hops: Option<Hops>) -> Option<BfdConfig> {
    let interval = Interval(interval * 1000);
    let profile = Profile::default().with_interval(interval);
    let mut config = BfdConfig::new(profile);
    config.hops = hops;
    Some(config)
}

fn router(extra: &str) -> String {
    let bfd = [HOST_V4, HOST_V6].map(|host| format!("neighbor {host} bfd\n neighbor {host} bfd profile fast\n "));
    "bfd\n profile fast\n  receive-interval 200\n  transmit-interval 200\n exit\nexit\n".to_owned()
        + &ebgp(&format!("{}{extra}", bfd.concat()))
}

fn bfd_state(speaker: &Speaker, peer: &str) -> String {
    let status = speaker.snapshot().get(peer).and_then(|snapshot| snapshot.bfd.clone());
    status.map_or_else(|| "none".to_owned(), |status| status.state.to_string())
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bfd_ends_the_sessions_of_a_silent_router_and_they_return_with_it() {
    let Some(frr) = Frr::start("lab_bfd", &router("")) else { return };
    frr.lab.on_host(|| async {
        let (mut v4, mut v6) = (peer(ROUTER_V4, 7776, 7675), peer(ROUTER_V6, 7776, 7675));
        (v4.bfd, v6.bfd) = (bfd_config(200, None), bfd_config(200, None));
        let mut speaker = speaker(&[("v4", &v4), ("v6", &v6)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        speaker.set_routes("v6", routes(&[VIP_V6], &Attributes::default()));
        for (host, vip) in [(HOST_V4, VIP_V4), (HOST_V6, VIP_V6)] {
            eventually("the router's BFD is up", || frr.bfd_peer(host)["status"] == "up").await;
            eventually("the router has the route", || frr.path(vip).is_some()).await;
        }
        for (name, host) in [("v4", HOST_V4), ("v6", HOST_V6)] {
            // The router is up a packet before we are, and learns our intervals a packet later.
            eventually("our BFD is up", || bfd_state(&speaker, name) == "Up").await;
            eventually("the router learned the interval", || frr.bfd_peer(host)["remote-transmit-interval"] == 200)
                .await;
            let there = frr.bfd_peer(host);
            assert_eq!(there["remote-receive-interval"], 200, "{there}");
            assert_eq!(there["remote-transmit-interval"], 200, "{there}");
            assert_eq!(there["remote-detect-multiplier"], 3, "{there}");
            assert_eq!(there["multihop"], false, "{there}");
        }

        // Another profile is negotiated while everything stays up.
        let dropped = frr.neighbor(HOST_V4)["connectionsDropped"].clone();
        v4.bfd = bfd_config(400, None).map(|mut bfd| {
            bfd.profile.receive_interval = Interval(500_000);
            bfd
        });
        configure(&mut speaker, &[("v4", &v4), ("v6", &v6)]);
        eventually("the router learned the new interval", || frr.bfd_peer(HOST_V4)["remote-transmit-interval"] == 400)
            .await;
        assert_eq!(frr.bfd_peer(HOST_V4)["status"], "up");
        assert_eq!(frr.neighbor(HOST_V4)["connectionsDropped"], dropped);
        // Both ends have negotiated the same timers: the slower side decides, and each end uses the multiplier of the other.
        let agreed = |session: &SessionSnapshot| {
            let there = frr.bfd_peer(HOST_V4);
            let Some(theirs) = session.remote_timers else { return false };
            let milliseconds = |time: Duration| time.as_millis() as u64;
            let of = |name: &str| there[name].as_u64().unwrap_or_default();
            let slower = |ours: &str, theirs: &str| of(ours).max(of(theirs));
            let sent = slower("remote-transmit-interval", "receive-interval");
            let interval = slower("transmit-interval", "remote-receive-interval");
            (milliseconds(theirs.transmit_interval.duration()), milliseconds(theirs.receive_interval.duration()))
                == (of("transmit-interval"), of("receive-interval"))
                && u64::from(theirs.detect_multiplier.get()) == of("detect-multiplier")
                && session.transmit_interval.map(milliseconds) == Some(sent)
                && session.receive_interval.map(milliseconds) == Some(interval)
                && milliseconds(session.detection_time) == interval * of("detect-multiplier")
                && milliseconds(session.remote_detection_time) == sent * of("remote-detect-multiplier")
                && (sent, interval) == (400, 500)
        };
        eventually("both ends have the same timers", || {
            let path = speaker.snapshot()["v4"].bfd_path.clone();
            path.is_some_and(|path| speaker.observer().bfd().session(&path).is_some_and(agreed))
        })
        .await;

        // bgpd and the kernel keep running, so only BFD detects the failure.
        frr.lab.freeze("bfdd", true);
        let closed = |name: &str| {
            let snapshot = speaker.snapshot().remove(name).unwrap();
            snapshot.state != State::Established
                && snapshot.last_down.is_some_and(|reason| reason.to_string() == "sent Cease: BFD Down (6/10)")
        };
        eventually("the speaker ends both sessions", || closed("v4") && closed("v6")).await;
        for vip in [VIP_V4, VIP_V6] {
            eventually("the route is gone", || frr.path(vip).is_none()).await;
        }
        frr.lab.freeze("bfdd", false);
        for vip in [VIP_V4, VIP_V6] {
            eventually("the route is back", || frr.path(vip).is_some()).await;
        }

        // BFD is disabled. FRR 8.4 ends its BGP session on AdminDown, against RFC 5882 §3.2; the next one has no BFD.
        v4.bfd = None;
        configure(&mut speaker, &[("v4", &v4), ("v6", &v6)]);
        eventually("the router sees it", || frr.bfd_peer(HOST_V4)["status"] == "down").await;
        assert_eq!(frr.bfd_peer(HOST_V4)["remote-diagnostic"], "administratively down");
        assert_eq!(bfd_state(&speaker, "v4"), "none");
        eventually("the route is there", || frr.path(VIP_V4).is_some()).await;
        speaker.shutdown(false, Duration::from_secs(2)).await;
        eventually("the router gets AdminDown", || {
            frr.bfd_peer(HOST_V6)["remote-diagnostic"] == "administratively down"
        })
        .await;
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_multihop_bfd_detects_a_failure() {
    let config = format!(
        "bfd\n profile fast\n  receive-interval 200\n  transmit-interval 200\n  minimum-ttl 250\n exit\nexit\n\
         router bgp 7675\n bgp router-id 172.16.1.254\n no bgp ebgp-requires-policy\n \
         neighbor {HOST_V4} remote-as 7776\n neighbor {HOST_V4} passive\n neighbor {HOST_V4} ebgp-multihop\n \
         neighbor {HOST_V4} update-source 10.99.0.1\n neighbor {HOST_V4} bfd\n neighbor {HOST_V4} bfd profile fast\n"
    );
    let Some(lab) = Lab::new("lab_bfd_multihop", &frr::PROGRAMS) else { return };
    lab.router_ip("address add 10.99.0.1/32 dev lo");
    lab.host_ip(&format!("route add 10.99.0.1/32 via {ROUTER_V4}"));
    let frr = Frr::start_in(lab, &config);
    frr.lab.on_host(|| async {
        let mut far = peer("10.99.0.1", 7776, 7675);
        far.endpoint.distance = Distance::Routed;
        far.bfd = bfd_config(200, Some(Hops::Multiple));
        let speaker = speaker(&[("far", &far)]);
        speaker.set_routes("far", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        eventually("the router's BFD is up", || frr.bfd_peer(HOST_V4)["status"] == "up").await;
        let there = frr.bfd_peer(HOST_V4);
        assert_eq!(there["multihop"], true, "{there}");
        frr.lab.freeze("bfdd", true);
        let reason = || last_down(&speaker);
        eventually("the speaker ends the session", || reason() == "sent Cease: BFD Down (6/10)").await;
        frr.lab.freeze("bfdd", false);
        eventually("the route is back", || snapshot(&speaker).counters.established == 2 && frr.path(VIP_V4).is_some())
            .await;
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bfd_echo_packets_are_returned() {
    let config = router("").replace("  transmit-interval 200\n", "  transmit-interval 200\n  echo-mode\n");
    let Some(frr) = Frr::start("lab_bfd_echo", &config) else { return };
    frr.lab.on_host(|| async {
        let mut v6 = peer(ROUTER_V6, 7776, 7675);
        v6.bfd = bfd_config(200, None).map(|mut bfd| {
            bfd.profile.echo = Some(Interval(200_000));
            bfd
        });
        let speaker = speaker(&[("v6", &v6)]);
        eventually("the router's BFD is up", || frr.bfd_peer(HOST_V6)["status"] == "up").await;
        eventually("echo packets are returned", || {
            let report = speaker.observer().bfd();
            report.sessions.iter().any(|session| session.session.is_some_and(|s| s.counters.echo_packets_in > 3))
        })
        .await;
    });
}

/// FRR 8.4 has no strict mode, so the test enables the neighbor only when BFD is up.
#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_router_that_requires_bfd_before_bgp_gets_it() {
    let waiting = format!("bfd\n peer {HOST_V4}\n  receive-interval 200\n  transmit-interval 200\n exit\nexit\n")
        + &ebgp(&format!("neighbor {HOST_V4} shutdown"));
    let Some(frr) = Frr::start("lab_bfd_first", &waiting) else { return };
    frr.lab.on_host(|| async {
        let mut v4 = peer(ROUTER_V4, 7776, 7675);
        v4.bfd = bfd_config(200, None);
        let speaker = speaker(&[("v4", &v4)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("BFD is up without a session of BGP", || frr.bfd_peer(HOST_V4)["status"] == "up").await;
        assert_eq!(snapshot(&speaker).counters.established, 0);
        frr.configure(&["configure terminal", "router bgp 7675", &format!("no neighbor {HOST_V4} shutdown")]);
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
        assert_eq!(bfd_state(&speaker, "v4"), "Up");
    });
}
