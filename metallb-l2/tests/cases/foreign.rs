//! Foreign addresses, and addresses that the kernel answers for as well (cases ARP-32 and ARP-36).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use metallb_l2::interface::ForeignAddress;
use metallb_l2::interface::Scope;
use metallb_l2::io::Handle;

use crate::frames::{US, VIP4, VIP4_SENTINEL, VIP6, who_has};
use crate::lab::{Lab, in_namespace, ip, is_answer, is_arp, wait_for};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 5);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 1);
const BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 255);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 6);

fn all(addresses: &[IpAddr]) -> Vec<(IpAddr, Scope)> {
    addresses.iter().map(|&ip| (ip, Scope::All)).collect()
}

fn wait_for_objections(handle: &Handle, expected: &[(Ipv4Addr, ForeignAddress)]) {
    let expected: BTreeMap<IpAddr, ForeignAddress> =
        expected.iter().map(|(ip, foreign)| (IpAddr::V4(*ip), foreign.clone())).collect();
    wait_for(&format!("{expected:?}"), || handle.refused() == expected);
}

fn set_arp_ignore(interface: &str, value: u8) {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore"), value.to_string()).unwrap();
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_foreign_address_is_not_announced_while_it_is_in_use() {
    in_namespace(|| {
        let mut lab = Lab::new(Vec::new());
        let handle = lab.driver.handle();
        // The kernel does not answer, so every reply is one of the driver.
        set_arp_ignore("vip0", 8);
        ip(&format!("addr add {HOST}/24 dev vip0"));
        ip(&format!("route add default via {ROUTER}"));
        ip("addr add fd00::5/64 dev vip0 nodad");
        handle.set_node_addresses(vec![NODE.into()]);
        let refused = [ROUTER, HOST, NODE, BROADCAST];
        let wanted: Vec<IpAddr> =
            refused.map(IpAddr::V4).into_iter().chain([VIP4.into(), VIP4_SENTINEL.into(), VIP6.into()]).collect();
        handle.announce(all(&wanted));
        let eth: Arc<str> = "vip0".into();
        let own = (HOST, ForeignAddress::OwnAddress(Arc::clone(&eth)));
        let broadcast = (BROADCAST, ForeignAddress::BroadcastAddress(eth));
        let (router, node) = ((ROUTER, ForeignAddress::Gateway), (NODE, ForeignAddress::AnotherNode));
        wait_for_objections(&handle, &[own.clone(), broadcast.clone(), router, node.clone()]);
        lab.wait_for_announcements(US, [VIP4.into(), VIP4_SENTINEL.into(), VIP6.into()]);
        assert_eq!(lab.count_answers_to(&who_has(VIP4)), 1, "the first address of a network is not foreign");
        for ip in refused {
            assert_eq!(lab.answers_to(&who_has(ip)), Vec::<Vec<u8>>::new(), "{ip}");
            assert_eq!(handle.counters().gratuitous.get(&IpAddr::V4(ip)), None, "{ip}");
        }
        ip(&format!("route del default via {ROUTER}"));
        lab.wait_for_announcements(US, [ROUTER.into()]);
        wait_for_objections(&handle, &[own, broadcast, node.clone()]);
        ip(&format!("addr del {HOST}/24 dev vip0"));
        lab.wait_for_announcements(US, [HOST, BROADCAST].map(IpAddr::V4));
        wait_for_objections(&handle, &[node]);
        handle.set_node_addresses(Vec::new());
        lab.wait_for_announcements(US, [NODE.into()]);
        assert_eq!(lab.count_answers_to(&who_has(NODE)), 1);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_gateway_of_a_removed_route_is_no_longer_foreign() {
    in_namespace(|| {
        let lab = Lab::new(Vec::new());
        let handle = lab.driver.handle();
        ip("link add vip1 type veth peer name cli1");
        ip("link set vip1 up");
        ip("link set cli1 up");
        ip("addr add 10.7.0.5/24 dev vip1");
        ip("route add default via 10.7.0.1");
        handle.announce(all(&[IpAddr::from([10, 7, 0, 1])]));
        wait_for_objections(&handle, &[([10, 7, 0, 1].into(), ForeignAddress::Gateway)]);
        ip("link set vip1 down");
        wait_for_objections(&handle, &[]);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_answers_by_the_kernel_are_detected_until_arp_ignore_stops_them() {
    // kube-proxy in IPVS mode adds the addresses of Services to a device without ARP.
    in_namespace(|| {
        let mut lab = Lab::new(all(&[VIP4.into(), VIP4_SENTINEL.into()]));
        let handle = lab.driver.handle();
        lab.wait_for_announcements(US, [VIP4.into(), VIP4_SENTINEL.into()]);
        ip("addr add 192.168.20.5/24 dev vip0");
        // Some kernels lack dummy devices. A veth device without ARP behaves the same.
        ip("link add kube-ipvs0 type veth peer name unused0");
        ip("link set kube-ipvs0 arp off");
        ip(&format!("addr add {VIP4}/32 dev kube-ipvs0"));
        let elsewhere = IpAddr::from([192, 168, 10, 99]);
        ip(&format!("addr add {elsewhere}/32 dev kube-ipvs0"));
        let asked = || handle.answered_by_kernel(vec![VIP4.into(), VIP4_SENTINEL.into(), VIP6.into(), elsewhere]);
        let both = BTreeMap::from([(VIP4.into(), vec!["vip0".into()]), (elsewhere, vec!["vip0".into()])]);
        wait_for("the addresses", || asked().as_ref() == Some(&both));
        assert_eq!(handle.refused(), BTreeMap::new(), "it is still announced");
        // The kernel answers requests from the network of one of its addresses.
        let arps = |lab: &mut Lab| lab.count_answers_to(&who_has(VIP4));
        assert_eq!(arps(&mut lab), 2, "the reply of the kernel and that of the driver");
        set_arp_ignore("vip0", 1);
        assert_eq!(asked(), Some(BTreeMap::new()));
        assert_eq!(arps(&mut lab), 1);
        set_arp_ignore("vip0", 0);
        set_arp_ignore("all", 2);
        assert_eq!(asked(), Some(BTreeMap::new()));
        lab.send(&who_has(Ipv4Addr::new(192, 168, 10, 99)));
        lab.send(&who_has(VIP4_SENTINEL));
        let mut answered = Vec::new();
        wait_for("the last answer", || {
            answered.extend(lab.receive().into_iter().filter(|frame| is_answer(frame) && is_arp(frame)));
            !answered.is_empty()
        });
        assert!(
            answered.iter().all(|frame| frame[28..32] == VIP4_SENTINEL.octets()),
            "the kernel does not answer for an address that another node announces"
        );
    });
}
