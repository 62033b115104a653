//! Elects the owner of each address, and shows which addresses move when a node fails.
//!
//! Run with `cargo run -p metallb-core --example elect`.
#![expect(clippy::print_stdout, reason = "the example prints its results")]

use std::net::{IpAddr, Ipv4Addr};

use metallb_core::election::Electorate;
use metallb_core::model::NodeName;

fn main() {
    let addresses: Vec<IpAddr> = (0..6).map(|last| Ipv4Addr::new(192, 168, 10, last).into()).collect();

    // Without preferences every score is 0, and the lowest SHA-256 of `node#address` wins.
    let before = electorate(&["node-a", "node-b", "node-c"]);
    for &ip in &addresses {
        println!("{ip}: announced by {}", owner(&before, ip));
    }

    // Only the addresses of node-b move, each to the node with the next higher hash.
    let after = electorate(&["node-a", "node-c"]);
    for &ip in addresses.iter().filter(|&&ip| owner(&before, ip) != owner(&after, ip)) {
        println!("node-b failed: {ip} moves from {} to {}", owner(&before, ip), owner(&after, ip));
    }
}

fn electorate(nodes: &[&str]) -> Electorate {
    Electorate::new(nodes.iter().map(|&node| (NodeName::from(node), 0)))
}

fn owner(electorate: &Electorate, ip: IpAddr) -> &str {
    electorate.owner(ip).map_or("no node", NodeName::as_str)
}
