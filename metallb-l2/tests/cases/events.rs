//! Changes of interfaces on real devices (cases ARP-26, ARP-27, NDP-33 to NDP-35). Some kernels lack VLAN, bond and VRF
//! devices; their netlink messages are tested in `io/routing.rs`.

use std::sync::mpsc;
use std::time::Duration;

use metallb_l2::interface::{Interface, MacAddr, Scope};
use metallb_l2::io::{Handle, Notification, RawSocket};

use crate::frames::{US, VIP4, VIP6, who_has};
use crate::lab::{Lab, PATIENCE, in_namespace, ip, is_answer, wait_for};

fn names(handle: &Handle) -> Vec<String> {
    handle.interfaces().iter().map(|interface| interface.name.to_string()).collect()
}

fn find(handle: &Handle, name: &str) -> Option<Interface> {
    handle.interfaces().into_iter().find(|interface| &*interface.name == name)
}

fn both() -> Vec<(std::net::IpAddr, Scope)> {
    vec![(VIP4.into(), Scope::All), (VIP6.into(), Scope::All)]
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_interface_that_returns_is_announced_on_again() {
    in_namespace(|| {
        let mut lab = Lab::new(both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        ip("link set vip0 down");
        wait_for("the end of the interface", || names(&handle).is_empty());
        // The kernel removes the IPv6 address with the link. The driver still announces when the link returns.
        ip("link set vip0 up");
        lab.wait_for_announcements(US, [VIP4.into()]);
        assert_eq!(find(&handle, "vip0").unwrap().link_local, None);
        ip("addr add fe80::1/64 dev vip0 nodad");
        lab.wait_for_announcements(US, [VIP6.into()]);
        assert!(find(&handle, "vip0").unwrap().link_local.is_some());
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_carrier_that_returns_before_the_next_read_is_announced_on_again() {
    in_namespace(|| {
        let mut lab = Lab::new(both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        ip("link set cli0 down");
        wait_for("the loss of carrier", || names(&handle).is_empty());
        ip("link set cli0 up");
        lab.client = RawSocket::open(nix::net::if_::if_nametoindex("cli0").unwrap()).unwrap();
        wait_for("carrier", || !names(&handle).is_empty());
        // The thread is blocked while the carrier is lost and returns.
        let (told, news) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        handle.listen(move |item| {
            drop(told.send(item.clone()));
            if matches!(item, Notification::Announced(_)) {
                let _ = held.recv_timeout(PATIENCE);
            }
        });
        handle.announce(vec![(VIP4.into(), Scope::All)]);
        handle.announce_again(vec![VIP4.into()]);
        while !matches!(news.recv_timeout(PATIENCE).unwrap(), Notification::Announced(_)) {}
        let state = || std::fs::read_to_string("/sys/class/net/vip0/operstate").unwrap();
        ip("link set cli0 down");
        wait_for("the kernel to see it", || state().trim() != "up");
        ip("link set cli0 up");
        wait_for("the kernel to see it", || state().trim() == "up");
        drop(release);
        let mut seen = Vec::new();
        while seen.last() != Some(&Notification::Announced(vec![VIP4.into()])) || seen.len() < 3 {
            seen.push(news.recv_timeout(PATIENCE).unwrap());
        }
        assert!(seen.contains(&Notification::Interfaces(Vec::new())), "{seen:?}");
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_renamed_interface_is_matched_by_its_new_name() {
    in_namespace(|| {
        let only = |name: &str| vec![(VIP4.into(), Scope::Only([name.into()].into()))];
        let mut lab = Lab::new(only("vip9"));
        let handle = lab.driver.handle();
        let index = find(&handle, "vip0").unwrap().index;
        ip("link set vip0 down");
        ip("link set vip0 name vip9");
        ip("link set vip9 up");
        lab.wait_for_announcements(US, [VIP4.into()]);
        assert_eq!(find(&handle, "vip9").unwrap().index, index);
        handle.announce(only("vip0"));
        lab.send(&who_has(VIP4));
        wait_for("the dropped request", || {
            handle.counters().dropped.get(&metallb_l2::engine::DropReason::NotMatchInterface) >= Some(&1)
        });
        assert!(!lab.receive().iter().any(|frame| is_answer(frame)));
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_interface_renamed_to_an_excluded_name_is_not_used() {
    in_namespace(|| {
        let lab = Lab::new(both());
        let handle = lab.driver.handle();
        ip("link set vip0 down");
        ip("link set vip0 name secret0");
        ip("link set secret0 up");
        ip("link add vip1 type veth peer name cli1");
        ip("link set cli1 up");
        ip("link set vip1 up");
        wait_for("the other interface", || names(&handle) == ["vip1"]);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_bridge_replaces_its_port_until_the_port_is_released() {
    // Only the bridge answers. The kernel reports the release of the port like the removal of a device.
    in_namespace(|| {
        let mut lab = Lab::new(both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into()]);
        ip("link add vipbr0 address 02:00:00:00:00:99 type bridge");
        ip("link set vipbr0 up");
        ip("link set vip0 master vipbr0");
        wait_for("the bridge in place of its port", || names(&handle) == ["vipbr0"]);
        lab.wait_for_announcements(MacAddr([2, 0, 0, 0, 0, 0x99]), [VIP4.into()]);
        assert_eq!(lab.count_answers_to(&who_has(VIP4)), 1, "exactly one answer");
        ip("link set vip0 nomaster");
        wait_for("the port in place of the bridge", || names(&handle) == ["vip0"]);
        lab.wait_for_announcements(US, [VIP4.into()]);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_macvlan_answers_with_its_own_hardware_address() {
    in_namespace(|| {
        let mut lab = Lab::new(vec![(VIP4.into(), Scope::Only(["vipmac0".into()].into()))]);
        let handle = lab.driver.handle();
        ip("link add link vip0 name vipmac0 address 02:00:00:00:00:55 type macvlan mode bridge");
        ip("link set vipmac0 up");
        lab.wait_for_announcements(MacAddr([2, 0, 0, 0, 0, 0x55]), [VIP4.into()]);
        assert_eq!(lab.count_answers_to(&who_has(VIP4)), 1);
        ip("link del vipmac0");
        wait_for("its removal", || names(&handle) == ["vip0"]);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_device_with_a_reused_index_gets_a_new_socket() {
    in_namespace(|| {
        let mut lab = Lab::new(both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into()]);
        let number = find(&handle, "vip0").unwrap().index;
        ip("link del vip0");
        ip(&format!(
            "link add vip0 address 02:00:00:00:00:01 index {number} type veth peer name cli0 address 02:00:00:00:00:09"
        ));
        ip("link set cli0 up");
        ip("link set vip0 up");
        lab.client = RawSocket::open(nix::net::if_::if_nametoindex("cli0").unwrap()).unwrap();
        wait_for("the device", || find(&handle, "vip0").is_some_and(|interface| interface.index == number));
        lab.wait_for_announcements(US, [VIP4.into()]);
        assert_eq!(lab.count_answers_to(&who_has(VIP4)), 1);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_netlink_overrun_leads_to_a_new_list() {
    in_namespace(|| {
        let lab = Lab::new(Vec::new());
        let handle = lab.driver.handle();
        ip("link add vip1 type veth peer name cli1");
        ip("link set cli1 up");
        ip("link set vip1 up");
        wait_for("both interfaces", || names(&handle).len() == 2);
        let (release, held) = mpsc::channel::<()>();
        handle.listen(move |_| {
            // Until the test drops its end, however long a busy machine needs for the batch.
            let _ = held.recv();
        });
        let batch = tempfile();
        // More messages than the receive buffer holds. The last one matters.
        let lines: String = (0..4000).map(|n| format!("link set vip1 mtu {}\n", 1400 + n % 2)).collect();
        std::fs::write(&batch, lines + "link del vip1\n").unwrap();
        ip(&format!("-batch {}", batch.display()));
        std::fs::remove_file(&batch).unwrap();
        assert_eq!(names(&handle).len(), 2, "the thread is blocked");
        let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let dropped = |line: &str| line.split_whitespace().nth(8).and_then(|drops| drops.parse::<u32>().ok());
        assert!(sockets.lines().skip(1).filter_map(dropped).any(|drops| drops > 0), "{sockets}");
        drop(release);
        wait_for("the end of the interface", || names(&handle) == ["vip0"]);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_duplicate_link_local_address_is_no_source_and_arp_continues() {
    in_namespace(|| {
        let mut lab = Lab::new(both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        ip("addr del fe80::1/64 dev vip0");
        wait_for("the loss of the address", || find(&handle, "vip0").is_some_and(|it| it.link_local.is_none()));
        // The other end has the address, so it is first tentative and then fails duplicate address detection.
        ip("addr add fe80::1/64 dev cli0 nodad");
        ip("addr add fe80::1/64 dev vip0");
        wait_for("the duplicate", || ip("addr show dev vip0").contains("dadfailed"));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(find(&handle, "vip0").unwrap().link_local, None);
        assert_eq!(lab.count_answers_to(&who_has(VIP4)), 1);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_interface_without_ipv6_answers_arp() {
    in_namespace(|| {
        let mut lab = Lab::new(both());
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        // procfs shows the settings of the namespace of the calling thread.
        std::fs::write("/proc/sys/net/ipv6/conf/vip0/disable_ipv6", "1").unwrap();
        wait_for("the loss of the address", || find(&handle, "vip0").is_some_and(|it| it.link_local.is_none()));
        assert_eq!(lab.count_answers_to(&who_has(VIP4)), 1);
    });
}

fn tempfile() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("metallb-l2-{}-{:?}", std::process::id(), std::thread::current().id()))
}
