//! Addresses that change while sessions run, and BFD that must not outlive its path.

use std::time::Instant;

use metallb_bgp::bfd::{Hops, Interval, Profile};
use metallb_bgp::io::{BfdConfig, Router};
use nix::sys::signal::Signal;

use super::*;
use crate::support::frr;

/// A router that accepts IPv6 routes on the IPv4 session.
fn dual_stack() -> String {
    ebgp("").replace(&format!("  neighbor {HOST_V6} activate"), &format!("  neighbor {HOST_V4} activate"))
}

fn both_families() -> PeerConfig {
    let mut both = peer(ROUTER_V4, 7776, 7675);
    both.session.families = vec![Family::Ipv4, Family::Ipv6];
    both
}

fn next_hop(frr: &Frr, vip: &str) -> Option<String> {
    let path = frr.path(vip)?;
    let hops = path["nexthops"].as_array()?.iter();
    let global = hops.filter(|hop| hop["scope"] != "link-local").find_map(|hop| hop["ip"].as_str());
    global.map(str::to_owned)
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_next_hop_is_an_address_that_the_router_can_use() {
    let Some(frr) = Frr::start("lab_next_hop", &dual_stack()) else { return };
    // Each is newer than the good one, so the kernel lists it first.
    for address in [
        "fd00:1::dead/64 dev eth0 nodad preferred_lft 0",
        "fd00:1::777/128 dev eth0 nodad",
        "fd00:aaaa::5/64 dev eth0 nodad",
        &format!("{VIP_V6} dev eth0 nodad"),
    ] {
        frr.lab.host_ip(&format!("address add {address}"));
    }
    // The router's own address: duplicate address detection fails.
    frr.lab.host_ip(&format!("address add {ROUTER_V6}/64 dev eth0"));
    frr.lab.on_host(|| async {
        eventually("the duplicate is detected", || frr.lab.host_ip("-6 address show dev eth0").contains("dadfailed"))
            .await;
        let speaker = speaker(&[("both", &both_families())]);
        speaker.set_routes("both", routes(&[VIP_V4, VIP_V6], &Attributes::default()));
        for (vip, hop) in [(VIP_V4, HOST_V4), (VIP_V6, HOST_V6)] {
            eventually("the router has the route", || frr.path(vip).is_some_and(|path| path["valid"] == true)).await;
            assert_eq!(next_hop(&frr, vip).as_deref(), Some(hop));
        }
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_next_hop_follows_the_addresses_of_the_host() {
    let Some(frr) = Frr::start("lab_next_hop_moves", &dual_stack()) else { return };
    frr.lab.host_ip(&format!("address del {HOST_V6}/64 dev eth0"));
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("both", &both_families())]);
        speaker.set_routes("both", routes(&[VIP_V4, VIP_V6], &Attributes::default()));
        eventually("the router has the IPv4 route", || frr.path(VIP_V4).is_some()).await;
        assert_eq!(frr.path(VIP_V6), None, "no next hop");
        for (change, hop) in [
            (format!("add {HOST_V6}/64 dev eth0 nodad"), Some(HOST_V6)),
            ("add fd00:1::12/64 dev eth0 nodad".to_owned(), Some(HOST_V6)),
            (format!("del {HOST_V6}/64 dev eth0"), Some("fd00:1::12")),
            ("del fd00:1::12/64 dev eth0".to_owned(), None),
            (format!("add {HOST_V6}/64 dev eth0"), Some(HOST_V6)),
            (format!("change {HOST_V6}/64 dev eth0 preferred_lft 0"), None),
        ] {
            frr.lab.host_ip(&format!("address {change}"));
            let changed = Instant::now();
            eventually(&change, || next_hop(&frr, VIP_V6).as_deref() == hop).await;
            // Duplicate address detection takes up to two seconds of them.
            assert!(changed.elapsed() < Duration::from_secs(4), "{change}: {:?}", changed.elapsed());
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(next_hop(&frr, VIP_V6).as_deref(), hop, "{change}");
        }
        assert_eq!(snapshot(&speaker).counters.established, 1, "the session stays");
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_session_is_remade_from_another_address_when_its_own_is_removed() {
    let config = "router bgp 7675\n bgp router-id 172.16.1.254\n no bgp ebgp-requires-policy\n \
                  neighbor nodes peer-group\n neighbor nodes remote-as 7776\n \
                  bgp listen range 172.16.1.0/24 peer-group nodes\n";
    let Some(frr) = Frr::start("lab_source_moves", config) else { return };
    frr.lab.on_host(|| async {
        let speaker = speaker(&[("v4", &peer(ROUTER_V4, 7776, 7675))]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("the router has the route", || next_hop(&frr, VIP_V4).as_deref() == Some(HOST_V4)).await;

        // An address that returns costs nothing.
        frr.lab.host_ip(&format!("address del {HOST_V4}/24 dev eth0"));
        tokio::time::sleep(Duration::from_secs(2)).await;
        frr.lab.host_ip(&format!("address add {HOST_V4}/24 dev eth0"));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(snapshot(&speaker).counters.established, 1, "{:?}", snapshot(&speaker).last_down);

        frr.lab.host_ip(&format!("address del {HOST_V4}/24 dev eth0"));
        frr.lab.host_ip("address add 172.16.1.17/24 dev eth0");
        let changed = Instant::now();
        eventually("the session has another source", || {
            let snapshot = snapshot(&speaker);
            let source = snapshot.addresses.map(|(local, _)| local.ip().to_string());
            snapshot.state == State::Established && source.as_deref() == Some("172.16.1.17")
        })
        .await;
        assert!(changed.elapsed() < Duration::from_secs(3), "{:?}", changed.elapsed());
        let reason = snapshot(&speaker).last_session.map(|session| session.reason.to_string());
        let expected = format!("connection lost: the local address {HOST_V4} was removed from this host");
        assert_eq!(reason, Some(expected));
        eventually("the route has the new next hop", || next_hop(&frr, VIP_V4).as_deref() == Some("172.16.1.17")).await;
    });
}

fn fast_bfd() -> Option<BfdConfig> {
    Some(BfdConfig::new(Profile::default().with_interval(Interval(200_000))))
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_router_with_an_on_link_route_gets_single_hop_bfd() {
    let config = format!(
        "router bgp 7675\n bgp router-id 172.16.1.254\n neighbor {HOST_V4} remote-as 7675\n \
         neighbor {HOST_V4} passive\n neighbor {HOST_V4} bfd\n"
    );
    let Some(lab) = Lab::new("lab_on_link", &frr::PROGRAMS) else { return };
    lab.host_ip(&format!("address del {HOST_V4}/24 dev eth0"));
    lab.host_ip(&format!("address add {HOST_V4}/32 dev eth0"));
    lab.host_ip(&format!("route add {ROUTER_V4} dev eth0"));
    let frr = Frr::start_in(lab, &config);
    frr.lab.on_host(|| async {
        let mut internal = peer(ROUTER_V4, 7675, 7675);
        internal.bfd = fast_bfd();
        let speaker = speaker(&[("router", &internal)]);
        eventually("the router's BFD is up", || frr.bfd_peer(HOST_V4)["status"] == "up").await;
        assert_eq!(frr.bfd_peer(HOST_V4)["multihop"], false);
        assert_eq!(snapshot(&speaker).bfd_path.map(|path| path.hops), Some(Hops::Single));
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_router_whose_bfd_died_gets_its_routes_after_a_short_wait() {
    let config = ebgp(&format!("neighbor {HOST_V4} bfd"));
    let Some(frr) = Frr::start("lab_bfd_dies", &config) else { return };
    frr.lab.on_host(|| async {
        let mut v4 = peer(ROUTER_V4, 7776, 7675);
        v4.bfd = fast_bfd();
        let speaker = speaker(&[("v4", &v4)]);
        speaker.set_routes("v4", routes(&[VIP_V4], &Attributes::default()));
        eventually("BFD is up", || snapshot(&speaker).bfd.is_some_and(|bfd| bfd.state == metallb_bgp::bfd::State::Up))
            .await;
        frr.lab.signal("bfdd", Signal::SIGKILL);
        eventually("the session waits for BFD", || snapshot(&speaker).waits_for_bfd_until.is_some()).await;
        let until = snapshot(&speaker).waits_for_bfd_until.expect("it waits");
        assert!(until <= Instant::now() + Duration::from_secs(11));
        eventually("the route is back", || frr.path(VIP_V4).is_some()).await;
        let established = snapshot(&speaker).counters.established;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(snapshot(&speaker).counters.established, established, "BFD that is not up ends no session");
        assert_eq!(snapshot(&speaker).waits_for_bfd_until, None);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_unnumbered_router_that_is_replaced_is_watched_at_its_new_address() {
    let config = "interface eth0\n no ipv6 nd suppress-ra\n ipv6 nd ra-interval 3\nexit\n\
                  router bgp 7675\n bgp router-id 172.16.1.254\n no bgp ebgp-requires-policy\n \
                  neighbor eth0 interface remote-as external\n neighbor eth0 bfd\n";
    let Some(lab) = Lab::new("lab_replaced_router", &frr::PROGRAMS) else { return };
    for ip in [Lab::host_ip, Lab::router_ip] {
        ip(&lab, "-4 address flush dev eth0");
        ip(&lab, "-6 address flush dev eth0 scope global");
    }
    let frr = Frr::start_in(lab, config);
    frr.lab.on_host(|| async {
        let mut unnumbered = peer(ROUTER_V6, 7776, 7675);
        unnumbered.endpoint.router = Router::Unnumbered { interface: "eth0".to_owned(), port: 179 };
        unnumbered.session.families = vec![Family::Ipv4];
        unnumbered.bfd = fast_bfd();
        let speaker = speaker(&[("router", &unnumbered)]);
        speaker.set_routes("router", routes(&[VIP_V4], &Attributes::default()));
        let bfd_is_up = || snapshot(&speaker).bfd.is_some_and(|bfd| bfd.state == metallb_bgp::bfd::State::Up);
        eventually("BFD is up", bfd_is_up).await;
        for command in ["down", "address 02:00:00:00:00:99", "up"] {
            frr.lab.router_ip(&format!("link set eth0 {command}"));
        }
        eventually("the session ends", || snapshot(&speaker).state != State::Established).await;
        let new = "fe80::ff:fe00:99";
        eventually("the session is at the new address", || {
            let snapshot = snapshot(&speaker);
            let remote = snapshot.addresses.map(|(_, remote)| remote.ip().to_string());
            snapshot.state == State::Established && remote.as_deref() == Some(new)
        })
        .await;
        eventually("BFD is up at the new address", || {
            let path = snapshot(&speaker).bfd_path.map(|path| path.remote.to_string());
            path.as_deref() == Some(new) && bfd_is_up()
        })
        .await;
        eventually("the router has the route", || frr.path(VIP_V4).is_some()).await;
    });
}
