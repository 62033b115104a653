//! The neighbour cache of a real neighbour after announcements, and that of the local kernel after solicitations by the
//! driver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use metallb_l2::interface::{MacAddr, Scope};
use metallb_l2::wire::arp::{Arp, Operation};

use crate::frames::{CLIENT, Icmp, US, VIP4, VIP6, ZERO, link_layer_option};
use crate::lab::{Lab, in_namespace, ip, is_arp, wait_for};

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_neighbour_in_any_state_follows_the_first_announcement() {
    // Case NDP-39, and the same for ARP: the cache of the neighbour points to the previous owner.
    in_namespace(|| {
        let lab = Lab::new(Vec::new());
        let handle = lab.driver.handle();
        for vip in [VIP4.to_string(), VIP6.to_string()] {
            for state in ["reachable", "stale", "delay", "probe"] {
                ip(&format!("neighbour replace {vip} lladdr 02:00:00:00:00:33 nud {state} dev cli0"));
                handle.announce(vec![(vip.parse().unwrap(), Scope::All)]);
                wait_for(&format!("{vip} in state {state} to move"), || {
                    ip(&format!("neighbour show {vip} dev cli0")).contains("lladdr 02:00:00:00:00:01")
                });
                handle.announce(Vec::<(IpAddr, Scope)>::new());
            }
        }
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_kernel_accepts_the_reply_to_a_solicitation_by_the_driver() {
    const HOST4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 5);
    const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 6);
    const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
    const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 6);
    in_namespace(|| {
        let mut lab = Lab::new(Vec::new());
        ip(&format!("addr add {HOST4}/24 dev vip0"));
        ip(&format!("addr add {HOST6}/64 dev vip0 nodad"));
        let handle = lab.driver.handle();
        // Two hosts are outside the network of the source, and one source does not exist.
        handle.solicit(HOST4.into(), ["192.168.11.6", "fd00::6"].map(|ip| ip.parse().unwrap()).to_vec());
        handle.solicit("192.168.10.7".parse().unwrap(), vec![OTHER4.into()]);
        let rows: [(IpAddr, IpAddr, Vec<u8>, Vec<u8>); 2] = [
            (
                HOST4.into(),
                OTHER4.into(),
                arp(Operation::Request, US, HOST4, ZERO, OTHER4).encode(MacAddr::BROADCAST).as_bytes().to_vec(),
                arp(Operation::Reply, CLIENT, OTHER4, US, HOST4).encode(US).as_bytes().to_vec(),
            ),
            (
                HOST6.into(),
                OTHER6.into(),
                Icmp { from: US, source: HOST6, options: link_layer_option(1, US), ..Icmp::solicitation(OTHER6) }
                    .frame(),
                // Solicited and Override.
                Icmp {
                    from: CLIENT,
                    source: OTHER6,
                    options: link_layer_option(2, CLIENT),
                    ..Icmp::answer(OTHER6, US, HOST6, 0x60)
                }
                .frame(),
            ),
        ];
        let mut parsed = Vec::new();
        for (host, other, question, answer) in rows {
            // The kernel sends three requests, one per second, independent of the driver.
            UdpSocket::bind((host, 0)).unwrap().send_to(&[0], (other, 9)).unwrap();
            let state = || ip(&format!("neighbour show {other} dev vip0"));
            assert!(state().contains("INCOMPLETE"), "{}", state());
            parsed.extend(lab.receive());
            let mut asked = Vec::new();
            handle.solicit(host, vec![other]);
            wait_for("the solicitation", || {
                asked.extend(lab.receive());
                asked.contains(&question)
            });
            lab.send(&answer);
            wait_for("the kernel to accept the reply", || state().contains("lladdr 02:00:00:00:00:09"));
            parsed.extend(asked);
        }
        let about = |frame: &Vec<u8>, ip: [u8; 4]| is_arp(frame) && (frame[28..32] == ip || frame[38..42] == ip);
        for elsewhere in [[192, 168, 11, 6], [192, 168, 10, 7]] {
            assert!(!parsed.iter().any(|frame| about(frame, elsewhere)), "{elsewhere:?}");
        }
    });
}

fn arp(operation: Operation, sender: MacAddr, source: Ipv4Addr, target: MacAddr, host: Ipv4Addr) -> Arp {
    Arp { operation, sender_hardware: sender, sender_protocol: source, target_hardware: target, target_protocol: host }
}
