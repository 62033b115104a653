//! Which node answers for an address, which nodes follow, and what moves when a node fails:
//! `cargo run -p metallb-core --example elect`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::{IpAddr, Ipv4Addr};

use metallb_core::election::Electorate;
use metallb_core::model::NodeName;

fn main() {
    let nodes = ["node-a", "node-b", "node-c"].map(NodeName::from);
    let addresses: Vec<IpAddr> = (0..6).map(|last| Ipv4Addr::new(192, 168, 10, last).into()).collect();

    // No preferences: every score is 0, and the lowest sha256 of `node#ip` wins.
    let all = Electorate::new(nodes.iter().map(|node| (node.clone(), 0)));
    for &ip in &addresses {
        let order: Vec<String> = all.ranking(ip, 2).iter().map(ToString::to_string).collect();
        println!("{ip}: {}", order.join(", then "));
    }

    // Only the addresses of node-b move, each to the node that was next.
    let others = Electorate::new(nodes.iter().filter(|node| node.as_str() != "node-b").map(|node| (node.clone(), 0)));
    for ip in all.owned_by(&nodes[1], addresses.iter().copied()) {
        let owner = others.owner(ip).map_or("no node", NodeName::as_str);
        println!("node-b fails: {ip} moves to {owner}");
    }
}
