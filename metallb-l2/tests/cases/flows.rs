//! Cases with more than one frame on a real link: floods, cancelled bursts, lost announcements.

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use metallb_l2::engine::Config;
use metallb_l2::engine::DropReason;
use metallb_l2::engine::{Limits, Rate};
use metallb_l2::interface::{MacAddr, Scope};

use crate::frames::{
    ETHERNET_SOURCE, Icmp, THIRD, US, VIP4, VIP4_SENTINEL, VIP6, VIP6_TWIN, link_layer_option, who_has, with,
};
use crate::lab::{Lab, NOTHING, in_namespace, ip, is_answer, is_arp, wait_for};

fn both() -> Vec<(IpAddr, Scope)> {
    vec![(VIP4.into(), Scope::All), (VIP6.into(), Scope::All), (VIP4_SENTINEL.into(), Scope::All)]
}

/// Sends many frames without retries.
fn flood(lab: &Lab, frames: impl Iterator<Item = Vec<u8>>) {
    let mut frames = frames.peekable();
    while frames.peek().is_some() {
        let batch: Vec<Vec<u8>> = frames.by_ref().take(64).collect();
        // A frame that is not sent needs no reply.
        let _ = lab.client.send(&batch);
    }
}

#[allow(clippy::ptr_arg, reason = "for iterators")]
fn about_sentinel(frame: &Vec<u8>) -> bool {
    is_arp(frame) && frame[28..32] == VIP4_SENTINEL.octets()
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_flood_of_requests_is_limited_while_another_host_is_answered() {
    // Cases ARP-30 and NDP-37. The limit is low, so that a busy machine reaches it.
    let hundred = std::num::NonZeroU32::new(100).unwrap();
    let mut config = Config::default();
    config.limits = Limits { per_sender: Some(Rate { per_second: hundred, burst: hundred }), total: None };
    in_namespace(move || {
        let mut lab = Lab::with(config, both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        let limited = || handle.counters().dropped.get(&DropReason::RateLimited).copied().unwrap_or(0);
        for question in [who_has(VIP4), Icmp::solicitation(VIP6).frame()] {
            let before = limited();
            wait_for("the limit", || {
                flood(&lab, std::iter::repeat_n(question.clone(), 1000));
                lab.receive();
                limited() > before
            });
            // The limit applies to the Ethernet source, while the reply goes to the ARP sender, which is the client.
            lab.send(&with(who_has(VIP4_SENTINEL), ETHERNET_SOURCE, &THIRD.0));
            wait_for("the answer to another host", || lab.receive().iter().any(about_sentinel));
        }
        let solicitations = (0..20_000_u32).map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            let mac = MacAddr([2, 0, 0, a, b, c]);
            let source = Ipv6Addr::from_bits(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 1, 0, 0).to_bits() + u128::from(n));
            Icmp { from: mac, source, options: link_layer_option(1, mac), ..Icmp::solicitation(VIP6) }.frame()
        });
        flood(&lab, solicitations);
        let neighbours = ip("neighbour show dev vip0");
        assert!(neighbours.lines().count() < 16, "the kernel added neighbours: {neighbours}");
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_removed_address_is_silent_once_the_command_is_applied() {
    // Cases ARP-22 and ARP-33: the second round of announcements would be due after 1.1 s.
    in_namespace(|| {
        let mut lab = Lab::new(both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        handle.announce(vec![(VIP4_SENTINEL.into(), Scope::All)]);
        // Commands are applied in order, so the reply to this one shows that the previous one has been applied.
        let before = handle.counters().gratuitous;
        while !lab.receive().is_empty() {}
        let (start, mut parsed) = (Instant::now(), Vec::new());
        while start.elapsed() < Duration::from_millis(1300) {
            lab.send(&who_has(VIP4));
            lab.send(&Icmp::solicitation(VIP6).frame());
            std::thread::sleep(Duration::from_millis(10));
            parsed.extend(lab.receive());
        }
        assert!(parsed.iter().any(about_sentinel), "the remaining address is still announced");
        assert_eq!(
            parsed.into_iter().filter(|frame| !about_sentinel(frame)).collect::<Vec<_>>(),
            Vec::<Vec<u8>>::new()
        );
        let after = handle.counters().gratuitous;
        assert_eq!(after.get(&VIP4.into()), before.get(&VIP4.into()));
        handle.announce(NOTHING);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_neighbour_that_misses_the_first_rounds_follows_a_later_one() {
    // Case ARP-34: the cache ignores announcements of the first 2.5 seconds.
    in_namespace(|| {
        let lab = Lab::new(Vec::new());
        let set = |state: &str| {
            for vip in [VIP4.to_string(), VIP6.to_string()] {
                ip(&format!("neighbour replace {vip} lladdr 02:00:00:00:00:33 nud {state} dev cli0"));
            }
        };
        set("permanent");
        lab.driver.handle().announce(both());
        std::thread::sleep(Duration::from_millis(2500));
        set("stale");
        for vip in [VIP4.to_string(), VIP6.to_string()] {
            wait_for("the neighbour", || {
                ip(&format!("neighbour show {vip} dev cli0")).contains("lladdr 02:00:00:00:00:01")
            });
        }
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_full_queue_of_one_interface_does_not_delay_other_interfaces() {
    // Case ARP-29: the queue of one interface accepts one frame per second and refuses the others.
    in_namespace(|| {
        ip("link add vip1 type veth peer name cli1");
        ip("link set vip1 up");
        ip("link set cli1 up");
        crate::lab::run("tc", "qdisc replace dev vip1 root tbf rate 1kbit burst 1540 limit 1540");
        let mut lab = Lab::new(Vec::new());
        let handle = lab.driver.handle();
        wait_for("both interfaces", || handle.interfaces().len() == 2);
        let addresses: Vec<IpAddr> = (0..1000).map(|n| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()).collect();
        handle.announce(addresses.iter().map(|&ip| (ip, Scope::All)).collect());
        lab.wait_for_announcements(US, addresses);
        let queue = crate::lab::run("tc", "-s qdisc show dev vip1");
        assert!(!queue.contains("dropped 0,"), "nothing was refused: {queue}");
        assert_eq!(lab.count_answers_to(&who_has([10, 0, 0, 7].into())), 1);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_requests_for_similar_addresses_are_not_answered() {
    // Case NDP-38, and the same for ARP.
    in_namespace(|| {
        let mut lab = Lab::new(both());
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..4096 {
            if round % 128 == 0 {
                // Wait regularly, so that a busy machine drops no frames.
                assert_eq!(lab.answers_to(&who_has(crate::frames::NOT_OURS4)), Vec::<Vec<u8>>::new());
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bits = u128::from(random) << 64 | u128::from(random.rotate_left(17));
            let target = Ipv6Addr::from_bits(VIP6.to_bits() ^ (bits >> (random % 128)).max(1));
            if target != VIP6 {
                // Unicast, so that the multicast filter does not drop it.
                lab.send(&Icmp { to: US, ..Icmp::solicitation(target) }.frame());
            }
            let target = VIP4.to_bits() ^ (random as u32 >> (random % 32)).max(1);
            if target != VIP4_SENTINEL.to_bits() {
                lab.send(&who_has(target.into()));
            }
            assert!(!lab.receive().iter().any(|frame| is_answer(frame)));
        }
        assert_eq!(lab.answers_to(&who_has(crate::frames::NOT_OURS4)), Vec::<Vec<u8>>::new());
        assert!(lab.driver.handle().counters().dropped[&DropReason::AnnounceIp] >= 8000);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_group_of_two_addresses_is_left_with_the_last_one() {
    // Case NDP-31.
    in_namespace(|| {
        let mut lab = Lab::new(vec![(VIP6.into(), Scope::All), (VIP6_TWIN.into(), Scope::All)]);
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP6.into(), VIP6_TWIN.into()]);
        let listed = || ip("maddr show dev vip0").contains("33:33:ff:00:00:00");
        handle.announce(vec![(VIP6_TWIN.into(), Scope::All)]);
        let _ = handle.counters();
        assert!(listed(), "one address remains");
        assert_eq!(lab.count_answers_to(&Icmp::solicitation(VIP6_TWIN).frame()), 1);
        handle.announce(NOTHING);
        wait_for("the end of the group", || !listed());
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_solicitation_with_offloaded_checksum_is_answered() {
    // Case NDP-08: between veth interfaces such a frame arrives without its checksum. PACKET_VNET_HDR creates one.
    let script = "import socket,sys\n\
        s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,0)\n\
        s.setsockopt(263,15,1)\n\
        s.bind(('cli0',0))\n\
        s.send(bytes.fromhex(sys.argv[1]))\n";
    if Command::new("python3").arg("-V").output().is_err() {
        println!("SKIPPED: the program `python3` is missing");
        return;
    }
    in_namespace(move || {
        let mut lab = Lab::new(both());
        lab.wait_for_announcements(US, [VIP6.into()]);
        let send = |flags: u8, frame: &[u8]| {
            // virtio_net_hdr: flags, no segments, header and segment lengths, start and offset of the checksum.
            let header = [flags, 0, 0, 0, 0, 0, 14 + 40, 0, 2, 0];
            let hex: String = [&header, frame].concat().iter().map(|byte| format!("{byte:02x}")).collect();
            let output = Command::new("python3").args(["-c", script, &hex]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        // The kernel leaves the sum of the pseudo-header there.
        let question = with(Icmp::solicitation(VIP6).frame(), 14 + 40 + 2, &[0x12, 0x34]);
        let dropped = |lab: &Lab| lab.driver.handle().counters().dropped.get(&DropReason::Checksum).copied();
        send(0, &question);
        wait_for("the drop of a wrong checksum", || dropped(&lab) == Some(1));
        while !lab.receive().is_empty() {}
        send(1, &question);
        wait_for("the answer", || lab.receive().iter().any(|frame| is_answer(frame)));
        assert_eq!(dropped(&lab), Some(1));
    });
}
