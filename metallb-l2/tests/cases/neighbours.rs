//! What the caches of a real neighbour, the kernel at the other end, make of announcements.

use metallb_l2::interface::Scope;

use crate::frames::{VIP4, VIP6};
use crate::lab::{Lab, in_namespace, ip, wait_for};

#[test]
fn lab_neighbour_in_any_state_follows_the_first_announcement() {
    // Case NDP-39, and the same for ARP: the neighbour knows the address at the old owner.
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
                handle.announce(Vec::<(std::net::IpAddr, Scope)>::new());
            }
        }
    });
}
